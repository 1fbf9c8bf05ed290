"""Taking filings in: accepted, told all defects, not accepted, transferred, refused for wrong values."""

import asyncio
import json
import re
from typing import Any
from uuid import uuid4

import pytest

from deploy.sample.identities import with_wrong_check_digit
from tests.intake.builders import (
    ALLOWANCE,
    CERTIFICATION,
    CITY,
    COUNTY,
    DISTRICT,
    SCHOOLING,
    a_filing,
    a_mandate,
    a_number,
    a_person,
    an_account,
    an_employer,
    licences,
)
from tests.intake.conftest import House


async def test_a_filing_in_order_is_accepted_in_the_transaction_that_receives_it(house: House) -> None:
    receipt = await house.portal().file()
    assert (receipt["state"], receipt["state_title"]) == ("accepted", "已受理")
    assert (receipt["treasury"], receipt["platform"]) == (COUNTY, COUNTY)
    assert re.fullmatch(r"AY410522\d{8}000001[0-9A-Z]", receipt["case_no"])
    received, accepted = await house.emitted(receipt["id"])
    assert (received.case_no, received.platform) == (receipt["case_no"], COUNTY)
    assert str(accepted.accepted_on) == receipt["accepted_on"]
    assert (accepted.employer_kind, accepted.treasury) == ("enterprise", COUNTY)
    certification, allowance = accepted.items
    assert (certification.kind, certification.category, certification.benefit) == ("certification", "master", None)
    assert (allowance.kind, allowance.category, allowance.benefit) == ("benefit", "master", "living_allowance")
    assert accepted.payee_account
    assert accepted.applicant is None


async def test_no_personal_value_is_kept_or_told_in_clear(house: House) -> None:
    number, account = a_number(), "6217000010009999999"
    person = a_person("欧阳𫍽", number, phone="+86 13812345678", former_names=["欧阳甲"])
    receipt = await house.portal().file(beneficiary=person, payee_account=an_account("欧阳𫍽", account))
    held = await house.everything()
    assert receipt["case_no"] in held
    for secret in (number, account, "欧阳", "13812345678", number.encode().hex(), "欧阳".encode().hex()):
        assert secret not in held


