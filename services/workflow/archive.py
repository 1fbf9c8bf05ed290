"""The talent record (统一建档): one per beneficiary, with every result, certification and approval."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.errors import NotFound
from services.workflow.access import visible
from services.workflow.certification import ApprovalView, CertificationView, approvals_of, certifications_of
from services.workflow.models import cases, record_entry, talent_record

# A department's task shows it the one case; the record of the whole person is for those who answer for it.
READERS = frozenset({"talent", "window_clerk", "talent_office", "supervisor", "auditor", "service"})

_OPEN = text("""
    INSERT INTO talent_record (person, opened_at) SELECT DISTINCT person, CAST(:now AS timestamptz)
      FROM unnest(CAST(:persons AS uuid[])) AS r (person) ORDER BY person
    ON CONFLICT DO NOTHING
""")
_FILE = text("""
    INSERT INTO record_entry (item, person, application, code, kind, result, reason, closed_on)
    SELECT i.id, c.beneficiary, i.application, i.code, i.kind, i.state, i.reason, c.closed_on
      FROM item AS i JOIN cases AS c USING (application)
     WHERE i.application = ANY(CAST(:applications AS uuid[]))
    ON CONFLICT DO NOTHING
""")


class ResultView(BaseModel):
    """How one item of one application ended."""

    application: UUID
    item: UUID
    code: str
    kind: str
    result: str = Field(description="done | refused | withdrawn")
    reason: str | None
    closed_on: date


class RecordView(BaseModel):
    """One person's record."""

    person: UUID
    opened_at: datetime
    certifications: list[CertificationView]
    approvals: list[ApprovalView]
    results: list[ResultView]


async def open_records(tx: AsyncConnection, persons: Sequence[UUID], *, now: datetime) -> None:
    """Open the record of each person who has none yet: with the first case, not with the first result."""
    await tx.execute(_OPEN, {"persons": list(persons), "now": now})


async def file_results(tx: AsyncConnection, applications: Sequence[UUID]) -> None:
    """Write the item results of ended cases into their beneficiaries' records."""
    await tx.execute(_FILE, {"applications": list(applications)})


async def record_of(tx: AsyncConnection, person: UUID, caller: Principal) -> RecordView:
    """One person's record, whole, for whoever may see one of the person's cases. Raises NotFound."""
    seen = visible(select(cases.c.application).where(cases.c.beneficiary == person).limit(1), caller)
    if caller.role not in READERS or (await tx.execute(seen)).first() is None:
        raise NotFound
    opened = await tx.execute(select(talent_record.c.opened_at).where(talent_record.c.person == person))
    results = await tx.execute(
        select(record_entry).where(record_entry.c.person == person).order_by(record_entry.c.item)
    )
    return RecordView(
        person=person,
        opened_at=opened.scalar_one(),
        certifications=await certifications_of(tx, person),
        approvals=await approvals_of(tx, person),
        results=[ResultView.model_validate(row, from_attributes=True) for row in results],
    )
