"""What a statement of an employer's affiliations changes of what is on record, day by day. Pure.

The past is not restated by the way: from the day of acceptance on a statement counts as it was made, before that the
record does, and the statement before the record begins and after it has ended. A clerk at the window of a treasury, who
has seen the papers, may give days of an employer's past to that treasury, where all that is stated of them does.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple


class Tie(NamedTuple):
    """One affiliation of an employer: kind, treasury, evidence, first and last day (None: open, or not stated)."""

    kind: str
    treasury: str
    evidence: str
    valid_from: date | None
    valid_to: date | None

    @property
    def first(self) -> date:
        """The first day on which it holds."""
        return self.valid_from or date.min

    @property
    def last(self) -> date:
        """The last day on which it holds."""
        return self.valid_to or date.max

    def covers(self, day: date) -> bool:
        """Whether it holds on a day."""
        return self.first <= day <= self.last


MOST = 50  # ties on record; beyond that nothing is added to the past but at a window


def recorded(stated: Sequence[Tie], on_record: Sequence[Tie], on: date, *, window: str | None = None) -> list[Tie]:
    """What is on record once a statement accepted on a day counts, in order of first days; of one kind to one treasury
    no two ties touch. `window` is the treasury at whose window it was made. Without a statement nothing changes."""
    if not stated:
        return list(on_record)
    stretches = _stretches(sorted({on, *_edges(stated), *_edges(on_record)}))
    held = [
        tie._replace(valid_from=first, valid_to=last)
        for first, last in stretches
        for tie in _on_a_day(first, stated, on_record, on, window)
    ]
    return _joined(held)


def _on_a_day(
    day: date, stated: Sequence[Tie], on_record: Sequence[Tie], on: date, window: str | None
) -> Sequence[Tie]:
    says = [tie for tie in stated if tie.covers(day)]
    if day >= on:
        return says
    given_to_window = all(tie.valid_from is not None and tie.treasury == window for tie in says)
    if says and (given_to_window or _is_open(day, on_record)):
        return says
    return [tie for tie in on_record if tie.covers(day)]


def _is_open(day: date, on_record: Sequence[Tie]) -> bool:
    """Whether a day lies before the record begins, or after it has ended: a gap within it was stated, and stays."""
    if not on_record:
        return True
    outside = day < min(tie.first for tie in on_record) or day > max(tie.last for tie in on_record)
    return outside and len(on_record) < MOST


def _edges(ties: Iterable[Tie]) -> Iterable[date]:
    """The days on which something begins to be otherwise."""
    for tie in ties:
        yield tie.first
        if tie.last < date.max:
            yield tie.last + timedelta(days=1)


def _stretches(edges: Sequence[date]) -> list[tuple[date, date | None]]:
    ends = [later - timedelta(days=1) for later in edges[1:]]
    return list(zip(edges, [*ends, None], strict=True))


def _joined(ties: Iterable[Tie]) -> list[Tie]:
    """Ties of one kind to one treasury that touch are one, with the evidence of the last."""
    joined: dict[tuple[str, str], list[Tie]] = {}
    for tie in ties:  # in order of their first days
        mine = joined.setdefault((tie.kind, tie.treasury), [])
        touches = bool(mine) and (mine[-1].last == date.max or tie.first <= mine[-1].last + timedelta(days=1))
        mine.append(tie._replace(valid_from=mine.pop().valid_from) if touches else tie)
    return sorted(
        (tie for each in joined.values() for tie in each), key=lambda tie: (tie.first, tie.kind, tie.treasury)
    )
