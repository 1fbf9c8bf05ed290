"""What is done about a public notice (公示 / 异议): a proposal is published, objections are received and looked into.

Each changes rows under the lock of the case, writes its history, and tells of it on `notice.opened`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.auth import Principal
from libs.common.calendar import CALENDAR, local_date
from libs.common.errors import NotFound
from libs.common.events import ObjectionConcluded, ObjectionReceived, PublicNoticeOpened, PublicNoticeWithdrawn
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.policy.model import PublicNotice
from services.workflow.access import policy_of
from services.workflow.domain import (
    ENDED,
    ItemState,
    NoticeNotProvided,
    NoticeNotRunning,
    NoticeOpenAlready,
    ObjectionConcludedAlready,
    ObjectionDayRefused,
    OwnProposalContested,
    TooManyObjections,
)
from services.workflow.dossiers import Choice, Dossier, held, read
from services.workflow.history import Entry, record
from services.workflow.models import objection, public_notice
from services.workflow.notices import Notice, last_day_of

MOST_OBJECTIONS = 100  # to one notice

_OPEN = text("""
    INSERT INTO public_notice (id, application, item, proposed_at, proposed_by, category, opened_on, last_day,
                               opened_by, opened_at)
    SELECT id, application, item, proposed_at, proposed_by, category, :today, last_day, :by, :now
      FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:items AS uuid[]),
                  CAST(:proposed AS timestamptz[]), CAST(:proposers AS text[]), CAST(:categories AS text[]),
                  CAST(:last_days AS date[]))
           AS r (id, application, item, proposed_at, proposed_by, category, last_day)
""")
_MOVED = text("UPDATE item SET version = version + 1 WHERE id = :item")
_RECEIVE = text("""
    INSERT INTO objection (id, notice, received_on, matter, recorded_by, recorded_at)
    VALUES (:id, :notice, :day, :matter, :by, :now)
""")
_CONCLUDE = text("""
    INSERT INTO objection_finding (objection, upheld, finding, concluded_on, recorded_by, recorded_at)
    VALUES (:objection, :upheld, :finding, :today, :by, :now)
