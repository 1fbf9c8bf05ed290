"""Shapes and dependencies that several nouns share."""

from datetime import date, datetime
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.calendar import CALENDAR
from libs.common.crypto import Vault
from libs.common.errors import NotFound
from libs.common.money import Amount
from libs.common.packs import Packs
from libs.common.policy import PackIdentity
from libs.common.service import Service
from libs.common.web import Caller
from services.finance.payees import Payees
from services.finance.visible import treasury_of

TreasuryCode = Annotated[str, Field(pattern=r"^[1-9][0-9]{5}$", description="财政编码")]
MonthText = Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", description="月份，YYYY-MM")]
MonthPath = Annotated[str, Path(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", description="月份，YYYY-MM")]
TreasuryPath = Annotated[str, Path(pattern=r"^[1-9][0-9]{5}$", description="财政编码")]
Code = Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,64}$")]


class Body(BaseModel):
    """A request body: nothing unknown in it."""

    model_config = ConfigDict(extra="forbid")


class SignedAmount(BaseModel):
    """An amount that may be negative: `{"fen": -123, "currency": "CNY"}`."""

    fen: int
    currency: str = "CNY"


class OrderOut(BaseModel):
    """A payout order. `shares` maps treasuries to fen of the public part; `due_on` is the last day for the credit."""

    id: UUID
    application: UUID
    item: UUID
    entitlement: UUID
    instalment: int
    benefit: str
    beneficiary: UUID
    treasury: str
    state: str
    amount: Amount
    employer: Amount
    shares: dict[str, int] = Field(description="公共部分由各级财政承担的金额，单位分")
    due_on: date
    provisional: bool = Field(description="应付日超出已公布的放假安排，为暂定")
    settled_on: date | None
    attempt: int
    payee_account: UUID | None
    fiscal_year: int
    quota: UUID
    quota_number: str | None
    budget_unit: str | None
    project: str | None
    functional: str | None
    economic_department: str | None
    economic_government: str | None
    policy: PackIdentity


def order_out(row: Any) -> OrderOut:
    """An order as the API shows it, from a row of orders joined with their quotas."""
    return OrderOut(
        entitlement=row.entitlement_id,
        amount=Amount(fen=row.public_fen),
        employer=Amount(fen=row.employer_fen),
        quota=row.quota_id,
        policy=policy_out(row),
        provisional=CALENDAR.is_provisional(row.due_on),
        **{
            name: getattr(row, name)
            for name in OrderOut.model_fields
            if name not in {"entitlement", "amount", "employer", "provisional", "quota", "policy"}
        },
    )


def policy_out(row: Any) -> PackIdentity:
    """The pack that a row was decided under."""
    return PackIdentity(city=row.policy_city, version=row.policy_version, sha256=row.policy_sha256)


class HistoryOut(BaseModel):
    """One step of an order: what was done, by whom, and the state after it.

    `record`: the batch, the result file, or the application that changed the account; `payee_account`: where the order
    goes from this step on, where the step says so."""

    at: datetime
    action: str
    state: str
    attempt: int
    actor: str
    reason: str | None
    record: UUID | None
    payee_account: UUID | None


async def service_of(request: Request) -> Service:
    """The running service."""
    return cast("Service", request.app.state.service)


async def vault_of(request: Request) -> Vault:
    """Finance's vault for bank files."""
    return cast("Vault", request.app.state.vault)


async def payees_of(request: Request) -> Payees:
    """Who asks intake for accounts."""
    return cast("Payees", request.app.state.payees)


async def packs_of(request: Request) -> Packs:
    """The policy packs."""
    return (await service_of(request)).packs


async def own_treasury(caller: Caller) -> str:
    """The treasury that the caller works for. Raises NotFound for one without."""
    treasury = treasury_of(caller)
    if treasury is None:
        raise NotFound
    return treasury


Running = Annotated[Service, Depends(service_of)]
TheVault = Annotated[Vault, Depends(vault_of)]
ThePayees = Annotated[Payees, Depends(payees_of)]
ThePacks = Annotated[Packs, Depends(packs_of)]
OwnTreasury = Annotated[str, Depends(own_treasury)]


def actor_of(principal: Principal) -> str:
    """How history names a caller."""
    return principal.subject


async def one_or_404(tx: AsyncConnection, query: Select[Any]) -> Any:
    """The one row of a query. Raises NotFound."""
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        raise NotFound
    return row
