"""Double-entry ledger, one book a treasury: the only code that moves money.

The books are auxiliary (辅助账): cash has no opening balance, so its balance is what came in less what went out and may
well be negative; the treasury's own accounts are kept elsewhere. An amount is in fen, a debit positive and a credit
negative, so every transfer sums to zero in every book it touches. What X is owed by Y stands twice: in X's book as
`due_from` Y and in Y's as `due_to` X, entered by the same transfer. A mistake is reversed by a transfer of the opposite
entries, never edited.

A transfer belongs to a period: the month of one treasury (the payer, or the one settled with), fixed in the posting's
transaction. A posting holds its period FOR SHARE, a close takes it FOR UPDATE, so neither overtakes the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

AccountKind = Literal["cash", "expenditure", "due_from", "due_to"]
MAX_CLOSED_MONTHS = 600

_CLOSED = text("""
    SELECT month FROM period WHERE treasury = :treasury AND month >= :since AND closed_at IS NOT NULL
""")
_OPEN = text("""
    INSERT INTO period (treasury, month)
    SELECT :treasury, month FROM unnest(CAST(:months AS text[])) AS r (month) ORDER BY month
    ON CONFLICT DO NOTHING
""")
_HOLD = text("""
    SELECT month, closed_at IS NOT NULL AS closed FROM period
     WHERE treasury = :treasury AND month = ANY(CAST(:months AS text[])) ORDER BY month FOR SHARE
""")
_ACCOUNTS = text("""
    INSERT INTO account (treasury, kind, counterparty)
    SELECT treasury, kind, counterparty
      FROM unnest(CAST(:treasuries AS text[]), CAST(:kinds AS text[]), CAST(:counterparties AS text[]))
           AS r (treasury, kind, counterparty)
     ORDER BY treasury, kind, counterparty
    ON CONFLICT DO NOTHING
""")
_ACCOUNT_IDS = text("""
    SELECT a.id, a.treasury, a.kind, a.counterparty
      FROM account AS a
      JOIN unnest(CAST(:treasuries AS text[]), CAST(:kinds AS text[]), CAST(:counterparties AS text[]))
           AS r (treasury, kind, counterparty) USING (treasury, kind, counterparty)
""")
_TRANSFERS = text("""
    INSERT INTO transfer (id, key, kind, treasury, month, posted_on, order_id, attempt, settlement_id)
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:keys AS text[]), CAST(:kinds AS text[]),
                         CAST(:treasuries AS text[]), CAST(:months AS text[]), CAST(:days AS date[]),
                         CAST(:orders AS uuid[]), CAST(:attempts AS smallint[]), CAST(:settlements AS uuid[]))
""")
_ENTRIES = text("""
    INSERT INTO entry (transfer_id, account_id, fen)
    SELECT * FROM unnest(CAST(:transfers AS uuid[]), CAST(:accounts AS bigint[]), CAST(:fens AS bigint[]))
""")
_LOCK_ACCOUNTS = text("SELECT id FROM account WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE")
_BALANCES = text("""
    UPDATE account AS a SET balance = a.balance + r.fen
      FROM unnest(CAST(:ids AS bigint[]), CAST(:fens AS bigint[])) AS r (id, fen)
     WHERE a.id = r.id
""")


class Unbalanced(Exception):
    """A transfer that does not sum to zero in every book: a mistake in code, stopped before it is written."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account: whose book, what kind, and for dues the treasury owing or owed."""

    treasury: str
    kind: AccountKind
    counterparty: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer ready to post. `key` is its business key; entries are fen by account, debit positive."""

    key: str
    kind: Literal["payout", "payout_reversal", "settlement"]
    treasury: str
    month: str
    posted_on: date
    entries: Mapping[Account, int]
    order: UUID | None = None
    attempt: int | None = None
    settlement: UUID | None = None


def payout_entries(*, payer: str, shares: Mapping[str, int]) -> dict[Account, int]:
    """Entries of a credited payout: `payer` paid the whole public part, each treasury bears its share (fen).

    The payer has expenditure of its own share, a receivable on each other, and the cash out; each other has
    expenditure and a debt to the payer. A share of zero leaves no entry.
    """
    entries: dict[Account, int] = {Account(payer, "cash"): -sum(shares.values())}
    for treasury, fen in shares.items():
        if not fen:
            continue
        entries[Account(treasury, "expenditure")] = fen
        if treasury != payer:
            entries[Account(payer, "due_from", treasury)] = fen
            entries[Account(treasury, "due_to", payer)] = -fen
    return entries


def leg_entries(*, debtor: str, creditor: str, treasury: str, owed: Mapping[str, int]) -> dict[Account, int]:
    """Entries of one leg of the settlement of what others owe `treasury`: `owed`, fen by debtor, all of which goes this
    way; a negative amount goes the other way.

    On the last leg the creditor is the treasury and books the cash against its receivables. Before that the creditor,
    the city or a clearing treasury, holds the money for it: it owes it now.
    """
    fen = sum(owed.values())
    entries = {Account(debtor, "due_to", treasury): fen, Account(debtor, "cash"): -fen, Account(creditor, "cash"): fen}
    if creditor == treasury:
        entries |= {Account(creditor, "due_from", each): -part for each, part in owed.items()}
    else:
        entries[Account(creditor, "due_to", treasury)] = -fen
    return {account: amount for account, amount in entries.items() if amount}


def reversed_entries(entries: Mapping[Account, int]) -> dict[Account, int]:
    """The opposite entries."""
    return {account: -fen for account, fen in entries.items()}


def check_balanced(transfer: Transfer) -> None:
    """Raises Unbalanced where there is no entry, one of zero, or a book that does not sum to zero."""
    books: dict[str, int] = defaultdict(int)
    for account, fen in transfer.entries.items():
        books[account.treasury] += fen
    if not books or any(books.values()) or not all(transfer.entries.values()):
        raise Unbalanced(f"{transfer.key}: {dict(books)}")


def month_of(day: date) -> str:
    """`YYYY-MM`."""
    return f"{day:%Y-%m}"


def next_month(month: str) -> str:
    """The month after, `YYYY-MM`."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


