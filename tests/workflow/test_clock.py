"""The clock of a task: a budget in working days, and nothing lost or won by a suspension."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.common.calendar import CALENDAR, Light, Suspension, end_of_day
from services.workflow.clock import Clock

days = st.dates(date(2021, 3, 23), date(2026, 6, 30))
budgets = st.integers(1, 60)


@st.composite
def ledgers(draw: st.DrawFn, start: date) -> tuple[Suspension, ...]:
    """Stretches one after the other, as the ledger takes them in."""
    at, found = start, []
    for _ in range(draw(st.integers(0, 4))):
        begin = at + timedelta(draw(st.integers(0, 15)))
        at = begin + timedelta(draw(st.integers(0, 15)))
        found.append(Suspension(begin, at))
    return tuple(found)


clocks = days.flatmap(lambda start: st.builds(Clock, st.just(start), budgets, ledgers(start)))


def _ran(clock: Clock, day: date) -> bool:
    """Whether the clock was running at the last moment of a day."""
    return not any(s.start <= day and (s.end is None or day < s.end) for s in clock.suspensions)


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(n) for n in range((last - first).days + 1)]


@given(clocks)
def test_a_department_has_its_whole_budget_whatever_stretches_stood_between(clock: Clock) -> None:
    due = clock.due_on()
    assert due is not None
    counted = [
        day for day in _days(clock.start + timedelta(1), due) if CALENDAR.is_working_day(day) and _ran(clock, day)
    ]
    assert len(counted) == clock.budget
    assert counted[-1] == due


@given(clocks)
def test_the_day_of_acceptance_does_not_count(clock: Clock) -> None:
    due = clock.due_on()
    assert due is not None
    assert due > clock.start
    assert clock.used(clock.start) == clock.used(clock.start + timedelta(1)) == 0


@given(clocks, st.integers(0, 200))
def test_a_day_is_used_when_the_clock_ran_at_its_last_moment(clock: Clock, ahead: int) -> None:
    day = clock.start + timedelta(1 + ahead)
    used = clock.used(day + timedelta(1)) - clock.used(day)
    assert used == (CALENDAR.is_working_day(day) and _ran(clock, day))


@given(clocks)
def test_one_day_is_left_on_the_last_day_in_time_and_none_after_it(clock: Clock) -> None:
    due = clock.due_on()
    assert due is not None
    assert clock.left(due) == 1
    assert clock.light(due, yellow=1) is Light.YELLOW
    assert not clock.passed(due)
    after = due + timedelta(1)
    assert clock.left(after) <= 0
    assert clock.light(after, yellow=1) is Light.RED
    assert clock.passed(after)
    assert clock.deadline() == end_of_day(due)


@given(days, budgets, st.integers(0, 30), st.integers(0, 30))
def test_a_stretch_moves_the_due_day_by_the_working_days_it_took(
    start: date, budget: int, wait: int, length: int
) -> None:
    plain = Clock(start, budget)
    due = plain.due_on()
    assert due is not None
    begin = min(start + timedelta(wait), due)
    stretch = Suspension(begin, begin + timedelta(length))
    taken = [day for day in _days(begin, begin + timedelta(length - 1)) if CALENDAR.is_working_day(day) and day > start]
    moved = Clock(start, budget, (stretch,)).due_on()
    assert moved == CALENDAR.add_working_days(due, len(taken))


def test_no_due_day_is_named_while_a_clock_stands_still() -> None:
    clock = Clock(date(2026, 3, 2), 3, (Suspension(date(2026, 3, 4), None),))
    assert clock.due_on() is None
    assert clock.deadline() is None
    assert not clock.passed(date(2026, 12, 1))
    assert clock.used(date(2026, 12, 1)) == 1


def test_a_clock_stopped_and_started_on_one_day_loses_nothing() -> None:
    stopped = Clock(date(2026, 3, 2), 3, (Suspension(date(2026, 3, 4), date(2026, 3, 4)),))
    assert stopped.due_on() == Clock(date(2026, 3, 2), 3).due_on() == date(2026, 3, 5)


def test_three_working_days_over_the_spring_festival_end_after_it() -> None:
    assert Clock(date(2026, 2, 12), 3).due_on() == date(2026, 2, 24)
