"""Many filings in one file: JSON lines in, one result a line out, in order.

Each line is a transaction of its own with a key of its own, so a bad line harms no other and a file sent again does
nothing twice. Lines are read as they come; what is held is one line and the results.
"""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.message import Message
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response

from libs.common.auth import Principal
from libs.common.db import Database
from libs.common.errors import (
    DomainError,
    IdempotencyKeyMissing,
    MalformedBody,
    TooLarge,
    UnsupportedMediaType,
)
from libs.common.field_errors import refusal
from libs.common.idempotency import Reply, once, valid_key
from libs.common.problems import failure_response, problem_response
from libs.common.settings import MIB
from libs.common.web import Caller, body_limit, guarded_router, requires
from services.intake.api.applications import FILE, canonical
from services.intake.api.desk import AtDesk
from services.intake.api.examples import LINE
from services.intake.applications import Desk

MAX_LINES = 1_000
MAX_LINE_BYTES = MIB // 4
MAX_FILE_BYTES = 16 * MIB
MEDIA_TYPE = "application/x-ndjson"

_EXAMPLE = json.dumps(LINE, ensure_ascii=False, separators=(",", ":"))
_DOCUMENTED = {
    "requestBody": {
        "required": True,
        "description": f"每行一个 JSON 对象：idempotency_key 和 application（同“提交申请”）；至多 {MAX_LINES} 行。",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE + "\n"}},
    }
}
_ANSWER = (
    "每行一个 JSON 对象，次序同请求：line、idempotency_key、status，收件的为 application（回执），否则为 problem；"
    "problem 中的位置以 application 为起点。"
)

router = guarded_router(tags=["申请"])


class BatchTooLong(DomainError):
    """413: the file has more lines than one call takes; those before were taken."""

    status, code, title = 413, "batch-too-long", "文件行数过多"
    detail = "一次至多 {lines} 行；此前各行已处理，请将其余各行另行提交。"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    idempotency_key: str
    application: dict[str, Any]


@router.post(
    "/applications:batch",
    summary="批量提交申请",
    dependencies=[requires("intake:file"), body_limit(MAX_FILE_BYTES)],
    openapi_extra=_DOCUMENTED,
    response_class=Response,
    responses={200: {"description": _ANSWER, "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def file_batch(request: Request, caller: Caller, desk: AtDesk) -> Response:
    """逐行提交：每行自带幂等键，各自成功或失败，互不影响；同一文件重复提交不会重复收件。"""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    if message.get_content_type() != MEDIA_TYPE:
        raise UnsupportedMediaType(accepted=MEDIA_TYPE)
    database: Database = request.app.state.service.database
    results: list[str] = []
    async for number, raw in _lines(request):
        over = len(results) >= MAX_LINES
        result = await _result(database, desk, caller, raw, over=over)
        results.append(json.dumps({"line": number, **result}, ensure_ascii=False, separators=(",", ":")))
        if over:
            break
    return Response("".join(f"{result}\n" for result in results), media_type=MEDIA_TYPE)


async def _lines(request: Request) -> AsyncIterator[tuple[int, bytes | None]]:
    """The lines that are not blank, with their numbers from 1; None for a line over the limit."""
    number, held, over = 0, b"", False
    async for chunk in request.stream():
        *ended, rest = (held + chunk).split(b"\n")
        for line in ended:
            number += 1
            if over or line.strip():
                yield number, None if over or len(line) > MAX_LINE_BYTES else line
            over = False
        over = over or len(rest) > MAX_LINE_BYTES
        held = b"" if over else rest
    if over or held.strip():
        yield number + 1, None if over else held


async def _result(
    database: Database, desk: Desk, caller: Principal, raw: bytes | None, *, over: bool
) -> dict[str, Any]:
    key: dict[str, str] = {}
    try:
        if over:
            raise BatchTooLong(lines=MAX_LINES)
        if raw is None:
            raise TooLarge
        found = _loaded(raw)
        key = _readable_key(found)
        line = _checked(found)
        answer = await _file(database, desk, caller, line)
        return {**key, "status": answer.status_code, "application": json.loads(bytes(answer.body))}
    except DomainError as refused:
        answer = problem_response(refused)
    except Exception as error:  # noqa: BLE001 - one line's failure is that line's answer
        answer = failure_response(error)
    return {**key, "status": answer.status_code, "problem": json.loads(bytes(answer.body))}


def _loaded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise MalformedBody from None


def _readable_key(found: Any) -> dict[str, str]:
    """The key of a line, also of one that is refused: by it the sender knows which line was meant."""
    key = found.get("idempotency_key") if isinstance(found, dict) else None
    return {"idempotency_key": key} if isinstance(key, str) and valid_key(key) else {}


def _checked(found: Any) -> _Line:
    try:
        line = _Line.model_validate(found)
    except ValidationError as error:
        defects = [{**defect, "loc": ("body", *defect["loc"])} for defect in error.errors(include_input=False)]
        raise refusal(defects, found) from None
    if not valid_key(line.idempotency_key):
        raise IdempotencyKeyMissing
    return line


async def _file(database: Database, desk: Desk, caller: Principal, line: _Line) -> Response:
    now = datetime.now(UTC)
    async with database.transaction() as tx:

        async def do() -> Reply:
            receipt = await desk.file(tx, line.application, caller, now)
            return Reply(201, receipt, {"Location": f"/intake/v1/applications/{receipt.id}"})

        body = canonical(line.application)
        return await once(tx, caller=caller, operation=FILE, key=line.idempotency_key, body=body, do=do)
