"""The books: accounts, periods, settlements between city and treasuries, reconciliation."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, or_, select, tuple_
from starlette.responses import Response

from libs.common.calendar import local_date
from libs.common.errors import NotFound
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.packs import Packs
from libs.common.paging import Page, Paging, page_of, read_after
from libs.common.policy import PackIdentity
from libs.common.web import Caller, Tx, guarded_router, requires
from libs.common.words import Reason
from services.finance import reconcile, settlement
from services.finance.api.shapes import (
    Body,
    MonthPath,
    MonthText,
    SignedAmount,
    ThePacks,
    TreasuryCode,
    TreasuryPath,
    actor_of,
    policy_out,
)
from services.finance.models import account, period
from services.finance.models import settlement as settlement_table
from services.finance.settlement import Closing
from services.finance.visible import treasury_of, visible

router = guarded_router("finance", tags=["账务和结算"])


class AccountOut(BaseModel):
    """An account of a treasury's book; a debit balance is positive. `counterparty`: who owes or is owed."""

    treasury: str
    kind: str
    counterparty: str
    balance: SignedAmount


class PeriodOut(BaseModel):
    """A month of a treasury's book."""

    treasury: str
    month: str
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None


class SettlementOut(BaseModel):
    """A settlement; positive where the treasury is owed, `owed` by whom; `through` is the clearing treasury."""

    id: UUID
    treasury: str
    city_treasury: str
    month: str
    amount: SignedAmount
    owed: dict[str, SignedAmount]
    route: str
    rule: str | None
    through: str | None
    closed_at: datetime
    closed_by: str
    policy: PackIdentity


