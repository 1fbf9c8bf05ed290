"""Decisions: two officers, numbers, what a benefit relies on, and what follows a refusal."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import IntegrityError

from libs.common.events import ApplicationAccepted, ApplicationClosed, BenefitApproved, TalentCertified
from libs.common.identity import check_certification_number
from tests.workflow.builders import DISTRICT, an_acceptance, an_item, today
from tests.workflow.conftest import House


async def ready(house: House, *codes: str, fail: str | None = None, **changes: Any) -> ApplicationAccepted:
    """An application whose departments have all answered."""
    application = an_acceptance(*codes, **changes)
    await house.hear(application)
    await house.work_off(application, fail=fail)
    return application


async def certified(house: House, **changes: Any) -> tuple[ApplicationAccepted, str]:
    """A closed application with its certification's number."""
    application = await ready(house, **changes)
    (await house.decide(application.items[0].item, "certify", treasury=application.treasury)).ok()
    return application, (await house.emitted(TalentCertified))[-1].number


async def later_benefit(house: House, number: str | None, code: str = "living_allowance", **changes: Any) -> Any:
    application = await ready(house, items=(an_item(code, certification=number),), **changes)
    return application, application.items[0].item


# -- two officers


async def test_a_certification_is_proposed_by_one_officer_and_confirmed_by_another(house: House) -> None:
    application = await ready(house)
    item = application.items[0].item
    first, second = house.officer("officer-1"), house.officer("officer-2")
    (waiting,) = (await first.get("/decisions")).ok()["items"]
    assert (waiting["item"], waiting["state"], waiting["verdicts"]) == (
        str(item),
        "awaiting_decision",
        ["certify", "refuse"],
    )
    assert {(task["department"], task["result"]) for task in waiting["tasks"]} == {
        ("public_security", "passed"),
        ("education", "passed"),
        ("human_resources", "passed"),
        ("talent_office", "passed"),
    }
    body = {"verdict": "certify", "category": "doctor"}
    proposed = (await first.post(f"/items/{item}:propose", body, etag=waiting["etag"])).ok()
    assert (proposed["state"], proposed["proposal"]["by"], proposed["verdicts"]) == ("proposed", "officer-1", [])
    own = (await first.post(f"/items/{item}:confirm", etag=proposed["etag"])).problem(409, "four-eyes-required")
    assert own["title"] == "提出人不能复核自己提出的决定"
    (await first.post(f"/items/{item}:reject", {"reason": "类别有误"}, etag=proposed["etag"])).problem(
        409, "four-eyes-required"
    )
    (await second.post(f"/items/{item}:confirm", etag=proposed["etag"])).ok()
    (told,) = await house.emitted(TalentCertified)
    assert (told.category, told.decided_on, told.treasury) == ("doctor", today(), "410522")
    assert (told.beneficiary, told.employer_kind) == (application.beneficiary, "enterprise")
    assert told.valid_to.year == today().year + 5
    assert told.number.startswith(f"RD410522{today().year}000001")
    assert check_certification_number(told.number) == []
    (closed,) = await house.emitted(ApplicationClosed)
    assert (closed.state, closed.items[0].result) == ("closed", "done")
    shown = (await second.get(f"/certifications/{told.number}")).ok()
    assert (shown["proposed_by"], shown["confirmed_by"]) == ("officer-1", "officer-2")


async def test_the_database_itself_refuses_one_officer_for_both_steps(house: House) -> None:
    application = await ready(house)
    with pytest.raises(IntegrityError, match="four_eyes"):
        await house.rows(
            "UPDATE item SET proposed_by = 'x', confirmed_by = 'x' WHERE id = :i RETURNING 1",
            i=application.items[0].item,
        )


