"""Tasks over HTTP: what a department or a specialist reads of them, and the results that it returns."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictBool, StringConstraints, Tag

from libs.common.bulk import BULK_BYTES, MAX_LINES, BulkReply, bulk_reply, read_lines
from libs.common.calendar import local_date
from libs.common.dated import Day
from libs.common.errors import NotFound
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.paging import Page, Paging, decode_cursor, encode_cursor, wrong_cursor
from libs.common.service import Service
from libs.common.web import Caller, Tx, body_limit, guarded_router, requires
from libs.common.wire import NO_NUL, VISIBLE, WHOLE
from services.workflow.api.common import PacksHeld, ReasonTold
from services.workflow.domain import SpecialProcedure, TaskState
from services.workflow.feed import Bell
from services.workflow.tasks import Completion, complete, resume, suspend
from services.workflow.worklist import TaskDetail, TaskFeed, TaskView, list_tasks, new_tasks, task_detail

router = guarded_router("workflow", tags=["任务"])

MAX_WAIT = 60
_AFTER = "query/after"
FactName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
FactWords = Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL), VISIBLE]
FactNumber = Annotated[int, Field(ge=-(2**53), le=2**53), WHOLE]


def _kind(value: object) -> str:
    """Which of its forms a fact has: only what is wrong of that form is told, not that it is none of the others."""
    forms = {bool: "bool", int: "number", float: "number", type(None): "nothing"}
    return forms.get(type(value), "words")


Fact = Annotated[
    Annotated[StrictBool, Tag("bool")]
    | Annotated[FactNumber, Tag("number")]
    | Annotated[FactWords, Tag("words")]
    | Annotated[None, Tag("nothing")],
    Discriminator(_kind),
]
Facts = Annotated[
    dict[FactName, Fact],
    Field(
        max_length=50,
        description='核验所得事实，如 {"person.degree": "master"}；不得含姓名、证件号和账号。以 person. 或 employer. '
        "开头的，名称和取值见 GET /intake/v1/policy，申请随即按此重新对照政策；其余的只留存于任务",
        json_schema_extra={"additionalProperties": False},
    ),
]


_PASSED: dict[str, Any] = {"result": "passed", "facts": {"person.degree": "master"}}
_LINE: dict[str, Any] = {"task": "0197c1b5-d003-7c30-8d43-5e7f9a1b2c4d", "result": "failed", "reason": "未查到参保记录"}


class Result(BaseModel):
    """The result of one task."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_PASSED]})
    result: Literal["passed", "failed"]
    reason: ReasonTold | None = Field(default=None, description="结果为 failed 时必填")
    facts: Facts = {}


class ResultLine(Result):
    """The result of one task of a bulk request."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LINE]})
    task: UUID


class Results(BaseModel):
    """Results of many tasks; a bad line harms no other."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tasks": [_LINE]}]})
    tasks: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=MAX_LINES,
            json_schema_extra={"items": ResultLine.model_json_schema()},
        ),
    ]


class Suspension(BaseModel):
    """Why and from when a clock stands still."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "expert_review", "from_day": "2026-06-10"}]}
    )
    reason: Literal["hearing", "testing", "inspection", "appraisal", "expert_review"]
    from_day: Day = Field(description="停止计时的第一日，不晚于今日")


class Resumption(BaseModel):
    """From when a clock runs again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"to_day": "2026-06-17"}]})
    to_day: Day = Field(description="恢复计时之日，不晚于今日")


@router.get("/tasks", summary="任务列表", dependencies=[requires("workflow:read")])
async def get_tasks(
    *,
    tx: Tx,
    caller: Caller,
    packs: PacksHeld,
    page: Paging,
    state: TaskState | None = None,
    green_channel: Annotated[bool | None, Query(description="true 只列绿色通道的任务，false 只列其他任务")] = None,
) -> Page[TaskView]:
    """本单位的任务，按交办先后排列，可按状态筛选，也可只列绿色通道的任务。"""
    today = local_date(datetime.now(UTC))
    return await list_tasks(tx, packs, caller, page, state=state, green_channel=green_channel, today=today)


