"""One contract for both buses: what a service may count on, whichever carries its events."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from deploy.engine import EmbeddedPostgres
from libs.common import outbox
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import Bus, BusUnavailable, Message, encoded
from libs.common.consumer import Consumer
from libs.common.db import Database
from libs.common.inbox import Early, Inbox, cause
from libs.common.outbox import Relay, message
from libs.common.ticker import RELEASE, Ticker
from tests.conftest import BusKit, MakeDatabase
from tests.contracts.toy import PACK, Happened, Recorder, count_up, happened_on, metadata

TAKEOVER_SECONDS = 15


@asynccontextmanager
async def running(*jobs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def effects(database: Database) -> list[tuple[str, int, str]]:
    async with database.engine.connect() as connection:
        rows = await connection.execute(text("SELECT key, number, by FROM effect ORDER BY id"))
        return [tuple(row) for row in rows]


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait for something that must come about; the limit only ends a test that has failed."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.05)


def has_effects(database: Database, count: int) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        return len(await effects(database)) >= count

    return enough


def follower(kit: BusKit, database: Database, inbox: Inbox, topic: str, name: str = "0") -> Consumer:
    return Consumer(database, kit.client(), inbox, group=topic, topics=[topic], instance=name)


def in_order(found: list[tuple[str, int, str]]) -> bool:
    numbers: dict[str, list[int]] = defaultdict(list)
    for key, number, _ in found:
        numbers[key].append(number)
    return all(seen == list(range(1, len(seen) + 1)) for seen in numbers.values())


async def test_events_of_a_key_keep_their_order_with_concurrent_committers(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    publisher, reader = await make_database(metadata), await make_database(metadata)

    async def commit_some(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(25):
            async with publisher.transaction() as tx:
                await count_up(tx, event, f"key-{chance.randrange(5)}")
                await asyncio.sleep(chance.random() / 100)  # commits overtake each other

    relay = Relay(publisher, buses.client())
    consumer = follower(buses, reader, Inbox({event: Recorder().on_happened}), topic)
    async with running(relay.run, consumer.run):
        await asyncio.gather(*(commit_some(seed) for seed in range(4)))
        await until(has_effects(reader, 100))
    found = await effects(reader)
    assert len(found) == 100
    assert in_order(found)


async def test_an_event_published_twice_takes_effect_once(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    messages = [message(event(policy=PACK, of="a", number=n)) for n in (1, 2, 3)]
    await bus.publish(messages)
    await bus.publish(messages)  # a relay that died between publishing and marking
    await bus.publish([message(event(policy=PACK, of="a", number=4))])
    consumer = follower(buses, reader, Inbox({event: Recorder().on_happened}), topic)
    async with running(consumer.run):
        await until(has_effects(reader, 4))
    assert [number for _, number, _ in await effects(reader)] == [1, 2, 3, 4]


async def test_a_relay_that_crashed_before_marking_publishes_again_under_the_same_ids(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    publisher, bus = await make_database(metadata), buses.client()
    async with publisher.transaction() as tx:
        await count_up(tx, event, "a")

    class Crash(BaseException):
        pass

    class CrashingBus:
        async def publish(self, messages: list[Message], *, after: Awaitable[None]) -> None:
            await bus.publish(messages, after=after)
            raise Crash

    with pytest.raises(Crash):
        await Relay(publisher, CrashingBus()).publish()  # type: ignore[arg-type]
    assert await Relay(publisher, bus).publish() == 1
    ids = [record.headers["ce_id"] for record in await all_records(bus, topic)]
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_a_bus_that_fails_between_batches_loses_and_overtakes_nothing(
    buses: BusKit, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    monkeypatch.setattr(outbox, "READING", 4)
    topic = await buses.topic()
    event = happened_on(topic)
    publisher, bus = await make_database(metadata), buses.client()
    for _ in range(9):
        async with publisher.transaction() as tx:
            await count_up(tx, event, "a")

    class FailingBus:
        batches = 0

        async def publish(self, messages: list[Message], *, after: Awaitable[None]) -> None:
            self.batches += 1
            if self.batches == 3:
                await after
                raise BusUnavailable("away")
            await bus.publish(messages, after=after)

    failing = FailingBus()
    relay = Relay(publisher, failing)  # type: ignore[arg-type]
    with pytest.raises(BusUnavailable):
        await relay.publish()
    sent_before = [record.value for record in await all_records(bus, topic)]
    assert len(sent_before) == 4
    assert 5 <= await relay.publish() <= 9  # what was on the bus and not marked yet goes again
    assert await relay.publish() == 0
    values = [record.value for record in await all_records(bus, topic)]
    assert values[:4] == sent_before
    numbers = [Happened.model_validate_json(value).number for value in values]
    assert numbers[4:] == sorted(numbers[4:])
    assert set(numbers) == set(range(1, 10))


async def test_a_batch_behind_another_leaves_after_it_and_not_at_all_where_that_failed(buses: BusKit) -> None:
    topic = await buses.topic()
    event, bus = happened_on(topic), buses.client()
    first, second, third, fourth = [message(event(policy=PACK, of="a", number=number)) for number in (1, 2, 3, 4)]

    async def numbers() -> list[int]:
        return [Happened.model_validate_json(record.value).number for record in await all_records(bus, topic)]

    before: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    behind = asyncio.create_task(bus.publish([second], after=before))
    await asyncio.sleep(0.2)
    await bus.publish([first])
    assert await numbers() == [1]
    before.set_result(None)
    await behind
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.set_exception(BusUnavailable("away"))
    with pytest.raises(BusUnavailable):
        await bus.publish([third], after=failed)
    await bus.publish([fourth])
    assert await numbers() == [1, 2, 4]


async def all_records(bus: Bus, topic: str) -> list:  # type: ignore[type-arg]
    ends = await bus.ends([topic])
    return [r for slot, (start, end) in ends.items() if end > start for r in await bus.fetch(slot, start, limit=1000)]


async def test_the_schema_of_an_event_is_named_by_an_absolute_address(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    publisher, bus = await make_database(metadata), buses.client()
    for base in ("https://talent.example", "https://talent.example/huanquan/"):
        async with publisher.transaction() as tx:
            await count_up(tx, event, "a")
        await Relay(publisher, bus, schemas=base).publish()
    assert [record.headers["ce_dataschema"] for record in await all_records(bus, topic)] == [
        "https://talent.example/events/Happened.json",
        "https://talent.example/huanquan/events/Happened.json",
    ]


async def test_a_transaction_that_rolls_back_emits_nothing(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    publisher = await make_database(metadata)
    with suppress(ZeroDivisionError):
        async with publisher.transaction() as tx:
            await count_up(tx, event, "a")
            raise ZeroDivisionError
    assert await Relay(publisher, buses.client()).publish() == 0


async def test_a_poison_event_is_parked_with_its_key_while_others_go_on(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()
    recorder.refuse = {("bad", 2)}
    await bus.publish(
        [message(event(policy=PACK, of=key, number=n)) for n in (1, 2, 3) for key in ("good", "bad", "fine")]
    )
    inbox = Inbox({event: recorder.on_happened})
    consumer = follower(buses, reader, inbox, topic)
    async with running(consumer.run):
        await until(has_effects(reader, 7))
        await bus.publish([message(event(policy=PACK, of="bad", number=4))])
        await until(parked_count(reader, 3))
    found = await effects(reader)
    assert in_order(found)
    assert sorted((key, number) for key, number, _ in found if key == "bad") == [("bad", 1)]
    recorder.refuse = set()
    async with reader.transaction() as tx:
        outcome = await inbox.release(tx, topic, "bad")
    assert outcome.handled == 3
    assert in_order(await effects(reader))
    assert len(await effects(reader)) == 10


def parked_count(database: Database, count: int) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        async with database.engine.connect() as connection:
            found = (await connection.execute(text("SELECT count(*) FROM parked"))).scalar_one()
        return bool(found == count)

    return enough


async def test_what_cannot_be_decoded_is_parked_under_its_place_and_blocks_nobody(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    good = message(event(policy=PACK, of="a", number=1))
    telling = Message(topic, "a", encoded({"ce_type": "Happened"}), b'{"number": "41052219900101001X"}')
    await bus.publish(
        [Message(topic, "a", encoded({"ce_type": "Happened"}), b"\xff{"), Message(topic, "a", (), b"{}"), telling, good]
    )
    inbox = Inbox({event: Recorder().on_happened})
    async with running(follower(buses, reader, inbox, topic).run):
        await until(has_effects(reader, 1))
    async with reader.engine.connect() as connection:
        rows = (await connection.execute(text("SELECT key, record_key, reason FROM parked ORDER BY id"))).all()
    assert [row.record_key for row in rows] == ["a", "a", "a"]
    assert all(row.key.startswith("partition ") for row in rows)
    assert all(row.reason.startswith("cannot be decoded") for row in rows)
    assert rows[1].reason == "cannot be decoded: no header 'ce_type'"
    assert "number: Input should be a valid integer" in rows[2].reason
    assert "41052219900101001X" not in rows[2].reason, "a reason is read by operators and says nothing of people"


async def test_release_races_with_live_events_and_the_key_keeps_its_order(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()
    recorder.refuse = {("a", 1)}
    inbox = Inbox({event: recorder.on_happened})
    async with running(follower(buses, reader, inbox, topic).run):
        await bus.publish([message(event(policy=PACK, of="a", number=1))])
        await until(parked_count(reader, 1))

        async def go_on() -> None:
            for number in range(2, 30):
                await bus.publish([message(event(policy=PACK, of="a", number=number))])

        async def release() -> None:
            await asyncio.sleep(0.05)
            recorder.refuse = set()
            async with reader.transaction() as tx:
                await inbox.release(tx, topic, "a")

        await asyncio.gather(go_on(), release())
        await until(has_effects(reader, 29))
    assert [number for _, number, _ in await effects(reader)] == list(range(1, 30))


async def test_an_early_event_waits_and_its_cause_releases_it(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()

    async def needs_its_cause(tx, events) -> None:  # type: ignore[no-untyped-def]
        causes = {row[0] for row in await tx.execute(text("SELECT key FROM effect"))} | {e.of for e in events}
        early = {e.id: cause(event, "cause") for e in events if e.of == "early" and "cause" not in causes}
        if early:
            raise Early(early)
        await recorder.on_happened(tx, events)

    inbox = Inbox({event: needs_its_cause})
    ticker = Ticker(reader, {RELEASE: inbox.on_release_due})
    async with running(follower(buses, reader, inbox, topic).run, ticker.run):
        await bus.publish([message(event(policy=PACK, of="early", number=1))])
        await until(parked_count(reader, 1))
        await bus.publish([message(event(policy=PACK, of="cause", number=1))])
        await until(has_effects(reader, 2))
    assert [key for key, _, _ in await effects(reader)] == ["cause", "early"]


async def test_a_restart_in_the_middle_of_a_batch_loses_and_doubles_nothing(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()
    await bus.publish([message(event(policy=PACK, of="a", number=n)) for n in range(1, 51)])
    half_done = asyncio.Event()

    async def hang_after_the_work(tx, events) -> None:  # type: ignore[no-untyped-def]
        await recorder.on_happened(tx, events)
        half_done.set()
        await asyncio.sleep(3600)

    async with running(follower(buses, reader, Inbox({event: hang_after_the_work}), topic).run):
        await asyncio.wait_for(half_done.wait(), 20)
    assert await effects(reader) == []
    async with running(follower(buses, reader, Inbox({event: recorder.on_happened}), topic).run):
        await until(has_effects(reader, 50))
    assert [number for _, number, _ in await effects(reader)] == list(range(1, 51))


async def test_a_database_that_is_away_for_a_while_parks_nothing(
    buses: BusKit, tmp_path: Path, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    own = EmbeddedPostgres(tmp_path / "pg", stops_with_process=True)
    own.start()
    try:
        await own.provision(["toy"])
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(own.url("toy"))
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await engine.dispose()
        reader, bus = Database(own.url("toy")), buses.client()
        async with running(follower(buses, reader, Inbox({event: Recorder().on_happened}), topic).run):
            await bus.publish([message(event(policy=PACK, of="a", number=1))])
            await until(has_effects(reader, 1))
            await asyncio.to_thread(own.stop)
            await bus.publish([message(event(policy=PACK, of="a", number=2))])
            await asyncio.sleep(1.5)
            await asyncio.to_thread(own.start)
            await until(has_effects(reader, 2))
        assert await parked_count(reader, 0)()
        await reader.close()
    finally:
        await asyncio.to_thread(own.stop)


@asynccontextmanager
async def processes(
    buses: BusKit, database: Database, topic: str, *names: str
) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
    script = str(Path(__file__).with_name("member_process.py"))
    url = database.url.render_as_string(hide_password=False)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    started = [
        subprocess.Popen(
            [sys.executable, script, buses.kind, buses.address, url, topic, name], cwd=root, env=environment
        )
        for name in names
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


async def publish_round(bus: Bus, event: type[Happened], number: int, keys: int = 30) -> None:
    await bus.publish([message(event(policy=PACK, of=f"key-{k}", number=number)) for k in range(keys)])


async def both_work(bus: Bus, event: type[Happened], database: Database) -> int:
    """Publish rounds until both processes have had a share; returns how many rounds."""
    for number in range(1, 60):
        await publish_round(bus, event, number)
        await until(has_effects(database, 30 * number))
        if len({by for _, _, by in (await effects(database))[-30:]}) == 2:
            return number
        await asyncio.sleep(0.5)
    pytest.fail("two processes never shared the partitions")


async def test_two_processes_share_partitions_and_one_takes_over_when_the_other_is_killed(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    async with processes(buses, reader, topic, "one", "two") as (one, _two):
        rounds = await both_work(bus, event, reader)
        one.send_signal(signal.SIGKILL)
        one.wait()
        await publish_round(bus, event, rounds + 1)
        await until(has_effects(reader, 30 * (rounds + 1)), TAKEOVER_SECONDS)
    found = await effects(reader)
    assert len(found) == 30 * (rounds + 1)
    assert in_order(found)


async def test_a_zombie_is_fenced_when_it_wakes(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    async with processes(buses, reader, topic, "one", "two") as (one, _two):
        rounds = await both_work(bus, event, reader)
        one.send_signal(signal.SIGSTOP)
        await publish_round(bus, event, rounds + 1)
        await until(has_effects(reader, 30 * (rounds + 1)), 3 * TAKEOVER_SECONDS)
        one.send_signal(signal.SIGCONT)
        for number in range(rounds + 2, rounds + 8):
            await publish_round(bus, event, number)
            await asyncio.sleep(0.3)
        await until(has_effects(reader, 30 * (rounds + 7)), 3 * TAKEOVER_SECONDS)
    found = await effects(reader)
    assert len(found) == 30 * (rounds + 7)
    assert in_order(found)


async def test_an_owner_that_was_overtaken_is_refused_before_any_work(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()
    await bus.publish([message(event(policy=PACK, of="a", number=1))])
    (record,) = await all_records(bus, topic)
    inbox = Inbox({event: recorder.on_happened})
    from libs.common.inbox import Fenced

    async with reader.transaction() as tx:
        assert await inbox.position(tx, record.slot) == 0
        await inbox.take(tx, record.slot, 0, [record])
    with pytest.raises(Fenced):
        async with reader.transaction() as tx:
            await inbox.take(tx, record.slot, 0, [record])
    assert recorder.calls == 1


async def test_a_bus_that_is_away_is_said_so_and_loses_nothing(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    publisher = await make_database(metadata)
    async with publisher.transaction() as tx:
        await count_up(tx, event, "a")
    away = KafkaBus("127.0.0.1:1") if buses.kind == "kafka" else PostgresBus("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(BusUnavailable):
        await Relay(publisher, away).publish()
    assert not await away.reachable()
    await away.stop()
    assert await Relay(publisher, buses.client()).publish() == 1
