"""External references: by which number another system knows an application, one application a number at a time.

A number is free again where the application that holds it came to nothing: withdrawn, not accepted or lapsed. The next
one that is filed under it holds it from then on; the earlier one keeps it in its own record, with its successor.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.db import columns
from libs.common.errors import DomainError
from libs.common.field_errors import field_error
from services.intake.claims import CAME_TO_NOTHING
from services.intake.filing import FiledExternalRef
from services.intake.models import application, external_ref
from services.intake.views import visible

_ASKED = """unnest(CAST(:systems AS text[]), CAST(:kinds AS text[]), CAST(:values AS text[]),
                  CAST(:applications AS uuid[])) AS r (system, kind, value, application)"""
# Locked in order: two filings under the same numbers must not wait in a ring.
_TAKE_OVER = text(f"""
    WITH free AS (
        SELECT held.system, held.kind, held.value, r.application
          FROM external_ref AS held
          JOIN {_ASKED} USING (system, kind, value)
         WHERE held.superseded_by IS NULL AND {CAME_TO_NOTHING}
         ORDER BY held.system, held.kind, held.value FOR UPDATE OF held)
    UPDATE external_ref AS held SET superseded_by = free.application FROM free
     WHERE (held.system, held.kind, held.value) = (free.system, free.kind, free.value) AND held.superseded_by IS NULL
""")  # noqa: S608 - parts of our own
_ADD = text(f"""
    INSERT INTO external_ref (system, kind, value, application)
    SELECT system, kind, value, application FROM {_ASKED}
     ORDER BY system, kind, value
    ON CONFLICT DO NOTHING
    RETURNING system, kind, value, application
""")  # noqa: S608 - parts of our own
_MOVE = text("UPDATE external_ref SET application = :successor WHERE application = :application")

_Ref = tuple[str, str, str]


class ExternalRefTaken(DomainError):
    """409: another application, which has not come to nothing, has this number of the other system."""

    status, code, title = 409, "external-ref-taken", "外部编号已用于其他申请"
    detail = (
        "外部系统的同一编号同时只能对应一份申请{existing}。请核对编号；如为重复提交，请勿再次提交；"
        "如需重新申请，请先撤回原申请。"
    )


async def add(tx: AsyncConnection, filed: Sequence[tuple[UUID, Sequence[FiledExternalRef]]], caller: Principal) -> None:
    """Let applications hold these numbers. Raises ExternalRefTaken for the first application of whose numbers another
    one holds some, naming each of them."""
    rows = sorted({(ref.system, ref.kind, ref.value, holder) for holder, refs in filed for ref in refs})
    if not rows:
        return
    given = columns(("systems", "kinds", "values", "applications"), rows)
    await tx.execute(_TAKE_OVER, given)
    added = {tuple(row) for row in await tx.execute(_ADD, given)}
    for holder, refs in filed:
        taken = [row[:3] for row in rows if row[3] == holder and row not in added]
        if taken:
            raise await _refusal(tx, refs, taken, caller)


async def move(tx: AsyncConnection, predecessor: UUID, successor: UUID) -> None:
    """Let a transferred application's numbers go with it."""
    await tx.execute(_MOVE, {"application": predecessor, "successor": successor})


async def _refusal(
    tx: AsyncConnection, filed: Sequence[FiledExternalRef], taken: Sequence[_Ref], caller: Principal
) -> ExternalRefTaken:
    held = external_ref.c
    query = select(held.system, held.kind, held.value, application.c.id, application.c.case_no)
    query = query.join(application, held.application == application.c.id).where(held.superseded_by.is_(None))
    rows = await tx.execute(visible(query.where(tuple_(held.system, held.kind, held.value).in_(taken)), caller))
    holders = {(row.system, row.kind, row.value): f"（已有办件 {row.case_no}，申请 {row.id}）" for row in rows}
    errors = [
        field_error(f"/external_refs/{n}/value", "external-ref-taken", existing=holders.get(ref, ""))
        for n, one in enumerate(filed)
        if (ref := (one.system, one.kind, one.value)) in taken
    ]
    return ExternalRefTaken(errors=errors, existing=next(iter(holders.values()), ""))
