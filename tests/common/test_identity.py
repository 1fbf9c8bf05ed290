import unicodedata
from datetime import date
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deploy.sample.identities import (
    make_credit_code,
    make_document_number,
    make_resident_number,
    with_wrong_check_digit,
)
from libs.common.identity import (
    APPROVAL,
    CERTIFICATION,
    CREDIT_ALPHABET,
    MAX_NAME,
    MAX_SEQUENCE,
    TITLES,
    DocumentType,
    Problem,
    ResidentFacts,
    Sex,
    check_case_no,
    check_certification_number,
    check_credit_code,
    check_digit,
    check_document,
    check_name,
    credit_check_digit,
    make_case_no,
    make_decision_number,
    mask_name,
    mask_number,
    normalise_name,
    normalise_number,
    read_resident_number,
    refuses,
    resident_check_digit,
    verify,
)

CARD = DocumentType.RESIDENT_IDENTITY_CARD
PERMIT = DocumentType.HMT_RESIDENCE_PERMIT
FOREIGN = DocumentType.FOREIGN_PERMANENT_RESIDENCE
STANDARD_EXAMPLE = "11010519491231002X"  # GB 11643 itself gives it; it is nobody's

seeds = st.integers(0, 2**32)
births = st.dates(date(1930, 1, 1), date(2026, 12, 31))
sexes = st.sampled_from(Sex)
regions = st.sampled_from(
    ["410502", "410503", "410505", "410506", "410522", "410523", "410526", "410527", "410581", "410571"]
)


def codes(problems: list[Problem]) -> set[str]:
    return {problem.code for problem in problems}


@st.composite
def a_resident_number(draw: st.DrawFn) -> str:
    return make_resident_number(Random(draw(seeds)), draw(regions), draw(births), draw(sexes))


@st.composite
def a_credit_code(draw: st.DrawFn) -> str:
    registry = draw(st.sampled_from("123456789ANY"))
    return make_credit_code(Random(draw(seeds)), draw(regions), registry)


@given(seeds, regions, births, sexes)
def test_a_made_resident_number_is_right_and_says_what_it_was_made_of(
    seed: int, region: str, birth: date, sex: Sex
) -> None:
    number = make_resident_number(Random(seed), region, birth, sex)
    assert check_document(CARD, number) == []
    assert read_resident_number(number) == ResidentFacts(region, birth, sex)


@given(a_resident_number(), st.integers(0, 17), st.sampled_from("0123456789X"))
def test_one_wrong_character_in_a_resident_number_is_refused(number: str, at: int, other: str) -> None:
    assume(number[at] != other)
    wrong = number[:at] + other + number[at + 1 :]
    assert refuses(check_document(CARD, wrong))
    with pytest.raises(ValueError, match="not a valid 18-digit identity number"):
        read_resident_number(wrong)


def test_the_examples_of_the_standard_are_right() -> None:
    assert check_document(CARD, STANDARD_EXAMPLE) == []
    assert check_document(CARD, "440524188001010014") == []
    assert read_resident_number(STANDARD_EXAMPLE).sex.label == "女"


@pytest.mark.parametrize("region", ["410581", "410505"])
def test_linzhou_and_yindu_numbers_of_1990_are_right(region: str) -> None:
    body = f"{region}19900307123"
    assert check_document(CARD, body + resident_check_digit(body)) == []


@given(a_resident_number())
def test_full_width_lower_case_and_blanks_are_the_same_number(number: str) -> None:
    wide = "".join(chr(ord(char) + 0xFEE0) for char in number.lower())
    typed = f" {wide[:6]}\u3000{wide[6:14]} {wide[14:]}\n"
    assert normalise_number(typed) == number
    assert check_document(CARD, typed) == []
    assert normalise_number(normalise_number(typed)) == number


def test_an_unknown_area_is_only_a_warning() -> None:
    problems = check_document(CARD, make_resident_number(Random(1), "770101", date(1990, 1, 1), Sex.MALE))
    assert codes(problems) == {"document-region-unknown"}
    assert not refuses(problems)


@pytest.mark.parametrize("birth", ["19900230", "19901301", "19900100", "17991231", "00000101"])
def test_a_birth_date_that_never_was_is_refused(birth: str) -> None:
    body = f"410522{birth}001"
    assert codes(check_document(CARD, body + resident_check_digit(body))) == {"document-birth-date"}


