"""Claims: who asks for, or has, which certification or benefit; each person each code once at a time.

A benefit of a household is claimed for the beneficiary and for each spouse whom the filing names. Of benefits of which
one may be had (`AtMostOne`) each of the others is claimed beside it, and stands for the one that was asked for: two
filings at the same moment meet in one row. Whether a claim that was made under another version of the policy is in the
way is said by the version of the filing (or of the merge), not by that of the claim.

A claim is free where the application that holds it came to nothing, or the item that it stands for was refused or
withdrawn, or its certification has run out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import permutations
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import columns
from libs.common.policy import Pack
from libs.common.policy.model import ItemKind

KINDS = (ItemKind.CERTIFICATION, ItemKind.BENEFIT)
"""The kinds of items that are claimed."""

# Of a row under the name `held`, with the column `application`.
CAME_TO_NOTHING = """(
        EXISTS (SELECT FROM application AS a WHERE a.id = held.application
                   AND a.state IN ('not_accepted', 'transferred', 'withdrawn', 'lapsed'))
        OR EXISTS (SELECT FROM case_end AS e WHERE e.application = held.application
                      AND e.state IN ('withdrawn', 'lapsed')))"""
# Of a claim under the name `held`: the item that it stands for.
_ITEM = "COALESCE(held.stands_for, held.code)"
# Of a claim under the name `held`, on the day `:today`.
FREE = f"""({CAME_TO_NOTHING}
        OR EXISTS (SELECT FROM application_item AS i JOIN item_result AS r ON r.item = i.id
                    WHERE i.application = held.application AND i.code = {_ITEM}
                      AND (r.result IN ('refused', 'withdrawn') OR r.valid_to < :today)))"""
_OTHER_ITEM = _ITEM.replace("held.", "other.")
# Of two claims of one code, under the names `held` and `other`, by the pairs of which one may be had (`:ones`,
# `:others`): claims beside two items that may be had together meet in a code and are not in each other's way.
_AT_ODDS = f"""({_ITEM} = {_OTHER_ITEM} OR ({_ITEM}, {_OTHER_ITEM})
           IN (SELECT one, another FROM unnest(CAST(:ones AS text[]), CAST(:others AS text[])) AS r (one, another)))"""  # noqa: S608
# The person may be merged while the filing is under examination: whoever waited here reads where it leads to.
_LEADING = text("""
    SELECT ref, COALESCE(merged_into, ref) AS leading FROM person
     WHERE ref = ANY(CAST(:people AS uuid[])) ORDER BY ref FOR KEY SHARE
""")
# Of two in one group that ask for the same, the first one has it. Everybody takes rows in one order: nobody in a ring.
_TAKE = text(f"""
    INSERT INTO claim AS held (person, code, application, stands_for)
    SELECT DISTINCT ON (person, code) person, code, application, NULLIF(item, code)
      FROM unnest(CAST(:people AS uuid[]), CAST(:codes AS text[]), CAST(:applications AS uuid[]),
                  CAST(:items AS text[]))
           WITH ORDINALITY AS r (person, code, application, item, n)
     ORDER BY person, code, n
    ON CONFLICT (person, code) DO UPDATE SET application = excluded.application, stands_for = excluded.stands_for
     WHERE held.application = excluded.application OR {FREE} OR NOT {_AT_ODDS.replace("other.", "excluded.")}
    RETURNING person, code, application
""")  # noqa: S608 - parts of our own
_IN_THE_WAY = text(f"""
    SELECT DISTINCT r.application, {_ITEM} AS item
      FROM unnest(CAST(:people AS uuid[]), CAST(:codes AS text[]), CAST(:applications AS uuid[]))
           AS r (person, code, application)
      JOIN claim AS held ON held.person = r.person AND held.code = r.code
