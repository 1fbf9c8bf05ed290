"""What a statement of an employer's affiliations says of which days, and what the record keeps beside it. Pure."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple


class Tie(NamedTuple):
    """One affiliation of an employer as stated: kind, treasury, evidence, first and last day (None: not stated)."""

    kind: str
    treasury: str
    evidence: str
    valid_from: date | None
    valid_to: date | None


def carried(stated: Sequence[Tie], on_record: Sequence[Tie], on: date) -> list[Tie]:
    """Where an employer belongs once what was stated on a day counts, by ties that all have a first day.

    A tie that continues one on record (of that kind, to that treasury) begins with it. Another one that was stated
    without a first day says nothing of the past: it begins on the day itself; where nothing is on record, it holds
    since ever. What the record says of days before all that is stated stays.
    """
    if not stated or not on_record:
        return [tie._replace(valid_from=_first(tie)) for tie in stated]
    ties = [tie._replace(valid_from=_beginning(tie, on_record, on)) for tie in stated]
    return [*_earlier(min(tie.valid_from or on for tie in stated), on_record, ties), *dict.fromkeys(ties)]


def _beginning(tie: Tie, on_record: Sequence[Tie], on: date) -> date:
    first = tie.valid_from or on
    continued = [
        _first(known)
        for known in on_record
        if (known.kind, known.treasury) == (tie.kind, tie.treasury) and _first(known) <= first <= _day_after(known)
    ]
    return min(continued, default=first)


def _day_after(tie: Tie) -> date:
    return tie.valid_to + timedelta(days=1) if tie.valid_to and tie.valid_to < date.max else date.max


def _earlier(start: date, on_record: Sequence[Tie], ties: Sequence[Tie]) -> list[Tie]:
    """What the record says of days before `start`, without what the ties begin with."""
    begun = {(tie.kind, tie.treasury): _first(tie) for tie in ties}
    kept = [
        known
        for known in on_record
        if _first(known) < start and _first(known) < begun.get((known.kind, known.treasury), date.max)
    ]
    return [known._replace(valid_to=min(known.valid_to or date.max, start - timedelta(days=1))) for known in kept]


def _first(tie: Tie) -> date:
    return tie.valid_from or date.min
