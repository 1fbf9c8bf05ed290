"""Filings for tests: right in every way, until a test changes something."""

import copy
from datetime import date, timedelta
from itertools import count
from random import Random
from typing import Any

from deploy.sample.identities import make_credit_code, make_resident_number
from libs.common.identity import Sex, make_decision_number
from libs.common.policy import Pack
from services.intake.domain import Known, examine
from services.intake.filing import read_filing

COUNTY, CITY, DISTRICT = "410522", "410500", "410502"
_RNG = Random(20260302)


_DAYS = count()


def a_number(region: str = COUNTY, sex: Sex = Sex.MALE) -> str:
    """Another identity number at each call: of somebody born a day later."""
    return make_resident_number(_RNG, region, date(1970, 1, 1) + timedelta(days=next(_DAYS)), sex)


def a_credit_code(region: str = COUNTY) -> str:
    return make_credit_code(_RNG, region)


def a_person(name: str = "王小明", number: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "documents": [{"type": "resident_identity_card", "number": number or a_number()}],
        **more,
    }


def an_employer(treasury: str = COUNTY, kind: str = "enterprise", **more: Any) -> dict[str, Any]:
    return {
        "name": "安阳示例制造有限公司",
        "credit_code": a_credit_code(),
        "kind": kind,
        "affiliations": [{"kind": "fiscal", "treasury": treasury, "evidence": "财政隶属关系证明"}],
        **more,
    }


def licences(*codes: str) -> list[dict[str, Any]]:
    return [{"code": code, "evidence": "electronic_licence", "reference": f"DZ-{code}"} for code in codes]


def an_account(holder: str = "王小明", number: str = "6217000010001234567") -> dict[str, Any]:
    return {"holder": holder, "bank": "中国银行安阳分行", "branch_no": "104496000017", "number": number}


def a_certification_number(sequence: int = 1) -> str:
    return make_decision_number("RD", COUNTY, 2026, sequence)


CERTIFICATION = {"code": "talent_certification", "category": "master"}
ALLOWANCE = {"code": "living_allowance"}
SCHOOLING = {"code": "children_schooling"}
PAPERS = ("identity_document", "degree_certificate", "labour_contract")


def a_filing(**changes: Any) -> dict[str, Any]:
    """A certification with its living allowance, in order; a change to None leaves the field out."""
    filing: dict[str, Any] = {
        "channel": "online",
        "applicant": {"kind": "employer"},
        "beneficiary": a_person(),
        "employer": an_employer(),
        "payee_account": an_account(),
        "items": [CERTIFICATION, ALLOWANCE],
        "materials": licences(*PAPERS),
    }
    filing |= changes
    if filing["applicant"] == {"kind": "employer"} and "handler" not in changes:
        filing["handler"] = a_handler()
    return copy.deepcopy({field: value for field, value in filing.items() if value is not None})


def a_handler() -> dict[str, Any]:
    """The employer's handler: another one at each call."""
    return {"person": a_person("李经办"), "authority": a_mandate()}


def a_mandate(first: str = "2020-01-01", last: str = "2099-12-31") -> dict[str, Any]:
    return {"kind": "employer_mandate", "from": first, "to": last, "evidence": "单位授权书 1 号"}


def judgement(pack: Pack, body: dict[str, Any], on: date) -> str:
    """What intake makes of a filing by somebody it does not know. Raises FilingWrong."""
    filing = read_filing(body, pack, on)
    verdict = examine(pack, filing, Known(), on)
    if verdict.reason:
        return "not_accepted"
    if verdict.defects:
        return "correction"
    elsewhere = filing.platform is not None and filing.platform != verdict.platform
    return "transferred" if elsewhere else "accepted"
