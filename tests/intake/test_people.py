"""People: resolved with a trace of each call, merged, given new accounts; many documents, one person."""

from datetime import date
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sample.identities import make_document_number
from libs.common.auth import ServiceTokens
from libs.common.errors import DomainError
from libs.common.identity import DocumentType, Sex
from services.intake.filing import read_filing
from tests.common.packs import anyang
from tests.intake.builders import COUNTY, DISTRICT, SCHOOLING, a_filing, a_number, a_person, an_account, licences
from tests.intake.conftest import Caller, House

SERVICE: dict[str, Any] = {"items": [SCHOOLING], "materials": licences("household_register", "birth_certificate")}


def finance(house: House) -> Caller:
    return Caller(house.client, ServiceTokens(house.service.settings, "finance").token())


def a_question(*refs: str, fields: tuple[str, ...] = ("name", "documents")) -> dict[str, Any]:
    return {"refs": list(refs), "fields": list(fields), "purpose": "payout_batch"}


async def test_a_service_learns_what_it_asks_and_nothing_else(house: House) -> None:
    number = a_number()
    receipt = await house.portal().file(beneficiary=a_person("王小明", number, phone="13800000000"))
    (account,) = await house.rows("SELECT ref FROM payee_account")
    refs = (receipt["beneficiary"], str(account.ref), str(uuid4()))
    answer = (await finance(house).post("/people:resolve", a_question(*refs))).body
    assert answer["unknown"] == [refs[2]]
    person, payee = answer["items"]
    assert (person["name"], person["documents"][0]["number"]) == ("王小明", number)
    assert person["phone"] is None
    assert payee["payee_account"] is None
    (_, payee) = (await finance(house).post("/people:resolve", a_question(*refs, fields=("payee_account",)))).body[
        "items"
    ]
    assert payee["payee_account"] == {
        "holder": "王小明", "bank": "中国银行安阳分行", "branch_number": "104496000017",
        "account_number": "6217000010001234567",
    }  # fmt: skip


async def test_each_call_leaves_one_entry_and_one_event_without_what_was_answered(house: House) -> None:
    receipt = await house.portal().file()
    await finance(house).post("/people:resolve", a_question(receipt["beneficiary"]))
    (entry,) = await house.rows("SELECT * FROM people_resolved")
    assert (entry.caller, entry.purpose, entry.fields) == ("finance", "payout_batch", ["documents", "name"])
    event = (await house.emitted())[-1]
    assert (type(event).__name__, event.call, event.refs) == ("PeopleResolved", entry.call, tuple(entry.refs))
    assert "王小明" not in event.model_dump_json()


@pytest.mark.parametrize("role", ["portal", "talent", "handler", "supervisor", "auditor"])
async def test_nobody_resolves_without_the_scope(house: House, role: str) -> None:
    (await house.a(role).post("/people:resolve", a_question(str(uuid4())))).problem(403, "forbidden")
    assert not await house.rows("SELECT 1 FROM people_resolved")


async def test_the_bounds_of_a_call_hold(house: House) -> None:
    many = a_question(*(str(uuid4()) for _ in range(501)))
    (await finance(house).post("/people:resolve", many)).problem(422, "invalid-request")
    for purpose in (f"查 {a_number()}", "4105 2219 9001 0100 11", "核对６２２２０００００００１"):
        secret = a_question(str(uuid4())) | {"purpose": purpose}
        answer = await finance(house).post("/people:resolve", secret)
        assert answer.problem(422, "content-wrong")["errors"][0]["code"] == "number-in-words"
    (await finance(house).post("/people:resolve", a_question(str(uuid4()), fields=("salary",)))).problem(
        422, "invalid-request"
    )


async def test_every_document_type_finds_its_holder_again(house: House) -> None:
    rng, care = Random(7), {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}
    for kind in DocumentType:
        number = make_document_number(rng, kind, date(1985, 5, 5), Sex.FEMALE)
        person = {"name": "陈·玛丽", "documents": [{"type": kind.value, "number": number}]}
        filed = [await house.portal().file(beneficiary=person, payee_account=None, **more) for more in (SERVICE, care)]
        assert len({receipt["beneficiary"] for receipt in filed}) == 1


async def test_two_records_found_to_be_one_person_are_merged_and_both_references_stay_good(house: House) -> None:
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    first = await house.portal().file()
    second = await house.portal().file(**SERVICE)
    merge = {"merged": second["beneficiary"], "into": first["beneficiary"], "reason": "一人两证"}
    answer = await office.post("/people:merge", merge)
    assert answer.body == {"ref": first["beneficiary"], "double_grants": []}
    (await office.post("/people:merge", merge)).problem(409, "cannot-merge")
    (await office.post("/people:merge", merge | {"merged": str(uuid4())})).problem(404, "not-found")
    (await house.portal().post("/people:merge", merge)).problem(403, "forbidden")
    answer = await finance(house).post("/people:resolve", a_question(second["beneficiary"], fields=("documents",)))
    (resolved,) = answer.body["items"]
    assert resolved["ref"] == second["beneficiary"]
    talent = house.a("talent", person=second["beneficiary"])
    assert len((await talent.get("/applications")).body["items"]) == 2
    (entry,) = await house.rows("SELECT reason FROM person_merge")
    assert entry.reason == "一人两证"


