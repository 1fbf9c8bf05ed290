"""What the policy says of an application: kept with it, told clause by clause, and never guessed."""

from uuid import uuid4

import pytest

from tests.intake.builders import ALLOWANCE, CERTIFICATION, DISTRICT, SCHOOLING, a_filing, an_employer, licences
from tests.intake.conftest import House, uuids
from tests.intake.test_course import completed


@pytest.mark.article("第二条")
async def test_a_decision_is_kept_with_the_application_and_is_the_self_check_s(house: House) -> None:
    portal, employer = house.portal(), an_employer()
    receipt = await portal.file(employer=employer, facts={"person.degree": "doctor", "employer.demand_declared": True})
    assert receipt["state"] == "accepted"
    kept = (await portal.get(f"/applications/{receipt['id']}/decision")).body
    assert (kept["case_no"], kept["policy"]) == (receipt["case_no"], receipt["policy"])
    assert [one["item"] for one in kept["decisions"]] == ["talent_certification", "living_allowance"]
    certification = {clause["rule"]: clause for clause in kept["decisions"][0]["clauses"]}
    assert certification["condition.master"]["verdict"] == "pass"
    assert certification["condition.employer-in-good-standing"]["verdict"] == "undetermined"
    question = {
        "items": [CERTIFICATION, {**ALLOWANCE, "category": "master"}],
        "employer": employer["credit_code"],
        "facts": {"person.degree": "doctor", "employer.demand_declared": True},
    }
    assert (await portal.post("/eligibility", question)).body["decisions"] == kept["decisions"]


@pytest.mark.article("第二条")
async def test_a_filing_that_states_nothing_is_undetermined_and_accepted(house: House) -> None:
    receipt = await house.portal().file()
    assert receipt["state"] == "accepted"
    kept = (await house.portal().get(f"/applications/{receipt['id']}/decision")).body
    assert {one["verdict"] for one in kept["decisions"]} == {"undetermined"}


@pytest.mark.article("第二条")
async def test_who_states_what_the_policy_excludes_is_told_the_clause(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(facts={"person.degree": "bachelor"})
    assert (receipt["state"], receipt["reason"]["code"]) == ("not_accepted", "not-covered")
    steps = (await portal.show(receipt["id"]))["timeline"]
    assert any("没有硕士以上学位；请按实际学位改报人才类别" in step["detail"] for step in steps)
    kept = (await portal.get(f"/applications/{receipt['id']}/decision")).body
    assert "fail" in {one["verdict"] for one in kept["decisions"]}


@pytest.mark.article("第二条")
async def test_what_a_department_finds_is_decided_anew_clause_by_clause(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(facts={"person.degree": "master", "employer.demand_declared": True})
    application, items = uuids(receipt)
    certification = items["talent_certification"]
    path = f"/applications/{receipt['id']}/decision"
    assert {one["verdict"] for one in (await portal.get(path)).body["decisions"]} == {"undetermined"}
    await house.hear(completed(application, certification, uuid4(), facts={"employer.good_standing": True}))
    kept = (await portal.get(path)).body["decisions"]
    assert {one["verdict"] for one in kept} == {"pass"}
    [standing] = [each for each in kept[0]["clauses"] if each["rule"] == "condition.employer-in-good-standing"]
    assert (standing["seen"][0]["words"], standing["missing"]) == ("是", [])
    await house.hear(completed(application, certification, uuid4(), facts={"person.degree": "none"}))
    kept = (await portal.get(path)).body["decisions"]
    assert {one["verdict"] for one in kept} == {"fail"}
    assert "没有硕士以上学位；请按实际学位改报人才类别" in {each["sentence"] for each in kept[0]["clauses"]}


async def test_a_result_without_findings_leaves_the_decision(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(facts={"person.degree": "master"})
    application, items = uuids(receipt)
    before = (await portal.get(f"/applications/{receipt['id']}/decision")).body
    await house.hear(completed(application, items["talent_certification"], uuid4()))
    assert (await portal.get(f"/applications/{receipt['id']}/decision")).body == before


async def test_a_correction_is_decided_anew(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(materials=licences("identity_document"), facts={"person.degree": "master"})
    assert receipt["state"] == "correction"
    corrected = await portal.post(f"/applications/{receipt['id']}:correct", {"facts": {"person.degree": "none"}})
    assert (corrected.body["state"], corrected.body["reason"]["code"]) == ("not_accepted", "not-covered")
    kept = (await portal.get(f"/applications/{receipt['id']}/decision")).body["decisions"]
    [degree] = [clause for clause in kept[0]["clauses"] if clause["rule"] == "condition.master"]
    assert degree["seen"][0]["words"] == "无学位"


async def test_a_transferred_application_takes_its_decision_with_it(house: House) -> None:
    receipt = await house.clerk(DISTRICT).file(channel="on_site", facts={"person.degree": "master"})
    assert receipt["state"] == "transferred"
    paths = [f"/applications/{one['id']}/decision" for one in (receipt, receipt["successor"])]
    here, there = [(await house.clerk(DISTRICT).get(paths[0])).body, (await house.clerk().get(paths[1])).body]
    assert here["decisions"] == there["decisions"]
    assert here["decisions"]


async def test_an_item_without_a_category_has_no_decision(house: House) -> None:
    receipt = await house.portal().file(
        items=[SCHOOLING], materials=licences("household_register", "birth_certificate")
    )
    kept = (await house.portal().get(f"/applications/{receipt['id']}/decision")).body
    assert kept["decisions"] == []


async def test_others_do_not_see_it(house: House) -> None:
    receipt = await house.portal("one").file()
    (await house.portal("two").get(f"/applications/{receipt['id']}/decision")).problem(404, "not-found")


async def test_facts_that_are_not_the_applicant_s_to_state_are_refused_all_at_once(house: House) -> None:
    facts = {
        "employer.good_standing": True,
        "person.degree": "magister",
        "person.beauty": True,
        "person.startup_here": 1,
    }
    told = (await house.portal().post("/applications", a_filing(facts=facts))).problem(422, "filing-wrong")
    assert {(error["field"], error["code"]) for error in told["errors"]} == {
        ("/facts/employer.good_standing", "fact-not-yours"),
        ("/facts/person.degree", "unknown-fact-value"),
        ("/facts/person.beauty", "unknown-fact"),
        ("/facts/person.startup_here", "fact-wrong-type"),
    }
