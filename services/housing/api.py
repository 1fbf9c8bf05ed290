"""The REST edge of housing: flats, eligibilities, holds, leases."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.paging import Page, Paging, page_of
from libs.common.policy.model import FlatKind
from libs.common.settings import MIB
from libs.common.treasuries import TreasuryCode
from libs.common.web import Caller, Tx, body_limit, guarded_router, requires
from libs.common.wire import NO_NUL
from services.housing import allocation, stock, views
from services.housing.allocation import HoldRequest, LeaseRequest
from services.housing.domain import FlatStatus, HoldState
from services.housing.stock import FlatFilter, FlatIn, FlatOut
from services.housing.views import EligibilityOut, HoldOut, LeaseOut

router = guarded_router("housing", tags=["人才住房"])

BATCH_BYTES = 4 * MIB

State = Annotated[HoldState | None, Query(description="只列此状态")]


class FlatsIn(BaseModel):
    """一批待登记的房源：全部登记，或全部不登记。"""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"flats": [stock.EXAMPLE]}]})

    flats: Annotated[list[FlatIn], Field(min_length=1, max_length=500)]


class FlatsOut(BaseModel):
    """登记结果，与提交的顺序一致。"""

    flats: list[FlatOut]


@router.post(
    "/flats", status_code=201, response_model=FlatOut, summary="登记房源", dependencies=[requires("housing:manage")]
)
async def add_flat(body: FlatIn, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """登记一套房源。"""

    async def do() -> Reply:
        (added,) = await stock.add_flats(tx, caller, [body], datetime.now(UTC))
        return Reply(201, added, {"Location": f"/housing/v1/flats/{added.id}"})

    return await once(tx, caller=caller, operation="add_flat", key=key, body=body, do=do)


@router.post(
    "/flats:batch",
    status_code=201,
    response_model=FlatsOut,
    summary="成批登记房源",
    dependencies=[requires("housing:manage"), body_limit(BATCH_BYTES)],
)
async def add_flats(body: FlatsIn, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """成批登记房源，每批至多 500 套。"""

    async def do() -> Reply:
        return Reply(201, FlatsOut(flats=await stock.add_flats(tx, caller, body.flats, datetime.now(UTC))))

    return await once(tx, caller=caller, operation="add_flats", key=key, body=body, do=do)


@router.get("/flats", summary="房源列表", dependencies=[requires("housing:read")])
async def list_flats(
    *,
    caller: Caller,
    tx: Tx,
    asked: Paging,
    treasury: TreasuryCode | None = None,
    kind: FlatKind | None = None,
    estate: Annotated[str | None, Query(max_length=100, pattern=NO_NUL)] = None,
    status: FlatStatus | None = None,
) -> Page[FlatOut]:
    """房源列表。人才所见为其资格可选的房源。"""
    wanted = FlatFilter(treasury, kind, estate, status)
    return page_of(await stock.list_flats(tx, caller, wanted, asked), asked, lambda each: (str(each.id),))


@router.get("/flats/{flat}", summary="房源详情", dependencies=[requires("housing:read")])
async def show_flat(flat: UUID, caller: Caller, tx: Tx) -> FlatOut:
    """一套房源。"""
    return await stock.show_flat(tx, caller, flat)


@router.post(
    "/flats/{flat}:withdraw", response_model=FlatOut, summary="停用房源", dependencies=[requires("housing:manage")]
)
async def withdraw_flat(flat: UUID, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """停用一套未被锁定或出租的房源。"""

    async def do() -> Reply:
        return Reply(200, await stock.offer_flat(tx, caller, flat, offered=False))

    return await once(tx, caller=caller, operation="withdraw_flat", key=key, body=b"", do=do, target=str(flat))


@router.post(
    "/flats/{flat}:offer", response_model=FlatOut, summary="恢复房源", dependencies=[requires("housing:manage")]
)
async def offer_flat(flat: UUID, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """恢复一套停用的房源。"""

    async def do() -> Reply:
        return Reply(200, await stock.offer_flat(tx, caller, flat, offered=True))

    return await once(tx, caller=caller, operation="offer_flat", key=key, body=b"", do=do, target=str(flat))


@router.post(
    "/flats/{flat}:hold",
    status_code=201,
    response_model=HoldOut,
    summary="选房锁定",
    dependencies=[requires("housing:choose")],
)
async def hold_flat(flat: UUID, body: HoldRequest, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """锁定一套房源：人才凭本人资格，或房源所属财政的住房管理人员代为办理。"""

    async def do() -> Reply:
        hold = await allocation.hold_flat(tx, caller, flat, body.eligibility, datetime.now(UTC))
        return Reply(201, await views.show_hold(tx, caller, hold), {"Location": f"/housing/v1/holds/{hold}"})

    return await once(tx, caller=caller, operation="hold_flat", key=key, body=body, do=do, target=str(flat))


@router.get("/eligibilities", summary="住房资格列表", dependencies=[requires("housing:read")])
async def list_eligibilities(caller: Caller, tx: Tx, asked: Paging) -> Page[EligibilityOut]:
    """获批的住房资格。"""
    return page_of(await views.list_eligibilities(tx, caller, asked), asked, lambda each: (str(each.id),))


@router.get("/eligibilities/{eligibility}", summary="住房资格详情", dependencies=[requires("housing:read")])
async def show_eligibility(eligibility: UUID, caller: Caller, tx: Tx) -> EligibilityOut:
    """一项住房资格。"""
    return await views.show_eligibility(tx, caller, eligibility)


@router.get("/holds", summary="锁定列表", dependencies=[requires("housing:read")])
async def list_holds(caller: Caller, tx: Tx, asked: Paging, state: State = None) -> Page[HoldOut]:
    """房源锁定记录。"""
    return page_of(await views.list_holds(tx, caller, state, asked), asked, lambda each: (str(each.id),))


@router.get("/holds/{hold}", summary="锁定详情", dependencies=[requires("housing:read")])
async def show_hold(hold: UUID, caller: Caller, tx: Tx) -> HoldOut:
    """一次锁定。"""
    return await views.show_hold(tx, caller, hold)


@router.post(
    "/holds/{hold}:release", response_model=HoldOut, summary="放弃锁定", dependencies=[requires("housing:choose")]
)
async def release_hold(hold: UUID, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """放弃一次锁定，房源可由他人另选。"""

    async def do() -> Reply:
        await allocation.release_hold(tx, caller, hold, datetime.now(UTC))
        return Reply(200, await views.show_hold(tx, caller, hold))

    return await once(tx, caller=caller, operation="release_hold", key=key, body=b"", do=do, target=str(hold))


@router.post(
    "/holds/{hold}:lease",
    status_code=201,
    response_model=LeaseOut,
    summary="签订租约",
    dependencies=[requires("housing:manage")],
)
async def lease_flat(hold: UUID, body: LeaseRequest, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """将锁定转为租约。"""

    async def do() -> Reply:
        lease = await allocation.lease_flat(tx, caller, hold, body, datetime.now(UTC))
        return Reply(201, await views.show_lease(tx, caller, lease), {"Location": f"/housing/v1/leases/{lease}"})

    return await once(tx, caller=caller, operation="lease_flat", key=key, body=body, do=do, target=str(hold))


@router.get("/leases", summary="租约列表", dependencies=[requires("housing:read")])
async def list_leases(caller: Caller, tx: Tx, asked: Paging, state: State = None) -> Page[LeaseOut]:
    """租约列表。"""
    return page_of(await views.list_leases(tx, caller, state, asked), asked, lambda each: (str(each.id),))


@router.get("/leases/{lease}", summary="租约详情", dependencies=[requires("housing:read")])
async def show_lease(lease: UUID, caller: Caller, tx: Tx) -> LeaseOut:
    """一份租约。"""
    return await views.show_lease(tx, caller, lease)


@router.post(
    "/leases/{lease}:end", response_model=LeaseOut, summary="提前终止租约", dependencies=[requires("housing:manage")]
)
async def end_lease(lease: UUID, caller: Caller, key: IdempotencyKey, tx: Tx) -> Response:
    """提前终止租约，房源可再配租。"""

    async def do() -> Reply:
        await allocation.end_lease(tx, caller, lease, datetime.now(UTC))
        return Reply(200, await views.show_lease(tx, caller, lease))

    return await once(tx, caller=caller, operation="end_lease", key=key, body=b"", do=do, target=str(lease))
