"""Public notice and objection: nobody is certified before the notice is over and every objection looked into."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Principal
from libs.common.calendar import CALENDAR
from libs.common.events import (
    ApplicationAccepted,
    ObjectionConcluded,
    ObjectionReceived,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
    TalentCertified,
)
from services.workflow import notices, publication
from services.workflow.decisions import confirm
from services.workflow.dossiers import Choice
from tests.common.packs import a_pack
from tests.workflow.builders import COUNTY, an_acceptance, an_item, today
from tests.workflow.conftest import Answer, House

REQUIRED = (('version: "2021-4.4"', 'version: "2021-4.5"'), ("required: false", "required: true"))
LAST_DAY = CALENDAR.add_working_days(today(), 5)
MATTER = {"matter": "反映其学历与申报材料不一致"}


async def ready(house: House, *, required: bool = True, **changes: Any) -> ApplicationAccepted:
    """An application whose departments have all answered, under a policy that requires a notice or only allows one."""
    if required:
        changes["policy"] = (await house.publish(a_pack(*REQUIRED))).identity
    application = an_acceptance(**changes)
    await house.hear(application)
    await house.work_off(application)
    return application


async def proposed(house: House, *, required: bool = True) -> UUID:
    """An item whose certification an officer has proposed."""
    item = (await ready(house, required=required)).items[0].item
    await propose(house, item)
    return item


async def propose(house: House, item: UUID, **body: Any) -> Answer:
    first = house.officer("officer-1")
    etag = (await first.get(f"/items/{item}")).ok()["etag"]
    return await first.post(f"/items/{item}:propose", {"verdict": "certify"} | body, etag=etag)


async def confirmed(house: House, item: UUID, on: date) -> str | None:
    """The code of what another officer is told who confirms on a day; None where it is done."""
    etag = (await house.officer("officer-2").get(f"/items/{item}")).ok()["etag"]
    second = Principal("officer-2", "office", "talent_office", frozenset({"workflow:decide"}), COUNTY, "talent_office")
    at = datetime.combine(on, time(4), UTC)
    async with house.service.database.transaction() as tx:
        refused = await confirm(tx, house.service.packs, [Choice(item, etag)], caller=second, now=at)
    return refused[item].code if refused else None


async def act(house: House, item: UUID, step: str, body: Any = None) -> Any:
    """Another officer takes a step of an item's decision, as it is now."""
    second = house.officer("officer-2")
    etag = (await second.get(f"/items/{item}")).ok()["etag"]
    return (await second.post(f"/items/{item}:{step}", body, etag=etag)).ok()


async def reject(house: House, item: UUID) -> None:
    await act(house, item, "reject", {"reason": "请核对后重新提出"})


async def objected(house: House, item: UUID) -> UUID:
    body = {"received_on": str(today())} | MATTER
    answer = await house.officer("officer-2").post(f"/items/{item}/objections", body)
    assert answer.status == 201, answer.body
    return UUID(answer.body["notice"]["objections"][-1]["id"])


async def conclude(house: House, objection: UUID, *, upheld: bool, by: str = "officer-2") -> Answer:
    body = {"upheld": upheld, "finding": "经向发证学校核实"}
    return await house.officer(by).post(f"/objections/{objection}:conclude", body)


@pytest.mark.article("第五条")
async def test_where_the_policy_requires_it_a_proposal_is_published_at_once(house: House) -> None:
    application = await ready(house)
    item = application.items[0].item
    shown = (await propose(house, item)).ok()
    assert (shown["state"], shown["may_publish"]) == ("proposed", False)
    assert shown["notice"] | {"id": None} == {
        "id": None,
        "category": "master",
        "opened_on": str(today()),
        "last_day": str(LAST_DAY),
        "provisional": CALENDAR.is_provisional(LAST_DAY),
        "objections": [],
    }
    (told,) = await house.emitted(PublicNoticeOpened)
    assert (told.application, told.item, told.category) == (application.application, item, "master")
    assert (told.opened_on, told.last_day, told.treasury) == (today(), LAST_DAY, COUNTY)
    assert "notice_opened" in await house.actions(application)


