"""Batches: which orders leave for the bank together, and the file that carries them, sealed at rest.

An attempt of an order is in one file ever: the unique key of `batch_line` says so, whatever two officers do at once.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
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
from libs.common.events import PayoutSent
from services.finance.bank import CHANNEL, Batch, Payment
from services.finance.domain import TITLES, PaymentState, next_state
from services.finance.payees import Payee, PayeeAccountUnknown, PayeeNotTheBeneficiary, Resolved
from services.finance.payouts import Step, history, locked, policy_of

MOST_ORDERS = 1000

_DUE = text("""
    SELECT id, beneficiary, payee_account, attempt FROM payout_order
     WHERE treasury = :treasury AND state = 'due'
       AND (CAST(:orders AS uuid[]) IS NULL OR id = ANY(CAST(:orders AS uuid[])))
       AND (CAST(:due_by AS date) IS NULL OR due_on <= CAST(:due_by AS date))
     ORDER BY due_on, id LIMIT :limit
""")
_SERIAL = text("SELECT nextval(pg_get_serial_sequence('payout_batch', 'serial'))")
_INSERT = text("""
    INSERT INTO payout_batch (id, serial, number, channel, treasury, lines, total_fen, made_on, made_by, file, sha256)
    VALUES (:id, :serial, :number, :channel, :treasury, :lines, :total, :made_on, :made_by, :file, :sha256)
""")
_LINES = text("""
    INSERT INTO batch_line (reference, batch_id, order_id, attempt, fen)
    SELECT reference, :batch, order_id, attempt, fen
      FROM unnest(CAST(:references AS text[]), CAST(:orders AS uuid[]), CAST(:attempts AS smallint[]),
                  CAST(:fens AS bigint[])) AS r (reference, order_id, attempt, fen)
""")
_SEND = text("UPDATE payout_order SET state = 'sent' WHERE id = ANY(CAST(:ids AS uuid[])) RETURNING id")
_FILE = text("SELECT file, number, sha256 FROM payout_batch WHERE id = :id")
_ACCESS = text("INSERT INTO file_access (batch_id, client, actor) VALUES (:batch, :client, :actor)")


class NothingToPay(DomainError):
    """409: none of the orders asked for can be sent."""

    status, code, title = 409, "nothing-to-pay", "没有可提交的支付令"
    detail = "所选支付令均不能提交：{why}。请刷新列表后重新选择。"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An order picked for a batch, as it was when its payee was asked for."""

    order: UUID
    beneficiary: UUID
    payee_account: UUID | None
    attempt: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An order that was asked for and stays behind, with the reason in Chinese."""

    order: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class Made:
    """A batch just made; amounts in fen, `sha256` of the file as the bank gets it."""

    id: UUID
    number: str
    treasury: str
    lines: int
    total_fen: int
    made_on: date
    sha256: str
    left_out: tuple[LeftOut, ...]


async def choose(
    tx: AsyncConnection, *, treasury: str, orders: Sequence[UUID] | None, due_by: date | None, limit: int
) -> list[Chosen]:
    """The treasury's orders that may be paid now, the earliest due first; nothing is locked yet."""
    wanted = {"treasury": treasury, "orders": orders, "due_by": due_by, "limit": min(limit, MOST_ORDERS)}
    return [Chosen(row.id, row.beneficiary, row.payee_account, row.attempt) for row in await tx.execute(_DUE, wanted)]


async def send(
    tx: AsyncConnection,
    *,
    treasury: str,
    chosen: Sequence[Chosen],
    payees: Resolved,
    title_of: Callable[[Any], str],
    vault: Vault,
    actor: str,
    now: datetime,
) -> Made:
    """Put the orders that are still as chosen into one file and mark them sent. Raises NothingToPay.

    `title_of` gives the Chinese title of an order's benefit. An account that is not the beneficiary's is left out.
    """
    as_chosen = {one.order: one for one in chosen}
    fit: list[tuple[Any, Payment]] = []
    left: list[LeftOut] = []
    for order in await locked(tx, list(as_chosen)):
        why = _unready(order, as_chosen[order.id], treasury) or unpayable(order, payees)
        if why:
            left.append(LeftOut(order.id, why))
        else:
            payee = payees.payee(order.payee_account, order.beneficiary)
            fit.append((order, _payment(order, payee, title_of(order))))
    if not fit:
        raise NothingToPay(why=left[0].reason if left else "没有处于“待支付”状态的支付令")
    return await _make(tx, treasury, fit, tuple(left), vault=vault, actor=actor, today=local_date(now))


