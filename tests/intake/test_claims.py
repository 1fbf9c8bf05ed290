"""Claims: each certification and benefit once a person, whatever number or record it is asked under."""

import asyncio
from datetime import UTC, date, datetime
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from deploy.sample.identities import make_document_number
from libs.common.auth import ServiceTokens
from libs.common.calendar import local_date
from libs.common.events import ApplicationClosed, ItemResult
from libs.common.identity import DocumentType, Sex
from tests.intake.builders import CERTIFICATION, COUNTY, DISTRICT, a_number, a_person, an_employer, licences
from tests.intake.conftest import Answer, Caller, House, uuids


def by_passport(name: str = "王小明") -> dict[str, Any]:
    number = make_document_number(Random(uuid4().int), DocumentType.PASSPORT, date(1985, 5, 5), Sex.MALE)
    return {"name": name, "documents": [{"type": "passport", "number": number}]}


async def merge(house: House, merged: Any, into: Any) -> Answer:
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    asked = {"merged": merged["beneficiary"], "into": into["beneficiary"], "reason": "一人两证"}
    return await office.post("/people:merge", asked)


async def end(house: House, receipt: Any, state: Any, result: Any) -> None:
    application, items = uuids(receipt)
    results = tuple(ItemResult(item=item, result=result) for item in items.values())
    policy = house.service.packs.on(local_date(datetime.now(UTC))).identity
    on = datetime.now(UTC).date()
    await house.hear(
        ApplicationClosed(policy=policy, application=application, state=state, closed_on=on, items=results)
    )


@pytest.mark.parametrize("granted", [False, True])
async def test_two_records_that_hold_the_same_benefit_are_not_merged(house: House, granted: bool) -> None:
    card, passport = await house.portal().file(), await house.portal("portal-b").file(beneficiary=by_passport())
    assert card["state"] == passport["state"] == "accepted"
    if granted:
        await end(house, card, "closed", "done")
    told = (await merge(house, passport, card)).problem(409, "claims-collide")
    assert card["case_no"] in told["detail"]
    assert passport["case_no"] in told["detail"]
    assert not await house.rows("SELECT 1 FROM person WHERE merged_into IS NOT NULL")
    assert not await house.rows("SELECT 1 FROM person_merge")


async def test_a_collision_names_no_case_of_another_platform(house: House) -> None:
    card = await house.portal().file()
    person, care = by_passport(), {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}
    here = await house.portal().file(beneficiary=person, **care)
    there = await house.portal().file(beneficiary=person, employer=an_employer(DISTRICT))
    told = (await merge(house, here, card)).problem(409, "claims-collide")["detail"]
    assert card["case_no"] in told
    assert "其他平台 1 件" in told
    assert there["case_no"] not in told


async def test_what_both_records_were_granted_already_is_found_by_the_merge_and_stays_on_the_list(house: House) -> None:
    """Nobody can withdraw either: refusing would leave one person two records, and nobody told."""
    card, passport = await house.portal().file(), await house.portal("portal-b").file(beneficiary=by_passport())
    for receipt in (card, passport):
        await end(house, receipt, "closed", "done")
    answer = await merge(house, passport, card)
    assert answer.status == 200
    found = answer.body["double_grants"]
    assert [(one["item"], one["person"]) for one in found] == [
        ("living_allowance", card["beneficiary"]), ("talent_certification", card["beneficiary"]),
    ]  # fmt: skip
    assert {grant["case_no"] for grant in found[0]["grants"]} == {card["case_no"], passport["case_no"]}
    assert found[0]["grants"][0]["paid"] == {"fen": 0, "currency": "CNY"}
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    first = (await office.get("/people/double-grants", params={"limit": 1})).body
    second = (await office.get("/people/double-grants", params={"limit": 1, "cursor": first["next"]})).body
    assert [*first["items"], *second["items"]] == found
    far = house.a("talent_office", org_unit=f"{DISTRICT}/talent_office")
    assert (await far.get("/people/double-grants")).body["items"] == []
    (await house.portal().get("/people/double-grants")).problem(403, "forbidden")
    again = await house.portal().file(beneficiary=by_passport(), items=[CERTIFICATION])
    assert (await merge(house, again, card)).problem(409, "claims-collide")


async def test_nobody_is_on_the_list_whose_second_application_came_to_nothing(house: House) -> None:
    card, passport = await house.portal().file(), await house.portal("portal-b").file(beneficiary=by_passport())
    await end(house, card, "refused", "refused")
    assert (await merge(house, passport, card)).body["double_grants"] == []


