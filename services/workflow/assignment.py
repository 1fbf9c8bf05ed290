"""Giving tasks to departments: rows, running numbers of each org unit's feed, and the due work of each limit; through
the green channel (第六条) where the policy has one for the item and the category of talent."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.events import DeptAssigned
from libs.common.policy import Pack, PackIdentity, green_channel, limit_of, task_treasury, tasks_for
from libs.common.ticker import Due, schedule
from services.workflow.access import policy_of
from services.workflow.clock import Clock
from services.workflow.history import Entry, record

DEADLINE = "task.deadline"  # the kind of due work that watches a task's limit

_NEXT_NUMBERS = text("""
    INSERT INTO task_feed (treasury, department, last)
    SELECT treasury, department, number
      FROM unnest(CAST(:treasuries AS text[]), CAST(:departments AS text[]), CAST(:numbers AS bigint[]))
           AS r (treasury, department, number)
     ORDER BY treasury, department
    ON CONFLICT (treasury, department) DO UPDATE SET last = task_feed.last + excluded.last
    RETURNING treasury, department, last
""")
_INSERT = text("""
    INSERT INTO task (id, application, item, stage, treasury, department, feed_no, title, limit_working_days,
                      green_channel, start_on, assigned_at, state)
    SELECT id, application, item, stage, treasury, department, feed_no, title, budget, green, start_on, :now, 'open'
      FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:items AS uuid[]),
                  CAST(:stages AS smallint[]), CAST(:treasuries AS text[]), CAST(:departments AS text[]),
                  CAST(:numbers AS bigint[]), CAST(:titles AS text[]), CAST(:budgets AS integer[]),
                  CAST(:greens AS boolean[]), CAST(:starts AS date[]))
           AS r (id, application, item, stage, treasury, department, feed_no, title, budget, green, start_on)
""")
# A certification goes by the category that it claims; what names an earlier certification by that one's (intake accepts
# none but the beneficiary's own, valid on the day); all else by what is claimed beside it, which stays as it was filed:
# whatever is certified afterwards moves no limit.
_CATEGORIES = text("""
    SELECT i.id, CASE WHEN i.kind = 'certification' THEN i.category
                      WHEN i.certification IS NULL THEN claimed.category
                      ELSE earlier.category END AS category
      FROM item AS i
      LEFT JOIN certification AS earlier ON earlier.number = i.certification
      LEFT JOIN LATERAL (SELECT s.category FROM item AS s
                          WHERE s.application = i.application AND s.kind = 'certification'
                          ORDER BY s.position LIMIT 1) AS claimed ON true
     WHERE i.id = ANY(CAST(:items AS uuid[]))
""")
_CANCEL = text("""
    UPDATE task SET state = 'cancelled'
     WHERE item = ANY(CAST(:items AS uuid[])) AND state IN ('open', 'suspended')
""")


@dataclass(frozen=True, slots=True)
class NewStage:
    """A stage of an item whose tasks are to be given. `start_on` is the day of the event, which does not count."""

    pack: Pack
    case: Row[Any]
    item: UUID
    code: str
    number: int
    start_on: date

    @property
    def may_be_green(self) -> bool:
        """Whether the policy has a green channel for the item, whoever may use it."""
        return any(self.code in rule.items for rule in self.pack.green_channels)


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be given. `start_on` is the day of the event, which does not count."""

    application: UUID
    policy: PackIdentity
    item: UUID
    stage: int
    treasury: str
    department: str
    title: str
    limit_working_days: int
    green_channel: bool
    start_on: date
    id: UUID