def test_all_that_is_wrong_is_told_at_once() -> None:
    body = "700000" + "19900230" + "001"
    wrong = with_wrong_check_digit(body + resident_check_digit(body))
    problems = check_document(CARD, wrong)
    assert codes(problems) == {"document-birth-date", "document-check-digit", "document-region-unknown"}
    assert all(problem.title == TITLES[problem.code] and problem.detail for problem in problems)


def test_a_birth_after_today_is_refused_when_today_is_told() -> None:
    number = make_resident_number(Random(2), "410522", date(2026, 3, 3), Sex.FEMALE)
    assert codes(check_document(CARD, number, on=date(2026, 3, 2))) == {"document-birth-in-future"}
    assert check_document(CARD, number, on=date(2026, 3, 3)) == []


@given(st.sampled_from(DocumentType), seeds, births, sexes)
def test_a_made_number_of_any_document_is_right(kind: DocumentType, seed: int, birth: date, sex: Sex) -> None:
    assert check_document(kind, make_document_number(Random(seed), kind, birth, sex)) == []
    assert kind.label


@given(st.sampled_from([CARD, PERMIT]), seeds, births, sexes)
def test_a_wrong_check_digit_is_refused(kind: DocumentType, seed: int, birth: date, sex: Sex) -> None:
    number = make_document_number(Random(seed), kind, birth, sex)
    assert codes(check_document(kind, with_wrong_check_digit(number))) == {"document-check-digit"}


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (FOREIGN, "USA410590030712"),
        (DocumentType.HM_TRAVEL_PERMIT, "H12345678"),
        (DocumentType.HM_TRAVEL_PERMIT, "m1234567801"),
        (DocumentType.TAIWAN_TRAVEL_PERMIT, "12345678"),
        (DocumentType.TAIWAN_TRAVEL_PERMIT, "1234567801（B）"),
        (DocumentType.PASSPORT, "E12345678"),
        (DocumentType.PASSPORT, "C01X00T47"),
    ],
)
def test_the_forms_of_other_documents_are_known(kind: DocumentType, number: str) -> None:
    assert check_document(kind, number) == []


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (CARD, ""),
        (CARD, "410522900307123"),
        (CARD, "11010519491231002Y"),
        (CARD, "١١010519491231002X"),
        (PERMIT, STANDARD_EXAMPLE),
        (FOREIGN, "US4105900307123"),
        (FOREIGN, STANDARD_EXAMPLE),
        (DocumentType.HM_TRAVEL_PERMIT, "A12345678"),
        (DocumentType.HM_TRAVEL_PERMIT, "H1234567"),
        (DocumentType.TAIWAN_TRAVEL_PERMIT, "123456789"),
        (DocumentType.PASSPORT, "ABCDEFGH"),
        (DocumentType.PASSPORT, "E123"),
        (DocumentType.PASSPORT, "ſ12345678"),
    ],
)
def test_another_form_is_refused_with_the_form_expected(kind: DocumentType, number: str) -> None:
    problems = check_document(kind, number)
    assert codes(problems) == {"document-form"}
    assert kind.label in problems[0].detail


@given(st.sampled_from(["810000", "820000", "830000", "941840"]), seeds, births, sexes)
def test_another_document_given_as_a_resident_card_is_named(region: str, seed: int, birth: date, sex: Sex) -> None:
    number = make_resident_number(Random(seed), region, birth, sex)
    problems = check_document(CARD, number)
    assert codes(problems) == {"document-type-mismatch"}
    right = FOREIGN if region[0] == "9" else PERMIT
    assert right.label in problems[0].detail
    assert check_document(right, number) == []


@given(st.sampled_from(DocumentType), st.text(max_size=20))
def test_no_text_breaks_the_document_check(kind: DocumentType, text: str) -> None:
    assert all(problem.code in TITLES for problem in check_document(kind, text))


@given(a_credit_code())
def test_a_made_credit_code_is_right(code: str) -> None:
    assert check_credit_code(code) == []
    assert check_credit_code(f" {code.lower()} ") == []


@given(a_credit_code(), st.integers(0, 17), st.sampled_from(CREDIT_ALPHABET + "IOSVZ"))
def test_one_wrong_character_in_a_credit_code_is_refused(code: str, at: int, other: str) -> None:
    assume(code[at] != other)
    assert refuses(check_credit_code(code[:at] + other + code[at + 1 :]))