@pytest.mark.parametrize("times", [2, 5])
async def test_equal_posts_at_once_give_one_application_and_equal_replies(house: House, times: int) -> None:
    filing = a_filing()
    portal = house.portal()
    answers = await asyncio.gather(*(portal.post("/applications", filing, key="same") for _ in range(times)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(await house.rows("SELECT id FROM application")) == 1
    assert len(await house.emitted()) == 3  # received, accepted, and where its employer belongs


async def test_the_same_key_with_another_filing_is_refused(house: House) -> None:
    portal = house.portal()
    await portal.post("/applications", a_filing(), key="same")
    (await portal.post("/applications", a_filing(), key="same")).problem(409, "idempotency-key-reused")


async def test_new_people_filed_at_once_by_two_clients_are_one_person(house: House) -> None:
    person, employer = a_person(), an_employer()
    filings = [
        a_filing(beneficiary=person, employer=employer, items=[item], materials=licences(*papers))
        for item, papers in (
            (SCHOOLING, ("household_register", "birth_certificate")),
            ({"code": "medical_care"}, ("identity_document",)),
            ({"code": "spouse_employment"}, ("marriage_certificate",)),
        )
    ]
    answers = await asyncio.gather(
        *(house.portal(f"p{n}").post("/applications", filing) for n, filing in enumerate(filings))
    )
    assert [answer.body["state"] for answer in answers] == ["accepted"] * 3
    assert len(await house.rows("SELECT DISTINCT beneficiary, employer FROM application")) == 1
    assert len({answer.body["case_no"] for answer in answers}) == 3


async def test_all_wrong_values_are_named_at_once_and_nothing_is_stored(house: House) -> None:
    person = a_person("张\u200b三", with_wrong_check_digit(a_number()))
    filing = a_filing(
        beneficiary=person | {"links": [{"relation": "spouse", "person": a_person(number="410522199013071234")}]},
        employer=an_employer(treasury="999999", credit_code="91410522MA00000000"),
        items=[{"code": "no_such_item"}, {"code": "talent_certification", "category": "emperor"}],
    )
    answer = await house.portal().post("/applications", filing)
    told = answer.problem(422, "filing-wrong")
    assert {error["field"]: error["code"] for error in told["errors"]} == {
        "/beneficiary/name": "name-invisible-character",
        "/beneficiary/documents/0/number": "document-check-digit",
        "/beneficiary/links/0/person/documents/0/number": "document-birth-date",
        "/employer/credit_code": "credit-code-check-digit",
        "/employer/affiliations/0/treasury": "unknown-treasury",
        "/items/0/code": "unknown-item",
        "/items/1/category": "unknown-category",
    }
    assert all(re.search("[一-鿿]", error["title"] + error["detail"]) for error in told["errors"])
    for table in ("person", "employer", "application", "outbox", "idempotency"):
        assert not await house.rows(f"SELECT 1 FROM {table}")  # noqa: S608


@pytest.mark.parametrize("day", [0, 1616457600, "0", "2021-03-23T00:00:00", "2021-3-23", "20210323", "2021-02-30"])
async def test_a_day_is_a_day_in_full(house: House, day: object) -> None:
    affiliation = {"kind": "fiscal", "treasury": COUNTY, "evidence": "证明", "from": day, "to": day}
    material = {"code": "labour_contract", "evidence": "promised", "by": day}
    filing = a_filing(employer=an_employer(affiliations=[affiliation]), materials=[material])
    told = (await house.portal().post("/applications", filing)).problem(422, "invalid-request")
    wanted = {"/employer/affiliations/0/from", "/employer/affiliations/0/to", "/materials/0/by"}
    assert {error["field"] for error in told["errors"]} == wanted
    assert {error["title"] for error in told["errors"]} == {"应为日期"}


async def test_nobody_is_born_tomorrow(house: House) -> None:
    passport = {
        "name": "陈玛丽",
        "documents": [{"type": "passport", "number": "E12345678"}],
        "birth_date": "2999-01-01",
    }
    told = (await house.portal().post("/applications", a_filing(beneficiary=passport))).problem(422, "filing-wrong")
    assert [error["code"] for error in told["errors"]] == ["birth-date-in-future"]


async def test_wrong_form_and_wrong_values_are_told_together(house: House) -> None:
    filing = a_filing(items=[{"code": "no_such_item"}], channel="by_pigeon", extra=1)
    told = (await house.portal().post("/applications", filing)).problem(422, "invalid-request")
    assert {error["field"] for error in told["errors"]} == {"/channel", "/items/0/code", "/extra"}


async def test_values_at_odds_with_one_another_are_told_in_the_same_round_as_all_others(house: House) -> None:
    """Whoever mends what was named is never told of something that was wrong from the start."""
    born = a_person(number=a_number(), birth_date="1969-01-01")
    born["documents"] += [{"type": "pigeon", "number": "1"}, {"type": "passport", "number": "E1", "from": "2020-02-30"}]
    filing = a_filing(
        channel="by_pigeon",
        platform=COUNTY,
        beneficiary=born,
        handler={"person": a_person(), "authority": a_mandate("2026-02-01", "2026-01-01") | {"extra": 1}},
        items=[CERTIFICATION, ALLOWANCE, {"code": "no_such_item"}, CERTIFICATION],
        materials=[*licences("labour_contract", "labour_contract"), {"code": "labour_contract", "evidence": "rumour"}],
    )
    told = (await house.clerk(DISTRICT).post("/applications", filing)).problem(422, "invalid-request")
    assert {error["field"]: error["code"] for error in told["errors"]} == {
        "/channel": "literal_error",
        "/platform": "platform-not-yours",
        "/beneficiary/birth_date": "birth-date-differs",
        "/beneficiary/documents/1/type": "enum",
        "/beneficiary/documents/2/number": "document-form",
        "/beneficiary/documents/2/from": "date_from_datetime_parsing",
        "/handler/authority/to": "ends-before-it-begins",
        "/handler/authority/extra": "extra_forbidden",
        "/items/2/code": "unknown-item",
        "/items/3/code": "item-twice",
        "/materials/1/code": "material-twice",
        "/materials/2/code": "material-twice",
        "/materials/2/evidence": "literal_error",
    }


PROMISED_SOON = [{"code": "labour_contract", "evidence": "promised", "by": "soon"}]


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"items": [CERTIFICATION, CERTIFICATION]}, "/items/1/code", "item-twice"),
        ({"materials": licences("labour_contract", "labour_contract")}, "/materials/1/code", "material-twice"),
        ({"beneficiary": a_person(birth_date="1969-01-01")}, "/beneficiary/birth_date", "birth-date-differs"),
        ({"payee_account": an_account() | {"bank": "中国\u200b银行"}}, "/payee_account/bank", "invisible-character"),
    ],
)
async def test_wrong_values_alone_are_a_wrong_filing(
    house: House, changes: dict[str, Any], field: str, code: str
) -> None:
    told = (await house.portal().post("/applications", a_filing(**changes))).problem(422, "filing-wrong")
    assert [(error["field"], error["code"]) for error in told["errors"]] == [(field, code)]
    assert re.search("[一-鿿]", told["errors"][0]["title"])


