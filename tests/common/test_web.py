"""The HTTP edge: the guard comes before the body, refusals are problems in Chinese, pages need no internet."""

import asyncio
import io
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Header, Query, Request, UploadFile
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError
from sqlalchemy.exc import DBAPIError

from libs.common.auth import TokenIssuer
from libs.common.errors import NotFound, Problem
from libs.common.idempotency import IdempotencyKey
from libs.common.paging import IfMatch, Page, Paging, check_version, encode_cursor, etag, page_of
from libs.common.settings import Settings
from libs.common.telemetry import configure, current_traceparent
from libs.common.web import Caller, GuardedRoute, Tx, body_limit, create_app, guarded_router, public, requires

ROOT = Path(__file__).parents[2]
CHINESE = re.compile(r"[一-鿿]")
SECRET = "410522199003071234"


class Employer(BaseModel):
    kind: Literal["employer"]
    name: str


class Talent(BaseModel):
    kind: Literal["talent"]
    identity: str


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=2, max_length=8)]
    fen: Annotated[int, Field(ge=1)]
    on: date | None = None
    at: AwareDatetime | None = None
    parties: list[Annotated[Employer | Talent, Field(discriminator="kind")]] = []

    @field_validator("name")
    @classmethod
    def _no_digits(cls, name: str) -> str:
        if name == "plain":
            raise ValueError(f"secret {SECRET}")
        if name.isdigit():
            raise PydanticCustomError("name-of-digits", "姓名不能全为数字")
        return name


class Recording:
    """Counts what reaches an operation: body bytes read, look-ups made."""

    def __init__(self) -> None:
        self.lookups = 0


def a_router(seen: Recording) -> APIRouter:
    router = guarded_router("intake")

    @router.post("/orders", status_code=201, dependencies=[requires("intake:file")])
    async def file_order(order: Order, caller: Caller, key: IdempotencyKey) -> dict[str, str]:
        """提交。"""
        return {"client": caller.client, "key": key, "name": order.name}

    @router.get("/orders/{order}", dependencies=[requires("finance:read")])
    async def show_order(order: int, caller: Caller) -> dict[str, int]:
        seen.lookups += 1
        raise NotFound

    @router.get("/orders", dependencies=[public()])
    async def list_orders(
        page: Paging, x_kind: Annotated[int | None, Header()] = None, size: Annotated[int, Query(le=5)] = 1
    ) -> Page[int]:
        start = page.after[0] if page.after else 0
        assert isinstance(start, int)
        return page_of(range(start + 1, min(start + page.limit + 2, 8)), page, lambda n: (n,))

    @router.patch("/orders/{order}", dependencies=[public()])
    async def change_order(order: int, if_match: IfMatch = None) -> str:
        check_version(if_match, 7)
        return "changed"

    @router.post("/orders/{order}:close", dependencies=[public()])
    async def close_order(order: int) -> int:
        return order

    _add_oddities(router)
    return router


def _add_oddities(router: APIRouter) -> None:
    @router.post("/files", dependencies=[public(), body_limit(64)])
    async def send_file(request: Request) -> int:
        return len(await request.body())

    @router.post("/uploads", dependencies=[public()])
    async def upload(file: UploadFile) -> int:
        return len(await file.read())

    @router.get("/breaks", dependencies=[public()])
    async def breaks() -> None:
        raise RuntimeError(SECRET)

    @router.get("/away", dependencies=[public()])
    async def away() -> None:
        raise ConnectionRefusedError

    @router.get("/trace", dependencies=[public()])
    async def trace() -> str | None:
        return current_traceparent()

    @router.post("/writes", status_code=201, dependencies=[public()])
    async def write(tx: Tx) -> str:
        return "written"


