"""Cases, certifications and talent records over HTTP."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path

from libs.common.calendar import local_date
from libs.common.paging import Page, Paging
from libs.common.web import Caller, Tx, guarded_router, requires
from libs.common.wire import NO_NUL
from services.workflow.api.common import PacksHeld
from services.workflow.archive import RecordView, record_of
from services.workflow.cases import CaseSummary, CaseView, case_view, list_cases
from services.workflow.certification import CertificationView, certification_by_number
from services.workflow.domain import CaseState

router = guarded_router("workflow", tags=["办件与档案"])


@router.get("/cases", summary="办件列表", dependencies=[requires("workflow:read")])
async def get_cases(
    tx: Tx, caller: Caller, packs: PacksHeld, page: Paging, state: CaseState | None = None
) -> Page[CaseSummary]:
    """可查阅的办件，可按状态筛选；灯号为未办结任务中最急的一盏。"""
    return await list_cases(tx, packs, caller, page, state=state, today=local_date(datetime.now(UTC)))


@router.get("/cases/{application}", summary="办件详情", dependencies=[requires("workflow:read")])
async def get_case(application: UUID, tx: Tx, caller: Caller, packs: PacksHeld) -> CaseView:
    """一个办件：各部门任务及计时、特别程序及原因、决定和办理经过。"""
    return await case_view(tx, packs, application, caller, today=local_date(datetime.now(UTC)))


@router.get("/archive/{person}", summary="人才档案", dependencies=[requires("workflow:read")])
async def get_record(person: UUID, tx: Tx, caller: Caller) -> RecordView:
    """人才档案：一人一档，列认定、批准的兑现和各事项结果。"""
    return await record_of(tx, person, caller)


@router.get("/certifications/{number}", summary="按编号查阅认定", dependencies=[requires("workflow:read")])
async def get_certification(
    number: Annotated[str, Path(max_length=40, pattern=NO_NUL)], tx: Tx, caller: Caller
) -> CertificationView:
    """按认定编号查阅。"""
    return await certification_by_number(tx, number, caller)
