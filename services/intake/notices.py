"""Public notices (公示) as intake hears of them from workflow, and the list for everybody of those that run. Only the
first character of a name is shown: a notice is de-identified (个人信息保护法 第五十一条)."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID, uuid5

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, and_, exists, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import end_of_day
from libs.common.crypto import Vault
from libs.common.events import (
    ObjectionConcluded,
    ObjectionReceived,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
    columns_of,
)
from libs.common.packs import Packs
from libs.common.paging import PageRequest, read_after
from libs.common.policy import Pack
from libs.common.ticker import Due, schedule
from services.intake.models import (
    application,
    application_item,
    case_end,
    employer_version,
    item_result,
    objection,
    public_notice,
)
from services.intake.outcome import identity_of
from services.intake.resolve import masked_names
from services.intake.timeline import Step, tell
from services.intake.views import NoticeView, ObjectionView, category_title, item_title, treasury_title

_OPENED = text("""
    INSERT INTO public_notice (notice, application, item, category, treasury, opened_on, last_day)
    SELECT * FROM unnest(CAST(:notice AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                         CAST(:category AS text[]), CAST(:treasury AS text[]), CAST(:opened_on AS date[]),
                         CAST(:last_day AS date[]))
    ON CONFLICT (notice) DO NOTHING
""")
_WITHDRAWN = text("""
    UPDATE public_notice SET withdrawn_on = r.withdrawn_on
      FROM unnest(CAST(:notice AS uuid[]), CAST(:withdrawn_on AS date[])) AS r (notice, withdrawn_on)
     WHERE public_notice.notice = r.notice
""")
_RECEIVED = text("""
    INSERT INTO objection (objection, notice, application, received_on)
    SELECT * FROM unnest(CAST(:objection AS uuid[]), CAST(:notice AS uuid[]), CAST(:application AS uuid[]),
                         CAST(:received_on AS date[]))
    ON CONFLICT (objection) DO NOTHING
""")
_OVER = text("""
    UPDATE public_notice AS n SET over_on = last_day + 1 WHERE notice = ANY(CAST(:ids AS uuid[])) AND over_on IS NULL
    RETURNING notice, application, item, last_day,
              withdrawn_on IS NULL AND NOT EXISTS (SELECT FROM item_result AS r WHERE r.item = n.item)
              AND NOT EXISTS (SELECT FROM case_end AS e WHERE e.application = n.application) AS stands
""")
_CONCLUDED = text("""
    UPDATE objection SET upheld = r.upheld, concluded_on = r.concluded_on
      FROM unnest(CAST(:objection AS uuid[]), CAST(:upheld AS boolean[]), CAST(:concluded_on AS date[]))
           AS r (objection, upheld, concluded_on)
     WHERE objection.objection = r.objection
""")


NOTICE_END = "notice.end"
"""The kind of due work at the end of a notice's last day; its key is the notice's id."""


class PublishedView(BaseModel):
    """One line of the public list."""

    notice: UUID
    name: str = Field(description="姓名，已去标识化")
    employer: str | None = Field(description="用人单位名称；没有用人单位的为空")
    item: str
    category: str = Field(description="拟认定的人才类别")
    treasury: str
    treasury_title: str
    opened_on: date
    last_day: date = Field(description="公示期最后一日；对公示内容有异议的，应在此日（含当日）前提出")


# -- what is heard


async def on_opened(tx: AsyncConnection, events: Sequence[PublicNoticeOpened]) -> None:
    """Keep notices, and look again when they are over."""
    await tx.execute(_OPENED, columns_of(events, "notice application item category treasury opened_on last_day"))
    await schedule(tx, [Due(NOTICE_END, str(event.notice), end_of_day(event.last_day)) for event in events])


async def on_withdrawn(tx: AsyncConnection, events: Sequence[PublicNoticeWithdrawn]) -> None:
    """Keep that notices no longer hold."""
    await tx.execute(_WITHDRAWN, columns_of(events, "notice withdrawn_on"))


async def on_received(tx: AsyncConnection, events: Sequence[ObjectionReceived]) -> None:
    """Keep objections."""
    await tx.execute(_RECEIVED, columns_of(events, "objection notice application received_on"))


async def on_concluded(tx: AsyncConnection, events: Sequence[ObjectionConcluded]) -> None:
    """Keep what was found of objections."""
    await tx.execute(_CONCLUDED, columns_of(events, "objection upheld concluded_on"))


async def on_end(tx: AsyncConnection, dues: Sequence[Due]) -> None:
    """Due work: notices are over. It is told of those that still stand."""
    rows = (await tx.execute(_OVER, {"ids": [UUID(due.key) for due in dues]})).all()
    await tell(tx, [_over(row) for row in rows if row.stands])


def _over(row: Any) -> Step:
    detail = f"公示期于 {row.last_day} 届满；收到异议的，核查清楚后再作决定。"
    step = uuid5(row.notice, NOTICE_END)
    return Step(row.application, step, "notice_over", end_of_day(row.last_day), "公示期满", detail, row.item)


# -- what is shown


def on_notice() -> ColumnElement[bool]:
    """Whether an item of an application (the row around it) is on public notice, or contested."""
    unsettled = select(1).where(objection.c.notice == public_notice.c.notice, objection.c.concluded_on.is_(None))
    running = or_(public_notice.c.over_on.is_(None), exists(unsettled))
    return exists(
        select(1).where(public_notice.c.application == application.c.id, _stands(), running).correlate(application)
    )


def _stands() -> ColumnElement[bool]:
    """A notice stands until its proposal is sent back or decided, or the case ends."""
    decided = select(1).where(item_result.c.item == public_notice.c.item)
    ended = select(1).where(case_end.c.application == public_notice.c.application)
    return and_(public_notice.c.withdrawn_on.is_(None), ~exists(decided), ~exists(ended))


async def notices_of(tx: AsyncConnection, ref: UUID) -> list[NoticeView]:
    """The notices of an application, oldest first."""
    objections: dict[UUID, list[ObjectionView]] = defaultdict(list)
    query = select(objection).where(objection.c.application == ref).order_by(objection.c.objection)
    for row in await tx.execute(query):
        shown = ObjectionView(received_on=row.received_on, upheld=row.upheld, concluded_on=row.concluded_on)
        objections[row.notice].append(shown)
    query = select(public_notice).where(public_notice.c.application == ref).order_by(public_notice.c.notice)
    return [
        NoticeView(
            item=row.item,
            opened_on=row.opened_on,
            last_day=row.last_day,
            withdrawn_on=row.withdrawn_on,
            objections=objections[row.notice],
        )
        for row in await tx.execute(query)
    ]


async def published(
    tx: AsyncConnection, packs: Packs, vault: Vault, page: PageRequest, *, treasury: str | None, today: date
) -> list[PublishedView]:
    """Up to one more than a page of what is on public notice on `today`, oldest first."""
    latest = (
        select(employer_version.c.name)
        .where(employer_version.c.employer == application.c.employer)
        .order_by(employer_version.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    joined = public_notice.join(application, application.c.id == public_notice.c.application).join(
        application_item, application_item.c.id == public_notice.c.item
    )
    kept = [public_notice.c[name] for name in ("notice", "category", "treasury", "opened_on", "last_day")]
    query = (
        select(application, *(column.label(f"notice_{column.name}") for column in kept), latest.label("employer_name"))
        .add_columns(application_item.c.code.label("item_code"))
        .select_from(joined)
        .where(public_notice.c.opened_on <= today, public_notice.c.last_day >= today, _stands())
        .order_by(public_notice.c.notice)
        .limit(page.limit + 1)
    )
    if treasury is not None:
        query = query.where(public_notice.c.treasury == treasury)
    if after := read_after(page, UUID):
        query = query.where(public_notice.c.notice > after[0])
    rows = (await tx.execute(query)).all()
    names = await masked_names(tx, vault, [row.beneficiary for row in rows])
    return [_line(row, packs.get(identity_of(row)), names[row.beneficiary]) for row in rows]


def _line(row: Any, pack: Pack, name: str) -> PublishedView:
    return PublishedView(
        notice=row.notice_notice,
        name=name,
        employer=row.employer_name,
        item=item_title(pack, row.item_code),
        category=category_title(pack, row.notice_category),
        treasury=row.notice_treasury,
        treasury_title=treasury_title(pack, row.notice_treasury),
        opened_on=row.notice_opened_on,
        last_day=row.notice_last_day,
    )
