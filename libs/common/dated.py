"""Effective-dated records: what holds from a first day to a last day, both included."""

import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _stated(value: object) -> object:
    if type(value) is date or (isinstance(value, str) and _DAY.fullmatch(value)):
        return value
    raise PydanticKnownError("date_type")


Day = Annotated[date, BeforeValidator(_stated)]
"""A day as callers send it: a text `YYYY-MM-DD` and nothing else. Pydantic's own date takes seconds since 1970 too, and
midnight with a time zone that is nobody's."""


def between(first: date, last: date) -> AfterValidator:
    """What makes a `Day` one of these days, both included. JSON Schema has no bounds for days: describe them too."""
    bounds = {"first": first.isoformat(), "last": last.isoformat()}

    def check(day: date | None) -> date | None:
        if day is not None and not first <= day <= last:
            raise PydanticCustomError("day-out-of-range", "应在 {first} 至 {last} 之间（含首尾两日）。", bounds)
        return day

    return AfterValidator(check)


class Dated(BaseModel):
    """A record that holds from `valid_from` to `valid_to`, both days included; no `valid_to` means open.

    Immutable; unknown fields are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    valid_from: date
    valid_to: date | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.valid_to is not None and self.valid_to < self.valid_from:
            raise ValueError(f"valid_to {self.valid_to} 早于 valid_from {self.valid_from}，请改正起止日期。")
        return self

    def covers(self, day: date) -> bool:
        """Say whether the record holds on `day`."""
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)


def changes(records: Iterable[Dated]) -> set[date]:
    """Give the days on which one of the records begins, or holds no more."""
    records = list(records)
    ends = {each.valid_to for each in records if each.valid_to is not None and each.valid_to < date.max}
    return {each.valid_from for each in records} | {day + timedelta(days=1) for day in ends}
