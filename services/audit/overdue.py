"""What supervisors read: what is overdue and who holds it, and the lights of every org unit, on a day they name."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import CALENDAR, Light
from libs.common.packs import PackNotHere, Packs
from libs.common.paging import PageRequest, read_after
from libs.common.policy import NoRuleInForce, PackIdentity
from libs.common.policy.model import Lights
from services.audit.supervision import ClockKind

_DAY = timedelta(days=1)

# A clock that stands still on the day asked for is judged by the first day without it; what was opened later, or is
# not told of yet, is not there. A task also ends with its case; a payout goes on after it.
_CLOCKS = """
    WITH seen AS (
        SELECT c.kind, c.record, c.application, c.item, c.treasury, c.department, c.fen,
               coalesce(c.moved_due_on, c.due_on) AS due_on, c.ended_on IS NOT NULL AS done,
               CASE WHEN c.kind = 'task' THEN least(c.ended_on, k.closed_on) ELSE c.ended_on END AS ended_on,
               coalesce(c.suspended_from <= :on, false) AS suspended,
               least(CAST(:on AS date), c.suspended_from) AS judged_on,
               coalesce(k.accepted_on, c.opened_on) AS accepted_on,
               c.policy_city, c.policy_version, c.policy_sha256
          FROM clock c LEFT JOIN case_clock k ON k.application = c.application
         WHERE c.opened_on <= :on AND c.due_on IS NOT NULL)
"""
_OVERDUE = text(
    _CLOCKS  # noqa: S608 - both texts stand here
    + """
    SELECT * FROM seen
     WHERE (ended_on IS NULL OR ended_on > :on) AND judged_on > due_on
       AND (CAST(:kind AS text) IS NULL OR kind = :kind)
       AND (CAST(:treasury AS text) IS NULL OR treasury = :treasury)
       AND (CAST(:department AS text) IS NULL OR department = :department)
       AND (CAST(:after_due AS date) IS NULL OR (due_on, record) > (:after_due, CAST(:after_record AS uuid)))
     ORDER BY due_on, record LIMIT :limit
"""
)
_OPEN = text(
    _CLOCKS  # noqa: S608 - both texts stand here
    + """
    SELECT treasury, department, kind, due_on, judged_on, suspended, accepted_on, policy_city, policy_version,
           policy_sha256, count(*) AS n
      FROM seen WHERE ended_on IS NULL OR ended_on > :on
     GROUP BY treasury, department, kind, due_on, judged_on, suspended, accepted_on, policy_city, policy_version,
              policy_sha256
"""
)
_ENDED = text(
    _CLOCKS  # noqa: S608 - both texts stand here
    + """
    SELECT treasury, department, kind, count(*) FILTER (WHERE ended_on <= due_on AND done) AS in_time,
           count(*) FILTER (WHERE ended_on > due_on) AS late
      FROM seen WHERE ended_on <= :on GROUP BY treasury, department, kind
"""
)


class Overdue(BaseModel):
    """一项超期未办的任务或兑现，及其责任单位。"""

    model_config = ConfigDict(from_attributes=True)

    kind: ClockKind = Field(description="task 部门任务，payout 资金兑现")
    record: UUID = Field(description="任务或支付指令的编号")
    application: UUID
    item: UUID | None
    treasury: str = Field(description="责任单位所属一级财政")
    department: str = Field(description="责任部门")
    fen: int | None = Field(description="兑现金额（分）；任务为空")
    due_on: date
    overdue_working_days: int = Field(description="已超期的工作日数")


class Unit(BaseModel):
    """一个责任单位某类时限的办理情况；red 即超期未办。"""

    treasury: str
    department: str
    kind: ClockKind
    open: int = 0
    green: int = 0
    yellow: int = 0
    red: int = 0
    suspended: int = Field(default=0, description="未办结中暂停计时的数量")
    in_time: int = Field(default=0, description="按期办结")
    late: int = Field(default=0, description="超期办结")


class Summary(BaseModel):
    """截至某日（含）的各单位办理情况。"""

    on: date
    units: list[Unit]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which clocks are asked for, as of which day; None means any."""

    on: date
    kind: ClockKind | None = None
    treasury: str | None = None
    department: str | None = None


async def list_overdue(tx: AsyncConnection, wanted: Wanted, asked: PageRequest) -> list[Overdue]:
    """What is overdue on the day, longest first, and one more than the page holds where there is more."""
    after_due, after_record = read_after(asked, date.fromisoformat, UUID) or (None, None)
    rows = await tx.execute(
        _OVERDUE,
        {
            "on": wanted.on,
            "kind": wanted.kind,
            "treasury": wanted.treasury,
            "department": wanted.department,
            "after_due": after_due,
            "after_record": after_record,
            "limit": asked.limit + 1,
        },
    )
    return [_overdue(row) for row in rows]


async def summarise(tx: AsyncConnection, packs: Packs, on: date) -> Summary:
    """The counts of every org unit that holds or held something, as of the end of a day."""
    counts = await count_open(tx, packs, on)
    for row in await tx.execute(_ENDED, {"on": on}):
        unit = counts[row.treasury, row.department, row.kind]
        unit["in_time"], unit["late"] = row.in_time, row.late
    named = [(dict(zip(("treasury", "department", "kind"), key, strict=True)), n) for key, n in sorted(counts.items())]
    return Summary(on=on, units=[Unit.model_validate(key | n) for key, n in named])


async def count_open(tx: AsyncConnection, packs: Packs, on: date) -> dict[tuple[str, str, str], dict[str, int]]:
    """What every org unit (treasury, department, kind of clock) holds at the end of a day: how many are open, how many
    of them suspended, and how many show each light."""
    counts: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in await tx.execute(_OPEN, {"on": on}):
        unit = counts[row.treasury, row.department, row.kind]
        unit["open"] += row.n
        unit["suspended"] += row.n if row.suspended else 0
        unit[light_of(row.due_on, row.judged_on, yellow=_yellow(packs, row)).value] += row.n
    return counts


def light_of(due_on: date, on: date, *, yellow: int) -> Light:
    """The light on a day of what is due on another; `yellow` is the number of working days left that turns it yellow.

    The due day is itself a day left, where it is a working day.
    """
    if on > due_on:
        return Light.RED
    left = CALENDAR.working_days_used(on - _DAY, due_on + _DAY)
    return Light.YELLOW if left <= yellow else Light.GREEN


def _yellow(packs: Packs, row: Row[Any]) -> int:
    """The pack's threshold; 0 (never yellow) while the pack has not arrived here, or where it names none."""
    policy = PackIdentity(city=row.policy_city, version=row.policy_version, sha256=row.policy_sha256)
    try:
        return packs.get(policy).rule(Lights, on=row.accepted_on).yellow_working_days_left
    except (PackNotHere, NoRuleInForce):
        return 0


def _overdue(row: Row[Any]) -> Overdue:
    return Overdue(
        kind=row.kind,
        record=row.record,
        application=row.application,
        item=row.item,
        treasury=row.treasury,
        department=row.department,
        fen=row.fen,
        due_on=row.due_on,
        overdue_working_days=CALENDAR.working_days_used(row.due_on, row.judged_on + _DAY),
    )
