"""Employers: one by its credit code, with its name, kind and status over time, and its affiliations as stated.

What is filed never changes what is on record: it is a new version, or a new statement of affiliations, and the newest
counts. Every earlier state can be shown.
"""

from datetime import date
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.treasuries import Affiliation
from services.intake.filing import FiledEmployer

_FIND = text("SELECT ref FROM employer WHERE credit_code = :credit_code")
_ADD = text("""
    INSERT INTO employer (ref, credit_code) VALUES (:ref, :credit_code) ON CONFLICT DO NOTHING RETURNING ref
""")
_ADD_VERSION = text("""
    INSERT INTO employer_version (employer, name, kind, status, valid_from)
    SELECT :ref, :name, :kind, :status, :today
     WHERE NOT EXISTS (
        SELECT FROM (SELECT * FROM employer_version WHERE employer = :ref ORDER BY id DESC LIMIT 1) AS newest
         WHERE name = :name AND kind = :kind AND status = :status)
""")
_ON_RECORD = text("""
    SELECT kind, treasury, evidence, valid_from, valid_to FROM employer_affiliation
     WHERE statement = (SELECT statement FROM employer_affiliation WHERE employer = :ref ORDER BY id DESC LIMIT 1)
     ORDER BY id
""")
_STATE = text("""
    INSERT INTO employer_affiliation (employer, statement, kind, treasury, evidence, valid_from, valid_to)
    SELECT :ref, :statement, kind, treasury, evidence, valid_from, valid_to
      FROM unnest(CAST(:kinds AS text[]), CAST(:treasuries AS text[]), CAST(:evidences AS text[]),
                  CAST(:froms AS date[]), CAST(:tos AS date[]))
           WITH ORDINALITY AS r (kind, treasury, evidence, valid_from, valid_to, n)
     ORDER BY n
""")


async def enrol(tx: AsyncConnection, filed: FiledEmployer, today: date) -> UUID:
    """Find or add an employer by its credit code; another name, kind or status than on record is a new version."""
    ref: UUID | None = (await tx.execute(_FIND, {"credit_code": filed.credit_code})).scalar()
    if ref is None:
        ref = (await tx.execute(_ADD, {"ref": uuid4(), "credit_code": filed.credit_code})).scalar()
    if ref is None:  # somebody else added it at the same moment, and has committed by now
        ref = (await tx.execute(_FIND, {"credit_code": filed.credit_code})).scalar_one()
    version = {"ref": ref, "name": filed.name, "kind": filed.kind.value, "status": filed.status, "today": today}
    await tx.execute(_ADD_VERSION, version)
    return ref


async def affiliations(tx: AsyncConnection, ref: UUID) -> list[Affiliation]:
    """The affiliations on record: those of the newest statement."""
    rows = await tx.execute(_ON_RECORD, {"ref": ref})
    return [
        Affiliation(kind=row.kind, treasury=row.treasury, valid_from=row.valid_from, valid_to=row.valid_to)
        for row in rows
    ]


async def state_affiliations(tx: AsyncConnection, ref: UUID, filed: FiledEmployer) -> None:
    """Record the affiliations that a filing states, where they are not those on record."""
    stated = [
        (it.kind.value, it.treasury, it.evidence, it.valid_from or date.min, it.valid_to) for it in filed.affiliations
    ]
    if not stated:
        return
    on_record = [tuple(row) for row in await tx.execute(_ON_RECORD, {"ref": ref})]
    if stated != on_record:
        names = ("kinds", "treasuries", "evidences", "froms", "tos")
        columns = dict(zip(names, map(list, zip(*stated, strict=True)), strict=True))
        await tx.execute(_STATE, {"ref": ref, "statement": uuid4(), **columns})