async def assign(tx: AsyncConnection, stages: Sequence[NewStage], *, now: datetime) -> list[DeptAssigned]:
    """Give the tasks of stages, with the due work of their limits; the caller holds their cases, whose items are there,
    and emits what this returns. Raises UnknownCode."""
    if not stages:
        return []
    categories = await _categories(tx, [each.item for each in stages if each.may_be_green])
    tasks = [task for each in stages for task in _stage_tasks(each, categories.get(each.item))]
    await _insert(tx, tasks, await _next_numbers(tx, tasks), now)
    clocks = {each.id: Clock(each.start_on, each.limit_working_days) for each in tasks}
    await schedule(tx, [deadline_of(each, clock) for each, clock in clocks.items()])
    await record(
        tx,
        [
            Entry(
                t.application, "task_assigned", item=t.item, task=t.id, detail={"unit": f"{t.treasury}/{t.department}"}
            )
            for t in tasks
        ],
        at=now,
    )
    return [
        DeptAssigned(
            policy=each.policy,
            application=each.application,
            task=each.id,
            department=each.department,
            treasury=each.treasury,
            item=each.item,
            due_on=_due_on(clocks[each.id]),
        )
        for each in tasks
    ]


async def _categories(tx: AsyncConnection, items: Collection[UUID]) -> Mapping[UUID, str | None]:
    """The category of talent by which each item goes through the green channel."""
    if not items:
        return {}
    rows = await tx.execute(_CATEGORIES, {"items": list(items)})
    return {row.id: row.category for row in rows}


def _stage_tasks(new: NewStage, category: str | None) -> list[NewTask]:
    """The tasks of a stage, as the policy of the day of acceptance says for a category."""
    pack, case, on = new.pack, new.case, new.case.accepted_on
    channel = green_channel(pack, item=new.code, category=category, on=on)
    return [
        NewTask(
            application=case.application,
            policy=policy_of(case),
            item=new.item,
            stage=new.number,
            treasury=task_treasury(pack, each, case.treasury, on),
            department=each.department,
            title=each.title,
            limit_working_days=limit_of(each, channel),
            green_channel=channel is not None,
            start_on=new.start_on,
            id=uuid7(),
        )
        for each in tasks_for(pack, new.code, on)[new.number]
    ]


def deadline_of(task: UUID, clock: Clock) -> Due:
    """The due work that watches a running clock: at the end of its last day in time."""
    deadline = clock.deadline()
    if deadline is None:
        raise ValueError("the clock stands still: it has no deadline to watch")
    return Due(DEADLINE, str(task), deadline)


async def cancel_tasks(tx: AsyncConnection, items: Collection[UUID]) -> None:
    """Cancel what is open of these items' tasks."""
    if items:
        await tx.execute(_CANCEL, {"items": list(items)})


def _due_on(clock: Clock) -> date:
    due = clock.due_on()
    if due is None:
        raise ValueError("a new clock runs")
    return due


async def _next_numbers(tx: AsyncConnection, tasks: Sequence[NewTask]) -> list[int]:
    """Numbers in each org unit's feed, in the order of `tasks`; holds the feeds until the commit."""
    counts = Counter((each.treasury, each.department) for each in tasks)
    rows = await tx.execute(
        _NEXT_NUMBERS,
        {
            "treasuries": [treasury for treasury, _ in counts],
            "departments": [department for _, department in counts],
            "numbers": list(counts.values()),
        },
    )
    following = {(r.treasury, r.department): r.last - counts[r.treasury, r.department] for r in rows}
    numbers = []
    for each in tasks:
        following[each.treasury, each.department] += 1
        numbers.append(following[each.treasury, each.department])
    return numbers


async def _insert(tx: AsyncConnection, tasks: Sequence[NewTask], numbers: Sequence[int], now: datetime) -> None:
    await tx.execute(
        _INSERT,
        {
            "now": now,
            "ids": [each.id for each in tasks],
            "applications": [each.application for each in tasks],
            "items": [each.item for each in tasks],
            "stages": [each.stage for each in tasks],
            "treasuries": [each.treasury for each in tasks],
            "departments": [each.department for each in tasks],
            "numbers": list(numbers),
            "titles": [each.title for each in tasks],
            "budgets": [each.limit_working_days for each in tasks],
            "greens": [each.green_channel for each in tasks],
            "starts": [each.start_on for each in tasks],
        },
    )
