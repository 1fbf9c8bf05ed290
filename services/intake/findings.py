"""Double grants: what a person, or a household, has by two applications and may have once, as the policy of today says.

One person has the same certification or benefit twice, or two benefits of which one may be had, filed before their
records were merged; or each of two spouses has what is the household's, for neither named the other when asking for it.
Nothing is stored of a finding: it holds as long as the facts do, also for merges and marriages told of long ago.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from itertools import permutations
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ARRAY, ColumnElement, Select, Text, Uuid, any_, cast, func, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.money import Amount
from libs.common.paging import PageRequest, read_after
from libs.common.policy import Pack
from libs.common.policy.model import ClaimSubject
from services.intake.claims import FREE
from services.intake.models import application, application_item, payment
from services.intake.views import item_title, visible

ADVICE = "请核对后由所属财政取消重复一方尚未支付的款项；已重复支付的，按追缴程序办理。"


class Double(StrEnum):
    """In what way something is had twice."""

    TWICE = "twice"
    AT_MOST_ONE = "at_most_one"
    HOUSEHOLD = "household"

    @property
    def words(self) -> str:
        """What people read."""
        return {
            "twice": "同一人重复认定或者重复享受",
            "at_most_one": "只能享受其一的待遇享受了两项",
            "household": "按家庭享受的待遇夫妻双方各享受一份",
        }[self]


# Only who was merged can have two, and only spouses of whom neither named the other can both have what is their
# household's: claims.py lets nobody else. Of two that may not be had beside each other the later one decides whether it
# was asked for under the rule (`:rules` with the pairs of benefits, and the days of each).
_DOUBLE = text(f"""
    WITH lead AS (
        SELECT p.ref, COALESCE(p.merged_into, p.ref) AS person FROM person AS p),
    couple AS (
        SELECT a.person AS one, b.person AS other
          FROM person_link AS l JOIN lead AS a ON a.ref = l.person JOIN lead AS b ON b.ref = l.other
         WHERE l.relation = 'spouse' AND a.person <> b.person
         UNION
        SELECT b.person, a.person
          FROM person_link AS l JOIN lead AS a ON a.ref = l.person JOIN lead AS b ON b.ref = l.other
         WHERE l.relation = 'spouse' AND a.person <> b.person),
    held AS MATERIALIZED (
        SELECT held.*
          FROM (SELECT COALESCE(p.merged_into, p.ref) AS person, p.ref AS record, i.code, NULL AS stands_for,
                       a.id AS application, a.accepted_on, merged.yes AS merged
                  FROM person AS p
                 CROSS JOIN LATERAL (
                       SELECT p.merged_into IS NOT NULL
                              OR EXISTS (SELECT FROM person AS m WHERE m.merged_into = p.ref) AS yes) AS merged
                  JOIN application AS a ON a.beneficiary = p.ref
                  JOIN application_item AS i ON i.application = a.id
                 WHERE (merged.yes OR i.code = ANY(CAST(:ones AS text[]))
                                      AND EXISTS (SELECT FROM couple AS c WHERE c.one = p.ref))
                   AND a.state = 'accepted' AND i.kind IN ('certification', 'benefit')) AS held
         WHERE NOT {FREE}),
    rule AS (
        SELECT * FROM unnest(CAST(:rules AS text[]), CAST(:ones AS text[]), CAST(:others AS text[]),
                             CAST(:households AS boolean[]), CAST(:sinces AS date[]), CAST(:untils AS date[]))
               AS r (rule, one, other, household, since, until)),
    pair AS (
        SELECT LEAST(a.person, b.person) AS person,
               CASE WHEN a.person <> b.person THEN GREATEST(a.person, b.person) END AS spouse,
               r.rule, a.code, a.application
          FROM rule AS r JOIN held AS a ON a.code = r.one
          JOIN held AS b ON b.code = r.other AND b.application <> a.application
         WHERE GREATEST(a.accepted_on, b.accepted_on) BETWEEN r.since AND r.until
           AND (r.one <> r.other AND a.person = b.person AND a.record <> b.record
                OR r.household AND EXISTS (SELECT FROM couple AS c WHERE c.one = a.person AND c.other = b.person)))
    SELECT person, code AS item, '{Double.TWICE}' AS reason, NULL::uuid AS spouse,
           array_agg(application) AS applications, ARRAY[code] AS codes
      FROM held WHERE merged GROUP BY person, code HAVING count(*) > 1
     UNION ALL
    SELECT person, rule, CASE WHEN spouse IS NULL THEN '{Double.AT_MOST_ONE}' ELSE '{Double.HOUSEHOLD}' END, spouse,
           array_agg(DISTINCT application), array_agg(DISTINCT code)
      FROM pair GROUP BY person, rule, spouse
