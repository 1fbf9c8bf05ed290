"""Cases open with an acceptance, once, and end with their last result or a withdrawal that still counts."""

from datetime import date
from uuid import uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from libs.common.calendar import end_of_day
from libs.common.events import (
    AcceptedItem,
    ApplicationClosed,
    DeptAssigned,
    DeptCompleted,
    PayeeAccountChanged,
    SlaBreached,
    WithdrawalIgnored,
)
from libs.common.packs import store
from libs.common.policy import PackIdentity
from tests.common.packs import a_pack
from tests.workflow.builders import CITY, COUNTY, a_withdrawal, an_acceptance, today
from tests.workflow.conftest import House


async def test_an_acceptance_opens_the_case_and_gives_the_first_stage_to_its_departments(house: House) -> None:
    application = an_acceptance("talent_certification", "living_allowance")
    await house.hear(application)
    tasks = await house.tasks(application)
    assert sorted(task.department for task in tasks) == sorted(
        ["public_security", "education", "human_resources", "human_resources", "tax"]
    )
    assert {task.treasury for task in tasks} == {COUNTY}
    assigned = await house.emitted(DeptAssigned)
    assert {event.task for event in assigned} == {task.id for task in tasks}
    due = {row.key: row.at for row in await house.rows("SELECT key, at FROM due WHERE kind = 'task.deadline'")}
    assert due == {str(event.task): end_of_day(event.due_on) for event in assigned}


async def test_a_task_of_the_city_level_goes_to_the_citys_department(house: House) -> None:
    application = an_acceptance("flexible_certification")
    await house.hear(application)
    units = {(task.treasury, task.department) for task in await house.tasks(application)}
    assert units == {(COUNTY, "public_security"), (CITY, "science_technology")}


