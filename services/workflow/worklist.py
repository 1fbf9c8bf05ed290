"""What is read of tasks: each with its clock, as lists, as one org unit's feed, and one with its working."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Row, Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.calendar import CountedDay, Light, Suspension
from libs.common.errors import NotFound
from libs.common.packs import Packs
from libs.common.paging import Page, PageRequest, page_of, read_after
from libs.common.policy import Pack
from libs.common.policy.model import FactType, Lights
from services.workflow.access import among, pack_of, visible
from services.workflow.clock import Clock
from services.workflow.domain import SpecialProcedure, TaskState
from services.workflow.models import cases, item, resumption, suspension, task

_LAST = text("SELECT last FROM task_feed WHERE treasury = :treasury AND department = :department")


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stretch without the clock, as the ledger holds it."""

    id: UUID
    reason: SpecialProcedure
    from_day: date
    to_day: date | None


class SuspensionView(BaseModel):
    """One stretch without the clock."""

    reason: SpecialProcedure
    title: str
    from_day: date = Field(description="停止计时的第一日")
    to_day: date | None = Field(description="恢复计时之日；仍在特别程序中的为空")


class WorkingDayView(BaseModel):
    """One line of a due date's working."""

    day: date
    counted: bool
    reason: str
    title: str


class TaskItem(BaseModel):
    """The item that a task belongs to."""

    id: UUID
    code: str
    title: str
    kind: str
    category: str | None
    benefit: str | None


class Judgement(BaseModel):
    """A fact that the policy leaves to this department to find out."""

    name: str
    title: str
    type: FactType
    values: dict[str, str] = Field(description="文本型事实可取的值：代码和名称")


class TaskView(BaseModel):
    """One task with its clock. `beneficiary` is a person_ref, which intake alone resolves."""

    id: UUID
    application: UUID
    case_no: str
    item: TaskItem
    title: str
    treasury: str
    department: str
    stage: int
    state: TaskState
    beneficiary: UUID
    materials: str = Field(description="材料目录地址（办件系统，用自己的令牌读取）")
    judgements: list[Judgement] = Field(description="政策交由本部门认定的事实，随结果在 facts 中反馈")
    required_materials: list[dict[str, str]] = Field(description="该事项应有的材料：{code, title}")
    limit_working_days: int = Field(description="办理时限（工作日）；绿色通道缩短的，为缩短后的时限")
    green_channel: bool = Field(description="是否按绿色通道优先办理")
    start_on: date = Field(description="起算日，当日不计入")
    due_on: date | None = Field(description="办理期限；特别程序中无法确定时为空")
    provisional: bool = Field(description="期限超出已公布的放假安排，为暂定")
    light: Light | None = Field(description="红黄绿灯；已取消的任务为空")
    days_used: int
    days_left: int
    suspensions: list[SuspensionView]
    result: str | None
    reason: str | None
    facts: dict[str, Any] | None
    completed_on: date | None
    completed_by: str | None


class TaskDetail(TaskView):
    """One task with the working of its due date."""

    working: list[WorkingDayView]


class TaskFeed(BaseModel):
    """What the long poll answers. `next` goes into `after` for the next call, also when there was nothing new."""

    tasks: list[TaskView]
    next: str


async def list_tasks(
    tx: AsyncConnection,
    packs: Packs,
    caller: Principal,
    page: PageRequest,
    *,
    state: TaskState | None,
    green_channel: bool | None,
    today: date,
) -> Page[TaskView]:
    """The caller's tasks, oldest first, optionally those in one state, those of the green channel or the others."""
    query = visible(tasks_query(), caller, of=task).order_by(task.c.id).limit(page.limit + 1)
    if after := read_after(page, UUID):
        query = query.where(task.c.id > after[0])
    if state is not None:
        query = query.where(task.c.state == state)
    if green_channel is not None:
        query = query.where(task.c.green_channel.is_(green_channel))
    found = await views(tx, packs, (await tx.execute(query)).all(), today=today)
    return page_of(found, page, lambda view: (str(view.id),))


async def new_tasks(
    tx: AsyncConnection, packs: Packs, caller: Principal, *, after: int, limit: int, today: date
) -> tuple[list[TaskView], int]:
    """Unfinished tasks of the caller's org unit that were assigned after feed number `after`, and the number to go on
    from. Every number up to the feed's last is committed, so an empty answer may skip to it."""
    unit = {"treasury": caller.treasury, "department": caller.department}
    last = (await tx.execute(_LAST, unit)).scalar_one_or_none() or 0
    query = (
        visible(tasks_query(), caller, of=task)
        .where(task.c.treasury == caller.treasury, task.c.department == caller.department)
        .where(task.c.feed_no > after, task.c.state.in_([TaskState.OPEN, TaskState.SUSPENDED]))
        .order_by(task.c.feed_no)
        .limit(limit)
    )
    rows = (await tx.execute(query)).all()
    return await views(tx, packs, rows, today=today), rows[-1].feed_no if rows else max(after, last)


