"""Who has which flat: eligibility, hold, lease. The database keeps any two from having the same one."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import Row, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.auth import Principal
from libs.common.calendar import FIRST, LAST, end_of_day, local_date
from libs.common.dated import Day, between
from libs.common.errors import DomainError
from libs.common.events import FlatHeld, FlatLeased, FlatReleased, LeaseEnded
from libs.common.outbox import emit
from libs.common.policy import PackIdentity
from libs.common.policy.model import FlatKind
from libs.common.policy.wording import TITLES
from libs.common.ticker import Due, cancel, schedule
from services.housing.domain import (
    HOLD_TITLES,
    HoldState,
    Move,
    held_until,
    leading,
    serves,
)
from services.housing.models import eligibility, flat, hold, lease
from services.housing.views import seen, show_hold, show_lease
from services.housing.visibility import ELIGIBILITIES, FLATS, visible

HOLD_EXPIRY = "hold.expiry"
LEASE_END = "lease.end"
TICKER = "ticker"

_LOCK_APPLICATION = text("""
    SELECT id FROM eligibility WHERE application = :application ORDER BY id FOR UPDATE
""")
_LOCK_APPLICATIONS = text("""
    SELECT id FROM eligibility
     WHERE application IN (SELECT e.application FROM hold h JOIN eligibility e ON e.id = h.eligibility
                            WHERE h.id = ANY(CAST(:holds AS uuid[])))
     ORDER BY application, id
       FOR UPDATE
""")
_LOCK_FLAT = text("SELECT offered FROM flat WHERE id = :flat FOR SHARE")
_MOVE = text("""
    WITH moved AS (
        UPDATE hold SET state = :ends, changed_at = :at
         WHERE id = ANY(CAST(:holds AS uuid[])) AND state = :begins
        RETURNING id, flat, eligibility, held_until)
    SELECT m.id, m.flat, m.held_until, e.id AS item, e.application, e.policy_city, e.policy_version, e.policy_sha256,
           l.id AS lease, l.to_day
      FROM moved m JOIN eligibility e ON e.id = m.eligibility LEFT JOIN lease l ON l.hold = m.id
     ORDER BY e.application, e.id
""")
_RECORD = text("""
    INSERT INTO hold_history (hold, at, move, state, by)
    SELECT hold, :at, :move, :state, :by FROM unnest(CAST(:holds AS uuid[])) AS r (hold)
""")
_IN_USE = text("SELECT 1 FROM hold WHERE eligibility = :eligibility AND state IN ('held', 'leased')")


class FlatAlreadyHeld(DomainError):
    """409: somebody holds or rents the flat."""

    status, code, title = 409, "flat-already-held", "该房源已被他人锁定，请另选房源"
    detail = "请在房源列表中选择状态为“可选”的房源，以新的幂等键重新提交。"


class EligibilityInUse(DomainError):
    """409: the eligibility holds or rents a flat already."""

    status, code, title = 409, "eligibility-in-use", "该资格已锁定或租住一套房源"
    detail = "一项资格同时只能锁定或租住一套房源。如需换房，请先释放原锁定或终止原租约。"


class FlatNotSuitable(DomainError):
    """409: the flat is of another kind, or not for talents of this treasury."""

    status, code, title = 409, "flat-not-suitable", "该房源与批准的资格不符"
    detail = "资格为“{kind}”，可选本级财政及市本级的同类房源。请另选。"


class FlatNotOffered(DomainError):
    """409: the flat was taken off the offer."""

    status, code, title = 409, "flat-not-offered", "该房源已停用"
    detail = "该房源暂不对外配租，请另选房源。"


class HoldNotInState(DomainError):
    """409: the hold is no longer (or not yet) in the state that the operation begins in."""

    status, code, title = 409, "hold-not-in-state", "锁定或租约的状态不允许此操作"
    detail = "此操作只适用于“{state}”的记录。请重新读取该记录，核对状态后再办理。"


class HoldLapsed(DomainError):
    """409: the hold's last moment has passed."""

    status, code, title = 409, "hold-lapsed", "锁定已到期"
    detail = "锁定期已过，房源即将释放。请重新选房锁定后再签约。"


