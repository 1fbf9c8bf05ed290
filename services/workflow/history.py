"""What happened in a case: entries that can only be added, written in the transaction of what they tell."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.change import Write
from services.workflow.models import history

MAX_SHOWN = 1_000
TITLES: Final[Mapping[str, str]] = {
    "case_opened": "开始办理",
    "task_assigned": "转交部门办理",
    "task_completed": "部门反馈结果",
    "clock_stopped": "进入特别程序",
    "clock_resumed": "恢复计时",
    "limit_passed": "部门办理超期",
    "proposed": "提出决定",
    "notice_opened": "公示",
    "notice_withdrawn": "撤销公示",
    "objection_received": "收到异议",
    "objection_concluded": "作出异议核查结论",
    "confirmed": "复核同意",
    "rejected": "复核退回",
    "certification_refused": "认定未通过，相关兑现事项不予批准",
    "payee_account_changed": "收款账户已变更",
    "case_ended": "办理结束",
    "withdrawn": "申请人撤回",
    "withdrawal_ignored": "撤回未生效：已有决定或已办结",
    "promise_missed": "承诺补交的材料逾期未交",
    "promise_missed_ignored": "承诺补交的材料逾期未交，不影响办理：已有决定或已办结",
}

_INSERT = text("""
    INSERT INTO history (application, at, action, by, item, task, detail)
    SELECT application, :at, action, by, item, task, detail::jsonb
      FROM unnest(CAST(:applications AS uuid[]), CAST(:actions AS text[]), CAST(:bys AS text[]),
                  CAST(:items AS uuid[]), CAST(:tasks AS uuid[]), CAST(:details AS text[]))
           WITH ORDINALITY AS r (application, action, by, item, task, detail, n)
     ORDER BY n
""")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `by` is the subject who acted, None where the system followed a rule."""

    application: UUID
    action: str
    by: str | None = None
    item: UUID | None = None
    task: UUID | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class EntryView(BaseModel):
    """One entry as people read it."""

    at: datetime
    action: str = Field(description="代码")
    title: str = Field(description="说明（中文）")
    by: str | None = Field(description="经办人员编号；系统按规则处理的为空")
    item: UUID | None
    task: UUID | None
    detail: dict[str, Any]


async def record(tx: AsyncConnection, entries: Sequence[Entry], *, at: datetime) -> None:
    """Write entries, in order, in one statement."""
    if entries:
        await tx.execute(*recorded(entries, at=at))


def recorded(entries: Sequence[Entry], *, at: datetime) -> Write:
    """What `record` writes, to stand beside the change that it tells of."""
    return Write(
        _INSERT,
        {
            "at": at,
            "applications": [entry.application for entry in entries],
            "actions": [entry.action for entry in entries],
            "bys": [entry.by for entry in entries],
            "items": [entry.item for entry in entries],
            "tasks": [entry.task for entry in entries],
            "details": [json.dumps(dict(entry.detail), ensure_ascii=False, default=str) for entry in entries],
        },
    )


async def entries_of(tx: AsyncConnection, application: UUID) -> list[EntryView]:
    """The history of one case, oldest first, at most `MAX_SHOWN` entries."""
    query = select(history).where(history.c.application == application).order_by(history.c.id).limit(MAX_SHOWN)
    return [
        EntryView(
            at=row.at,
            action=row.action,
            title=TITLES[row.action],
            by=row.by,
            item=row.item,
            task=row.task,
            detail=row.detail,
        )
        for row in await tx.execute(query)
    ]
