"""Applications over HTTP: filed, corrected, withdrawn, and read."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Body, Query
from starlette.responses import Response

from libs.common.errors import FieldError, InvalidRequest
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.identity import normalise_number
from libs.common.paging import IfMatch, Page, Paging, check_version, etag, page_of
from libs.common.telemetry import current_traceparent
from libs.common.web import Caller, Tx, guarded_router, requires
from libs.common.wire import NO_NUL
from services.intake import inquiry
from services.intake.api.desk import AtDesk, InGroup
from services.intake.api.examples import CORRECTION, FILING
from services.intake.api.group import Wanted, canonical
from services.intake.domain import TITLES
from services.intake.eligibility import DecidedView
from services.intake.filing import RawCorrection, RawFiling
from services.intake.views import ApplicationView, Receipt, Summary

EXTERNAL_REF = r"^[^:\x00]+:[^:\x00]+:[^\x00]+$"

router = guarded_router("intake", tags=["申请"])


@router.post(
    "/applications",
    status_code=201,
    response_model=Receipt,
    summary="提交申请",
    dependencies=[requires("intake:file")],
)
async def file_application(
    raw: Annotated[RawFiling, Body(openapi_examples={"认定并申领生活补贴": {"value": FILING}})],
    caller: Caller,
    key: IdempotencyKey,
    group: InGroup,
) -> Response:
    """提交一份申请。资料齐全的当场受理；有缺项的一次性告知；填报内容有误的不收件并逐项说明。"""
    reply = await group.file(caller, Wanted(key, raw, canonical(raw), current_traceparent()))
    return reply.response()


@router.get("/applications", summary="申请列表", dependencies=[requires("intake:read")])
async def list_applications(
    *,
    tx: Tx,
    caller: Caller,
    desk: AtDesk,
    wanted: Paging,
    state: Annotated[str | None, Query(description="状态", json_schema_extra={"enum": list(TITLES)})] = None,
    case_no: Annotated[str | None, Query(max_length=40, pattern=NO_NUL)] = None,
    external_ref: Annotated[
        str | None, Query(max_length=300, pattern=EXTERNAL_REF, description="system:kind:value")
    ] = None,
) -> Page[Summary]:
    """按时间倒序列出本人或本单位可查阅的申请。"""
    found = await inquiry.page(
        tx,
        desk.packs,
        caller,
        wanted,
        state=_state(state),
        case_no=normalise_number(case_no) if case_no else None,
        external=_external(external_ref),
    )
    return page_of(found, wanted, lambda one: (str(one.id),))


@router.get("/applications/{application}", summary="查询申请", dependencies=[requires("intake:read")])
async def show_application(
    application: UUID, tx: Tx, caller: Caller, desk: AtDesk, response: Response
) -> ApplicationView:
    """一份申请的全部情况：办理进度、各事项结果、补正事项、支付情况和集中反馈。"""
    view, version = await inquiry.show(tx, desk.packs, caller, application)
    response.headers["ETag"] = etag(version)
    return view


@router.get("/applications/{application}/decision", summary="政策对照", dependencies=[requires("intake:read")])
async def show_decision(application: UUID, tx: Tx, caller: Caller) -> DecidedView:
    """最近一次审查时，每个事项逐条对照政策的结论：看到了什么、出自哪一条、还缺什么。审查之后如何决定，见办理结果。"""
    return await inquiry.decisions(tx, caller, application)


@router.post(
    "/applications/{application}:correct",
    response_model=Receipt,
    summary="补正",
    dependencies=[requires("intake:file")],
)
async def correct_application(
    *,
    application: UUID,
    raw: Annotated[RawCorrection, Body(openapi_examples={"补充材料": {"value": CORRECTION}})],
    tx: Tx,
    caller: Caller,
    key: IdempotencyKey,
    desk: AtDesk,
    if_match: IfMatch = None,
) -> Response:
    """以所给各项替换原填报内容（材料按代码合并），并重新审查全部内容：受理，或者再次一次性告知。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        row = await inquiry.find(tx, caller, application, lock=True)
        if if_match is not None:
            check_version(if_match, await inquiry.version(tx, application))
        return Reply(200, await desk.correct(tx, row, raw, caller, now=now))

    body, target = canonical(raw), str(application)
    return await once(tx, caller=caller, operation="applications.correct", key=key, body=body, do=do, target=target)


@router.post(
    "/applications/{application}:withdraw",
    response_model=ApplicationView,
    summary="撤回",
    dependencies=[requires("intake:file")],
)
async def withdraw_application(
    application: UUID, tx: Tx, caller: Caller, key: IdempotencyKey, desk: AtDesk
) -> Response:
    """撤回申请。受理前当即撤回；受理后转由办理环节决定，结果见办理进度。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        await desk.withdraw(tx, await inquiry.find(tx, caller, application, lock=True), now)
        view, _ = await inquiry.show(tx, desk.packs, caller, application)
        return Reply(200, view)

    target = str(application)
    return await once(tx, caller=caller, operation="applications.withdraw", key=key, body=b"", do=do, target=target)


def _state(state: str | None) -> str | None:
    if state is not None and state not in TITLES:
        detail = f"可填：{'、'.join(TITLES)}。"
        raise InvalidRequest(errors=[FieldError("query/state", "enum", "取值不在范围内", detail)])
    return state


def _external(ref: str | None) -> tuple[str, str, str] | None:
    if ref is None:
        return None
    system, kind, value = ref.split(":", 2)
    return system, kind, value
