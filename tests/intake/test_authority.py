"""Who may file what: for themselves, for others with an authority, and never for whoever their token does not name."""

from typing import Any
from uuid import uuid4

import pytest

from tests.intake.builders import COUNTY, a_filing, a_mandate, a_person, an_account, licences
from tests.intake.conftest import Caller, House

FOR_THEMSELVES: dict[str, Any] = {"applicant": {"kind": "person"}}
CARE: dict[str, Any] = {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}
POWER = {"kind": "power_of_attorney", "from": "2020-01-01", "to": "2099-12-31", "evidence": "委托书 1 号"}


async def known(house: House, person: dict[str, Any]) -> str:
    """The reference of a person who was filed once; by the portal, which has authenticated its user."""
    receipt = await house.portal().file(beneficiary=person, payee_account=None, **FOR_THEMSELVES, **CARE)
    return str(receipt["beneficiary"])


async def refused(caller: Caller, field: str = "/applicant", **changes: Any) -> None:
    told = (await caller.post("/applications", a_filing(**changes))).problem(422, "filing-wrong")
    assert [(error["field"], error["code"]) for error in told["errors"]] == [(field, "filer-not-named")]


async def stored(house: House) -> list[int]:
    tables = ("person", "person_name", "person_document", "payee_account", "application", "claim", "idempotency")
    return [len(await house.rows(f"SELECT 1 FROM {table}")) for table in tables]  # noqa: S608


async def test_a_talent_files_for_themselves_and_reads_it(house: House) -> None:
    me = a_person()
    talent = house.a("talent", person=await known(house, me))
    for applicant in ({"kind": "person"}, {"kind": "person", "person": me}):
        receipt = await talent.file(beneficiary=me, applicant=applicant)
        assert receipt["state"] == ("accepted" if "person" not in applicant else "not_accepted")
        assert (await talent.show(receipt["id"]))["beneficiary"] == receipt["beneficiary"]


async def test_with_somebody_elses_token_nothing_is_filed_stored_or_claimed(house: House) -> None:
    victim, me = a_person(), a_person("赵大")
    await known(house, victim)
    mine = await known(house, me)
    before = await stored(house)
    foreign = {"beneficiary": victim, "payee_account": an_account(), **FOR_THEMSELVES}
    for person in (mine, str(uuid4()), "nobody", None):
        await refused(house.a("talent", person=person), **foreign)
    await refused(house.a("talent", person=mine), beneficiary=victim, applicant={"kind": "employer"})
    await refused(house.a("talent", person=mine), beneficiary=a_person("新人"), **FOR_THEMSELVES)
    assert await stored(house) == before
    assert (await house.portal().file(beneficiary=victim, **FOR_THEMSELVES))["state"] == "accepted"


async def test_a_talent_acts_for_another_with_a_power_of_attorney_and_reads_it(house: House) -> None:
    me = a_person("赵大")
    talent = house.a("talent", person=await known(house, me))
    for_another = {"beneficiary": a_person(), **FOR_THEMSELVES}
    bare = await talent.file(**for_another, handler={"person": me})
    assert [defect["code"] for defect in bare["defects"]] == ["authority-missing"]
    with_power = {"handler": {"person": me, "authority": POWER}}
    answer = await talent.post(f"/applications/{bare['id']}:correct", with_power)
    assert answer.body["state"] == "accepted"
    as_applicant = {"beneficiary": a_person(), "applicant": {"kind": "person", "person": me}}
    assert [d["code"] for d in (await talent.file(**as_applicant))["defects"]] == ["authority-missing"]


async def test_a_handler_files_what_names_them_as_the_handler_and_nothing_else(house: House) -> None:
    me = a_person("李经办")
    mine = await known(house, me)
    handler = house.a("handler", person=mine)
    receipt = await handler.file(handler={"person": me, "authority": a_mandate()})
    assert (receipt["state"], receipt["handler"]) == ("accepted", mine)
    assert (await handler.show(receipt["id"]))["id"] == receipt["id"]
    await refused(handler, "/handler")  # somebody else is
    await refused(handler, "/handler", handler=None, **FOR_THEMSELVES)
    await refused(handler, "/handler", beneficiary=me, payee_account=an_account("李经办"), **FOR_THEMSELVES)


async def test_after_a_merge_a_token_with_either_reference_is_its_persons(house: House) -> None:
    card, passport = a_person(), {"name": "王小明", "documents": [{"type": "passport", "number": "E12345678"}]}
    merged = (await house.portal().file(beneficiary=passport, **CARE))["beneficiary"]
    into = (await house.portal().file(beneficiary=card, **CARE))["beneficiary"]
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    answer = await office.post("/people:merge", {"merged": merged, "into": into, "reason": "一人两证"})
    assert answer.status == 200
    items = iter([{"code": "talent_certification", "category": "master"}, {"code": "medical_care"}])
    for ref, person in ((merged, card), (into, passport)):
        filed = await house.a("talent", person=ref).file(beneficiary=person, items=[next(items)], **FOR_THEMSELVES)
        assert filed["state"] == "accepted"


async def test_what_is_filed_for_another_without_authority_claims_nothing(house: House) -> None:
    person = a_person()
    for changes in (
        {"handler": None},
        {"handler": {"person": a_person("李经办")}},
        {"applicant": {"kind": "person", "person": a_person("赵大")}},
        {"applicant": {"kind": "person", "person": a_person("赵大", person["documents"][0]["number"])}},
    ):
        receipt = await house.portal("portal-b").file(beneficiary=person, **changes)
        assert receipt["state"] == "correction"
    assert not await house.rows("SELECT 1 FROM claim")
    assert (await house.portal().file(beneficiary=person))["state"] == "accepted"


async def test_the_talent_for_whom_somebody_filed_may_mend_it_but_not_make_it_anothers(house: House) -> None:
    me, portal = a_person(), house.portal()
    receipt = await portal.file(beneficiary=me, payee_account=None, materials=[])
    talent = house.a("talent", person=receipt["beneficiary"])
    path = f"/applications/{receipt['id']}:correct"
    for change in ({"beneficiary": a_person()}, {"applicant": {"kind": "person"}, "beneficiary": a_person("赵大")}):
        told = (await talent.post(path, change)).problem(422, "filing-wrong")
        assert [error["code"] for error in told["errors"]] == ["filer-not-named"]
    assert (await talent.post(path, {"beneficiary": me, "payee_account": an_account()})).body["state"] == "correction"
    files = {"data": {"code": "degree_certificate"}, "files": {"file": ("a.pdf", b"%PDF-1", "application/pdf")}}
    headers = {"Idempotency-Key": "k"}
    assert (await talent._ask("POST", path.replace(":correct", "/materials"), headers=headers, **files)).status == 201
    papers = licences("identity_document", "labour_contract")
    assert (await talent.post(path, {"materials": papers})).body["state"] == "accepted"


@pytest.mark.parametrize("channel", ["online", "on_site"])
async def test_at_a_window_too_an_employer_comes_by_somebody(house: House, channel: str) -> None:
    receipt = await house.clerk().file(channel=channel, handler=None)
    assert [defect["code"] for defect in receipt["defects"]] == ["handler-missing"]
