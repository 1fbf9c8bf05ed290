"""Names, document numbers, unified social credit codes, numbers of cases and certifications: what is well formed.

Pure checks, no register is asked. Each check returns every problem at once (一次性告知), normalises its input first
and returns an empty list when all is right; a problem with `warning` set is shown and refuses nothing.

| number | form | checked |
| --- | --- | --- |
| resident identity card (GB 11643-1999) | 6 area, 8 birth date, 3 sequence (odd male, even female), check | all |
| 港澳台居民居住证 (国办发〔2018〕81 号) | the same, area 810000, 820000 or 830000 | all |
| 外国人永久居留身份证, from 2023-12 | 9, 2 province, 3 country, then as above | all but the country |
| 外国人永久居留身份证, before | 3 letters of the country, 12 digits | form |
| 回乡证 | H or M, 8 digits, in old booklets 2 more for the issue | form |
| 台胞证 | 8 digits, in old booklets 10 and at most one letter | form |
| passport | 5 to 15 letters and digits, a digit among them (ICAO 9303 leaves it to the issuer) | form |

Area codes are retired and moved, and people keep their number for life: an area outside the known provinces is a
warning. Check characters are ISO 7064 MOD 11-2 for people, GB 32100 for organisations, ISO 7064 MOD 37,36 for our
own numbers.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

MAX_NAME = 80
"""The longest name, in Unicode code points after normalisation."""


class DocumentType(StrEnum):
    """A kind of document that says who a person is."""

    RESIDENT_IDENTITY_CARD = "resident_identity_card"
    FOREIGN_PERMANENT_RESIDENCE = "foreign_permanent_residence"
    HMT_RESIDENCE_PERMIT = "hmt_residence_permit"
    HM_TRAVEL_PERMIT = "hm_travel_permit"
    TAIWAN_TRAVEL_PERMIT = "taiwan_travel_permit"
    PASSPORT = "passport"

    @property
    def label(self) -> str:
        """The Chinese name of the document."""
        return _DOCUMENT_LABELS[self]


_DOCUMENT_LABELS = {
    DocumentType.RESIDENT_IDENTITY_CARD: "居民身份证",
    DocumentType.FOREIGN_PERMANENT_RESIDENCE: "外国人永久居留身份证",
    DocumentType.HMT_RESIDENCE_PERMIT: "港澳台居民居住证",
    DocumentType.HM_TRAVEL_PERMIT: "港澳居民来往内地通行证（回乡证）",
    DocumentType.TAIWAN_TRAVEL_PERMIT: "台湾居民来往大陆通行证（台胞证）",
    DocumentType.PASSPORT: "护照",
}


class Sex(StrEnum):
    """Sex as the number states it."""

    MALE = "male"
    FEMALE = "female"

    @property
    def label(self) -> str:
        """The Chinese word."""
        return "男" if self is Sex.MALE else "女"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: a stable English `code`, its Chinese `title`, and a Chinese `detail` of what to do."""

    code: str
    title: str
    detail: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class ResidentFacts:
    """What an 18-digit number says of its holder. `region` is its first six digits."""

    region: str
    birth: date
    sex: Sex


TITLES = {
    "document-form": "证件号码格式不正确",
    "document-type-mismatch": "证件类型与号码不符",
    "document-check-digit": "证件号码校验位不正确",
    "document-birth-date": "证件号码中的出生日期不存在",
    "document-birth-in-future": "证件号码中的出生日期晚于今天",
    "document-region-unknown": "证件号码中的地区代码未知",
    "credit-code-form": "统一社会信用代码格式不正确",
    "credit-code-check-digit": "统一社会信用代码校验位不正确",
    "credit-code-registry-unknown": "统一社会信用代码的登记管理部门代码未知",
    "case-no-form": "办件编号格式不正确",
    "case-no-date": "办件编号中的日期不存在",
    "case-no-check-digit": "办件编号校验位不正确",
    "certification-number-form": "认定编号格式不正确",
    "certification-number-check-digit": "认定编号校验位不正确",
    "name-empty": "姓名为空",
    "name-too-long": "姓名过长",
    "name-invisible-character": "姓名含有不可见字符",
    "name-character": "姓名含有不能使用的字符",
    "name-separator": "姓名中的间隔号位置不正确",
    "name-private-use": "姓名含有自造字",
}
"""Every problem code with its title."""