@pytest.mark.article("第五条")
async def test_it_is_confirmed_from_the_day_after_the_last_and_no_sooner(house: House) -> None:
    item = await proposed(house)
    second = house.officer("officer-2")
    etag = (await second.get(f"/items/{item}")).ok()["etag"]
    problem = (await second.post(f"/items/{item}:confirm", etag=etag)).problem(409, "notice-running")
    assert str(LAST_DAY) in problem["detail"]
    assert await confirmed(house, item, LAST_DAY) == "notice-running"
    assert await confirmed(house, item, LAST_DAY + timedelta(days=1)) is None
    (told,) = await house.emitted(TalentCertified)
    assert told.decided_on == LAST_DAY + timedelta(days=1)


async def test_a_case_on_notice_is_shown_as_under_a_special_procedure_until_the_notice_is_over(house: House) -> None:
    application = await ready(house)
    officer = house.officer()
    assert (await officer.get(f"/cases/{application.application}")).ok()["state"] == "in_progress"
    await propose(house, application.items[0].item)
    assert (await officer.get(f"/cases/{application.application}")).ok()["state_title"] == "特别程序"
    listed = (await officer.get("/cases", state="suspended")).ok()["items"]
    assert [each["application"] for each in listed] == [str(application.application)]
    assert (await officer.get("/cases", state="in_progress")).ok()["items"] == []
    assert await confirmed(house, application.items[0].item, LAST_DAY + timedelta(days=1)) is None
    assert (await officer.get(f"/cases/{application.application}")).ok()["state"] == "closed"


async def test_where_the_policy_allows_it_an_officer_publishes_or_does_not(house: House) -> None:
    plain, noticed = await proposed(house, required=False), await proposed(house, required=False)
    assert await confirmed(house, plain, today()) is None
    officer = house.officer("officer-2")
    etag = (await officer.get(f"/items/{noticed}")).ok()["etag"]
    shown = (await officer.post(f"/items/{noticed}:publish", etag=etag)).ok()
    assert (shown["notice"]["last_day"], shown["may_publish"]) == (str(LAST_DAY), False)
    again = await officer.post(f"/items/{noticed}:publish", etag=shown["etag"])
    again.problem(409, "notice-open-already")
    assert await confirmed(house, noticed, today()) == "notice-running"


async def test_only_a_proposed_certification_is_published(house: House) -> None:
    item = (await ready(house, required=False)).items[0].item
    officer = house.officer()
    etag = (await officer.get(f"/items/{item}")).ok()["etag"]
    (await officer.post(f"/items/{item}:publish", etag=etag)).problem(409, "item-not-awaiting")
    (await officer.post(f"/items/{item}:publish")).problem(428, "precondition-required")
    etag = (await propose(house, item, verdict="refuse", reason="学历不符")).ok()["etag"]
    (await officer.post(f"/items/{item}:publish", etag=etag)).problem(409, "notice-not-provided")
    assert await confirmed(house, item, today()) is None  # a refusal waits for nobody


async def test_a_proposal_that_was_made_before_the_notice_existed_is_published_first(house: House) -> None:
    """As an older process left it, in a rolling change."""
    item = await proposed(house)
    await house.rows("UPDATE item SET proposed_at = proposed_at - interval '1 hour' WHERE id = :i RETURNING 1", i=item)
    assert await confirmed(house, item, LAST_DAY + timedelta(days=9)) == "notice-required"
    officer = house.officer("officer-2")
    shown = (await officer.get(f"/items/{item}")).ok()
    assert shown["may_publish"]
    (await officer.post(f"/items/{item}:publish", etag=shown["etag"])).ok()
    assert await confirmed(house, item, LAST_DAY + timedelta(days=1)) is None


@pytest.mark.article("第五条")
async def test_an_objection_is_looked_into_before_anybody_is_certified(house: House) -> None:
    item = await proposed(house)
    objection = await objected(house, item)
    after = LAST_DAY + timedelta(days=1)
    assert await confirmed(house, item, after) == "objections-open"
    (await conclude(house, objection, upheld=False, by="officer-1")).problem(409, "own-proposal-contested")
    shown = (await conclude(house, objection, upheld=False)).ok()
    (found,) = shown["notice"]["objections"]
    assert (found["upheld"], found["finding"], found["concluded_on"]) == (False, "经向发证学校核实", str(today()))
    (await conclude(house, objection, upheld=True)).problem(409, "objection-concluded-already")
    assert await confirmed(house, item, after) is None
    (received,), (concluded,) = await house.emitted(ObjectionReceived), await house.emitted(ObjectionConcluded)
    assert (received.objection, concluded.objection, concluded.upheld) == (objection, objection, False)


