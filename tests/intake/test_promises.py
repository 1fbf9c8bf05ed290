"""Promised materials: owed until they come, told of once when their day is over, and workflow's to judge from then."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from libs.common.calendar import end_of_day, local_date
from libs.common.events import ApplicationClosed, ItemResult, PromiseMissed
from tests.intake.builders import CERTIFICATION, PAPERS, a_person, licences
from tests.intake.conftest import House, uuids
from tests.intake.test_course import an_event
from tests.intake.test_materials import PDF, upload

TODAY = local_date(datetime.now(UTC))
FIRST, SECOND = TODAY + timedelta(days=1), TODAY + timedelta(days=3)


def promised(code: str, by: date) -> dict[str, Any]:
    return {"code": code, "evidence": "promised", "by": by.isoformat()}


async def promising(house: House, *materials: dict[str, Any], **changes: Any) -> str:
    """An application accepted with these promises, the other papers being there."""
    codes = {material["code"] for material in materials}
    papers = [*licences(*(code for code in PAPERS if code not in codes)), *materials]
    receipt = await house.portal().file(materials=papers, items=[CERTIFICATION], **changes)
    assert receipt["state"] == "accepted"
    return str(receipt["id"])


async def missed(house: House, application: str) -> list[PromiseMissed]:
    return [event for event in await house.emitted(application) if isinstance(event, PromiseMissed)]


async def test_a_promise_is_missed_at_the_end_of_its_day_and_told_once(house: House) -> None:
    application = await promising(house, promised("labour_contract", FIRST))
    await house.tick(end_of_day(FIRST) - timedelta(seconds=1))
    assert await missed(house, application) == []
    await house.tick(end_of_day(FIRST))
    await house.tick(end_of_day(SECOND))
    (event,) = await missed(house, application)
    assert (event.materials, event.promised_by) == (("labour_contract",), FIRST)
    shown = await house.portal().show(application)
    assert shown["state"] == "accepted"  # workflow decides what it ends
    (step,) = [step for step in shown["timeline"] if step["code"] == "PromiseMissed"]
    assert step["title"] == "承诺补交的材料逾期未交"
    assert f"{FIRST}" in step["detail"]


async def test_a_material_that_comes_in_time_keeps_the_promise(house: House) -> None:
    application = await promising(house, promised("labour_contract", FIRST))
    assert (await upload(house.portal(), application, PDF)).status == 201
    await house.tick(end_of_day(SECOND))
    assert await missed(house, application) == []
    assert not await house.rows("SELECT 1 FROM due WHERE kind = 'promise.day'")


@pytest.mark.parametrize("first_comes", [True, False])
async def test_each_promise_has_its_own_day(house: House, first_comes: bool) -> None:
    owed = promised("labour_contract", FIRST), promised("degree_certificate", SECOND)
    application = await promising(house, *owed)
    if first_comes:
        await upload(house.portal(), application, PDF, "labour_contract")
    await house.tick(end_of_day(FIRST))
    assert [event.promised_by for event in await missed(house, application)] == ([] if first_comes else [FIRST])
    await house.tick(end_of_day(SECOND))
    (event,) = await missed(house, application)
    assert event.materials == (("degree_certificate",) if first_comes else ("labour_contract",))


async def test_what_no_item_asks_for_is_owed_by_nobody(house: House) -> None:
    application = await promising(house, *map(promised, ["purchase_contract", "payee_account"], [FIRST, FIRST]))
    assert not await house.rows("SELECT 1 FROM due")
    await house.tick(end_of_day(SECOND))
    assert await missed(house, application) == []


async def test_a_promise_made_by_a_correction_counts_and_one_kept_before_it_does_not(house: House) -> None:
    portal = house.portal()
    receipt = await portal.file(items=[CERTIFICATION], materials=licences(PAPERS[0]))
    kept = promised("labour_contract", FIRST)
    await upload(portal, receipt["id"], PDF, "labour_contract")
    answer = await portal.post(
        f"/applications/{receipt['id']}:correct", {"materials": [kept, promised("degree_certificate", SECOND)]}
    )
    assert answer.body["state"] == "accepted"
    stated = {(one["code"], one["evidence"]) for one in (await portal.show(receipt["id"]))["materials"]}
    assert ("labour_contract", "promised") not in stated
    await house.tick(end_of_day(SECOND))
    (event,) = await missed(house, receipt["id"])
    assert event.materials == ("degree_certificate",)


async def test_an_application_that_has_ended_owes_nothing(house: House) -> None:
    application = await promising(house, promised("labour_contract", FIRST))
    ended = {"state": "closed", "closed_on": TODAY, "items": ()}
    await house.hear(an_event(ApplicationClosed, (await house.emitted(application))[0].application, **ended))
    await house.tick(end_of_day(FIRST))
    assert await missed(house, application) == []


async def test_a_lapsed_case_is_fed_back_and_frees_the_claim(house: House) -> None:
    portal, person = house.portal(), a_person()
    papers = [*licences(*PAPERS[:2]), promised("labour_contract", FIRST)]
    application, items = uuids(await portal.file(beneficiary=person, materials=papers))
    await house.tick(end_of_day(FIRST))
    why = "承诺补交的材料逾期未交"
    results = tuple(ItemResult(item=item, result="refused", reason=why) for item in items.values())
    await house.hear(an_event(ApplicationClosed, application, state="lapsed", closed_on=TODAY, items=results))
    shown = await portal.show(str(application))
    assert (shown["state"], shown["state_title"]) == ("lapsed", "逾期终止")
    assert why in shown["feedback"]
    (await upload(portal, str(application), PDF)).problem(409, "not-possible-now")
    assert (await portal.file(beneficiary=person))["state"] == "accepted"


async def test_an_upload_that_meets_the_end_of_the_day_is_not_lost_and_harms_nobody(house: House) -> None:
    applications = [await promising(house, promised("labour_contract", FIRST)) for _ in range(6)]
    answers, _ = await asyncio.gather(
        asyncio.gather(*(upload(house.portal(), each, PDF) for each in applications)), house.tick(end_of_day(FIRST))
    )
    assert {answer.status for answer in answers} == {201}
    assert not await house.rows("SELECT 1 FROM parked")
    assert not await house.rows("SELECT 1 FROM due WHERE kind = 'promise.day'")