async def test_what_a_correction_cannot_change_is_told_with_what_is_wrong_in_it(house: House) -> None:
    receipt = await house.portal().file(materials=[])
    wrong = {
        "channel": "on_site", "items": [ALLOWANCE, ALLOWANCE], "extra": 1,
        "materials": [{"code": "degree_certificate", "evidence": "upload"}, *PROMISED_SOON],
    }  # fmt: skip
    answer = await house.portal().post(f"/applications/{receipt['id']}:correct", wrong)
    told = answer.problem(422, "invalid-request")
    assert {error["field"]: error["code"] for error in told["errors"]} == {
        "/channel": "not-correctable",
        "/extra": "extra_forbidden",
        "/items/1/code": "item-twice",
        "/materials/1/by": "date_type",
    }


async def test_all_defects_are_told_at_once_with_what_to_do_and_where(house: House) -> None:
    receipt = await house.portal().file(
        handler={"person": a_person("李经办")}, payee_account=None, items=[ALLOWANCE], materials=[]
    )
    assert receipt["state"] == "correction"
    told = {(defect["code"], defect["field"], defect.get("material")) for defect in receipt["defects"]}
    assert told == {
        ("authority-missing", "/handler/authority", None),
        ("payee-account-missing", "/payee_account", None),
        ("certification-missing", "/items/0/certification", None),
        ("material-missing", "/materials", "labour_contract"),
    }
    _, requested = await house.emitted(receipt["id"])
    assert set(requested.defects) == {code for code, _, _ in told}
    assert str(requested.answer_by) == receipt["answer_by"]
    due = await house.rows("SELECT key FROM due WHERE kind = 'correction.lapse'")
    assert [row.key for row in due] == [receipt["id"]]


async def test_a_second_claim_of_the_same_benefit_is_not_accepted(house: House) -> None:
    person, portal = a_person(), house.portal()
    first = await portal.file(beneficiary=person)
    second = await house.portal("portal-b").file(beneficiary=person, items=[CERTIFICATION])
    assert first["state"] == "accepted"
    assert (second["state"], second["reason"]["code"]) == ("not_accepted", "duplicate")
    assert await house.kinds(second["id"]) == ["ApplicationReceived", "ApplicationNotAccepted"]
    other = await portal.file(items=[SCHOOLING], materials=licences("household_register", "birth_certificate"))
    assert other["state"] == "accepted"


async def test_two_claims_at_once_leave_one_accepted(house: House) -> None:
    person = a_person()
    answers = await asyncio.gather(*(house.portal(f"p{n}").file(beneficiary=person) for n in range(4)))
    assert sorted(answer["state"] for answer in answers) == ["accepted"] + ["not_accepted"] * 3


async def test_an_excluded_category_is_not_accepted(house: House) -> None:
    receipt = await house.portal().file(items=[{"code": "flexible_certification", "category": "flexible"}, ALLOWANCE])
    assert (receipt["state"], receipt["reason"]["code"]) == ("not_accepted", "not-covered")


@pytest.mark.parametrize(
    ("item", "category"), [("flexible_certification", "doctor"), ("talent_certification", "flexible")]
)
async def test_a_certification_of_a_category_that_it_is_not_for_is_a_wrong_filing(
    house: House, item: str, category: str
) -> None:
    """Else flexible talent would be paid what the policy excepts."""
    filing = a_filing(items=[ALLOWANCE, {"code": item, "category": category}])
    told = (await house.portal().post("/applications", filing)).problem(422, "filing-wrong")
    assert [(error["field"], error["code"]) for error in told["errors"]] == [
        ("/items/1/category", "category-not-of-item")
    ]


