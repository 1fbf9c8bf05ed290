"""Changes (变更): what an item of this kind makes otherwise once it is done, told to those whom it concerns."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import local_date
from libs.common.events import PayeeAccountChanged
from libs.common.policy import Pack
from libs.common.policy.model import Changed
from services.workflow.access import policy_of
from services.workflow.history import Entry, record


class Done(NamedTuple):
    """An item without a decision that is done, with its case and the case's pack."""

    case: Row[Any]
    pack: Pack
    item: UUID
    code: str


async def settle_changes(tx: AsyncConnection, done: Sequence[Done], *, now: datetime) -> list[PayeeAccountChanged]:
    """Record what these items make otherwise, as the policy of the day of acceptance says; the caller emits it.

    Raises UnknownCode, NoRuleInForce.
    """
    accounts = [
        each for each in done if each.pack.item(each.code, each.case.accepted_on).changes is Changed.PAYEE_ACCOUNT
    ]
    entries = [Entry(each.case.application, "payee_account_changed", item=each.item) for each in accounts]
    await record(tx, entries, at=now)
    return [
        PayeeAccountChanged(
            policy=policy_of(each.case),
            application=each.case.application,
            item=each.item,
            beneficiary=each.case.beneficiary,
            payee_account=each.case.payee_account,
            accepted_on=each.case.accepted_on,
            decided_on=local_date(now),
        )
        for each in accounts
    ]
