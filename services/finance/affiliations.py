"""Where employers belong, as intake tells it: every telling is kept, and of an employer the newest counts.

An order is made by what is known on the day it is made; what is told later changes no order.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import columns
from libs.common.events import EmployerAffiliated
from libs.common.treasuries import Affiliation
from services.finance.models import employer_affiliation, entitlement

_KEEP = text("""
    INSERT INTO employer_affiliation (employer, revision, affiliations)
    SELECT * FROM unnest(CAST(:employers AS uuid[]), CAST(:revisions AS bigint[]), CAST(:affiliations AS jsonb[]))
    ON CONFLICT DO NOTHING
""")
_NEWEST = text("""
    SELECT employer, newest.affiliations
      FROM unnest(CAST(:employers AS uuid[])) AS r (employer)
     CROSS JOIN LATERAL (SELECT affiliations FROM employer_affiliation AS a
                          WHERE a.employer = r.employer ORDER BY revision DESC LIMIT 1) AS newest
""")


async def keep(tx: AsyncConnection, events: Sequence[EmployerAffiliated]) -> None:
    """Keep what is told, each telling once, in whatever order it comes."""
    rows = [
        (event.employer, event.revision, json.dumps([each.model_dump(mode="json") for each in event.affiliations]))
        for event in events
    ]
    await tx.execute(_KEEP, columns(("employers", "revisions", "affiliations"), rows))


async def known(tx: AsyncConnection, employers: Iterable[UUID | None]) -> Mapping[UUID | None, Sequence[Affiliation]]:
    """The affiliations of each employer of whom anything was told; of None, who employs nobody, nothing ever is."""
    rows = await tx.execute(_NEWEST, {"employers": list({employer for employer in employers if employer})})
    return {row.employer: [Affiliation.model_validate(each) for each in row.affiliations] for row in rows}


def names(treasury: str) -> ColumnElement[bool]:
    """Whether the employer of an entitlement, as told now, belongs to a treasury at any time. What it names may bear
    an instalment; whether it does is for the policy to say."""
    its_own = employer_affiliation.c.employer == entitlement.c.employer
    newest = (
        select(employer_affiliation.c.affiliations)
        .where(its_own)
        .order_by(employer_affiliation.c.revision.desc())
        .limit(1)
        .correlate(entitlement)
        .scalar_subquery()
    )
    return newest.contains([{"treasury": treasury}])