async def test_an_objection_that_is_upheld_stands_against_the_item_for_good(house: House) -> None:
    item = await proposed(house)
    (await conclude(house, await objected(house, item), upheld=True)).ok()
    assert await confirmed(house, item, LAST_DAY + timedelta(days=1)) == "decision-obstructed"
    second = house.officer("officer-2")
    etag = (await second.get(f"/items/{item}")).ok()["etag"]
    back = (await second.post(f"/items/{item}:reject", {"reason": "异议成立"}, etag=etag)).ok()
    assert (back["notice"], back["verdicts"]) == (None, ["refuse"])
    assert [each["code"] for each in back["obstacles"]] == ["objection-upheld"]
    (withdrawn,) = await house.emitted(PublicNoticeWithdrawn)
    assert (withdrawn.item, withdrawn.withdrawn_on) == (item, today())
    problem = (await propose(house, item)).problem(409, "decision-obstructed")
    assert "经向发证学校核实" in problem["detail"]
    (await propose(house, item, verdict="refuse", reason="公示期间异议成立")).ok()
    assert await confirmed(house, item, today()) is None
    assert await house.emitted(TalentCertified) == []


async def test_a_proposal_that_was_sent_back_has_a_notice_of_its_own_when_it_is_made_anew(house: House) -> None:
    item = await proposed(house)
    await reject(house, item)
    shown = (await propose(house, item, category="doctor")).ok()
    assert (shown["notice"]["category"], shown["earlier_notices"][0]["category"]) == ("doctor", "master")
    first, anew = await house.emitted(PublicNoticeOpened)
    assert first.notice != anew.notice
    assert await confirmed(house, item, LAST_DAY + timedelta(days=1)) is None


@pytest.mark.parametrize("required", [True, False])
async def test_an_objection_is_not_got_rid_of_by_proposing_anew(house: House, required: bool) -> None:
    item = await proposed(house, required=required)
    if not required:
        await act(house, item, "publish")
    objection = await objected(house, item)
    await reject(house, item)
    await propose(house, item)
    after = LAST_DAY + timedelta(days=1)
    assert await confirmed(house, item, after) == "objections-open"
    (await conclude(house, objection, upheld=False, by="officer-1")).problem(409, "own-proposal-contested")
    shown = (await conclude(house, objection, upheld=False)).ok()
    assert [each["upheld"] for each in shown["earlier_notices"][0]["objections"]] == [False]
    assert await confirmed(house, item, after) is None


async def test_an_objection_to_what_has_been_decided_is_looked_into_no_more(house: House) -> None:
    item = await proposed(house)
    objection = await objected(house, item)
    await reject(house, item)
    (await propose(house, item, verdict="refuse", reason="材料不实")).ok()
    assert await confirmed(house, item, today()) is None
    (await conclude(house, objection, upheld=False)).problem(409, "notice-not-running")


async def test_a_calendar_that_gained_holidays_makes_a_notice_longer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = await proposed(house)
    later = CALENDAR.with_notice(working=(), holidays=[LAST_DAY], official_through=LAST_DAY + timedelta(days=30))
    monkeypatch.setattr(notices, "CALENDAR", later)
    assert await confirmed(house, item, LAST_DAY + timedelta(days=1)) == "notice-running"
    assert await confirmed(house, item, later.add_working_days(today(), 5) + timedelta(days=1)) is None


async def test_an_officer_acts_on_an_item_as_it_is_after_an_objection(house: House) -> None:
    item = await proposed(house, required=False)
    shown = await act(house, item, "publish")
    await objected(house, item)
    stale = await house.officer("officer-2").post(f"/items/{item}:confirm", etag=shown["etag"])
    stale.problem(412, "precondition-failed")


