"""Public notice and objection (公示 / 异议): what the policy puts between the proposal of a certification and its
confirmation, as it is read. `publication` writes it.

A notice belongs to one proposal. Where the policy requires it, it opens with the proposal; where the policy allows it,
an officer opens it. The day of opening does not count, and its last day counts whole. Until it is over the proposal is
not confirmed. Objections follow the item, whatever becomes of the proposal: nobody is certified before each is looked
into, and one that is upheld stands against the item for good.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import CALENDAR
from libs.common.policy.model import PublicNotice
from services.workflow.access import among
from services.workflow.domain import ItemState, NoticeRequired, NoticeRunning, ObjectionsOpen
from services.workflow.models import cases, item, objection, objection_finding, public_notice


@dataclass(frozen=True, slots=True)
class Objection:
    """One objection, and what was found of it (None: still to be looked into)."""

    id: UUID
    received_on: date
    matter: str
    upheld: bool | None
    finding: str | None
    concluded_on: date | None


@dataclass(frozen=True, slots=True)
class Notice:
    """The public notice of one proposal."""

    id: UUID
    proposed_at: datetime
    proposed_by: str
    category: str
    opened_on: date
    last_day: date
    objections: tuple[Objection, ...]

    @property
    def findings(self) -> list[str]:
        """What was found of the objections that are upheld."""
        return [each.finding for each in self.objections if each.upheld and each.finding]


class ObjectionView(BaseModel):
    """One objection, and what was found of it."""

    id: UUID
    received_on: date
    matter: str | None = Field(description="异议内容；仅供办理人员查阅，其他人为空")
    upheld: bool | None = Field(description="异议是否成立；尚未核查的为空")
    finding: str | None
    concluded_on: date | None


class NoticeView(BaseModel):
    """The public notice of a proposal. It may be confirmed after `last_day`, once every objection has its finding."""

    id: UUID
    category: str
    opened_on: date = Field(description="公示之日，当日不计入")
    last_day: date = Field(description="公示期最后一日，当日计入")
    provisional: bool = Field(description="公示期超出已公布的放假安排，为暂定")
    objections: list[ObjectionView]


def last_day_of(notice: Notice, rule: PublicNotice | None) -> date:
    """The last day of a notice: as it was published, or later where a calendar that gained holidays since makes it
    shorter than the days that the policy names."""
    if rule is None:
        return notice.last_day
    return max(notice.last_day, CALENDAR.add_working_days(notice.opened_on, rule.working_days))


def check_published(rule: PublicNotice | None, notice: Notice | None, notices: Sequence[Notice], today: date) -> None:
    """Whether a certification may be confirmed on `today`: `notice` is that of its proposal, `notices` all of its item.

    Raises NoticeRequired, NoticeRunning, ObjectionsOpen.
    """
    if notice is None and rule is not None and rule.required:
        raise NoticeRequired(days=rule.working_days)
    if notice is not None and today <= (last_day := last_day_of(notice, rule)):
        raise NoticeRunning(last_day=last_day)
    if open_ := sum(objection.upheld is None for each in notices for objection in each.objections):
        raise ObjectionsOpen(count=open_)


def on_notice(today: date) -> ColumnElement[bool]:
    """Whether a proposal of a case (the row of `cases` around it) is on public notice, or contested, on `today`."""
    unsettled = (
        select(1)
        .select_from(objection)
        .outerjoin(objection_finding, objection_finding.c.objection == objection.c.id)
        .where(objection.c.notice == public_notice.c.id, objection_finding.c.objection.is_(None))
    )
    of_the_proposal = and_(item.c.id == public_notice.c.item, item.c.proposed_at == public_notice.c.proposed_at)
    return exists(
        select(1)
        .select_from(public_notice)
        .join(item, of_the_proposal)
        .where(item.c.application == cases.c.application, item.c.state == ItemState.PROPOSED)
        .where(or_(public_notice.c.last_day >= today, exists(unsettled)))
        .correlate(cases)
    )


async def notices_of(tx: AsyncConnection, items: Collection[UUID]) -> Mapping[UUID, list[Notice]]:
    """Every notice of these items with its objections, oldest first: two statements, however many."""
    if not items:
        return {}
    rows = (await tx.execute(select(public_notice).where(among(public_notice.c.item, items)))).all()
    objections: dict[UUID, list[Objection]] = defaultdict(list)
    for row in await tx.execute(_objections([row.id for row in rows])) if rows else ():
        objections[row.notice].append(
            Objection(row.id, row.received_on, row.matter, row.upheld, row.finding, row.concluded_on)
        )
    found: dict[UUID, list[Notice]] = defaultdict(list)
    for row in sorted(rows, key=lambda each: each.proposed_at):
        told = tuple(objections[row.id])
        found[row.item].append(
            Notice(row.id, row.proposed_at, row.proposed_by, row.category, row.opened_on, row.last_day, told)
        )
    return found


def _objections(notices: Collection[UUID]) -> Select[Any]:
    found = objection_finding.c
    return (
        select(objection, found.upheld, found.finding, found.concluded_on)
        .outerjoin(objection_finding, found.objection == objection.c.id)
        .where(among(objection.c.notice, notices))
        .order_by(objection.c.id)
    )


def notice_view(notice: Notice, *, whole: bool) -> NoticeView:
    """A notice as it is shown; what was objected only where it is shown `whole`."""
    return NoticeView(
        id=notice.id,
        category=notice.category,
        opened_on=notice.opened_on,
        last_day=notice.last_day,
        provisional=CALENDAR.is_provisional(notice.last_day),
        objections=[
            ObjectionView(
                id=each.id,
                received_on=each.received_on,
                matter=each.matter if whole else None,
                upheld=each.upheld,
                finding=each.finding,
                concluded_on=each.concluded_on,
            )
            for each in notice.objections
        ],
    )
