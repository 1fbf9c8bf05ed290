"""What the bank says became of payments: one file, one transaction, the order's state and its posting together.

A line that cannot be believed goes to the exceptions and stops nothing else. A payment that the bank does not tell of
stays unknown until it does; it is never sent again before.
"""

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.calendar import local_date
from libs.common.change import Write, change
from libs.common.crypto import Vault
from libs.common.errors import DomainError
from libs.common.events import Event, PayoutBounced, PayoutSettled
from services.finance import ledger
from services.finance.bank import CHANNEL, ResultFile, ResultFileRefused, ResultLine
from services.finance.domain import BounceReason, Outcome, PaymentState, Sent, Verdict, judge_together, next_state
from services.finance.ledger import Transfer
from services.finance.payouts import Step, history, locked, policy_of, remind


class ResultFileNumberReused(DomainError):
    """409: a file of this number was imported before, with other contents."""

    status, code, title = 409, "result-file-number-reused", "回盘文件号已用于其他内容"
    detail = "未导入任何内容：同一文件号此前导入过不同的内容。请与银行核实哪一份有效；更正后的文件应使用新的文件号。"


_FILE = text("""
    INSERT INTO bank_result_file (id, treasury, number, sha256, file, lines, imported_by)
    VALUES (:id, :treasury, :number, :sha256, :file, :lines, :actor) ON CONFLICT DO NOTHING
""")
_IMPORTED = text("SELECT id, number FROM bank_result_file WHERE treasury = :treasury AND sha256 = :sha256")
_COUNTS = text("SELECT verdict, count(*) AS n FROM bank_result_line WHERE file_id = :file GROUP BY verdict")
_MISSED = text("SELECT count(*) FROM order_history WHERE record = :file AND action = 'miss'")
_SENT = text("""
    SELECT l.reference, l.order_id, l.attempt, l.fen, b.made_on, b.number AS batch, o.due_on
      FROM batch_line AS l JOIN payout_batch AS b ON b.id = l.batch_id JOIN payout_order AS o ON o.id = l.order_id
     WHERE b.treasury = :treasury
       AND (l.reference = ANY(CAST(:references AS text[])) OR b.number = ANY(CAST(:batches AS text[])))
""")
_OUTCOMES = text("""
    SELECT DISTINCT ON (reference) reference, outcome, on_day
      FROM bank_result_line AS l
     WHERE reference = ANY(CAST(:references AS text[])) AND verdict IN ('settle', 'bounce')
     ORDER BY reference, recorded_at DESC
""")
_LINES = text("""
    INSERT INTO bank_result_line (file_id, line, reference, order_id, fen, outcome, on_day, reason, verdict)
    SELECT :file, * FROM unnest(CAST(:lines AS integer[]), CAST(:references AS text[]), CAST(:orders AS uuid[]),
                                CAST(:fens AS bigint[]), CAST(:outcomes AS text[]), CAST(:days AS date[]),
                                CAST(:reasons AS text[]), CAST(:verdicts AS text[]))
""")
_EXCEPTIONS = text("""
    INSERT INTO bank_exception (id, treasury, file_id, line, kind, reference, order_id, expected_fen, fen)
    SELECT id, :treasury, :file, line, kind, reference, order_id, expected, fen
      FROM unnest(CAST(:ids AS uuid[]), CAST(:lines AS integer[]), CAST(:kinds AS text[]), CAST(:references AS text[]),
                  CAST(:orders AS uuid[]), CAST(:expected AS bigint[]), CAST(:fens AS bigint[]))
           AS r (id, line, kind, reference, order_id, expected, fen)
""")
_MOVE = text("""
    UPDATE payout_order AS o SET state = r.state, settled_on = r.settled_on
      FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:days AS date[])) AS r (id, state, settled_on)
     WHERE o.id = r.id
    RETURNING o.id
""")
_RESOLVE = text("""
    UPDATE bank_exception SET resolved_at = :now, resolved_by = :actor, resolution = :resolution
     WHERE id = :id AND resolved_at IS NULL
""")


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a result file: how many lines got each verdict, and how many orders became unknown by it."""

    id: UUID
    number: str
    verdicts: Mapping[str, int]
    unknown: int


@dataclass(frozen=True, slots=True)
class _Judged:
    line: ResultLine
    sent: Any  # row of _SENT, or None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Move:
    """One order's step: by a line of the file, or (`miss`) by its silence."""

    order: Any
    action: str
    state: PaymentState
    on: date | None = None
    reason: BounceReason | None = None
    said: str | None = None


