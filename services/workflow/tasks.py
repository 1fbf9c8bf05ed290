"""Department tasks: results, special procedures, limits that pass, and what a department reads of its tasks."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.auth import Principal
from libs.common.calendar import local_date
from libs.common.change import Write, change
from libs.common.errors import DomainError, NotFound
from libs.common.events import CaseResumed, CaseSuspended, DeptCompleted, Event, SlaBreached
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.policy import Facts
from libs.common.ticker import Due, schedule
from services.workflow.access import among, locked, pack_of, policy_of, visible
from services.workflow.assignment import NewStage, assign, deadline_of
from services.workflow.changes import Done, settle_changes
from services.workflow.closing import close_finished
from services.workflow.domain import (
    TRANSITIONS,
    ItemState,
    ReasonMissing,
    SpecialProcedure,
    Step,
    TaskState,
    check_resumption,
    check_suspension,
    judgements,
    next_step,
    task_state_after,
)
from services.workflow.history import Entry, record, recorded
from services.workflow.models import task
from services.workflow.worklist import Stretch, clock_of, stretches, tasks_query

_COMPLETE = text("""
    UPDATE task SET state = 'completed', result = r.result, reason = r.reason, facts = r.facts::jsonb,
                    completed_on = :today, completed_by = :by
      FROM unnest(CAST(:tasks AS uuid[]), CAST(:results AS text[]), CAST(:reasons AS text[]), CAST(:facts AS text[]))
           AS r (task, result, reason, facts)
     WHERE task.id = r.task
""")
_STAGES = text("""
    SELECT i.id, i.application, i.code, i.kind, i.stage, array_agg(t.result) AS results,
           string_agg(t.title || '未通过：' || t.reason, '；' ORDER BY t.id)
               FILTER (WHERE t.result = 'failed') AS failures
      FROM item AS i JOIN task AS t ON t.item = i.id AND t.stage = i.stage
     WHERE i.id = ANY(CAST(:items AS uuid[])) AND i.state = 'in_progress'
     GROUP BY i.id ORDER BY i.application, i.position
""")
_MOVE = text("""
    UPDATE item SET state = r.state, stage = r.stage, reason = r.reason, version = version + 1
      FROM unnest(CAST(:items AS uuid[]), CAST(:states AS text[]), CAST(:stages AS smallint[]),
                  CAST(:reasons AS text[])) AS r (item, state, stage, reason)
     WHERE item.id = r.item
""")
_ANNOUNCE = text("""
    INSERT INTO breach (task, due_on, announced_at)
    SELECT task, due_on, :now FROM unnest(CAST(:tasks AS uuid[]), CAST(:dues AS date[])) AS r (task, due_on)
    ON CONFLICT DO NOTHING RETURNING task
""")
_SUSPEND = text("""
    INSERT INTO suspension (id, task, reason, from_day, recorded_by, recorded_at)
    VALUES (:id, :task, :reason, :day, :by, :now)
""")
_RESUME = text("""
    INSERT INTO resumption (suspension, to_day, recorded_by, recorded_at) VALUES (:suspension, :day, :by, :now)
""")
_STATE = text("UPDATE task SET state = :state WHERE id = :task RETURNING id")


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of one task: `passed`, or `failed` with a reason in Chinese."""

    task: UUID
    result: str
    reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class _Result(NamedTuple):
    """A task, what was returned of it, and what that says of the facts that the policy declares."""

    task: Row[Any]
    line: Completion
    judged: Facts


# -- results


async def complete(
    tx: AsyncConnection, packs: Packs, lines: Sequence[Completion], *, caller: Principal, now: datetime
) -> dict[UUID, DomainError]:
    """Take the results of tasks (each named once) and go on with their cases; gives the refusal of each bad line.

    A refusal is NotFound, TaskNotOpen, ReasonMissing or JudgementWrong; the other lines take effect.
    """
    held, found = await _held(tx, [line.task for line in lines], caller)
    refused: dict[UUID, DomainError] = {}
    good: list[_Result] = []
    for line in lines:
        try:
            row = _completable(found.get(line.task), line)
            judged = judgements(pack_of(packs, held[row.application]), row.department, line.facts)
            good.append(_Result(row, line, judged))
        except DomainError as error:
            refused[line.task] = error
    if good:
        await _complete(tx, packs, held, good, caller=caller, now=now)
    return refused


def _completable(row: Row[Any] | None, line: Completion) -> Row[Any]:
    if row is None:
        raise NotFound
    task_state_after(TaskState(row.state), "complete")
    if line.result == "failed" and not line.reason:
        raise ReasonMissing
    return row