def test_the_credit_code_of_the_standard_and_one_with_a_leading_letter_are_right() -> None:
    assert check_credit_code("91350100M000100Y43") == []  # the example of GB 32100
    assert check_credit_code(make_credit_code(Random(3), "410522", "N", "2")) == []


def test_an_unknown_registry_is_only_a_warning() -> None:
    problems = check_credit_code(make_credit_code(Random(4), "410522", "B"))
    assert codes(problems) == {"credit-code-registry-unknown"}
    assert not refuses(problems)


@pytest.mark.parametrize("code", ["", "9141052", "91I50100M000100Y43", "9135010AM000100Y43"])
def test_a_credit_code_of_another_form_is_refused(code: str) -> None:
    assert codes(check_credit_code(code)) == {"credit-code-form"}


@pytest.mark.parametrize("body", ["", "1" * 16, "I" * 17])
def test_check_characters_are_made_from_right_bodies_only(body: str) -> None:
    with pytest.raises(ValueError, match="check character is made from"):
        credit_check_digit(body)
    with pytest.raises(ValueError, match="check character is made from 17 digits"):
        resident_check_digit(body + "x")


def test_the_check_digit_is_that_of_iso_7064() -> None:
    assert check_digit("A12425GABC1234002") == "M"  # the example of the GRid standard, which uses MOD 37,36
    assert verify("A12425GABC1234002M")


@pytest.mark.parametrize("text", ["", "A", "a1", "A1 ", "é9"])
def test_verify_refuses_what_it_cannot_have_made(text: str) -> None:
    assert not verify(text)
    with pytest.raises(ValueError, match="digits and capital letters"):
        check_digit(text + "-")


@given(
    st.sampled_from(["410500", "410522", "410581", "410571"]),
    st.dates(date(2021, 3, 23), date(2099, 12, 31)),
    st.integers(1, MAX_SEQUENCE),
    st.integers(0, 22),
    st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
)
def test_a_case_number_is_right_and_one_wrong_character_is_refused(
    treasury: str, day: date, sequence: int, at: int, other: str
) -> None:
    number = make_case_no("AY", treasury, day, sequence)
    assert len(number) == 23
    assert number.startswith(f"AY{treasury}{day:%Y%m%d}")
    assert check_case_no(number) == []
    assert check_case_no(f"{number[:2]} {number[2:8]}-{number[8:]}".lower()) == []
    wrong = number[:at] + other + number[at + 1 :]
    assert (check_case_no(wrong) == []) == (wrong == number)


@given(
    st.sampled_from(["410500", "410522", "410581", "410571"]),
    st.integers(2021, 2099),
    st.integers(1, MAX_SEQUENCE),
    st.integers(0, 18),
    st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
)
def test_a_certification_number_is_right_and_one_wrong_character_is_refused(
    treasury: str, year: int, sequence: int, at: int, other: str
) -> None:
    number = make_decision_number(CERTIFICATION, treasury, year, sequence)
    assert (len(number), number[:-1]) == (19, f"RD{treasury}{year}{sequence:06}")
    assert check_certification_number(f"{number[:2]} {number[2:8]}-{number[8:]}".lower()) == []
    wrong = number[:at] + other + number[at + 1 :]
    assert (check_certification_number(wrong) == []) == (wrong == number)


def test_the_number_of_an_approval_is_none_of_a_certification() -> None:
    assert codes(check_certification_number(make_decision_number(APPROVAL, "410522", 2026, 17))) == {
        "certification-number-form"
    }


@pytest.mark.parametrize("sequence", [0, MAX_SEQUENCE + 1])
def test_a_decision_number_is_only_made_while_the_years_numbers_last(sequence: int) -> None:
    with pytest.raises(ValueError, match="running number"):
        make_decision_number(CERTIFICATION, "410522", 2026, sequence)


def test_a_case_number_with_an_impossible_date_is_refused() -> None:
    body = "AY41052220260230000017"
    assert codes(check_case_no(body + check_digit(body))) == {"case-no-date"}