class LeaseOver(DomainError):
    """409: the lease to be signed would have ended already."""

    status, code, title = 409, "lease-over", "租期已经届满"
    detail = "租期最后一日早于今日，请核对起止日期。"


class LeaseBeforeHold(DomainError):
    """409: the lease to be signed would begin before its flat was held."""

    status, code, title = 409, "lease-before-hold", "起租日早于选房之日"
    detail = "租期第一日不得早于锁定房源之日 {held_on}，请核对起止日期。"


class HoldRequest(BaseModel):
    """选房：以哪一项资格锁定。"""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"eligibility": "0197c1b5-c002-7b20-9e32-4d6e8f0a1b3c"}]}
    )

    eligibility: UUID = Field(description="资格编号，即获批的申请事项编号")


class LeaseRequest(BaseModel):
    """租期，首尾两日均含。"""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"from_day": "2026-07-01", "to_day": "2029-06-30"}]}
    )

    from_day: Day
    to_day: Annotated[Day, between(FIRST, LAST)] = Field(description="不晚于 2099-12-31")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.to_day < self.from_day:
            raise PydanticCustomError("lease-days", "租期最后一日不得早于第一日")
        return self


async def hold_flat(tx: AsyncConnection, caller: Principal, flat_id: UUID, eligibility_id: UUID, now: datetime) -> UUID:
    """Hold a flat for an eligibility; gives the hold's id.

    Raises NotFound for a flat or an eligibility out of view, FlatNotSuitable, FlatNotOffered, FlatAlreadyHeld,
    EligibilityInUse.
    """
    chosen = await seen(tx, visible(select(flat), caller, FLATS).where(flat.c.id == flat_id))
    whose = await seen(
        tx, visible(select(eligibility), caller, ELIGIBILITIES).where(eligibility.c.id == eligibility_id)
    )
    if chosen.kind != whose.kind or not serves(
        chosen.treasury, treasury=whose.treasury, city_treasury=whose.city_treasury
    ):
        raise FlatNotSuitable(kind=TITLES[FlatKind(whose.kind)])
    # The application is the events' key: locked before the emit, so that what it tells keeps its order.
    await tx.execute(_LOCK_APPLICATION, {"application": whose.application})
    if not (await tx.execute(_LOCK_FLAT, {"flat": flat_id})).scalar_one():
        raise FlatNotOffered
    until = held_until(local_date(now))
    made = await _insert_hold(tx, caller, flat_id=flat_id, eligibility_id=eligibility_id, now=now, until=until)
    await _record(tx, [made], move="hold", state=HoldState.HELD, now=now, by=caller.subject)
    await schedule(tx, [Due(HOLD_EXPIRY, str(made), until)])
    told = {"application": whose.application, "item": whose.id, "flat": flat_id}
    await emit(tx, FlatHeld(policy=_policy(whose), **told, held_until=until))
    return made


async def _insert_hold(
    tx: AsyncConnection, caller: Principal, *, flat_id: UUID, eligibility_id: UUID, now: datetime, until: datetime
) -> UUID:
    row = {
        "id": uuid7(),
        "flat": flat_id,
        "eligibility": eligibility_id,
        "state": HoldState.HELD.value,
        "held_at": now,
        "held_until": until,
        "held_by": caller.subject,
        "changed_at": now,
    }
    # The unique indexes decide: a second hold waits here for the first one's commit, and then is none.
    made = (await tx.execute(upsert(hold).on_conflict_do_nothing().returning(hold.c.id), row)).scalar()
    if made is not None:
        return UUID(str(made))
    if (await tx.execute(_IN_USE, {"eligibility": eligibility_id})).first():
        raise EligibilityInUse
    raise FlatAlreadyHeld


async def release_hold(tx: AsyncConnection, caller: Principal, hold_id: UUID, now: datetime) -> None:
    """Give up a hold. Raises NotFound, HoldNotInState."""
    await show_hold(tx, caller, hold_id)
    await cancel(tx, HOLD_EXPIRY, [str(hold_id)])
    await emit(tx, *[_released(row, "given_up") for row in await _moved(tx, hold_id, Move.GIVE_UP, now, caller)])


