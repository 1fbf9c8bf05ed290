"""What spouses cannot both have, and what one person cannot have beside another thing: a benefit of a household is
claimed for both, and of benefits of which the policy gives one the others are taken too."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from libs.common.calendar import local_date
from libs.common.events import ApplicationClosed, ItemResult
from libs.common.packs import store
from tests.common.packs import a_pack, one_of
from tests.intake.builders import ALLOWANCE, CERTIFICATION, COUNTY, PAPERS, a_number, a_person, an_account, licences
from tests.intake.conftest import Answer, House, uuids

FLAT, APARTMENT, SUBSIDY = ({"code": code} for code in ("talent_flat", "talent_apartment", "purchase_subsidy"))
PURCHASE = ("purchase_contract", "purchase_invoice")
NOT_TWICE = ("not_accepted", "duplicate")
NOT_BESIDE = ("not_accepted", "at-most-one")


async def under(house: House, *benefits: str, version: str = "2021-5") -> None:
    """From now on one of these may be had; of none of them, everything beside everything."""
    more = [one_of(*benefits)] if benefits else []
    async with house.service.database.transaction() as tx:
        await store(tx, a_pack(('version: "2021-4.4"', f'version: "{version}"'), *more))
    await house.service.packs.refresh()


def married(person: dict[str, Any], spouse: dict[str, Any]) -> dict[str, Any]:
    return {**person, "links": [{"relation": "spouse", "person": spouse}]}


async def asks(house: House, person: dict[str, Any], *items: dict[str, Any], client: str = "portal-a") -> Any:
    """Somebody asks for these, with papers for all of them; gives the receipt."""
    materials = licences(*PAPERS, *PURCHASE, "housing_statement")
    account = an_account(person["name"])
    asked = {"beneficiary": person, "items": list(items), "materials": materials, "payee_account": account}
    return await house.portal(client).file(**asked)


def outcome(receipt: Any) -> Any:
    return receipt["state"], receipt["reason"]["code"] if receipt["reason"] else None


async def end(house: House, receipt: Any, state: Any, **results: Any) -> None:
    """Everything of an application is done, but for the results given."""
    application, items = uuids(receipt)
    told = tuple(ItemResult(item=item, result=results.get(code, "done")) for code, item in items.items())
    today = local_date(datetime.now(UTC))
    policy = house.service.packs.on(today).identity
    closed = ApplicationClosed(policy=policy, application=application, state=state, closed_on=today, items=told)
    await house.hear(closed)


async def merge(house: House, merged: Any, into: Any) -> Answer:
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    asked = {"merged": merged["beneficiary"], "into": into["beneficiary"], "reason": "一人两证"}
    return await office.post("/people:merge", asked)


# -- a household


@pytest.mark.article("第四条")
@pytest.mark.parametrize("named_by", ["the first", "the second", "both"])
async def test_of_two_spouses_one_has_the_flat_whoever_of_them_names_the_other(house: House, named_by: str) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    first = await asks(house, wife if named_by == "the second" else married(wife, husband), CERTIFICATION, FLAT)
    second = await asks(house, husband if named_by == "the first" else married(husband, wife), CERTIFICATION, FLAT)
    assert (outcome(first), outcome(second)) == (("accepted", None), NOT_TWICE)
    told = (await house.portal().show(second["id"]))["timeline"][-1]["detail"]
    assert told == "同一受益人（按家庭申领的，其本人或者配偶）的同一事项已在办理或者已经享受，不重复受理。"
    assert first["case_no"] not in str(second)


async def test_what_a_person_is_given_two_spouses_have_each(house: House) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    for person in (married(wife, husband), married(husband, wife)):
        assert outcome(await asks(house, person, CERTIFICATION, ALLOWANCE)) == ("accepted", None)


async def test_a_child_is_no_spouse(house: House) -> None:
    child = a_person("王小小")
    family = {**a_person(), "links": [{"relation": "child", "person": child}]}
    assert outcome(await asks(house, family, CERTIFICATION, FLAT)) == ("accepted", None)
    assert outcome(await asks(house, child, CERTIFICATION, FLAT)) == ("accepted", None)


@pytest.mark.parametrize("came_to_nothing", ["refused", "withdrawn"])
async def test_a_flat_that_came_to_nothing_is_free_for_the_spouse(house: House, came_to_nothing: str) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    first = await asks(house, married(wife, husband), CERTIFICATION, FLAT)
    if came_to_nothing == "refused":
        await end(house, first, "closed", talent_flat="refused")
    else:
        await end(house, first, "withdrawn", talent_flat="withdrawn", talent_certification="withdrawn")
    assert outcome(await asks(house, husband, CERTIFICATION, FLAT)) == ("accepted", None)
    again = await asks(house, married(wife, husband), FLAT)
    assert outcome(again) == NOT_TWICE


async def test_a_flat_that_was_granted_stays_the_households(house: House) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    await end(house, await asks(house, married(wife, husband), CERTIFICATION, FLAT), "closed")
    assert outcome(await asks(house, husband, CERTIFICATION, FLAT)) == NOT_TWICE


async def test_a_correction_that_takes_the_spouse_out_gives_up_their_claim(house: House) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    asked = {"items": [CERTIFICATION, FLAT], "materials": licences(*PAPERS), "payee_account": None}
    waiting = await house.portal().file(beneficiary=married(wife, husband), **asked)
    assert outcome(waiting) == ("correction", None)
    assert outcome(await asks(house, husband, CERTIFICATION, FLAT)) == NOT_TWICE
    await house.portal().post(f"/applications/{waiting['id']}:correct", {"beneficiary": wife})
    assert outcome(await asks(house, husband, CERTIFICATION, FLAT)) == ("accepted", None)


async def test_nothing_is_claimed_for_a_spouse_under_a_name_that_is_not_theirs(house: House) -> None:
    number = a_number()
    await asks(house, a_person("王小明", number), CERTIFICATION)
    stranger = await asks(house, married(a_person("赵大"), a_person("王大", number)), CERTIFICATION, FLAT)
    assert [defect["code"] for defect in stranger["defects"]] == ["name-differs"]
    asked = await asks(house, a_person("王小明", number), FLAT)
    assert [defect["code"] for defect in asked["defects"]] == ["certification-missing"]


async def test_a_transferred_application_claims_for_the_spouse_at_its_new_place(house: House) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    materials = licences(*PAPERS, "housing_statement")
    asked = {"items": [CERTIFICATION, FLAT], "materials": materials, "payee_account": None}
    first = await house.portal().file(beneficiary=married(wife, husband), platform="410500", **asked)
    assert (first["state"], first["successor"]["state"]) == ("transferred", "accepted")
    assert outcome(await asks(house, husband, CERTIFICATION, FLAT)) == NOT_TWICE


async def test_of_two_spouses_who_file_at_once_one_has_the_flat(house: House) -> None:
    for _ in range(5):
        wife, husband = a_person("李梅"), a_person("王小明")
        found = await asyncio.gather(
            asks(house, married(wife, husband), CERTIFICATION, FLAT, client="portal-a"),
            asks(house, married(husband, wife), CERTIFICATION, FLAT, client="portal-b"),
        )
        assert sorted(map(outcome, found), key=str) == [("accepted", None), NOT_TWICE]


async def test_a_spouse_under_another_record_collides_when_the_records_are_merged(house: House) -> None:
    wife, one, other = a_person("李梅"), a_person("王小明"), a_person("王小明")
    first = await asks(house, married(wife, one), CERTIFICATION, FLAT)
    second = await asks(house, other, CERTIFICATION, FLAT)
    care = await house.portal().file(
        beneficiary=one, items=[{"code": "medical_care"}], materials=licences("identity_document")
    )
    told = (await merge(house, care, second)).problem(409, "claims-collide")["detail"]
    assert first["case_no"] in told
    assert second["case_no"] in told
    await end(house, second, "refused", talent_flat="refused", talent_certification="refused")
    assert (await merge(house, care, second)).status == 200
    assert outcome(await asks(house, other, CERTIFICATION, FLAT)) == NOT_TWICE


async def test_who_was_named_as_the_spouse_of_their_own_other_record_is_merged_with_it(house: House) -> None:
    one, other = a_person("王小明"), a_person("王小明")
    first = await asks(house, married(one, other), CERTIFICATION, FLAT)
    second = await house.portal().file(
        beneficiary=other, items=[{"code": "medical_care"}], materials=licences("identity_document")
    )
    assert (await merge(house, second, first)).status == 200
    assert [row.code for row in await house.rows("SELECT code FROM claim ORDER BY code")] == [
        "talent_certification", "talent_flat",
    ]  # fmt: skip


# -- at most one


async def test_who_has_one_cannot_ask_for_another_until_it_came_to_nothing(house: House) -> None:
    await under(house, "living_allowance", "purchase_subsidy")
    person = a_person()
    first = await asks(house, person, CERTIFICATION, ALLOWANCE)
    second = await asks(house, person, SUBSIDY)
    assert (outcome(first), outcome(second)) == (("accepted", None), NOT_BESIDE)
    told = (await house.portal().show(second["id"]))["timeline"][-1]["detail"]
    assert told == (
        "受益人（按家庭申领的，其本人或者配偶）已申请或者已享受另一项待遇，与所申请的事项只能享受其一；"
        "已有“生活补贴”，与“购房补贴”只能享受其一（同类待遇择一享受，安人才〔2021〕4 号第四条）。"
    )
    assert outcome(await asks(house, person, ALLOWANCE)) == NOT_TWICE
    await end(house, first, "withdrawn", living_allowance="withdrawn", talent_certification="withdrawn")
    assert outcome(await asks(house, person, CERTIFICATION, SUBSIDY)) == ("accepted", None)
    assert outcome(await asks(house, person, ALLOWANCE)) == NOT_BESIDE


async def test_a_refused_one_leaves_the_other_free_and_a_granted_one_does_not(house: House) -> None:
    await under(house, "living_allowance", "purchase_subsidy")
    refused, granted = a_person(), a_person()
    for person, result in ((refused, "refused"), (granted, "done")):
        first = await asks(house, person, CERTIFICATION, ALLOWANCE)
        await end(house, first, "closed", living_allowance=result)
    waiting = await asks(house, refused, SUBSIDY)
    assert [defect["code"] for defect in waiting["defects"]] == ["certification-missing"]
    assert outcome(await asks(house, granted, SUBSIDY)) == NOT_BESIDE


async def test_two_in_one_filing_are_a_defect_with_all_others_and_one_of_them_is_enough(house: House) -> None:
    await under(house, "living_allowance", "purchase_subsidy")
    asked = await house.portal().file(items=[CERTIFICATION, SUBSIDY, ALLOWANCE], materials=licences(*PAPERS, *PURCHASE))
    assert outcome(asked) == ("correction", None)
    (defect,) = asked["defects"]
    assert (defect["code"], defect["field"], defect["item"]) == ("at-most-one", "/items/2/code", "living_allowance")
    assert defect["title"] == "“生活补贴”与“购房补贴”只能享受其一"
    assert defect["detail"] == (
        "按照同类待遇择一享受（安人才〔2021〕4 号第四条），请在两项中保留一项，删去另一项后提交补正。"
    )
    mended = await house.portal().post(f"/applications/{asked['id']}:correct", {"items": [CERTIFICATION, ALLOWANCE]})
    assert mended.body["state"] == "accepted"


async def test_of_two_filings_at_once_one_has_it(house: House) -> None:
    await under(house, "living_allowance", "purchase_subsidy")
    for _ in range(5):
        person = a_person()
        first = await asks(house, person, CERTIFICATION)
        await end(house, first, "closed")
        found = await asyncio.gather(
            asks(house, person, ALLOWANCE, client="portal-a"), asks(house, person, SUBSIDY, client="portal-b")
        )
        assert sorted(map(outcome, found), key=str) == [("correction", None), NOT_BESIDE]


async def test_one_of_a_household_is_one_for_both_spouses(house: House) -> None:
    await under(house, "talent_flat", "talent_apartment")
    wife, husband = a_person("李梅"), a_person("王小明")
    await asks(house, married(wife, husband), CERTIFICATION, FLAT)
    assert outcome(await asks(house, husband, CERTIFICATION, APARTMENT)) == NOT_BESIDE
    assert outcome(await asks(house, married(a_person("王小明"), wife), CERTIFICATION, APARTMENT)) == NOT_BESIDE


async def test_what_was_filed_before_the_rule_is_in_the_way_and_beside_a_lifted_rule_nothing_is(house: House) -> None:
    before, during = a_person(), a_person()
    assert outcome(await asks(house, before, CERTIFICATION, ALLOWANCE)) == ("accepted", None)
    await under(house, "living_allowance", "purchase_subsidy")
    assert outcome(await asks(house, before, SUBSIDY)) == NOT_BESIDE
    assert outcome(await asks(house, during, CERTIFICATION, ALLOWANCE)) == ("accepted", None)
    await under(house, version="2021-6")
    assert outcome(await asks(house, during, CERTIFICATION)) == NOT_TWICE
    for person in (before, during):
        assert outcome(await asks(house, person, SUBSIDY)) == ("correction", None)  # no number of a certification
        assert outcome(await asks(house, person, ALLOWANCE)) == NOT_TWICE
        assert outcome(await asks(house, person, SUBSIDY)) == NOT_TWICE


async def test_two_records_of_a_person_who_would_have_both_are_not_merged(house: House) -> None:
    await under(house, "living_allowance", "purchase_subsidy")
    first = await asks(house, a_person(), CERTIFICATION, ALLOWANCE)
    second = await asks(house, a_person(), {"code": "purchase_subsidy"})
    told = (await merge(house, second, first)).problem(409, "claims-collide")["detail"]
    assert first["case_no"] in told
    assert second["case_no"] in told
    await under(house, version="2021-6")
    assert (await merge(house, second, first)).status == 200
    held = await house.rows("SELECT code, application::text FROM claim WHERE stands_for IS NULL ORDER BY code")
    assert [tuple(row) for row in held] == [
        ("living_allowance", first["id"]), ("purchase_subsidy", second["id"]), ("talent_certification", first["id"]),
    ]  # fmt: skip


# -- found afterwards


async def doubles(house: House, **page: Any) -> Any:
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    return (await office.get("/people/double-grants", params=page)).body


async def test_a_flat_that_both_spouses_were_granted_is_listed_once_they_are_known_as_spouses(house: House) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    flats = [await asks(house, person, CERTIFICATION, FLAT) for person in (wife, husband)]
    for each in flats:
        await end(house, each, "closed")
    assert (await doubles(house))["items"] == []
    await house.portal().file(
        beneficiary=married(wife, husband), items=[{"code": "medical_care"}], materials=licences("identity_document")
    )
    (found,) = (await doubles(house))["items"]
    assert (found["item"], found["reason"], found["elsewhere"]) == ("talent_flat", "household", 0)
    assert found["reason_title"] == "按家庭享受的待遇夫妻双方各享受一份"
    assert {found["person"], found["spouse"]} == {each["beneficiary"] for each in flats}
    assert {(grant["case_no"], grant["item"]) for grant in found["grants"]} == {
        (each["case_no"], "talent_flat") for each in flats
    }


async def test_a_flat_that_one_of_the_spouses_was_refused_is_not_listed(house: House) -> None:
    wife, husband = a_person("李梅"), a_person("王小明")
    flats = [await asks(house, person, CERTIFICATION, FLAT) for person in (wife, husband)]
    await end(house, flats[0], "closed", talent_flat="refused")
    await end(house, flats[1], "closed")
    await house.portal().file(
        beneficiary=married(wife, husband), items=[{"code": "medical_care"}], materials=licences("identity_document")
    )
    assert (await doubles(house))["items"] == []


async def test_what_is_of_a_household_or_the_other_of_one_rule_is_listed_for_spouses_too(house: House) -> None:
    await under(house, "talent_flat", "talent_apartment")
    wife, husband = a_person("李梅"), a_person("王小明")
    one, other = await asks(house, wife, CERTIFICATION, FLAT), await asks(house, husband, CERTIFICATION, APARTMENT)
    for each in (one, other):
        await end(house, each, "closed")
    await house.portal().file(
        beneficiary=married(wife, husband), items=[{"code": "medical_care"}], materials=licences("identity_document")
    )
    (found,) = (await doubles(house))["items"]
    assert (found["item"], found["title"], found["reason"]) == ("one-of-two", "同类待遇择一享受", "household")
    assert {(grant["case_no"], grant["item"]) for grant in found["grants"]} == {
        (one["case_no"], "talent_flat"), (other["case_no"], "talent_apartment"),
    }  # fmt: skip


async def test_two_benefits_of_one_rule_that_two_records_were_granted_are_found_by_the_merge(house: House) -> None:
    await under(house, "talent_flat", "talent_apartment")
    first, second = [
        await asks(house, a_person(), CERTIFICATION, FLAT), await asks(house, a_person(), CERTIFICATION, APARTMENT),
    ]  # fmt: skip
    for each in (first, second):
        await end(house, each, "closed")
    answer = await merge(house, second, first)
    assert answer.status == 200, answer.body
    found, certified = answer.body["double_grants"]
    assert (found["item"], found["reason"], found["spouse"]) == ("one-of-two", "at_most_one", None)
    assert (certified["item"], certified["reason"]) == ("talent_certification", "twice")
    assert {grant["item"] for grant in found["grants"]} == {"talent_flat", "talent_apartment"}
    shown = await doubles(house, limit=1)
    assert shown["items"] == [found]
    shown = await doubles(house, limit=1, cursor=shown["next"])
    assert (shown["items"], shown["next"]) == ([certified], None)
    await under(house, version="2021-6")  # the rule is gone
    assert (await doubles(house))["items"] == [certified]
