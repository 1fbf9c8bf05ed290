"""Supervision: clocks measured from events in whatever order topics bring them, overdue on the day one asks for."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.bus.protocol import Record
from libs.common.calendar import CALENDAR, Light, local_date
from libs.common.events import (
    ApplicationAccepted,
    ApplicationClosed,
    CaseResumed,
    CaseSuspended,
    DeptAssigned,
    DeptCompleted,
    Event,
    PayoutBounced,
    PayoutCancelled,
    PayoutOrdered,
    PayoutSettled,
)
from services.audit import supervision
from services.audit.overdue import light_of
from tests.audit.conftest import COUNTY, Hall, a_record, assigned, at
from tests.common.packs import anyang

OPENED = datetime(2026, 2, 10, 2, tzinfo=UTC)  # a Tuesday; 2026-02-14 is worked, 15 to 23 February is holiday


def of_task(task: DeptAssigned, event: type[Event], **fields: Any) -> Event:
    named = {"application": task.application, "task": task.task, "item": task.item}
    held = {"department": task.department, "treasury": task.treasury}
    return event.model_validate({"policy": task.policy, **named, **held, **fields})


def completed(task: DeptAssigned, on: date) -> Event:
    return of_task(task, DeptCompleted, result="passed", completed_on=on)


def accepted(application: UUID, on: date = date(2026, 2, 10)) -> ApplicationAccepted:
    given = {"application": application, "case_no": "1", "accepted_on": on, "treasury": COUNTY, "items": []}
    people = dict.fromkeys(["applicant", "beneficiary"], uuid4())
    return ApplicationAccepted.model_validate({"policy": anyang().identity} | given | people)


def an_order(**changes: Any) -> PayoutOrdered:
    given: dict[str, Any] = {
        "policy": anyang().identity,
        "application": uuid4(),
        "order": uuid4(),
        "item": uuid4(),
        "benefit": "living_allowance",
        "instalment": 1,
        "treasury": COUNTY,
        "fen": 100,
        "due_on": date(2026, 2, 13),
        "state": "due",
    }
    return at(PayoutOrdered.model_validate(given | changes), OPENED)


def settled(order: PayoutOrdered, on: date) -> PayoutSettled:
    return PayoutSettled.model_validate({**order.model_dump(), "shares": {}, "settled_on": on})


def bounced(order: PayoutOrdered, on: date) -> PayoutBounced:
    return PayoutBounced.model_validate({**order.model_dump(), "reason": "closed_account", "bounced_on": on})


def cancelled(order: PayoutOrdered, on: date) -> PayoutCancelled:
    return PayoutCancelled.model_validate({**order.model_dump(), "reason": "given_up", "cancelled_on": on})


async def overdue(hall: Hall, on: str, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await hall.get(f"/supervision/overdue?on={on}{query}")).json()["items"]
    return items


async def units(hall: Hall, on: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await hall.get(f"/supervision/summary?on={on}")).json()["units"]
    return found


def counts(unit: dict[str, Any]) -> dict[str, int]:
    return {name: n for name, n in unit.items() if isinstance(n, int) and n}


@pytest.mark.article("第三条")
@pytest.mark.article("第九条")
async def test_a_task_is_overdue_from_the_day_after_its_due_day_and_says_who_holds_it(hall: Hall) -> None:
    task = assigned(due_on=date(2026, 2, 13))
    await hall.hear(task)
    assert await overdue(hall, "2026-02-13") == []
    (late,) = await overdue(hall, "2026-02-24")
    assert late == {
        "kind": "task",
        "record": str(task.task),
        "application": str(task.application),
        "item": str(task.item),
        "treasury": COUNTY,
        "department": "public_security",
        "fen": None,
        "due_on": "2026-02-13",
        "overdue_working_days": 2,  # 14 and 24 February
    }
    assert await hall.rows("SELECT 1 FROM information_schema.columns WHERE column_name LIKE '%overdue%'") == []


@pytest.mark.article("第七条")
async def test_what_was_done_is_not_overdue_but_on_an_earlier_day_it_was(hall: Hall) -> None:
    task = assigned(due_on=date(2026, 2, 11))
    await hall.hear(task, completed(task, date(2026, 2, 13)))
    assert len(await overdue(hall, "2026-02-12")) == 1
    assert await overdue(hall, "2026-02-13") == []
    (unit,) = await units(hall, "2026-02-13")
    assert counts(unit) == {"late": 1}
    (before,) = await units(hall, "2026-02-10")
    assert (before["open"], before["red"]) == (1, 0)


async def test_a_suspended_clock_stands_still_and_runs_on_to_its_moved_day(hall: Hall) -> None:
    task = assigned(due_on=date(2026, 2, 13))
    await hall.hear(task, of_task(task, CaseSuspended, reason="expert_review", from_day=date(2026, 2, 12)))
    assert await overdue(hall, "2026-03-20") == []
    (unit,) = await units(hall, "2026-03-20")
    assert (unit["open"], unit["suspended"], unit["red"]) == (1, 1, 0)
    await hall.hear(of_task(task, CaseResumed, to_day=date(2026, 3, 2), due_on=date(2026, 3, 3)))
    assert await overdue(hall, "2026-03-03") == []
    assert len(await overdue(hall, "2026-03-04")) == 1


async def test_a_clock_that_was_over_before_it_stopped_stays_overdue(hall: Hall) -> None:
    task = assigned(due_on=date(2026, 2, 11))
    await hall.hear(task, of_task(task, CaseSuspended, reason="expert_review", from_day=date(2026, 2, 13)))
    (late,) = await overdue(hall, "2026-03-20")
    assert late["overdue_working_days"] == 2  # the clock stood still from the 13th


async def test_a_task_ends_with_its_case_and_a_payout_does_not(hall: Hall) -> None:
    task = assigned(due_on=date(2026, 2, 13))
    order = an_order(application=task.application)
    closed = ApplicationClosed(
        policy=task.policy, application=task.application, state="withdrawn", closed_on=date(2026, 2, 12), items=()
    )
    await hall.hear(task, order, closed)
    assert [late["kind"] for late in await overdue(hall, "2026-02-14")] == ["payout"]
    by_kind = {unit["kind"]: counts(unit) for unit in await units(hall, "2026-02-14")}
    assert by_kind == {"payout": {"open": 1, "red": 1}, "task": {}}  # nobody did the work, so nobody did it in time


async def test_a_bounce_reopens_the_same_clock(hall: Hall) -> None:
    order = an_order(due_on=date(2026, 2, 13))
    await hall.hear(order, settled(order, date(2026, 2, 12)))
    assert await overdue(hall, "2026-02-14") == []
    await hall.hear(bounced(order, date(2026, 2, 13)))
    (late,) = await overdue(hall, "2026-02-14")
    assert (late["department"], late["fen"]) == ("finance", 100)
    await hall.hear(settled(order, date(2026, 2, 24)))
    assert counts((await units(hall, "2026-02-24"))[0]) == {"late": 1}


def a_story() -> list[list[Event]]:
    """What each topic brings of one application, in the order of the topic."""
    task = assigned(due_on=date(2026, 2, 13))
    order = an_order(application=task.application)
    return [
        [accepted(task.application)],
        [task],
        [completed(task, date(2026, 3, 3))],
        [
            of_task(task, CaseSuspended, reason="expert_review", from_day=date(2026, 2, 12)),
            of_task(task, CaseResumed, to_day=date(2026, 3, 2), due_on=date(2026, 3, 3)),
        ],
        [order],
        [
            settled(order, date(2026, 2, 12)),
            bounced(order, date(2026, 2, 13)),
            settled(order, date(2026, 2, 24)),
        ],
    ]


@pytest.mark.parametrize("cancelled_first", [False, True])
async def test_the_clock_of_a_payout_ends_when_it_is_cancelled_whichever_topic_comes_first(
    hall: Hall, cancelled_first: bool
) -> None:
    order = an_order(due_on=date(2026, 2, 13))
    events = [order, bounced(order, date(2026, 2, 11)), cancelled(order, date(2026, 2, 12))]
    await hall.hear(*([*events[1:], order] if cancelled_first else events))
    assert await overdue(hall, "2026-02-24") == []
    (unit,) = await units(hall, "2026-02-24")
    assert (unit["kind"], counts(unit)) == ("payout", {"in_time": 1})


async def test_a_payout_cancelled_too_late_was_overdue_until_that_day(hall: Hall) -> None:
    order = an_order(due_on=date(2026, 2, 11))
    await hall.hear(order, cancelled(order, date(2026, 2, 13)))
    assert len(await overdue(hall, "2026-02-12")) == 1
    assert await overdue(hall, "2026-02-13") == []


@pytest.mark.parametrize("seed", range(8))
async def test_topics_may_come_in_any_order_and_in_any_pieces(hall: Hall, seed: int) -> None:
    order = random.Random(seed)
    topics = [list(topic) for topic in a_story()]
    while any(topics):
        topic = order.choice([topic for topic in topics if topic])
        n = order.randint(1, len(topic))
        await hall.hear(*topic[:n])
        del topic[:n]
    by_kind = {unit["kind"]: counts(unit) for unit in await units(hall, "2026-03-10")}
    assert by_kind == {"task": {"in_time": 1}, "payout": {"late": 1}}


async def test_a_batch_of_many_stories_is_measured_as_each_alone(hall: Hall) -> None:
    stories = [a_story() for _ in range(20)]
    for n in range(len(stories[0])):
        await hall.hear(*(event for story in stories for event in story[n]))
    by_kind = {unit["kind"]: counts(unit) for unit in await units(hall, "2026-03-10")}
    assert by_kind == {"task": {"in_time": 20}, "payout": {"late": 20}}


@pytest.mark.article("第八条")
@pytest.mark.article("第九条")
async def test_lights_follow_the_pack_and_the_filters_name_a_unit(hall: Hall) -> None:
    await hall.hear(
        assigned(due_on=date(2026, 2, 11)),
        assigned(due_on=date(2026, 2, 13)),
        assigned(due_on=date(2026, 3, 13), treasury="410523"),
    )
    first, second = await units(hall, "2026-02-13")
    assert (first["treasury"], first["open"], first["red"], first["yellow"]) == (COUNTY, 2, 1, 1)
    assert (second["treasury"], second["green"]) == ("410523", 1)
    assert len(await overdue(hall, "2026-04-01")) == 3
    assert len(await overdue(hall, "2026-04-01", f"&treasury={COUNTY}")) == 2
    assert await overdue(hall, "2026-04-01", "&department=tax") == []
    assert await overdue(hall, "2026-04-01", "&kind=payout") == []


async def test_the_metrics_show_the_lights_of_today_by_unit(hall: Hall) -> None:
    today = local_date(datetime.now(UTC))
    await hall.hear(
        assigned(due_on=today - timedelta(days=1)),
        assigned(due_on=today - timedelta(days=9)),
        assigned(due_on=today + timedelta(days=60), treasury="410523"),
    )
    told = await hall.metrics()
    unit = 'department="public_security",kind="task",light="{}",service="audit",treasury="{}"'
    assert told[f"huanquan_clocks{{{unit.format('red', COUNTY)}}}"] == 2
    assert told[f"huanquan_clocks{{{unit.format('green', COUNTY)}}}"] == 0
    assert told[f"huanquan_clocks{{{unit.format('green', '410523')}}}"] == 1


async def test_overdue_clocks_are_read_page_by_page_the_longest_first(hall: Hall) -> None:
    await hall.hear(*(assigned(due_on=date(2026, 2, 10 + n % 3)) for n in range(9)))
    seen: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(5):
        page = (await hall.get(f"/supervision/overdue?on=2026-03-02&limit=2{cursor}")).json()
        seen += page["items"]
        cursor = f"&cursor={page['next']}"
    assert page["next"] is None
    assert len({late["record"] for late in seen}) == 9
    assert [late["due_on"] for late in seen] == sorted(late["due_on"] for late in seen)
    assert (await hall.get("/supervision/overdue?cursor=WyJ4Il0")).status_code == 422
    assert (await hall.get("/supervision/overdue?on=1900-01-01")).status_code == 422


@given(due=st.dates(date(2026, 1, 5), date(2026, 12, 20)), on=st.dates(date(2026, 1, 5), date(2026, 12, 20)))
def test_a_light_is_red_exactly_past_the_due_day_and_green_only_with_days_to_spare(due: date, on: date) -> None:
    shown = light_of(due, on, yellow=1)
    assert (shown is Light.RED) == (on > due)
    if shown is Light.GREEN:
        assert CALENDAR.add_working_days(on, 1) <= due


async def projected(hall: Hall) -> list[Sequence[Any]]:
    return [await hall.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in supervision.PROJECTION_TABLES]  # noqa: S608 - names from code


async def test_the_projection_is_made_anew_from_the_trail(hall: Hall) -> None:
    stories = [a_story() for _ in range(30)]
    for n in range(len(stories[0])):
        await hall.hear(*(event for story in stories for event in story[n]))
    before = await projected(hall)
    async with hall.database.transaction() as tx:
        await tx.execute(text("UPDATE clock SET ended_on = NULL, due_on = '2020-01-01'"))
        await tx.execute(text("DELETE FROM case_clock"))
    async with hall.database.transaction() as tx:
        assert await supervision.rebuild(tx) == 30 * 9
    assert await projected(hall) == before


async def test_a_rebuild_and_live_batches_do_not_lose_anything(hall: Hall) -> None:
    await hall.hear(*(assigned() for _ in range(50)))

    async def rebuilt() -> None:
        async with hall.database.transaction() as tx:
            await supervision.rebuild(tx)

    await asyncio.gather(rebuilt(), *(hall.hear(*(assigned() for _ in range(5)), partition=n) for n in range(1, 6)))
    (row,) = await hall.rows("SELECT count(*) AS n FROM clock")
    assert row.n == 75


async def test_what_the_projection_refuses_is_in_the_trail_all_the_same(hall: Hall) -> None:
    good, bad = assigned(), assigned(department="\x00")
    records: list[Record] = [a_record(good), a_record(bad), a_record(assigned())]
    await hall.take(records)
    assert (await hall.verify()).entries == 3
    assert await hall.rows("SELECT 1 FROM parked") == []
    (row,) = await hall.rows("SELECT count(*) AS n FROM clock")
    assert row.n == 2