async def _complete(
    tx: AsyncConnection,
    packs: Packs,
    held: Mapping[UUID, Row[Any]],
    good: Sequence["_Result"],
    *,
    caller: Principal,
    now: datetime,
) -> None:
    today = local_date(now)
    rows = [row for row, *_ in good]
    out: list[Event] = [*await _announce_late(tx, held, rows, now=now)]
    await _store_results(tx, [line for _, line, _ in good], by=caller.subject, today=today)
    await record(tx, [_completed_entry(row, line, caller.subject) for row, line, _ in good], at=now)
    out += [
        DeptCompleted(
            policy=policy_of(held[row.application]),
            application=row.application,
            task=row.id,
            department=row.department,
            treasury=row.treasury,
            item=row.item,
            result=line.result,
            completed_on=today,
            facts=judged,
        )
        for row, line, judged in good
    ]
    out += await _advance(tx, packs, held, {row.item for row in rows}, now=now)
    await emit(tx, *out)


async def _store_results(tx: AsyncConnection, lines: Sequence[Completion], *, by: str, today: date) -> None:
    await tx.execute(
        _COMPLETE,
        {
            "today": today,
            "by": by,
            "tasks": [line.task for line in lines],
            "results": [line.result for line in lines],
            "reasons": [line.reason for line in lines],
            "facts": [json.dumps(dict(line.facts), ensure_ascii=False) for line in lines],
        },
    )


def _completed_entry(row: Row[Any], line: Completion, by: str) -> Entry:
    detail = {"result": line.result} | ({"reason": line.reason} if line.reason else {})
    return Entry(row.application, "task_completed", by=by, item=row.item, task=row.id, detail=detail)


async def _advance(
    tx: AsyncConnection, packs: Packs, held: Mapping[UUID, Row[Any]], items: Collection[UUID], *, now: datetime
) -> list[Event]:
    """Go on with items whose present stage may be complete: the next stage, the decision, or the end."""
    moves: list[tuple[UUID, str, int, str | None]] = []
    following: list[NewStage] = []
    done: list[Done] = []
    for row in await tx.execute(_STAGES, {"items": list(items)}):
        case = held[row.application]
        pack = pack_of(packs, case)
        stages = len(pack.item(row.code, case.accepted_on).stages)
        step = next_step(row.kind, stage=row.stage, stages=stages, results=row.results)
        if step is Step.ASSIGN:
            following.append(NewStage(pack, case, row.id, row.code, row.stage + 1, start_on=local_date(now)))
            moves.append((row.id, ItemState.IN_PROGRESS, row.stage + 1, None))
        elif step is not Step.WAIT:
            state = TRANSITIONS[ItemState.IN_PROGRESS, step]
            moves.append((row.id, state, row.stage, row.failures if step is Step.REFUSE else None))
            if step is Step.COMPLETE:
                done.append(Done(case, pack, row.id, row.code))
    if not moves:
        return []
    ids, states, stages_, reasons = zip(*moves, strict=True)
    await tx.execute(
        _MOVE, {"items": list(ids), "states": list(states), "stages": list(stages_), "reasons": list(reasons)}
    )
    assigned, changed = await assign(tx, following, now=now), await settle_changes(tx, done, now=now)
    return [*assigned, *changed, *await close_finished(tx, held, now=now)]


# -- special procedures


async def suspend(
    tx: AsyncConnection, task_id: UUID, *, reason: SpecialProcedure, from_day: date, caller: Principal, now: datetime
) -> None:
    """Stop the clock of a task; `from_day` is its first day without it. A task whose clock stands still cannot breach.

    Raises NotFound, TaskNotOpen, TaskOverdue, SuspensionDayRefused.
    """
    case, row = await _held_one(tx, task_id, caller)
    state = task_state_after(TaskState(row.state), "suspend")
    clock = clock_of(row, (await stretches(tx, [task_id]))[task_id])
    check_suspension(clock, from_day=from_day, today=local_date(now))
    facts = {"id": uuid7(), "task": task_id, "reason": reason, "day": from_day, "by": caller.subject, "now": now}
    detail = {"reason": reason, "title": reason.label, "from_day": from_day}
    entry = Entry(row.application, "clock_stopped", caller.subject, row.item, task_id, detail)
    told = CaseSuspended(
        policy=policy_of(case), application=row.application, task=task_id, reason=reason, from_day=from_day
    )
    moved = Write(_STATE, {"task": task_id, "state": state})
    await change(tx, moved, Write(_SUSPEND, facts), recorded([entry], at=now), events=[told])


