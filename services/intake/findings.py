"""Double grants: one person has the same certification or benefit by two applications, filed before their records were
merged. Nothing is stored of a finding: it holds as long as the facts do, also for merges of long ago."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ARRAY, Select, Text, Uuid, any_, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.money import Amount
from libs.common.paging import PageRequest, read_after
from libs.common.policy import Pack
from services.intake.claims import FREE
from services.intake.models import application, application_item, payment
from services.intake.views import item_title, visible

ADVICE = "请核对后由所属财政取消重复一方尚未支付的款项；已重复支付的，按追缴程序办理。"

# Only who was merged can have two: claims.py lets nobody else.
_DOUBLE = text(f"""
    SELECT held.person, held.code, array_agg(held.application) AS applications
      FROM (SELECT COALESCE(p.merged_into, p.ref) AS person, i.code, NULL AS stands_for, a.id AS application
              FROM person AS p JOIN application AS a ON a.beneficiary = p.ref
              JOIN application_item AS i ON i.application = a.id
             WHERE (p.merged_into IS NOT NULL
                    OR EXISTS (SELECT FROM person AS merged WHERE merged.merged_into = p.ref))
               AND a.state = 'accepted' AND i.kind IN ('certification', 'benefit')) AS held
     WHERE NOT {FREE}
     GROUP BY held.person, held.code HAVING count(*) > 1
""").columns(person=Uuid(), code=Text(), applications=ARRAY(Uuid()))  # noqa: S608 - parts of our own


class Grant(BaseModel):
    """One of the applications by which a person has it, and what it has paid so far."""

    application: UUID
    case_no: str
    paid: Amount


class DoubleGrant(BaseModel):
    """What a person has twice. Applications out of the caller's sight are only counted."""

    person: UUID
    item: str
    title: str
    grants: list[Grant]
    elsewhere: int = Field(description="其他平台、本单位不可查阅的办件数")
    advice: str = ADVICE


async def double_grants(
    tx: AsyncConnection,
    pack: Pack,
    caller: Principal,
    wanted: PageRequest,
    *,
    today: date,
    person: UUID | None = None,
) -> list[DoubleGrant]:
    """Up to one more than a page of them, by person and item; of one (leading) person where one is named."""
    found = _DOUBLE.bindparams(today=today).subquery("found")
    place = tuple_(found.c.person, found.c.code)
    query: Select[Any] = select(found.c.person, found.c.code, func.cardinality(found.c.applications).label("all"))
    query = visible(query.join(application, application.c.id == any_(found.c.applications)), caller).distinct()
    if person is not None:
        query = query.where(found.c.person == person)
    if after := read_after(wanted, UUID, str):
        query = query.where(place > after)
    rows = (await tx.execute(query.order_by(found.c.person, found.c.code).limit(wanted.limit + 1))).all()
    grants = await _grants(tx, caller, found, [(row.person, row.code) for row in rows])
    return [
        DoubleGrant(
            person=row.person,
            item=row.code,
            title=item_title(pack, row.code),
            grants=(mine := grants[row.person, row.code]),
            elsewhere=row.all - len(mine),
        )
        for row in rows
    ]


async def _grants(
    tx: AsyncConnection, caller: Principal, found: Any, places: Sequence[tuple[UUID, str]]
) -> dict[tuple[UUID, str], list[Grant]]:
    paid = select(func.coalesce(func.sum(payment.c.fen), 0)).where(
        payment.c.application == application.c.id,
        payment.c.item == application_item.c.id,
        payment.c.settled_on.is_not(None),
    )
    query = select(
        found.c.person, found.c.code, application.c.id, application.c.case_no, paid.scalar_subquery().label("paid")
    )
    query = query.join(application, application.c.id == any_(found.c.applications)).join(
        application_item,
        (application_item.c.application == application.c.id) & (application_item.c.code == found.c.code),
    )
    query = query.where(tuple_(found.c.person, found.c.code).in_(places))
    grants: dict[tuple[UUID, str], list[Grant]] = {place: [] for place in places}
    for row in await tx.execute(visible(query, caller).order_by(application.c.id)):
        grant = Grant(application=row.id, case_no=row.case_no, paid=Amount(fen=int(row.paid)))
        grants[row.person, row.code].append(grant)
    return grants
