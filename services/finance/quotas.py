"""Budget quotas (预算指标): one line a treasury, benefit and fiscal year, and what orders have committed of it.

A line's row exists from its first order on, with nothing in it, so that a quota given at the same moment as an order is
made cannot miss it: whoever commits or gives locks that row first.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.errors import ContentWrong, DomainError, FieldError
from libs.common.money import MAX_FEN, format_yuan


class QuotaExists(DomainError):
    """409: the line has a quota number already."""

    status, code, title = 409, "quota-exists", "该指标已下达"
    detail = "同一财政、待遇和年度的指标已经下达，请用追加办理；指标号不能重复使用。"


class QuotaTooSmall(DomainError):
    """409: a reduction would leave less than is committed."""

    status, code, title = 409, "quota-too-small", "指标余额不足"
    detail = "调减后指标将少于已占用额。请先取消支付令或减少调减额。"


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """What a quota is for."""

    treasury: str
    benefit: str
    fiscal_year: int


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What every posting under a quota is booked under: codes of the treasury, as data."""

    number: str
    budget_unit: str
    project: str
    functional: str
    economic_department: str
    economic_government: str


@dataclass(slots=True)
class Quota:
    """A locked line; `room` is what may still be committed, in fen. `waiting`: an unfunded order goes first."""

    id: UUID
    room: int
    waiting: bool
    taken: int = 0

    def take(self, fen: int) -> bool:
        """Commit `fen` if there is room; whoever waits longer goes first."""
        if self.waiting or fen > self.room:
            self.waiting = True
            return False
        self.room -= fen
        self.taken += fen
        return True


_ENSURE = text("""
    INSERT INTO quota (treasury, benefit, fiscal_year)
    SELECT * FROM unnest(CAST(:treasuries AS text[]), CAST(:benefits AS text[]), CAST(:years AS smallint[]))
           AS r (treasury, benefit, fiscal_year)
     ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING
""")
_LOCK_LINES = text("""
    SELECT id, treasury, benefit, fiscal_year, amount_fen - committed_fen AS room
      FROM quota
     WHERE (treasury, benefit, fiscal_year) IN (
           SELECT * FROM unnest(CAST(:treasuries AS text[]), CAST(:benefits AS text[]), CAST(:years AS smallint[])))
     ORDER BY treasury, benefit, fiscal_year
       FOR NO KEY UPDATE
""")
_WAITING = text("""
    SELECT DISTINCT quota_id FROM payout_order
     WHERE quota_id = ANY(CAST(:ids AS uuid[])) AND state = 'unfunded'
""")
_LOCK = text("""
    SELECT id, amount_fen FROM quota
     WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY treasury, benefit, fiscal_year FOR NO KEY UPDATE
""")
_COMMIT = text("""
    UPDATE quota AS q SET committed_fen = q.committed_fen + r.fen
      FROM unnest(CAST(:ids AS uuid[]), CAST(:fens AS bigint[])) AS r (id, fen)
     WHERE q.id = r.id
""")
_GIVE = text("""
    UPDATE quota SET number = :number, budget_unit = :budget_unit, project = :project, functional = :functional,
                     economic_department = :economic_department, economic_government = :economic_government
     WHERE id = :id AND number IS NULL
       AND NOT EXISTS (SELECT 1 FROM quota AS q WHERE q.treasury = :treasury AND q.number = :number)
""")
_RAISE = text("""
    UPDATE quota SET amount_fen = amount_fen + :fen
     WHERE id = :id AND number IS NOT NULL AND amount_fen + :fen >= committed_fen
""")
_CHANGE = text("INSERT INTO quota_change (quota_id, fen, reason, actor) VALUES (:id, :fen, :reason, :actor)")
_FITTING = text("""
    SELECT o.id, o.application, o.public_fen
      FROM (SELECT id, application, public_fen, quota_id, due_on,
                   sum(public_fen) OVER (ORDER BY due_on, id) AS so_far
              FROM payout_order WHERE quota_id = :id AND state = 'unfunded') AS o
      JOIN quota AS q ON q.id = o.quota_id
     WHERE o.so_far <= q.amount_fen - q.committed_fen + :freed
     ORDER BY o.due_on, o.id
""")


async def lock_lines(tx: AsyncConnection, lines: Collection[Line]) -> dict[Line, Quota]:
    """Lock the lines, in order, making those that are not there yet."""
    ordered = sorted(set(lines))
    columns = {
        "treasuries": [line.treasury for line in ordered],
        "benefits": [line.benefit for line in ordered],
        "years": [line.fiscal_year for line in ordered],
    }
    await tx.execute(_ENSURE, columns)
    rows = (await tx.execute(_LOCK_LINES, columns)).all()
    waiting = set((await tx.execute(_WAITING, {"ids": [row.id for row in rows]})).scalars())
    return {
        Line(row.treasury, row.benefit, row.fiscal_year): Quota(row.id, row.room, row.id in waiting) for row in rows
    }


async def lock(tx: AsyncConnection, ids: Collection[UUID]) -> None:
    """Lock lines by id, in order."""
    await tx.execute(_LOCK, {"ids": list(ids)})


async def commit(tx: AsyncConnection, by_quota: Mapping[UUID, int]) -> None:
    """Commit fen of locked lines; a negative amount releases. The row's CHECK holds the cap."""
    changed = {key: fen for key, fen in by_quota.items() if fen}
    if changed:
        await tx.execute(_COMMIT, {"ids": list(changed), "fens": list(changed.values())})


async def give(tx: AsyncConnection, line: Line, dimensions: Dimensions, *, fen: int, reason: str, actor: str) -> UUID:
    """Give a line its quota of `fen`; returns its id, locked. Raises QuotaExists."""
    quota = (await lock_lines(tx, [line]))[line]
    values = {name: getattr(dimensions, name) for name in Dimensions.__slots__}
    given = await tx.execute(_GIVE, {"id": quota.id, "treasury": line.treasury, **values})
    if given.rowcount != 1:
        raise QuotaExists
    await increase(tx, quota.id, fen=fen, reason=reason, actor=actor)
    return quota.id


async def increase(tx: AsyncConnection, quota_id: UUID, *, fen: int, reason: str, actor: str) -> None:
    """Raise a quota by `fen`, or lower it where negative (追加、调剂). Raises QuotaTooSmall, ContentWrong."""
    quota = (await tx.execute(_LOCK, {"ids": [quota_id]})).one()
    if quota.amount_fen + fen > MAX_FEN:
        detail = f"追加后指标总额将超过系统上限 {format_yuan(MAX_FEN)}。请核对金额，单位为分。"
        raise ContentWrong(errors=[FieldError("/fen", "quota-too-large", "指标总额超过上限", detail)])
    if (await tx.execute(_RAISE, {"id": quota_id, "fen": fen})).rowcount != 1:
        raise QuotaTooSmall
    await tx.execute(_CHANGE, {"id": quota_id, "fen": fen, "reason": reason, "actor": actor})


async def fitting(tx: AsyncConnection, quota_id: UUID, *, freed: int = 0) -> Sequence[Any]:
    """The unfunded orders of a locked line that have room, or would once `freed` fen are released; none overtaken."""
    return (await tx.execute(_FITTING, {"id": quota_id, "freed": freed})).all()