@pytest.mark.parametrize(("state", "result"), [("withdrawn", "withdrawn"), ("refused", "refused")])
async def test_once_one_of_the_two_came_to_nothing_the_records_are_merged(
    house: House, state: str, result: str
) -> None:
    card, passport = await house.portal().file(), await house.portal("portal-b").file(beneficiary=by_passport())
    await end(house, card, state, result)
    assert (await merge(house, passport, card)).status == 200
    (held,) = await house.rows("SELECT DISTINCT person::text, application::text FROM claim")
    assert tuple(held) == (card["beneficiary"], passport["id"])


async def test_a_merge_without_collision_moves_the_claims(house: House) -> None:
    card = a_person()
    first = await house.portal().file(beneficiary=card, items=[CERTIFICATION])
    flexible = {"code": "flexible_certification", "category": "flexible"}
    others = {"items": [flexible], "materials": licences("identity_document", "cooperation_agreement")}
    passport = by_passport()
    second = await house.portal().file(beneficiary=passport, **others)
    assert second["state"] == "accepted"
    assert (await merge(house, second, first)).status == 200
    held = await house.rows("SELECT person::text, code FROM claim ORDER BY code")
    assert [tuple(row) for row in held] == [
        (first["beneficiary"], "flexible_certification"), (first["beneficiary"], "talent_certification"),
    ]  # fmt: skip
    for person in (card, passport):
        again = await house.portal("portal-b").file(beneficiary=person)
        assert (again["state"], again["reason"]["code"]) == ("not_accepted", "duplicate")


async def test_after_a_merge_the_documents_of_both_records_are_one_persons(house: House) -> None:
    card, passport = a_person(), by_passport()
    care: dict[str, Any] = {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}
    first, second = [await house.portal().file(beneficiary=person, **care) for person in (card, passport)]
    await merge(house, second, first)
    service = Caller(house.client, ServiceTokens(house.service.settings, "finance").token())
    refs = [first["beneficiary"], second["beneficiary"]]
    answer = await service.post("/people:resolve", {"refs": refs, "fields": ["documents"], "purpose": "payout"})
    numbers = [person["documents"][0]["number"] for person in (card, passport)]
    assert [[it["number"] for it in one["documents"]] for one in answer.body["items"]] == [numbers, numbers]


async def test_a_filing_and_a_merge_at_once_never_leave_two_claims(house: House) -> None:
    for _ in range(5):
        passport = by_passport()
        first = await house.portal().file()
        second = await house.portal().file(
            beneficiary=passport, items=[{"code": "medical_care"}], materials=licences("identity_document")
        )
        _, filed = await asyncio.gather(merge(house, second, first), house.portal().file(beneficiary=passport))
        leading = "SELECT COALESCE(p.merged_into, p.ref), c.code FROM claim c JOIN person p ON p.ref = c.person"
        found = [tuple(row) for row in await house.rows(leading)]
        assert len(found) == len(set(found)), filed


async def test_a_filing_under_anothers_number_with_a_wrong_name_claims_nothing(house: House) -> None:
    number = a_number()
    care: dict[str, Any] = {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}
    await house.portal().file(beneficiary=a_person("王小明", number), **care)
    stranger = await house.portal("portal-b").file(beneficiary=a_person("赵大", number))
    assert "name-differs" in {defect["code"] for defect in stranger["defects"]}
    assert not await house.rows("SELECT 1 FROM claim")
    assert (await house.portal().file(beneficiary=a_person("王小明", number)))["state"] == "accepted"


async def test_a_filing_with_the_documents_of_two_people_claims_nothing(house: House) -> None:
    one, other = a_person(), by_passport()
    care: dict[str, Any] = {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}
    for person in (one, other):
        await house.portal().file(beneficiary=person, **care)
    both = {**one, "documents": [*one["documents"], *other["documents"]]}
    mixed = await house.portal("portal-b").file(beneficiary=both)
    assert [defect["code"] for defect in mixed["defects"]] == ["documents-of-different-people"]
    assert (await house.portal().file(beneficiary=one))["state"] == "accepted"


async def test_a_correction_of_something_else_keeps_the_claim(house: House) -> None:
    person = a_person()
    first = await house.portal().file(beneficiary=person, payee_account=None)
    assert first["state"] == "correction"
    assert (await house.portal("portal-b").file(beneficiary=person))["state"] == "not_accepted"
