"""What a statement of an employer's affiliations changes of what is on record, against a day-by-day reckoning."""

from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.intake.affiliations import MOST, Tie, recorded

TODAY = date(2026, 3, 2)
A, B, C = "410502", "410522", "410523"
DAYS = st.dates(TODAY - timedelta(days=12), TODAY + timedelta(days=12))


@st.composite
def ties(draw: st.DrawFn) -> Tie:
    first, last = draw(st.none() | DAYS), draw(st.none() | DAYS)
    if first and last and last < first:
        first, last = last, first
    return Tie(draw(st.sampled_from(["fiscal", "tax"])), draw(st.sampled_from([A, B])), "x", first, last)


STATEMENTS = st.lists(ties(), max_size=4)
WINDOWS = st.sampled_from([None, A, B])
NEAR = [TODAY + timedelta(days=days) for days in range(-20, 21)]


def held(statement: Sequence[Tie], day: date) -> set[tuple[str, str]]:
    return {(tie.kind, tie.treasury) for tie in statement if tie.covers(day)}


@given(STATEMENTS, STATEMENTS)
def test_from_the_day_of_acceptance_on_the_statement_counts_as_it_was_made(
    stated: list[Tie], before: list[Tie]
) -> None:
    after = recorded(stated, recorded(before, [], TODAY), TODAY)
    for day in NEAR:
        if stated and day >= TODAY:
            assert held(after, day) == held(stated, day), day


@given(STATEMENTS, STATEMENTS)
def test_before_the_record_begins_and_after_it_has_ended_the_statement_counts(
    stated: list[Tie], before: list[Tie]
) -> None:
    known = recorded(before, [], TODAY)
    after = recorded(stated, known, TODAY)
    for day in NEAR:
        outside = not known or day < known[0].first or day > max(tie.last for tie in known)
        if stated and outside:
            assert held(after, day) == held(stated, day), day


@given(STATEMENTS, STATEMENTS, WINDOWS)
def test_at_a_window_a_day_of_the_past_is_given_to_that_treasury_alone_or_stays(
    stated: list[Tie], before: list[Tie], window: str | None
) -> None:
    known = recorded(before, [], TODAY)
    begins = min((tie.first for tie in known), default=date.max)
    ends = max((tie.last for tie in known), default=date.min)
    after = recorded(stated, known, TODAY, window=window)
    for day in NEAR:
        if day < TODAY and begins <= day <= ends and held(after, day) != held(known, day):
            assert {treasury for _, treasury in held(after, day)} == {window}, day
            assert held(after, day) == held(stated, day), day


@given(STATEMENTS, STATEMENTS)
def test_no_statement_changes_the_past_but_at_a_window(stated: list[Tie], before: list[Tie]) -> None:
    known = recorded(before, [], TODAY)
    after = recorded(stated, known, TODAY)
    for day in NEAR:
        if day < TODAY and held(known, day):
            assert held(after, day) == held(known, day), day


@given(STATEMENTS, STATEMENTS, WINDOWS, st.integers(0, 9))
def test_the_same_statement_again_days_later_changes_nothing(
    stated: list[Tie], before: list[Tie], window: str | None, days: int
) -> None:
    later = TODAY + timedelta(days=days)
    assume(held(stated, TODAY) and held(stated, later))  # of another one the filing is not accepted
    once = recorded(stated, recorded(before, [], TODAY), TODAY, window=window)
    assert recorded(stated, once, later, window=window) == once


@given(st.lists(STATEMENTS, min_size=1, max_size=8), WINDOWS)
def test_what_is_on_record_is_in_order_and_no_two_ties_of_one_kind_to_one_treasury_touch(
    statements: list[list[Tie]], window: str | None
) -> None:
    known: list[Tie] = []
    for later, stated in enumerate(statements):
        known = recorded(stated, known, TODAY + timedelta(days=later), window=window)
        assert [tie.first for tie in known] == sorted(tie.first for tie in known)
        for one in known:
            assert one.valid_from is not None
            assert one.first <= one.last
            others = [each for each in known if each is not one and each[:2] == one[:2]]
            assert not any(each.first <= one.last and one.first <= each.last for each in others)


def test_filings_of_many_days_that_say_the_same_leave_one_tie() -> None:
    known: list[Tie] = []
    for days in range(400):
        on = TODAY + timedelta(days=days)
        known = recorded([Tie("fiscal", A, f"证明 {days}", on, None)], known, on)
    assert known == [Tie("fiscal", A, "证明 399", TODAY, None)]


def test_however_many_gaps_are_stated_the_record_stays_small() -> None:
    known = [Tie("fiscal", A, "x", date(2021, 3, 23), None)]
    for year in range(2020, 1920, -1):
        known = recorded(
            [Tie("fiscal", B, "x", date(year, month, 1), date(year, month, 1)) for month in range(1, 11)], known, TODAY
        )
    assert len(known) < MOST + 10


def to(treasury: str, first: str | None = None, last: str | None = None) -> Tie:
    return Tie("fiscal", treasury, "证明", *(date.fromisoformat(day) if day else None for day in (first, last)))


EVER = to(B, "0001-01-01", "2021-03-22")
MOVED = [to(A, "2021-03-23", "2025-12-31"), to(B, "2026-01-01")]


@pytest.mark.parametrize(
    ("stated", "window", "after"),
    [
        ([to(B)], None, [EVER, *MOVED]),  # the present alone; before the first move nothing was on record
        ([to(B, "2026-02-01")], None, MOVED),
        ([to(B, "2021-03-23")], None, MOVED),  # another past, by the way
        ([to(B, "2015-06-01")], None, [to(B, "2015-06-01", "2021-03-22"), *MOVED]),  # nothing was on record of it
        ([to(B, "2021-03-23")], A, MOVED),  # at a window to whose burden it is not
        ([to(B, "2021-03-23")], B, [to(B, "2021-03-23")]),
        ([to(B)], B, [EVER, *MOVED]),  # names no day of the past that it would restate
        ([to(C, "2026-03-02")], C, [MOVED[0], to(B, "2026-01-01", "2026-03-01"), to(C, "2026-03-02")]),
        ([to(A, None, "2026-01-31"), to(B, "2026-02-01")], None, [to(A, "0001-01-01", "2025-12-31"), MOVED[1]]),
        ([], B, MOVED),
        ([to(A), to(B, "2021-03-23")._replace(kind="tax")], B, None),  # who pays is not the window's treasury
    ],
)
def test_what_comes_of_a_move(stated: list[Tie], window: str | None, after: list[Tie] | None) -> None:
    found = recorded(stated, MOVED, TODAY, window=window)
    if after is None:
        day = date(2025, 6, 1)
        assert held(found, day) == held(MOVED, day)
    else:
        assert found == after


def test_at_its_window_a_treasury_takes_on_a_past_that_is_on_record_as_of_ever() -> None:
    of_ever = recorded([to(B)], [], TODAY)
    after = recorded([to(A, "2021-03-23", "2025-12-31"), to(B, "2026-01-01")], of_ever, TODAY, window=A)
    assert after == [EVER, to(A, "2021-03-23", "2025-12-31"), to(B, "2026-01-01")]
