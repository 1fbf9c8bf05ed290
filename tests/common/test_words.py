"""Reasons and purposes: visible words, and no number of a person in what an event tells."""

import pytest
from pydantic import TypeAdapter, ValidationError

from libs.common.identity import check_digit
from libs.common.words import Reason, without_numbers


@pytest.mark.parametrize("blank", ["", "  ", "\n", "\u3000\u00a0"], ids=ascii)
def test_a_blank_reason_is_no_reason(blank: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Reason).validate_python(blank)
    assert [error["type"] for error in refused.value.errors()] == ["string_too_short"]


@pytest.mark.parametrize("unseen", ["\u200b", "a\u202eb", "\u3164", "退\ufe0f回"], ids=ascii)
def test_what_shows_nothing_is_refused_in_the_same_words_everywhere(unseen: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Reason).validate_python(unseen)
    assert [error["type"] for error in refused.value.errors()] == ["invisible-character"]


def test_a_reason_is_kept_without_the_blanks_around_it() -> None:
    assert TypeAdapter(Reason).validate_python(" 年初预算 ") == "年初预算"


NUMBERS = [
    "410522199001010011",
    "4105 2219 9001 0100 11",
    "4105-2219-9001-0100-11",
    "４１０５２２１９９００１０１００１１",
    "账号6217·0000·1000·1234·567",
    "电话 13800000000",
    "护照 E12345678",
    "٤١٠٥٢٢١٩٩",
]


@pytest.mark.parametrize("told", NUMBERS, ids=ascii)
def test_the_digits_of_a_document_or_an_account_are_refused_however_they_are_written(told: str) -> None:
    with pytest.raises(ValueError, match="请勿填写证件"):
        without_numbers(told)


@pytest.mark.parametrize(
    "told", ["2026-02-13 退回", "自2026年2月13日至2026年5月31日未参保", "应为 54,000.00 元", "第 410522 号平台"]
)
def test_dates_amounts_and_codes_may_stand_in_a_reason(told: str) -> None:
    assert without_numbers(told) == told


def test_our_own_numbers_name_no_person_and_may_stand_in_a_reason() -> None:
    certification, case = "RD4105222026000017", "AY41052220260302000001"
    told = f"认定 {certification}{check_digit(certification)}、办件{case}{check_digit(case)}已办结"
    assert without_numbers(told) == told
    wrong = "A" if check_digit(certification) != "A" else "B"
    with pytest.raises(ValueError, match="请勿填写证件"):
        without_numbers(f"认定 {certification}{wrong}")