class FailingCommit:
    """Stands for a database whose commit fails: the one thing that cannot be provoked from outside."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield
        raise DBAPIError("COMMIT", {}, OSError("lost"), connection_invalidated=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, max_body_bytes=4096, body_seconds=0.2)


@pytest.fixture
def seen() -> Recording:
    return Recording()


@pytest.fixture
def app(settings: Settings, seen: Recording) -> FastAPI:
    return an_app(settings, a_router(seen))


def an_app(settings: Settings, *routers: APIRouter, waiting: tuple[str, ...] = ()) -> FastAPI:
    async def not_ready() -> list[str]:
        return list(waiting)

    made = create_app(
        "intake",
        title="受理",
        description="试验",
        settings=settings,
        routers=routers,
        asyncapi=lambda: {"asyncapi": "3.0.0", "info": {"title": "受理", "version": "1"}},
        not_ready=not_ready,
    )
    made.state.service = SimpleNamespace(database=FailingCommit())
    return made


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://huanquan") as client:
        yield client


@pytest.fixture
def portal(settings: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {TokenIssuer(settings).token('portal')}", "Idempotency-Key": "k-1"}


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    told: dict[str, Any] = response.json()
    Problem.model_validate(told)
    assert told["code"] == code
    assert CHINESE.search(told["title"])
    assert CHINESE.search(told["detail"])
    assert told["instance"].rsplit(":", 1)[1] == response.headers["traceparent"].split("-")[1]
    return told


async def refusing_body() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


async def test_an_operation_knows_its_caller(http: httpx.AsyncClient, portal: dict[str, str]) -> None:
    answer = await http.post("/intake/v1/orders", headers=portal, json={"name": "张三", "fen": 1})
    assert answer.status_code == 201
    assert answer.json() == {"client": "portal", "key": "k-1", "name": "张三"}


@pytest.mark.parametrize("given", [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}])
async def test_without_a_token_the_body_is_not_read(http: httpx.AsyncClient, given: dict[str, str]) -> None:
    answer = await http.post("/intake/v1/orders", headers=given, content=refusing_body())
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_bad_token_is_told_apart_from_none(http: httpx.AsyncClient, portal: dict[str, str]) -> None:
    answer = await http.post("/intake/v1/orders", headers={"Authorization": "Bearer a.b.c"}, content=refusing_body())
    problem(answer, 401, "unauthenticated")
    assert "invalid_token" in answer.headers["www-authenticate"]


async def test_without_the_scope_nothing_is_read_or_looked_up(
    http: httpx.AsyncClient, settings: Settings, seen: Recording, portal: dict[str, str]
) -> None:
    ops = {"Authorization": f"Bearer {TokenIssuer(settings).token('ops')}"}
    told = problem(await http.post("/intake/v1/orders", headers=ops, content=refusing_body()), 403, "forbidden")
    assert "intake:file" in told["detail"]
    for order in ("7", "no-number"):
        problem(await http.get(f"/intake/v1/orders/{order}", headers=portal), 403, "forbidden")
    assert seen.lookups == 0


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe{}", b'{"name": "\xe5\xbc"}', b"[" * 4000], ids=repr)
async def test_what_is_no_json_is_malformed(http: httpx.AsyncClient, portal: dict[str, str], body: bytes) -> None:
    headers = portal | {"Content-Type": "application/json"}
    problem(await http.post("/intake/v1/orders", headers=headers, content=body), 400, "malformed-body")


async def test_another_media_type_is_refused(http: httpx.AsyncClient, portal: dict[str, str]) -> None:
    headers = portal | {"Content-Type": "text/plain"}
    problem(await http.post("/intake/v1/orders", headers=headers, content=b"{}"), 415, "unsupported-media-type")
    headers["Content-Type"] = "application/vnd.huanquan+json; charset=utf-8"
    answer = await http.post("/intake/v1/orders", headers=headers, content=b'{"name": "zhang", "fen": 1}')
    assert answer.status_code == 201


async def test_every_defect_is_named_by_its_place_and_no_value_comes_back(
    http: httpx.AsyncClient, portal: dict[str, str]
) -> None:
    body = {
        "name": SECRET,
        "fen": 0,
        "on": SECRET,
        "at": "2026-02-13T09:00:00",
        "x/y": 1,
        "parties": [{"kind": "talent"}, {"kind": SECRET}, {"kind": "employer", "name": [SECRET]}],
    }
    answer = await http.post("/intake/v1/orders", headers=portal, json=body)
    told = problem(answer, 422, "invalid-request")
    assert SECRET not in answer.text
    assert {error["field"]: error["code"] for error in told["errors"]} == {
        "/name": "string_too_long",
        "/fen": "greater_than_equal",
        "/on": "date_from_datetime_parsing",
        "/at": "timezone_aware",
        "/x~1y": "extra_forbidden",
        "/parties/0/identity": "missing",
        "/parties/1": "union_tag_invalid",
        "/parties/2/name": "string_type",
    }
    assert all(CHINESE.search(error["title"]) and CHINESE.search(error["detail"]) for error in told["errors"])
    assert next(e for e in told["errors"] if e["field"] == "/fen")["detail"] == "应不小于 1。"


async def test_words_of_a_validator_of_ours_come_through_and_those_of_a_plain_value_error_do_not(
    http: httpx.AsyncClient, portal: dict[str, str]
) -> None:
    answer = await http.post("/intake/v1/orders", headers=portal, json={"name": "12345", "fen": 1})
    assert problem(answer, 422, "content-wrong")["errors"][0]["detail"] == "姓名不能全为数字"
    answer = await http.post("/intake/v1/orders", headers=portal, json={"name": "plain", "fen": 1})
    assert problem(answer, 422, "invalid-request")["errors"][0]["code"] == "value_error"
    assert SECRET not in answer.text


async def test_a_missing_body_and_wrong_parameters_say_where(http: httpx.AsyncClient, portal: dict[str, str]) -> None:
    told = problem(await http.post("/intake/v1/orders", headers=portal), 422, "invalid-request")
    assert told["errors"][0]["field"] == ""
    answer = await http.get("/intake/v1/orders?limit=0&size=9&cursor=!!", headers={"X-Kind": "x"})
    fields = {error["field"] for error in problem(answer, 422, "invalid-request")["errors"]}
    assert fields in ({"query/limit", "query/size", "header/x-kind"}, {"query/cursor"})


@pytest.mark.parametrize("key", [None, b"", b"a b", "键".encode(), b"k" * 201], ids=repr)
async def test_a_command_names_its_key(http: httpx.AsyncClient, portal: dict[str, str], key: bytes | None) -> None:
    headers = {b"Authorization": portal["Authorization"].encode()}
    if key is not None:
        headers[b"Idempotency-Key"] = key
    answer = await http.post("/intake/v1/orders", headers=headers, json={"name": "张三", "fen": 1})
    problem(answer, 400, "idempotency-key-missing")


async def chunks(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


async def test_a_body_over_the_limit_is_refused_announced_or_chunked(
    http: httpx.AsyncClient, portal: dict[str, str]
) -> None:
    json_headers = portal | {"Content-Type": "application/json"}
    problem(await http.post("/intake/v1/orders", headers=json_headers, content=b" " * 4097), 413, "too-large")
    problem(await http.post("/intake/v1/orders", headers=json_headers, content=chunks(5, 1000)), 413, "too-large")
    problem(await http.post("/intake/v1/files", content=chunks(2, 33)), 413, "too-large")
    assert (await http.post("/intake/v1/files", content=chunks(2, 32))).json() == 64
    problem(await http.post("/intake/v1/uploads", files={"file": b"x" * 5000}), 413, "too-large")
    assert (await http.post("/intake/v1/uploads", files={"file": b"x" * 500})).json() == 500


async def test_a_body_that_trickles_is_cut_off(http: httpx.AsyncClient) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x"
            await asyncio.sleep(0.05)

    problem(await http.post("/intake/v1/files", content=slow()), 408, "request-timeout")


async def test_unknown_addresses_and_methods_are_problems(http: httpx.AsyncClient) -> None:
    for path in ("/intake/v1/nothing", "/intake/v1/orders/", "/"):
        problem(await http.get(path), 404, "not-found")
    answer = await http.delete("/intake/v1/orders")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"


async def test_what_stands_behind_a_colon_is_a_verb_and_no_part_of_a_name(http: httpx.AsyncClient) -> None:
    answer = await http.get("/intake/v1/orders/7:close")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert (await http.post("/intake/v1/orders/7:close")).json() == 7
    problem(await http.patch("/intake/v1/orders/7:open"), 404, "not-found")


async def test_a_failure_tells_the_caller_nothing_and_the_log_no_value(http: httpx.AsyncClient) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    configure(stream=stream)
    try:
        answer = await http.get(f"/intake/v1/breaks?name={SECRET}")
    finally:
        root.handlers[:], root.level = handlers, level
    told = problem(answer, 500, "internal")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert SECRET not in answer.text + stream.getvalue()
    failed = next(line for line in lines if line["event"] == "request failed")
    assert failed["trace"] in told["instance"]
    assert any("test_web.py" in frame for frame in failed["exception"])
    access = next(line for line in lines if line["event"] == "request")
    assert (access["route"], access["status"]) == ("/intake/v1/breaks", 500)


async def test_what_passes_by_itself_is_unavailable(http: httpx.AsyncClient) -> None:
    answer = await http.get("/intake/v1/away")
    problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_failed_commit_is_never_answered_as_done(http: httpx.AsyncClient) -> None:
    problem(await http.post("/intake/v1/writes"), 503, "unavailable")


async def test_a_trace_goes_on_and_a_bad_one_is_replaced(http: httpx.AsyncClient) -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await http.get("/intake/v1/trace", headers={"traceparent": given})
    assert answer.headers["traceparent"] == answer.json() != given
    assert answer.json()[:36] == given[:36]
    for bad in ("", "x", given.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), given.upper(), "ff" + given[2:]):
        answer = await http.get("/intake/v1/trace", headers={"traceparent": bad})
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", answer.json())
        assert given[3:35] not in answer.json()


async def test_pages_follow_one_another_to_the_end(http: httpx.AsyncClient) -> None:
    items, cursor = [], None
    for _ in range(4):
        page = (
            await http.get("/intake/v1/orders", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        ).json()
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert items == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "cursor", ["!!!", "e30", encode_cursor(1)[:-1] + "_", "W1tdXQ", encode_cursor("a\0"), encode_cursor("\ud800")]
)
async def test_a_foreign_cursor_is_refused(http: httpx.AsyncClient, cursor: str) -> None:
    answer = await http.get("/intake/v1/orders", params={"cursor": cursor})
    assert problem(answer, 422, "content-wrong")["errors"][0]["field"] == "query/cursor"


async def test_a_change_names_the_version_it_was_made_on(http: httpx.AsyncClient) -> None:
    problem(await http.patch("/intake/v1/orders/1"), 428, "precondition-required")
    stale = {"If-Match": etag(6)}
    problem(await http.patch("/intake/v1/orders/1", headers=stale), 412, "precondition-failed")
    assert (await http.patch("/intake/v1/orders/1", headers={"If-Match": f'"x", {etag(7)}'})).status_code == 200


async def test_a_client_gone_wild_is_slowed_down_and_others_are_not(settings: Settings) -> None:
    settings.requests_per_second, settings.requests_burst = 0.5, 2
    issuer = TokenIssuer(settings)
    wild, other = (
        {"Authorization": f"Bearer {issuer.token('portal', client=name)}", "Idempotency-Key": "k"} for name in "ab"
    )
    transport = httpx.ASGITransport(an_app(settings, a_router(Recording())))
    async with httpx.AsyncClient(transport=transport, base_url="http://huanquan") as http:
        answers = [await http.post("/intake/v1/orders", headers=wild) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [422, 422, 429]
        problem(answers[2], 429, "too-many-requests")
        assert answers[2].headers["retry-after"] == "2"
        assert (await http.post("/intake/v1/orders", headers=other)).status_code == 422
        assert [(await http.get("/intake/v1/orders")).status_code for _ in range(3)] == [200, 200, 429]  # an address


@pytest.mark.parametrize("page", ["/intake/docs", "/intake/asyncapi"])
async def test_pages_work_without_internet(http: httpx.AsyncClient, page: str) -> None:
    html = (await http.get(page)).text
    assert not re.findall(r"""(?:src|href|url)\s*[=:(]\s*["']?\s*(?:https?:)?//""", html)
    assert "http://" not in html
    assert "https://" not in html
    local = [path for path in re.findall(r"""["'](/intake/[^"']+)["']""", html) if path != page]
    assert len(local) >= 3
    for path in local:
        assert (await http.get(path)).status_code == 200, path


async def test_every_operation_is_described_with_its_scope_and_its_refusals(http: httpx.AsyncClient) -> None:
    document = (await http.get("/intake/openapi.json")).json()
    filed = document["paths"]["/intake/v1/orders"]["post"]
    assert filed["operationId"] == "intake_file_order"
    assert filed["security"] == [{"bearer": ["intake:file"]}]
    assert {"400", "401", "403", "404", "409", "413", "422", "429"} <= set(filed["responses"])
    reference = filed["responses"]["422"]["content"]["application/problem+json"]["schema"]["$ref"]
    assert document["components"]["schemas"][reference.rsplit("/", 1)[1]]["title"] == "Problem"
    assert next(p for p in filed["parameters"] if p["name"] == "Idempotency-Key")["required"] is True
    listed = document["paths"]["/intake/v1/orders"]["get"]
    assert "security" not in listed
    assert "401" not in listed["responses"]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


async def test_health_and_metrics_need_no_token(settings: Settings) -> None:
    transport = httpx.ASGITransport(an_app(settings, a_router(Recording()), waiting=("database", "bus")))
    async with httpx.AsyncClient(transport=transport, base_url="http://huanquan") as http:
        assert (await http.get("/intake/livez")).status_code == 200
        told = problem(await http.get("/intake/readyz"), 503, "not-ready")
        assert "database、bus" in told["detail"]
        await http.get("/intake/v1/orders/410522")
        metrics = (await http.get("/intake/metrics")).text
    assert 'http_requests_total{method="GET",route="/intake/v1/orders/{order}",status="401"} 1.0' in metrics
    assert "410522" not in metrics


async def test_a_service_without_complaints_is_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/intake/readyz")).json() == {"status": "ready"}
    assert (await http.get("/intake/asyncapi.json")).json()["asyncapi"] == "3.0.0"


def test_a_route_without_a_declared_scope_is_refused_when_it_is_written() -> None:
    router = guarded_router("intake")
    with pytest.raises(TypeError, match="declares no scope"):
        router.get("/open")(lambda: None)
    with pytest.raises(TypeError, match="once"):
        router.get("/two", dependencies=[requires("intake:read"), public()])(lambda: None)
    with pytest.raises(KeyError):
        requires("intake:everything")


def test_a_route_outside_the_guard_is_refused_at_start(settings: Settings) -> None:
    router = APIRouter()

    @router.get("/unguarded")
    async def unguarded() -> None: ...

    with pytest.raises(TypeError, match="no guard"):
        an_app(settings, router)


def test_two_operations_of_one_name_are_refused_at_start(settings: Settings) -> None:
    with pytest.raises(TypeError, match="intake_file_order"):
        an_app(settings, a_router(Recording()), a_router(Recording()))


def test_the_transaction_of_a_request_is_spelled_once() -> None:
    spelled = re.compile(r"Depends\(\s*(?:web\.)?transaction\b")
    rooms = [path for room in ("libs", "services", "deploy") for path in (ROOT / room).rglob("*.py")]
    assert [p.relative_to(ROOT).as_posix() for p in rooms if spelled.search(p.read_text(encoding="utf-8"))] == [
        "libs/common/web.py"
    ]
    source = (ROOT / "libs/common/web.py").read_text(encoding="utf-8")
    assert spelled.findall(source) == ["Depends(transaction"]
    assert 'Depends(transaction, scope="function")' in source


def test_guarded_routes_are_what_the_router_makes() -> None:
    assert guarded_router("intake").route_class is GuardedRoute