""")


@dataclass(frozen=True, slots=True)
class Published:
    """A proposal to be put on public notice: the rows of item and case, what is proposed, since when, by whom, and the
    rule by which it is published."""

    item: Row[Any]
    case: Row[Any]
    category: str
    proposed_at: datetime
    proposed_by: str
    rule: PublicNotice


async def open_notices(tx: AsyncConnection, proposals: Sequence[Published], *, by: str, now: datetime) -> None:
    """Put proposals on public notice, whose cases the caller holds. Today does not count."""
    if not proposals:
        return
    today = local_date(now)
    opened = [
        PublicNoticeOpened(
            policy=policy_of(each.case),
            application=each.case.application,
            notice=uuid7(),
            item=each.item.id,
            category=each.category,
            treasury=each.case.treasury,
            opened_on=today,
            last_day=CALENDAR.add_working_days(today, each.rule.working_days),
        )
        for each in proposals
    ]
    parameters = {
        "today": today,
        "by": by,
        "now": now,
        "ids": [event.notice for event in opened],
        "applications": [event.application for event in opened],
        "items": [event.item for event in opened],
        "proposed": [each.proposed_at for each in proposals],
        "proposers": [each.proposed_by for each in proposals],
        "categories": [event.category for event in opened],
        "last_days": [event.last_day for event in opened],
    }
    await tx.execute(_OPEN, parameters)
    entries = [
        Entry(
            event.application,
            "notice_opened",
            by=by,
            item=event.item,
            detail={"notice": event.notice, "last_day": event.last_day},
        )
        for event in opened
    ]
    await record(tx, entries, at=now)
    await emit(tx, *opened)


async def publish(tx: AsyncConnection, packs: Packs, choice: Choice, *, caller: Principal, now: datetime) -> None:
    """Put a proposed certification on public notice, as the policy allows.

    Raises NotFound, PreconditionFailed or -Required, ItemNotAwaiting, NoticeNotProvided, NoticeOpenAlready.
    """
    dossier = read(await held(tx, packs, [choice.item], caller), choice.item, choice.etag, "confirm")
    rule = dossier.notice_rule
    if rule is None or dossier.item.verdict != "certify":
        raise NoticeNotProvided
    if dossier.notice is not None:
        raise NoticeOpenAlready(opened_on=dossier.notice.opened_on, last_day=dossier.notice.last_day)
    row = dossier.item
    proposal = Published(row, dossier.case, row.verdict_category, row.proposed_at, row.proposed_by, rule)
    await open_notices(tx, [proposal], by=caller.subject, now=now)
    await tx.execute(_MOVED, {"item": row.id})


async def withdraw_notice(tx: AsyncConnection, dossier: Dossier, notice: Notice, *, by: str, now: datetime) -> None:
    """Say that a proposal which is sent back is no longer on public notice."""
    detail = {"notice": notice.id}
    entry = Entry(dossier.case.application, "notice_withdrawn", by=by, item=dossier.item.id, detail=detail)
    await record(tx, [entry], at=now)
    event = PublicNoticeWithdrawn(
        policy=policy_of(dossier.case),
        application=dossier.case.application,
        notice=notice.id,
        item=dossier.item.id,
        withdrawn_on=local_date(now),
    )
    await emit(tx, event)


async def receive(
    tx: AsyncConnection,
    packs: Packs,
    item: UUID,
    *,
    received_on: date,
    matter: str,
    caller: Principal,
    now: datetime,
) -> None:
    """Record an objection (异议) that came while the notice of an item's proposal ran.

    Raises NotFound, NoticeNotRunning, TooManyObjections, ObjectionDayRefused.
    """
    dossier, notice = _on_notice(await held(tx, packs, [item], caller), item)
    if len(notice.objections) >= MOST_OBJECTIONS:
        raise TooManyObjections(most=MOST_OBJECTIONS)
    latest = min(last_day_of(notice, dossier.notice_rule), local_date(now))
    if not notice.opened_on <= received_on <= latest:
        raise ObjectionDayRefused(earliest=notice.opened_on, latest=latest)
    event = ObjectionReceived(
        policy=policy_of(dossier.case),
        application=dossier.case.application,
        notice=notice.id,
        objection=uuid7(),
        item=item,
        received_on=received_on,
    )
    by = caller.subject
    facts = {"id": event.objection, "notice": notice.id, "day": received_on, "matter": matter, "by": by, "now": now}
    await tx.execute(_RECEIVE, facts)
    await tx.execute(_MOVED, {"item": item})
    detail = {"objection": event.objection, "received_on": received_on}
    await record(tx, [Entry(event.application, "objection_received", by=by, item=item, detail=detail)], at=now)
    await emit(tx, event)


async def conclude(
    tx: AsyncConnection, packs: Packs, contested: UUID, *, upheld: bool, finding: str, caller: Principal, now: datetime
) -> UUID:
    """Record what was found of an objection, for good, also where the proposal was sent back since; gives its item.

    Raises NotFound, NoticeNotRunning where the item has ended, ObjectionConcludedAlready, OwnProposalContested.
    """
    item = await _contested_item(tx, contested)
    dossier = (await held(tx, packs, [item], caller)).get(item)
    if dossier is None:
        raise NotFound
    notice, found = next((n, each) for n in dossier.notices for each in n.objections if each.id == contested)
    if found.upheld is not None:
        raise ObjectionConcludedAlready(concluded_on=found.concluded_on)
    if dossier.item.state in ENDED:
        raise NoticeNotRunning
    if caller.subject in {notice.proposed_by, dossier.item.proposed_by}:
        raise OwnProposalContested
    today, by = local_date(now), caller.subject
    facts = {"objection": contested, "upheld": upheld, "finding": finding, "today": today, "by": by, "now": now}
    await tx.execute(_CONCLUDE, facts)
    await tx.execute(_MOVED, {"item": item})
    detail = {"objection": contested, "upheld": upheld, "finding": finding}
    application = dossier.case.application
    await record(tx, [Entry(application, "objection_concluded", by=by, item=item, detail=detail)], at=now)
    event = ObjectionConcluded(
        policy=policy_of(dossier.case),
        application=application,
        notice=notice.id,
        objection=contested,
        item=item,
        upheld=upheld,
        concluded_on=today,
    )
    await emit(tx, event)
    return item


def _on_notice(dossiers: Mapping[UUID, Dossier], item: UUID) -> tuple[Dossier, Notice]:
    """The dossier of an item whose proposal is, or was, on public notice and is not decided."""
    dossier = dossiers.get(item)
    if dossier is None:
        raise NotFound
    if dossier.item.state != ItemState.PROPOSED or dossier.notice is None:
        raise NoticeNotRunning
    return dossier, dossier.notice


async def _contested_item(tx: AsyncConnection, contested: UUID) -> UUID:
    query = (
        select(public_notice.c.item)
        .join(objection, objection.c.notice == public_notice.c.id)
        .where(objection.c.id == contested)
    )
    item: UUID | None = (await tx.execute(query)).scalar_one_or_none()
    if item is None:
        raise NotFound
    return item