ADVICE = {
    "document-form": "{document}号码{expected}，请核对后重新填写",
    "document-type-mismatch": "该号码属于{other}，请改选证件类型或核对号码",
    "document-check-digit": "请逐位核对证件号码",
    "document-birth-date": "号码第7至14位应为真实的出生年月日，请核对",
    "document-birth-in-future": "号码第7至14位为出生年月日，请核对",
    "document-region-unknown": "地区代码可能已停用，请对照证件原件核实",
    "credit-code-form": "应为18位数字和大写字母（不含I、O、S、V、Z），第3至8位为数字，请核对后重新填写",
    "credit-code-check-digit": "请对照营业执照或登记证书逐位核对",
    "credit-code-registry-unknown": "请对照营业执照或登记证书核实首位",
    "case-no-form": "应为23位：2位字母、20位数字和1位校验位，请对照受理回执核对",
    "case-no-date": "第9至16位为收件日期，请对照受理回执核对",
    "case-no-check-digit": "请对照受理回执逐位核对",
    "certification-number-form": "应为19位：RD、16位数字和1位校验位，请对照认定结果核对",
    "certification-number-check-digit": "请对照认定结果逐位核对",
    "name-empty": "请填写姓名",
    "name-too-long": "姓名最长{most}个字符，请核对",
    "name-invisible-character": "{characters}：请删去后重新填写，勿从网页或文档中复制",
    "name-character": "{characters}：姓名中只能有文字和间隔号，请对照证件核对",
    "name-separator": "间隔号“·”只能在两个字之间，且不能连用",
    "name-private-use": "{characters}：该字在其他系统中可能无法显示，请提供证件原件核实",
}
"""What to do about each problem; `{…}` is filled in."""

_WARNINGS = frozenset({"document-region-unknown", "credit-code-registry-unknown", "name-private-use"})


def refuses(problems: Iterable[Problem]) -> bool:
    """Say whether any of the problems is more than a warning."""
    return any(not problem.warning for problem in problems)


# --- document numbers ---------------------------------------------------------------------------------------------

_EIGHTEEN = re.compile(r"[0-9]{17}[0-9X]")
_FORMS = {
    DocumentType.RESIDENT_IDENTITY_CARD: (_EIGHTEEN, "应为18位：17位数字和1位校验位（数字或X）"),
    DocumentType.HMT_RESIDENCE_PERMIT: (
        re.compile(r"8[123][0-9]{15}[0-9X]"),
        "应为18位，以81、82或83开头，末位为校验位（数字或X）",
    ),
    DocumentType.FOREIGN_PERMANENT_RESIDENCE: (
        re.compile(r"9[0-9]{16}[0-9X]|[A-Z]{3}[0-9]{12}"),
        "应为以9开头的18位号码，或3位字母加12位数字",
    ),
    DocumentType.HM_TRAVEL_PERMIT: (
        re.compile(r"[HM][0-9]{8}(?:[0-9]{2})?"),
        "应为字母H或M加8位数字（旧版为10位数字）",
    ),
    DocumentType.TAIWAN_TRAVEL_PERMIT: (
        re.compile(r"[0-9]{8}|[0-9]{10}[A-Z]?"),
        "应为8位数字（旧版为10位数字，可带1位字母）",
    ),
    DocumentType.PASSPORT: (re.compile(r"(?=.*[0-9])[A-Z0-9]{5,15}"), "应为5至15位字母和数字，至少含1位数字"),
}

_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PROVINCES = frozenset(
    str(code)
    for first, last in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71))
    for code in range(first, last + 1)
)
_HMT_REGIONS = frozenset({"810000", "820000", "830000"})

_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
# Not str.upper: it would turn letters that are no ASCII, such as a long s, into ones that are.
_UPPER_CASE = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


def normalise_number(text: str) -> str:
    """Return a document or credit number as it is stored and looked up.

    Full-width characters become half-width, letters upper-case; blanks, hyphens and the brackets that old
    台胞证 print around the last letter go.
    """
    return re.sub(r"[\s()\-]", "", text.translate(_HALF_WIDTH).translate(_UPPER_CASE))


def resident_check_digit(first17: str) -> str:
    """Return the check character of 17 digits: ISO 7064 MOD 11-2, as GB 11643 uses it. Raises `ValueError`."""
    if not re.fullmatch(r"[0-9]{17}", first17):
        raise ValueError("the check character is made from 17 digits")
    return "10X98765432"[sum(int(d) * w for d, w in zip(first17, _RESIDENT_WEIGHTS, strict=True)) % 11]