async def resume(tx: AsyncConnection, task_id: UUID, *, to_day: date, caller: Principal, now: datetime) -> None:
    """Let the clock of a task run again from `to_day`, and watch its new deadline.

    Raises NotFound, TaskNotSuspended, SuspensionDayRefused.
    """
    case, row = await _held_one(tx, task_id, caller)
    state = task_state_after(TaskState(row.state), "resume")
    ledger = (await stretches(tx, [task_id]))[task_id]
    *earlier, last = ledger
    check_resumption(from_day=last.from_day, to_day=to_day, today=local_date(now))
    facts = {"suspension": last.id, "day": to_day, "by": caller.subject, "now": now}
    clock = clock_of(row, [*earlier, Stretch(last.id, last.reason, last.from_day, to_day)])
    watched = deadline_of(task_id, clock)
    await schedule(tx, [watched])
    entry = Entry(row.application, "clock_resumed", caller.subject, row.item, task_id, {"to_day": to_day})
    due_on = clock.due_on()
    told = CaseResumed(policy=policy_of(case), application=row.application, task=task_id, to_day=to_day, due_on=due_on)
    moved = Write(_STATE, {"task": task_id, "state": state})
    await change(tx, moved, Write(_RESUME, facts), recorded([entry], at=now), events=[told])


# -- limits


async def on_deadlines(tx: AsyncConnection, dues: Sequence[Due], *, now: datetime) -> None:
    """Due work: say once of each task still open that its limit has passed; watch on where it was moved meanwhile.

    Nobody takes due work back when a task ends or its clock stops: it comes, finds nothing to say and is gone. Taking
    it back would lock case and due work in the other order than the ticker does.
    """
    at = {UUID(due.key): due.at for due in dues}
    owners = select(task.c.application).where(among(task.c.id, at.keys()))
    held = await locked(tx, (await tx.execute(owners)).scalars())
    rows = (await tx.execute(select(task).where(among(task.c.id, at.keys()), task.c.state == TaskState.OPEN))).all()
    ledger = await stretches(tx, [row.id for row in rows])
    watched = [deadline_of(row.id, clock_of(row, ledger[row.id])) for row in rows]
    await schedule(tx, [due for due in watched if due.at > at[UUID(due.key)]])
    passed = {UUID(due.key) for due in watched if due.at <= at[UUID(due.key)]}
    late = {row.id: clock_of(row, ledger[row.id]).due_on() for row in rows if row.id in passed}
    await emit(tx, *await _announce(tx, held, rows, late, now=now))


async def _announce_late(
    tx: AsyncConnection, held: Mapping[UUID, Row[Any]], rows: Sequence[Row[Any]], *, now: datetime
) -> list[SlaBreached]:
    """What the ticker would have said, where a late result comes in before it has run."""
    ledger = await stretches(tx, [row.id for row in rows])
    clocks = {row.id: clock_of(row, ledger[row.id]) for row in rows}
    late = {each: clock.due_on() for each, clock in clocks.items() if clock.passed(local_date(now))}
    return await _announce(tx, held, rows, late, now=now)


async def _announce(
    tx: AsyncConnection,
    held: Mapping[UUID, Row[Any]],
    rows: Sequence[Row[Any]],
    late: Mapping[UUID, date | None],
    *,
    now: datetime,
) -> list[SlaBreached]:
    """Say of late tasks (task → its due date) that their limit has passed, unless it was said before."""
    if not late:
        return []
    parameters = {"tasks": list(late), "dues": list(late.values()), "now": now}
    new = set((await tx.execute(_ANNOUNCE, parameters)).scalars())
    told = [row for row in rows if row.id in new]
    entries = [
        Entry(row.application, "limit_passed", item=row.item, task=row.id, detail={"due_on": late[row.id]})
        for row in told
    ]
    await record(tx, entries, at=now)
    return [
        SlaBreached(
            policy=policy_of(held[row.application]),
            application=row.application,
            clock="task",
            record=row.id,
            treasury=row.treasury,
            department=row.department,
            due_on=late[row.id],
        )
        for row in told
    ]


# -- locks


async def _held(
    tx: AsyncConnection, tasks: Collection[UUID], caller: Principal
) -> tuple[Mapping[UUID, Row[Any]], Mapping[UUID, Row[Any]]]:
    """The locked cases of those tasks that the caller may see, and the tasks as they are under the lock."""
    seen = visible(tasks_query().where(among(task.c.id, tasks)), caller, of=task)
    owners = {row.id: row.application for row in await tx.execute(seen)}
    # Lock the case first: two specialists may finish the last tasks of a stage at the same moment.
    held = await locked(tx, owners.values())
    rows = await tx.execute(select(task).where(among(task.c.id, owners.keys())))
    return held, {row.id: row for row in rows}


async def _held_one(tx: AsyncConnection, task_id: UUID, caller: Principal) -> tuple[Row[Any], Row[Any]]:
    held, found = await _held(tx, [task_id], caller)
    if task_id not in found:
        raise NotFound
    row = found[task_id]
    return held[row.application], row
