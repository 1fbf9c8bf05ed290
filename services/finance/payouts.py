"""Payout orders: made for an instalment, funded, cancelled, told of when late.

Every change of an order is here, in `batches` (sending), in `results` (the bank's answer), in `reissues` or in
`accounts` (another account), each with its row of history.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.calendar import end_of_day, local_date
from libs.common.change import Write, change
from libs.common.events import PayoutCancelled, PayoutOrdered, SlaBreached
from libs.common.outbox import emit
from libs.common.policy import PackIdentity, Split
from libs.common.ticker import Due, schedule
from services.finance import quotas
from services.finance.domain import CancelCause, OpenException, PaymentState, next_state
from services.finance.quotas import Line, Quota

DEADLINE = "payout.deadline"
SYSTEM = "finance"  # the actor of what no person did

_APPLICATIONS = text("""
    INSERT INTO application (id)
    SELECT id FROM unnest(CAST(:ids AS uuid[])) AS r (id) ORDER BY id ON CONFLICT DO NOTHING
""")
_LOCK_APPLICATIONS = text("""
    SELECT id FROM application WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")
_APPLICATIONS_OF = text("SELECT DISTINCT application FROM payout_order WHERE id = ANY(CAST(:ids AS uuid[]))")
_ORDERS = text("""
    SELECT o.*, EXISTS (SELECT 1 FROM bank_exception AS x WHERE x.order_id = o.id AND x.resolved_at IS NULL) AS doubted
      FROM payout_order AS o WHERE o.id = ANY(CAST(:ids AS uuid[])) ORDER BY o.id
""")
_ORDERED_ALREADY = text("""
    SELECT entitlement_id, instalment FROM payout_order WHERE entitlement_id = ANY(CAST(:ids AS uuid[]))
""")
_INSERT = text("""
    INSERT INTO payout_order (id, application, item, entitlement_id, instalment, benefit, beneficiary, treasury,
                              public_fen, employer_fen, shares, rules, due_on, quota_id, payee_account, state,
                              policy_city, policy_version, policy_sha256)
    SELECT r.* FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
           id uuid, application uuid, item uuid, entitlement_id uuid, instalment smallint, benefit text,
           beneficiary uuid, treasury text, public_fen bigint, employer_fen bigint, shares jsonb, rules jsonb,
           due_on date, quota_id uuid, payee_account uuid, state text,
           policy_city text, policy_version text, policy_sha256 text)
    RETURNING *
""")
_HISTORY = text("""
    INSERT INTO order_history (order_id, action, state, attempt, actor, reason, record, payee_account)
    SELECT order_id, action, state, attempt, :actor, reason, record, account
      FROM unnest(CAST(:orders AS uuid[]), CAST(:actions AS text[]), CAST(:states AS text[]),
                  CAST(:attempts AS smallint[]), CAST(:reasons AS text[]), CAST(:records AS uuid[]),
                  CAST(:accounts AS uuid[]))
           WITH ORDINALITY AS r (order_id, action, state, attempt, reason, record, account, n)
     ORDER BY n
""")
_FUND = text("""
    UPDATE payout_order SET state = 'due' WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'unfunded' RETURNING id
""")
_CANCEL = text("UPDATE payout_order SET state = 'cancelled' WHERE id = :id RETURNING id")
_LATE = text("""
    SELECT o.* FROM payout_order AS o
     WHERE o.id = ANY(CAST(:ids AS uuid[])) AND o.state NOT IN ('settled', 'cancelled', 'recovering', 'recovered')
       AND NOT EXISTS (SELECT 1 FROM order_history AS h WHERE h.order_id = o.id AND h.action = 'breach')
     ORDER BY o.id
""")


@dataclass(frozen=True, slots=True)
class Draft:
    """An order about to be made: one instalment with its split."""

    application: UUID
    item: UUID
    entitlement: UUID
    instalment: int
    benefit: str
    beneficiary: UUID
    payee_account: UUID | None
    split: Split
    due_on: date
    policy: PackIdentity

    @property
    def treasury(self) -> str:
        """The one that pays."""
        return self.split.advanced_by

    @property
    def line(self) -> Line:
        """The quota line that it commits: of the year in which it falls due."""
        return Line(self.treasury, self.benefit, self.due_on.year)


