"""Giving tasks to departments: rows, running numbers of each org unit's feed, and the due work of each limit."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.events import DeptAssigned
from libs.common.policy import Pack, PackIdentity, task_treasury, tasks_for
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
    INSERT INTO task (id, application, item, stage, treasury, department, feed_no, title, limit_working_days, start_on,
                      assigned_at, state)
    SELECT id, application, item, stage, treasury, department, feed_no, title, budget, start_on, :now, 'open'
      FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:items AS uuid[]),
                  CAST(:stages AS smallint[]), CAST(:treasuries AS text[]), CAST(:departments AS text[]),
                  CAST(:numbers AS bigint[]), CAST(:titles AS text[]), CAST(:budgets AS integer[]),
                  CAST(:starts AS date[]))
           AS r (id, application, item, stage, treasury, department, feed_no, title, budget, start_on)
""")
_CANCEL = text("""
    UPDATE task SET state = 'cancelled'
     WHERE item = ANY(CAST(:items AS uuid[])) AND state IN ('open', 'suspended')
""")


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
    start_on: date
    id: UUID


def stage_tasks(pack: Pack, case: Row[Any], item: UUID, code: str, *, stage: int, start_on: date) -> list[NewTask]:
    """The tasks of one stage of an item, as the policy of the day of acceptance says. Raises UnknownCode."""
    return [
        NewTask(
            application=case.application,
            policy=policy_of(case),
            item=item,
            stage=stage,
            treasury=task_treasury(pack, each, case.treasury, case.accepted_on),
            department=each.department,
            title=each.title,
            limit_working_days=each.limit_working_days,
            start_on=start_on,
            id=uuid7(),
        )
        for each in tasks_for(pack, code, case.accepted_on)[stage]
    ]


async def assign(tx: AsyncConnection, tasks: Sequence[NewTask], *, now: datetime) -> list[DeptAssigned]:
    """Give tasks, with the due work of their limits; the caller holds their cases and emits what this returns."""
    if not tasks:
        return []
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
            "starts": [each.start_on for each in tasks],
        },
    )
