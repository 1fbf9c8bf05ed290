"""What a client can do to a connection: announce too much, send too much, too slowly, too deep, or half, and too often.
A real server with small limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import Request

from libs.common import connection
from libs.common.auth import TokenIssuer
from libs.common.connection import Connection
from libs.common.settings import Settings
from libs.common.web import Caller, create_app, guarded_router, requires
from tests.conftest import free_port

SECONDS = 1.0
PATIENCE = 20.0


class Edge:
    """A served application that counts what reached its operation."""

    def __init__(self, port: int, token: str, other: str) -> None:
        self.port, self.token, self.other, self.reached = port, token, other, 0

    async def send(self, *parts: bytes, pause: float = 0, end: bool = False, token: str | None = None) -> "Answer":
        """A POST whose headers end with the first part; then the others, `pause` between; `end` closes our side."""
        start = "POST /intake/v1/things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        first = f"{start}Authorization: Bearer {token or self.token}\r\n".encode() + parts[0]
        return await self.exchange(first, *parts[1:], pause=pause, end=end)

    async def exchange(self, *parts: bytes, pause: float = 0, end: bool = False) -> "Answer":
        """Any bytes on a connection of their own, in order, `pause` between; the answer, as soon as it is there."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = asyncio.create_task(_read(reader))
        for part in parts:
            if answer.done():  # it has heard enough
                break
            writer.write(part)
            await asyncio.sleep(pause)
        if end:
            writer.write_eof()
        try:
            return await answer
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> "Answer":
    try:
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            return Answer(int(head.split(" ")[1]), head, await reader.readexactly(length))
    except asyncio.IncompleteReadError:
        return Answer(0, "", b"{}")


class Answer:
    """Status (0: none, the connection was closed), headers as text, body."""

    def __init__(self, status: int, headers: str, body: bytes) -> None:
        self.status, self.headers = status, headers
        self.body: dict[str, Any] = json.loads(body) if body.startswith(b"{") else {}


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Edge]:
    issuer = TokenIssuer(settings)
    edge = Edge(free_port(), issuer.token("portal"), issuer.token("portal", subject="another", client="another"))
    router = guarded_router("intake")

    @router.post("/things", dependencies=[requires("intake:file")])
    async def take(thing: dict[str, Any], request: Request, caller: Caller) -> dict[str, bool]:
        """取走。"""
        edge.reached += 1
        return {"took": True}

    @router.get("/slow", dependencies=[requires("intake:file")])
    async def slow(caller: Caller) -> dict[str, bool]:
        """慢。"""
        await asyncio.sleep(SECONDS * 1.5)
        return {"took": True}

    async def ready() -> list[str]:
        return []

    app = create_app(
        "intake", title="受理", description="试验", settings=settings, routers=[router], asyncapi=dict, not_ready=ready
    )
    server = uvicorn.Server(uvicorn.Config(app, port=edge.port, http=Connection, log_config=None, access_log=False))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to wait on
        await asyncio.sleep(0.01)
    yield edge
    server.should_exit = True
    await running


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    settings = Settings(
        home=tmp_path, max_body_bytes=4096, body_seconds=SECONDS, requests_per_second=0.5, requests_burst=6
    )
    async with serving(settings) as made:
        yield made


def chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


HEAD = b"POST /intake/v1/things HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SECONDS)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "parts", [[b""], [HEAD], [HEAD, *[b"X-Slow: 1\r\n"] * 20]], ids=["nothing", "half", "drop by drop"]
)
async def test_a_head_that_does_not_end_is_not_waited_for(edge: Edge, parts: list[bytes]) -> None:
    refused = await edge.exchange(*parts, pause=SECONDS / 8)
    assert (refused.status, refused.body["code"]) == (408, "request-timeout")
    assert "connection: close" in refused.headers