async def test_a_central_unit_is_left_to_people(house: House) -> None:
    receipt = await house.portal().file(employer=an_employer(kind="central_or_provincial"))
    assert receipt["reason"]["code"] == "manual-decision"
    receipt = await house.portal().file(employer=an_employer(treasury="410000"))
    assert receipt["reason"]["code"] == "manual-decision"


async def test_a_filing_at_the_wrong_platform_is_transferred_and_lives_on_at_the_right_one(house: House) -> None:
    refs = [{"system": "window", "kind": "ticket", "value": "A-17"}]
    receipt = await house.clerk(DISTRICT).file(channel="on_site", external_refs=refs)
    assert (receipt["state"], receipt["platform"]) == ("transferred", DISTRICT)
    successor = receipt["successor"]
    assert (successor["state"], successor["platform"]) == ("accepted", COUNTY)
    assert successor["case_no"] != receipt["case_no"]
    assert await house.kinds(receipt["id"]) == ["ApplicationReceived", "ApplicationTransferred"]
    assert await house.kinds(successor["id"]) == ["ApplicationReceived", "ApplicationAccepted"]
    (ref,) = await house.rows("SELECT application FROM external_ref")
    assert str(ref.application) == successor["id"]


async def test_who_has_no_employer_goes_by_region(house: House) -> None:
    one = await house.portal().file(employer=None, applicant={"kind": "person"}, region="410581")
    assert (one["state"], one["treasury"]) == ("accepted", "410581")
    other = await house.portal().file(employer=None, applicant={"kind": "person"})
    assert [defect["code"] for defect in other["defects"]] == ["region-missing"]
    assert other["platform"] == CITY


async def test_an_employer_without_affiliations_is_judged_by_those_on_record(house: House) -> None:
    employer = an_employer(DISTRICT)
    await house.portal().file(employer=employer)
    again = await house.portal().file(employer={**employer, "affiliations": []})
    assert again["treasury"] == DISTRICT
    unknown = await house.portal().file(employer=an_employer(affiliations=[]))
    assert [defect["code"] for defect in unknown["defects"]] == ["affiliation-missing"]


HN_1 = [{"system": "henan_portal", "kind": "case", "value": "HN-1"}]


async def test_an_external_number_belongs_to_one_application(house: House) -> None:
    first = await house.portal().file(external_refs=HN_1)
    given = [{"system": "henan_portal", "kind": "case", "value": "HN-2"}, *HN_1]
    mine = (await house.portal().post("/applications", a_filing(external_refs=given))).problem(
        409, "external-ref-taken"
    )
    assert first["case_no"] in mine["detail"]
    assert first["id"] in mine["detail"]
    assert [error["field"] for error in mine["errors"]] == ["/external_refs/1/value"]
    other = await house.portal("portal-b").post("/applications", a_filing(external_refs=HN_1))
    told = str(other.problem(409, "external-ref-taken"))
    assert first["case_no"] not in told
    assert first["id"] not in told


async def test_an_external_number_is_free_again_once_its_application_came_to_nothing(house: House) -> None:
    portal = house.portal()
    one = await portal.file(external_refs=HN_1, materials=[])
    await portal.post(f"/applications/{one['id']}:withdraw")
    taken_over = await portal.file(
        external_refs=HN_1, items=[{"code": "flexible_certification", "category": "flexible"}, ALLOWANCE]
    )
    assert taken_over["state"] == "not_accepted"
    three = await house.portal("portal-b").file(external_refs=HN_1)
    (await portal.post("/applications", a_filing(external_refs=HN_1))).problem(409, "external-ref-taken")
    for receipt, caller in ((one, portal), (taken_over, portal), (three, house.portal("portal-b"))):
        refs = (await caller.show(receipt["id"]))["external_refs"]
        assert refs == [{"system": "henan_portal", "kind": "case", "value": "HN-1"}]
    found = await house.a("supervisor").get("/applications", params={"external_ref": "henan_portal:case:HN-1"})
    assert [item["id"] for item in found.body["items"]] == [three["id"], taken_over["id"], one["id"]]


