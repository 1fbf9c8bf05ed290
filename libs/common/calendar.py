"""Working days and deadlines in Asia/Shanghai: the only code that counts days.

A `Calendar` is immutable data: the dates that the State Council's notices name as holidays and as make-up
working days, and the last date they cover. `CALENDAR` is the one built from `chinesecalendar` (2004 on). A later
notice, or an amendment after the fact as in 2020, makes a new calendar through `Calendar.with_notice`; deadlines
are then projected again from their stored parts.

A date after `official_through` is *provisional*: a working day when it is Monday to Friday and none of the
statutory holidays with a fixed date in the solar calendar (1 January, 1 and 2 May, 1 to 3 October:
全国年节及纪念日放假办法, as revised in 2024). Spring Festival, Tomb-sweeping Day, Dragon Boat and Mid-autumn have
no fixed date and are not guessed, nor are days in lieu and make-up weekends, which only a notice decides. So a
provisional deadline may be some days off, mostly too early; it is labelled and never hidden.

How a term is counted: the day of the event does not count; each working day after it counts when the clock was
running at its last moment; the last day ends at midnight. A suspension therefore takes away the working days
from its `start` up to, but without, its `end`.

Every look-up is a binary search in one array of working days, built once for each calendar (some 24,000 dates).
Only the day-by-day explanation walks days, and never past `LAST`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from enum import StrEnum
from functools import cached_property

import chinese_calendar

FIRST = date(2004, 1, 1)
LAST = date(2099, 12, 31)
MAX_DAYS = 2_500
"""The longest term, in working days (about ten years). A longer one is a mistake in the policy data."""

# A fixed offset, not zoneinfo: the zone has been exactly UTC+8 since 15 September 1991, and a machine without
# tzdata must count the same days.
SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")

_STATUTORY_FIXED = frozenset({(1, 1), (5, 1), (5, 2), (10, 1), (10, 2), (10, 3)})
_ONE_DAY = timedelta(days=1)


class Reason(StrEnum):
    """Why a day does or does not count."""

    EVENT_DAY = "event_day"
    WORKING_DAY = "working_day"
    MAKE_UP_DAY = "make_up_day"
    WEEKEND = "weekend"
    HOLIDAY = "holiday"
    SUSPENDED = "suspended"

    @property
    def label(self) -> str:
        """The Chinese wording shown beside a day."""
        return _REASON_LABELS[self]


_WORKED = frozenset({Reason.WORKING_DAY, Reason.MAKE_UP_DAY})
_REASON_LABELS = {
    Reason.EVENT_DAY: "受理当日，不计入",
    Reason.WORKING_DAY: "工作日",
    Reason.MAKE_UP_DAY: "调休工作日",
    Reason.WEEKEND: "周末，不计入",
    Reason.HOLIDAY: "法定节假日，不计入",
    Reason.SUSPENDED: "计时暂停，不计入",
}


class Light(StrEnum):
    """红黄绿灯预警. Computed when it is shown, never stored."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"

    @property
    def label(self) -> str:
        """The Chinese name of the light."""
        return {Light.GREEN: "绿灯", Light.YELLOW: "黄灯", Light.RED: "红灯"}[self]


@dataclass(frozen=True, slots=True)
class Day:
    """What the calendar says of one date."""

    working: bool
    provisional: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Suspension:
    """A stretch without the clock: from `start`, its first day, to `end`, the day the clock runs again.

    `end` is None while it is open. `start == end` is a clock stopped and started again on one day: it ran at that
    day's last moment, so nothing is taken away. Raises `ValueError` when `start` is after `end`.
    """

    start: date
    end: date | None
    note: str = ""

    def __post_init__(self) -> None:
        if self.end is not None and self.start > self.end:
            raise ValueError(f"a suspension cannot end on {self.end}, before it starts on {self.start}")


