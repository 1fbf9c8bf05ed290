"""Payout orders and entitlements: lists, one with its history, reissue, cancellation."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, exists, or_, select, tuple_
from starlette.responses import Response

from libs.common.calendar import CALENDAR, local_date
from libs.common.errors import NotFound
from libs.common.idempotency import IdempotencyKey, Reply, known_keys, once
from libs.common.money import Amount
from libs.common.packs import Packs
from libs.common.paging import Page, Paging, page_of, read_after
from libs.common.policy import Instalment, PackIdentity, Verdict
from libs.common.web import Caller, Tx, guarded_router, requires
from libs.common.words import Reason
from services.finance import affiliations, payouts
from services.finance.accounts import accounts_of
from services.finance.api.reviews import ReviewOut, review_columns, review_out
from services.finance.api.shapes import (
    Body,
    HistoryOut,
    OrderOut,
    Running,
    ThePacks,
    ThePayees,
    TreasuryCode,
    actor_of,
    one_or_404,
    order_out,
    policy_out,
)
from services.finance.domain import CancelCause, PaymentState
from services.finance.entitlements import plan, reviewers
from services.finance.models import (
    entitlement,
    instalment,
    instalment_review,
    order_history,
    payout_order,
    quota,
)
from services.finance.payouts import policy_of
from services.finance.reissues import reissue
from services.finance.visible import treasury_of, visible

router = guarded_router("finance", tags=["支付令"])

_OF_THE_ORDER = ("treasury", "state", "due_on")
_DIMENSIONS = ("fiscal_year", "budget_unit", "project", "functional", "economic_department", "economic_government")


class OrderDetail(OrderOut):
    """An order with its history, the oldest step first."""

    history: list[HistoryOut]


class InstalmentOut(BaseModel):
    """One instalment; `order` is absent until its order is made. `amount` holds the employer's part.

    Until then the days are those of the calendar in force; `provisional` ones may move when a notice is published. One
    with a `review_from` gets its order only once its last review passes."""

    number: int
    amount: Amount
    due_on: date = Field(description="应付日")
    order_on: date = Field(description="生成支付令之日")
    provisional: bool = Field(description="应付日超出已公布的放假安排，为暂定")
    order: UUID | None
    treasury: str | None = Field(description="付款财政，生成支付令后才有")
    state: str | None
    review_from: date | None = Field(description="自此日起可以复核；无须复核的为空")
    withheld: bool = Field(description="生成支付令之日已到，没有复核符合，暂缓发放")
    reviews: list[ReviewOut] = Field(description="历次复核，早的在前")


class EntitlementOut(BaseModel):
    """An approved money benefit of a person, with its instalments."""

    id: UUID
    application: UUID
    item: UUID
    benefit: str
    number: str
    certification: str
    category: str
    beneficiary: UUID
    payee_account: UUID | None = Field(description="以后各期付至的收款账户")
    employer: UUID | None
    employer_kind: str
    treasury: str = Field(description="受理时的隶属财政；单位迁移后的各期见各期的付款财政")
    accepted_on: date
    decided_on: date
    total: Amount
    policy: PackIdentity
    instalments: list[InstalmentOut]


class Reissue(Body):
    """Pay to this account, as intake knows it: one of the beneficiary's own."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"payee_account": "0197c1b5-b001-7a10-8f21-3c5d7e9f1a2b"}]}
    )

    payee_account: UUID