async def import_file(
    tx: AsyncConnection, raw: bytes, *, treasury: str, vault: Vault, actor: str, now: datetime
) -> Imported:
    """Take in a result file of `treasury`. The same content again changes nothing.

    Raises ResultFileRefused, ResultFileNumberReused.
    """
    read = CHANNEL.read(raw)
    if read.treasury != treasury:
        raise ResultFileRefused(why="该文件属于其他财政")
    file, sha256 = uuid7(), hashlib.sha256(raw).hexdigest()
    row = {"id": file, "treasury": treasury, "number": read.number, "sha256": sha256, "lines": len(read.lines)}
    sealed = await asyncio.to_thread(vault.seal, raw, sealed_as(file))
    # Waits for another import of the same bytes or number, if there is one.
    if (await tx.execute(_FILE, {**row, "file": sealed, "actor": actor})).rowcount:
        await _apply(tx, file, read, actor=actor, today=local_date(now))
    return await _report(tx, treasury, sha256)


def sealed_as(file: UUID) -> bytes:
    """The context that a result file is sealed with."""
    return b"finance bank_result_file " + file.bytes


async def _report(tx: AsyncConnection, treasury: str, sha256: str) -> Imported:
    file = (await tx.execute(_IMPORTED, {"treasury": treasury, "sha256": sha256})).one_or_none()
    if file is None:
        raise ResultFileNumberReused
    counts = {row.verdict: row.n for row in await tx.execute(_COUNTS, {"file": file.id})}
    missed = (await tx.execute(_MISSED, {"file": file.id})).scalar_one()
    return Imported(file.id, file.number, {verdict.value: counts.get(verdict, 0) for verdict in Verdict}, missed)


async def _apply(tx: AsyncConnection, file: UUID, read: ResultFile, *, actor: str, today: date) -> None:
    wanted = {
        "treasury": read.treasury,
        "references": [line.reference for line in read.lines],
        "batches": list(read.finals),
    }
    sent = {row.reference: row for row in await tx.execute(_SENT, wanted)}
    # Whatever comes back has its clock again, before anything is locked: due rows come first in the order of locks.
    returned = {line.reference for line in read.lines if line.claim and line.claim.outcome is Outcome.BOUNCED}
    await remind(tx, {row.order_id: row.due_on for row in sent.values() if row.reference in returned})
    # Locked before anything is judged: another file may be telling of the same orders at this moment.
    orders = {order.id: order for order in await locked(tx, {row.order_id for row in sent.values()})}
    judged = await _judge(tx, read, sent, today) + _strange_batches(read, sent)
    moves = _moves(judged, orders) + _silent(read, sent, orders, judged)
    await _store_lines(tx, file, read.treasury, judged)
    await _move(tx, file, moves, actor=actor)
    await _post(tx, read.treasury, moves)


async def _judge(tx: AsyncConnection, read: ResultFile, sent: Mapping[str, Any], today: date) -> list[_Judged]:
    outcomes = {row.reference: row for row in await tx.execute(_OUTCOMES, {"references": list(sent)})}
    by_reference: dict[str, list[ResultLine]] = defaultdict(list)
    for line in read.lines:
        by_reference[line.reference].append(line)
    judged: list[_Judged] = []
    for reference, lines in by_reference.items():
        row, last = sent.get(reference), outcomes.get(reference)
        judged += [_Judged(line, row, Verdict.MALFORMED) for line in lines if line.claim is None]
        outcome, on = (Outcome(last.outcome), last.on_day) if last else (None, None)
        known = Sent(row.fen, row.made_on, outcome, on) if row else None
        readable = [(line, line.claim) for line in lines if line.claim is not None]
        verdicts = judge_together(known, [claim for _, claim in readable], today=today)
        judged += [_Judged(line, row, verdict) for (line, _), verdict in zip(readable, verdicts, strict=True)]
    return judged


def _strange_batches(read: ResultFile, sent: Mapping[str, Any]) -> list[_Judged]:
    """Batches that the file answers for and that are none of the treasury's."""
    known = {row.batch for row in sent.values()}
    strange = [ResultLine(line, number, None) for number, line in read.finals.items() if number not in known]
    return [_Judged(line, None, Verdict.UNKNOWN_REFERENCE) for line in strange]


def _moves(judged: Sequence[_Judged], orders: Mapping[UUID, Any]) -> list[_Move]:
    moves = []
    for one in judged:
        if one.verdict not in {Verdict.SETTLE, Verdict.BOUNCE} or one.line.claim is None:
            continue
        order, claim = orders[one.sent.order_id], one.line.claim
        state = next_state(PaymentState(order.state), one.verdict.value)
        moves.append(_Move(order, one.verdict.value, state, claim.on, claim.reason, claim.said))
    return moves