def check_document(kind: DocumentType, number: str, *, on: date | None = None) -> list[Problem]:
    """Return what is wrong with a document number; `on` is today, to refuse a birth date that lies after it."""
    text = normalise_number(number)
    pattern, expected = _FORMS[kind]
    if not pattern.fullmatch(text):
        return [_problem("document-form", document=kind.label, expected=expected)]
    if not _carries_birth_date(kind, text):
        return []
    other = _other_type(kind, text)
    if other is not None:
        return [_problem("document-type-mismatch", other=other.label)]
    problems = _check_birth(text, on)
    if resident_check_digit(text[:17]) != text[17]:
        problems.append(_problem("document-check-digit"))
    if not _known_region(kind, text):
        problems.append(_problem("document-region-unknown"))
    return problems


def read_resident_number(number: str) -> ResidentFacts:
    """Return what an 18-digit number says of its holder (resident, permit or permanent residence alike).

    Raises `ValueError` when the number has no birth date or its check character is wrong.
    """
    text = normalise_number(number)
    birth = _birth(text) if _EIGHTEEN.fullmatch(text) else None
    if birth is None or resident_check_digit(text[:17]) != text[17]:
        raise ValueError("not a valid 18-digit identity number")
    return ResidentFacts(text[:6], birth, Sex.MALE if int(text[16]) % 2 else Sex.FEMALE)


def _carries_birth_date(kind: DocumentType, text: str) -> bool:
    with_birth = {
        DocumentType.RESIDENT_IDENTITY_CARD,
        DocumentType.HMT_RESIDENCE_PERMIT,
        DocumentType.FOREIGN_PERMANENT_RESIDENCE,
    }
    return kind in with_birth and len(text) == 18


def _other_type(kind: DocumentType, text: str) -> DocumentType | None:
    """Name the document that a number given for a resident identity card really belongs to."""
    if kind is not DocumentType.RESIDENT_IDENTITY_CARD:
        return None
    if text.startswith("9"):
        return DocumentType.FOREIGN_PERMANENT_RESIDENCE
    return DocumentType.HMT_RESIDENCE_PERMIT if text[:6] in _HMT_REGIONS else None


def _known_region(kind: DocumentType, text: str) -> bool:
    match kind:
        case DocumentType.HMT_RESIDENCE_PERMIT:
            return text[:6] in _HMT_REGIONS
        case DocumentType.FOREIGN_PERMANENT_RESIDENCE:
            return text[1:3] in _PROVINCES
        case _:
            return text[:2] in _PROVINCES and text[2:6] != "0000"


def _check_birth(text: str, on: date | None) -> list[Problem]:
    birth = _birth(text)
    if birth is None:
        return [_problem("document-birth-date")]
    if on is not None and birth > on:
        return [_problem("document-birth-in-future")]
    return []


def _birth(text: str) -> date | None:
    born = _date(text[6:14])
    # A birth before 1800 is a slip of the hand; the standard's own example is of 1880.
    return born if born is not None and born.year >= 1800 else None


def _date(yyyymmdd: str) -> date | None:
    try:
        return date(int(yyyymmdd[:4]), int(yyyymmdd[4:6]), int(yyyymmdd[6:]))
    except ValueError:
        return None


# --- unified social credit codes ----------------------------------------------------------------------------------

