"""The sandbox bank: reads a batch file as a bank would and answers with a result file (docs/bank-file.md).

It is somebody else's program and knows of us only what the file format says. Its answer is a function of the file, the
configuration and the round: what becomes of a payment is decided by the seed and its reference alone. In the first
round some payments stay without an answer, come twice, or with a wrong amount, beside lines that are nobody's; the
final round answers for good what the first left open.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum

ENCODING = "gb18030"
WHOLE = 1000
REASONS = ("R01", "R02", "R03", "R04")
"""户名不符, 账号不存在, 账户已销户, 账户受限."""


@dataclass(frozen=True, slots=True)
class BankConfig:
    """How often something happens, in thousandths of payments. What is left is credited at once."""

    seed: str = "huanquan"
    bounced: int = 30
    pending: int = 10
    missing: int = 10
    wrong_amount: int = 10
    doubled: int = 20
    foreign: int = 10

    def __post_init__(self) -> None:
        shares = (self.bounced, self.pending, self.missing, self.wrong_amount)
        if min(*shares, self.doubled, self.foreign) < 0 or sum(shares) > WHOLE:
            raise ValueError("shares are thousandths, and no more than a thousand together")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One payment of a batch file."""

    reference: str
    fen: int


@dataclass(frozen=True, slots=True)
class BatchFile:
    """What a bank needs of a batch file."""

    number: str
    treasury: str
    instructions: tuple[Instruction, ...]


class Fate(Enum):
    """What becomes of a payment in the first round."""

    CREDITED = "credited"
    BOUNCED = "bounced"
    PENDING = "pending"
    MISSING = "missing"
    WRONG_AMOUNT = "wrong_amount"


def answer(batch_file: bytes, config: BankConfig, *, on: date, final_round: bool = False) -> bytes:
    """The result file for a batch. `on` is the day of credits and bounces.

    The first round answers for the whole batch; the final round holds only what the first left open, credited or
    bounced. Raises ValueError for a file that is not whole.
    """
    batch = read(batch_file)
    lines = list(_late(batch, config, on) if final_round else _first(batch, config, on))
    rows = [row for row in lines if row[0] == "R"]
    count, credited = str(len(rows)), str(sum(int(row[2]) for row in rows if row[3] == "C"))
    number = f"SBX{batch.number}-{2 if final_round else 1}"
    head = ("H", "HQRES1", number, batch.treasury, f"{on:%Y%m%d}", count, credited)
    every = [head, ("B", batch.number), *lines, ("T", count, credited)]
    return "".join("|".join(row) + "\n" for row in every).encode(ENCODING)


def read(batch_file: bytes) -> BatchFile:
    """The payments of a batch file. Raises ValueError where it is cut off or its sums disagree."""
    rows = [line.split("|") for line in batch_file.decode(ENCODING).removesuffix("\n").split("\n")]
    if len(rows) < 2 or len(rows[0]) != 7 or rows[0][:2] != ["H", "HQPAY1"]:
        raise ValueError("this is no HQPAY1 file")
    _, _, number, treasury, _, count, total = rows[0]
    if rows[-1] != ["T", count, total]:
        raise ValueError("the tail is missing or says otherwise than the head")
    if any(len(row) != 7 or row[0] != "D" for row in rows[1:-1]):
        raise ValueError("a payment is not in the form of the format")
    instructions = tuple(Instruction(row[1], int(row[5])) for row in rows[1:-1])
    if len(instructions) != int(count) or sum(one.fen for one in instructions) != int(total):
        raise ValueError("count or total disagrees with the payments")
    return BatchFile(number, treasury, instructions)


def fate(config: BankConfig, reference: str) -> Fate:
    """What becomes of a payment in the first round."""
    drawn = _draw(config, "fate", reference)
    for share, outcome in (
        (config.bounced, Fate.BOUNCED),
        (config.pending, Fate.PENDING),
        (config.missing, Fate.MISSING),
        (config.wrong_amount, Fate.WRONG_AMOUNT),
    ):
        if drawn < share:
            return outcome
        drawn -= share
    return Fate.CREDITED


def _first(batch: BatchFile, config: BankConfig, on: date) -> Iterator[Sequence[str]]:
    for one in batch.instructions:
        outcome = fate(config, one.reference)
        if outcome is Fate.MISSING:
            continue
        if outcome is Fate.PENDING:
            yield ("R", one.reference, str(one.fen), "P", "", "")
            continue
        wrong = outcome is Fate.WRONG_AMOUNT
        line = _told(one, config, on, bounced=outcome is Fate.BOUNCED, fen=one.fen + wrong)
        yield line
        if not wrong and _draw(config, "doubled", one.reference) < config.doubled:
            yield line
        if _draw(config, "foreign", one.reference) < config.foreign:
            stranger = hashlib.sha256(f"{config.seed} stranger {one.reference}".encode()).hexdigest()[:34]
            yield ("R", stranger, str(one.fen), "C", f"{on:%Y%m%d}", "")


def _late(batch: BatchFile, config: BankConfig, on: date) -> Iterator[Sequence[str]]:
    for one in batch.instructions:
        outcome = fate(config, one.reference)
        if outcome in {Fate.PENDING, Fate.MISSING, Fate.WRONG_AMOUNT}:
            bounced = outcome is not Fate.WRONG_AMOUNT and _draw(config, "late", one.reference) < config.bounced
            yield _told(one, config, on, bounced=bounced, fen=one.fen)


def _told(one: Instruction, config: BankConfig, on: date, *, bounced: bool, fen: int) -> Sequence[str]:
    reason = REASONS[_draw(config, "reason", one.reference) % len(REASONS)] if bounced else ""
    return ("R", one.reference, str(fen), "B" if bounced else "C", f"{on:%Y%m%d}", reason)


def _draw(config: BankConfig, about: str, reference: str) -> int:
    """0 to 999, the same for the same seed and reference."""
    digest = hashlib.sha256(f"{config.seed} {about} {reference}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % WHOLE