def _silent(
    read: ResultFile, sent: Mapping[str, Any], orders: Mapping[UUID, Any], judged: Sequence[_Judged]
) -> list[_Move]:
    """The orders of a batch answered for good of which the bank said neither credited nor bounced."""
    told = {one.line.reference for one in judged if one.verdict in {Verdict.SETTLE, Verdict.BOUNCE}}
    silent = [row for row in sent.values() if row.batch in read.finals and row.reference not in told]
    return [
        _Move(orders[row.order_id], "miss", next_state(PaymentState.SENT, "miss"))
        for row in silent
        if orders[row.order_id].state == PaymentState.SENT and orders[row.order_id].attempt == row.attempt
    ]


async def _store_lines(tx: AsyncConnection, file: UUID, treasury: str, judged: Sequence[_Judged]) -> None:
    claims = [one.line.claim for one in judged]
    await tx.execute(
        _LINES,
        {
            "file": file,
            "lines": [one.line.line for one in judged],
            "references": [one.line.reference for one in judged],
            "orders": [one.sent.order_id if one.sent else None for one in judged],
            "fens": [claim.fen if claim else None for claim in claims],
            "outcomes": [claim.outcome.value if claim else None for claim in claims],
            "days": [claim.on if claim else None for claim in claims],
            "reasons": [claim.said if claim else None for claim in claims],
            "verdicts": [one.verdict.value for one in judged],
        },
    )
    odd = [one for one in judged if one.verdict.is_exception]
    await tx.execute(
        _EXCEPTIONS,
        {
            "file": file,
            "treasury": treasury,
            "ids": [uuid7() for _ in odd],
            "lines": [one.line.line for one in odd],
            "kinds": [one.verdict.value for one in odd],
            "references": [one.line.reference for one in odd],
            "orders": [one.sent.order_id if one.sent else None for one in odd],
            "expected": [one.sent.fen if one.sent else None for one in odd],
            "fens": [one.line.claim.fen if one.line.claim else None for one in odd],
        },
    )


async def _move(tx: AsyncConnection, file: UUID, moves: Sequence[_Move], *, actor: str) -> None:
    moved = Write(
        _MOVE,
        {
            "ids": [move.order.id for move in moves],
            "states": [move.state.value for move in moves],
            "days": [move.on if move.action == "settle" else None for move in moves],
        },
    )
    steps = [Step(move.order.id, move.action, move.state, move.order.attempt, move.said, file) for move in moves]
    events = [event for move in moves if (event := _event(move)) is not None]
    await change(tx, moved, history(steps, actor=actor), events=events)


def _returned(move: _Move) -> bool:
    return move.action == "bounce" and bool(move.order.state == PaymentState.SETTLED)


def _event(move: _Move) -> Event | None:
    order = move.order
    common = {"policy": policy_of(order), "application": order.application, "order": order.id, "item": order.item}
    if move.action == "bounce":
        return PayoutBounced(**common, reason=move.reason, bounced_on=move.on)
    if move.action == "settle":
        return PayoutSettled(
            **common,
            benefit=order.benefit,
            instalment=order.instalment,
            treasury=order.treasury,
            fen=order.public_fen,
            shares=order.shares,
            due_on=order.due_on,
            settled_on=move.on,
        )
    return None


async def _post(tx: AsyncConnection, treasury: str, moves: Sequence[_Move]) -> None:
    posted = [move for move in moves if move.action == "settle" or _returned(move)]
    months = await ledger.hold_periods(tx, treasury, {ledger.month_of(move.on) for move in posted if move.on})
    await ledger.post(tx, [_transfer(move, move.on, months) for move in posted if move.on])


def _transfer(move: _Move, on: date, months: Mapping[str, str]) -> Transfer:
    order = move.order
    entries = ledger.payout_entries(payer=order.treasury, shares=order.shares)
    back = move.action == "bounce"
    return Transfer(
        key=f"{'payout_reversal' if back else 'payout'}:{order.id}:{order.attempt}",
        kind="payout_reversal" if back else "payout",
        treasury=order.treasury,
        month=months[ledger.month_of(on)],
        posted_on=on,
        entries=ledger.reversed_entries(entries) if back else entries,
        order=order.id,
        attempt=order.attempt,
    )


async def resolve_exception(
    tx: AsyncConnection, exception: UUID, *, resolution: str, actor: str, now: datetime
) -> bool:
    """Note what was found out about an exception; false where it was resolved before. Money moves by other means."""
    values = {"id": exception, "resolution": resolution, "actor": actor, "now": now}
    return (await tx.execute(_RESOLVE, values)).rowcount == 1


def exceptions_in(verdicts: Mapping[str, int]) -> int:
    """How many lines went to the exceptions."""
    counts = Counter(verdicts)
    return sum(counts[verdict.value] for verdict in Verdict if verdict.is_exception)