""").columns(  # noqa: S608 - parts of our own
    person=Uuid(), item=Text(), reason=Text(), spouse=Uuid(), applications=ARRAY(Uuid()), codes=ARRAY(Text())
)


class _Rule(NamedTuple):
    """Two benefits (or twice the same one) of which one may be had, of a person or a household, and on which days."""

    rule: str
    one: str
    other: str
    household: bool
    since: date
    until: date


def _rules(pack: Pack) -> Mapping[str, list[Any]]:
    homes = {each.code for each in pack.benefits if each.claim_subject is ClaimSubject.HOUSEHOLD}
    found = [
        _Rule(each.code, each.code, each.code, True, each.valid_from, each.valid_to or date.max)
        for each in pack.benefits
        if each.code in homes
    ] + [
        _Rule(each.id, one, other, one in homes, each.valid_from, each.valid_to or date.max)
        for each in pack.at_most_one
        for one, other in permutations(each.benefits, 2)
    ]
    return {f"{name}s": [getattr(each, name) for each in found] for name in _Rule._fields}


class Grant(BaseModel):
    """One of the applications by which it is had, whose, what of it, and what it has paid so far."""

    application: UUID
    case_no: str
    person: UUID
    item: str
    title: str
    paid: Amount


class DoubleGrant(BaseModel):
    """What a person, or a household, has twice. Applications out of the caller's sight are only counted."""

    person: UUID
    spouse: UUID | None = Field(description="夫妻双方各有一份的，另一方")
    item: str = Field(description="重复的事项；只能享受其一的，为该条规则的编号")
    title: str
    reason: Double
    reason_title: str
    grants: list[Grant]
    elsewhere: int = Field(description="其他平台、本单位不可查阅的办件数")
    advice: str = ADVICE

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Where it stands in the list."""
        return str(self.person), self.item, self.reason.value, str(self.spouse or "")


async def double_grants(
    tx: AsyncConnection,
    pack: Pack,
    caller: Principal,
    wanted: PageRequest,
    *,
    today: date,
    person: UUID | None = None,
) -> list[DoubleGrant]:
    """Up to one more than a page of them, by person, item, reason and spouse; of one (leading) person where one is
    named. Raises ContentWrong for the cursor of another list."""
    found = _DOUBLE.bindparams(today=today, **_rules(pack)).subquery("found")
    place = _place(found)
    columns = (found.c.person, found.c.item, found.c.reason, found.c.spouse)
    query: Select[Any] = select(*columns, *place, func.cardinality(found.c.applications).label("all"))
    query = visible(query.join(application, application.c.id == any_(found.c.applications)), caller).distinct()
    if person is not None:
        query = query.where(or_(found.c.person == person, found.c.spouse == person))
    if after := read_after(wanted, UUID, str, str, str):
        query = query.where(tuple_(*place) > after)
    rows = (await tx.execute(query.order_by(*place).limit(wanted.limit + 1))).all()
    grants = await _grants(tx, pack, caller, found, [(row.person, row.item, row.spouse) for row in rows])
    titles = {rule.id: rule.title for rule in pack.at_most_one}
    return [
        DoubleGrant(
            person=row.person,
            spouse=row.spouse,
            item=row.item,
            title=titles.get(row.item) or item_title(pack, row.item),
            reason=Double(row.reason),
            reason_title=Double(row.reason).words,
            grants=(mine := grants[row.person, row.item, row.spouse]),
            elsewhere=row.all - len({grant.application for grant in mine}),
        )
        for row in rows
    ]


def _place(found: Any) -> tuple[ColumnElement[Any], ...]:
    spouse = func.coalesce(cast(found.c.spouse, Text), "")
    return found.c.person, found.c.item, found.c.reason, spouse


_Key = tuple[UUID, str, UUID | None]


async def _grants(
    tx: AsyncConnection, pack: Pack, caller: Principal, found: Any, places: Sequence[_Key]
) -> dict[_Key, list[Grant]]:
    paid = select(func.coalesce(func.sum(payment.c.fen), 0)).where(
        payment.c.application == application.c.id,
        payment.c.item == application_item.c.id,
        payment.c.settled_on.is_not(None),
    )
    query = select(
        found.c.person,
        found.c.item,
        found.c.spouse,
        application.c.id,
        application.c.case_no,
        application.c.beneficiary,
        application_item.c.code,
        paid.scalar_subquery().label("paid"),
    )
    query = query.join(application, application.c.id == any_(found.c.applications)).join(
        application_item,
        (application_item.c.application == application.c.id) & (application_item.c.code == any_(found.c.codes)),
    )
    query = query.where(tuple_(found.c.person, found.c.item).in_([place[:2] for place in places]))
    grants: dict[_Key, list[Grant]] = {place: [] for place in places}
    for row in await tx.execute(visible(query, caller).order_by(application.c.id, application_item.c.position)):
        grant = Grant(
            application=row.id,
            case_no=row.case_no,
            person=row.beneficiary,
            item=row.code,
            title=item_title(pack, row.code),
            paid=Amount(fen=int(row.paid)),
        )
        grants.setdefault((row.person, row.item, row.spouse), []).append(grant)
    return grants
