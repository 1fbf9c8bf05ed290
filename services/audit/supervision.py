"""Supervision: every clock, measured from the events alone; who holds what, and since when it is too late.

The projection keeps facts: opened, due, suspended, ended. Whether something is overdue, and its light, is worked out
for the day that the reader names (DESIGN §3.7). There is no order between topics, so each fact fills its own columns,
whichever comes first; on one topic the order of a key stands.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import partial
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import local_date
from libs.common.db import passing, savepoint
from libs.common.events import (
    ApplicationAccepted,
    ApplicationClosed,
    CaseResumed,
    CaseSuspended,
    DeptAssigned,
    DeptCompleted,
    Event,
    PayoutBounced,
    PayoutCancelled,
    PayoutOrdered,
    PayoutSettled,
)
from libs.common.inbox import EventHandler
from services.audit import trail

log = structlog.get_logger()

PROJECTION_TABLES = ("clock", "case_clock")
PAYS = "finance"  # the department that holds a payout until the bank confirms it

ClockKind = Literal["task", "payout"]

_KEEP = text("""
    INSERT INTO clock (kind, record, application, item, treasury, department, fen, opened_on, due_on, moved_due_on,
                       suspended_from, ended_on, policy_city, policy_version, policy_sha256)
    SELECT *
      FROM unnest(CAST(:kind AS text[]), CAST(:record AS uuid[]), CAST(:application AS uuid[]), CAST(:item AS uuid[]),
                  CAST(:treasury AS text[]), CAST(:department AS text[]), CAST(:fen AS bigint[]),
                  CAST(:opened_on AS date[]), CAST(:due_on AS date[]), CAST(:moved_due_on AS date[]),
                  CAST(:suspended_from AS date[]), CAST(:ended_on AS date[]), CAST(:policy_city AS text[]),
                  CAST(:policy_version AS text[]), CAST(:policy_sha256 AS text[]))
    ON CONFLICT (kind, record) DO UPDATE
       SET item = coalesce(excluded.item, clock.item),
           treasury = coalesce(excluded.treasury, clock.treasury),
           department = coalesce(excluded.department, clock.department),
           fen = coalesce(excluded.fen, clock.fen),
           opened_on = coalesce(excluded.opened_on, clock.opened_on),
           due_on = coalesce(excluded.due_on, clock.due_on),
           moved_due_on = coalesce(excluded.moved_due_on, clock.moved_due_on),
           suspended_from = CASE WHEN :resumes THEN NULL
                                 ELSE coalesce(excluded.suspended_from, clock.suspended_from) END,
           ended_on = CASE WHEN :reopens THEN NULL ELSE coalesce(excluded.ended_on, clock.ended_on) END
""")
_KEEP_CASE = text("""
    INSERT INTO case_clock (application, accepted_on, closed_on)
    SELECT * FROM unnest(CAST(:application AS uuid[]), CAST(:accepted_on AS date[]), CAST(:closed_on AS date[]))
    ON CONFLICT (application) DO UPDATE
       SET accepted_on = coalesce(excluded.accepted_on, case_clock.accepted_on),
           closed_on = coalesce(excluded.closed_on, case_clock.closed_on)
