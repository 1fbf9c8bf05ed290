"""The bank of the drill: the sandbox bank with moods, and books of its own to hold the platform's against."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

from deploy.sample.bank import ENCODING, BankConfig, answer, read
from libs.common.calendar import local_date

LATE_SECONDS = 8.0
CONFIG = BankConfig(bounced=30, pending=20, missing=20, wrong_amount=20, doubled=20, foreign=10)
NOTHING_SAID = BankConfig(bounced=30, pending=0, missing=970, wrong_amount=0, doubled=0, foreign=0)


class Mood(StrEnum):
    """How the bank answers: at once, twice, after LATE_SECONDS, or of almost no payment before somebody enquires."""

    PROMPT = "prompt"
    TWICE = "twice"
    LATE = "late"
    NEVER = "never"


@dataclass
class Batch:
    """A batch that the bank was given; it is answered from `ready` on, first for all, then for what that left open."""

    number: str
    treasury: str
    file: bytes
    on: date
    ready: float
    copies: int
    config: BankConfig
    answered: bool = False
    finished: bool = False

    @property
    def answer(self) -> bytes:
        """The result file that is due."""
        return answer(self.file, self.config, on=self.on, final_round=self.answered)

    def delivered(self) -> None:
        """The result file that was due has arrived."""
        self.finished = self.answered
        self.answered = True


class Bank:
    """Takes batch files and answers them. `received` and `credited` count each payment's reference, `sums` are what was
    to be paid, in fen; `violations` are batches that came again with other contents."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.credited: Counter[str] = Counter()
        self.sums: dict[str, int] = {}
        self.violations: list[str] = []
        self._mood = Mood.PROMPT
        self._batches: dict[str, Batch] = {}

    @contextmanager
    def in_mood(self, mood: Mood) -> Iterator[None]:
        """Treat so what comes while this lasts."""
        self._mood = mood
        try:
            yield
        finally:
            self._mood = Mood.PROMPT

    def give(self, file: bytes) -> None:
        """Pay a batch. The same number once more is known, and not paid again."""
        told = read(file)
        if known := self._batches.get(told.number):
            if known.file != file:
                self.violations.append(f"batch {told.number} came to the bank again with other contents")
            return
        config = NOTHING_SAID if self._mood is Mood.NEVER else CONFIG
        on, ready = local_date(datetime.now(UTC)), time.monotonic() + LATE_SECONDS * (self._mood is Mood.LATE)
        copies = 2 if self._mood is Mood.TWICE else 1
        self._batches[told.number] = Batch(told.number, told.treasury, file, on, ready, copies, config)
        self.received.update(one.reference for one in told.instructions)
        self.sums |= {one.reference: one.fen for one in told.instructions}
        sums = {(one.reference, str(one.fen)) for one in told.instructions}
        for final in (False, True):
            lines = answer(file, config, on=on, final_round=final).decode(ENCODING).splitlines()
            told_of = {tuple(line.split("|")[1:4]) for line in lines if line.startswith("R|")}
            # A line with another amount is a slip of the pen: what was credited is told in the final round.
            self.credited.update(ref for ref, fen, said in told_of if said == "C" and (ref, fen) in sums)

    def due(self, treasury: str, *, enquired: bool) -> list[Batch]:
        """Batches of a treasury with an answer on its way; `enquired` about what the first answer left open."""
        now = time.monotonic()
        ours = (each for each in self._batches.values() if each.treasury == treasury and not each.finished)
        return [each for each in ours if now >= each.ready and (enquired or not each.answered)]