async def hold_periods(tx: AsyncConnection, treasury: str, months: Iterable[str]) -> dict[str, str]:
    """For each month wanted the first open one from it on, held open until this transaction ends."""
    wanted = sorted(set(months))
    if not wanted:
        return {}
    closed = set((await tx.execute(_CLOSED, {"treasury": treasury, "since": wanted[0]})).scalars())
    for _ in range(MAX_CLOSED_MONTHS):
        chosen = {month: _first_open(month, closed) for month in wanted}
        months_held = sorted(set(chosen.values()))
        await tx.execute(_OPEN, {"treasury": treasury, "months": months_held})
        held = (await tx.execute(_HOLD, {"treasury": treasury, "months": months_held})).all()
        now_closed = {row.month for row in held if row.closed}
        if not now_closed:
            return chosen
        closed |= now_closed  # closed while this transaction waited for it
    raise RuntimeError(f"{treasury} has no open month from {wanted[0]} on")


def _first_open(month: str, closed: set[str]) -> str:
    while month in closed:
        month = next_month(month)
    return month


async def post(tx: AsyncConnection, transfers: Sequence[Transfer]) -> None:
    """Post transfers whose periods are held. The last thing a transaction does: balances are its hottest rows.

    Raises Unbalanced, and IntegrityError for a business key that was posted before.
    """
    if not transfers:
        return
    for transfer in transfers:
        check_balanced(transfer)
    ids = await _account_ids(tx, {account for transfer in transfers for account in transfer.entries})
    numbered = [(uuid7(), transfer) for transfer in transfers]
    await tx.execute(
        _TRANSFERS,
        {
            "ids": [key for key, _ in numbered],
            "keys": [t.key for t in transfers],
            "kinds": [t.kind for t in transfers],
            "treasuries": [t.treasury for t in transfers],
            "months": [t.month for t in transfers],
            "days": [t.posted_on for t in transfers],
            "orders": [t.order for t in transfers],
            "attempts": [t.attempt for t in transfers],
            "settlements": [t.settlement for t in transfers],
        },
    )
    rows = [(key, ids[account], fen) for key, transfer in numbered for account, fen in transfer.entries.items()]
    await tx.execute(
        _ENTRIES,
        {"transfers": [r[0] for r in rows], "accounts": [r[1] for r in rows], "fens": [r[2] for r in rows]},
    )
    net: dict[int, int] = defaultdict(int)
    for _, account_id, fen in rows:
        net[account_id] += fen
    changed = sorted(key for key, fen in net.items() if fen)
    # An UPDATE over a join locks in no order of its own.
    await tx.execute(_LOCK_ACCOUNTS, {"ids": changed})
    await tx.execute(_BALANCES, {"ids": changed, "fens": [net[key] for key in changed]})


async def _account_ids(tx: AsyncConnection, accounts: set[Account]) -> dict[Account, int]:
    ordered = sorted(accounts, key=lambda a: (a.treasury, a.kind, a.counterparty))
    columns: dict[str, list[str]] = {
        "treasuries": [a.treasury for a in ordered],
        "kinds": [str(a.kind) for a in ordered],
        "counterparties": [a.counterparty for a in ordered],
    }
    found = await _found_accounts(tx, columns)
    if len(found) < len(ordered):
        await tx.execute(_ACCOUNTS, columns)
        found = await _found_accounts(tx, columns)
    return found


async def _found_accounts(tx: AsyncConnection, columns: Mapping[str, list[str]]) -> dict[Account, int]:
    rows = await tx.execute(_ACCOUNT_IDS, columns)
    return {Account(row.treasury, row.kind, row.counterparty): row.id for row in rows}
