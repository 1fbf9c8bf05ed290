"""Promised materials (容缺受理): what an accepted application still owes by which day, and that a promise was missed.

Who accepted with a promise is workflow's from then on: intake only tells that the day passed without the material, and
workflow alone decides what that ends.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import end_of_day, local_date
from libs.common.events import PromiseMissed
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.ticker import Due, schedule
from services.intake import materials
from services.intake.outcome import identity_of, step_of
from services.intake.timeline import Step, tell
from services.intake.views import material_title

PROMISE = "promise.day"
"""The kind of due work at the end of a promised day; its key is the application's id, its payload what is owed."""

# What workflow ended owes nothing; where its word is still on the way, it will ignore ours.
_LOCK_GOING = text("""
    SELECT id, policy_city, policy_version, policy_sha256 FROM application AS a
     WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'accepted'
       AND NOT EXISTS (SELECT FROM case_end AS e WHERE e.application = a.id)
     ORDER BY id FOR NO KEY UPDATE
""")


def materials_due(application: UUID, owed: Mapping[str, date]) -> Due:
    """To look at the end of the first promised day whether its materials have come. `owed` maps codes to last days.

    An upload does not take this back: it would lock due work and application in the other order than the ticker.
    """
    days = {code: day.isoformat() for code, day in owed.items()}
    return Due(PROMISE, str(application), end_of_day(min(owed.values())), days)


class Promises:
    """The ticker's side; it needs the packs, whose titles applicants read."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    async def on_day(self, tx: AsyncConnection, dues: Sequence[Due]) -> None:
        """Due work: promised days are over. What came in time is no more owed, later days are awaited in turn."""
        now = max(due.at for due in dues)
        rows = (await tx.execute(_LOCK_GOING, {"ids": [UUID(due.key) for due in dues]})).all()
        here = await materials.uploaded_of(tx, [row.id for row in rows])
        promised = {UUID(due.key): due.payload for due in dues}
        told, later = [], []
        for row in rows:
            owed = {code: date.fromisoformat(day) for code, day in promised[row.id].items() if code not in here[row.id]}
            missed = {code: day for code, day in owed.items() if day < local_date(now)}
            if missed:
                told.append(self._missed(row, missed, due_at=now))
            elif owed:
                later.append(materials_due(row.id, owed))
        await schedule(tx, later)
        await emit(tx, *(event for event, _ in told))
        await tell(tx, [step for _, step in told])

    def _missed(self, row: Any, missed: Mapping[str, date], *, due_at: datetime) -> tuple[PromiseMissed, Step]:
        pack, first = self._packs.get(identity_of(row)), min(missed.values())
        event = PromiseMissed(
            policy=pack.identity, application=row.id, materials=tuple(sorted(missed)), promised_by=first
        )
        titles = "、".join(material_title(pack, code) for code in event.materials)
        return event, step_of(event, due_at, "承诺补交的材料逾期未交", f"承诺于 {first} 前补交的材料未收到：{titles}。")
