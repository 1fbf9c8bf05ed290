"""Closing a month and settling it between the city and the treasuries below it.

The city's treasury closes and settles with each treasury below it: one side has to write both books in one transaction,
and the city is party to all. What is owed is read from the month's own postings, reversals netted, while the
period is held FOR UPDATE, so nothing can slip in. The settlement's own transfers belong to the month they close. The
route is that of the month's last day, whatever day somebody closes it on. What a third treasury owes goes to the city
by that one's route and on with the city's own; where the city itself paid, it ends there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.calendar import local_date
from libs.common.db import passing, savepoint
from libs.common.errors import DomainError
from libs.common.events import FiscalSettlementClosed
from libs.common.outbox import emit
from libs.common.policy import Leg, Pack, Route, settlement_route
from libs.common.treasuries import TreasuryKind
from services.finance import ledger
from services.finance.ledger import Transfer

log = structlog.get_logger()

_BOOKS = text("""
    INSERT INTO book (treasury)
    SELECT treasury FROM unnest(CAST(:treasuries AS text[])) AS r (treasury) ORDER BY treasury
    ON CONFLICT DO NOTHING
""")
_HOLD_BOOKS = text("SELECT 1 FROM book WHERE treasury = ANY(CAST(:treasuries AS text[])) ORDER BY treasury FOR UPDATE")
_PERIODS = text("""
    INSERT INTO period (treasury, month)
    SELECT treasury, :month FROM unnest(CAST(:treasuries AS text[])) AS r (treasury) ORDER BY treasury
    ON CONFLICT DO NOTHING
""")
_HOLD_PERIODS = text("""
    SELECT 1 FROM period WHERE treasury = ANY(CAST(:treasuries AS text[])) AND month = :month
     ORDER BY treasury FOR UPDATE
""")
_CLOSED_AT = text("SELECT closed_at FROM period WHERE treasury = :treasury AND month = :month")
_OWED = text("""
    SELECT a.counterparty AS debtor, sum(e.fen)::bigint AS fen
      FROM transfer AS t
      JOIN entry AS e ON e.transfer_id = t.id
      JOIN account AS a ON a.id = e.account_id
     WHERE t.treasury = :treasury AND t.month = :month AND t.kind IN ('payout', 'payout_reversal')
       AND a.treasury = :treasury AND a.kind = 'due_from'
     GROUP BY a.counterparty ORDER BY a.counterparty
""")
_CLOSE = text("""
    UPDATE period SET closed_at = :now, closed_by = :actor, reason = :reason
     WHERE treasury = :treasury AND month = :month
""")
_SETTLEMENT = text("""
    INSERT INTO settlement (id, treasury, month, city_treasury, fen, owed, route, rule, through, closed_at, closed_by,
                            policy_city, policy_version, policy_sha256)
    VALUES (:id, :treasury, :month, :city, :fen, CAST(:owed AS jsonb), :route, :rule, :through, :now, :actor,
            :policy_city, :policy_version, :policy_sha256)
""")


class PeriodClosed(DomainError):
    """409: the month is closed for this treasury already."""

    status, code, title = 409, "period-closed", "该月已关账"
    detail = "该财政的这个月份已经关账，不能重复关账。差错请在以后月份冲正。"


class ReasonRequired(DomainError):
    """422: a month that is not over is closed early only with a reason."""

    status, code, title = 422, "reason-required", "提前关账须说明理由"
    semantic = True
    detail = "该月份尚未结束。如确需提前关账，请填写理由。"


class NotTheCityTreasury(DomainError):
    """403: closing and settling is the city treasury's."""

    status, code, title = 403, "not-the-city-treasury", "关账和市县结算由市级财政办理"
    detail = "请联系市级财政部门办理。本级财政可以查阅结算结果。"


class MonthAhead(DomainError):
    """422: the month has not begun."""

    status, code, title = 422, "month-ahead", "该月份尚未开始"
    semantic = True
    detail = "不能关闭尚未开始的月份。请核对月份。"


@dataclass(frozen=True, slots=True)
class Closing:
    """What closing a month came to for one treasury. `result`: `closed`, `already_closed` or `failed`.

    `fen` is positive where the treasury is owed, `owed` is that by debtor; they and `route` are absent where nothing
    was closed, and for a city level that nobody owed. `why` is the code of a refusal, or the kind of the failure.
    """

    treasury: str
    month: str
    result: Literal["closed", "already_closed", "failed"]
    settlement: UUID | None = None
    fen: int | None = None
    owed: Mapping[str, int] | None = None
    route: str | None = None
    why: str | None = None


async def hold(tx: AsyncConnection, treasuries: Sequence[str], month: str) -> None:
    """Lock books and periods, so that no posting slips in. The book first: two months of it emit under one key.

    All of them before the first is closed: a posting holds its period and then wants accounts, in this order too.
    """
    wanted = {"treasuries": list(treasuries), "month": month}
    for statement in (_BOOKS, _HOLD_BOOKS, _PERIODS, _HOLD_PERIODS):
        await tx.execute(statement, wanted)


