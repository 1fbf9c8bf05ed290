"""Claims: who asks for, or has, which certification or benefit; each person each code once at a time.

A claim is free where the application that holds it came to nothing, or where its certification has run out.
"""

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import columns
from libs.common.policy.model import ItemKind

KINDS = (ItemKind.CERTIFICATION, ItemKind.BENEFIT)
"""The kinds of items that are claimed."""

# Of a row under the name `held`, with the column `application`.
CAME_TO_NOTHING = """(
        EXISTS (SELECT FROM application AS a WHERE a.id = held.application
                   AND a.state IN ('not_accepted', 'transferred', 'withdrawn', 'lapsed'))
        OR EXISTS (SELECT FROM case_end AS e WHERE e.application = held.application
                      AND e.state IN ('withdrawn', 'lapsed')))"""
# Of a claim under the name `held`, on the day `:today`.
FREE = f"""({CAME_TO_NOTHING}
        OR EXISTS (SELECT FROM application_item AS i JOIN item_result AS r ON r.item = i.id
                    WHERE i.application = held.application AND i.code = held.code
                      AND (r.result IN ('refused', 'withdrawn') OR r.valid_to < :today)))"""
# The person may be merged while the filing is under examination: whoever waited here reads where it leads to.
_LEADING = text("""
    SELECT ref, COALESCE(merged_into, ref) AS leading FROM person
     WHERE ref = ANY(CAST(:people AS uuid[])) ORDER BY ref FOR KEY SHARE
""")
# Of two in one group that ask for the same, the first one has it.
_TAKE = text(f"""
    INSERT INTO claim AS held (person, code, application)
    SELECT DISTINCT ON (person, code) person, code, application
      FROM unnest(CAST(:people AS uuid[]), CAST(:codes AS text[]), CAST(:applications AS uuid[]))
           WITH ORDINALITY AS r (person, code, application, n)
     ORDER BY person, code, n
    ON CONFLICT (person, code) DO UPDATE SET application = excluded.application
     WHERE held.application = excluded.application OR {FREE}
    RETURNING application, code
""")  # noqa: S608 - parts of our own
_DROP = text("DELETE FROM claim WHERE application = :application")
# Where both have ended nobody can give one up any more: that is found afterwards (findings.py), not refused.
_COLLIDING = text(f"""
    SELECT DISTINCT held.application
      FROM claim AS held
     WHERE held.person IN (:merged, :into) AND NOT {FREE}
       AND EXISTS (SELECT FROM claim AS other
                    WHERE other.person IN (:merged, :into) AND other.person <> held.person AND other.code = held.code
                      AND NOT {FREE.replace("held.", "other.")}
                      AND NOT (EXISTS (SELECT FROM case_end AS e WHERE e.application = held.application)
                               AND EXISTS (SELECT FROM case_end AS e WHERE e.application = other.application)))
""")  # noqa: S608 - parts of our own
_MOVE = text(f"""
    INSERT INTO claim AS held (person, code, application)
    SELECT CAST(:into AS uuid), code, application FROM claim WHERE person = :merged
    ON CONFLICT (person, code) DO UPDATE SET application = excluded.application WHERE {FREE}
""")  # noqa: S608 - parts of our own
_FORGET = text("DELETE FROM claim WHERE person = :merged")


class Claim(NamedTuple):
    """What an application asks for, for a person."""

    person: UUID
    application: UUID
    codes: Sequence[str]


async def take(tx: AsyncConnection, asked: Sequence[Claim], today: date) -> set[UUID]:
    """Claim each code for a person, in order; gives the applications of which another one holds a code."""
    people = {claim.person for claim in asked if claim.codes}
    if not people:
        return set()
    leading = {row.ref: row.leading for row in await tx.execute(_LEADING, {"people": list(people)})}
    rows = [(leading[claim.person], code, claim.application) for claim in asked for code in claim.codes]
    given = columns(("people", "codes", "applications"), rows)
    taken = {(row.application, row.code) for row in await tx.execute(_TAKE, {**given, "today": today})}
    return {application for _, code, application in rows if (application, code) not in taken}


async def drop(tx: AsyncConnection, application: UUID) -> None:
    """Give up what an application holds."""
    await tx.execute(_DROP, {"application": application})


async def colliding(tx: AsyncConnection, merged: UUID, into: UUID, today: date) -> list[UUID]:
    """The applications by which two people (both locked) hold the same code, where one of them has not ended."""
    return list((await tx.execute(_COLLIDING, {"merged": merged, "into": into, "today": today})).scalars())


async def move(tx: AsyncConnection, merged: UUID, into: UUID, today: date) -> None:
    """Let a person have the claims of another record of theirs; where both have ended theirs stays."""
    await tx.execute(_MOVE, {"merged": merged, "into": into, "today": today})
    await tx.execute(_FORGET, {"merged": merged})
