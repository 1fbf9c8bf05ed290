"""The batch file: text in GB 18030 with `|` between fields, as docs/bank-file.md describes it. Reads strictly."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from libs.common.identity import mask_number
from libs.common.money import MAX_FEN
from services.finance.bank.channel import Batch, Payment, ResultFile, ResultFileRefused, ResultLine
from services.finance.domain import BounceReason, Claim, Outcome

ENCODING = "gb18030"
MAX_LINES = 100_000
_FORMS = {"H": 7, "B": 2, "R": 6}
_OUTCOMES = {"C": Outcome.CREDITED, "B": Outcome.BOUNCED, "P": Outcome.PENDING}
_FEN = re.compile(r"[1-9][0-9]{0,15}")
_COUNT = re.compile(r"0|[1-9][0-9]{0,15}")
_TREASURY = re.compile(r"[1-9][0-9]{5}")
_WORD = re.compile(r"[0-9A-Za-z._-]{1,64}")
_NOT_CARRIED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DIGITS = re.compile(r"[0-9]{1,40}")
MOST_SHOWN = 5
"""Digits that the bank's word for a reason may have and be shown whole: a code has no more."""
REASONS: Mapping[str, BounceReason] = {
    "R01": BounceReason.NAME_DIFFERS,
    "R02": BounceReason.ACCOUNT_UNKNOWN,
    "R03": BounceReason.ACCOUNT_CLOSED,
    "R04": BounceReason.ACCOUNT_RESTRICTED,
}
"""The format's codes of reasons; whatever else a bank writes is another reason."""


class BatchFileChannel:
    """Batch file out, result file in."""

    name = "batch_file"

    def unfit(self, payment: Payment) -> str | None:
        """Why the file cannot carry a payment, in Chinese, or None."""
        if not _DIGITS.fullmatch(payment.account_number):
            return "账号应为 1 至 40 位数字"
        if not _DIGITS.fullmatch(payment.branch_number):
            return "开户行行号应为数字"
        if not payment.holder.strip() or len(payment.holder) > 120 or not _carried(payment.holder):
            return "户名为空、过长或含有分隔符、控制字符"
        return None

    def compose(self, batch: Batch, payments: Sequence[Payment]) -> bytes:
        """The file. Raises ValueError for an unfit payment."""
        for payment in payments:
            why = self.unfit(payment)
            if why or not _carried(payment.purpose):
                raise ValueError(f"{payment.reference}: {why or 'purpose'}")
        count, total = str(len(payments)), str(sum(payment.fen for payment in payments))
        lines = [("H", "HQPAY1", batch.number, batch.treasury, f"{batch.made_on:%Y%m%d}", count, total)]
        lines += [
            ("D", p.reference, p.account_number, p.holder, p.branch_number, str(p.fen), p.purpose) for p in payments
        ]
        lines.append(("T", count, total))  # type: ignore[arg-type]
        return "".join("|".join(line) + "\n" for line in lines).encode(ENCODING)

    def read(self, raw: bytes) -> ResultFile:
        """The bank's answer. Raises ResultFileRefused where the file is no whole file."""
        rows = _rows(raw)
        number, treasury, count, total = _head(rows[0])
        if rows[-1] != ["T", count, total]:
            raise ResultFileRefused(why="最后一行不是文件尾，或其笔数、金额与文件头不一致")
        body = list(enumerate(rows[1:-1], start=2))
        finals = {row[1]: at for at, row in body if _is_final(row)}
        lines = tuple(_line(at, row) for at, row in body if not _is_final(row))
        if int(count) != len(lines):
            raise ResultFileRefused(why=f"文件头为 {count} 笔，实有 {len(lines)} 笔")
        credited = sum(x.claim.fen for x in lines if x.claim and x.claim.outcome is Outcome.CREDITED)
        # A line that cannot be read may hold what is missing from the sum, and never less than nothing.
        if credited > int(total) or (credited < int(total) and all(line.claim for line in lines)):
            raise ResultFileRefused(why="文件头的入账总额与各行之和不一致")
        return ResultFile(number, treasury, finals, lines)


def _carried(text: str) -> bool:
    # By category and not `isprintable`, which does not know the newest Han characters. A surrogate has no form there.
    return "|" not in text and not any(unicodedata.category(char) in _NOT_CARRIED for char in text)


def _rows(raw: bytes) -> list[list[str]]:
    try:
        text = raw.decode(ENCODING)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ResultFileRefused(why=f"第 {line} 行的编码不是 GB 18030") from None
    rows = [line.rstrip("\r").split("|") for line in text.removesuffix("\n").split("\n")]
    if len(rows) < 2:
        raise ResultFileRefused(why="文件不完整，没有文件尾")
    if len(rows) > MAX_LINES:
        raise ResultFileRefused(why=f"文件超过 {MAX_LINES} 行")
    return rows


def _head(row: Sequence[str]) -> tuple[str, str, str, str]:
    if len(row) != _FORMS["H"] or row[:2] != ["H", "HQRES1"]:
        raise ResultFileRefused(why="第 1 行不是 HQRES1 格式的文件头（之前不能有字节顺序标记或空行）")
    _, _, number, treasury, made_on, count, total = row
    sound = _WORD.fullmatch(number) and _TREASURY.fullmatch(treasury) and _day(made_on)
    if not sound or not _COUNT.fullmatch(count) or not _COUNT.fullmatch(total):
        raise ResultFileRefused(why="第 1 行（文件头）的字段不符合格式")
    return number, treasury, count, total


def _is_final(row: Sequence[str]) -> bool:
    return row[0] == "B" and len(row) == _FORMS["B"] and _WORD.fullmatch(row[1]) is not None


def _line(at: int, row: Sequence[str]) -> ResultLine:
    if len(row) != _FORMS["R"] or row[0] != "R" or not _WORD.fullmatch(row[1]):
        return ResultLine(at, "", None)
    _, reference, fen, outcome, on, reason = row
    day = _day(on)
    sound = (
        _FEN.fullmatch(fen)
        and int(fen) <= MAX_FEN
        and outcome in _OUTCOMES
        and (day is not None or (outcome == "P" and not on))
        and (bool(_WORD.fullmatch(reason)) if outcome == "B" else not reason)
    )
    if not sound:
        return ResultLine(at, reference, None)
    claim = Claim(int(fen), _OUTCOMES[outcome], day)
    if claim.outcome is Outcome.BOUNCED:
        claim = replace(claim, reason=REASONS.get(reason, BounceReason.OTHER), said=_masked(reason))
    return ResultLine(at, reference, claim)


def _masked(reason: str) -> str:
    return reason if sum(char.isdigit() for char in reason) <= MOST_SHOWN else mask_number(reason)


def _day(text: str) -> date | None:
    if not re.fullmatch(r"[0-9]{8}", text):
        return None
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a day, no instant
    except ValueError:
        return None
