"""The HTTP edge of a service: its application, the guard before every operation, and the transaction of a request.

Every operation declares who may call it (`requires(scope)` or `public()`); the guard answers 401 and 403 before the
body is read and before anything is looked up. A route with neither is refused when it is defined.
"""

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Annotated, Any

import fastapi_offline
from asyncapi_viewer.assets import STATIC_DIR, VIEWER_MODULE, VIEWER_THEME
from fastapi import APIRouter, Depends, FastAPI, Request, params
from fastapi.dependencies.models import Dependant
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from libs.common.auth import SCOPES, Principal, Verifier
from libs.common.edge import Edge, Metrics, RateLimit, limited
from libs.common.errors import (
    FieldProblem,
    Forbidden,
    NotReady,
    Problem,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from libs.common.problems import MEDIA_TYPE, handlers
from libs.common.settings import Settings
from libs.common.tracing import Tracing

VERSION = "1"
_DOCS_ASSETS = Path(fastapi_offline.__file__).parent / "static"
_BEARER = HTTPBearer(scheme_name="bearer", bearerFormat="JWT", auto_error=False, description="访问令牌（JWT）")
_TEXT_HEADER = {"required": True, "schema": {"type": "string"}}
_SECONDS_HEADER = {"required": True, "schema": {"type": "integer", "minimum": 1}}
_HEADERS = {401: {"WWW-Authenticate": _TEXT_HEADER}, 429: {"Retry-After": _SECONDS_HEADER}}
_HEADERS |= {503: _HEADERS[429]}
# What may answer any operation; one that needs a token, reads a body, has an idempotency key, names a version.
_REFUSALS = {404: "未找到", 413: "请求内容过大", 422: "请求内容不符合要求", 429: "请求过于频繁", 503: "服务暂时不可用"}
_OF_TOKEN = {401: "未登录或登录凭证无效", 403: "没有权限"}
_OF_BODY = {400: "请求内容无法解析", 408: "请求内容接收超时", 415: "不支持的内容类型"}
_OF_KEY = {400: "缺少有效的幂等键，或请求内容无法解析", 409: "幂等键已用于其他内容，或状态冲突"}
_OF_VERSION = {412: "记录已被他人修改", 428: "缺少版本标识"}


async def caller(request: Request, _token: Annotated[object, Depends(_BEARER)]) -> Principal:
    """The caller whom the guard let in."""
    principal: Principal = request.state.principal
    return principal


Caller = Annotated[Principal, Depends(caller)]


async def transaction(request: Request) -> AsyncIterator[AsyncConnection]:
    """One transaction for the request: commits before the answer leaves, rolls back when the operation raises."""
    async with request.app.state.service.database.transaction() as tx:
        yield tx


# With the default scope the answer would leave before the commit, and a failed commit would still answer 201.
Tx = Annotated[AsyncConnection, Depends(transaction, scope="function")]


def requires(scope: str) -> params.Security:
    """Declares the scope that an operation needs. Raises KeyError for a scope that does not exist."""
    if scope not in SCOPES:
        raise KeyError(scope)
    return params.Security(caller, scopes=[scope])


def public() -> params.Depends:
    """Declares that an operation needs no token."""
    return params.Depends(_public)


def body_limit(max_bytes: int) -> params.Depends:
    """Declares that an operation takes bodies up to `max_bytes`, where that differs from the service's limit."""
    return params.Depends(_BodyLimit(max_bytes))


async def _public() -> None: ...


@dataclass(frozen=True)
class _BodyLimit:
    max_bytes: int

    async def __call__(self) -> None: ...


class GuardedRoute(APIRoute):
    """An operation behind the guard. Raises TypeError where it declares neither `requires(…)` nor `public()`, and where
    anything of it is no coroutine: each such part is a hop through a thread, a third of the time of a quick request."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **kwargs: Any) -> None:
        declared = list(kwargs.get("dependencies") or ())
        scopes = [scope for it in declared if isinstance(it, params.Security) for scope in it.scopes or ()]
        if len(scopes) + sum(it.dependency is _public for it in declared) != 1:
            raise TypeError(f"{path} ({endpoint.__qualname__}) declares no scope: say requires(…) or public(), once")
        self.guarding_scope = scopes[0] if scopes else None
        limits = [it.dependency.max_bytes for it in declared if isinstance(it.dependency, _BodyLimit)]
        self.max_bytes: int | None = limits[0] if limits else None
        refusals = _REFUSALS | (_OF_TOKEN if scopes else {})
        kwargs["responses"] = {code: _refusal(code, words) for code, words in refusals.items()} | (
            kwargs.get("responses") or {}
        )
        super().__init__(path, endpoint, **kwargs)
        for part in _parts(self.dependant):
            if not _is_coroutine(part):
                raise TypeError(f"{path}: {part} is no coroutine")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this operation is meant. In `{application}:withdraw` what stands behind the colon is the verb of
        another operation, so no parameter holds one."""
        match, found = super().matches(scope)
        if any(":" in value for value in found.get("path_params", {}).values()):
            return Match.NONE, {}
        return match, found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say which methods the address has: the router alone names those of the first operation there."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(_methods_at(scope)))})
        await super().handle(scope, receive, send)

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The operation with the guard before it: token, scope, rate, media type, and limits on the body."""
        handle = super().get_route_handler()
        field = self.body_field
        reads_json = field is not None and not isinstance(field.field_info, params.Form)

        async def guarded(request: Request) -> Response:
            state = request.app.state
            if self.guarding_scope is not None:
                request.state.principal = await _admitted(request, self.guarding_scope)
                state.rate_limit.take(request.state.principal.client)
            else:
                state.rate_limit.take(_address(request))
            if state.closed and request.method != "GET":
                raise Unavailable
            if reads_json:
                _check_media_type(request)
            receive = limited(
                request.scope,
                request.receive,
                max_bytes=self.max_bytes or state.settings.max_body_bytes,
                seconds_per_mib=state.settings.body_seconds,
            )
            response: Response = await handle(_Utf8Request(request.scope, receive))
            return response

        return guarded


def _address(request: Request) -> str:
    """What stands for the client where no token names it: behind a proxy one address for all, unless uvicorn is told to
    believe its `X-Forwarded-For` (docs/operations.md)."""
    return f"address {request.client.host if request.client else 'unknown'}"


def _parts(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    if dependant.call is not None:
        yield dependant.call
    for inner in dependant.dependencies:
        yield from _parts(inner)


def _is_coroutine(part: Callable[..., Any]) -> bool:
    return any(inspect.iscoroutinefunction(it) or inspect.isasyncgenfunction(it) for it in (part, type(part).__call__))


class _Utf8Request(Request):
    """Reads JSON as UTF-8 only, as RFC 8259 has it: Python would guess other encodings, and take half characters."""

    async def json(self) -> Any:
        """The body. Raises ValueError."""
        return json.loads((await self.body()).decode("utf-8-sig"))


def _methods_at(scope: Scope) -> set[str]:
    methods: set[str] = set()
    for route in scope["app"].routes:
        found = isinstance(route, GuardedRoute) and route.path_regex.match(scope["path"])
        if found and not any(":" in value for value in found.groups()):
            methods |= route.methods or set()
    return methods


def guarded_router(name: str, **kwargs: Any) -> APIRouter:
    """A router of a service whose operations all stand behind the guard, each at its address in full."""
    return APIRouter(
        route_class=GuardedRoute,
        prefix=f"/{name}/v1",
        generate_unique_id_function=lambda route: f"{name}_{route.name}",
        **kwargs,
    )


async def _admitted(request: Request, scope: str) -> Principal:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise Unauthenticated
    verifier: Verifier = request.app.state.verifier
    principal = await verifier.verify(token.strip())
    if scope not in principal.scopes:
        raise Forbidden(scope=scope)
    return principal


def _check_media_type(request: Request) -> None:
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    message = Message()
    message["content-type"] = headers.get("content-type", "")
    kind = message.get_content_type()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType(accepted="application/json")


class ServiceApp(FastAPI):
    """A FastAPI whose OpenAPI document describes the refusals and the required headers truly."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document; made once."""
        if self.openapi_schema is None:
            made = super().openapi()
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            for model in (Problem, FieldProblem):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schema.pop("$defs", None)
                schemas[model.__name__] = schema
            for route in self.routes:
                if isinstance(route, GuardedRoute):
                    for method in route.methods or ():
                        operation = made["paths"][route.path_format][method.lower()]
                        _complete(operation, max_bytes=route.max_bytes or self.state.settings.max_body_bytes)
        return super().openapi()


def create_app(
    name: str,
    *,
    title: str,
    description: str,
    settings: Settings,
    routers: Sequence[APIRouter],
    asyncapi: Callable[[], dict[str, Any]],
    not_ready: Callable[[], Awaitable[list[str]]],
) -> ServiceApp:
    """A service's application, with every address in full (`/<name>/v1/…`), so it works alone and hosted alike.

    `asyncapi` makes the AsyncAPI document; `not_ready` names what is not ready (empty: ready). Raises TypeError where
    a route has no guard or two operations share a name. `app.state` holds `settings`, `verifier`, `metrics` (the
    Prometheus registry), `not_ready`, `closed` (whatever would change something is refused for the moment), `tracing`
    (its spans), and later `service`, whose `database` serves `Tx`, and its `gauges`.
    """
    metrics = Metrics()
    app = ServiceApp(
        title=title,
        description=description,
        version=VERSION,
        openapi_url=f"/{name}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers(),
    )
    app.state.settings, app.state.not_ready, app.state.metrics = settings, not_ready, metrics.registry
    app.state.gauges, app.state.closed, app.state.tracing = None, False, Tracing(name, settings)
    app.state.verifier = Verifier(
        str(settings.jwks), issuer=str(settings.issuer), audience=settings.audience, hours=settings.token_hours
    )
    app.state.rate_limit = RateLimit(per_second=settings.requests_per_second, burst=settings.requests_burst)
    for router in routers:  # their routes as they are: `include_router` would make each a second time, in milliseconds
        app.router.routes.extend(router.routes)
    quiet = _mount_operations(app, name) | _mount_pages(app, name, asyncapi)
    app.add_middleware(Edge, metrics=metrics, tracing=app.state.tracing, routes=_checked_routes(app), quiet=quiet)
    return app


def _checked_routes(app: FastAPI) -> Mapping[object, str]:
    templates: dict[object, str] = {}
    operations: set[str] = set()
    for route in app.routes:
        if isinstance(route, APIRoute):
            if not isinstance(route, GuardedRoute):
                raise TypeError(f"{route.path} has no guard: use guarded_router()")
            if route.unique_id in operations:
                raise TypeError(f"two operations are called {route.unique_id}")
            operations.add(route.unique_id)
        templates[getattr(route, "endpoint", None) or getattr(route, "app", None)] = getattr(route, "path", "")
    return templates


def _mount_operations(app: FastAPI, name: str) -> frozenset[str]:
    async def livez(_request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_request: Request) -> Response:
        """What does not work is named: see `Service.not_ready`."""
        things = await app.state.not_ready()
        if things:
            raise NotReady(things="、".join(things))
        return JSONResponse({"status": "ready"})

    async def metrics(_request: Request) -> Response:
        if app.state.gauges is not None:
            await app.state.gauges.refresh()
        return Response(generate_latest(app.state.metrics), media_type=CONTENT_TYPE_LATEST)

    pages = {f"/{name}/livez": livez, f"/{name}/readyz": readyz, f"/{name}/metrics": metrics}
    for path, page in pages.items():
        app.add_route(path, page)
    return frozenset(pages)


def _mount_pages(app: FastAPI, name: str, asyncapi: Callable[[], dict[str, Any]]) -> frozenset[str]:
    openapi_assets, asyncapi_assets = f"/{name}/docs/assets", f"/{name}/asyncapi/assets"

    async def docs(_request: Request) -> Response:
        return get_swagger_ui_html(
            openapi_url=f"/{name}/openapi.json",
            title=app.title,
            swagger_js_url=f"{openapi_assets}/swagger-ui-bundle.js",
            swagger_css_url=f"{openapi_assets}/swagger-ui.css",
            swagger_favicon_url=f"{openapi_assets}/favicon.png",
            swagger_ui_parameters={"validatorUrl": "none", "docExpansion": "none"},
        )

    async def asyncapi_page(_request: Request) -> Response:
        return HTMLResponse(
            f'<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><title>{app.title} · 事件</title>'
            f'<link rel="stylesheet" href="{asyncapi_assets}/{VIEWER_THEME}">'
            f'<script type="module" src="{asyncapi_assets}/{VIEWER_MODULE}"></script></head>'
            f'<body><asyncapi-viewer src="/{name}/asyncapi.json"></asyncapi-viewer></body></html>'
        )

    async def asyncapi_document(_request: Request) -> Response:
        return JSONResponse(asyncapi())

    app.mount(openapi_assets, StaticFiles(directory=_DOCS_ASSETS))
    app.mount(asyncapi_assets, StaticFiles(directory=STATIC_DIR))
    app.add_route(f"/{name}/docs", docs)
    app.add_route(f"/{name}/asyncapi", asyncapi_page)
    app.add_route(f"/{name}/asyncapi.json", asyncapi_document)
    return frozenset({openapi_assets, asyncapi_assets})


def _refusal(status: int, words: str) -> dict[str, Any]:
    told = {"description": words, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return told | ({"headers": _HEADERS[status]} if status in _HEADERS else {})


def _complete(operation: dict[str, Any], *, max_bytes: int) -> None:
    """Name the refusals that follow from what an operation takes, beside those that it names itself."""
    refusals = dict[int, str]()
    if "requestBody" in operation:
        operation["x-max-body-bytes"] = max_bytes
        refusals |= _OF_BODY
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "Idempotency-Key":
            # Optional to FastAPI, so that a missing one answers 400 with its own code and not 422.
            parameter["required"] = True
            parameter["schema"] = {"type": "string", "pattern": "^[!-~]{1,200}$"}
            refusals |= _OF_KEY
        if parameter["name"] == "If-Match":
            refusals |= _OF_VERSION
    for status, words in refusals.items():
        operation["responses"].setdefault(str(status), _refusal(status, words))
