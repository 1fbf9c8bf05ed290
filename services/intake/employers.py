"""Employers: one by its credit code, with its name, kind and status over time, and its affiliations as stated.

What is filed never changes what is on record: it is a new version, or a new statement of affiliations, and the newest
counts. Every earlier state can be shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import columns
from libs.common.treasuries import Affiliation, AffiliationKind
from services.intake.filing import FiledEmployer

# In order of code: two groups of filings that add the same employers must not wait in a ring.
_ADD = text("""
    INSERT INTO employer (ref, credit_code)
    SELECT ref, credit_code FROM unnest(CAST(:refs AS uuid[]), CAST(:codes AS text[])) AS r (ref, credit_code)
     ORDER BY credit_code
    ON CONFLICT DO NOTHING
""")
_ON_RECORD = text("""
    SELECT e.ref, e.credit_code, v.name, v.kind, v.status
      FROM employer AS e
      LEFT JOIN LATERAL (SELECT name, kind, status FROM employer_version
                          WHERE employer = e.ref ORDER BY id DESC LIMIT 1) AS v ON true
     WHERE e.credit_code = ANY(CAST(:codes AS text[]))
""")
_ADD_VERSIONS = text("""
    INSERT INTO employer_version (employer, name, kind, status, valid_from)
    SELECT employer, name, kind, status, :today
      FROM unnest(CAST(:employers AS uuid[]), CAST(:names AS text[]), CAST(:kinds AS text[]), CAST(:statuses AS text[]))
           WITH ORDINALITY AS r (employer, name, kind, status, n)
     ORDER BY n
""")
_AFFILIATIONS = text("""
    SELECT a.employer, a.kind, a.treasury, a.evidence, a.valid_from, a.valid_to
      FROM unnest(CAST(:employers AS uuid[])) AS e (ref)
     CROSS JOIN LATERAL (SELECT statement FROM employer_affiliation
                          WHERE employer = e.ref ORDER BY id DESC LIMIT 1) AS s
      JOIN employer_affiliation AS a USING (statement)
     ORDER BY a.id
""")
_STATE = text("""
    INSERT INTO employer_affiliation (employer, statement, kind, treasury, evidence, valid_from, valid_to)
    SELECT employer, statement, kind, treasury, evidence, valid_from, valid_to
      FROM unnest(CAST(:employers AS uuid[]), CAST(:statements AS uuid[]), CAST(:kinds AS text[]),
                  CAST(:treasuries AS text[]), CAST(:evidences AS text[]), CAST(:froms AS date[]),
                  CAST(:tos AS date[]))
           WITH ORDINALITY AS r (employer, statement, kind, treasury, evidence, valid_from, valid_to, n)
     ORDER BY n
""")

_Statement = list[tuple[str, str, str, date, date | None]]  # kind, treasury, evidence, from, to


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An employer as a filing finds it: its reference, and the affiliations on record before that filing."""

    ref: UUID
    affiliations: Sequence[Affiliation]


async def enrol(tx: AsyncConnection, filed: Sequence[FiledEmployer], today: date) -> list[Enrolled]:
    """Find or add employers by their credit codes, in order, and record what each filing states: another name, kind or
    status than on record is a new version, other affiliations are a new statement."""
    if not filed:
        return []
    known = await _known(tx, filed)
    versions = []
    for one in filed:
        ref, newest = known[one.credit_code]
        stated = one.name, one.kind.value, one.status
        if stated != newest:
            versions.append((ref, *stated))
            known[one.credit_code] = ref, stated
    if versions:
        given = columns(("employers", "names", "kinds", "statuses"), versions)
        await tx.execute(_ADD_VERSIONS, {**given, "today": today})
    refs = [known[one.credit_code][0] for one in filed]
    return await _state(tx, refs, filed)


async def _known(
    tx: AsyncConnection, filed: Sequence[FiledEmployer]
) -> dict[str, tuple[UUID, tuple[str, str, str] | None]]:
    """By credit code: the reference, and the name, kind and status on record."""
    codes = list({one.credit_code for one in filed})
    found = await _on_record(tx, codes)
    added = [code for code in codes if code not in found]
    if added:  # or somebody else adds it at the same moment, and has committed when this is done
        await tx.execute(_ADD, {"refs": [uuid4() for _ in added], "codes": added})
        found |= await _on_record(tx, added)
    return found


async def _on_record(tx: AsyncConnection, codes: Sequence[str]) -> dict[str, tuple[UUID, tuple[str, str, str] | None]]:
    rows = await tx.execute(_ON_RECORD, {"codes": codes})
    return {
        row.credit_code: (row.ref, (row.name, row.kind, row.status) if row.name is not None else None) for row in rows
    }


async def _state(tx: AsyncConnection, refs: Sequence[UUID], filed: Sequence[FiledEmployer]) -> list[Enrolled]:
    """Record the affiliations that filings state, where they are not those on record by then."""
    on_record = await _statements(tx, refs)
    found, added = [], []
    for ref, one in zip(refs, filed, strict=True):
        mine = on_record.get(ref, [])
        found.append(Enrolled(ref, [_affiliation(row) for row in mine]))
        stated = [
            (it.kind.value, it.treasury, it.evidence, it.valid_from or date.min, it.valid_to) for it in one.affiliations
        ]
        if stated and stated != mine:
            statement = uuid4()
            added += [(ref, statement, *row) for row in stated]
            on_record[ref] = stated
    if added:
        names = ("employers", "statements", "kinds", "treasuries", "evidences", "froms", "tos")
        await tx.execute(_STATE, columns(names, added))
    return found


async def _statements(tx: AsyncConnection, refs: Sequence[UUID]) -> dict[UUID, _Statement]:
    """The newest statement of each employer that has one."""
    found: dict[UUID, _Statement] = {}
    for row in await tx.execute(_AFFILIATIONS, {"employers": list(set(refs))}):
        found.setdefault(row.employer, []).append(tuple(row)[1:])
    return found


def _affiliation(row: tuple[str, str, str, date, date | None]) -> Affiliation:
    kind, treasury, _, valid_from, valid_to = row
    return Affiliation(kind=AffiliationKind(kind), treasury=treasury, valid_from=valid_from, valid_to=valid_to)