@dataclass(frozen=True, slots=True)
class Step:
    """One row of an order's history. `record`: the batch, the result file, or the application of a change behind it;
    `account`: where the order goes from this step on, where the step says so."""

    order: UUID
    action: str
    state: str
    attempt: int
    reason: str | None = None
    record: UUID | None = None
    account: UUID | None = None


async def lock_applications(tx: AsyncConnection, ids: Collection[UUID]) -> None:
    """Lock the rows that stand for the keys of events, in order. Whatever changes an order holds its application."""
    await tx.execute(_LOCK_APPLICATIONS, {"ids": list(ids)})


async def open_applications(tx: AsyncConnection, ids: Collection[UUID]) -> None:
    """The same, making the rows that are not there yet."""
    await tx.execute(_APPLICATIONS, {"ids": list(set(ids))})
    await lock_applications(tx, ids)


async def locked(tx: AsyncConnection, ids: Collection[UUID]) -> list[Any]:
    """The orders with their applications locked, by id; `doubted` where a bank exception of one is open."""
    wanted = {"ids": list(ids)}
    await lock_applications(tx, list((await tx.execute(_APPLICATIONS_OF, wanted)).scalars()))
    return list((await tx.execute(_ORDERS, wanted)).all())


async def make_orders(tx: AsyncConnection, drafts: Sequence[Draft], lines: Mapping[Line, Quota]) -> None:
    """Make the orders that are not there yet. The lines and the applications are locked already."""
    made_before = await tx.execute(_ORDERED_ALREADY, {"ids": [draft.entitlement for draft in drafts]})
    known = {(row.entitlement_id, row.instalment) for row in made_before}
    fresh = [draft for draft in drafts if (draft.entitlement, draft.instalment) not in known]
    fresh.sort(key=lambda draft: (draft.due_on, draft.entitlement))
    rows = [_row(draft, lines[draft.line]) for draft in fresh if draft.split.public]
    if not rows:
        return
    made = (await tx.execute(_INSERT, {"rows": json.dumps(rows, default=str)})).all()
    steps = [Step(order.id, "order", order.state, order.attempt, account=order.payee_account) for order in made]
    await tell(tx, steps, actor=SYSTEM)
    await remind(tx, {order.id: order.due_on for order in made})
    await emit(tx, *(ordered(order, order.state) for order in made))
    await quotas.commit(tx, {quota.id: quota.taken for quota in lines.values()})


def _row(draft: Draft, quota: Quota) -> dict[str, Any]:
    state = PaymentState.DUE if quota.take(draft.split.public) else PaymentState.UNFUNDED
    return {
        "id": uuid7(),
        "application": draft.application,
        "item": draft.item,
        "entitlement_id": draft.entitlement,
        "instalment": draft.instalment,
        "benefit": draft.benefit,
        "beneficiary": draft.beneficiary,
        "treasury": draft.treasury,
        "public_fen": draft.split.public,
        "employer_fen": draft.split.employer,
        "shares": dict(draft.split.shares),
        "rules": list(draft.split.rules),
        "due_on": draft.due_on,
        "quota_id": quota.id,
        "payee_account": draft.payee_account,
        "state": state.value,
        **{f"policy_{name}": value for name, value in draft.policy.model_dump().items()},
    }


def policy_of(row: Any) -> PackIdentity:
    """The pack that a stored row was decided under."""
    return PackIdentity(city=row.policy_city, version=row.policy_version, sha256=row.policy_sha256)


def ordered(order: Any, state: Literal["due", "unfunded"]) -> PayoutOrdered:
    """What others are told of an order that is to be paid, or waits for quota."""
    return PayoutOrdered(
        policy=policy_of(order),
        application=order.application,
        order=order.id,
        item=order.item,
        benefit=order.benefit,
        instalment=order.instalment,
        treasury=order.treasury,
        fen=order.public_fen,
        due_on=order.due_on,
        state=state,
    )


