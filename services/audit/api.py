"""The REST edge of audit: the trail, its proof, and supervision. Nothing here changes anything."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from libs.common.calendar import local_date
from libs.common.dated import Day, between
from libs.common.db import Database
from libs.common.errors import NotFound
from libs.common.paging import Page, Paging, page_of, read_after, running_number
from libs.common.service import Service
from libs.common.settings import MIB
from libs.common.treasuries import TreasuryCode
from libs.common.web import Tx, body_limit, guarded_router, requires
from libs.common.wire import NO_NUL, WHOLE, Instant
from services.audit import overdue, trail
from services.audit.anchors import known_anchors
from services.audit.overdue import Overdue, Summary, Wanted
from services.audit.supervision import ClockKind
from services.audit.verifier import Anchor, Entry

router = guarded_router("audit", tags=["审计"])

JSON_LINES = "application/x-ndjson"
MAX_ANCHORS = 10_000
VERIFY_BYTES = 2 * MIB


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]
AsOf = Annotated[
    Day | None,
    Query(description="截至哪一日（北京时间），2005-01-01 至 2099-12-30，缺省为今日"),
    between(date(2005, 1, 1), date(2099, 12, 30)),
]


class EntryOut(BaseModel):
    """链上一条记录；`payload` 为事件原文，不是 UTF-8 文本时见 `payload_base64`。"""

    seq: int
    event_id: UUID
    topic: str
    partition: int
    offset: int
    key: str
    type: str
    time: str = Field(description="发布方所称的事件时间")
    recorded_at: datetime
    headers: Any
    payload: str | None = None
    payload_base64: str | None = None
    payload_digest: str = Field(description="SM3，十六进制")
    previous: str
    hash: str


class HeadOut(BaseModel):
    """链头。请在系统之外留存：此后任何改写都与它不符。"""

    seq: int
    hash: str
    at: datetime
    line: str = Field(description="锚点文件中的一行")


class AnchorIn(BaseModel):
    """一个在外留存的锚点。"""

    model_config = ConfigDict(extra="forbid")

    seq: Annotated[int, Field(ge=0, le=2**53), WHOLE]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    at: Instant | None = None


class VerifyRequest(BaseModel):
    """核验请求；可附自行留存的锚点。"""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"anchors": [{"seq": 1024, "hash": "2e34c0b24d52c1cb2e34c0b24d52c1cb2e34c0b24d52c1cb2e34c0b24d52c1cb"}]}
            ]
        },
    )

    anchors: Annotated[list[AnchorIn], Field(max_length=MAX_ANCHORS)] = []


class VerdictOut(BaseModel):
    """核验结论。"""

    entries: int
    verified: bool
    first_broken: int | None = Field(description="第一条有问题的序号")
    reason: str | None
    told: str | None = Field(description="原因（中文）")
    anchors: int = Field(description="核对过的锚点数")


@router.get("/trail", summary="审计链", dependencies=[requires("audit:read")])
async def list_trail(
    tx: Tx,
    asked: Paging,
    key: Annotated[str | None, Query(max_length=200, pattern=NO_NUL, description="事件的键，一般为申请编号")] = None,
    topic: Annotated[str | None, Query(max_length=200, pattern=NO_NUL)] = None,
) -> Page[EntryOut]:
    """链上记录，按序号。"""
    (after,) = read_after(asked, running_number) or (0,)
    found = await trail.read(tx, after=after, limit=asked.limit + 1, key=key, topic=topic)
    return page_of([_entry_out(entry) for entry in found], asked, lambda entry: (entry.seq,))


@router.get(
    "/trail:export",
    summary="导出审计链",
    dependencies=[requires("audit:read")],
    response_class=StreamingResponse,
    responses={200: {"description": "每行一条记录", "content": {JSON_LINES: {"schema": {"type": "string"}}}}},
)
async def export_trail(service: TheService) -> StreamingResponse:
    """导出全链（每行一个 JSON），供 `services/audit/verifier.py` 离线核验。"""
    headers = {"Content-Disposition": 'attachment; filename="trail.ndjson"'}
    return StreamingResponse(_lines(service.database), media_type=JSON_LINES, headers=headers)


async def _lines(database: Database) -> AsyncIterator[bytes]:
    after = 0
    while True:
        # A transaction a page: a slow reader must not keep one of the few connections.
        async with database.transaction() as tx:
            page = await trail.read(tx, after=after)
        if not page:
            return
        yield b"".join(json.dumps(entry.exported(), ensure_ascii=False).encode() + b"\n" for entry in page)
        after = page[-1].seq


@router.get("/trail/{seq}", summary="链上一条记录", dependencies=[requires("audit:read")])
async def show_entry(seq: Annotated[str, Path(description="序号")], tx: Tx) -> EntryOut:
    """链上一条记录。"""
    try:
        number = running_number(seq)
    except ValueError:  # what is no number names no entry: unknown like any other, and not a badly formed request
        raise NotFound from None
    entry = await trail.find(tx, number)
    if entry is None:
        raise NotFound
    return _entry_out(entry)


@router.post("/trail:verify", summary="核验审计链", dependencies=[requires("audit:read"), body_limit(VERIFY_BYTES)])
async def verify_trail(tx: Tx, service: TheService, body: VerifyRequest | None = None) -> VerdictOut:
    """核验全链，与库外留存的锚点及所附锚点对照。只读，不需要幂等键。"""
    kept = await asyncio.to_thread(known_anchors, service.settings.home)
    now = datetime.now(UTC)
    given = [Anchor(each.seq, each.hash, each.at or now) for each in (body.anchors if body else [])]
    verdict = await trail.verify_trail(tx, [*kept, *given])
    return VerdictOut(
        entries=verdict.entries,
        verified=verdict.verified,
        first_broken=verdict.first_broken,
        reason=verdict.reason,
        told=verdict.told,
        anchors=len(kept) + len(given),
    )


@router.get("/anchors/head", summary="当前链头", dependencies=[requires("audit:read")])
async def show_head(tx: Tx) -> HeadOut:
    """当前链头，供在外留存。"""
    head = await trail.head(tx, datetime.now(UTC))
    return HeadOut(seq=head.seq, hash=head.hash, at=head.at, line=head.line())


@router.get("/supervision/overdue", summary="超期清单", dependencies=[requires("audit:read")])
async def list_overdue(
    *,
    tx: Tx,
    asked: Paging,
    on: AsOf = None,
    kind: ClockKind | None = None,
    treasury: TreasuryCode | None = None,
    department: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
) -> Page[Overdue]:
    """超期未办的任务和兑现，超期最久的在前；超期与否按所问日期现算。"""
    wanted = Wanted(on or local_date(datetime.now(UTC)), kind, treasury, department)
    found = await overdue.list_overdue(tx, wanted, asked)
    return page_of(found, asked, lambda each: (each.due_on.isoformat(), str(each.record)))


@router.get("/supervision/summary", summary="办理情况汇总", dependencies=[requires("audit:read")])
async def show_summary(tx: Tx, service: TheService, on: AsOf = None) -> Summary:
    """各一级财政、各部门的办理情况：未办结（绿、黄、红灯）、按期、超期。"""
    return await overdue.summarise(tx, service.packs, on or local_date(datetime.now(UTC)))


def _entry_out(entry: Entry) -> EntryOut:
    return EntryOut.model_validate(entry.exported())