async def close(
    tx: AsyncConnection, pack: Pack, *, treasury: str, month: str, reason: str | None, actor: str, now: datetime
) -> Closing:
    """Close one treasury's month and settle it. Raises PeriodClosed, ReasonRequired, MonthAhead, PolicyError."""
    last = last_day(month)
    check_month(month, reason, today=local_date(now))
    city = pack.city_treasury(last).code
    here = {"treasury": treasury, "month": month}
    route = settlement_route(pack, treasury=treasury, on=last)
    await hold(tx, [treasury], month)
    if (await tx.execute(_CLOSED_AT, here)).scalar_one() is not None:
        raise PeriodClosed
    await tx.execute(_CLOSE, {**here, "now": now, "actor": actor, "reason": reason})
    owed = {row.debtor: row.fen for row in await tx.execute(_OWED, here)}
    if treasury == city and not owed:
        return Closing(treasury, month, "closed")
    key = uuid7()
    closing = Closing(treasury, month, "closed", key, sum(owed.values()), owed, route.kind.value)
    await _record(tx, pack, closing, route, city=city, actor=actor, now=now)
    posted = transfers(pack, treasury=treasury, month=month, owed=owed, settlement=key, on=local_date(now))
    await ledger.post(tx, posted)
    return closing


async def _record(
    tx: AsyncConnection, pack: Pack, closing: Closing, route: Route, *, city: str, actor: str, now: datetime
) -> None:
    await tx.execute(
        _SETTLEMENT,
        {
            "id": closing.settlement,
            "treasury": closing.treasury,
            "month": closing.month,
            "city": city,
            "fen": closing.fen,
            "owed": json.dumps(closing.owed),
            "route": route.kind.value,
            "rule": route.rule,
            "through": route.legs[0].creditor if len(route.legs) > 1 else None,
            "now": now,
            "actor": actor,
            **{f"policy_{name}": value for name, value in pack.identity.model_dump().items()},
        },
    )
    await emit(
        tx,
        FiscalSettlementClosed(
            policy=pack.identity,
            settlement=closing.settlement,
            treasury=closing.treasury,
            month=closing.month,
            fen=closing.fen,
            route=route.kind.value,
            closed_at=now,
        ),
    )


def transfers(
    pack: Pack, *, treasury: str, month: str, owed: Mapping[str, int], settlement: UUID, on: date
) -> list[Transfer]:
    """What settles `owed` (fen by debtor; negative is owed back) with a treasury: a transfer a leg, in the order of the
    money. Pure; `on` is the day of posting, the routes are those of the month's last day. Raises PolicyError."""
    legs = _legs(pack, treasury, owed, on=last_day(month))
    entries = [
        ledger.leg_entries(debtor=leg.debtor, creditor=leg.creditor, treasury=treasury, owed=along)
        for leg, along in legs
    ]
    return [
        Transfer(
            key=f"settlement:{treasury}:{month}:{number}",
            kind="settlement",
            treasury=treasury,
            month=month,
            posted_on=on,
            entries=each,
            settlement=settlement,
        )
        for number, each in enumerate(filter(None, entries), start=1)
    ]


def _legs(pack: Pack, treasury: str, owed: Mapping[str, int], *, on: date) -> Iterator[tuple[Leg, Mapping[str, int]]]:
    """Every leg, with what goes along it by debtor: others' to the city, then all of it on."""
    city = pack.city_treasury(on).code
    for debtor, fen in owed.items():
        if debtor != city:
            route = settlement_route(pack, treasury=debtor, on=_last_there(pack, debtor, on))
            yield from ((leg, {debtor: fen}) for leg in route.back)
    yield from ((leg, owed) for leg in settlement_route(pack, treasury=treasury, on=on).legs)


def _last_there(pack: Pack, treasury: str, on: date) -> date:
    """The day, or the last one before it on which the treasury existed: what it owed then is still to be paid."""
    ends = (min(each.valid_to or on, on) for each in pack.treasuries if each.code == treasury and each.valid_from <= on)
    return max(ends, default=on)


async def close_all(
    tx: AsyncConnection, pack: Pack, *, month: str, reason: str | None, actor: str, now: datetime
) -> list[Closing]:
    """Close a month for every treasury of the pack; one that fails stops no other.

    Raises ReasonRequired, MonthAhead.
    """
    check_month(month, reason, today=local_date(now))
    treasuries = treasuries_of(pack, last_day(month))
    await hold(tx, treasuries, month)
    return [
        await _isolated(tx, pack, treasury, month=month, reason=reason, actor=actor, now=now) for treasury in treasuries
    ]


async def _isolated(
    tx: AsyncConnection, pack: Pack, treasury: str, *, month: str, reason: str | None, actor: str, now: datetime
) -> Closing:
    try:
        async with savepoint(tx):
            return await close(tx, pack, treasury=treasury, month=month, reason=reason, actor=actor, now=now)
    except PeriodClosed:
        return Closing(treasury, month, "already_closed")
    except DomainError as refusal:
        return Closing(treasury, month, "failed", why=refusal.code)
    except Exception as error:
        if passing(error):
            raise
        await log.aerror("closing failed", treasury=treasury, month=month, error=repr(error))
        return Closing(treasury, month, "failed", why=type(error).__name__)


def treasuries_of(pack: Pack, on: date) -> Sequence[str]:
    """The treasuries that pay, the city level included: all of the pack but those that only clear."""
    return sorted(t.code for t in pack.treasuries if t.covers(on) and t.kind is not TreasuryKind.PROVINCE)


def check_month(month: str, reason: str | None, *, today: date) -> None:
    """Raises MonthAhead for a month that has not begun, ReasonRequired for one that is not over and has no reason."""
    if month > ledger.month_of(today):
        raise MonthAhead
    if month == ledger.month_of(today) and not reason:
        raise ReasonRequired


def last_day(month: str) -> date:
    """The last day of a month (`YYYY-MM`)."""
    first_of_next = date.fromisoformat(f"{ledger.next_month(month)}-01")
    return date.fromordinal(first_of_next.toordinal() - 1)