async def test_a_rejected_proposal_goes_back_and_may_be_made_anew(house: House) -> None:
    application = await ready(house)
    item = application.items[0].item
    first, second = house.officer("officer-1"), house.officer("officer-2")
    etag = (await first.get(f"/items/{item}")).headers["ETag"]
    proposed = (await first.post(f"/items/{item}:propose", {"verdict": "certify"}, etag=etag)).ok()
    back = (await second.post(f"/items/{item}:reject", {"reason": "请按博士认定"}, etag=proposed["etag"])).ok()
    assert (back["state"], back["proposal"]) == ("awaiting_decision", None)
    again = await second.post(f"/items/{item}:propose", {"verdict": "certify"}, etag=back["etag"])
    (await first.post(f"/items/{item}:confirm", etag=again.ok()["etag"])).ok()
    (told,) = await house.emitted(TalentCertified)
    assert told.category == "master"  # as claimed
    assert "rejected" in await house.actions(application)


async def test_an_officer_acts_on_what_was_read_and_on_nothing_newer(house: House) -> None:
    item = (await ready(house)).items[0].item
    first, second = house.officer("officer-1"), house.officer("officer-2")
    (await first.post(f"/items/{item}:propose", {"verdict": "certify"})).problem(428, "precondition-required")
    old = (await first.get(f"/items/{item}")).ok()["etag"]
    (await first.post(f"/items/{item}:propose", {"verdict": "certify"}, etag=old)).ok()
    (await second.post(f"/items/{item}:confirm", etag=old)).problem(412, "precondition-failed")


async def test_a_confirmation_repeated_under_its_key_certifies_once(house: House) -> None:
    item = (await ready(house)).items[0].item
    first, second, key = house.officer("officer-1"), house.officer("officer-2"), uuid4().hex
    etag = (await first.get(f"/items/{item}")).ok()["etag"]
    etag = (await first.post(f"/items/{item}:propose", {"verdict": "certify"}, etag=etag)).ok()["etag"]
    answers = await asyncio.gather(*(second.post(f"/items/{item}:confirm", key=key, etag=etag) for _ in range(3)))
    assert all(answer.ok() == answers[0].body for answer in answers)
    assert len(await house.emitted(TalentCertified)) == 1


async def test_two_officers_confirming_at_the_same_moment_certify_once(house: House) -> None:
    item = (await ready(house)).items[0].item
    first = house.officer("officer-1")
    etag = (await first.get(f"/items/{item}")).ok()["etag"]
    etag = (await first.post(f"/items/{item}:propose", {"verdict": "certify"}, etag=etag)).ok()["etag"]
    answers = await asyncio.gather(
        *(house.officer(f"officer-{n}").post(f"/items/{item}:confirm", etag=etag) for n in (2, 3, 4))
    )
    assert sorted(answer.status for answer in answers) == [200, 412, 412]
    assert len(await house.emitted(TalentCertified)) == 1


async def test_an_item_still_at_its_departments_is_not_decided(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    officer, item = house.officer(), application.items[0].item
    assert (await officer.get("/decisions")).ok()["items"] == []
    etag = (await officer.get(f"/items/{item}")).ok()["etag"]
    (await officer.post(f"/items/{item}:propose", {"verdict": "certify"}, etag=etag)).problem(409, "item-not-awaiting")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"verdict": "approve"}, 422, "verdict-not-applicable"),
        ({"verdict": "refuse"}, 422, "reason-missing"),
        ({"verdict": "certify", "category": "no_such"}, 422, "category-unknown"),
        ({"verdict": "certify", "category": "flexible"}, 422, "category-not-of-item"),
        ({"verdict": "certify", "name": "x"}, 422, "invalid-request"),
    ],
)
async def test_a_wrong_proposal_says_what_is_wrong(house: House, body: Any, status: int, code: str) -> None:
    item = (await ready(house)).items[0].item
    officer = house.officer()
    etag = (await officer.get(f"/items/{item}")).ok()["etag"]
    (await officer.post(f"/items/{item}:propose", body, etag=etag)).problem(status, code)


