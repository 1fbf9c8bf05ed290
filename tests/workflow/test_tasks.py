"""Tasks: results one by one and in bulk, special procedures, limits that pass, and the long poll."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from libs.common.auth import ROLES, Principal
from libs.common.calendar import SHANGHAI, end_of_day
from libs.common.events import CaseResumed, CaseSuspended, DeptAssigned, DeptCompleted, SlaBreached
from libs.common.packs import store
from services.workflow.domain import SpecialProcedure, TaskOverdue
from services.workflow.tasks import Completion, complete, resume, suspend
from tests.common.packs import a_pack, reviewed
from tests.workflow.builders import CITY, COUNTY, DISTRICT, an_acceptance, today
from tests.workflow.conftest import House

MONDAY = date(2026, 3, 2)
PASSED = {"result": "passed"}


def at(day: date, hour: int = 10) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=SHANGHAI).astimezone(UTC)


def a_specialist(department: str, treasury: str = COUNTY, subject: str = "specialist-1") -> Principal:
    return Principal(subject, subject, "specialist", ROLES["specialist"], treasury, department)


async def do_complete(house: House, tasks: Sequence[Any], department: str, now: datetime, subject: str = "s") -> Any:
    async with house.service.database.transaction() as tx:
        lines = [Completion(task.id, "passed") for task in tasks]
        caller = a_specialist(department, subject=subject)
        return await complete(tx, house.service.packs, lines, caller=caller, now=now)


# -- results


async def test_a_department_reads_its_task_and_returns_the_result(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    education = house.department("education")
    (shown,) = (await education.get("/tasks", state="open")).ok()["items"]
    detail = (await education.get(f"/tasks/{shown['id']}")).ok()
    assert detail["materials"] == f"/intake/v1/applications/{application.application}/materials"
    assert detail["item"]["title"] == "人才认定"
    assert (detail["limit_working_days"], detail["days_used"], detail["days_left"]) == (3, 0, 3)
    assert detail["working"][0] == {
        "day": str(today()),
        "counted": False,
        "reason": "event_day",
        "title": "受理当日，不计入",
    }
    assert detail["working"][-1]["day"] == detail["due_on"]
    assert {material["code"] for material in detail["required_materials"]} >= {"identity_document"}
    body = {"result": "passed", "facts": {"degree": "master", "verified": True, "year": 2020}}
    answer = (await education.post(f"/tasks/{shown['id']}:complete", body)).ok()
    assert (answer["state"], answer["completed_by"]) == ("completed", f"department:{COUNTY}/education")
    assert answer["facts"] == body["facts"]
    (told,) = await house.emitted(DeptCompleted)
    assert (str(told.task), told.result, told.completed_on) == (shown["id"], "passed", today())


@pytest.mark.article("第二条")
async def test_what_the_policy_leaves_to_a_department_is_asked_of_it_and_told_with_its_result(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "human_resources")
    office = house.department("human_resources")
    asked = (await office.get(f"/tasks/{task.id}")).ok()["judgements"]
    assert [(each["name"], each["type"]) for each in asked] == [
        ("employer.good_standing", "bool"),
        ("person.insured_here", "bool"),
    ]
    found = {"employer.good_standing": True, "person.degree": "doctor", "person.insured_here": None, "checked": 3}
    (await office.post(f"/tasks/{task.id}:complete", {"result": "passed", "facts": found})).ok()
    (told,) = await house.emitted(DeptCompleted)
    assert told.facts == {"employer.good_standing": True, "person.degree": "doctor"}


async def test_what_only_a_review_before_a_later_instalment_asks_is_not_asked_of_a_task(house: House) -> None:
    fact = """  - name: person.still_working
    title: 仍在原用人单位工作
    type: bool
    stated_by: department
    department: human_resources
    document: anyang-2021-4
    article: 第四条