async def tell(tx: AsyncConnection, steps: Sequence[Step], *, actor: str) -> None:
    """Write history."""
    if steps:
        await tx.execute(*history(steps, actor=actor))


def history(steps: Sequence[Step], *, actor: str) -> Write:
    """What `tell` writes, to stand beside the change that it tells of."""
    return Write(
        _HISTORY,
        {
            "orders": [step.order for step in steps],
            "actions": [step.action for step in steps],
            "states": [step.state for step in steps],
            "attempts": [step.attempt for step in steps],
            "reasons": [step.reason for step in steps],
            "records": [step.record for step in steps],
            "accounts": [step.account for step in steps],
            "actor": actor,
        },
    )


async def fund(tx: AsyncConnection, quota_id: UUID, *, actor: str) -> list[UUID]:
    """Let the unfunded orders of a locked line fall due as far as its room goes; returns them."""
    ids = [row.id for row in await quotas.fitting(tx, quota_id)]
    if not ids:
        return []
    orders = await locked(tx, ids)
    due = next_state(PaymentState.UNFUNDED, "fund")
    steps = [Step(order.id, "fund", due, order.attempt) for order in orders]
    events = [ordered(order, "due") for order in orders]
    await change(tx, Write(_FUND, {"ids": ids}), history(steps, actor=actor), events=events)
    await quotas.commit(tx, {quota_id: sum(order.public_fen for order in orders)})
    return ids


async def cancel(
    tx: AsyncConnection, order_id: UUID, *, cause: CancelCause, reason: str, actor: str, now: datetime
) -> None:
    """Cancel an order that no bank has; its quota goes to whoever waits. Only the cause is told to others: the words
    may name people. Raises OrderStateForbids, OpenException."""
    seen = (await tx.execute(_ORDERS, {"ids": [order_id]})).one()
    await quotas.lock(tx, [seen.quota_id])
    # With the order's application those of whoever its quota may go to: locks are taken in one order.
    heirs = await quotas.fitting(tx, seen.quota_id, freed=seen.public_fen)
    await lock_applications(tx, [seen.application, *(heir.application for heir in heirs)])
    (order,) = await locked(tx, [order_id])
    state = next_state(PaymentState(order.state), "cancel")
    if order.doubted:
        raise OpenException
    step = Step(order.id, "cancel", state, order.attempt, reason)
    told = {"application": order.application, "order": order.id, "item": order.item}
    event = PayoutCancelled(policy=policy_of(order), **told, reason=cause.value, cancelled_on=local_date(now))
    await change(tx, Write(_CANCEL, {"id": order.id}), history([step], actor=actor), events=[event])
    if order.state != PaymentState.UNFUNDED:
        await quotas.commit(tx, {order.quota_id: -order.public_fen})
    await fund(tx, order.quota_id, actor=SYSTEM)


async def remind(tx: AsyncConnection, orders: Mapping[UUID, date]) -> None:
    """Set the deadline clock of orders, or set it again after a returned payment. `orders` maps to `due_on`."""
    await schedule(tx, [Due(DEADLINE, str(key), end_of_day(due_on)) for key, due_on in orders.items()])


async def on_deadline(tx: AsyncConnection, dues: Sequence[Due]) -> None:
    """Due work at the end of `due_on`: whoever is not paid yet is told of, once."""
    ids = [UUID(due.key) for due in dues]
    await locked(tx, ids)
    late = (await tx.execute(_LATE, {"ids": ids})).all()
    await tell(tx, [Step(order.id, "breach", order.state, order.attempt) for order in late], actor=SYSTEM)
    await emit(
        tx,
        *(
            SlaBreached(
                policy=policy_of(order),
                application=order.application,
                clock="payout",
                record=order.id,
                treasury=order.treasury,
                department="finance",
                due_on=order.due_on,
            )
            for order in late
        ),
    )


def start_of_day(day: date) -> datetime:
    """The UTC instant at which a date begins in Asia/Shanghai."""
    return end_of_day(date.fromordinal(day.toordinal() - 1)).astimezone(UTC)