async def test_after_a_failed_task_only_a_refusal_is_possible(house: House) -> None:
    application = await ready(house, fail="education")
    item, officer = application.items[0].item, house.officer()
    (shown,) = (await officer.get("/decisions")).ok()["items"]
    assert shown["verdicts"] == ["refuse"]
    assert shown["obstacles"] == [{"code": "task-failed", "title": "学历学位核验未通过：学历信息与登记不符"}]
    certify = {"verdict": "certify"}
    (await officer.post(f"/items/{item}:propose", certify, etag=shown["etag"])).problem(409, "decision-obstructed")
    (await house.decide(item, "refuse", reason="学历不符合认定条件")).ok()
    (closed,) = await house.emitted(ApplicationClosed)
    [refused] = closed.items
    assert (closed.state, refused.reason, refused.decided_on) == ("refused", "学历不符合认定条件", today())


# -- benefits


async def test_a_benefit_waits_for_the_certification_filed_with_it(house: House) -> None:
    application = await ready(house, "talent_certification", "living_allowance")
    certification, allowance = (each.item for each in application.items)
    officer = house.officer()
    assert [each["item"] for each in (await officer.get("/decisions")).ok()["items"]] == [str(certification)]
    held = (await officer.get(f"/items/{allowance}")).ok()
    assert (held["ready"], held["verdicts"]) == (False, ["refuse"])
    approve = {"verdict": "approve"}
    (await officer.post(f"/items/{allowance}:propose", approve, etag=held["etag"])).problem(
        409, "certification-undecided"
    )
    (await house.decide(certification, "certify")).ok()
    (await house.decide(allowance, "approve")).ok()
    (approved,) = await house.emitted(BenefitApproved)
    (told,) = await house.emitted(TalentCertified)
    assert (approved.certification, approved.category, approved.benefit) == (told.number, "master", "living_allowance")
    assert (approved.accepted_on, approved.decided_on) == (application.accepted_on, today())
    assert (approved.payee_account, approved.employer) == (application.payee_account, application.employer)
    assert approved.number.startswith("DX410522")
    assert await house.state(application) == "closed"


async def test_a_refused_certification_refuses_the_benefits_filed_with_it(house: House) -> None:
    application = an_acceptance("talent_certification", "living_allowance", "medical_care")
    await house.hear(application)
    for department in ("public_security", "education", "human_resources"):
        for task in await house.tasks(application):
            if task.department == department and task.item == application.items[0].item:
                body = {"result": "failed", "reason": "信息不符"}
                (await house.department(department).post(f"/tasks/{task.id}:complete", body)).ok()
    (await house.decide(application.items[0].item, "refuse", reason="材料不实")).ok()
    (row,) = await house.rows("SELECT * FROM item WHERE id = :i", i=application.items[1].item)
    assert (row.state, row.reason) == ("refused", "所依据的人才认定未通过：材料不实")
    tasks = [task for task in await house.tasks(application) if task.item == application.items[1].item]
    assert {task.state for task in tasks} == {"cancelled"}
    assert await house.state(application) == "in_progress"  # the service goes on
    await house.work_off(application)
    (closed,) = await house.emitted(ApplicationClosed)
    assert closed.state == "closed"
    told = [(each.result, each.decided_on) for each in closed.items]
    assert told == [("refused", today()), ("refused", today()), ("done", None)]  # a service is no decision


async def test_a_later_benefit_names_a_certification(house: House) -> None:
    application, number = await certified(house)
    later, item = await later_benefit(house, number, beneficiary=application.beneficiary)
    (await house.decide(item, "approve")).ok()
    (approved,) = await house.emitted(BenefitApproved)
    assert (approved.application, approved.certification) == (later.application, number)


async def test_a_certification_under_a_record_that_was_merged_since_supports_a_benefit(house: House) -> None:
    """Intake accepts none but the beneficiary's own, and tells nobody else of merges."""
    _, number = await certified(house)
    _, item = await later_benefit(house, number, beneficiary=uuid4())
    (await house.decide(item, "approve")).ok()
    (approved,) = await house.emitted(BenefitApproved)
    assert approved.certification == number


