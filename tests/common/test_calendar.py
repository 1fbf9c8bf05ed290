from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import chinese_calendar
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.calendar import (
    CALENDAR,
    FIRST,
    LAST,
    MAX_DAYS,
    Calendar,
    Light,
    Reason,
    Suspension,
    end_of_day,
    light,
    local_date,
)

ONE_DAY = timedelta(days=1)

dates = st.dates(date(2019, 1, 1), date(2029, 12, 31))
terms = st.integers(1, 60)


@st.composite
def a_suspension(draw: st.DrawFn, *, may_be_open: bool = True) -> Suspension:
    start = draw(dates)
    if may_be_open and draw(st.booleans()):
        return Suspension(start, None)
    return Suspension(start, start + draw(st.integers(0, 90)) * ONE_DAY)


@st.composite
def a_term(draw: st.DrawFn, *, may_be_open: bool = True) -> tuple[date, int, list[Suspension]]:
    """An acceptance with suspensions near it, so that they meet the term often."""
    accepted, days = draw(dates), draw(terms)
    suspensions = []
    for _ in range(draw(st.integers(0, 4))):
        start = accepted + draw(st.integers(-20, 80)) * ONE_DAY
        is_open = may_be_open and draw(st.integers(0, 5)) == 0
        suspensions.append(Suspension(start, None if is_open else start + draw(st.integers(0, 40)) * ONE_DAY))
    return accepted, days, suspensions


def counts(day: date, suspensions: list[Suspension]) -> bool:
    """The rule in its plainest form: a working day whose last moment no suspension covers."""
    stopped = any(s.start <= day and (s.end is None or day < s.end) for s in suspensions)
    return CALENDAR.is_working_day(day) and not stopped


def due_by_walking(accepted: date, days: int, suspensions: list[Suspension]) -> date | None:
    day, left = accepted, days
    for _ in range(1_000):
        day += ONE_DAY
        left -= counts(day, suspensions)
        if left == 0:
            return day
    return None


@pytest.mark.parametrize(
    ("accepted", "days", "due"),
    [
        (date(2026, 2, 13), 2, date(2026, 2, 24)),
        (date(2026, 9, 30), 2, date(2026, 10, 9)),
        (date(2026, 3, 2), 1, date(2026, 3, 3)),
        (date(2026, 3, 6), 1, date(2026, 3, 9)),
        (date(2020, 1, 22), 3, date(2020, 2, 4)),
    ],
)
def test_published_holidays_and_make_up_weekends_shift_the_due_date(accepted: date, days: int, due: date) -> None:
    assert CALENDAR.due_on(accepted, days) == due
    assert not CALENDAR.due_date(accepted, days).provisional


def test_the_make_up_weekends_of_2026_are_worked() -> None:
    worked_weekends = [
        date(2026, 1, 1) + n * ONE_DAY
        for n in range(365)
        if CALENDAR.look_up(date(2026, 1, 1) + n * ONE_DAY).reason is Reason.MAKE_UP_DAY
    ]
    assert worked_weekends == [
        date(2026, 1, 4), date(2026, 2, 14), date(2026, 2, 28),
        date(2026, 5, 9), date(2026, 9, 20), date(2026, 10, 10),
    ]  # fmt: skip


@given(st.dates(FIRST, CALENDAR.official_through))
def test_the_official_years_agree_with_the_library(day: date) -> None:
    assert CALENDAR.is_working_day(day) == chinese_calendar.is_workday(day)
    assert not CALENDAR.is_provisional(day)


def test_the_working_shows_each_day_with_its_reason() -> None:
    deadline = CALENDAR.due_date(date(2026, 2, 13), 3, [Suspension(date(2026, 2, 24), date(2026, 2, 26), "专家评审")])
    assert deadline.due == date(2026, 2, 27)
    assert deadline.remaining == 0
    shown = {line.day.day: (line.counted, line.reason, line.note) for line in deadline.working}
    assert shown[13] == (False, Reason.EVENT_DAY, "")
    assert shown[14] == (True, Reason.MAKE_UP_DAY, "")
    assert shown[15] == (False, Reason.HOLIDAY, "")
    assert shown[24] == shown[25] == (False, Reason.SUSPENDED, "专家评审")
    assert shown[26] == shown[27] == (True, Reason.WORKING_DAY, "")
    assert [line.day for line in deadline.working] == [date(2026, 2, d) for d in range(13, 28)]
    assert all(line.reason.label for line in deadline.working)


def test_a_suspension_from_the_day_of_acceptance_leaves_the_whole_term() -> None:
    deadline = CALENDAR.due_date(date(2026, 3, 2), 5, [Suspension(date(2026, 3, 2), None)])
    assert deadline.paused
    assert deadline.remaining == 5
    assert [line.day for line in deadline.working] == [date(2026, 3, 2)]