async def task_detail(
    tx: AsyncConnection, packs: Packs, task_id: UUID, caller: Principal, *, today: date
) -> TaskDetail:
    """One task with the working of its due date. Raises NotFound."""
    row = (await tx.execute(visible(tasks_query().where(task.c.id == task_id), caller, of=task))).first()
    if row is None:
        raise NotFound
    ledger = (await stretches(tx, [task_id]))[task_id]
    pack = pack_of(packs, row)
    lines = clock_of(row, ledger).working().working
    return TaskDetail(
        **_view(row, pack, ledger, today).model_dump(),
        working=[
            WorkingDayView(day=line.day, counted=line.counted, reason=line.reason, title=_line_title(line))
            for line in lines
        ],
    )


def _line_title(line: CountedDay) -> str:
    return f"{line.reason.label}（{line.note}）" if line.note else line.reason.label


async def task_rows(tx: AsyncConnection, applications: Collection[UUID]) -> Sequence[Row[Any]]:
    """Every task of cases that the caller was found to see, in order of assignment."""
    query = tasks_query().where(among(task.c.application, applications)).order_by(task.c.stage, task.c.id)
    rows: Sequence[Row[Any]] = (await tx.execute(query)).all()
    return rows


async def views(tx: AsyncConnection, packs: Packs, rows: Sequence[Row[Any]], *, today: date) -> list[TaskView]:
    """Rows of tasks as they are shown on `today`."""
    ledger = await stretches(tx, [row.id for row in rows])
    return [_view(row, pack_of(packs, row), ledger[row.id], today) for row in rows]


async def stretches(tx: AsyncConnection, tasks: Iterable[UUID]) -> Mapping[UUID, list[Stretch]]:
    """The suspension ledger of each task, oldest first."""
    ids = list(tasks)
    if not ids:
        return defaultdict(list)
    query = (
        select(suspension, resumption.c.to_day)
        .outerjoin(resumption, resumption.c.suspension == suspension.c.id)
        .where(among(suspension.c.task, ids))
        .order_by(suspension.c.id)
    )
    ledger: dict[UUID, list[Stretch]] = defaultdict(list)
    for row in await tx.execute(query):
        ledger[row.task].append(Stretch(row.id, SpecialProcedure(row.reason), row.from_day, row.to_day))
    return ledger


def tasks_query() -> Select[Any]:
    """Tasks with what is shown of their items and cases."""
    return (
        select(
            task,
            item.c.code.label("item_code"),
            item.c.kind.label("item_kind"),
            item.c.category.label("item_category"),
            item.c.benefit.label("item_benefit"),
            cases.c.case_no,
            cases.c.city,
            cases.c.version,
            cases.c.sha256,
            cases.c.accepted_on,
            cases.c.beneficiary,
        )
        .join(item, item.c.id == task.c.item)
        .join(cases, cases.c.application == task.c.application)
    )


def clock_of(row: Row[Any], ledger: Sequence[Stretch]) -> Clock:
    """The clock of a task's row and ledger."""
    stops = tuple(Suspension(each.from_day, each.to_day, each.reason.label) for each in ledger)
    return Clock(row.start_on, row.limit_working_days, stops)


def _view(row: Row[Any], pack: Pack, ledger: Sequence[Stretch], today: date) -> TaskView:
    clock = clock_of(row, ledger)
    on = row.completed_on or today  # a finished task keeps the light under which it was finished
    yellow = pack.rule(Lights, on=row.accepted_on).yellow_working_days_left
    due_on = clock.due_on()
    definition = pack.item(row.item_code, row.accepted_on)
    return TaskView(
        id=row.id,
        application=row.application,
        case_no=row.case_no,
        item=TaskItem(
            id=row.item,
            code=row.item_code,
            title=definition.title,
            kind=row.item_kind,
            category=row.item_category,
            benefit=row.item_benefit,
        ),
        title=row.title,
        treasury=row.treasury,
        department=row.department,
        stage=row.stage,
        state=TaskState(row.state),
        beneficiary=row.beneficiary,
        materials=f"/intake/v1/applications/{row.application}/materials",
        required_materials=[{"code": each.code, "title": each.title} for each in definition.materials],
        judgements=[
            Judgement(
                name=fact.name,
                title=fact.title,
                type=fact.type,
                values=fact.titles,
            )
            for fact in pack.facts
            if fact.department == row.department and fact.name in pack.facts_of_decisions
        ],
        limit_working_days=row.limit_working_days,
        green_channel=row.green_channel,
        start_on=row.start_on,
        due_on=due_on,
        provisional=clock.provisional(),
        light=None if row.state == TaskState.CANCELLED else clock.light(on, yellow=yellow),
        days_used=clock.used(on),
        days_left=clock.left(on),
        suspensions=[
            SuspensionView(reason=each.reason, title=each.reason.label, from_day=each.from_day, to_day=each.to_day)
            for each in ledger
        ],
        result=row.result,
        reason=row.reason,
        facts=row.facts,
        completed_on=row.completed_on,
        completed_by=row.completed_by,
    )