@pytest.mark.usefixtures("hasty")
async def test_a_second_head_on_a_connection_is_not_waited_for_either(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"GET /intake/v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await _read(reader)).status == 404
    await asyncio.sleep(SECONDS * 1.5)  # to be silent between two requests is allowed
    writer.write(HEAD)
    assert (await _read(reader)).status == 408
    writer.close()


@pytest.mark.usefixtures("hasty")
async def test_half_a_head_behind_a_request_leaves_its_slow_answer_whole(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    start = f"GET /intake/v1/slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {edge.token}\r\n\r\n"
    writer.write(start.encode() + HEAD)
    answered = await _read(reader)
    assert (answered.status, answered.body) == (200, {"took": True})
    assert (await _read(reader)).status == 408
    writer.close()


async def test_what_is_no_http_is_refused_as_a_problem(edge: Edge) -> None:
    refused = await edge.exchange("这不是请求\r\n\r\n".encode())
    assert (refused.status, refused.body["code"]) == (400, "malformed-request")
    assert "application/problem+json" in refused.headers


async def test_a_body_announced_too_large_is_refused_before_it_comes(edge: Edge) -> None:
    refused = await edge.send(b"Content-Length: 1000000000000\r\n\r\n")
    assert (refused.status, refused.body["code"]) == (413, "too-large")
    assert "connection: close" in refused.headers


async def test_a_body_that_grows_too_large_is_cut_off(edge: Edge) -> None:
    refused = await edge.send(b"Transfer-Encoding: chunked\r\n\r\n", *[chunk(b" " * 1000)] * 5)
    assert (refused.status, refused.body["code"]) == (413, "too-large")


async def test_a_body_that_trickles_is_cut_off(edge: Edge) -> None:
    refused = await edge.send(b"Content-Length: 100\r\n\r\n", *[b" "] * 20, pause=SECONDS / 8)
    assert (refused.status, refused.body["code"]) == (408, "request-timeout")


async def test_a_body_that_never_comes_is_not_waited_for(edge: Edge) -> None:
    refused = await edge.send(b"Content-Length: 100\r\n\r\n")
    assert (refused.status, refused.body["code"]) == (408, "request-timeout")


async def test_half_a_body_does_nothing(edge: Edge) -> None:
    for framing in (b"Content-Length: 100\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"{}")):
        await edge.send(framing, end=True)
    assert edge.reached == 0
    assert (await edge.send(b"Content-Length: 2\r\n\r\n{}")).body == {"took": True}


@pytest.mark.parametrize(
    "body", [b'{"a":' * 800 + b"1", b"[" * 4000, b'{"a": "\xed\xa0\x80"}', b"\xff\xfe{\0}\0"], ids=len
)
async def test_a_body_that_cannot_be_read_is_told_so(edge: Edge, body: bytes) -> None:
    refused = await edge.send(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert (refused.status, refused.body["code"]) == (400, "malformed-body")


async def test_who_asks_too_often_waits_as_long_as_told_and_others_do_not(edge: Edge) -> None:
    small = b"Content-Length: 2\r\n\r\n{}"
    told = [await edge.send(small) for _ in range(8)]
    refused = next(answer for answer in told if answer.status != 200)
    assert (refused.status, refused.body["code"]) == (429, "too-many-requests")
    assert (await edge.send(small, token=edge.other)).status == 200
    await asyncio.sleep(int(refused.headers.split("retry-after: ")[1].split("\r\n")[0]))
    assert (await edge.send(small)).status == 200


async def test_who_asks_too_often_is_refused_before_the_body_is_read(edge: Edge) -> None:
    statuses = {(await edge.send(b"Content-Length: 1000000000000\r\n\r\n")).status for _ in range(9)}
    assert statuses == {413, 429}


async def test_a_token_longer_than_any_is_refused(edge: Edge) -> None:
    refused = await edge.send(b"Content-Length: 2\r\n\r\n{}", token="a" * 60_000)
    assert 400 <= refused.status < 500
    assert edge.reached == 0
