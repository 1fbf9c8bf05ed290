"""To which account money goes: the one that the application stated, until the beneficiary's account was changed.

A statement is an approved application's, or a change's (收款账户变更); that of the latest acceptance counts, of one day
that of the later application, in whatever order they are heard. An account that an officer corrected after a bounce
counts once it was really paid, unless a change came after. What the bank has already stays where it was sent.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.events import PayeeAccountChanged
from services.finance.domain import TRANSITIONS, PaymentState, next_state
from services.finance.payouts import SYSTEM, Step, locked, tell

_PEOPLE = text("""
    INSERT INTO beneficiary (id)
    SELECT id FROM unnest(CAST(:ids AS uuid[])) AS r (id) ORDER BY id ON CONFLICT DO NOTHING
""")
_LOCK_PEOPLE = text("""
    SELECT id FROM beneficiary WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")
_RECORD = text("""
    INSERT INTO payee_change (application, item, beneficiary, payee_account, accepted_on, decided_on)
    SELECT * FROM unnest(CAST(:applications AS uuid[]), CAST(:items AS uuid[]), CAST(:beneficiaries AS uuid[]),
                         CAST(:accounts AS uuid[]), CAST(:accepted AS date[]), CAST(:decided AS date[]))
    ON CONFLICT DO NOTHING
    RETURNING application
""")
_ACCOUNTS = text("""
    SELECT e.id, coalesce(paid.payee_account, c.payee_account, e.payee_account) AS account, c.application AS change
      FROM entitlement AS e
      LEFT JOIN LATERAL (
           SELECT * FROM payee_change AS c
            WHERE c.beneficiary = e.beneficiary AND (c.accepted_on, c.application) > (e.accepted_on, e.application)
            ORDER BY c.accepted_on DESC, c.application DESC LIMIT 1) AS c ON true
      LEFT JOIN LATERAL (
           SELECT o.payee_account FROM payout_order AS o
            WHERE o.entitlement_id = e.id AND o.state = 'settled'
              AND (c.recorded_at IS NULL
                   OR EXISTS (SELECT 1 FROM order_history AS h
                               WHERE h.order_id = o.id AND h.action IN ('order', 'reissue')
                                 AND h.recorded_at > c.recorded_at))
            ORDER BY o.instalment DESC LIMIT 1) AS paid ON true
     WHERE e.id = ANY(CAST(:ids AS uuid[]))
""")
_OPEN = text("""
    SELECT id FROM payout_order
     WHERE beneficiary = ANY(CAST(:beneficiaries AS uuid[])) AND state = ANY(CAST(:states AS text[]))
""")
_REDIRECT = text("""
    UPDATE payout_order AS o SET payee_account = r.account
      FROM unnest(CAST(:ids AS uuid[]), CAST(:accounts AS uuid[])) AS r (id, account) WHERE o.id = r.id
""")
_REDIRECTED = [state.value for state, action in TRANSITIONS if action == "redirect"]


async def hold(tx: AsyncConnection, beneficiaries: Collection[UUID]) -> None:
    """Lock people, in order: whoever gives an order its account holds its beneficiary, so that no change is missed."""
    ids = {"ids": list(set(beneficiaries))}
    await tx.execute(_PEOPLE, ids)
    await tx.execute(_LOCK_PEOPLE, ids)


async def accounts_of(tx: AsyncConnection, entitlements: Collection[UUID]) -> Mapping[UUID, UUID | None]:
    """The account of each entitlement, as far as it is known now; the beneficiaries are held."""
    return {row.id: row.account for row in await tx.execute(_ACCOUNTS, {"ids": list(entitlements)})}


async def change(tx: AsyncConnection, events: Sequence[PayeeAccountChanged]) -> None:
    """Take in changes of account, each once, and let the orders that are not at the bank yet go there."""
    people = [event.beneficiary for event in events]
    await hold(tx, people)
    given = {
        "applications": [event.application for event in events],
        "items": [event.item for event in events],
        "beneficiaries": people,
        "accounts": [event.payee_account for event in events],
        "accepted": [event.accepted_on for event in events],
        "decided": [event.decided_on for event in events],
    }
    fresh = set((await tx.execute(_RECORD, given)).scalars())
    waiting = (await tx.execute(_OPEN, {"beneficiaries": people, "states": _REDIRECTED})).scalars()
    orders = [order for order in await locked(tx, list(waiting)) if order.state in _REDIRECTED]
    rows = await tx.execute(_ACCOUNTS, {"ids": list({order.entitlement_id for order in orders})})
    # Only what a change of this batch decides: an officer may have corrected an order since an earlier one.
    changed = {row.id: row for row in rows if row.change in fresh}
    await _redirect(tx, [(order, changed[order.entitlement_id]) for order in orders if order.entitlement_id in changed])


async def _redirect(tx: AsyncConnection, moved: Sequence[tuple[Any, Any]]) -> None:
    if not moved:
        return
    ids, accounts = [order.id for order, _ in moved], [to.account for _, to in moved]
    await tx.execute(_REDIRECT, {"ids": ids, "accounts": accounts})
    steps = [
        Step(
            order.id,
            "redirect",
            next_state(PaymentState(order.state), "redirect"),
            order.attempt,
            record=to.change,
            account=to.account,
        )
        for order, to in moved
    ]
    await tell(tx, steps, actor=SYSTEM)
