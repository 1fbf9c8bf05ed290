"""The pure rules of housing."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.calendar import local_date
from libs.common.policy.model import FlatKind
from services.housing.domain import (
    HOLD_DAYS,
    TAKING,
    TRANSITIONS,
    HoldState,
    Move,
    held_until,
    leading,
    serves,
)
from tests.common.packs import anyang


def test_every_move_begins_in_one_state_so_an_update_can_name_it() -> None:
    begins = [state for state, _ in TRANSITIONS]
    assert {move for _, move in TRANSITIONS} == set(Move)
    assert len({move for _, move in TRANSITIONS}) == len(begins)


def test_a_flat_that_was_let_go_is_never_taken_again_by_the_same_hold() -> None:
    ended = set(HoldState) - set(TAKING)
    assert not ended & {state for state, _ in TRANSITIONS}
    assert leading(Move.END) == (HoldState.LEASED, HoldState.ENDED)


@given(st.dates(date(2021, 3, 23), date(2090, 1, 1)))
def test_a_hold_ends_with_its_last_day_in_shanghai(day: date) -> None:
    until = held_until(day)
    assert (local_date(until) - day).days == HOLD_DAYS + 1
    assert until.astimezone(UTC).hour == 16


def test_the_hold_of_a_friday_ends_at_midnight_after_the_next() -> None:
    assert held_until(date(2026, 2, 13)) == datetime(2026, 2, 20, 16, tzinfo=UTC)


@pytest.mark.parametrize(("flat", "expected"), [("410522", True), ("410500", True), ("410523", False)])
def test_a_talent_may_have_flats_of_their_own_treasury_and_of_the_city(flat: str, expected: bool) -> None:
    assert serves(flat, treasury="410522", city_treasury="410500") is expected


@pytest.mark.article("第四条")
def test_the_housing_benefits_are_those_that_the_pack_gives_in_kind() -> None:
    given = {benefit.code: benefit.gives_flat for benefit in anyang().benefits}
    assert given == {
        "living_allowance": None,
        "purchase_subsidy": None,
        "talent_flat": FlatKind.TRANSITIONAL,
        "talent_apartment": FlatKind.APARTMENT,
    }