@dataclass(frozen=True, slots=True)
class CountedDay:
    """One line of a deadline's working; `note` repeats the note of the suspension that takes the day away."""

    day: date
    counted: bool
    reason: Reason
    note: str = ""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A due date with its working.

    `due` is the last day in time (it ends at `end_of_day(due)`), or None while an open suspension keeps the
    clock from reaching it; `remaining` is then the working days still to run, and otherwise 0. `provisional`
    tells that the count went beyond the official calendar. `working` opens with the day of the event and closes
    with `due`, or with the first day of the open suspension.
    """

    due: date | None
    provisional: bool
    remaining: int
    working: tuple[CountedDay, ...]

    @property
    def paused(self) -> bool:
        """True while no due date can be named."""
        return self.due is None


@dataclass(frozen=True)
class Calendar:
    """Working days from 2004 to 2099: official up to `official_through`, provisional after it.

    `working` are the weekend days worked, `holidays` the days off; what either names overrides the weekday.
    Raises `ValueError` when a date is in both. Every method raises it for a date outside 2004 to 2099.
    """

    working: frozenset[date] = field(repr=False)
    holidays: frozenset[date] = field(repr=False)
    official_through: date

    def __post_init__(self) -> None:
        both = self.working & self.holidays
        if both:
            raise ValueError(f"both a working day and a holiday: {min(both)}")

    def with_notice(self, *, working: Iterable[date], holidays: Iterable[date], official_through: date) -> "Calendar":
        """Return this calendar with a State Council notice laid over it; what the notice names wins.

        An amendment passes the present `official_through`. Raises `ValueError` when that goes back, or skips a
        year: the year between would pass for official without a notice; and for a day outside the calendar.
        """
        if official_through < self.official_through:
            raise ValueError(f"a notice cannot take back what is official up to {self.official_through}")
        if official_through.year > self.official_through.year + 1:
            raise ValueError(f"load the notice of {self.official_through.year + 1} first")
        now_working, now_off = frozenset(map(_within, working)), frozenset(map(_within, holidays))
        return Calendar(
            working=(self.working - now_off) | now_working,
            holidays=(self.holidays - now_working) | now_off,
            official_through=official_through,
        )

    def look_up(self, day: date) -> Day:
        """Say whether a date is worked, whether that is only provisional, and why."""
        reason = self._reason(_within(day))
        worked = reason in _WORKED
        return Day(worked, self.is_provisional(day), reason)

    def is_working_day(self, day: date) -> bool:
        """Say whether a date is worked."""
        return self.look_up(day).working

    def is_provisional(self, day: date) -> bool:
        """Say whether no official calendar covers the date yet."""
        return day > self.official_through

    def add_working_days(self, day: date, n: int) -> date:
        """Return the n-th working day after `day`, or before it where n is negative; 0 gives `day` itself."""
        _within(day)
        if n == 0:
            return day
        days = self._days
        index = bisect_right(days, day) + n - 1 if n > 0 else bisect_left(days, day) + n
        return self._at(index)

    def due_on(self, accepted: date, days: int, suspensions: Sequence[Suspension] = ()) -> date | None:
        """Return the due date alone, for batches; None while an open suspension keeps the clock from it.

        Suspensions may overlap, stand in any order and reach back before `accepted`: a day without the clock is
        left out once, and days up to `accepted` never count. Raises `ValueError` unless 1 <= days <= `MAX_DAYS`.
        """
        _check_term(days)
        index = bisect_right(self._days, _within(accepted))
        left = days
        for start, end in _merged(suspensions):
            stop = bisect_left(self._days, start)
            if stop - index >= left:
                break
            left -= max(stop - index, 0)
            if end is None:
                return None
            index = max(index, bisect_left(self._days, end))
        return self._at(index + left - 1)

    def due_date(self, accepted: date, days: int, suspensions: Sequence[Suspension] = ()) -> Deadline:
        """Return the due date with its working, day by day. Rules and errors as for `due_on`."""
        due = self.due_on(accepted, days, suspensions)
        last = due if due is not None else self._where_it_paused(accepted, suspensions)
        working = tuple(self._explain(accepted, last, suspensions))
        counted = sum(line.counted for line in working)
        return Deadline(due, self.is_provisional(last), days - counted, working)

    def working_days_used(self, accepted: date, on: date, suspensions: Sequence[Suspension] = ()) -> int:
        """Count the working days whose last moment lies between `accepted` and the first moment of `on`.

        The day `on` itself is not over, so it is not used yet: on the due date one day remains, on any later day
        none. Work finished on `on` was in time when `remaining` was positive.
        """
        days = self._days
        first, after = bisect_right(days, _within(accepted)), bisect_left(days, _within(on))
        used = max(after - first, 0)
        for start, end in _merged(suspensions):
            low = max(first, bisect_left(days, start))
            high = after if end is None else min(after, bisect_left(days, end))
            used -= max(high - low, 0)
        return used

    def remaining(self, accepted: date, days: int, on: date, suspensions: Sequence[Suspension] = ()) -> int:
        """Return the working days left at the first moment of `on`; 0 or less is overdue, by that many days.

        Raises `ValueError` unless 1 <= days <= `MAX_DAYS`.
        """
        _check_term(days)
        return days - self.working_days_used(accepted, on, suspensions)

    @cached_property
    def _days(self) -> tuple[date, ...]:
        """Every working day from FIRST to LAST, in order."""
        every = (FIRST + timedelta(days=offset) for offset in range((LAST - FIRST).days + 1))
        return tuple(day for day in every if self._reason(day) in _WORKED)

    def _at(self, index: int) -> date:
        if not 0 <= index < len(self._days):
            raise ValueError(f"outside the calendar, which holds {FIRST} to {LAST}")
        return self._days[index]

    def _reason(self, day: date) -> Reason:
        if day in self.working:
            return Reason.WORKING_DAY if day.weekday() < 5 else Reason.MAKE_UP_DAY
        if day in self.holidays:
            return Reason.HOLIDAY
        if day > self.official_through and (day.month, day.day) in _STATUTORY_FIXED:
            return Reason.HOLIDAY
        return Reason.WORKING_DAY if day.weekday() < 5 else Reason.WEEKEND

    @staticmethod
    def _where_it_paused(accepted: date, suspensions: Sequence[Suspension]) -> date:
        open_since = min(each.start for each in suspensions if each.end is None)
        return max(open_since, accepted)

    def _explain(self, accepted: date, last: date, suspensions: Sequence[Suspension]) -> Iterable[CountedDay]:
        yield CountedDay(accepted, counted=False, reason=Reason.EVENT_DAY)
        for offset in range(1, (last - accepted).days + 1):
            day = accepted + timedelta(days=offset)
            seen = self.look_up(day)
            without_clock = next((each for each in suspensions if _covers(each, day)), None)
            if seen.working and without_clock is not None:
                yield CountedDay(day, counted=False, reason=Reason.SUSPENDED, note=without_clock.note)
            else:
                yield CountedDay(day, counted=seen.working, reason=seen.reason)


def light(*, budget: int, used: int, yellow: int) -> Light:
    """Return the light for `used` of `budget` working days; yellow while at most `yellow` of them remain.

    With `used` from `Calendar.working_days_used`, the light is red from the first moment after the due date.
    Raises `ValueError` when the budget is not a term or the threshold is negative.
    """
    _check_term(budget)
    if yellow < 0:
        raise ValueError("the yellow threshold is a number of working days, 0 or more")
    left = budget - used
    if left <= 0:
        return Light.RED
    return Light.YELLOW if left <= yellow else Light.GREEN


def local_date(instant: datetime) -> date:
    """Return the date in Asia/Shanghai of an aware instant. Raises `ValueError` for a naive one."""
    if instant.tzinfo is None:
        raise ValueError("an instant needs an offset; a naive datetime names no moment")
    return instant.astimezone(SHANGHAI).date()


def end_of_day(day: date) -> datetime:
    """Return the UTC instant at which a date ends: the next midnight in Asia/Shanghai, itself too late."""
    return datetime.combine(_within(day) + _ONE_DAY, time(), SHANGHAI).astimezone(UTC)


def _within(day: date) -> date:
    if isinstance(day, datetime):
        raise ValueError("a working day is a date; turn an instant into one with local_date")
    if not FIRST <= day <= LAST:
        raise ValueError(f"{day} is outside the calendar, which holds {FIRST} to {LAST}")
    return day


def _check_term(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise ValueError(f"a term is 1 to {MAX_DAYS} working days, not {days}")


def _covers(suspension: Suspension, day: date) -> bool:
    return suspension.start <= day and (suspension.end is None or day < suspension.end)


def _merged(suspensions: Sequence[Suspension]) -> list[tuple[date, date | None]]:
    """Sort suspensions and join those that overlap or touch, so that no day is taken away twice."""
    joined: list[tuple[date, date | None]] = []
    for each in sorted(suspensions, key=lambda s: s.start):
        start, end = each.start, each.end
        if joined and (joined[-1][1] is None or start <= joined[-1][1]):
            earlier_start, earlier_end = joined[-1]
            end = None if earlier_end is None or end is None else max(earlier_end, end)
            joined[-1] = (earlier_start, end)
        else:
            joined.append((start, end))
    return joined


def _published() -> Calendar:
    """Build the calendar of the notices that `chinesecalendar` holds."""
    holidays = frozenset(chinese_calendar.holidays)
    return Calendar(
        working=frozenset(chinese_calendar.workdays),
        holidays=holidays,
        official_through=date(max(holidays).year, 12, 31),
    )


CALENDAR = _published()
"""The calendar published so far."""
