"""Two at once: whatever the order in which they come through, the money moves once."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from libs.common.events import Event, PayoutSettled
from services.finance.batches import MOST_ORDERS
from tests.finance.builders import DISTRICT, a_result, an_approval, bounced, credited, today
from tests.finance.conftest import Answer, House, reference

PUBLIC = 3_333_334


async def test_two_officers_never_put_an_order_into_two_files(house: House) -> None:
    await house.give_quota()
    await house.hear(*(an_approval() for _ in range(40)))
    officers = [house.treasurer(subject=f"treasurer-{n}") for n in range(4)]
    answers = await asyncio.gather(*(each.post("/batches", {"treasury": DISTRICT, "limit": 25}) for each in officers))
    made = [answer.body for answer in answers if answer.status == 201]
    assert all(answer.status in {201, 409} for answer in answers)
    lines = await house.rows("SELECT order_id FROM batch_line")
    assert len(lines) == len({line.order_id for line in lines}) == sum(batch["lines"] for batch in made)
    sent = [order for order in await house.orders() if order.state == "sent"]
    assert {order.id for order in sent} == {line.order_id for line in lines}
    assert await house.differences() == []


async def test_two_result_files_of_one_order_settle_it_once(house: House) -> None:
    order = await house.due_order()
    await house.send()
    files = [a_result(credited(reference(order), PUBLIC), number=f"F{n}") for n in range(4)]
    answers = await asyncio.gather(*(house.treasurer().post("/bank-results", raw) for raw in files))
    verdicts = [answer.ok()["verdicts"] for answer in answers]
    assert sorted(each["settle"] for each in verdicts) == [0, 0, 0, 1]
    assert len(await house.emitted(PayoutSettled)) == 1
    assert (await house.balances())[DISTRICT, "cash", ""] == -PUBLIC
    assert await house.differences() == []


async def test_a_credit_and_a_bounce_at_once_end_in_one_state_with_its_postings(house: House) -> None:
    orders = [await house.due_order() for _ in range(5)]
    await house.send()
    one = a_result(*(credited(reference(order), PUBLIC) for order in orders))
    other = a_result(*(bounced(reference(order), PUBLIC) for order in reversed(orders)))
    await asyncio.gather(*(house.treasurer().post("/bank-results", raw) for raw in (one, other)))
    assert {order.state for order in await house.orders()} <= {"settled", "bounced"}
    assert await house.differences() == []


async def test_a_quota_given_while_orders_are_made_misses_none(house: House) -> None:
    events = [an_approval() for _ in range(30)]
    await asyncio.gather(house.hear(*events[:15]), house.give_quota(), _later(house, events[15:]))
    assert {order.state for order in await house.orders()} == {"due"}
    assert await house.differences() == []


async def _later(house: House, events: Sequence[Event]) -> None:
    await asyncio.sleep(0.02)
    await house.hear(*events)


async def test_the_cap_of_a_quota_holds_whoever_comes_at_once(house: House) -> None:
    await house.give_quota(fen=3 * PUBLIC)
    await house.hear(*(an_approval() for _ in range(6)))
    first = next(order for order in await house.orders() if order.state == "due")

    def cancel() -> "asyncio.Future[Answer]":
        return asyncio.ensure_future(house.treasurer().post(f"/orders/{first.id}:cancel", {"reason": "本人放弃"}))

    answers = await asyncio.gather(cancel(), cancel(), house.hear(*(an_approval() for _ in range(3))))
    assert sorted(answer.status for answer in answers[:2] if answer) == [200, 409]
    states = [order.state for order in await house.orders()]
    assert (states.count("due"), states.count("cancelled")) == (3, 1)
    assert await house.differences() == []


async def test_one_key_for_two_requests_at_once_has_one_effect(house: House) -> None:
    await house.due_order()
    body = {"treasury": DISTRICT}
    answers = await asyncio.gather(*(house.treasurer().post("/batches", body, key="same") for _ in range(3)))
    assert len({answer.ok(201)["id"] for answer in answers}) == 1
    assert len(await house.rows("SELECT * FROM payout_batch")) == 1


async def test_a_thousand_orders_leave_in_one_batch_and_come_back_in_one_file(house: House) -> None:
    await house.give_quota()
    await house.hear(*(an_approval(application=uuid4()) for _ in range(MOST_ORDERS + 1)))
    batch = await house.send()
    assert batch["lines"] == MOST_ORDERS
    assert [len(call["refs"]) for call in house.intake.calls] == [500, 500, 500, 500]  # accounts and people
    sent = [order for order in await house.orders() if order.state == "sent"]
    report = await house.told(
        *(credited(reference(order), order.public_fen, today()) for order in sent), finals=[batch["number"]]
    )
    assert report["verdicts"]["settle"] == MOST_ORDERS
    assert (await house.balances())[DISTRICT, "cash", ""] == -MOST_ORDERS * PUBLIC
    assert await house.differences() == []
