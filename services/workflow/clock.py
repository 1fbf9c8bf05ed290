"""The clock of a task: a budget in working days and a ledger of stretches without the clock.

Pure, and nothing derived is kept: due date, days used and light are read off the ledger whenever they are shown. The
day of the event (acceptance, or assignment of a later stage) does not count; a working day counts when the clock was
running at its last moment.
"""

from dataclasses import dataclass
from datetime import date, datetime

from libs.common.calendar import CALENDAR, Calendar, Deadline, Light, Suspension, end_of_day, light


@dataclass(frozen=True, slots=True)
class Clock:
    """What is stored of a task's time: the day of the event, the budget in working days, the suspensions."""

    start: date
    budget: int
    suspensions: tuple[Suspension, ...] = ()

    def due_on(self, calendar: Calendar = CALENDAR) -> date | None:
        """The last day in time; None while an open suspension keeps the clock from it."""
        return calendar.due_on(self.start, self.budget, self.suspensions)

    def provisional(self, calendar: Calendar = CALENDAR) -> bool:
        """Whether no official calendar covers the due date yet."""
        due = self.due_on(calendar)
        return due is not None and calendar.is_provisional(due)

    def deadline(self, calendar: Calendar = CALENDAR) -> datetime | None:
        """The UTC instant at which the last day in time ends; None while no due date can be named."""
        due = self.due_on(calendar)
        return None if due is None else end_of_day(due)

    def passed(self, on: date, calendar: Calendar = CALENDAR) -> bool:
        """Whether the limit has passed at the first moment of `on`."""
        due = self.due_on(calendar)
        return due is not None and due < on

    def used(self, on: date, calendar: Calendar = CALENDAR) -> int:
        """Working days used up at the first moment of `on`."""
        return calendar.working_days_used(self.start, on, self.suspensions)

    def left(self, on: date, calendar: Calendar = CALENDAR) -> int:
        """Working days left at the first moment of `on`: one on the last day in time, 0 or less when overdue."""
        return self.budget - self.used(on, calendar)

    def light(self, on: date, *, yellow: int, calendar: Calendar = CALENDAR) -> Light:
        """The light on `on`; yellow while at most `yellow` working days are left."""
        return light(budget=self.budget, used=self.used(on, calendar), yellow=yellow)

    def working(self, calendar: Calendar = CALENDAR) -> Deadline:
        """The due date with its working, day by day."""
        return calendar.due_date(self.start, self.budget, self.suspensions)