async def test_an_unknown_certification_or_none_supports_nothing(house: House) -> None:
    for given in ("RD4105222026999999X", None):
        _, item = await later_benefit(house, given)
        shown = (await house.officer().get(f"/items/{item}")).ok()
        assert [each["code"] for each in shown["obstacles"]] == ["certification-missing"]
        assert (shown["verdicts"], shown["certification"]) == (["refuse"], None)


async def test_a_certification_that_expired_before_acceptance_supports_nothing(house: House) -> None:
    application, number = await certified(house)
    valid_to = (await house.emitted(TalentCertified))[0].valid_to
    for accepted_on, codes in ((valid_to, []), (valid_to + timedelta(1), ["certification-expired"])):
        _, item = await later_benefit(house, number, beneficiary=application.beneficiary, accepted_on=accepted_on)
        shown = (await house.officer().get(f"/items/{item}")).ok()
        assert [each["code"] for each in shown["obstacles"]] == codes


@pytest.mark.article("第二条")
@pytest.mark.parametrize("filed", ["doctor", "flexible"])  # the first as filed before the policy said whom it is for
async def test_nobody_is_certified_past_the_exclusion_of_flexible_talent(house: House, filed: str) -> None:
    application = await ready(house, items=(an_item("flexible_certification", category=filed),))
    item, officer = application.items[0].item, house.officer()
    etag = (await officer.get(f"/items/{item}")).ok()["etag"]
    certify: dict[str, Any] = {"verdict": "certify"} | ({"category": "doctor"} if filed == "flexible" else {})
    told = (await officer.post(f"/items/{item}:propose", certify, etag=etag)).problem(422, "category-not-of-item")
    assert "柔性引进人才（flexible）" in told["detail"]
    (await house.decide(item, "certify", category="flexible")).ok()


async def test_flexible_talent_has_no_living_allowance(house: House) -> None:
    application, number = await certified(house, items=(an_item("flexible_certification", category="flexible"),))
    _, item = await later_benefit(house, number, beneficiary=application.beneficiary)
    shown = (await house.officer().get(f"/items/{item}")).ok()
    assert shown["obstacles"] == [{"code": "category-excluded", "title": "“柔性引进人才”不享受生活补贴（第二条）"}]
    _, flat = await later_benefit(house, number, "talent_flat", beneficiary=application.beneficiary)
    assert (await house.officer().get(f"/items/{flat}")).ok()["obstacles"] == []


async def test_a_benefit_is_approved_once_for_a_person(house: House) -> None:
    application, number = await certified(house)
    items = [(await later_benefit(house, number, beneficiary=application.beneficiary))[1] for _ in range(3)]
    etags = {}
    for item in items[:2]:  # both proposed before either is confirmed
        etag = (await house.officer("officer-1").get(f"/items/{item}")).ok()["etag"]
        body = {"verdict": "approve"}
        etags[item] = (await house.officer("officer-1").post(f"/items/{item}:propose", body, etag=etag)).ok()["etag"]
    answers = await asyncio.gather(
        *(house.officer("officer-2").post(f"/items/{item}:confirm", etag=etag) for item, etag in etags.items())
    )
    assert sorted(answer.status for answer in answers) == [200, 409]
    (approved,) = await house.emitted(BenefitApproved)
    shown = (await house.officer().get(f"/items/{items[2]}")).ok()
    assert shown["obstacles"] == [
        {"code": "benefit-already-approved", "title": f"该受益人已获批此项待遇（批准编号 {approved.number}）"}
    ]
    (await house.decide(items[2], "refuse", reason="该待遇已享受")).ok()


