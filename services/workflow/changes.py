"""Changes (变更): what an item of this kind makes otherwise once it is done, told to those whom it concerns."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs.common.calendar import local_date
from libs.common.events import PayeeAccountChanged
from libs.common.policy import Pack
from libs.common.policy.model import Changed
from services.workflow.access import policy_of


def changed(pack: Pack, case: Row[Any], item: UUID, code: str, *, now: datetime) -> list[PayeeAccountChanged]:
    """What an item that is done makes otherwise, as the policy of the day of acceptance says. Raises UnknownCode."""
    if pack.item(code, case.accepted_on).changes is not Changed.PAYEE_ACCOUNT:
        return []
    return [
        PayeeAccountChanged(
            policy=policy_of(case),
            application=case.application,
            item=item,
            beneficiary=case.beneficiary,
            payee_account=case.payee_account,
            accepted_on=case.accepted_on,
            decided_on=local_date(now),
        )
    ]