async def test_a_redelivered_acceptance_opens_one_case(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    await house.hear(application)
    another_id = application.model_copy().stamped(event_id=uuid4(), time=application.time, trace=None)
    await house.hear(another_id)
    assert len(await house.tasks(application)) == len(await house.emitted()) == 3
    assert (await house.actions(application)).count("case_opened") == 1


async def test_many_acceptances_are_opened_in_one_batch(house: House) -> None:
    applications = [an_acceptance("talent_certification", "purchase_subsidy") for _ in range(20)]
    await house.hear_together(*applications)
    assert len(await house.rows("SELECT 1 FROM cases")) == 20
    numbers = await house.rows("SELECT feed_no FROM task WHERE department = 'education' ORDER BY feed_no")
    assert [row.feed_no for row in numbers] == list(range(1, 21))


async def test_an_item_that_the_policy_does_not_hold_parks_its_own_application_only(house: House) -> None:
    unknown = an_acceptance(items=(AcceptedItem(item=uuid4(), code="no_such_item", kind="service"),))
    good = an_acceptance()
    await house.hear_together(unknown, good)
    assert [row.key for row in await house.rows("SELECT key FROM parked")] == [str(unknown.application)]
    assert await house.state(good) == "in_progress"


async def test_an_application_under_a_policy_that_has_not_arrived_waits_for_it(house: House) -> None:
    early = an_acceptance(policy=PackIdentity(city="anyang", version="2099", sha256="0" * 64))
    await house.hear(early)
    (row,) = await house.rows("SELECT waiting_for FROM parked_key")
    assert row.waiting_for == f"pack:{'0' * 64}"


async def test_a_changed_account_is_told_once_the_talent_office_has_confirmed_it(house: House) -> None:
    application = an_acceptance("payee_account_change")
    await house.hear(application)
    assert await house.emitted(PayeeAccountChanged) == []
    shown = (await house.officer().get(f"/cases/{application.application}")).ok()
    assert shown["payee_account"] == str(application.payee_account)
    await house.work_off(application)
    told, closed = (await house.emitted())[-2:]
    assert isinstance(told, PayeeAccountChanged)
    assert (told.beneficiary, told.payee_account) == (application.beneficiary, application.payee_account)
    assert (told.accepted_on, told.decided_on) == (application.accepted_on, today())
    assert isinstance(closed, ApplicationClosed)
    assert (closed.state, closed.items[0].result) == ("closed", "done")


async def test_an_account_that_the_talent_office_does_not_confirm_stays(house: House) -> None:
    application = an_acceptance("payee_account_change")
    await house.hear(application)
    await house.work_off(application, fail="talent_office")
    assert await house.state(application) == "refused"
    assert await house.emitted(PayeeAccountChanged) == []


async def test_a_change_without_departments_is_done_at_once(house: House) -> None:
    stage = """    stages:
      - - {department: talent_office, title: 向受益人本人核实账户变更, limit_working_days: 2}
"""
    trusting = a_pack(('version: "2021-4.4"', 'version: "trusting"'), (stage, "    stages: []\n"))
    async with house.service.database.transaction() as tx:
        await store(tx, trusting)
    await house.service.packs.refresh()
    application = an_acceptance("payee_account_change", policy=trusting.identity)
    await house.hear(application)
    assert await house.state(application) == "closed"
    told, closed = await house.emitted()
    assert isinstance(told, PayeeAccountChanged)
    assert isinstance(closed, ApplicationClosed)
    assert (closed.state, closed.items[0].result) == ("closed", "done")


@pytest.mark.article("第六条")
async def test_a_service_ends_with_its_departments_result_and_says_why_it_was_refused(house: House) -> None:
    done, failed = an_acceptance("medical_care"), an_acceptance("medical_care")
    await house.hear(done, failed)
    await house.work_off(done)
    await house.work_off(failed, fail="health")
    assert (await house.state(done), await house.state(failed)) == ("closed", "refused")
    last = (await house.emitted(ApplicationClosed))[-1]
    assert last.items[0].reason == "开通就医绿色通道未通过：学历信息与登记不符"


async def test_a_withdrawal_before_any_decision_ends_the_case(house: House) -> None:
    application = an_acceptance("talent_certification", "medical_care")
    await house.hear(application)
    health = await house.task(application, "health")
    (await house.department("health").post(f"/tasks/{health.id}:complete", {"result": "passed"})).ok()
    await house.hear(a_withdrawal(application.application))
    assert await house.state(application) == "withdrawn"
    (closed,) = await house.emitted(ApplicationClosed)
    assert closed.state == "withdrawn"
    assert {item.result for item in closed.items} == {"done", "withdrawn"}
    assert {task.state for task in await house.tasks(application)} == {"cancelled", "completed"}
    await house.tick(end_of_day(date(2099, 1, 1)))
    assert await house.emitted(SlaBreached) == []
    late = await house.task(application, "education")
    answer = await house.department("education").post(f"/tasks/{late.id}:complete", {"result": "passed"})
    answer.problem(409, "task-not-open")


async def test_a_withdrawal_after_a_decision_is_noted_and_changes_nothing(house: House) -> None:
    application = an_acceptance("talent_certification", "living_allowance")
    await house.hear(application)
    await house.work_off(application)
    (await house.decide(application.items[0].item, "certify")).ok()
    await house.hear(a_withdrawal(application.application))
    assert await house.state(application) == "in_progress"
    assert (await house.actions(application))[-1] == "withdrawal_ignored"
    (told,) = await house.emitted(WithdrawalIgnored)
    assert (told.application, told.reason) == (application.application, "decided")
    (await house.decide(application.items[1].item, "approve")).ok()
    assert await house.state(application) == "closed"
    await house.hear(a_withdrawal(application.application))
    assert [told.reason for told in await house.emitted(WithdrawalIgnored)] == ["decided", "ended"]


async def test_a_redelivered_withdrawal_ends_the_case_once(house: House) -> None:
    application, withdrawal = an_acceptance(), None
    await house.hear(application)
    withdrawal = a_withdrawal(application.application)
    await house.hear(withdrawal)
    await house.hear(withdrawal)
    await house.hear(a_withdrawal(application.application))
    assert len(await house.emitted(ApplicationClosed)) == 1


async def test_a_withdrawal_of_what_was_never_accepted_is_intakes_own_matter(house: House) -> None:
    await house.hear(a_withdrawal(an_acceptance().application))
    assert await house.rows("SELECT 1 FROM parked") == []


async def test_acceptance_and_withdrawal_in_one_batch_keep_their_order(house: House) -> None:
    application = an_acceptance()
    await house.hear_together(application, a_withdrawal(application.application))
    assert await house.state(application) == "withdrawn"


async def test_the_case_shows_every_step_to_those_it_concerns(house: House) -> None:
    application = an_acceptance("talent_certification", "living_allowance")
    await house.hear(application)
    await house.work_off(application)
    (await house.decide(application.items[0].item, "certify")).ok()
    talent = house.a("talent", person=str(application.beneficiary))
    case = (await talent.get(f"/cases/{application.application}")).ok()
    assert (case["state"], case["state_title"], case["case_no"]) == ("in_progress", "办理中", application.case_no)
    certification, allowance = case["items"]
    assert certification["decision"]["number"].startswith("RD410522")
    assert {task["result"] for task in certification["tasks"]} == {"passed"}
    assert allowance["state"] == "awaiting_decision"
    actions = [entry["action"] for entry in case["history"]]
    assert actions[0] == "case_opened"
    assert {"task_assigned", "task_completed", "proposed", "confirmed"} <= set(actions)
    assert all(entry["title"] for entry in case["history"])


async def test_cases_are_listed_by_state_page_by_page(house: House) -> None:
    going, done = [an_acceptance() for _ in range(3)], an_acceptance("medical_care")
    await house.hear(*going, done)
    await house.work_off(done)
    supervisor = house.a("supervisor")
    first = (await supervisor.get("/cases", state="in_progress", limit=2)).ok()
    second = (await supervisor.get("/cases", state="in_progress", limit=2, cursor=first["next"])).ok()
    shown = [case["application"] for case in first["items"] + second["items"]]
    assert shown == sorted(str(each.application) for each in going)
    assert second["next"] is None
    assert {case["light"] for case in first["items"]} <= {"green", "yellow"}
    (closed,) = (await supervisor.get("/cases", state="closed")).ok()["items"]
    assert (closed["application"], closed["light"]) == (str(done.application), None)


@pytest.mark.article("第三条")
async def test_every_department_result_is_one_event(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    await house.work_off(application)
    completed = await house.emitted(DeptCompleted)
    assert len(completed) == 4
    assert {event.result for event in completed} == {"passed"}


@pytest.mark.parametrize("table", ["history", "certification", "suspension", "breach", "record_entry"])
async def test_history_cannot_be_changed_by_the_service_itself(house: House, table: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        await house.rows(f"DELETE FROM {table} RETURNING 1")  # noqa: S608