def test_a_suspension_that_opens_on_the_due_day_takes_that_day_away() -> None:
    assert CALENDAR.due_on(date(2026, 3, 2), 2) == date(2026, 3, 4)
    opened = Suspension(date(2026, 3, 4), None)
    deadline = CALENDAR.due_date(date(2026, 3, 2), 2, [opened])
    assert deadline.paused
    assert deadline.remaining == 1
    assert deadline.working[-1].reason is Reason.SUSPENDED


def test_a_suspension_opened_after_the_due_day_changes_nothing() -> None:
    assert CALENDAR.due_on(date(2026, 3, 2), 2, [Suspension(date(2026, 3, 5), None)]) == date(2026, 3, 4)


def test_a_clock_stopped_and_started_on_one_day_loses_nothing() -> None:
    day = date(2026, 3, 3)
    assert CALENDAR.due_on(date(2026, 3, 2), 2, [Suspension(day, day)]) == date(2026, 3, 4)


@given(a_term())
def test_the_due_date_is_what_walking_day_by_day_finds(term: tuple[date, int, list[Suspension]]) -> None:
    accepted, days, suspensions = term
    assert CALENDAR.due_on(accepted, days, suspensions) == due_by_walking(accepted, days, suspensions)


@given(a_term())
def test_a_due_date_is_a_working_day_with_the_clock_running(
    term: tuple[date, int, list[Suspension]],
) -> None:
    accepted, days, suspensions = term
    due = CALENDAR.due_on(accepted, days, suspensions)
    assert due is None or (due > accepted and counts(due, suspensions))


@given(a_term())
def test_the_working_adds_up(term: tuple[date, int, list[Suspension]]) -> None:
    accepted, days, suspensions = term
    deadline = CALENDAR.due_date(accepted, days, suspensions)
    assert sum(line.counted for line in deadline.working) + deadline.remaining == days
    assert all(later.day - earlier.day == ONE_DAY for earlier, later in pairwise(deadline.working))
    assert deadline.working[0].day == accepted
    assert deadline.paused == (deadline.remaining > 0)
    if deadline.due is not None:
        assert deadline.working[-1].day == deadline.due
        assert deadline.provisional == (deadline.due > CALENDAR.official_through)
    assert all(line.counted == counts(line.day, suspensions) for line in deadline.working[1:])


@given(a_term(), a_suspension())
def test_another_suspension_never_makes_the_due_date_earlier(
    term: tuple[date, int, list[Suspension]], another: Suspension
) -> None:
    accepted, days, suspensions = term
    before = CALENDAR.due_on(accepted, days, suspensions)
    after = CALENDAR.due_on(accepted, days, [*suspensions, another])
    assert after is None or (before is not None and after >= before)


@given(a_term())
def test_the_order_and_repetition_of_suspensions_do_not_matter(
    term: tuple[date, int, list[Suspension]],
) -> None:
    accepted, days, suspensions = term
    assert CALENDAR.due_on(accepted, days, suspensions) == CALENDAR.due_on(
        accepted, days, [*reversed(suspensions), *suspensions]
    )


@given(a_term(), st.integers(-5, 200))
def test_used_and_remaining_make_the_budget(term: tuple[date, int, list[Suspension]], later: int) -> None:
    accepted, days, suspensions = term
    on = accepted + later * ONE_DAY
    used = CALENDAR.working_days_used(accepted, on, suspensions)
    walked = sum(counts(accepted + n * ONE_DAY, suspensions) for n in range(1, later))
    assert used == walked
    assert used + CALENDAR.remaining(accepted, days, on, suspensions) == days


@given(a_term(), st.integers(0, 150), st.integers(0, 10))
def test_the_light_is_red_exactly_after_the_due_date(
    term: tuple[date, int, list[Suspension]], later: int, yellow: int
) -> None:
    accepted, days, suspensions = term
    on = accepted + later * ONE_DAY
    due = CALENDAR.due_on(accepted, days, suspensions)
    used = CALENDAR.working_days_used(accepted, on, suspensions)
    shown = light(budget=days, used=used, yellow=yellow)
    assert (shown is Light.RED) == (due is not None and on > due)
    assert (shown is Light.GREEN) == (days - used > yellow)


def test_the_light_of_a_friday_deadline_is_red_on_the_saturday() -> None:
    accepted, friday = date(2026, 3, 11), date(2026, 3, 13)
    assert CALENDAR.due_on(accepted, 2) == friday
    lights = [
        light(budget=2, used=CALENDAR.working_days_used(accepted, accepted + n * ONE_DAY), yellow=1) for n in range(4)
    ]
    assert lights == [Light.GREEN, Light.GREEN, Light.YELLOW, Light.RED]
    assert [each.label for each in lights[1:]] == ["绿灯", "黄灯", "红灯"]


@given(dates, st.integers(-60, 60))
def test_adding_working_days_goes_there_and_back(day: date, n: int) -> None:
    there = CALENDAR.add_working_days(day, n)
    assert n == 0 or CALENDAR.is_working_day(there)
    if n != 0 and CALENDAR.is_working_day(day):
        assert CALENDAR.add_working_days(there, -n) == day


