"""Reissue: an order goes to another account of its beneficiary.

Allowed after a bounce, as the next attempt under the same deadline, and for a due order that no file can carry to the
account it has (none, unknown, somebody else's, or unfit for the bank): without that it would stay behind for good. A
due order whose account is sound keeps it, and so does one that waits for quota.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.change import Write, change
from services.finance.batches import unpayable
from services.finance.domain import TITLES, OpenException, OrderStateForbids, PaymentState, next_state
from services.finance.payees import Resolved
from services.finance.payouts import Step, history, locked, ordered

_REISSUE = text(
    "UPDATE payout_order SET state = :state, attempt = :attempt, payee_account = :account WHERE id = :id RETURNING id"
)


async def reissue(tx: AsyncConnection, seen: Any, *, payee_account: UUID, payees: Resolved, actor: str) -> None:
    """Pay an order to this account. `seen` is the order as it was when intake was asked of its accounts.

    Raises OrderStateForbids, OpenException, PayeeAccountUnknown, PayeeNotTheBeneficiary.
    """
    (order,) = await locked(tx, [seen.id])
    state = next_state(PaymentState(order.state), "reissue")
    if order.doubted:
        raise OpenException
    if order.state == PaymentState.DUE and not _stuck(order, seen, payees):
        raise OrderStateForbids(state=TITLES[PaymentState.DUE])
    payees.payee(payee_account, order.beneficiary)
    attempt = order.attempt + (order.state == PaymentState.BOUNCED)
    moved = Write(_REISSUE, {"id": order.id, "state": state, "attempt": attempt, "account": payee_account})
    step = Step(order.id, "reissue", state, attempt, account=payee_account)
    await change(tx, moved, history([step], actor=actor), events=[ordered(order, "due")])


def _stuck(order: Any, seen: Any, payees: Resolved) -> bool:
    # Of an account set meanwhile nothing is known, so nothing can be said against it.
    return order.payee_account == seen.payee_account and unpayable(order, payees) is not None
