"""Money is an integer of fen, and every split sums to the whole."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common.money import MAX_FEN, Amount, format_yuan, parse_share, split, split_evenly

wholes = st.integers(min_value=0, max_value=MAX_FEN)


@st.composite
def shares_of_one(draw: st.DrawFn) -> list[Fraction]:
    weights = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any))
    return [Fraction(weight, sum(weights)) for weight in weights]


@given(wholes, shares_of_one(), st.data())
def test_a_split_sums_to_the_whole_and_only_one_part_bears_the_remainder(
    whole: int, shares: list[Fraction], data: st.DataObject
) -> None:
    bearer = data.draw(st.integers(0, len(shares) - 1))
    parts = split(whole, shares, remainder_to=bearer)
    assert sum(parts) == whole
    for index, (part, share) in enumerate(zip(parts, shares, strict=True)):
        exact = whole * share
        if index == bearer:
            assert exact <= part < exact + len(shares)
        else:
            assert exact - 1 < part <= exact


@given(wholes, st.integers(1, 120))
def test_equal_parts_differ_only_in_the_last(whole: int, count: int) -> None:
    parts = split_evenly(whole, count)
    assert sum(parts) == whole
    assert parts[:-1] == [whole // count] * (count - 1)


def test_one_fen_in_three_parts_goes_to_the_last() -> None:
    assert split_evenly(1, 3) == [0, 0, 1]


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to one"):
        split(100, [Fraction(1, 3), Fraction(1, 3)], remainder_to=0)


def test_a_negative_share_is_refused_even_where_the_sum_is_one() -> None:
    with pytest.raises(ValueError, match="at least zero"):
        split(100, [Fraction(3, 2), Fraction(-1, 2)], remainder_to=0)


def test_a_negative_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        split(-1, [Fraction(1)], remainder_to=0)


def test_no_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="one part"):
        split_evenly(1, 0)


@pytest.mark.parametrize(("text", "value"), [("4/10", Fraction(2, 5)), ("1", Fraction(1)), ("0", Fraction(0))])
def test_a_share_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_share(text) == value


@pytest.mark.parametrize("text", ["0.4", "4:6", "1/0", "-1/3", "+1/3", "4/3", "2", "", " 1/3", "1/3\n", "1e0"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="比例"):
        parse_share(text)


@pytest.mark.parametrize(
    ("fen", "text"),
    [
        (123456, "1,234.56 元"),
        (0, "0.00 元"),
        (5, "0.05 元"),
        (-100, "-1.00 元"),
        (10**15, "10,000,000,000,000.00 元"),
    ],
)
def test_an_amount_is_written_for_people(fen: int, text: str) -> None:
    assert format_yuan(fen) == text


def test_an_amount_travels_as_fen_and_currency() -> None:
    amount = Amount.model_validate_json('{"fen": 123, "currency": "CNY"}')
    assert amount.model_dump() == {"fen": 123, "currency": "CNY"}
    assert str(amount) == "1.23 元"


@pytest.mark.parametrize("body", [{"fen": -1}, {"fen": MAX_FEN + 1}, {"fen": 1.0}, {"fen": "1"}, {"fen": True}])
def test_what_is_no_amount_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Amount.model_validate(body)


def test_another_currency_is_refused() -> None:
    with pytest.raises(ValidationError):
        Amount.model_validate({"fen": 1, "currency": "USD"})
