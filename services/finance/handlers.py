"""What finance does when it hears of something, or when something falls due."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.events import BenefitApproved, EmployerAffiliated, PayeeAccountChanged
from libs.common.packs import Packs
from libs.common.ticker import Due
from services.finance import accounts, affiliations, entitlements


class Handlers:
    """The handlers that read a policy."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    async def on_benefit_approved(self, tx: AsyncConnection, events: Sequence[BenefitApproved]) -> None:
        """Make entitlements, and the order of each first instalment."""
        await entitlements.grant(tx, self._packs, events)

    async def on_payee_account_changed(self, tx: AsyncConnection, events: Sequence[PayeeAccountChanged]) -> None:
        """Let what is not paid yet go to the account that counts now."""
        await accounts.change(tx, events)

    async def on_employer_affiliated(self, tx: AsyncConnection, events: Sequence[EmployerAffiliated]) -> None:
        """Keep where employers belong: it decides who bears the orders made from then on."""
        await affiliations.keep(tx, events)

    async def on_instalment_due(self, tx: AsyncConnection, dues: Sequence[Due]) -> None:
        """Make the orders of later instalments, ten working days before they fall due."""
        await entitlements.order_instalments(tx, self._packs, dues)
