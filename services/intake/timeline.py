"""The timeline: every step of an application as applicants read it, append-only, and the feed of changes.

One event is one step, so an event that comes again tells nothing twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_TELL = text("""
    INSERT INTO timeline (application, event_id, code, item, at, title, detail)
    SELECT application, event_id, code, item, at, title, detail
      FROM unnest(CAST(:applications AS uuid[]), CAST(:events AS uuid[]), CAST(:codes AS text[]),
                  CAST(:items AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:titles AS text[]),
                  CAST(:details AS text[]))
           WITH ORDINALITY AS r (application, event_id, code, item, at, title, detail, n)
     ORDER BY n
    ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `code` is the event's name (or a word of intake's own), `at` a UTC instant, the rest is Chinese."""

    application: UUID
    event_id: UUID
    code: str
    at: datetime
    title: str
    detail: str = ""
    item: UUID | None = None


async def tell(tx: AsyncConnection, steps: Sequence[Step]) -> None:
    """Add steps, in order; those already told are skipped."""
    if not steps:
        return
    await tx.execute(
        _TELL,
        {
            "applications": [step.application for step in steps],
            "events": [step.event_id for step in steps],
            "codes": [step.code for step in steps],
            "items": [step.item for step in steps],
            "ats": [step.at for step in steps],
            "titles": [step.title for step in steps],
            "details": [step.detail for step in steps],
        },
    )