class Cancel(Body):
    """Why the order is cancelled: the cause is told to the applicant, the words stay in the order's history."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cause": "given_up", "reason": "本人书面放弃。"}]})

    cause: CancelCause = Field(default=CancelCause.OTHER, description="原因类别，将告知申请人")
    reason: Reason


def orders_for(caller: Caller) -> Select[Any]:
    """The orders that the caller sees, with the dimensions of their quotas."""
    query = select(payout_order, quota.c.number.label("quota_number"), *(quota.c[name] for name in _DIMENSIONS)).join(
        quota, quota.c.id == payout_order.c.quota_id
    )
    return visible(query, caller, treasury=payout_order.c.treasury, beneficiary=payout_order.c.beneficiary)


@router.get("/orders", dependencies=[requires("finance:read")], summary="支付令列表（按应付日）")
async def list_orders(
    *,
    tx: Tx,
    caller: Caller,
    page: Paging,
    state: Annotated[list[PaymentState] | None, Query()] = None,
    treasury: Annotated[TreasuryCode | None, Query()] = None,
    application: Annotated[UUID | None, Query()] = None,
) -> Page[OrderOut]:
    """支付令，应付日早的在前；可按状态、财政、申请筛选。"""
    query = orders_for(caller).order_by(payout_order.c.due_on, payout_order.c.id).limit(page.limit + 1)
    if state:
        query = query.where(payout_order.c.state.in_([one.value for one in state]))
    if treasury:
        query = query.where(payout_order.c.treasury == treasury)
    if application:
        query = query.where(payout_order.c.application == application)
    if after := read_after(page, date.fromisoformat, UUID):
        query = query.where(tuple_(payout_order.c.due_on, payout_order.c.id) > tuple_(*after))
    rows = (await tx.execute(query)).all()
    return page_of([order_out(row) for row in rows], page, lambda order: (order.due_on.isoformat(), str(order.id)))


@router.get("/orders/{order_id}", dependencies=[requires("finance:read")], summary="支付令及其全部经过")
async def get_order(order_id: UUID, tx: Tx, caller: Caller) -> OrderDetail:
    """一份支付令及其每一步：何时、何人、办了什么、付往哪个收款账户。"""
    row = await one_or_404(tx, orders_for(caller).where(payout_order.c.id == order_id))
    steps = await tx.execute(
        select(order_history).where(order_history.c.order_id == order_id).order_by(order_history.c.id)
    )
    history = [
        HistoryOut(
            at=step.recorded_at,
            action=step.action,
            state=step.state,
            attempt=step.attempt,
            actor=step.actor,
            reason=step.reason,
            record=step.record,
            payee_account=step.payee_account,
        )
        for step in steps
    ]
    return OrderDetail(**order_out(row).model_dump(), history=history)


@router.post(
    "/orders/{order_id}:reissue",
    response_model=OrderOut,
    dependencies=[requires("finance:pay")],
    summary="更正收款账户后重新支付",
)
async def reissue_order(
    *, order_id: UUID, body: Reissue, service: Running, payees: ThePayees, caller: Caller, key: IdempotencyKey
) -> Response:
    """退票后重新支付，或改付账户无法支付的待支付支付令；只能付至受益人本人账户。"""
    # Two transactions, and intake asked between them, as for a batch.
    operation, query = "order.reissue", orders_for(caller).where(payout_order.c.id == order_id)
    async with service.database.transaction() as tx:
        replayed = bool(await known_keys(tx, caller.client, operation, [key]))
        seen = None if replayed else await one_or_404(tx, query)
    found = await payees.resolve((body.payee_account, seen.payee_account, seen.beneficiary) if seen else ())

    async with service.database.transaction() as tx:

        async def do() -> Reply:
            before = seen or await one_or_404(tx, query)
            await reissue(tx, before, payee_account=body.payee_account, payees=found, actor=actor_of(caller))
            return Reply(200, order_out(await one_or_404(tx, query)))

        return await once(tx, caller=caller, operation=operation, key=key, body=body, do=do, target=str(order_id))


@router.post(
    "/orders/{order_id}:cancel", response_model=OrderOut, dependencies=[requires("finance:pay")], summary="取消支付令"
)
async def cancel_order(order_id: UUID, body: Cancel, tx: Tx, caller: Caller, key: IdempotencyKey) -> Response:
    """取消未提交银行的支付令；腾出的指标按应付日先后落实给待落实指标的支付令。"""

    async def do() -> Reply:
        await one_or_404(tx, orders_for(caller).where(payout_order.c.id == order_id))
        await payouts.cancel(
            tx, order_id, cause=body.cause, reason=body.reason, actor=actor_of(caller), now=datetime.now(UTC)
        )
        return Reply(200, order_out(await one_or_404(tx, orders_for(caller).where(payout_order.c.id == order_id))))

    return await once(tx, caller=caller, operation="order.cancel", key=key, body=body, do=do, target=str(order_id))


@router.get("/entitlements/{entitlement_id}", dependencies=[requires("finance:read")], summary="待遇及其分期")
async def get_entitlement(entitlement_id: UUID, tx: Tx, caller: Caller, packs: ThePacks) -> EntitlementOut:
    """一项待遇及其各期：金额、应付日（没有官方日历的为暂定）、支付令和状态。"""

    def party(own: str) -> ColumnElement[bool]:
        """One that an instalment fell to, or may fall to: the employer may have moved there."""
        mine = payout_order.c.treasury == own, payout_order.c.entitlement_id == entitlement.c.id
        return or_(exists().where(*mine), affiliations.names(own))

    query = visible(
        select(entitlement).where(entitlement.c.id == entitlement_id),
        caller,
        treasury=entitlement.c.treasury,
        beneficiary=entitlement.c.beneficiary,
        party=party,
    )
    row = await one_or_404(tx, query)
    parts = (
        await tx.execute(
            select(instalment, payout_order.c.id.label("order"), *(payout_order.c[name] for name in _OF_THE_ORDER))
            .outerjoin(payout_order)
            .where(instalment.c.entitlement_id == entitlement_id)
            .order_by(instalment.c.number)
        )
    ).all()
    if treasury_of(caller) not in {None, row.treasury, *(part.treasury for part in parts)}:
        await _to_bear(tx, packs, entitlement_id, treasury_of(caller))
    reviews = await _reviews_of(tx, entitlement_id)
    paid_to = await accounts_of(tx, [entitlement_id])
    planned = plan(packs.get(policy_of(row)), row)
    instalments = [_instalment_out(part, own, reviews[part.number]) for part, own in zip(parts, planned, strict=True)]
    other = {"total", "policy", "instalments", "payee_account"}
    return EntitlementOut(
        total=Amount(fen=row.total_fen),
        policy=policy_out(row),
        instalments=instalments,
        payee_account=paid_to[entitlement_id],
        **{name: getattr(row, name) for name in EntitlementOut.model_fields if name not in other},
    )


async def _to_bear(tx: Tx, packs: Packs, entitlement_id: UUID, own: str | None) -> None:
    """Raises NotFound where no instalment that has no order yet is the treasury's to bear."""
    later = (
        select(entitlement, instalment.c.number.label("instalment"))
        .join(instalment, instalment.c.entitlement_id == entitlement.c.id)
        .outerjoin(payout_order)
        .where(entitlement.c.id == entitlement_id, payout_order.c.id.is_(None))
    )
    if own not in await reviewers(tx, packs, (await tx.execute(later)).all()):
        raise NotFound


async def _reviews_of(tx: Tx, entitlement_id: UUID) -> Mapping[int, list[ReviewOut]]:
    """The reviews of an entitlement by the number of the instalment, the oldest first."""
    rows = await tx.execute(
        select(instalment_review.c.number, *review_columns(instalment_review))
        .where(instalment_review.c.entitlement_id == entitlement_id)
        .order_by(instalment_review.c.serial)
    )
    found: dict[int, list[ReviewOut]] = defaultdict(list)
    for row in rows:
        found[row.number].append(review_out(row))
    return found


def _instalment_out(part: Any, planned: Instalment, reviews: list[ReviewOut]) -> InstalmentOut:
    due_on = part.due_on or planned.due_on
    missing = part.review_from is not None and not (reviews and reviews[-1].verdict is Verdict.PASSED)
    return InstalmentOut(
        number=part.number,
        amount=Amount(fen=part.amount_fen),
        due_on=due_on,
        order_on=planned.order_on,
        provisional=CALENDAR.is_provisional(due_on),
        order=part.order,
        treasury=part.treasury,
        state=part.state,
        review_from=part.review_from,
        withheld=missing and planned.order_on <= local_date(datetime.now(UTC)),
        reviews=reviews,
    )