@pytest.mark.parametrize(
    ("prefix", "treasury", "sequence"),
    [("ay", "410522", 1), ("A", "410522", 1), ("AY", "41052", 1), ("AY", "410522", 0), ("AY", "410522", 10**6)],
)
def test_a_case_number_of_bad_parts_is_not_made(prefix: str, treasury: str, sequence: int) -> None:
    with pytest.raises(ValueError, match="case number"):
        make_case_no(prefix, treasury, date(2026, 3, 2), sequence)


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("张三", "张三"),
        (" 张　三 ", "张三"),
        ("买买提•艾力", "买买提·艾力"),
        ("买买提 ・ 艾力", "买买提·艾力"),
        ("买买提．艾力", "买买提·艾力"),
        ("买买提‧艾力⋅吐尔逊", "买买提·艾力·吐尔逊"),
        ("ＪＯＨＮ  Smith", "JOHN Smith"),
        ("J. Smith", "J. Smith"),
        ("O’Brien", "O'Brien"),
        ("Nguye\u0302\u0303n", "Nguy\u1ec5n"),
        ("Cyrille Nguyễn Văn", "Cyrille Nguyễn Văn"),
    ],
)
def test_a_name_is_stored_in_one_form(typed: str, stored: str) -> None:
    assert normalise_name(typed) == stored
    assert check_name(typed) == []


@pytest.mark.parametrize(
    "name",
    [
        "𠀀明",  # plane 2, extension B
        "王\U0002b740",  # extension D
        "王\U0002ebf0",  # extension I, newer than the character tables of Python 3.11
        "王\U00031350",  # extension H, plane 3
        "〇一",
        "䶮",  # extension A
        "龦",
        "々木",
    ],
)
def test_rare_characters_are_kept_and_right(name: str) -> None:
    assert normalise_name(name) == name
    assert check_name(name) == []


INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u202e\u2066\u200f\x00\t\n\x7f\u0085\u00ad\u3164\ufe0f\U000e0100\u2028\ud800"


@pytest.mark.parametrize("hidden", list(INVISIBLE), ids=[f"U+{ord(char):04X}" for char in INVISIBLE])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_invisible_character_anywhere_is_refused_and_named(hidden: str, at: int) -> None:
    problems = check_name("张三"[:at] + hidden + "张三"[at:])
    assert codes(problems) == {"name-invisible-character"}
    assert f"U+{ord(hidden):04X}" in problems[0].detail
    assert hidden not in problems[0].detail


@pytest.mark.parametrize("name", ["张三1", "张三😀", "⼈名", "张/三", "<b>", "张三\U0001fffe", "张三\U000f0000"])
def test_a_character_that_is_no_letter_is_refused(name: str) -> None:
    assert "name-character" in codes(check_name(name))


def test_a_private_character_is_only_a_warning() -> None:
    problems = check_name("王\ue815")
    assert codes(problems) == {"name-private-use"}
    assert not refuses(problems)


@pytest.mark.parametrize("name", ["·张三", "张三•", "买买提··艾力", "买买提 • ‧ 艾力"])
def test_a_dot_out_of_place_is_refused(name: str) -> None:
    assert codes(check_name(name)) == {"name-separator"}


@pytest.mark.parametrize("name", ["", "  ", "\u3000", "·", "-"])
def test_no_name_is_refused(name: str) -> None:
    assert codes(check_name(name)) == {"name-empty"}


def test_a_name_beyond_the_bound_is_refused() -> None:
    assert check_name("张" * MAX_NAME) == []
    assert codes(check_name("张" * (MAX_NAME + 1))) == {"name-too-long"}


@given(st.text(max_size=30))
def test_a_stored_name_does_not_change_when_stored_again(text: str) -> None:
    name = normalise_name(text)
    assert normalise_name(name) == name
    assert unicodedata.is_normalized("NFC", name)
    assert check_name(name) == check_name(text)


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=1, max_size=20))
def test_every_common_han_name_is_right(name: str) -> None:
    assert check_name(name) == []


def test_masks_leave_what_a_notice_may_show() -> None:
    assert mask_name("张三丰") == "张*"
    assert mask_name("𠀀明") == "𠀀*"
    assert mask_name("") == "*"
    assert mask_number("410522199003071234") == "4105**********1234"
    assert mask_number("H12345678") == "H1*****78"
    assert mask_number("1234567") == "*******"


@given(st.text(alphabet="0123456789X", max_size=25))
def test_a_mask_keeps_the_length_and_hides_most(number: str) -> None:
    masked = mask_number(number)
    assert len(masked) == len(number)
    assert masked.count("*") >= min(len(number), 4)
