"""The host: one application of several services, at the same addresses as each alone."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deploy.host import Host, host
from libs.common.settings import Settings
from libs.common.web import create_app, guarded_router, public


class AService:
    """A service as small as the host can see it; writes what happens to it into `story`."""

    def __init__(self, name: str, home: Path, story: list[str], *, fails: bool = False) -> None:
        self.name = name
        self.waiting: list[str] = []
        self._story = story
        self._fails = fails
        self.app: FastAPI = create_app(
            name,
            title=f"服务 {name}",
            description="试验",
            settings=Settings(home=home),
            routers=[self._router()],
            asyncapi=lambda: {"asyncapi": "3.0.0"},
            not_ready=self._not_ready,
        )

    def _router(self) -> Any:
        router = guarded_router(self.name)

        @router.get("/paths", dependencies=[public()])
        async def show_paths() -> str:
            return self.name

        return router

    async def _not_ready(self) -> list[str]:
        return self.waiting

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self._fails:
            raise RuntimeError("no database")
        self._story.append(f"{self.name} runs")
        try:
            yield
        finally:
            self._story.append(f"{self.name} stops")


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def services(tmp_path: Path, story: list[str]) -> list[AService]:
    return [AService(name, tmp_path, story) for name in ("intake", "finance")]


def client(application: Host) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://huanquan")


async def live(application: Host) -> list[str]:
    """Start and stop as a server does; gives what the application answers."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answers: list[str] = []

    async def send(message: Any) -> None:
        answers.append(message["type"])

    inbox.put_nowait({"type": "lifespan.startup"})
    inbox.put_nowait({"type": "lifespan.shutdown"})
    try:
        await application({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, inbox.get, send)
    except RuntimeError:
        answers.append("raised")
    return answers


async def test_each_service_answers_at_its_own_addresses(services: list[AService]) -> None:
    async with client(host(*services)) as http:
        for name in ("intake", "finance"):
            assert (await http.get(f"/{name}/v1/paths")).json() == name
            assert (await http.get(f"/{name}/livez")).status_code == 200
            assert list((await http.get(f"/{name}/openapi.json")).json()["paths"]) == [f"/{name}/v1/paths"]
    async with client(host(services[0])) as http:
        assert (await http.get("/intake/v1/paths")).json() == "intake"
        assert (await http.get("/finance/v1/paths")).status_code == 404


async def test_services_run_while_the_process_serves(services: list[AService], story: list[str]) -> None:
    assert await live(host(*services)) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert story == ["intake runs", "finance runs", "finance stops", "intake stops"]


async def test_what_had_started_is_stopped_when_one_fails(
    services: list[AService], story: list[str], tmp_path: Path
) -> None:
    failing = AService("audit", tmp_path, story, fails=True)
    assert "lifespan.startup.failed" in await live(host(*services, failing))
    assert story == ["intake runs", "finance runs", "finance stops", "intake stops"]


async def test_the_first_page_lists_every_page_and_needs_no_internet(services: list[AService]) -> None:
    async with client(host(*services, extra=lambda: "<h2>令牌</h2>")) as http:
        html = (await http.get("/")).text
        assert "<h2>令牌</h2>" in html
        assert "//" not in html
        links = re.findall(r'href="([^"]+)"', html)
        assert {"/intake/docs", "/finance/asyncapi", "/errors"} <= set(links)
        for link in links:
            assert (await http.get(link)).status_code == 200, link


async def test_every_kind_of_problem_is_explained_at_its_address(services: list[AService]) -> None:
    async with client(host(*services)) as http:
        answer = await http.get("/nothing/here")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        page, _, anchor = answer.json()["type"].partition("#")
        assert f'id="{anchor}"' in (await http.get(page)).text


async def test_the_host_is_ready_when_every_service_is(services: list[AService]) -> None:
    async with client(host(*services)) as http:
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        services[1].waiting = ["bus"]
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert "finance: bus" in answer.json()["detail"]
        assert (await http.get("/favicon.ico")).status_code == 204
