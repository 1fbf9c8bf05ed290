"""The self-check: the same decision as a filing's, for whoever asks, with nothing filed and nothing kept."""

from typing import Any

import pytest

from tests.common.packs import anyang
from tests.intake.conftest import House

SOUND = {"person.degree": "master", "employer.good_standing": True, "employer.demand_declared": True}
CERTIFICATION = {"code": "talent_certification", "category": "master"}


async def asked(house: House, **question: Any) -> Any:
    answer = await house.portal().post("/eligibility", question)
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.article("第二条")
async def test_a_person_learns_clause_by_clause_what_the_policy_says(house: House) -> None:
    told = await asked(house, items=[CERTIFICATION], facts=SOUND, on="2026-03-02")
    assert told["policy"] == anyang().identity.model_dump()
    [decision] = told["decisions"]
    assert (decision["verdict"], decision["verdict_title"]) == ("pass", "符合")
    [degree] = [clause for clause in decision["clauses"] if clause["rule"] == "condition.master"]
    assert degree["seen"] == [{"name": "person.degree", "title": "最高学位", "value": "master", "words": "硕士"}]
    assert degree["assumption"] is True
    assert degree["document"] == "安办文〔2020〕2 号"


@pytest.mark.article("第二条")
async def test_what_is_left_out_is_named_and_is_no_refusal(house: House) -> None:
    [decision] = (await asked(house, items=[CERTIFICATION]))["decisions"]
    assert (decision["verdict"], decision["verdict_title"]) == ("undetermined", "尚不能确定")
    missing = {fact["name"]: fact for clause in decision["clauses"] for fact in clause["missing"]}
    assert set(missing) == {*SOUND, "employer.leading_enterprise"}
    assert missing["person.degree"]["material"] == "degree_certificate"
    assert missing["employer.good_standing"]["department"] == "human_resources"


@pytest.mark.article("第五条")
async def test_without_items_everything_is_tried_and_without_a_category_each(house: House) -> None:
    everything = (await asked(house, facts=SOUND))["decisions"]
    passed = {(each["item"], each["category"]) for each in everything if each["verdict"] == "pass"}
    assert ("living_allowance", "master") in passed
    assert ("living_allowance", "bachelor") in passed
    allowance = (await asked(house, items=[{"code": "living_allowance"}], facts=SOUND))["decisions"]
    assert {each["category"] for each in allowance} == {category.code for category in anyang().categories}
    [mine] = [each for each in allowance if each["category"] == "master"]
    assert mine["amount"] == {"fen": 3_600_000, "currency": "CNY"}


async def test_nothing_is_kept_and_no_token_is_needed(house: House) -> None:
    before = await house.everything()
    await asked(house, facts=SOUND)
    assert await house.everything() == before


async def test_every_wrong_value_is_named_at_once(house: House) -> None:
    question = {
        "items": [{"code": "talent_certification", "category": "magister"}, {"code": "fortune"}],
        "facts": {"person.degree": "magister", "person.beauty": True, "person.household_here": "no"},
    }
    problem = (await house.portal().post("/eligibility", question)).problem(422, "filing-wrong")
    assert {(error["field"], error["code"]) for error in problem["errors"]} == {
        ("/items/0/category", "unknown-category"),
        ("/items/1/code", "unknown-item"),
        ("/facts/person.degree", "unknown-fact-value"),
        ("/facts/person.beauty", "unknown-fact"),
        ("/facts/person.household_here", "fact-wrong-type"),
    }
    assert all(error["title"] and error["detail"] for error in problem["errors"])


async def test_a_day_before_the_policy_has_no_answer(house: House) -> None:
    (await house.portal().post("/eligibility", {"on": "2021-03-22"})).problem(404, "not-found")


async def test_the_facts_that_count_are_listed_with_the_policy(house: House) -> None:
    facts = {fact["name"]: fact for fact in (await house.portal().get("/policy")).body["facts"]}
    assert facts["person.degree"]["values"]["doctor"] == "博士"
    assert facts["person.degree"]["stated_by"] == "applicant"
    assert facts["person.household_here"]["department"] == "public_security"


async def test_a_fact_s_name_is_a_pointer_whatever_stands_in_it(house: House) -> None:
    problem = (await house.portal().post("/eligibility", {"facts": {"a/b~c": True}})).problem(422, "filing-wrong")
    assert [error["field"] for error in problem["errors"]] == ["/facts/a~1b~0c"]
