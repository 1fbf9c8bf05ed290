"""The green channel (绿色通道, 第六条): whose tasks have the shorter limit, and who sees that they have."""

from collections.abc import Mapping
from datetime import date
from typing import Any
from uuid import uuid4

import pytest

from libs.common.calendar import CALENDAR
from libs.common.events import ApplicationAccepted, DeptAssigned, TalentCertified
from libs.common.packs import store
from libs.common.policy import PackIdentity
from tests.common.packs import a_pack, green
from tests.workflow.builders import COUNTY, an_acceptance, an_item, today
from tests.workflow.conftest import House

MONDAY = date(2026, 3, 2)
VERSION = ('version: "2021-4.4"', 'version: "2021-4.5"')


async def for_doctors(house: House, since: str = "2021-03-23") -> PackIdentity:
    """A policy under which a doctor's certification and purchase subsidy take a working day a department."""
    items = ("talent_certification", "purchase_subsidy")
    pack = a_pack(VERSION, green(*items, categories="doctor", limit=1, since=since))
    async with house.service.database.transaction() as tx:
        await store(tx, pack)
    await house.service.packs.refresh()
    return pack.identity


async def given(house: House, application: ApplicationAccepted) -> Mapping[str, tuple[int, bool]]:
    """The limit of each task of an application, and whether it goes through the green channel, by its title."""
    return {each.title: (each.limit_working_days, each.green_channel) for each in await house.tasks(application)}


@pytest.mark.article("第六条")
async def test_an_item_of_the_green_channel_has_the_shorter_limit_and_no_other_has(house: House) -> None:
    application = an_acceptance("talent_certification", "children_schooling", "medical_care")
    await house.hear(application)
    assert await given(house, application) == {
        "身份信息核验": (2, False),
        "学历学位核验": (3, False),
        "劳动关系和参保情况核验": (3, False),
        "协调子女入学": (5, True),
        "开通就医绿色通道": (3, True),  # its own is the shorter one
    }
    schooling = application.items[1].item
    (assigned,) = [event for event in await house.emitted(DeptAssigned) if event.item == schooling]
    assert assigned.due_on == CALENDAR.due_on(today(), 5)


@pytest.mark.article("第六条")
async def test_a_task_says_that_it_goes_through_the_green_channel_and_is_found_by_it(house: House) -> None:
    fast, slow = an_acceptance("talent_certification", "children_schooling"), an_acceptance("children_schooling")
    await house.hear(fast, slow)
    education = house.department("education")

    async def listed(**query: Any) -> list[tuple[str, str, int, bool]]:
        page = (await education.get("/tasks", **query)).ok()["items"]
        return [(it["case_no"], it["item"]["code"], it["limit_working_days"], it["green_channel"]) for it in page]

    of_fast = (fast.case_no, "children_schooling", 5, True)
    others = [(fast.case_no, "talent_certification", 3, False), (slow.case_no, "children_schooling", 10, False)]
    assert await listed(green_channel=True) == [of_fast]
    assert await listed(green_channel=False, state="open") == others
    assert sorted(await listed()) == sorted([of_fast, *others])
    (await education.get("/tasks", green_channel="maybe")).problem(422, "invalid-request")
    assert (await house.department("tax").get("/tasks", green_channel=True)).ok()["items"] == []
    task = next(each for each in await house.tasks(fast) if each.green_channel)
    detail = (await education.get(f"/tasks/{task.id}")).ok()
    assert (detail["green_channel"], detail["limit_working_days"], detail["days_left"]) == (True, 5, 5)
    assert sum(line["counted"] for line in detail["working"]) == 5
    case = (await house.officer().get(f"/cases/{fast.application}")).ok()
    shown = {each["code"]: {task["green_channel"] for task in each["tasks"]} for each in case["items"]}
    assert shown == {"talent_certification": {False}, "children_schooling": {True}}


