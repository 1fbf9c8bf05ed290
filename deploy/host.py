"""One or five services in one process: `host(*services)` is the function behind both forms.

A request goes to the application that its first path segment names; addresses are complete in each service, so
nothing is rewritten and no `root_path` is set. The lifespan enters `running()` of each service in order.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from html import escape
from typing import Protocol

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.common.errors import NotReady, registry
from libs.common.events import BY_TYPE
from libs.common.problems import handlers

_STYLE = (
    "body{font:16px/1.6 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    "code,pre{background:#f4f4f4;padding:.1rem .3rem;overflow-wrap:anywhere;white-space:pre-wrap}"
)


class Hosted(Protocol):
    """What the host needs of a service."""

    @property
    def name(self) -> str:
        """The first path segment."""

    @property
    def app(self) -> FastAPI:
        """Its application, made by `create_app`."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """The service's background work, entered for as long as the process serves."""


class Host:
    """The ASGI application of a process. `failures` says why it did not start."""

    def __init__(self, front: ASGIApp, apps: Mapping[str, ASGIApp], failures: Sequence[Exception]) -> None:
        self._front = front
        self._apps = apps
        self.failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over to the service that the first segment names, else to the front."""
        segment = scope["path"].removeprefix("/").partition("/")[0] if scope["type"] in {"http", "websocket"} else ""
        await self._apps.get(segment, self._front)(scope, receive, send)


def host(*services: Hosted, extra: Callable[[], str] = str) -> Host:
    """One application of these services. `extra` gives HTML for the foot of the page at `/`, asked at each visit."""

    failures: list[Exception] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                for service in services:
                    await stack.enter_async_context(service.running())
                settle_memory()
            except Exception as error:
                failures.append(error)
                raise
            yield

    async def index(_request: Request) -> Response:
        return HTMLResponse(_index(services, extra()))

    async def readyz(_request: Request) -> Response:
        answers = await asyncio.gather(*(service.app.state.not_ready() for service in services))
        things = [f"{s.name}: {thing}" for s, answer in zip(services, answers, strict=True) for thing in answer]
        if things:
            raise NotReady(things="、".join(things))
        return JSONResponse({"status": "ready"})

    routes = [
        Route("/", index),
        Route("/errors", _errors),
        Route("/events/{name}.json", _event_schema),
        Route("/livez", _livez),
        Route("/readyz", readyz),
        Route("/favicon.ico", _no_icon),
    ]
    front = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers())
    front.router.redirect_slashes = False
    return Host(front, {service.name: service.app for service in services}, failures)


def settle_memory() -> None:
    """What a started process holds stays as long as it: let the collector look at what comes later only, and less
    often. Looking through all of it took a seventh of the time of a filing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _livez(_request: Request) -> Response:
    return JSONResponse({"status": "alive"})


async def _no_icon(_request: Request) -> Response:
    return Response(status_code=204)


async def _event_schema(request: Request) -> Response:
    """The schema that an event's `ce_dataschema` names."""
    event = BY_TYPE.get(request.path_params["name"])
    if event is None:
        raise HTTPException(404)
    return JSONResponse(event.model_json_schema(mode="serialization"), media_type="application/schema+json")


async def _errors(_request: Request) -> Response:
    rows = "".join(
        f'<tr id="{code}"><td>{kind.status}</td><td><code>{code}</code></td><td>{escape(kind.title)}</td>'
        f"<td>{escape(kind.detail or kind.title)}</td></tr>"
        for code, kind in registry().items()
    )
    heads = "<tr><th>状态</th><th>代码</th><th>标题</th><th>说明与办法</th></tr>"
    return HTMLResponse(_page("错误代码", f"<table>{heads}{rows}</table>"))


def _index(services: tuple[Hosted, ...], extra: str) -> str:
    rows = "".join(
        f"<tr><td><b>{s.name}</b></td><td>{escape(s.app.title)}</td>"
        f'<td><a href="/{s.name}/docs">接口</a></td><td><a href="/{s.name}/asyncapi">事件</a></td>'
        f'<td><a href="/{s.name}/readyz">就绪</a></td><td><a href="/{s.name}/metrics">指标</a></td></tr>'
        for s in services
    )
    return _page("洹泉", f'<table>{rows}</table><p><a href="/errors">错误代码</a></p>{extra}')


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>"
    )