conditions:
"""
    rules, asked_later = reviewed("living_allowance")
    asked_later = asked_later.replace("when: person.insured_here", "when: person.still_working")
    pack = a_pack(
        ('version: "2021-4.4"', 'version: "2021-4.5"'), (rules, asked_later.replace("conditions:\n", fact, 1))
    )
    async with house.service.database.transaction() as tx:
        await store(tx, pack)
    await house.service.packs.refresh()
    application = an_acceptance(policy=pack.identity)
    await house.hear(application)
    task = await house.task(application, "human_resources")
    shown = (await house.department("human_resources").get(f"/tasks/{task.id}")).ok()
    assert [each["name"] for each in shown["judgements"]] == ["employer.good_standing", "person.insured_here"]


@pytest.mark.article("第二条")
@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("employer.good_standing", "yes", "请填 true 或 false"),
        ("person.degree", "phd", "可填：doctor（博士）"),
        ("employer.good_fortune", True, "请按 GET /intake/v1/policy 列出的事实名称填写"),
        ("person.household_here", True, "由其他部门认定"),
    ],
)
async def test_a_judgement_that_the_policy_does_not_take_is_refused_and_the_task_stays_open(
    house: House, name: str, value: object, advice: str
) -> None:
    application = an_acceptance()
    await house.hear(application)
    task, office = await house.task(application, "human_resources"), house.department("human_resources")
    body = {"result": "passed", "facts": {name: value}}
    refused = (await office.post(f"/tasks/{task.id}:complete", body)).problem(422, "judgement-wrong")
    assert name in refused["detail"]
    assert advice in refused["detail"]
    assert (await office.get(f"/tasks/{task.id}")).ok()["state"] == "open"
    lines = {"tasks": [{"task": str(task.id), **body}]}
    (line,) = (await office.post("/tasks:complete", lines)).ok()["lines"]
    assert line["problem"]["code"] == "judgement-wrong"


async def test_a_wrong_fact_is_told_of_the_form_that_it_has(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "education")
    education = house.department("education")
    hidden = {"result": "passed", "facts": {"degree": "硕\u200b士", "year": 2020, "honours": None}}
    refused = (await education.post(f"/tasks/{task.id}:complete", hidden)).problem(422, "content-wrong")
    assert [(each["field"], each["code"]) for each in refused["errors"]] == [("/facts/degree", "invisible-character")]
    listed = {"result": "passed", "facts": {"degree": ["master"], "year": 2020.5}}
    refused = (await education.post(f"/tasks/{task.id}:complete", listed)).problem(422, "invalid-request")
    assert [each["field"] for each in refused["errors"]] == ["/facts/degree", "/facts/year"]
    assert refused["errors"][0]["title"] == "应为文本"


async def test_a_failed_result_says_why_in_chinese(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "education")
    education = house.department("education")
    (await education.post(f"/tasks/{task.id}:complete", {"result": "failed"})).problem(422, "reason-missing")
    english = {"result": "failed", "reason": "no"}
    (await education.post(f"/tasks/{task.id}:complete", english)).problem(422, "content-wrong")
    numbered = {"result": "failed", "reason": "证件 4105 2219 9001 0100 11 查无记录"}  # it would enter an event
    refused = (await education.post(f"/tasks/{task.id}:complete", numbered)).problem(422, "content-wrong")
    assert [(error["field"], error["code"]) for error in refused["errors"]] == [("/reason", "number-in-words")]
    good = {"result": "failed", "reason": "学历证书编号查无记录"}
    assert (await education.post(f"/tasks/{task.id}:complete", good)).ok()["reason"] == "学历证书编号查无记录"


async def test_the_same_key_gives_the_same_answer_and_completes_once(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "education")
    education, key = house.department("education"), uuid4().hex
    first = await education.post(f"/tasks/{task.id}:complete", PASSED, key=key)
    second = await education.post(f"/tasks/{task.id}:complete", PASSED, key=key)
    assert second.ok() == first.ok()
    assert second.headers["Idempotency-Replayed"] == "true"
    (await education.post(f"/tasks/{task.id}:complete", PASSED)).problem(409, "task-not-open")
    assert len(await house.emitted(DeptCompleted)) == 1


async def test_the_next_stage_is_given_when_the_whole_stage_is_complete(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    for department in ("public_security", "education"):
        task = await house.task(application, department)
        (await house.department(department).post(f"/tasks/{task.id}:complete", PASSED)).ok()
    assert len(await house.tasks(application)) == 3
    task = await house.task(application, "human_resources")
    (await house.department("human_resources").post(f"/tasks/{task.id}:complete", PASSED)).ok()
    review = await house.task(application, "talent_office")
    assert (review.stage, review.start_on, review.treasury) == (1, today(), COUNTY)


async def test_after_a_failure_no_later_stage_is_begun(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    await house.work_off(application, fail="education")
    assert {task.stage for task in await house.tasks(application)} == {0}
    (row,) = await house.rows("SELECT state FROM item")
    assert row.state == "awaiting_decision"


async def test_two_specialists_finishing_a_stage_at_the_same_moment_begin_the_next_once(house: House) -> None:
    applications = [an_acceptance("living_allowance", "talent_certification") for _ in range(6)]
    await house.hear_together(*applications)
    for application in applications:
        task = await house.task(application, "public_security")
        assert await do_complete(house, [task], "public_security", datetime.now(UTC)) == {}
    pairs = []
    for application in applications:
        education = await house.task(application, "education")
        (staff,) = [
            each
            for each in await house.tasks(application)
            if each.department == "human_resources" and each.item == education.item
        ]
        pairs += [([education], "education"), ([staff], "human_resources")]
    now = datetime.now(UTC)
    answers = await asyncio.gather(*(do_complete(house, tasks, unit, now) for tasks, unit in pairs))
    assert answers == [{}] * len(pairs)
    reviews = await house.rows("SELECT item, count(*) AS n FROM task WHERE stage = 1 GROUP BY item")
    assert [row.n for row in reviews] == [1] * len(applications)
    reviewed = [event for event in await house.emitted(DeptAssigned) if event.department == "talent_office"]
    assert len(reviewed) == len(applications)


async def test_one_task_finished_by_two_at_once_counts_once(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "education")
    now = datetime.now(UTC)
    answers = await asyncio.gather(*(do_complete(house, [task], "education", now, subject=s) for s in ("a", "b", "c")))
    assert sorted(len(refused) for refused in answers) == [0, 1, 1]
    assert len(await house.emitted(DeptCompleted)) == 1


async def test_a_bad_line_of_a_bulk_request_harms_no_other(house: House) -> None:
    applications = [an_acceptance() for _ in range(3)]
    await house.hear(*applications)
    first, second, third = [await house.task(application, "education") for application in applications]
    foreign = await house.task(applications[0], "public_security")
    lines: list[Any] = [
        {"task": str(first.id), "result": "passed"},
        {"task": str(second.id), "result": "failed"},
        {"task": str(foreign.id), "result": "passed"},
        {"task": str(uuid4()), "result": "passed"},
        {"task": str(third.id), "result": "perhaps"},
        {"task": "not-an-id", "result": "passed"},
        {"task": str(third.id), "result": "failed", "reason": "证书\u0000编号有误"},
        {"task": str(first.id), "result": "passed"},
        "nonsense",
        {"task": str(third.id), "result": "failed", "reason": "证书编号有误", "facts": {"number_found": False}},
    ]
    answer = (await house.department("education").post("/tasks:complete", {"tasks": lines})).ok()
    assert [line["status"] for line in answer["lines"]] == [200, 422, 404, 404, 422, 422, 422, 409, 422, 200]
    assert (answer["succeeded"], answer["refused"]) == (2, 8)
    assert answer["lines"][1]["problem"]["code"] == "reason-missing"
    assert answer["lines"][4]["problem"]["errors"][0]["field"] == "/result"
    assert answer["lines"][7]["problem"]["code"] == "duplicate-line"
    assert [line["id"] for line in answer["lines"]][:2] == [str(first.id), str(second.id)]
    assert {str(event.task) for event in await house.emitted(DeptCompleted)} == {str(first.id), str(third.id)}


async def test_hundreds_of_results_are_taken_at_once(house: House) -> None:
    await house.hear_together(*(an_acceptance() for _ in range(150)))
    for department in ("public_security", "education", "human_resources"):
        rows = await house.rows("SELECT id FROM task WHERE department = :d", d=department)
        body = {"tasks": [{"task": str(row.id), "result": "passed"} for row in rows]}
        answer = (await house.department(department).post("/tasks:complete", body)).ok()
        assert answer["refused"] == 0
    assert len(await house.rows("SELECT 1 FROM task WHERE department = 'talent_office'")) == 150
    too_many = {"tasks": [{"task": str(uuid4()), "result": "passed"}] * 501}
    (await house.department("education").post("/tasks:complete", too_many)).problem(422, "invalid-request")


@pytest.mark.parametrize("org_unit", [f"{DISTRICT}/education", f"{COUNTY}/tax", f"{CITY}/education"])
async def test_another_org_units_task_looks_like_an_unknown_one(house: House, org_unit: str) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "education")
    for role in ("department", "specialist"):
        caller = house.a(role, org_unit=org_unit)
        unknown = await caller.get(f"/tasks/{uuid4()}")
        seen = await caller.get(f"/tasks/{task.id}")
        seen.problem(404, "not-found")
        assert {k: v for k, v in seen.body.items() if k != "instance"} == {
            k: v for k, v in unknown.body.items() if k != "instance"
        }
        (await caller.post(f"/tasks/{task.id}:complete", PASSED)).problem(404, "not-found")
        suspension = {"reason": "testing", "from_day": str(today())}
        (await caller.post(f"/tasks/{task.id}:suspend", suspension)).problem(404, "not-found")
        assert (await caller.get("/tasks")).ok()["items"] == []
        (await caller.get(f"/cases/{application.application}")).problem(404, "not-found")


# -- special procedures


async def test_a_special_procedure_stops_the_clock_and_shows_its_reason(house: House) -> None:
    application = an_acceptance()
    await house.hear(application)
    task = await house.task(application, "education")
    specialist = house.a("specialist", org_unit=f"{COUNTY}/education")
    body = {"reason": "expert_review", "from_day": str(today())}
    shown = (await specialist.post(f"/tasks/{task.id}:suspend", body)).ok()
    assert (shown["state"], shown["due_on"]) == ("suspended", None)
    assert shown["suspensions"] == [
        {"reason": "expert_review", "title": "专家评审", "from_day": str(today()), "to_day": None}
    ]
    case = (await house.a("supervisor").get(f"/cases/{application.application}")).ok()
    assert (case["state"], case["state_title"]) == ("suspended", "特别程序")
    (await specialist.post(f"/tasks/{task.id}:complete", PASSED)).problem(409, "task-not-open")
    (await specialist.post(f"/tasks/{task.id}:suspend", body)).problem(409, "task-not-open")
    future = {"to_day": str(today() + timedelta(1))}
    (await specialist.post(f"/tasks/{task.id}:resume", future)).problem(422, "suspension-day-refused")
    shown = (await specialist.post(f"/tasks/{task.id}:resume", {"to_day": str(today())})).ok()
    assert shown["state"] == "open"
    (await specialist.post(f"/tasks/{task.id}:resume", {"to_day": str(today())})).problem(409, "task-not-suspended")
    (stopped,) = await house.emitted(CaseSuspended)
    (resumed,) = await house.emitted(CaseResumed)
    assert (stopped.reason, str(resumed.due_on)) == ("expert_review", shown["due_on"])


async def test_a_stretch_moves_the_watched_deadline(house: House) -> None:
    application = an_acceptance(accepted_on=MONDAY)
    await house.hear(application)
    task = await house.task(application, "education")
    caller, procedure = a_specialist("education"), SpecialProcedure.EXPERT_REVIEW
    async with house.service.database.transaction() as tx:
        day = date(2026, 3, 4)
        await suspend(tx, task.id, reason=procedure, from_day=day, caller=caller, now=at(date(2026, 3, 5)))
    await house.tick(at(date(2026, 3, 20)))
    assert {event.department for event in await house.emitted(SlaBreached)} == {"public_security", "human_resources"}
    async with house.service.database.transaction() as tx:
        await resume(tx, task.id, to_day=date(2026, 3, 18), caller=caller, now=at(date(2026, 3, 18)))
    (due,) = await house.rows("SELECT at FROM due WHERE key = :k", k=str(task.id))
    assert due.at == end_of_day(date(2026, 3, 19))
    (resumed,) = await house.emitted(CaseResumed)
    assert resumed.due_on == date(2026, 3, 19)


async def test_an_overdue_task_is_not_suspended_to_hide_it(house: House) -> None:
    application = an_acceptance(accepted_on=MONDAY)
    await house.hear(application)
    task = await house.task(application, "education")
    caller, procedure, now = a_specialist("education"), SpecialProcedure.TESTING, at(date(2026, 3, 6))
    async with house.service.database.transaction() as tx:
        with pytest.raises(TaskOverdue):
            await suspend(tx, task.id, reason=procedure, from_day=MONDAY, caller=caller, now=now)


# -- limits


async def test_a_limit_that_passes_with_the_task_open_is_told_of_once(house: House) -> None:
    application = an_acceptance(accepted_on=MONDAY)
    await house.hear(application)
    task = await house.task(application, "education")  # three working days: Thursday the 5th
    assert await house.tick(end_of_day(date(2026, 3, 5)) - timedelta(seconds=1)) == 1  # public_security's two
    await house.tick(end_of_day(date(2026, 3, 5)))
    await house.tick(end_of_day(date(2026, 4, 30)))
    breaches = [event for event in await house.emitted(SlaBreached) if event.record == task.id]
    assert [(event.clock, event.due_on, event.department) for event in breaches] == [
        ("task", date(2026, 3, 5), "education")
    ]
    assert await do_complete(house, [task], "education", at(date(2026, 5, 6))) == {}
    assert len([event for event in await house.emitted(SlaBreached) if event.record == task.id]) == 1
    assert (await house.actions(application)).count("limit_passed") == 3
    shown = (await house.department("education").get(f"/tasks/{task.id}")).ok()
    assert shown["light"] == "red"


async def test_a_task_completed_in_time_never_breaches(house: House) -> None:
    application = an_acceptance("medical_care", accepted_on=MONDAY)
    await house.hear(application)
    task = await house.task(application, "health")
    assert await do_complete(house, [task], "health", end_of_day(date(2026, 3, 5)) - timedelta(seconds=1)) == {}
    await house.tick(at(date(2026, 12, 1)))
    assert await house.emitted(SlaBreached) == []
    shown = (await house.department("health").get(f"/tasks/{task.id}")).ok()
    assert (shown["light"], shown["days_left"]) == ("yellow", 1)


async def test_a_late_result_that_comes_before_the_ticker_is_told_of_as_late(house: House) -> None:
    application = an_acceptance("medical_care", accepted_on=MONDAY)
    await house.hear(application)
    task = await house.task(application, "health")
    assert await do_complete(house, [task], "health", end_of_day(date(2026, 3, 5))) == {}
    await house.tick(at(date(2026, 12, 1)))
    (breach,) = await house.emitted(SlaBreached)
    assert breach.record == task.id


# -- the list and the long poll


async def test_tasks_are_listed_page_by_page_in_the_order_of_assignment(house: House) -> None:
    await house.hear_together(*(an_acceptance() for _ in range(5)))
    education = house.department("education")
    seen, cursor = [], None
    for _ in range(3):
        page = (await education.get("/tasks", limit=2, **({"cursor": cursor} if cursor else {}))).ok()
        seen += [task["id"] for task in page["items"]]
        cursor = page["next"]
    assert cursor is None
    assert seen == sorted(seen)
    assert len(set(seen)) == 5
    (await education.get("/tasks", cursor="WyJ4Il0")).problem(422, "content-wrong")


async def test_the_poll_gives_each_new_task_of_the_unit_once(house: House) -> None:
    await house.hear(*(an_acceptance() for _ in range(3)))
    education = house.department("education")
    first = (await education.get("/tasks:poll", wait=0, limit=2)).ok()
    second = (await education.get("/tasks:poll", wait=0, after=first["next"])).ok()
    third = (await education.get("/tasks:poll", wait=0, after=second["next"])).ok()
    assert (len(first["tasks"]), len(second["tasks"]), third["tasks"]) == (2, 1, [])
    assert {task["department"] for task in first["tasks"] + second["tasks"]} == {"education"}
    await house.hear(an_acceptance())
    fourth = (await education.get("/tasks:poll", wait=0, after=third["next"])).ok()
    assert len(fourth["tasks"]) == 1
    (await education.get("/tasks:poll", wait=61)).problem(422, "invalid-request")
    for after in ("WyJ4Il0", "abc"):
        told = (await education.get("/tasks:poll", after=after)).problem(422, "content-wrong")
        assert [error["field"] for error in told["errors"]] == ["query/after"]
    (await house.a("supervisor").get("/tasks:poll", wait=0)).problem(404, "not-found")


async def test_a_waiting_poll_answers_when_a_task_is_committed_and_holds_no_connection(house: House) -> None:
    education = house.department("education")
    polls = [asyncio.create_task(education.get("/tasks:poll", wait=20)) for _ in range(12)]  # the pool has five
    other = asyncio.create_task(house.department("tax").get("/tasks:poll", wait=2))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await house.hear(an_acceptance())
    answers = await asyncio.gather(*polls)
    assert time.monotonic() - started < 3
    assert all(len(answer.ok()["tasks"]) == 1 for answer in answers)
    assert (await other).ok()["tasks"] == []


async def test_a_poll_sees_what_another_process_committed(house: House) -> None:
    education = house.department("education")
    poll = asyncio.create_task(education.get("/tasks:poll", wait=20))
    await asyncio.sleep(0.2)
    house.service.database._on_emitted.clear()  # another process's commit rings no bell here
    await house.hear(an_acceptance())
    assert len((await asyncio.wait_for(poll, 5)).ok()["tasks"]) == 1


async def test_a_late_commit_is_not_skipped_by_a_cursor(house: House) -> None:
    """Two transactions give the same unit tasks: numbers become visible in order, whichever began first."""
    education = house.department("education")
    async with asyncio.timeout(10):
        slow_began, let_go = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            async with house.service.database.transaction() as tx:
                await _open(house, tx, an_acceptance())
                slow_began.set()
                await let_go.wait()

        async def fast() -> None:
            async with house.service.database.transaction() as tx:
                await _open(house, tx, an_acceptance())

        first = asyncio.create_task(slow())
        await slow_began.wait()
        second = asyncio.create_task(fast())
        await asyncio.sleep(0.2)
        early = (await education.get("/tasks:poll", wait=0)).ok()
        let_go.set()
        await asyncio.gather(first, second)
        late = (await education.get("/tasks:poll", wait=0, after=early["next"])).ok()
        assert len(early["tasks"]) + len(late["tasks"]) == 2


async def _open(house: House, tx: Any, application: Any) -> None:
    from services.workflow.cases import open_cases

    packs = house.service.packs.for_events([application])
    await open_cases(tx, packs, [application], now=datetime.now(UTC))
