"""Accepted applications for tests."""

from datetime import UTC, date, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from libs.common.calendar import local_date
from libs.common.events import AcceptedItem, ApplicationAccepted, ApplicationWithdrawn
from tests.common.packs import anyang

CITY, COUNTY, DISTRICT = "410500", "410522", "410502"
_numbers = count(1)


def today() -> date:
    return local_date(datetime.now(UTC))


def an_item(code: str, **changes: Any) -> AcceptedItem:
    kind = anyang().item(code, date(2026, 3, 2)).kind.value
    given: dict[str, Any] = {"item": uuid4(), "code": code, "kind": kind}
    if kind == "certification":
        given["category"] = "master"
    if kind == "benefit":
        given["benefit"] = code
    return AcceptedItem(**given | changes)


def an_acceptance(*codes: str, items: tuple[AcceptedItem, ...] = (), **changes: Any) -> ApplicationAccepted:
    filed = (*items, *(an_item(code) for code in codes)) or (an_item("talent_certification"),)
    given: dict[str, Any] = {
        "policy": anyang().identity,
        "application": uuid4(),
        "case_no": f"AY41052220260302{next(_numbers):06}{uuid4().hex[:4]}",
        "accepted_on": today(),
        "treasury": COUNTY,
        "employer": uuid4(),
        "employer_kind": "enterprise",
        "beneficiary": uuid4(),
        "payee_account": uuid4(),
        "items": filed,
    }
    return ApplicationAccepted(**given | changes)


def a_withdrawal(application: UUID) -> ApplicationWithdrawn:
    return ApplicationWithdrawn(policy=anyang().identity, application=application, withdrawn_at=datetime.now(UTC))