class Close(Body):
    """Why a month that is not over is closed now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "年终决算提前关账"}]})

    reason: Reason | None = None


class Closings(BaseModel):
    """What closing a month came to, treasury by treasury."""

    month: str
    results: list[Closing]


class CheckOut(BaseModel):
    """One invariant: how many things were checked, how many are not so, the first of these."""

    name: str
    checked: int
    violations: int
    first: str | None
    detail: str | None


class ReconciliationOut(BaseModel):
    """A reconciliation: `paid_fen` by the treasury that paid, `fiscal_settlement_fen` by the one that was owed."""

    month: str | None
    treasury: str | None
    checks: list[CheckOut]
    differences: list[CheckOut]
    paid_fen: dict[str, int]
    fiscal_settlement_fen: dict[str, int]


@router.get("/ledger/accounts", dependencies=[requires("finance:read")], summary="账户余额")
async def list_accounts(
    tx: Tx, caller: Caller, page: Paging, treasury: Annotated[TreasuryCode | None, Query()] = None
) -> Page[AccountOut]:
    """各级财政账簿的账户和余额。"""
    key = (account.c.treasury, account.c.kind, account.c.counterparty)
    query = visible(select(account), caller, treasury=account.c.treasury).order_by(*key).limit(page.limit + 1)
    if treasury:
        query = query.where(account.c.treasury == treasury)
    if after := read_after(page, str, str, str):
        query = query.where(tuple_(*key) > tuple_(*after))
    rows = (await tx.execute(query)).all()
    out = [
        AccountOut(
            treasury=row.treasury,
            kind=row.kind,
            counterparty=row.counterparty,
            balance=SignedAmount(fen=row.balance),
        )
        for row in rows
    ]
    return page_of(out, page, lambda one: (one.treasury, one.kind, one.counterparty))


@router.get("/periods", dependencies=[requires("finance:read")], summary="会计月份")
async def list_periods(
    tx: Tx, caller: Caller, packs: ThePacks, page: Paging, month: Annotated[MonthText | None, Query()] = None
) -> Page[PeriodOut]:
    """有账务或已关账的月份。市级财政可查阅全部。"""
    query = select(period)
    if not _is_city(caller, packs):
        query = visible(query, caller, treasury=period.c.treasury)
    query = query.order_by(period.c.month, period.c.treasury).limit(page.limit + 1)
    if month:
        query = query.where(period.c.month == month)
    if after := read_after(page, str, str):
        query = query.where(tuple_(period.c.month, period.c.treasury) > tuple_(*after))
    rows = (await tx.execute(query)).all()
    out = [PeriodOut.model_validate(dict(row)) for row in (each._mapping for each in rows)]  # noqa: SLF001
    return page_of(out, page, lambda one: (one.month, one.treasury))


def _is_city(caller: Caller, packs: Packs) -> bool:
    today = local_date(datetime.now(UTC))
    return treasury_of(caller) == packs.on(today).city_treasury(today).code


@router.post(
    "/periods/{treasury}/{month}:close",
    response_model=Closings,
    dependencies=[requires("finance:settle")],
    summary="关账并与市级结算",
)
async def close_period(
    *,
    treasury: TreasuryPath,
    month: MonthPath,
    body: Close,
    tx: Tx,
    caller: Caller,
    packs: ThePacks,
    key: IdempotencyKey,
) -> Response:
    """关闭一级财政的一个月份，并与市级结算；由市级财政办理。未满的月份须说明理由。"""
    if not _is_city(caller, packs):
        raise settlement.NotTheCityTreasury

    async def do() -> Reply:
        now = datetime.now(UTC)
        pack = packs.on(local_date(now))
        if treasury not in settlement.treasuries_of(pack, settlement.last_day(month)):
            raise NotFound
        closing = await settlement.close(
            tx,
            pack,
            treasury=treasury,
            month=month,
            reason=body.reason,
            actor=actor_of(caller),
            now=now,
        )
        return Reply(200, Closings(month=month, results=[closing]))

    target = f"{treasury}/{month}"
    return await once(tx, caller=caller, operation="period.close", key=key, body=body, do=do, target=target)


@router.post(
    "/periods/{month}:close",
    response_model=Closings,
    dependencies=[requires("finance:settle")],
    summary="全部财政关账结算",
)
async def close_periods(
    *, month: MonthPath, body: Close, tx: Tx, caller: Caller, packs: ThePacks, key: IdempotencyKey
) -> Response:
    """关闭全部财政的一个月份；一家失败不影响其他。由市级财政办理。"""
    if not _is_city(caller, packs):
        raise settlement.NotTheCityTreasury

    async def do() -> Reply:
        now = datetime.now(UTC)
        results = await settlement.close_all(
            tx, packs.on(local_date(now)), month=month, reason=body.reason, actor=actor_of(caller), now=now
        )
        return Reply(200, Closings(month=month, results=results))

    return await once(tx, caller=caller, operation="periods.close", key=key, body=body, do=do, target=month)


@router.get("/settlements", dependencies=[requires("finance:read")], summary="市县结算")
async def list_settlements(
    tx: Tx,
    caller: Caller,
    page: Paging,
    month: Annotated[MonthText | None, Query()] = None,
    treasury: Annotated[TreasuryCode | None, Query()] = None,
) -> Page[SettlementOut]:
    """市县结算。市级财政是每笔的一方，其他财政查阅本级为一方的。"""
    table = settlement_table.c

    def party(own: str) -> ColumnElement[bool]:
        return or_(table.city_treasury == own, table.owed.has_key(own))

    query = visible(select(settlement_table), caller, treasury=table.treasury, party=party)
    query = query.order_by(table.id).limit(page.limit + 1)
    if month:
        query = query.where(table.month == month)
    if treasury:
        query = query.where(table.treasury == treasury)
    if after := read_after(page, UUID):
        query = query.where(table.id > after[0])
    rows = (await tx.execute(query)).all()
    return page_of([_settlement_out(row) for row in rows], page, lambda one: (str(one.id),))


def _settlement_out(row: Any) -> SettlementOut:
    own = {"amount", "owed", "policy"}
    owed = row.owed or {row.city_treasury: row.fen}
    return SettlementOut(
        amount=SignedAmount(fen=row.fen),
        owed={debtor: SignedAmount(fen=fen) for debtor, fen in owed.items()},
        policy=policy_out(row),
        **{name: getattr(row, name) for name in SettlementOut.model_fields if name not in own},
    )


@router.get("/reconciliation", dependencies=[requires("finance:read")], summary="对账报告")
async def get_reconciliation(
    tx: Tx, caller: Caller, packs: ThePacks, month: Annotated[MonthText | None, Query()] = None
) -> ReconciliationOut:
    """账务应当成立的各项关系，即时核对，全部或一个月份；市级以下财政核对本级。"""
    everything = caller.sees_everything or _is_city(caller, packs)
    treasury = None if everything else treasury_of(caller)
    if not everything and treasury is None:
        raise NotFound
    report = await reconcile.report(tx, month=month, treasury=treasury)
    checks = {check.name: CheckOut.model_validate(check, from_attributes=True) for check in report.checks}
    return ReconciliationOut(
        month=month,
        treasury=treasury,
        checks=list(checks.values()),
        differences=[checks[difference.name] for difference in report.differences],
        paid_fen=report.paid,
        fiscal_settlement_fen=report.settled,
    )
