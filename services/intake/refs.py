"""External references: by which number another system knows an application, one application a number at a time.

A number is free again where the application that holds it came to nothing: withdrawn, not accepted or lapsed. The next
one that is filed under it holds it from then on; the earlier one keeps it in its own record, with its successor.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.errors import DomainError, FieldError
from services.intake.claims import CAME_TO_NOTHING
from services.intake.filing import FiledExternalRef
from services.intake.models import application, external_ref
from services.intake.views import visible

# Locked in order: two filings under the same numbers must not wait in a ring.
_TAKE_OVER = text(f"""
    WITH free AS (
        SELECT held.system, held.kind, held.value
          FROM external_ref AS held
          JOIN unnest(CAST(:systems AS text[]), CAST(:kinds AS text[]), CAST(:values AS text[]))
               AS r (system, kind, value) USING (system, kind, value)
         WHERE held.superseded_by IS NULL AND {CAME_TO_NOTHING}
         ORDER BY held.system, held.kind, held.value FOR UPDATE OF held)
    UPDATE external_ref AS held SET superseded_by = :application FROM free
     WHERE (held.system, held.kind, held.value) = (free.system, free.kind, free.value) AND held.superseded_by IS NULL
""")  # noqa: S608 - parts of our own
_ADD = text("""
    INSERT INTO external_ref (system, kind, value, application)
    SELECT system, kind, value, :application
      FROM unnest(CAST(:systems AS text[]), CAST(:kinds AS text[]), CAST(:values AS text[])) AS r (system, kind, value)
    ON CONFLICT DO NOTHING
    RETURNING system, kind, value
""")
_MOVE = text("UPDATE external_ref SET application = :successor WHERE application = :application")

_Ref = tuple[str, str, str]


class ExternalRefTaken(DomainError):
    """409: another application, which has not come to nothing, has this number of the other system."""

    status, code, title = 409, "external-ref-taken", "外部编号已用于其他申请"
    detail = (
        "外部系统的同一编号同时只能对应一份申请{existing}。请核对编号；如为重复提交，请勿再次提交；"
        "如需重新申请，请先撤回原申请。"
    )


async def add(tx: AsyncConnection, filed: Sequence[FiledExternalRef], holder: UUID, caller: Principal) -> None:
    """Let an application hold these numbers. Raises ExternalRefTaken, naming each that another one holds."""
    refs = sorted({(ref.system, ref.kind, ref.value) for ref in filed})
    if not refs:
        return
    systems, kinds, values = zip(*refs, strict=True)
    given = {"systems": list(systems), "kinds": list(kinds), "values": list(values), "application": holder}
    await tx.execute(_TAKE_OVER, given)
    added = {(row.system, row.kind, row.value) for row in await tx.execute(_ADD, given)}
    taken = [ref for ref in refs if ref not in added]
    if taken:
        raise await _refusal(tx, filed, taken, caller)


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
    code, title = ExternalRefTaken.code, ExternalRefTaken.title
    errors = [
        FieldError(f"/external_refs/{n}/value", code, title, f"该编号已对应另一份申请{holders.get(ref, '')}。")
        for n, one in enumerate(filed)
        if (ref := (one.system, one.kind, one.value)) in taken
    ]
    return ExternalRefTaken(errors=errors, existing=next(iter(holders.values()), ""))