@router.get("/tasks:poll", summary="等待新任务（长轮询）", dependencies=[requires("workflow:read")])
async def poll_tasks(
    *,
    request: Request,
    caller: Caller,
    packs: PacksHeld,
    after: Annotated[str | None, Query(max_length=200, description="上次返回的 next；首次不填")] = None,
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT, description="没有新任务时最多等待的秒数")] = 30,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> TaskFeed:
    """等待本单位的新任务：有新任务立即返回，否则到时返回空列表。已返回的任务不再重复。"""
    seen = _feed_number(after)
    if caller.org_unit is None:
        raise NotFound
    until = time.monotonic() + wait
    bell: Bell = request.app.state.bell
    service: Service = request.app.state.service
    while True:
        # A transaction of its own for each look: while it waits, the call holds neither transaction nor connection.
        async with service.database.transaction() as tx:
            today = local_date(datetime.now(UTC))
            tasks, seen = await new_tasks(tx, packs, caller, after=seen, limit=limit, today=today)
        left = until - time.monotonic()
        if tasks or left <= 0 or service.stopping.is_set():
            return TaskFeed(tasks=tasks, next=encode_cursor(seen))
        await bell.wait(caller.treasury, caller.department, seen, seconds=left)


@router.get("/tasks/{task}", summary="任务详情", dependencies=[requires("workflow:read")])
async def get_task(task: UUID, tx: Tx, caller: Caller, packs: PacksHeld) -> TaskDetail:
    """一项任务：事项、受益人引用、材料地址、办理期限及其逐日算法、红黄绿灯。"""
    return await task_detail(tx, packs, task, caller, today=local_date(datetime.now(UTC)))


@router.post(
    "/tasks/{task}:complete", summary="反馈结果", dependencies=[requires("workflow:work")], response_model=TaskDetail
)
async def complete_task(
    *, task: UUID, body: Result, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey
) -> Response:
    """反馈一项任务的结果；不通过时应写明原因。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        line = Completion(task, body.result, body.reason, body.facts)
        refused = await complete(tx, packs, [line], caller=caller, now=now)
        if refused:
            raise refused[task]
        return Reply(200, await task_detail(tx, packs, task, caller, today=local_date(now)))

    return await once(tx, caller=caller, operation="task:complete", key=key, body=body, do=do, target=str(task))


@router.post(
    "/tasks:complete",
    summary="批量反馈结果",
    dependencies=[requires("workflow:work"), body_limit(BULK_BYTES)],
    response_model=BulkReply,
)
async def complete_tasks(body: Results, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey) -> Response:
    """批量反馈结果，逐行答复：一行有误不影响其他行。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        lines, malformed = read_lines(ResultLine, "task", body.tasks)
        results = [Completion(line.task, line.result, line.reason, line.facts) for line in lines]
        refused = await complete(tx, packs, results, caller=caller, now=now)
        return Reply(200, bulk_reply("task", body.tasks, malformed, refused))

    return await once(tx, caller=caller, operation="tasks:complete", key=key, body=body, do=do)


@router.post(
    "/tasks/{task}:suspend", summary="进入特别程序", dependencies=[requires("workflow:work")], response_model=TaskDetail
)
async def suspend_task(
    *, task: UUID, body: Suspension, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey
) -> Response:
    """进入特别程序：自 from_day 起不计时，原因和起止日期对外公开。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        await suspend(tx, task, reason=SpecialProcedure(body.reason), from_day=body.from_day, caller=caller, now=now)
        return Reply(200, await task_detail(tx, packs, task, caller, today=local_date(now)))

    return await once(tx, caller=caller, operation="task:suspend", key=key, body=body, do=do, target=str(task))


@router.post(
    "/tasks/{task}:resume", summary="结束特别程序", dependencies=[requires("workflow:work")], response_model=TaskDetail
)
async def resume_task(
    *, task: UUID, body: Resumption, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey
) -> Response:
    """特别程序结束：自 to_day 起恢复计时，办理期限顺延。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        await resume(tx, task, to_day=body.to_day, caller=caller, now=now)
        return Reply(200, await task_detail(tx, packs, task, caller, today=local_date(now)))

    return await once(tx, caller=caller, operation="task:resume", key=key, body=body, do=do, target=str(task))


def _feed_number(after: str | None) -> int:
    if after is None:
        return 0
    match decode_cursor(after, _AFTER):
        case (int(number),) if 0 <= number < 2**63:
            return number
    raise wrong_cursor(_AFTER)
