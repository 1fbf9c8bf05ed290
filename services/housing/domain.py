"""The rules of housing: which flat suits whom, how long a hold lasts, and the states of a hold. Pure."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum

from libs.common.calendar import end_of_day


class FlatStatus(StrEnum):
    """What a flat is now: 可选, 已锁定, 已出租, 停用. Derived from its hold and from whether it is offered."""

    AVAILABLE = "available"
    HELD = "held"
    LEASED = "leased"
    WITHDRAWN = "withdrawn"


class HoldState(StrEnum):
    """State of a hold, through its lease."""

    HELD = "held"
    LEASED = "leased"
    RELEASED = "released"
    ENDED = "ended"


HOLD_TITLES: Mapping[HoldState, str] = {
    HoldState.HELD: "已锁定",
    HoldState.LEASED: "已签租约",
    HoldState.RELEASED: "已释放",
    HoldState.ENDED: "租期已止",
}
"""The words for each state."""


class Move(StrEnum):
    """What may happen to a hold."""

    LEASE = "lease"
    GIVE_UP = "give_up"
    EXPIRE = "expire"
    END = "end"


TRANSITIONS: Mapping[tuple[HoldState, Move], HoldState] = {
    (HoldState.HELD, Move.LEASE): HoldState.LEASED,
    (HoldState.HELD, Move.GIVE_UP): HoldState.RELEASED,
    (HoldState.HELD, Move.EXPIRE): HoldState.RELEASED,
    (HoldState.LEASED, Move.END): HoldState.ENDED,
}
TAKING = (HoldState.HELD, HoldState.LEASED)
"""The states in which the flat, and the eligibility, are taken."""

HOLD_DAYS = 7
"""Days that a hold lasts, the day of holding not counted. An assumption: the policy documents name none."""


def leading(move: Move) -> tuple[HoldState, HoldState]:
    """The state that a move begins in, and the one that it ends in. Each move begins in one state only."""
    return next((begin, end) for (begin, by), end in TRANSITIONS.items() if by is move)


def held_until(day: date) -> datetime:
    """The UTC instant at which a hold made on `day` (Asia/Shanghai) lapses: the end of its last day."""
    return end_of_day(day + timedelta(days=HOLD_DAYS))


def serves(flat_treasury: str, *, treasury: str, city_treasury: str) -> bool:
    """Whether flats of a treasury are for a talent affiliated to `treasury`: its own, and those of the city level.

    An assumption: 第四条 says where flats are, not for whose talent.
    """
    return flat_treasury in {treasury, city_treasury}
