"""Public notices (公示) as intake hears of them from workflow, and the list for everybody of those that run. Of names only
the first character is shown: a notice is de-identified (个人信息保护法 第五十一条)."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from html import escape
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, and_, exists, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.crypto import Vault
from libs.common.db import columns
from libs.common.events import ObjectionConcluded, ObjectionReceived, PublicNoticeOpened, PublicNoticeWithdrawn
from libs.common.packs import Packs
from libs.common.paging import Page, PageRequest, read_after
from libs.common.policy import Pack
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
_CONCLUDED = text("""
    UPDATE objection SET upheld = r.upheld, concluded_on = r.concluded_on
      FROM unnest(CAST(:objection AS uuid[]), CAST(:upheld AS boolean[]), CAST(:concluded_on AS date[]))
           AS r (objection, upheld, concluded_on)
     WHERE objection.objection = r.objection
""")


_STYLE = """
body { font: 16px/1.7 "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; max-width: 64rem; margin: 2rem auto;
       padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: #eef4f8; white-space: nowrap; }
"""


class PublishedView(BaseModel):
    """One line of the public list."""

    notice: UUID
    case_no: str
    name: str = Field(description="姓名，已去标识化")
    employer: str | None = Field(description="用人单位名称；没有用人单位的为空")
    item: str
    category: str = Field(description="拟认定的人才类别")
    treasury: str
    treasury_title: str
    opened_on: date
    last_day: date = Field(description="公示期最后一日；对公示内容有异议的，应在此日前提出")


# -- what is heard


async def on_opened(tx: AsyncConnection, events: Sequence[PublicNoticeOpened]) -> None:
    """Keep notices."""
    names = ["notice", "application", "item", "category", "treasury", "opened_on", "last_day"]
    await tx.execute(_OPENED, _columns(events, names))


async def on_withdrawn(tx: AsyncConnection, events: Sequence[PublicNoticeWithdrawn]) -> None:
    """Keep that notices no longer hold."""
    await tx.execute(_WITHDRAWN, _columns(events, ["notice", "withdrawn_on"]))


async def on_received(tx: AsyncConnection, events: Sequence[ObjectionReceived]) -> None:
    """Keep objections."""
    await tx.execute(_RECEIVED, _columns(events, ["objection", "notice", "application", "received_on"]))


async def on_concluded(tx: AsyncConnection, events: Sequence[ObjectionConcluded]) -> None:
    """Keep what was found of objections."""
    await tx.execute(_CONCLUDED, _columns(events, ["objection", "upheld", "concluded_on"]))


def _columns(events: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    return columns(names, [tuple(getattr(event, name) for name in names) for event in events])


# -- what is shown


def on_notice(today: date) -> ColumnElement[bool]:
    """Whether an item of an application (the row around it) is on public notice, or contested, on `today`."""
    unsettled = select(1).where(objection.c.notice == public_notice.c.notice, objection.c.concluded_on.is_(None))
    running = or_(public_notice.c.last_day >= today, exists(unsettled))
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
        case_no=row.case_no,
        name=name,
        employer=row.employer_name,
        item=item_title(pack, row.item_code),
        category=category_title(pack, row.notice_category),
        treasury=row.notice_treasury,
        treasury_title=treasury_title(pack, row.notice_treasury),
        opened_on=row.notice_opened_on,
        last_day=row.notice_last_day,
    )


def as_page(shown: Page[PublishedView], today: date, treasury: str | None) -> str:
    """The list (of one treasury, or of all) as an HTML page to print or to show; no script, no address outside."""
    heads = ("办件编号", "姓名", "用人单位", "事项", "拟认定类别", "所属财政", "公示日期", "公示期至")
    rows = [
        (
            each.case_no,
            each.name,
            each.employer or "—",
            each.item,
            each.category,
            each.treasury_title,
            str(each.opened_on),
            str(each.last_day),
        )
        for each in shown.items
    ]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    query = escape(urlencode({"cursor": shown.next} | ({"treasury": treasury} if treasury else {})))
    onward = f'<p><a href="?{query}">下一页</a></p>' if shown.next else ""
    table = (
        f"<table><thead><tr>{''.join(f'<th>{each}</th>' for each in heads)}</tr></thead><tbody>{body}</tbody></table>"
    )
    return (
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>拟认定人才公示</title><style>{_STYLE}</style></head><body><h1>拟认定人才公示</h1>"
        f"<p>{today} 公示中的名单。对公示内容有异议的，请在公示期内向所属财政的人才工作部门提出。</p>"
        f"{table if rows else '<p>今日没有公示。</p>'}{onward}</body></html>"
    )
