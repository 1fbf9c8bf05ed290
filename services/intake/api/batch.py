"""Many filings in one file: JSON lines in, one result a line out, in order.

Each line has a key of its own, so a file sent again does nothing twice. Lines are filed in groups as they come
(`group.py`), and a bad line harms no other; what is held is one group and the results.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from fastapi import Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from libs.common.auth import Principal
from libs.common.db import Database
from libs.common.errors import (
    DomainError,
    IdempotencyKeyMissing,
    TooLarge,
)
from libs.common.idempotency import Reply, valid_key
from libs.common.problems import failure_response, problem_response
from libs.common.telemetry import current_traceparent
from libs.common.web import Caller, body_limit, guarded_router, requires
from services.intake.api.desk import AtDesk
from services.intake.api.examples import LINE
from services.intake.api.group import MOST, Answer, Wanted, canonical, file_together
from services.intake.api.lines import (
    MAX_FILE_BYTES,
    answered,
    check_media_type,
    documented,
    lines_of,
    loaded,
    validated,
    written,
)
from services.intake.applications import Desk

MAX_LINES = 1_000

_DOCUMENTED = documented(
    f"每行一个 JSON 对象：idempotency_key 和 application（同“提交申请”）；至多 {MAX_LINES} 行。", LINE
)
_ANSWER = (
    "每行一个 JSON 对象，次序同请求：line、idempotency_key、status，收件的为 application（回执），否则为 problem；"
    "problem 中的位置以 application 为起点。"
)

router = guarded_router("intake", tags=["申请"])


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
    responses=answered(_ANSWER),
)
async def file_batch(request: Request, caller: Caller, desk: AtDesk) -> Response:
    """逐行提交：每行自带幂等键，各自成功或失败，互不影响；同一文件重复提交不会重复收件。"""
    check_media_type(request)
    database: Database = request.app.state.service.database
    results: list[dict[str, Any]] = []
    async for group in _groups(request):
        results += await _answers(database, desk, caller, group)
    return written(results)


async def _groups(request: Request) -> AsyncIterator[list[tuple[int, bytes | DomainError]]]:
    """The lines in groups, each with its number: its bytes, or why it is not read."""
    group: list[tuple[int, bytes | DomainError]] = []
    seen = 0
    async for number, raw in lines_of(request):
        seen += 1
        over = seen > MAX_LINES
        group.append((number, BatchTooLong(lines=MAX_LINES) if over else raw if raw is not None else TooLarge()))
        if over:
            break
        if len(group) == MOST:
            yield group
            group = []
    if group:
        yield group


async def _answers(
    database: Database, desk: Desk, caller: Principal, group: Sequence[tuple[int, bytes | DomainError]]
) -> list[dict[str, Any]]:
    """One result a line, in order."""
    lines = [_read(raw) for _, raw in group]
    wanted = [line.filing for line in lines if isinstance(line.filing, Wanted)]
    filed = iter(await file_together(database, desk, caller, wanted))
    return [
        {"line": number, **line.key, **_told(next(filed) if isinstance(line.filing, Wanted) else line.filing)}
        for (number, _), line in zip(group, lines, strict=True)
    ]


class _Read(NamedTuple):
    """A line as far as it could be read: the key by which the sender knows it, and a filing or why it is none."""

    key: dict[str, str]
    filing: Wanted | DomainError


def _read(raw: bytes | DomainError) -> _Read:
    key: dict[str, str] = {}
    try:
        if isinstance(raw, DomainError):
            raise raw
        found = loaded(raw)
        key = _readable_key(found)
        line = _checked(found)
        body = canonical(line.application)
    except DomainError as refused:
        return _Read(key, refused)
    return _Read(key, Wanted(line.idempotency_key, line.application, body, current_traceparent()))


def _told(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Reply):
        return {"status": answer.status, "application": json.loads(answer.text())}
    problem = problem_response(answer) if isinstance(answer, DomainError) else failure_response(answer)
    return {"status": problem.status_code, "problem": json.loads(bytes(problem.body))}


def _readable_key(found: Any) -> dict[str, str]:
    """The key of a line, also of one that is refused: by it the sender knows which line was meant."""
    key = found.get("idempotency_key") if isinstance(found, dict) else None
    return {"idempotency_key": key} if isinstance(key, str) and valid_key(key) else {}


def _checked(found: Any) -> _Line:
    line = validated(_Line, found)
    if not valid_key(line.idempotency_key):
        raise IdempotencyKeyMissing
    return line
