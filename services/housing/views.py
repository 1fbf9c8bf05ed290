"""What people read of eligibilities, holds and leases."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.errors import NotFound
from libs.common.paging import PageRequest
from libs.common.policy.model import FlatKind
from services.housing.domain import TAKING, HoldState
from services.housing.models import eligibility, flat, hold, lease
from services.housing.visibility import ELIGIBILITIES, HOLDS, page, visible


class _FromRow(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class EligibilityOut(_FromRow):
    """一项获批的住房资格。"""

    id: UUID = Field(description="即获批的申请事项编号")
    application: UUID
    benefit: str
    kind: FlatKind
    number: str
    certification: str
    category: str
    beneficiary: UUID
    employer: UUID | None
    treasury: str
    accepted_on: date
    decided_on: date
    hold: UUID | None = Field(description="正在生效的锁定或租住；没有则为空")


class HoldOut(_FromRow):
    """一次锁定，及其后的租约。"""

    id: UUID
    flat: UUID
    flat_code: str
    treasury: str = Field(description="房源所属一级财政")
    eligibility: UUID
    application: UUID
    beneficiary: UUID
    state: HoldState
    held_at: datetime
    held_until: datetime
    changed_at: datetime
    lease: UUID | None


class LeaseOut(_FromRow):
    """一份租约；`state` 为 leased 时有效，ended 时已止。"""

    id: UUID
    hold: UUID
    flat: UUID
    flat_code: str
    treasury: str
    eligibility: UUID
    application: UUID
    beneficiary: UUID
    state: HoldState
    from_day: date
    to_day: date
    signed_at: datetime
    changed_at: datetime = Field(description="状态最后变动的时间；已止的租约即终止时间")


_TAKING_HOLD = (hold.c.eligibility == eligibility.c.id) & hold.c.state.in_(TAKING)
_ELIGIBILITIES = select(eligibility, hold.c.id.label("hold")).select_from(eligibility.outerjoin(hold, _TAKING_HOLD))
_WHOSE = (
    hold.c.flat,
    hold.c.eligibility,
    hold.c.state,
    flat.c.code.label("flat_code"),
    flat.c.treasury,
    eligibility.c.application,
    eligibility.c.beneficiary,
)
_HELD = hold.join(flat, flat.c.id == hold.c.flat).join(eligibility, eligibility.c.id == hold.c.eligibility)
_HOLDS = select(
    hold.c.id, hold.c.held_at, hold.c.held_until, hold.c.changed_at, lease.c.id.label("lease"), *_WHOSE
).select_from(_HELD.outerjoin(lease, lease.c.hold == hold.c.id))
_LEASES = select(lease, hold.c.changed_at, *_WHOSE).select_from(_HELD.join(lease, lease.c.hold == hold.c.id))


async def list_eligibilities(tx: AsyncConnection, caller: Principal, asked: PageRequest) -> list[EligibilityOut]:
    """Eligibilities in view, and one more than the page holds where there are more."""
    rows = await tx.execute(page(visible(_ELIGIBILITIES, caller, ELIGIBILITIES), eligibility.c.id, asked))
    return [EligibilityOut.model_validate(row) for row in rows]


async def show_eligibility(tx: AsyncConnection, caller: Principal, eligibility_id: UUID) -> EligibilityOut:
    """One eligibility. Raises NotFound."""
    query = visible(_ELIGIBILITIES, caller, ELIGIBILITIES).where(eligibility.c.id == eligibility_id)
    return EligibilityOut.model_validate(await seen(tx, query))


async def list_holds(
    tx: AsyncConnection, caller: Principal, state: HoldState | None, asked: PageRequest
) -> list[HoldOut]:
    """Holds in view, and one more than the page holds where there are more."""
    rows = await tx.execute(page(_in_state(visible(_HOLDS, caller, HOLDS), state), hold.c.id, asked))
    return [HoldOut.model_validate(row) for row in rows]


async def show_hold(tx: AsyncConnection, caller: Principal, hold_id: UUID) -> HoldOut:
    """One hold. Raises NotFound."""
    return HoldOut.model_validate(await seen(tx, visible(_HOLDS, caller, HOLDS).where(hold.c.id == hold_id)))


async def list_leases(
    tx: AsyncConnection, caller: Principal, state: HoldState | None, asked: PageRequest
) -> list[LeaseOut]:
    """Leases in view, and one more than the page holds where there are more."""
    rows = await tx.execute(page(_in_state(visible(_LEASES, caller, HOLDS), state), lease.c.id, asked))
    return [LeaseOut.model_validate(row) for row in rows]


async def show_lease(tx: AsyncConnection, caller: Principal, lease_id: UUID) -> LeaseOut:
    """One lease. Raises NotFound."""
    return LeaseOut.model_validate(await seen(tx, visible(_LEASES, caller, HOLDS).where(lease.c.id == lease_id)))


async def seen(tx: AsyncConnection, query: Select[Any]) -> Row[Any]:
    """The one row of a query that was narrowed by `visible`. Raises NotFound."""
    row: Row[Any] | None = (await tx.execute(query)).first()
    if row is None:
        raise NotFound
    return row


def _in_state(query: Select[Any], state: HoldState | None) -> Select[Any]:
    return query if state is None else query.where(hold.c.state == state.value)
