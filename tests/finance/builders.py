"""Approvals and bank files for tests."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from libs.common.calendar import local_date
from libs.common.events import BenefitApproved
from tests.common.packs import anyang

CITY, DISTRICT, COUNTY, PROVINCE_MANAGED, ZONE, PROVINCE = "410500", "410502", "410522", "410526", "410571", "410000"
_numbers = count(1)


def today() -> date:
    return local_date(datetime.now(UTC))


def this_month() -> str:
    return f"{today():%Y-%m}"


def an_approval(**changes: Any) -> BenefitApproved:
    """A master's purchase subsidy in a district: 50,000 yuan in one payment, by default."""
    given: dict[str, Any] = {
        "policy": anyang().identity,
        "application": uuid4(),
        "item": uuid4(),
        "benefit": "purchase_subsidy",
        "number": f"DX{next(_numbers):06}",
        "certification": "RC000001",
        "category": "master",
        "beneficiary": uuid4(),
        "payee_account": uuid4(),
        "employer": uuid4(),
        "employer_kind": "enterprise",
        "treasury": DISTRICT,
        "accepted_on": today() - timedelta(days=7),
        "decided_on": today(),
    }
    return BenefitApproved(**given | changes)


def credited(reference: str, fen: int, on: date | None = None) -> str:
    return f"R|{reference}|{fen}|C|{on or today():%Y%m%d}|"


def bounced(reference: str, fen: int, on: date | None = None, reason: str = "R01") -> str:
    return f"R|{reference}|{fen}|B|{on or today():%Y%m%d}|{reason}"


def pending(reference: str, fen: int) -> str:
    return f"R|{reference}|{fen}|P||"


def a_result(*lines: str, finals: Sequence[str] = (), treasury: str = DISTRICT, number: str = "") -> bytes:
    """A result file of these lines; `finals` are the batches that it answers for good."""
    total = sum(int(line.split("|")[2]) for line in lines if line.split("|")[3] == "C")
    head = f"H|HQRES1|{number or uuid4().hex}|{treasury}|{today():%Y%m%d}|{len(lines)}|{total}"
    rows = [head, *(f"B|{batch}" for batch in finals), *lines, f"T|{len(lines)}|{total}"]
    return "".join(row + "\n" for row in rows).encode("gb18030")
