"""Employers: one by its credit code, with its name, kind and status over time, and its affiliations as stated.

What a filing states decides for that filing, and for others only once it is accepted. It never changes what is on
record: it is a new version, or a new statement of affiliations, made from it and the one before (`affiliations`), and
the newest counts. Every earlier state can be seen.
Who pays by where an employer belongs is told of each statement that becomes the newest.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import columns
from libs.common.events import EmployerAffiliated, StatedAffiliation
from libs.common.outbox import emit
from libs.common.policy import PackIdentity
from libs.common.treasuries import Affiliation, AffiliationKind
from services.intake.affiliations import Tie, recorded
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
    SELECT a.id, a.employer, a.kind, a.treasury, a.evidence, a.valid_from, a.valid_to
      FROM unnest(CAST(:employers AS uuid[])) AS e (ref)
     CROSS JOIN LATERAL (SELECT statement FROM employer_affiliation
                          WHERE employer = e.ref ORDER BY id DESC LIMIT 1) AS s
      JOIN employer_affiliation AS a USING (statement)
     ORDER BY a.id
""")
_LOCK = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('employer:' || code, 0))
      FROM unnest(CAST(:codes AS text[])) AS r (code)
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

_NEXT = text("""
    SELECT ref, credit_code FROM employer AS e
     WHERE credit_code > :after AND EXISTS (SELECT FROM employer_affiliation AS a WHERE a.employer = e.ref)
     ORDER BY credit_code LIMIT :limit
""")

TOLD_AT_ONCE = 500

_Version = tuple[str, str, str]  # name, kind, status


class LeanOnOneAnother(Exception):
    """Filings of one group say different things of an employer: each is judged by what those before it came to."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An employer as a filing finds it on record: its reference, newest version, and newest statement."""

    ref: UUID
    version: _Version | None
    statement: Sequence[Tie]

    @property
    def affiliations(self) -> list[Affiliation]:
        """The affiliations on record."""
        return [
            Affiliation(
                kind=AffiliationKind(tie.kind), treasury=tie.treasury, valid_from=tie.first, valid_to=tie.valid_to
            )
            for tie in self.statement
        ]


async def lock(tx: AsyncConnection, credit_codes: Collection[str]) -> None:
    """Hold employers until the transaction ends. Of two who state something of one at the same moment, the second one
    reads what the first one stated; and what is told of an employer leaves in the order in which it was stated."""
    await tx.execute(_LOCK, {"codes": sorted(credit_codes)})  # in one order: two must not wait in a ring


async def enrol(tx: AsyncConnection, filed: Sequence[tuple[FiledEmployer, str | None]], today: date) -> list[Enrolled]:
    """Find or add employers by their credit codes, in order, each with the window at which it was stated. Raises
    LeanOnOneAnother."""
    if not filed:
        return []
    employed = [one for one, _ in filed]
    known = await _known(tx, employed)
    statements = await _statements(tx, [known[one.credit_code][0] for one in employed])
    news = {
        one.credit_code
        for one, window in filed
        if _news(one, statements.get(known[one.credit_code][0], []), today, window)
    }
    if news:
        _check_independent([one for one in employed if one.credit_code in news])
        await lock(tx, news)
        statements |= await _statements(tx, [known[code][0] for code in news])
    return [
        Enrolled(ref, version, statements.get(ref, [])) for ref, version in (known[one.credit_code] for one in employed)
    ]


def _check_independent(filed: Sequence[FiledEmployer]) -> None:
    first: dict[str, list[Tie]] = {}
    for one in filed:
        mine = _stated(one)
        if first.setdefault(one.credit_code, mine) != mine:
            raise LeanOnOneAnother