""")


@dataclass(frozen=True, slots=True)
class Fact:
    """What one event says of a clock; None is what it does not say."""

    kind: ClockKind
    record: UUID
    application: UUID
    item: UUID | None = None
    treasury: str | None = None
    department: str | None = None
    fen: int | None = None
    opened_on: date | None = None
    due_on: date | None = None
    moved_due_on: date | None = None
    suspended_from: date | None = None
    ended_on: date | None = None


@dataclass(frozen=True, slots=True)
class CaseFact:
    """What one event says of a case."""

    application: UUID
    accepted_on: date | None = None
    closed_on: date | None = None


def _assigned(event: DeptAssigned) -> Fact:
    return Fact(
        "task",
        event.task,
        event.application,
        item=event.item,
        treasury=event.treasury,
        department=event.department,
        opened_on=local_date(event.time),
        due_on=event.due_on,
    )


def _completed(event: DeptCompleted) -> Fact:
    return Fact(
        "task",
        event.task,
        event.application,
        item=event.item,
        treasury=event.treasury,
        department=event.department,
        ended_on=event.completed_on,
    )


def _suspended(event: CaseSuspended) -> Fact:
    return Fact("task", event.task, event.application, suspended_from=event.from_day)


def _resumed(event: CaseResumed) -> Fact:
    return Fact("task", event.task, event.application, moved_due_on=event.due_on)


def _ordered(event: PayoutOrdered) -> Fact:
    return Fact(
        "payout",
        event.order,
        event.application,
        item=event.item,
        treasury=event.treasury,
        department=PAYS,
        fen=event.fen,
        opened_on=local_date(event.time),
        due_on=event.due_on,
    )


def _settled(event: PayoutSettled) -> Fact:
    return Fact(
        "payout",
        event.order,
        event.application,
        item=event.item,
        treasury=event.treasury,
        department=PAYS,
        fen=event.fen,
        due_on=event.due_on,
        ended_on=event.settled_on,
    )


def _bounced(event: PayoutBounced) -> Fact:
    return Fact("payout", event.order, event.application, item=event.item)


def _cancelled(event: PayoutCancelled) -> Fact:
    return Fact("payout", event.order, event.application, item=event.item, ended_on=event.cancelled_on)


async def _keep(
    tx: AsyncConnection,
    events: Sequence[Event],
    *,
    fact_of: Callable[[Any], Fact],
    resumes: bool = False,
    reopens: bool = False,
) -> None:
    policies = {fact_of(event).record: event.policy for event in events}
    facts = {fact.record: fact for fact in map(fact_of, events)}.values()  # one statement takes a row once
    rows = {column.name: [getattr(fact, column.name) for fact in facts] for column in fields(Fact)}
    of = [policies[fact.record] for fact in facts]
    packs = {f"policy_{name}": [getattr(policy, name) for policy in of] for name in ("city", "version", "sha256")}
    await tx.execute(_KEEP, {**rows, **packs, "resumes": resumes, "reopens": reopens})


async def _keep_cases(tx: AsyncConnection, events: Sequence[ApplicationAccepted | ApplicationClosed]) -> None:
    facts = {event.application: _case_fact(event) for event in events}.values()
    await tx.execute(
        _KEEP_CASE, {column.name: [getattr(fact, column.name) for fact in facts] for column in fields(CaseFact)}
    )


def _case_fact(event: ApplicationAccepted | ApplicationClosed) -> CaseFact:
    if isinstance(event, ApplicationAccepted):
        return CaseFact(event.application, accepted_on=event.accepted_on)
    return CaseFact(event.application, closed_on=event.closed_on)


HANDLERS: Mapping[type[Event], EventHandler] = {
    ApplicationAccepted: _keep_cases,
    ApplicationClosed: _keep_cases,
    DeptAssigned: partial(_keep, fact_of=_assigned),
    DeptCompleted: partial(_keep, fact_of=_completed),
    CaseSuspended: partial(_keep, fact_of=_suspended),
    CaseResumed: partial(_keep, fact_of=_resumed, resumes=True),
    PayoutOrdered: partial(_keep, fact_of=_ordered),
    PayoutSettled: partial(_keep, fact_of=_settled),
    PayoutBounced: partial(_keep, fact_of=_bounced, reopens=True),
    PayoutCancelled: partial(_keep, fact_of=_cancelled),
}


async def project(tx: AsyncConnection, events: Iterable[Event]) -> int:
    """Bring the projection forward; gives how many events it took in.

    What it refuses is logged and left out: the trail never waits for its reader, and a rebuild takes it in later.
    """
    taken = 0
    for group in _waves(event for event in events if type(event) in HANDLERS):
        taken += await _attempt(tx, group)
    return taken


async def _attempt(tx: AsyncConnection, group: Sequence[Event]) -> int:
    try:
        async with savepoint(tx):
            await HANDLERS[type(group[0])](tx, group)
    except Exception as error:
        if passing(error):
            raise
        if len(group) == 1:
            event = group[0]
            await log.aerror("supervision leaves out an event", event_id=str(event.id), why=type(error).__name__)
            return 0
        half = len(group) // 2
        return await _attempt(tx, group[:half]) + await _attempt(tx, group[half:])
    return len(group)


def _waves(events: Iterable[Event]) -> list[list[Event]]:
    """Groups of one type each, as few as keep the order of every key."""
    last: dict[str, tuple[int, type[Event]]] = {}
    groups: dict[tuple[int, type[Event]], list[Event]] = defaultdict(list)
    for event in events:
        level, before = last.get(event.key, (0, type(event)))
        level += before is not type(event)
        last[event.key] = (level, type(event))
        groups[level, type(event)].append(event)
    return [groups[at] for at in sorted(groups, key=lambda at: at[0])]


async def rebuild(tx: AsyncConnection) -> int:
    """Make the projection anew from the trail, in flat memory; gives how many events it took in. Batches wait."""
    await trail.lock_chain(tx)
    for table in PROJECTION_TABLES:
        await tx.execute(text(f"DELETE FROM {table}"))  # noqa: S608 - names from code
    taken = 0
    async for page in trail.pages(tx):
        taken += await project(tx, filter(None, map(trail.event_in, page)))
    return taken