def test_ten_working_days_before_a_due_date_skip_the_spring_festival() -> None:
    assert CALENDAR.add_working_days(date(2026, 2, 27), -10) == date(2026, 2, 6)


def test_a_date_without_a_notice_is_provisional_and_knows_the_fixed_holidays() -> None:
    deadline = CALENDAR.due_date(date(2026, 12, 30), 2)
    assert deadline.due == date(2027, 1, 4)
    assert deadline.provisional
    assert CALENDAR.look_up(date(2027, 10, 1)).reason is Reason.HOLIDAY
    assert CALENDAR.look_up(date(2027, 10, 9)).reason is Reason.WEEKEND
    assert not CALENDAR.due_date(date(2026, 12, 29), 2).provisional


def a_2027_notice() -> Calendar:
    return CALENDAR.with_notice(
        working=[date(2027, 10, 9)],
        holidays=[date(2027, 10, n) for n in range(1, 8)],
        official_through=date(2027, 12, 31),
    )


def test_a_loaded_notice_makes_its_year_official_and_shifts_deadlines() -> None:
    loaded = a_2027_notice()
    assert CALENDAR.due_date(date(2027, 9, 30), 3).due == date(2027, 10, 6)
    deadline = loaded.due_date(date(2027, 9, 30), 3)
    assert deadline.due == date(2027, 10, 11)
    assert not deadline.provisional
    # What the notice does not name is no holiday any more: it is the notice that decides.
    assert loaded.is_working_day(date(2027, 5, 3))
    assert loaded.look_up(date(2028, 1, 3)).provisional
    assert CALENDAR.look_up(date(2027, 10, 9)).reason is Reason.WEEKEND


def test_an_amendment_after_the_fact_wins_over_the_notice() -> None:
    amended = a_2027_notice().with_notice(working=[], holidays=[date(2027, 10, 9)], official_through=date(2027, 12, 31))
    assert amended.look_up(date(2027, 10, 9)).reason is Reason.HOLIDAY


def test_a_notice_may_neither_skip_a_year_nor_go_back() -> None:
    with pytest.raises(ValueError, match="load the notice of 2027 first"):
        CALENDAR.with_notice(working=[], holidays=[], official_through=date(2028, 12, 31))
    with pytest.raises(ValueError, match="cannot take back"):
        CALENDAR.with_notice(working=[], holidays=[], official_through=date(2025, 12, 31))
    with pytest.raises(ValueError, match="both a working day and a holiday: 2027-01-01"):
        Calendar(frozenset({date(2027, 1, 1)}), frozenset({date(2027, 1, 1)}), date(2027, 12, 31))


@pytest.mark.parametrize("days", [0, -1, MAX_DAYS + 1])
def test_a_term_outside_the_bound_is_refused(days: int) -> None:
    with pytest.raises(ValueError, match="a term is 1 to 2500 working days"):
        CALENDAR.due_on(date(2026, 3, 2), days)
    with pytest.raises(ValueError, match="a term is 1 to 2500 working days"):
        CALENDAR.remaining(date(2026, 3, 2), days, date(2026, 3, 3))


def test_a_suspension_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot end on 2026-03-02, before it starts on 2026-03-03"):
        Suspension(date(2026, 3, 3), date(2026, 3, 2))


def test_dates_outside_the_calendar_are_refused() -> None:
    outside = "outside the calendar"
    with pytest.raises(ValueError, match=outside):
        CALENDAR.due_on(date(2003, 12, 31), 2)
    with pytest.raises(ValueError, match=outside):
        CALENDAR.due_on(LAST, 1)
    with pytest.raises(ValueError, match=outside):
        CALENDAR.add_working_days(FIRST, -1)
    with pytest.raises(ValueError, match=outside):
        CALENDAR.due_date(date(2026, 3, 2), 2, [Suspension(date(2026, 3, 3), date(2100, 1, 1))])
    with pytest.raises(ValueError, match="turn an instant into one with local_date"):
        CALENDAR.is_working_day(datetime(2026, 3, 2, tzinfo=UTC))


def test_a_negative_yellow_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        light(budget=2, used=0, yellow=-1)


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an offset"):
        local_date(datetime(2026, 3, 2))  # noqa: DTZ001  the naive one is the point


@given(dates)
def test_a_day_ends_at_the_next_midnight_in_shanghai(day: date) -> None:
    end = end_of_day(day)
    assert end == datetime(day.year, day.month, day.day, 16, tzinfo=UTC)
    assert local_date(end - timedelta(microseconds=1)) == day
    assert local_date(end) == day + ONE_DAY


def test_an_evening_instant_in_utc_is_the_next_day_in_shanghai() -> None:
    assert local_date(datetime(2026, 3, 1, 16, 0, tzinfo=UTC)) == date(2026, 3, 2)
