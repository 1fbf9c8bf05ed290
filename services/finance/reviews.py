"""Reviews (发放前复核): what must still hold before a later instalment is ordered, judged by the policy and kept.

The talent office of the treasury that is to bear an instalment reviews it; that of the grant, where the employer moved,
sees it. The last review of an instalment counts until its order is made. One that passes lets the order go, on its day
or at once; without one the instalment is withheld, however long.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common import field_errors
from libs.common.errors import NotFound
from libs.common.events import InstalmentReviewed
from libs.common.facts import clause_view, wrong_facts
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.policy import Decision, Facts, Pack, Verdict
from libs.common.policy import review as reviewed
from services.finance.domain import InstalmentOrdered, NothingToReview, ReviewedElsewhere, ReviewTooEarly
from services.finance.entitlements import INSTALMENT, order_in_time, reviewers
from services.finance.models import instalment_review, payout_order
from services.finance.payouts import lock_applications, policy_of

# Of an instalment whose employer was told to belong elsewhere too the row itself: whose it is, the policy says. The due
# work of an instalment is done on the day of its order: without it, what has no order is withheld.
_PENDING = text("""
    WITH pending AS (
        SELECT e.treasury, coalesce(last.verdict, 'none') AS last, i.review_from,
               NOT EXISTS (SELECT 1 FROM due AS d
                            WHERE d.kind = :kind AND d.key = e.id || '/' || i.number) AS withheld,
               CASE WHEN told.elsewhere THEN e.id END AS entitlement,
               CASE WHEN told.elsewhere THEN i.number END AS number
          FROM instalment AS i
          JOIN entitlement AS e ON e.id = i.entitlement_id
          LEFT JOIN LATERAL (SELECT v.verdict FROM instalment_review AS v
                              WHERE (v.entitlement_id, v.number) = (i.entitlement_id, i.number)
                              ORDER BY v.serial DESC LIMIT 1) AS last ON true
          LEFT JOIN LATERAL (SELECT jsonb_path_exists(a.affiliations, '$[*] ? (@.treasury != $own)',
                                                      jsonb_build_object('own', e.treasury)) AS elsewhere
                               FROM employer_affiliation AS a WHERE a.employer = e.employer
                              ORDER BY a.revision DESC LIMIT 1) AS told ON true
         WHERE i.review_from <= :today AND last.verdict IS DISTINCT FROM 'pass'
           AND NOT EXISTS (SELECT 1 FROM payout_order AS o
                            WHERE (o.entitlement_id, o.instalment) = (i.entitlement_id, i.number))),
    counted AS (
        SELECT treasury, last, entitlement, number, count(*) AS n, count(*) FILTER (WHERE withheld) AS withheld,
               min(review_from) AS oldest
          FROM pending GROUP BY treasury, last, entitlement, number)
    SELECT e.id, e.employer, e.benefit, e.category, e.accepted_on, e.decided_on, e.policy_city, e.policy_version,
           e.policy_sha256, c.treasury, c.last, c.number AS instalment, c.n, c.withheld, c.oldest
      FROM counted AS c LEFT JOIN entitlement AS e ON e.id = c.entitlement
