"""The feed of changes, for a portal that cannot be called."""

from typing import Annotated

from fastapi import Query, Request

from libs.common.auth import Principal
from libs.common.db import Database
from libs.common.paging import MAX_CURSOR, MAX_LIMIT, decode_cursor, wrong_cursor
from libs.common.service import Service
from libs.common.tasks import set_within
from libs.common.web import Caller, guarded_router, requires
from services.intake import inquiry
from services.intake.api.desk import AtDesk
from services.intake.applications import Desk
from services.intake.views import Changes

POLL_SECONDS = 0.5
_AFTER = "query/after"

router = guarded_router("intake", tags=["进度"])


@router.get("/changes", summary="变更流", dependencies=[requires("intake:read")])
async def list_changes(
    *,
    request: Request,
    caller: Caller,
    desk: AtDesk,
    after: Annotated[str | None, Query(max_length=MAX_CURSOR, description="上次返回的 next；不填则从头开始")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    wait: Annotated[float, Query(ge=0, le=30, description="没有新变更时至多等待的秒数")] = 0,
) -> Changes:
    """可查阅的申请的各步进展，按次序，不重不漏；下次以 next 作为 after。办结时随附集中反馈。"""
    start = _place(after)
    service: Service = request.app.state.service
    found = await _read(service.database, desk, caller, start, limit)
    for _ in range(int(wait / POLL_SECONDS)):
        # No transaction and no connection is held meanwhile.
        if found.items or await set_within(service.stopping, POLL_SECONDS):
            break
        found = await _read(service.database, desk, caller, start, limit)
    return found


async def _read(database: Database, desk: Desk, caller: Principal, after: inquiry.Place, limit: int) -> Changes:
    async with database.transaction() as tx:
        return await inquiry.changes(tx, desk.packs, caller, after, limit)


def _place(after: str | None) -> inquiry.Place:
    if after is None:
        return 0, 0, 0
    match decode_cursor(after, _AFTER):
        case (int(epoch), int(xid), int(seq)) if 0 <= epoch < 2**31 and 0 <= xid < 2**63 and 0 <= seq < 2**63:
            return epoch, xid, seq
        case (int(xid), int(seq)) if 0 <= xid < 2**63 and 0 <= seq < 2**63:
            return 1, xid, seq  # as it was written before there were epochs
    raise wrong_cursor(_AFTER)