CREDIT_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""GB 32100-2015, table 2: digits and letters without I, O, S, V, Z."""

_CREDIT_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
_CREDIT_FORM = re.compile(f"[{CREDIT_ALPHABET}]{{2}}[0-9]{{6}}[{CREDIT_ALPHABET}]{{10}}")
_REGISTRIES = frozenset("123456789ANY")


def credit_check_digit(first17: str) -> str:
    """Return the check character of the first 17 of a credit code (GB 32100, MOD 31). Raises `ValueError`."""
    if len(first17) != 17 or any(char not in CREDIT_ALPHABET for char in first17):
        raise ValueError("the check character is made from 17 characters of the credit code alphabet")
    total = sum(CREDIT_ALPHABET.index(char) * w for char, w in zip(first17, _CREDIT_WEIGHTS, strict=True))
    return CREDIT_ALPHABET[-total % 31]


def check_credit_code(code: str) -> list[Problem]:
    """Return what is wrong with a unified social credit code.

    Form and check character are hard. The organisation code within has a check character of its own, which old
    registers did not always keep: it is not looked at. An unknown registry (first character) is a warning.
    """
    text = normalise_number(code)
    if not _CREDIT_FORM.fullmatch(text):
        return [_problem("credit-code-form")]
    problems = []
    if credit_check_digit(text[:17]) != text[17]:
        problems.append(_problem("credit-code-check-digit"))
    if text[0] not in _REGISTRIES:
        problems.append(_problem("credit-code-registry-unknown"))
    return problems


# --- case numbers -------------------------------------------------------------------------------------------------

_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CASE_FORM = re.compile(r"[A-Z]{2}[0-9]{6}([0-9]{8})[0-9]{6}[0-9A-Z]")
MAX_SEQUENCE = 999_999
"""The last running number: of the cases of one platform on one day, of the decisions of one treasury in one year."""


def check_digit(text: str) -> str:
    """Return the check character of digits and capital letters: ISO 7064 MOD 37,36.

    It finds every single wrong character and nearly every exchange of neighbours, and is itself a digit or a
    letter. Raises `ValueError` for an empty text or any other character.
    """
    if not re.fullmatch(r"[0-9A-Z]+", text):
        raise ValueError("a check character is made from digits and capital letters")
    product = 36
    for char in text:
        product = ((product + _ALPHANUMERIC.index(char)) % 36 or 36) * 2 % 37
    return _ALPHANUMERIC[(1 - product) % 36]


def verify(text: str) -> bool:
    """Say whether the last character of a text is the check character of the rest."""
    return re.fullmatch(r"[0-9A-Z]{2,}", text) is not None and check_digit(text[:-1]) == text[-1]


def make_case_no(city_prefix: str, treasury: str, day: date, sequence: int) -> str:
    """Return a case number (办件编号), 23 characters: `AY` `410522` `20260302` `000017` and a check character.

    The parts are the city's two letters, the treasury code of the platform that took the application in, the day
    of receipt, the platform's running number of that day (1 to `MAX_SEQUENCE`), and `check_digit` of all of it.
    Raises `ValueError` when a part does not fit.
    """
    if not re.fullmatch(r"[A-Z]{2}", city_prefix) or not re.fullmatch(r"[0-9]{6}", treasury):
        raise ValueError("a case number needs two capital letters and a treasury code of six digits")
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"a case number's sequence is 1 to {MAX_SEQUENCE}, not {sequence}")
    body = f"{city_prefix}{treasury}{day:%Y%m%d}{sequence:06}"
    return body + check_digit(body)


def check_case_no(text: str) -> list[Problem]:
    """Return what is wrong with a case number that somebody typed."""
    number = normalise_number(text)
    match = _CASE_FORM.fullmatch(number)
    if match is None:
        return [_problem("case-no-form")]
    problems = []
    if _date(match[1]) is None:
        problems.append(_problem("case-no-date"))
    if not verify(number):
        problems.append(_problem("case-no-check-digit"))
    return problems


# --- numbers of decisions ------------------------------------------------------------------------------------------

CERTIFICATION, APPROVAL = "RD", "DX"
"""How the number of a certification (认定) begins, and that of an approved benefit (兑现)."""

_CERTIFICATION_FORM = re.compile(rf"{CERTIFICATION}[0-9]{{16}}[0-9A-Z]")


def make_decision_number(kind: str, treasury: str, year: int, sequence: int) -> str:
    """Return the number of a decision, 19 characters: `RD` `410522` `2026` `000017` and a check character.

    The parts are the kind (`CERTIFICATION`, `APPROVAL`), the code of the treasury, the year, the running number within
    these three (1 to `MAX_SEQUENCE`), and `check_digit` of all of it. Raises `ValueError` where the year's numbers are
    used up.
    """
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"a running number is 1 to {MAX_SEQUENCE}, not {sequence}")
    body = f"{kind}{treasury}{year:04}{sequence:06}"
    return body + check_digit(body)


def check_certification_number(text: str) -> list[Problem]:
    """Return what is wrong with the number of a certification that somebody typed."""
    number = normalise_number(text)
    if not _CERTIFICATION_FORM.fullmatch(number):
        return [_problem("certification-number-form")]
    return [] if verify(number) else [_problem("certification-number-check-digit")]


# --- names --------------------------------------------------------------------------------------------------------

# 〇, the unified ideographs, the compatibility ideographs, and planes 2 and 3 whole: Python's character tables are
# older than the newest extensions of GB 18030, so a category would call some of them unassigned.
_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fffd\U00030000-\U0003fffd"
_HAN_CHARACTER = re.compile(f"[{_HAN}]")
_BLANK_IN_HAN = re.compile(f"(?<=[{_HAN}]) (?=[{_HAN}])")
_STOP_IN_HAN = re.compile(f"(?<=[{_HAN}])\\.(?=[{_HAN}])")
_PUNCTUATION = frozenset(" ·-'.,()")
_NAME_VARIANTS = str.maketrans(
    dict.fromkeys("\u2022\u2027\u30fb\uff65\u2219\u22c5\u0387", "·")
    | dict.fromkeys("\u2018\u2019", "'")
    | dict.fromkeys("\u2010\u2011", "-")
)
# Letters, marks and signs that show nothing: grapheme joiner, Hangul fillers, Khmer inherent vowels, Braille blank,
# variation selectors.
_BLANK_LETTERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def normalise_name(text: str) -> str:
    """Return a name as it is stored and compared.

    NFC; every form of the middle dot is U+00B7, also the full stop that some systems put between Han characters;
    full-width letters are half-width; blanks are single, none at the ends, beside a dot or between Han
    characters. Nothing else changes: characters that may not stand in a name stay, for `check_name` to name.
    """
    name = unicodedata.normalize("NFC", text.translate(_HALF_WIDTH).translate(_NAME_VARIANTS))
    name = "".join(" " if unicodedata.category(char) == "Zs" else char for char in name)
    name = _STOP_IN_HAN.sub("·", re.sub(" +", " ", name).strip(" "))
    return _BLANK_IN_HAN.sub("", re.sub(" ?· ?", "·", name))


def invisible_characters(text: str) -> list[str]:
    """Return the characters of any text that show nothing and are no blank: two texts that look alike differ by them.

    Control, zero-width and bidirectional characters, line separators, variation selectors, lone surrogates.
    """
    return [char for char in text if _kind(char) == "name-invisible-character"]


def check_name(text: str) -> list[Problem]:
    """Return what is wrong with a person's name.

    Letters and marks of any script and every Han character up to plane 3 are right. Control, zero-width and
    bidirectional characters, variation selectors and lone surrogates are refused as invisible; digits, symbols
    and radicals as unusable. A character of the private use area means something on one system only: a warning.
    """
    name = normalise_name(text)
    if all(char in _PUNCTUATION for char in name):
        return [_problem("name-empty")]
    problems = []
    if len(name) > MAX_NAME:
        problems.append(_problem("name-too-long", most=MAX_NAME))
    kinds = {char: _kind(char) for char in name}
    for code in _CHARACTER_PROBLEMS:
        found = [char for char, kind in kinds.items() if kind == code]
        if found:
            problems.append(_problem(code, characters="、".join(_show(char) for char in found[:5])))
    if re.search(r"^·|··|·$", name):
        problems.append(_problem("name-separator"))
    return problems


_CHARACTER_PROBLEMS = ("name-invisible-character", "name-character", "name-private-use")


def _kind(char: str) -> str | None:
    """Return the code of the problem that a character is, or None for one that may stand in a name."""
    if _HAN_CHARACTER.match(char) or char in _PUNCTUATION:
        return None
    category = unicodedata.category(char)
    if category in {"Cc", "Cf", "Cs", "Zl", "Zp"} or _BLANK_LETTERS.match(char):
        return "name-invisible-character"
    if category == "Co" and char < "\uffff":
        return "name-private-use"
    return None if category[0] in "LM" else "name-character"


def _show(char: str) -> str:
    shows = char.isprintable() and not _BLANK_LETTERS.match(char)
    return f"“{char}”（U+{ord(char):04X}）" if shows else f"U+{ord(char):04X}"


# --- masking ------------------------------------------------------------------------------------------------------


def mask_name(name: str) -> str:
    """Return a name for notices and logs: its first character and one star, however long it is (`张*`)."""
    return normalise_name(name)[:1] + "*"


def mask_number(number: str) -> str:
    """Return a document or account number for notices and logs (`4105**********1234`).

    The first and last four characters stay where at least seven lie between them, else the first and last two
    of eight or more; a shorter number is hidden whole.
    """
    text = normalise_number(number)
    shown = 4 if len(text) >= 15 else 2 if len(text) >= 8 else 0
    return text[:shown] + "*" * (len(text) - 2 * shown) + text[len(text) - shown :]


def _problem(code: str, **given: object) -> Problem:
    return Problem(code, TITLES[code], ADVICE[code].format_map(given), code in _WARNINGS)
