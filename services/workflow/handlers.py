"""What workflow does when it hears of an acceptance, a withdrawal or a missed promise, and when a limit passes."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.events import ApplicationAccepted, ApplicationWithdrawn, PromiseMissed
from libs.common.packs import Packs
from libs.common.ticker import Due
from services.workflow import cases, tasks


class Handlers:
    """The handlers of one service; `packs` are those that it holds."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    async def on_application_accepted(self, tx: AsyncConnection, events: Sequence[ApplicationAccepted]) -> None:
        """Open the cases. Raises Early for a policy that has not arrived yet."""
        await cases.open_cases(tx, self._packs.for_events(events), events, now=datetime.now(UTC))

    async def on_application_withdrawn(self, tx: AsyncConnection, events: Sequence[ApplicationWithdrawn]) -> None:
        """End the cases whose withdrawal still counts."""
        await cases.withdraw(tx, events, now=datetime.now(UTC))

    async def on_promise_missed(self, tx: AsyncConnection, events: Sequence[PromiseMissed]) -> None:
        """End the cases that wait for a material that did not come. Raises Early for a policy not here yet."""
        await cases.lapse(tx, self._packs.for_events(events), events, now=datetime.now(UTC))

    async def on_task_deadline(self, tx: AsyncConnection, dues: Sequence[Due]) -> None:
        """Say of each task still open that its limit has passed."""
        await tasks.on_deadlines(tx, dues, now=datetime.now(UTC))
