"""Invented document numbers and credit codes: well formed, and nobody's.

Every function takes the random generator, so that one seed gives one population. The numbers are drawn, not
collected; that one of them belongs to somebody cannot be ruled out and means nothing.
"""

from datetime import date
from random import Random

from libs.common.identity import (
    CREDIT_ALPHABET,
    DocumentType,
    Sex,
    credit_check_digit,
    resident_check_digit,
)

_ORGANISATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def make_resident_number(rng: Random, region: str, birth: date, sex: Sex) -> str:
    """Return an 18-digit number of a region (first six digits), birth date and sex. Also for `81`–`83` and `9`."""
    # Sequences are odd for men and even for women, 001 to 999.
    sequence = rng.randrange(1, 1000, 2) if sex is Sex.MALE else rng.randrange(2, 1000, 2)
    body = f"{region}{birth:%Y%m%d}{sequence:03}"
    return body + resident_check_digit(body)


def make_document_number(rng: Random, kind: DocumentType, birth: date, sex: Sex, region: str = "410500") -> str:
    """Return a number of any document type; `region` is used by the resident identity card only."""
    match kind:
        case DocumentType.RESIDENT_IDENTITY_CARD:
            return make_resident_number(rng, region, birth, sex)
        case DocumentType.HMT_RESIDENCE_PERMIT:
            return make_resident_number(rng, rng.choice(("810000", "820000", "830000")), birth, sex)
        case DocumentType.FOREIGN_PERMANENT_RESIDENCE:
            return _foreign_permanent_residence(rng, birth, sex)
        case DocumentType.HM_TRAVEL_PERMIT:
            return rng.choice("HM") + _digits(rng, 8)
        case DocumentType.TAIWAN_TRAVEL_PERMIT:
            return _digits(rng, 8)
        case DocumentType.PASSPORT:
            return rng.choice(_CAPITALS) + _digits(rng, 8)


def make_credit_code(rng: Random, region: str, registry: str = "9", category: str = "1") -> str:
    """Return a unified social credit code of a region; its organisation code has its own check character (GB 11714).

    `registry` and `category` are the first two characters of GB 32100: 91 is an enterprise, 12 an institution,
    11 a government office, 52 a social organisation.
    """
    organisation = "".join(rng.choices(CREDIT_ALPHABET, k=8))
    body = f"{registry}{category}{region}{organisation}{_organisation_check_digit(organisation)}"
    return body + credit_check_digit(body)


def with_wrong_check_digit(number: str) -> str:
    """Return the number with another last character: what a slip of the hand looks like."""
    return number[:-1] + ("1" if number[-1] != "1" else "2")


def _foreign_permanent_residence(rng: Random, birth: date, sex: Sex) -> str:
    country_letters, country_digits = rng.choice((("USA", "840"), ("DEU", "276"), ("JPN", "392"), ("KOR", "410")))
    if rng.random() < 0.5:
        return f"{country_letters}4105{birth:%y%m%d}{_digits(rng, 2)}"
    return make_resident_number(rng, f"941{country_digits}", birth, sex)


def _organisation_check_digit(first8: str) -> str:
    total = sum(int(char, 36) * weight for char, weight in zip(first8, _ORGANISATION_WEIGHTS, strict=True))
    return "0123456789X"[-total % 11]


def _digits(rng: Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))