async def lease_flat(tx: AsyncConnection, caller: Principal, hold_id: UUID, asked: LeaseRequest, now: datetime) -> UUID:
    """Turn a hold into a lease; gives the lease's id. Raises NotFound, HoldNotInState, HoldLapsed, LeaseOver,
    LeaseBeforeHold."""
    if asked.to_day < local_date(now):
        raise LeaseOver
    held_on = local_date((await show_hold(tx, caller, hold_id)).held_at)
    if asked.from_day < held_on:
        raise LeaseBeforeHold(held_on=held_on)
    await cancel(tx, HOLD_EXPIRY, [str(hold_id)])
    (row,) = await _moved(tx, hold_id, Move.LEASE, now, caller)
    if now >= row.held_until:  # the ticker is about to release it: the clock decides, not who comes first
        raise HoldLapsed
    days = {"from_day": asked.from_day, "to_day": asked.to_day}
    signed = {"id": uuid7(), "hold": hold_id, "signed_at": now, "signed_by": caller.subject}
    await tx.execute(insert(lease), signed | days)
    await schedule(tx, [Due(LEASE_END, str(hold_id), end_of_day(asked.to_day))])
    told = {"application": row.application, "item": row.item, "flat": row.flat}
    await emit(tx, FlatLeased(policy=_policy(row), **told, lease=signed["id"], **days))
    return UUID(str(signed["id"]))


async def end_lease(tx: AsyncConnection, caller: Principal, lease_id: UUID, now: datetime) -> None:
    """End a lease before its last day. Raises NotFound, HoldNotInState."""
    found = await show_lease(tx, caller, lease_id)
    await cancel(tx, LEASE_END, [str(found.hold)])
    rows = await _moved(tx, found.hold, Move.END, now, caller)
    await emit(tx, *[_ended(row, local_date(now), "ended_early") for row in rows])


async def expire_holds(tx: AsyncConnection, holds: Sequence[UUID], now: datetime) -> None:
    """Release the holds whose time is up; what was leased or given up meanwhile stays as it is."""
    await emit(tx, *[_released(row, "expired") for row in await _move(tx, holds, Move.EXPIRE, now, TICKER)])


async def end_leases(tx: AsyncConnection, holds: Sequence[UUID], now: datetime) -> None:
    """End the leases of these holds, whose last day is over."""
    rows = await _move(tx, holds, Move.END, now, TICKER)
    await emit(tx, *[_ended(row, row.to_day, "expired") for row in rows])


async def _moved(
    tx: AsyncConnection, hold_id: UUID, move: Move, now: datetime, caller: Principal
) -> Sequence[Row[Any]]:
    rows = await _move(tx, [hold_id], move, now, caller.subject)
    if not rows:
        raise HoldNotInState(state=HOLD_TITLES[leading(move)[0]])
    return rows


async def _move(tx: AsyncConnection, holds: Sequence[UUID], move: Move, now: datetime, by: str) -> Sequence[Row[Any]]:
    """Move those of the holds that are in the state where the move begins. Callers have taken the due rows before:
    ticker and officer then meet at the same first lock."""
    begins, ends = leading(move)
    await tx.execute(_LOCK_APPLICATIONS, {"holds": holds})
    rows = (await tx.execute(_MOVE, {"holds": holds, "begins": begins.value, "ends": ends.value, "at": now})).all()
    await _record(tx, [row.id for row in rows], move=move.value, state=ends, now=now, by=by)
    return rows


async def _record(
    tx: AsyncConnection, holds: Sequence[UUID], *, move: str, state: HoldState, now: datetime, by: str
) -> None:
    await tx.execute(_RECORD, {"holds": holds, "at": now, "move": move, "state": state.value, "by": by})


def _released(row: Row[Any], reason: Any) -> FlatReleased:
    return FlatReleased(policy=_policy(row), application=row.application, item=row.item, flat=row.flat, reason=reason)


def _ended(row: Row[Any], on: date, reason: Any) -> LeaseEnded:
    told = {"application": row.application, "item": row.item, "flat": row.flat, "lease": row.lease}
    return LeaseEnded(policy=_policy(row), **told, ended_on=on, reason=reason)


def _policy(row: Row[Any]) -> PackIdentity:
    return PackIdentity(city=row.policy_city, version=row.policy_version, sha256=row.policy_sha256)