@pytest.mark.article("第六条")
async def test_a_later_stage_goes_by_the_claim_whatever_was_certified(house: House) -> None:
    policy = await for_doctors(house)
    certification = an_item("talent_certification", category="doctor")
    application = an_acceptance("purchase_subsidy", items=(certification,), policy=policy)
    await house.hear(application)
    assert set((await given(house, application)).values()) == {(1, True)}
    subsidy = [each for each in await house.tasks(application) if each.item != certification.item]
    for stage in (0, 1):
        for task in await house.tasks(application):
            if (task.item, task.stage) == (certification.item, stage):
                unit = house.department(task.department, task.treasury)
                (await unit.post(f"/tasks/{task.id}:complete", {"result": "passed"})).ok()
    (await house.decide(certification.item, "certify", category="master")).ok()
    (certified,) = await house.emitted(TalentCertified)
    assert certified.category == "master"
    unmoved = [each for each in await house.tasks(application) if each.id in {task.id for task in subsidy}]
    assert unmoved == subsidy
    await house.work_off(application)
    told = await given(house, application)
    assert (told["人才类别复核"], told["申领资格复核"]) == ((1, True), (1, True))


async def test_talent_of_another_category_waits_as_before(house: House) -> None:
    application = an_acceptance("talent_certification", policy=await for_doctors(house))
    await house.hear(application)
    await house.work_off(application)
    assert sorted((await given(house, application)).values()) == [(2, False), (2, False), (3, False), (3, False)]


@pytest.mark.article("第六条")
async def test_an_item_that_names_an_earlier_certification_goes_by_its_category(house: House) -> None:
    policy = await for_doctors(house)
    earlier = an_acceptance(items=(an_item("talent_certification", category="doctor"),), policy=policy)
    await house.hear(earlier)
    await house.work_off(earlier)
    (await house.decide(earlier.items[0].item, "certify")).ok()
    (certified,) = await house.emitted(TalentCertified)

    async def first_task(**changes: Any) -> tuple[int, bool]:
        asked = an_item("purchase_subsidy", certification=certified.number)
        later = an_acceptance(items=(asked,), policy=policy, **changes)
        await house.hear(later)
        return (await given(house, later))["购房合同备案核验"]

    assert await first_task(beneficiary=earlier.beneficiary) == (1, True)
    # one person under two records: intake knows that they were merged, and takes nobody else's certification
    assert await first_task(beneficiary=uuid4()) == (1, True)
    claims = (an_item("talent_certification"), an_item("purchase_subsidy", certification=certified.number))
    both = an_acceptance(items=claims, policy=policy)
    await house.hear(both)
    told = await given(house, both)
    assert (told["学历学位核验"], told["购房合同备案核验"]) == ((3, False), (1, True))


async def test_without_a_claim_or_a_certification_there_is_no_green_channel(house: House) -> None:
    unclaimed = an_acceptance("medical_care", items=(an_item("talent_certification", category=None),))
    stated = an_acceptance(items=(an_item("medical_care", category="doctor"),))  # proves nothing
    await house.hear(unclaimed, stated)
    for application in (unclaimed, stated):
        assert (await given(house, application))["开通就医绿色通道"] == (3, False)


async def test_the_rule_of_the_day_of_acceptance_counts(house: House) -> None:
    policy = await for_doctors(house, since="2026-03-02")
    doctor = an_item("talent_certification", category="doctor")
    before = an_acceptance(items=(doctor,), policy=policy, accepted_on=date(2026, 3, 1))
    since = an_acceptance(items=(doctor.model_copy(update={"item": uuid4()}),), policy=policy, accepted_on=MONDAY)
    await house.hear_together(before, since)
    assert (await given(house, before))["学历学位核验"] == (3, False)
    assert (await given(house, since))["学历学位核验"] == (1, True)


async def test_each_application_of_a_batch_goes_by_its_own_claim(house: House) -> None:
    policy = await for_doctors(house)
    categories = ["doctor" if n % 2 else "master" for n in range(20)]
    applications = [
        an_acceptance("purchase_subsidy", items=(an_item("talent_certification", category=each),), policy=policy)
        for each in categories
    ]
    await house.hear_together(*applications)
    for category, application in zip(categories, applications, strict=True):
        assert {fast for _, fast in (await given(house, application)).values()} == {category == "doctor"}


async def test_a_task_that_was_given_by_an_earlier_version_of_the_service_is_none_of_the_green_channel(
    house: House,
) -> None:
    application = an_acceptance("medical_care")
    await house.hear(application)
    (row,) = await house.rows("""
        INSERT INTO task (id, application, item, stage, treasury, department, feed_no, title, limit_working_days,
                          start_on, assigned_at, state)
        SELECT gen_random_uuid(), application, item, 1, treasury, 'tax', 1, title, 3, start_on, now(), 'open'
          FROM task RETURNING treasury, green_channel
    """)
    assert (row.treasury, row.green_channel) == (COUNTY, False)
