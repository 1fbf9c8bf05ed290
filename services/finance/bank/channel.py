"""What every payment channel does: write payments for the bank, and read what the bank says became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from libs.common.errors import DomainError
from services.finance.domain import Claim


class ResultFileRefused(DomainError):
    """422: a result file as a whole cannot be believed: cut off, of another format, or of another treasury."""

    status, code, title = 422, "result-file-refused", "回盘文件无法导入"
    semantic = True
    detail = "未导入任何内容：{why}。请向银行重新取得完整的回盘文件。"


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment: the reference that the bank repeats in its answer, the payee's account as the bank knows it, fen."""

    reference: str
    account_number: str
    holder: str
    branch_number: str
    fen: int
    purpose: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What stands at the head of a batch."""

    number: str
    treasury: str
    made_on: date


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One line of a result file; `line` counts from 1 in the file. No claim: the line cannot be read."""

    line: int
    reference: str
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A result file: the bank's own number, the treasury it is for, the batches it answers for good, its lines.

    `finals` maps the number of such a batch to the line that says so.
    """

    number: str
    treasury: str
    finals: Mapping[str, int]
    lines: tuple[ResultLine, ...]


class PayoutChannel(Protocol):
    """A way to the bank. Pure: bytes and values only."""

    @property
    def name(self) -> str:
        """What is stored with each batch."""

    def unfit(self, payment: Payment) -> str | None:
        """Why the channel cannot carry a payment, in Chinese, or None."""

    def compose(self, batch: Batch, payments: Sequence[Payment]) -> bytes:
        """The batch as the bank gets it. Raises ValueError for a payment that is unfit."""

    def read(self, raw: bytes) -> ResultFile:
        """The bank's answer. A line that cannot be read has no claim. Raises ResultFileRefused for the whole."""