""")  # noqa: S608 - parts of our own
_DROP = text("DELETE FROM claim WHERE application = :application")
# Where both have ended nobody can give one up any more: that is found afterwards (findings.py), not refused. Whoever
# was named as the spouse of another record of theirs holds both by one application.
_COLLIDING = text(f"""
    SELECT DISTINCT held.application
      FROM claim AS held
     WHERE held.person IN (:merged, :into) AND NOT {FREE}
       AND EXISTS (SELECT FROM claim AS other
                    WHERE other.person IN (:merged, :into) AND other.person <> held.person AND other.code = held.code
                      AND other.application <> held.application AND {_AT_ODDS}
                      AND NOT {FREE.replace("held.", "other.")}
                      AND NOT (EXISTS (SELECT FROM case_end AS e WHERE e.application = held.application)
                               AND EXISTS (SELECT FROM case_end AS e WHERE e.application = other.application)))
""")  # noqa: S608 - parts of our own
# What is claimed for itself goes before what is claimed beside another item: it is what is asked about later.
_MOVE = text(f"""
    INSERT INTO claim AS held (person, code, application, stands_for)
    SELECT CAST(:into AS uuid), code, application, stands_for FROM claim WHERE person = :merged
    ON CONFLICT (person, code) DO UPDATE SET application = excluded.application, stands_for = excluded.stands_for
     WHERE {FREE} OR (held.stands_for IS NOT NULL AND excluded.stands_for IS NULL)
""")  # noqa: S608 - parts of our own
_FORGET = text("DELETE FROM claim WHERE person = :merged")


class Claim(NamedTuple):
    """An item that an application asks for: the people for whom it is claimed, and every code that is."""

    application: UUID
    item: str
    people: Sequence[UUID]
    codes: Sequence[str]


async def take(tx: AsyncConnection, pack: Pack, asked: Sequence[Claim], today: date) -> Mapping[UUID, set[str]]:
    """Make claims, in order; gives the applications of which another one holds some, each with the items that those
    stand for."""
    people = {person for claim in asked for person in claim.people}
    if not people:
        return {}
    leading = {row.ref: row.leading for row in await tx.execute(_LEADING, {"people": list(people)})}
    rows = [
        (leading[person], code, claim.application, claim.item)
        for claim in asked
        for person in claim.people
        for code in claim.codes
    ]
    given = columns(("people", "codes", "applications", "items"), rows)
    found = await tx.execute(_TAKE, {**given, **_pairs(pack, today), "today": today})
    taken = {(row.person, row.code, row.application) for row in found}
    missed = [row[:3] for row in rows if row[:3] not in taken]
    in_the_way: defaultdict[UUID, set[str]] = defaultdict(set)
    if missed:
        for row in await tx.execute(_IN_THE_WAY, columns(("people", "codes", "applications"), missed)):
            in_the_way[row.application].add(row.item)
    return in_the_way


async def drop(tx: AsyncConnection, application: UUID) -> None:
    """Give up what an application holds."""
    await tx.execute(_DROP, {"application": application})


async def colliding(tx: AsyncConnection, pack: Pack, merged: UUID, into: UUID, today: date) -> list[UUID]:
    """The applications by which two people (both locked) hold what one person cannot have twice, where one of them has
    not ended."""
    given = {"merged": merged, "into": into, "today": today, **_pairs(pack, today)}
    return list((await tx.execute(_COLLIDING, given)).scalars())


async def move(tx: AsyncConnection, merged: UUID, into: UUID, today: date) -> None:
    """Let a person have the claims of another record of theirs; where both have ended theirs stays."""
    await tx.execute(_MOVE, {"merged": merged, "into": into, "today": today})
    await tx.execute(_FORGET, {"merged": merged})


def _pairs(pack: Pack, on: date) -> Mapping[str, list[str]]:
    """The benefits of which one may be had, each with each of the others."""
    rules = [rule for rule in pack.at_most_one if rule.covers(on)]
    pairs = [pair for rule in rules for pair in permutations(rule.benefits, 2)]
    return {"ones": [one for one, _ in pairs], "others": [other for _, other in pairs]}