async def record(
    tx: AsyncConnection,
    policy: PackIdentity,
    accepted: Sequence[tuple[Enrolled, FiledEmployer, str | None]],
    today: date,
) -> None:
    """Record what accepted filings (under one policy) state, in order, where it is not on record, and tell of it. With
    each comes the treasury at whose window it was filed, if at one."""
    versions, affiliations = [], []
    newest = {known.ref: known for known, *_ in accepted}
    for known, one, window in accepted:
        held, version = newest[known.ref], (one.name, one.kind.value, one.status)
        statement = recorded(_stated(one), held.statement, today, window=window)
        if version != held.version:
            versions.append((known.ref, *version))
        if statement != held.statement:
            group = uuid4()
            affiliations += [(known.ref, group, *row) for row in statement]
        newest[known.ref] = Enrolled(known.ref, version, statement)
    if versions:
        given = columns(("employers", "names", "kinds", "statuses"), versions)
        await tx.execute(_ADD_VERSIONS, {**given, "today": today})
    if affiliations:
        names = ("employers", "statements", "kinds", "treasuries", "evidences", "froms", "tos")
        await tx.execute(_STATE, columns(names, affiliations))
        await tell(tx, policy, {ref for ref, *_ in affiliations})


async def tell(tx: AsyncConnection, policy: PackIdentity, refs: Collection[UUID]) -> None:
    """Tell where employers belong, as it stands now; of one that states nothing, nothing. Their codes are locked."""
    newest: dict[UUID, list[Any]] = defaultdict(list)
    for row in await tx.execute(_AFFILIATIONS, {"employers": list(refs)}):
        newest[row.employer].append(row)
    await emit(tx, *(_affiliated(policy, ref, rows) for ref, rows in newest.items()))


async def tell_next(tx: AsyncConnection, policy: PackIdentity, after: str) -> Sequence[str]:
    """Tell where employers belong, those whose credit codes come next; gives the codes, none where none is left."""
    rows = (await tx.execute(_NEXT, {"after": after, "limit": TOLD_AT_ONCE})).all()
    codes = [row.credit_code for row in rows]
    await lock(tx, codes)
    await tell(tx, policy, [row.ref for row in rows])
    return codes


def _affiliated(policy: PackIdentity, employer: UUID, rows: Sequence[Any]) -> EmployerAffiliated:
    ties = [
        StatedAffiliation(kind=row.kind, treasury=row.treasury, valid_from=row.valid_from, valid_to=row.valid_to)
        for row in rows
    ]
    return EmployerAffiliated(policy=policy, employer=employer, revision=rows[-1].id, affiliations=tuple(ties))


def _news(one: FiledEmployer, on_record: Sequence[Tie], today: date, window: str | None) -> bool:
    return recorded(_stated(one), on_record, today, window=window) != on_record


def _stated(one: FiledEmployer) -> list[Tie]:
    return [Tie(it.kind.value, it.treasury, it.evidence, it.valid_from, it.valid_to) for it in one.affiliations]


async def _known(tx: AsyncConnection, filed: Sequence[FiledEmployer]) -> dict[str, tuple[UUID, _Version | None]]:
    """By credit code: the reference, and the name, kind and status on record."""
    codes = list({one.credit_code for one in filed})
    found = await _on_record(tx, codes)
    added = [code for code in codes if code not in found]
    if added:  # or somebody else adds it at the same moment, and has committed when this is done
        await tx.execute(_ADD, {"refs": [uuid4() for _ in added], "codes": added})
        found |= await _on_record(tx, added)
    return found


async def _on_record(tx: AsyncConnection, codes: Sequence[str]) -> dict[str, tuple[UUID, _Version | None]]:
    rows = await tx.execute(_ON_RECORD, {"codes": codes})
    return {
        row.credit_code: (row.ref, (row.name, row.kind, row.status) if row.name is not None else None) for row in rows
    }


async def _statements(tx: AsyncConnection, refs: Sequence[UUID]) -> dict[UUID, list[Tie]]:
    """The newest statement of each employer that has one."""
    found: dict[UUID, list[Tie]] = {}
    for row in await tx.execute(_AFFILIATIONS, {"employers": list(set(refs))}):
        stated = Tie(row.kind, row.treasury, row.evidence, row.valid_from, row.valid_to)
        found.setdefault(row.employer, []).append(stated)
    return found