async def test_a_notice_takes_so_many_objections_and_no_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "MOST_OBJECTIONS", 1)
    item = await proposed(house)
    await objected(house, item)
    body = {"received_on": str(today())} | MATTER
    (await house.officer().post(f"/items/{item}/objections", body)).problem(409, "too-many-objections")


async def test_a_stretch_from_before_notices_is_still_shown_and_none_is_made(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "education")
    unit, body = house.department("education"), {"from_day": str(today())}
    (await unit.post(f"/tasks/{task.id}:suspend", body | {"reason": "public_notice"})).problem(422, "invalid-request")
    await house.rows(
        """INSERT INTO suspension (id, task, reason, from_day, recorded_by, recorded_at)
           VALUES (gen_random_uuid(), :task, 'public_notice', :day, 'x', now()) RETURNING 1""",
        task=task.id,
        day=today(),
    )
    (stretch,) = (await unit.get(f"/tasks/{task.id}")).ok()["suspensions"]
    assert stretch["title"] == "公示"


async def test_an_objection_counts_that_came_while_the_notice_ran(house: House) -> None:
    item = await proposed(house)
    officer = house.officer()
    for day in (today() - timedelta(days=1), today() + timedelta(days=1)):
        answer = await officer.post(f"/items/{item}/objections", {"received_on": str(day)} | MATTER)
        problem = answer.problem(422, "objection-day-refused")
        assert str(today()) in problem["detail"]
    other = (await ready(house, required=False)).items[0].item
    body = {"received_on": str(today())} | MATTER
    (await officer.post(f"/items/{other}/objections", body)).problem(409, "notice-not-running")
    (await officer.post(f"/items/{uuid4()}/objections", body)).problem(404, "not-found")
    (await conclude(house, uuid4(), upheld=True)).problem(404, "not-found")
    assert await house.emitted(ObjectionReceived) == []


async def test_who_objected_is_not_told_to_the_one_concerned_nor_to_another_treasury(house: House) -> None:
    application = await ready(house)
    item = application.items[0].item
    await propose(house, item)
    objection = await objected(house, item)
    person = house.a("talent", person=str(application.beneficiary))
    (shown,) = (await person.get(f"/items/{item}")).ok()["notice"]["objections"]
    assert (shown["id"], shown["matter"]) == (str(objection), None)
    (seen,) = (await house.officer().get(f"/items/{item}")).ok()["notice"]["objections"]
    assert seen["matter"] == MATTER["matter"]
    history = (await person.get(f"/cases/{application.application}")).ok()["history"]
    assert MATTER["matter"] not in str(history)
    stranger = house.officer("officer-9", treasury="410502")
    body = {"upheld": True, "finding": "核查"}
    (await stranger.post(f"/objections/{objection}:conclude", body)).problem(404, "not-found")


async def test_an_objection_repeated_under_its_key_is_one(house: House) -> None:
    item, key = await proposed(house), uuid4().hex
    body = {"received_on": str(today())} | MATTER
    answers = [await house.officer().post(f"/items/{item}/objections", body, key=key) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    assert len(await house.emitted(ObjectionReceived)) == 1


async def test_many_proposals_are_published_together(house: House) -> None:
    policy = (await house.publish(a_pack(*REQUIRED))).identity
    applications = [an_acceptance(policy=policy) for _ in range(3)]
    await house.hear(*applications)
    await house.work_off(*applications)
    officer = house.officer()
    waiting = (await officer.get("/decisions")).ok()["items"]
    lines = [{"item": each["item"], "etag": each["etag"], "verdict": "certify"} for each in waiting]
    (await officer.post("/items:propose", {"items": lines})).ok()
    told = await house.emitted(PublicNoticeOpened)
    assert {each.application for each in told} == {each.application for each in applications}


async def test_a_benefit_needs_no_notice(house: House) -> None:
    policy = (await house.publish(a_pack(*REQUIRED))).identity
    application = an_acceptance(policy=policy, items=(an_item("talent_certification"), an_item("living_allowance")))
    await house.hear(application)
    await house.work_off(application)
    certification, benefit = (each.item for each in application.items)
    await propose(house, certification)
    assert await confirmed(house, certification, LAST_DAY + timedelta(days=1)) is None
    shown = (await propose(house, benefit, verdict="approve")).ok()
    assert (shown["notice"], shown["may_publish"]) == (None, False)