""")


@dataclass(slots=True)
class Pending:
    """Instalments that may be reviewed and have no review that passes: how many, how many of them are withheld because
    the day of their order has come, and since when the oldest may be reviewed."""

    n: int
    withheld: int
    oldest: date


async def count_pending(tx: AsyncConnection, packs: Packs, today: date) -> Mapping[tuple[str, str], Pending]:
    """What waits for a review, by the treasury that reviews it and the verdict of its last review (`none` without)."""
    rows = (await tx.execute(_PENDING, {"kind": INSTALMENT, "today": today})).all()
    moved = [row for row in rows if row.id is not None]
    elsewhere = dict(zip(((row.id, row.instalment) for row in moved), await reviewers(tx, packs, moved), strict=True))
    found: dict[tuple[str, str], Pending] = {}
    for row in rows:
        treasury = elsewhere.get((row.id, row.instalment), row.treasury)
        seen = found.setdefault((treasury, row.last), Pending(0, 0, row.oldest))
        seen.n += row.n
        seen.withheld += row.withheld
        seen.oldest = min(seen.oldest, row.oldest)
    return found


async def review(
    tx: AsyncConnection, packs: Packs, instalment: Any, *, by: str | None, facts: Facts, actor: str, today: date
) -> UUID:
    """Judge whether a later instalment (a row with its entitlement) may be ordered, by the conditions of the version of
    its grant and what is known today; gives the review.

    `by` is the treasury that the officer works for; None for whoever works for none. Raises NothingToReview,
    NotFound and ReviewedElsewhere where it is another treasury's to review, ReviewTooEarly, InstalmentOrdered, and
    ContentWrong for facts that the policy does not hold."""
    (reviewer,) = await reviewers(tx, packs, [instalment])
    if not concerned(by, instalment, reviewer):
        raise NotFound
    if instalment.review_from is None:
        raise NothingToReview
    if by not in {None, reviewer}:
        raise ReviewedElsewhere(treasury=reviewer, title=_title(packs, instalment, reviewer))
    if instalment.review_from > today:
        raise ReviewTooEarly(day=instalment.review_from)
    pack = packs.get(policy_of(instalment))
    decision = judged(pack, instalment, facts)
    if decision.verdict is Verdict.PASSED:
        # Before the application is locked, as whoever takes due work does: neither waits for the other for ever.
        await order_in_time(tx, packs, instalment)
    await lock_applications(tx, [instalment.application])
    if (await tx.execute(_order_of(instalment))).first():
        raise InstalmentOrdered
    key = uuid7()
    await tx.execute(
        insert(instalment_review).values(
            id=key,
            entitlement_id=instalment.id,
            number=instalment.instalment,
            verdict=decision.verdict,
            facts=dict(facts),
            clauses=[clause_view(pack, clause).model_dump(mode="json") for clause in decision.clauses],
            actor=actor,
        )
    )
    await emit(tx, _told(key, instalment, decision, today, reviewer))
    return key


def concerned(own: str | None, instalment: Any, reviewer: str) -> bool:
    """Whether an instalment is of a treasury's concern: of the one that reviews it, and of that of the grant, which
    sees it. None is whoever sees it for another reason."""
    return own in {None, instalment.treasury, reviewer}


def _title(packs: Packs, instalment: Any, treasury: str) -> str:
    known = packs.get(policy_of(instalment)).treasuries
    return next((each.title for each in known if each.code == treasury), "另一级财政")


def judged(pack: Pack, instalment: Any, facts: Facts) -> Decision:
    """What the policy says of an instalment by these facts. Pure. Raises ContentWrong."""
    if wrong := [{**each, "loc": ("body", *each["loc"])} for each in wrong_facts(facts, pack)]:
        raise field_errors.refusal(wrong, {"facts": facts})
    of = {"benefit": instalment.benefit, "category": instalment.category}
    return reviewed(pack, **of, facts=facts, on=instalment.accepted_on)


def _order_of(instalment: Any) -> Any:
    return select(payout_order.c.id).where(
        payout_order.c.entitlement_id == instalment.id, payout_order.c.instalment == instalment.instalment
    )


def _told(key: UUID, instalment: Any, decision: Decision, today: date, reviewer: str) -> InstalmentReviewed:
    return InstalmentReviewed(
        policy=policy_of(instalment),
        application=instalment.application,
        review=key,
        item=instalment.item,
        benefit=instalment.benefit,
        instalment=instalment.instalment,
        treasury=reviewer,
        verdict=decision.verdict.value,
        rules=tuple(clause.rule.id for clause in decision.deciding),
        reviewed_on=today,
    )
