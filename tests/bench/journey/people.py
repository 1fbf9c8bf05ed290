"""Who files: each application of another person, of employers in two treasuries, filed by the employer's handler."""

import json
from datetime import date, timedelta
from random import Random
from typing import Any

from deploy.sample.identities import make_credit_code
from libs.common.identity import resident_check_digit
from tests.intake.builders import a_filing, a_mandate, a_person, an_employer

TREASURIES = ("410522", "410502")
"""A county and a district: what is paid there is settled with the city."""

EMPLOYERS = 40
WARM = 80
"""So many go before those who are timed, in each turn."""

_DAYS, _A_DAY = 20_000, 499
_FIRST_DAY = date(1950, 1, 1)


def filings(first: int, count: int, treasury: str | None = None) -> list[bytes]:
    """Filings number `first` and those after it, as JSON, where wished all of one treasury's employers. No two numbers
    are of the same person."""
    rng = Random(20210323)
    every = [(TREASURIES[n % len(TREASURIES)], n) for n in range(EMPLOYERS)]
    made = [(at, _employer(rng, at, n)) for at, n in every]
    employers = [employer for at, employer in made if treasury in {None, at}]
    return [
        json.dumps(
            a_filing(beneficiary=a_person(number=_number(number)), **employers[number % len(employers)]),
            ensure_ascii=False,
        ).encode()
        for number in range(first, first + count)
    ]


def _employer(rng: Random, treasury: str, number: int) -> dict[str, Any]:
    """An employer with its handler. Handlers stand behind all whom `_number` makes for filings."""
    handler = a_person(f"经办{'甲乙丙丁戊己庚辛壬癸'[number % 10]}", number=_number(_DAYS * _A_DAY - 1 - number))
    return {
        "employer": an_employer(treasury, credit_code=make_credit_code(rng, treasury)),
        "handler": {"person": handler, "authority": a_mandate()},
    }


def _number(person: int) -> str:
    """The identity number of somebody: born so many days after the first, so many of a day."""
    day, place = divmod(person, _A_DAY)
    body = f"410522{_FIRST_DAY + timedelta(days=day):%Y%m%d}{1 + 2 * place:03}"
    return body + resident_check_digit(body)