async def test_of_two_who_file_a_freed_number_at_once_one_has_it(house: House) -> None:
    refs = [*HN_1, {"system": "a", "kind": "b", "value": "c"}]
    portal = house.portal()
    for _ in range(3):
        held = await portal.file(external_refs=refs, materials=[])
        await portal.post(f"/applications/{held['id']}:withdraw")
        filings = [a_filing(external_refs=given, materials=[]) for given in (refs, refs[::-1], refs)]
        answers = await asyncio.gather(*(portal.post("/applications", filing) for filing in filings))
        assert sorted(answer.status for answer in answers) == [201, 409, 409]
        (won,) = [answer.body["id"] for answer in answers if answer.status == 201]
        await portal.post(f"/applications/{won}:withdraw")


async def test_another_name_under_a_known_number_is_a_defect_and_changes_nothing(house: House) -> None:
    number = a_number()
    await house.portal().file(beneficiary=a_person("王小明", number))
    items: dict[str, Any] = {"items": [SCHOOLING], "materials": licences("household_register", "birth_certificate")}
    stranger = await house.portal("portal-b").file(beneficiary=a_person("赵大", number), payee_account=None, **items)
    assert [defect["code"] for defect in stranger["defects"]] == ["name-differs"]
    seen = await house.clerk().file(
        beneficiary=a_person("王晓明", number), channel="on_site", payee_account=None,
        items=[{"code": "medical_care"}], materials=licences("identity_document"),
    )  # fmt: skip
    assert seen["state"] == "accepted"
    assert len(await house.rows("SELECT DISTINCT beneficiary FROM application")) == 1


async def test_a_handler_needs_an_authority_that_holds_today(house: House) -> None:
    handler = a_person("李经办")
    for authority, code in (
        (a_mandate("2020-01-01", "2020-12-31"), "authority-expired"),
        ({"kind": "self"}, "authority-not-self"),
        ({"kind": "power_of_attorney", "from": "2020-01-01", "to": "2099-12-31"}, "authority-evidence-missing"),
    ):
        receipt = await house.portal().file(handler={"person": handler, "authority": authority})
        assert [defect["code"] for defect in receipt["defects"]] == [code]
    receipt = await house.portal().file(handler={"person": handler, "authority": a_mandate()})
    assert receipt["state"] == "accepted"


async def test_a_clerk_takes_in_at_their_own_platform_only(house: House) -> None:
    answer = await house.clerk(DISTRICT).post("/applications", a_filing(channel="on_site", platform=COUNTY))
    assert answer.problem(422, "filing-wrong")["errors"][0]["field"] == "/platform"


async def test_without_scope_or_key_nothing_is_taken_in(house: House) -> None:
    answer = await house.a("supervisor").post("/applications", a_filing())
    answer.problem(403, "forbidden")
    answer = await house.portal().post("/applications", a_filing(), headers={"Idempotency-Key": ""})
    answer.problem(400, "idempotency-key-missing")


async def test_people_who_handle_for_one_another_file_at_once(house: House) -> None:
    one, other = a_person("王小明"), a_person("李经办")
    await house.portal().file(beneficiary=one, items=[CERTIFICATION])
    pairs = [(one, other), (other, one)] * 3
    answers = await asyncio.gather(
        *(
            house.portal(f"p{n}").post(
                "/applications",
                a_filing(
                    beneficiary=beneficiary,
                    payee_account=an_account(beneficiary["name"], f"62170000100000{n:05}"),
                    handler={"person": handler, "authority": a_mandate()},
                ),
            )
            for n, (beneficiary, handler) in enumerate(pairs)
        )
    )
    assert {answer.status for answer in answers} == {201}


@pytest.mark.parametrize(
    "text", ["甲\u0000乙", "甲\n乙", "甲\u202e乙", "\ud800", "", " " * 3, "长" * 500], ids=lambda text: ascii(text)[:12]
)
async def test_text_that_cannot_be_kept_or_shown_is_refused(house: House, text: str) -> None:
    filing = json.dumps(a_filing(employer=an_employer(name=text), beneficiary=a_person(text)))
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    answer = await house.portal()._ask("POST", "/applications", headers=headers, content=filing)
    assert answer.status == 422
    assert {"/employer/name", "/beneficiary/name"} == {error["field"] for error in answer.body["errors"]}


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"{}", b'{"a":' * 900 + b"1" + b"}" * 900, b'{"items": NaN}'])
async def test_whatever_comes_is_answered_with_a_problem(house: House, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    for path in ("/applications", f"/applications/{uuid4()}:correct"):
        answer = await house.portal()._ask("POST", path, headers=headers, content=body)
        assert answer.status in {400, 404, 422}