async def test_a_person_and_an_account_lead_to_one_person_also_after_a_merge(house: House) -> None:
    """So whoever pays can tell whose account it is."""
    first = await house.portal().file(**SERVICE)
    second = await house.portal().file()
    (account,) = await house.rows("SELECT ref FROM payee_account WHERE person = :ref", ref=second["beneficiary"])
    question = a_question(second["beneficiary"], str(account.ref), fields=("payee_account",))
    before = (await finance(house).post("/people:resolve", question)).body["items"]
    assert [item["person"] for item in before] == [second["beneficiary"]] * 2
    merge = {"merged": second["beneficiary"], "into": first["beneficiary"], "reason": "一人两证"}
    await house.a("talent_office", org_unit=f"{COUNTY}/talent_office").post("/people:merge", merge)
    after = (await finance(house).post("/people:resolve", question)).body["items"]
    assert [item["person"] for item in after] == [first["beneficiary"]] * 2


async def test_a_new_account_after_a_bounce_is_a_new_version_and_the_old_one_stays(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file()
    path = f"/people/{receipt['beneficiary']}/payee-accounts"
    fresh = await portal.post(path, an_account(number="6217000010007654321"))
    assert fresh.status == 201
    same = await portal.post(path, an_account(number="6217000010007654321"))
    assert same.body == fresh.body
    assert [row.version for row in await house.rows("SELECT version FROM payee_account ORDER BY version")] == [1, 2]
    other = an_account(number="6217000010001111111")
    (await house.portal("portal-b").post(path, other)).problem(404, "not-found")
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    assert (await office.post(f"{path}:manage", other)).status == 201
    (await portal.post(path, an_account("赵大"))).problem(422, "filing-wrong")
    far = house.a("talent_office", org_unit=f"{DISTRICT}/talent_office")
    (await far.post(f"{path}:manage", other)).problem(404, "not-found")


PASSPORT = {"type": "passport", "number": "E12345678"}
CARE: dict[str, Any] = {"items": [{"code": "medical_care"}], "materials": licences("identity_document")}
VISIT: dict[str, Any] = {"items": [{"code": "spouse_employment"}], "materials": licences("marriage_certificate")}


def defects(receipt: Any) -> list[tuple[str, str]]:
    return [(defect["code"], defect["field"]) for defect in receipt["defects"]]


async def test_a_number_stated_beside_a_known_one_is_kept_but_identifies_nobody(house: House) -> None:
    person = a_person()
    first = await house.portal().file(beneficiary=person, **CARE)
    both = {**person, "documents": [*person["documents"], PASSPORT]}
    second = await house.portal().file(beneficiary=both, **SERVICE)
    assert (second["state"], second["beneficiary"]) == ("accepted", first["beneficiary"])
    alone = await house.portal().file(beneficiary={**person, "documents": [PASSPORT]}, **VISIT)
    assert defects(alone) == [("document-in-doubt", "/beneficiary/documents/0/number")]
    assert alone["beneficiary"] != first["beneficiary"]
    answer = await finance(house).post("/people:resolve", a_question(first["beneficiary"], fields=("documents",)))
    told = [(it["type"], it["claimed"]) for it in answer.body["items"][0]["documents"]]
    assert told == [("resident_identity_card", False), ("passport", True)]


async def test_whoever_states_anothers_passport_beside_their_own_card_is_not_taken_for_its_owner(house: House) -> None:
    """Of the same name too: the owner's applications and money would else be the other's."""
    thief, owner = a_person(), a_person()
    first = await house.portal().file(beneficiary={**thief, "documents": [*thief["documents"], PASSPORT]}, **CARE)
    both = {**owner, "documents": [*owner["documents"], PASSPORT]}
    second = await house.portal("portal-b").file(beneficiary=both)
    assert defects(second) == [("document-in-doubt", "/beneficiary/documents/1/number")]
    assert second["beneficiary"] != first["beneficiary"]
    assert "王小明" not in str(second["defects"])
    path = f"/applications/{second['id']}:correct"
    card_alone = (await house.portal("portal-b").post(path, {"beneficiary": owner})).body
    assert (card_alone["state"], card_alone["beneficiary"]) == ("accepted", second["beneficiary"])


async def test_a_clerk_who_has_seen_a_passport_gives_it_to_its_owner(house: House) -> None:
    thief, owner = a_person(), a_person()
    await house.portal().file(beneficiary={**thief, "documents": [*thief["documents"], PASSPORT]}, **CARE)
    both = {**owner, "documents": [*owner["documents"], PASSPORT]}
    seen = await house.clerk().file(beneficiary=both, channel="on_site", **SERVICE)
    assert seen["state"] == "accepted"
    alone = await house.portal("portal-b").file(beneficiary={**owner, "documents": [PASSPORT]}, **CARE)
    assert (alone["state"], alone["beneficiary"]) == ("accepted", seen["beneficiary"])
    mixed = await house.portal().file(beneficiary={**thief, "documents": [*thief["documents"], PASSPORT]}, **SERVICE)
    assert defects(mixed) == [("documents-of-different-people", "/beneficiary/documents")]
    answer = await finance(house).post("/people:resolve", a_question(seen["beneficiary"], fields=("documents",)))
    told = {it["number"]: it["claimed"] for it in answer.body["items"][0]["documents"]}
    assert told == {PASSPORT["number"]: False, owner["documents"][0]["number"]: False}


async def test_a_card_is_never_added_to_somebody_known_by_something_else_without_a_clerk(house: House) -> None:
    traveller = {"name": "王小明", "documents": [PASSPORT]}
    first = await house.portal().file(beneficiary=traveller, **CARE)
    card = a_person()
    both = {**traveller, "documents": [PASSPORT, *card["documents"]]}
    joined = await house.portal("portal-b").file(beneficiary=both, **SERVICE)
    assert defects(joined) == [("document-in-doubt", "/beneficiary/documents/1/number")]
    own = await house.portal("portal-b").file(beneficiary=card)
    assert (own["state"], own["beneficiary"] != first["beneficiary"]) == ("accepted", True)
    two_cards = {**card, "documents": [*a_person()["documents"], *a_person()["documents"]]}
    two = await house.portal().file(beneficiary=two_cards, **SERVICE)
    assert defects(two) == [("document-in-doubt", "/beneficiary/documents/1/number")]


async def test_every_name_of_a_merged_record_counts(house: House) -> None:
    numbers = [a_number(), a_number()]
    named = a_person("王晓明", numbers[1], latin_name="Wang Xiaoming", former_names=["王二"])
    into = await house.portal().file(beneficiary=a_person("王小明", numbers[0]), **SERVICE)
    merged = await house.portal().file(beneficiary=named, payee_account=an_account("王晓明"), **SERVICE)
    merge = {"merged": merged["beneficiary"], "into": into["beneficiary"], "reason": "一人两证"}
    office = house.a("talent_office", org_unit=f"{COUNTY}/talent_office")
    assert (await office.post("/people:merge", merge)).status == 200
    for name in ("王晓明", "王二", "王小明"):
        receipt = await house.portal().file(
            beneficiary=a_person(name, numbers[1]), payee_account=an_account(name), **CARE
        )
        assert (receipt["state"], receipt["beneficiary"]) == ("accepted", into["beneficiary"]), name
    for ref in (merged["beneficiary"], into["beneficiary"]):
        path = f"/people/{ref}/payee-accounts:manage"
        for name in ("王晓明", "王小明"):
            assert (await office.post(path, an_account(name))).status == 201
    fields = ("name", "latin_name", "former_names")
    answer = await finance(house).post("/people:resolve", a_question(merged["beneficiary"], fields=fields))
    (told,) = answer.body["items"]
    assert (told["name"], told["latin_name"]) == ("王小明", "Wang Xiaoming")
    assert sorted(told["former_names"]) == ["王二", "王晓明"]


async def test_a_legal_name_is_no_former_name_of_whoever_is_not_asked_for_it(house: House) -> None:
    receipt = await house.portal().file(beneficiary=a_person(former_names=["王二"]))
    answer = await finance(house).post("/people:resolve", a_question(receipt["beneficiary"], fields=("former_names",)))
    assert answer.body["items"][0]["former_names"] == ["王二"]


async def test_a_stranger_adds_no_document_to_somebody_elses_record(house: House) -> None:
    known = a_number()
    await house.portal().file(beneficiary=a_person(number=known))
    stolen = a_person("赵大", known)
    stolen["documents"].append({"type": "passport", "number": "E99999999"})
    receipt = await house.portal("portal-b").file(beneficiary=stolen, **SERVICE)
    assert [defect["code"] for defect in receipt["defects"]] == ["name-differs", "payee-holder-differs"]
    assert len(await house.rows("SELECT 1 FROM person_document WHERE type = 'passport'")) == 0
    path = f"/people/{receipt['beneficiary']}/payee-accounts"
    (await house.portal("portal-b").post(path, an_account())).problem(404, "not-found")


@given(st.text(max_size=30), st.sampled_from(list(DocumentType)))
def test_no_document_number_is_ever_repeated_in_a_refusal(number: str, kind: DocumentType) -> None:
    from datetime import date

    filing = a_filing(beneficiary={"name": "王小明", "documents": [{"type": kind.value, "number": "☃" + number}]})
    with pytest.raises(DomainError) as refused:
        read_filing(filing, anyang(), date(2026, 3, 2))
    told = refused.value.problem()
    assert "☃" not in str(told)