async def test_two_claims_in_one_bulk_request_are_granted_once(house: House) -> None:
    application, number = await certified(house)
    items = [(await later_benefit(house, number, beneficiary=application.beneficiary))[1] for _ in range(2)]
    await propose_all(house, items, "approve")
    answer = await confirm_all(house, items)
    assert sorted(line["status"] for line in answer["lines"]) == [200, 409]
    assert len(await house.emitted(BenefitApproved)) == 1
    assert [row.last for row in await house.rows("SELECT last FROM number_sequence WHERE prefix = 'DX'")] == [1]


# -- in bulk


async def propose_all(house: House, items: list[UUID], verdict: str) -> Any:
    etags = await etags_of(house, items)
    lines = [{"item": str(item), "etag": etags[item], "verdict": verdict} for item in items]
    return (await house.officer("officer-1").post("/items:propose", {"items": lines})).ok()


async def confirm_all(house: House, items: list[UUID], officer: str = "officer-2") -> Any:
    etags = await etags_of(house, items)
    lines = [{"item": str(item), "etag": etags[item]} for item in items]
    return (await house.officer(officer).post("/items:confirm", {"items": lines})).ok()


async def etags_of(house: House, items: list[UUID]) -> dict[UUID, str]:
    rows = await house.rows("SELECT id, version FROM item WHERE id = ANY(CAST(:i AS uuid[]))", i=items)
    return {row.id: f'"{row.version}"' for row in rows}


async def test_many_items_are_proposed_and_confirmed_at_once(house: House) -> None:
    applications = [await ready(house) for _ in range(8)]
    items = [application.items[0].item for application in applications]
    assert (await propose_all(house, items, "certify"))["succeeded"] == 8
    assert [line["status"] for line in (await confirm_all(house, items, "officer-1"))["lines"]] == [409] * 8
    assert (await confirm_all(house, items))["succeeded"] == 8
    numbers = {event.number for event in await house.emitted(TalentCertified)}
    assert {number[12:18] for number in numbers} == {f"{n:06}" for n in range(1, 9)}
    assert {await house.state(application) for application in applications} == {"closed"}


async def test_a_bad_line_of_a_bulk_decision_harms_no_other(house: House) -> None:
    good, failed, elsewhere = (
        await ready(house),
        await ready(house, fail="education"),
        await ready(house, treasury=DISTRICT),
    )
    etags = await etags_of(house, [each.items[0].item for each in (good, failed, elsewhere)])
    lines = [{"item": str(item), "etag": etag, "verdict": "certify"} for item, etag in etags.items()] + [
        {"item": str(good.items[0].item), "verdict": "certify"},
        {"item": str(uuid4()), "etag": '"1"', "verdict": "x"},
    ]
    answer = (await house.officer().post("/items:propose", {"items": lines})).ok()
    by_item = {line["id"]: line["status"] for line in answer["lines"][:3]}
    assert by_item == {
        str(good.items[0].item): 200,
        str(failed.items[0].item): 409,
        str(elsewhere.items[0].item): 404,
    }
    assert [line["status"] for line in answer["lines"][3:]] == [422, 422]


# -- numbers and the record


async def test_each_person_has_one_record_with_everything_in_it(house: House) -> None:
    application, number = await certified(house)
    person = application.beneficiary
    _, item = await later_benefit(house, number, beneficiary=person)
    (await house.decide(item, "refuse", reason="在岗时间不足")).ok()
    record = (await house.a("talent", person=str(person)).get(f"/archive/{person}")).ok()
    assert [each["number"] for each in record["certifications"]] == [number]
    assert {(each["code"], each["result"], each["reason"]) for each in record["results"]} == {
        ("talent_certification", "done", None),
        ("living_allowance", "refused", "在岗时间不足"),
    }
    (await house.a("talent", person=str(uuid4())).get(f"/archive/{person}")).problem(404, "not-found")
    (await house.department("education").get(f"/archive/{person}")).problem(404, "not-found")
    (await house.officer(treasury=DISTRICT).get(f"/archive/{person}")).problem(404, "not-found")