def unpayable(order: Any, payees: Resolved) -> str | None:
    """Why no file can carry an order to the account it has, in Chinese, or None."""
    if order.payee_account is None:
        return "没有收款账户"
    try:
        payee = payees.payee(order.payee_account, order.beneficiary)
    except (PayeeAccountUnknown, PayeeNotTheBeneficiary) as refused:
        return refused.title
    return CHANNEL.unfit(_payment(order, payee, ""))


def _payment(order: Any, payee: Payee, title: str) -> Payment:
    return Payment(
        reference=f"{order.id.hex}{order.attempt:02d}",
        account_number=payee.account_number,
        holder=payee.holder,
        branch_number=payee.branch_number,
        fen=order.public_fen,
        purpose=f"{title}第{order.instalment}期",
    )


def _unready(order: Any, chosen: Chosen, treasury: str) -> str | None:
    if order.treasury != treasury or order.state != PaymentState.DUE:
        return f"当前状态为“{TITLES[PaymentState(order.state)]}”"
    if (order.payee_account, order.attempt) != (chosen.payee_account, chosen.attempt):
        return "收款账户刚刚变更"
    return "有未处理的回盘异常" if order.doubted else None


async def _make(
    tx: AsyncConnection,
    treasury: str,
    fit: Sequence[tuple[Any, Payment]],
    left: tuple[LeftOut, ...],
    *,
    vault: Vault,
    actor: str,
    today: date,
) -> Made:
    batch, serial = uuid7(), (await tx.execute(_SERIAL)).scalar_one()
    payments = [payment for _, payment in fit]
    number = f"{treasury}{today:%Y%m%d}{serial:06d}"
    raw = CHANNEL.compose(Batch(number, treasury, today), payments)
    total = sum(payment.fen for payment in payments)
    made = Made(batch, number, treasury, len(fit), total, today, hashlib.sha256(raw).hexdigest(), left)
    await tx.execute(
        _INSERT,
        {
            "id": batch,
            "serial": serial,
            "number": number,
            "channel": CHANNEL.name,
            "treasury": treasury,
            "lines": len(fit),
            "total": total,
            "made_on": today,
            "made_by": actor,
            "file": await asyncio.to_thread(vault.seal, raw, sealed_as(batch)),
            "sha256": made.sha256,
        },
    )
    await _mark_sent(tx, batch, fit, actor)
    return made


async def _mark_sent(tx: AsyncConnection, batch: UUID, fit: Sequence[tuple[Any, Payment]], actor: str) -> None:
    await tx.execute(
        _LINES,
        {
            "batch": batch,
            "references": [payment.reference for _, payment in fit],
            "orders": [order.id for order, _ in fit],
            "attempts": [order.attempt for order, _ in fit],
            "fens": [payment.fen for _, payment in fit],
        },
    )
    sent = next_state(PaymentState.DUE, "send")
    steps = [Step(order.id, "send", sent, order.attempt, record=batch) for order, _ in fit]
    events = [
        PayoutSent(policy=policy_of(order), application=order.application, order=order.id, batch=batch)
        for order, _ in fit
    ]
    moved = Write(_SEND, {"ids": [order.id for order, _ in fit]})
    await change(tx, moved, history(steps, actor=actor), events=events)


async def file_of(tx: AsyncConnection, batch: UUID, *, vault: Vault, client: str, actor: str) -> tuple[str, bytes]:
    """Number and file of a batch, as the bank gets it; who took it out is written down."""
    await tx.execute(_ACCESS, {"batch": batch, "client": client, "actor": actor})
    row = (await tx.execute(_FILE, {"id": batch})).one()
    raw = await asyncio.to_thread(vault.open, row.file, sealed_as(batch))
    if hashlib.sha256(raw).hexdigest() != row.sha256:
        raise RuntimeError(f"the file of batch {row.number} is not the one that was made")
    return row.number, raw


def sealed_as(batch: UUID) -> bytes:
    """The context that the file of a batch is sealed with."""
    return b"finance payout_batch " + batch.bytes
