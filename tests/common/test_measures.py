"""What `/metrics` tells beyond the edge: looked up when asked for, once in some seconds, gone when it is not known."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from libs.common.bus.protocol import Slot
from libs.common.consumer import Consumer
from libs.common.db import Database
from libs.common.inbox import Inbox
from libs.common.measures import MESSAGING, Batches, Gauges, Live, Measure, query
from libs.common.outbox import Relay
from libs.common.ticker import Due, Ticker, schedule
from libs.common.watch import Watch
from tests.conftest import BusKit, MakeDatabase
from tests.contracts.toy import Recorder, count_up, happened_on, metadata


class Scraped:
    """A registry, read by name and labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"huanquan_{name}", {"service": "toy", **labels})


def gauges_of(database: Database, *measures: Measure, live: tuple[Live, ...] = ()) -> tuple[Gauges, Scraped]:
    registry = CollectorRegistry()
    gauges = Gauges("toy", database, measures, live)
    registry.register(gauges)
    return gauges, Scraped(registry)


AN_OLDER_ONE = """
    WITH older AS (
        INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value, created_at)
        SELECT gen_random_uuid(), topic, key, type, time, traceparent, value, created_at - interval '1 h'
          FROM outbox WHERE topic = 'a' RETURNING id)
    INSERT INTO unpublished (id) SELECT id FROM older
"""


async def test_what_waits_in_the_outbox_is_told_by_topic_with_the_age_of_the_oldest(
    make_database: MakeDatabase,
) -> None:
    database = await make_database(metadata)
    gauges, scraped = gauges_of(database, *MESSAGING)
    async with database.transaction() as tx:
        for topic in ("a", "b"):
            await count_up(tx, happened_on(topic), "k")
        await tx.execute(text(AN_OLDER_ONE))
        await tx.execute(text("DELETE FROM unpublished USING outbox WHERE unpublished.id = outbox.id AND topic = 'b'"))
    await gauges.refresh()
    assert scraped("outbox_unpublished", topic="a") == 2
    assert 3600 <= (scraped("outbox_oldest_seconds", topic="a") or 0) < 3700
    assert scraped("outbox_unpublished", topic="b") is None


async def test_parked_keys_are_told_apart_from_those_that_only_wait(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    gauges, scraped = gauges_of(database, *MESSAGING)
    async with database.transaction() as tx:
        await tx.execute(text("INSERT INTO parked_key (topic, key) VALUES ('a', '1'), ('a', '2')"))
        await tx.execute(text("INSERT INTO parked_key (topic, key, waiting_for) VALUES ('a', '3', 'Cause:3')"))
    await gauges.refresh()
    assert scraped("parked_keys", topic="a", waiting="no") == 2
    assert scraped("parked_keys", topic="a", waiting="yes") == 1
    assert (scraped("parked_oldest_seconds", topic="a", waiting="no") or 0) < 60


async def test_only_due_work_whose_moment_has_passed_is_overdue(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    gauges, scraped = gauges_of(database, *MESSAGING)
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        await schedule(tx, [Due("x", "1", now - timedelta(minutes=5)), Due("x", "2", now + timedelta(minutes=5))])
    await gauges.refresh()
    assert scraped("due_overdue", kind="x") == 1
    assert 300 <= (scraped("due_overdue_seconds", kind="x") or 0) < 400


async def test_an_answer_stands_for_some_seconds_however_many_ask(make_database: MakeDatabase) -> None:
    looks = 0

    async def look(_connection: Any) -> Any:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.01)
        return [{"n": looks}]

    measure = Measure(gauges={"n": "a number"}, labels=(), look=look, every=0.2)
    gauges, scraped = gauges_of(await make_database(metadata), measure)
    await asyncio.gather(*(gauges.refresh() for _ in range(10)))
    assert (looks, scraped("n")) == (1, 1)
    await asyncio.sleep(0.2)
    await gauges.refresh()
    assert (looks, scraped("n")) == (2, 2)


async def test_what_cannot_be_looked_up_is_no_more_told_and_says_so(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.measures.LOOK_SECONDS", 0.2)
    database = await make_database(metadata)
    slow = Measure(gauges={"n": "a number"}, labels=(), look=query("SELECT 1 AS n FROM pg_sleep(0)"), every=0)
    live = Live("alive", "of this process", "", lambda: {"": 1.0})
    gauges, scraped = gauges_of(database, slow, live=(live,))
    await gauges.refresh()
    assert (scraped("n"), scraped("look_failed", gauge="n")) == (1, 0)
    async with AsyncExitStack() as stack:
        for _ in range(database.pool.size):  # nobody else gets a connection
            await stack.enter_async_context(database.statements())
        assert database.pool.lent == database.pool.size
        await gauges.refresh()
    assert (scraped("n"), scraped("look_failed", gauge="n"), scraped("alive")) == (None, 1, 1)


async def test_batches_are_counted_by_what_became_of_their_events(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    database, bus, registry = await make_database(metadata), buses.client(), CollectorRegistry()
    scraped, watch = Scraped(registry), Watch(Batches("toy", registry))
    event = happened_on(topic)
    async with database.transaction() as tx:
        for _ in range(3):
            await count_up(tx, event, "k")
        await schedule(tx, [Due("x", "1", datetime.now(UTC))])
    assert await Relay(database, bus, watch=watch).publish() == 3
    assert await Ticker(database, {}, watch=watch).tick(datetime.now(UTC)) == 1
    recorder = Recorder()
    recorder.refuse = {("k", 2)}
    consumer = Consumer(
        database, bus, Inbox({event: recorder.on_happened}), group="g", topics=[topic], instance="0", watch=watch
    )
    task = asyncio.create_task(consumer.run())
    async with asyncio.timeout(30):
        while scraped("events_total", topic=topic, outcome="parked") is None:  # noqa: ASYNC110 - the consumer's own task
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert scraped("events_total", topic=topic, outcome="published") == 3
    assert scraped("events_total", topic=topic, outcome="handled") == 1
    assert scraped("events_total", topic=topic, outcome="parked") == 2
    relayed, taken = (scraped("batch_events_sum", job=job, topic=topic) for job in ("relay", "consumer"))
    assert relayed == taken == 3
    assert scraped("batch_events_sum", job="ticker", topic="") == 1
    assert (scraped("batch_seconds_sum", job="relay") or 0) > 0
    assert consumer.silence < 30
    assert Slot(topic, 0) not in consumer.slots
