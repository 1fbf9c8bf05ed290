"""What goes wrong beside the events: each failure is waited out, parked or told, and nothing stands still unseen."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import service as service_module
from libs.common.bus import kafka
from libs.common.bus.postgres import Look, PostgresBus, create_schema
from libs.common.bus.postgres import _signed as signed
from libs.common.bus.protocol import BusUnavailable, Message, Record, Slot
from libs.common.consumer import Consumer
from libs.common.db import POOL_SIZE, Database, connect
from libs.common.inbox import Batch, Inbox
from libs.common.outbox import BATCH, Relay, message
from libs.common.ticker import Ticker
from tests.conftest import BusKit, MakeDatabase, Postgres, create_database
from tests.contracts.stall import Stall
from tests.contracts.test_bus import effects, follower, has_effects, parked_count, running, until
from tests.contracts.test_leader import leaders, led, process
from tests.contracts.toy import PACK, Recorder, happened_on, metadata

# -- consumers


async def test_a_batch_that_fails_for_long_is_tried_less_and_less_often(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, tries = await make_database(metadata), buses.client(), 0

    async def away(_tx: AsyncConnection, _events: Sequence[Any]) -> None:
        nonlocal tries
        tries += 1
        raise OSError("a disk is away")

    await bus.publish([message(event(policy=PACK, of="a", number=1))])

    async def tried() -> bool:
        return tries > 0

    async with running(follower(buses, reader, Inbox({event: away}), topic).run):
        await until(tried)
        await asyncio.sleep(1.5)
    assert 2 <= tries <= 4
    assert await parked_count(reader, 0)()


async def test_a_cancellation_that_is_not_ours_ends_no_follower(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()

    async def handle(tx: AsyncConnection, events: Sequence[Any]) -> None:
        await recorder.on_happened(tx, events)
        if recorder.calls == 1:
            raise asyncio.CancelledError  # of a future that a library gave up

    await bus.publish([message(event(policy=PACK, of="a", number=1))])
    async with running(follower(buses, reader, Inbox({event: handle}), topic).run):
        await until(has_effects(reader, 1))


@pytest.mark.parametrize("turns", range(4))
async def test_whoever_is_woken_and_stopped_in_the_same_moment_stops(make_database: MakeDatabase, turns: int) -> None:
    database = await make_database(metadata)
    relay, ticker = Relay(database, PostgresBus("postgresql://nobody@127.0.0.1:1/none")), Ticker(database, {})
    tasks = [asyncio.create_task(relay.run()), asyncio.create_task(ticker.run())]
    await asyncio.sleep(0.1)
    for call in [*database._on_emitted, *database._on_scheduled]:
        call()
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    _, pending = await asyncio.wait(tasks, timeout=2)
    for task in pending:
        task.cancel()
    assert not pending


async def test_a_batch_that_cannot_be_marked_leaves_no_reading_behind(make_database: MakeDatabase) -> None:
    reading = asyncio.Event()

    class Failing(Relay):
        async def _send(self, _messages: Any, *, after: asyncio.Task[None]) -> None:
            await after

        async def _unpublished(self, *_under_way: str) -> Any:
            reading.set()
            await asyncio.sleep(3600)

        async def _mark(self, confirmed: str) -> None:
            if confirmed:
                await reading.wait()
                raise OSError("the database is away")

    relay = Failing(await make_database(metadata), PostgresBus("postgresql://nobody@127.0.0.1:1/none"))
    going = asyncio.all_tasks()
    rows: Any = [(str(n), b"", "a", "a", "Happened", b"", b"", b"{}") for n in range(BATCH + 1)]
    with pytest.raises(OSError, match="the database is away"):
        await relay._flow(rows)
    assert asyncio.all_tasks() == going


async def test_stuck_partitions_leave_connections_for_requests(buses: BusKit, make_database: MakeDatabase) -> None:
    topics = [await buses.topic(), await buses.topic()]
    reader, bus, stuck = await make_database(metadata), buses.client(), asyncio.Event()

    async def hang(_tx: AsyncConnection, _records: Sequence[Record]) -> None:
        stuck.set()
        await asyncio.sleep(3600)

    await bus.publish([Message(topic, str(n), (), b"") for topic in topics for n in range(30)])
    consumer = Consumer(reader, bus, Inbox(every=hang), group=topics[0], topics=topics, instance="0")
    async with running(consumer.run):
        await asyncio.wait_for(stuck.wait(), 20)
        await asyncio.sleep(0.5)
        assert len(consumer.slots) > POOL_SIZE
        async with asyncio.timeout(2), reader.transaction() as tx:
            await tx.execute(text("SELECT 1"))


class Door:
    """A handler that lets nobody in before it is opened. `came` are the keys of each call."""

    def __init__(self) -> None:
        self.recorder, self.reached, self.open = Recorder(), asyncio.Event(), asyncio.Event()
        self.came: list[set[str]] = []

    async def handle(self, tx: AsyncConnection, events: Sequence[Any]) -> None:
        self.came.append({event.key for event in events})
        self.reached.set()
        await self.open.wait()
        await self.recorder.on_happened(tx, events)


@asynccontextmanager
async def gathering(buses: BusKit, reader: Database, door: Door) -> AsyncIterator[list[Batch]]:
    """A consumer before the door with the first of 31 events; what its topic's two other partitions read waits."""
    topic = await buses.topic()
    event = happened_on(topic)
    first, *others = [message(event(policy=PACK, of=str(n), number=1)) for n in range(31)]
    bus, consumer = buses.client(), follower(buses, reader, Inbox({event: door.handle}), topic)

    async def both_wait() -> bool:
        return len(consumer._waiting[topic]) == 2

    await bus.publish([first])
    async with running(consumer.run):
        await door.reached.wait()
        await bus.publish(others)
        await until(both_wait)
        yield [one.batch for one in consumer._waiting[topic]]


async def test_what_gathers_while_a_batch_is_under_way_is_taken_together(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    reader, door = await make_database(metadata), Door()
    async with gathering(buses, reader, door) as waiting:
        door.open.set()
        await until(has_effects(reader, 31))
    assert door.came[1] >= {record.key for batch in waiting for record in batch.records}


async def test_a_partition_that_has_another_owner_holds_no_neighbour_back(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    reader, door = await make_database(metadata), Door()
    async with gathering(buses, reader, door) as (lost, _):
        async with reader.transaction() as tx:
            await Inbox().advance(tx, lost.slot, lost.expected, lost.records[-1].offset + 1)
        door.open.set()
        await until(has_effects(reader, 31 - len(lost.records)))
    assert not {record.key for record in lost.records} & {key for key, _, _ in await effects(reader)}


# -- the PostgreSQL bus


async def test_a_member_joins_once_the_bus_is_made(postgres: Postgres, make_database: MakeDatabase) -> None:
    name, topic = f"late_{uuid.uuid4().hex}", "toy.late"
    await create_database(postgres, name, "bus")
    event = happened_on(topic)
    reader, bus = await make_database(metadata), PostgresBus(postgres.url(name, "bus_app"))
    inbox = Inbox({event: Recorder().on_happened})
    async with running(Consumer(reader, bus, inbox, group=topic, topics=[topic], instance="0").run):
        await asyncio.sleep(0.5)  # `huanquan migrate` comes later than the service
        await create_schema(postgres.url(name, "bus_owner"), topics=[topic], partitions=1, app_role="bus_app")
        await bus.publish([message(event(policy=PACK, of="a", number=1))])
        await until(has_effects(reader, 1))
    await bus.stop()


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_a_reader_whose_database_hangs_stops_at_once_and_takes_no_connection_with_it(buses: BusKit) -> None:
    slot = Slot(await buses.topic(), 0)
    async with Stall(buses.address).running() as stall:
        bus = PostgresBus(stall.url(buses.address), pool_size=1)
        assert await bus.fetch(slot, 0, limit=1) == []
        stall.begin()
        reading = asyncio.create_task(bus.fetch(slot, 0, limit=1))
        await asyncio.sleep(0.2)
        reading.cancel()
        _, pending = await asyncio.wait([reading], timeout=5)
        stall.end()
        assert not pending
        assert await bus.fetch(slot, 0, limit=1) == []
        await bus.stop()


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_who_has_seen_all_of_a_partition_looks_again_only_at_news(
    buses: BusKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, told = PostgresBus(buses.address), Message(await buses.topic(), "a", (), b"")
    looks: list[Look] = []
    look = bus.fetch_all

    async def noted(at: Sequence[Look]) -> list[list[Record] | Exception]:
        looks.extend(at)
        return await look(at)

    monkeypatch.setattr(bus, "fetch_all", noted)
    async with bus.join(told.topic, [told.topic], instance="0", on_assigned=_whatever) as member:
        await until(_so(member.joined))
        await bus.publish([told])
        await asyncio.sleep(0.5)  # the news is heard
        [slot] = [slot for slot, (_, end) in (await bus.ends([told.topic])).items() if end]
        assert len(await member.read(slot, 0, limit=10, wait=5)) == 1
        reading = asyncio.create_task(member.read(slot, 1, limit=10, wait=5))
        await asyncio.sleep(0.5)
        assert looks == [Look(slot, 0, 10)]
        await bus.publish([told])
        assert [record.offset for record in await reading] == [1]
    await bus.stop()


async def _whatever(_slots: frozenset[Slot]) -> None: ...


def _so(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        return condition()

    return so


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_a_publish_may_touch_any_number_of_partitions(buses: BusKit) -> None:
    topic = f"toy.{'long' * 20}"
    await create_schema(
        buses.address.replace("bus_app", "bus_owner"), topics=[topic], partitions=300, app_role="bus_app"
    )
    bus = buses.client()
    await bus.publish([Message(topic, str(n), (), b"") for n in range(500)])
    assert sum(end for _, end in (await bus.ends([topic])).values()) == 500


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_a_restarted_process_takes_over_from_its_own_zombie(buses: BusKit, make_database: MakeDatabase) -> None:
    """The session of the first lives on and holds its locks; the second goes by the same name."""
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    zombie = await connect(buses.address)
    await zombie.execute(f"SET application_name = 'bus {topic}-0'")
    await zombie.execute("INSERT INTO member VALUES ($1, $2, pg_backend_pid(), clock_timestamp())", topic, f"{topic}-0")
    for n in range(3):
        locks = signed(crc32(topic.encode())), signed(crc32(f"{topic}/{n}".encode()))
        assert await zombie.fetchval("SELECT pg_try_advisory_lock($1, $2)", *locks)
    await bus.publish([message(event(policy=PACK, of=key, number=1)) for key in "abcdef"])
    async with running(follower(buses, reader, Inbox({event: Recorder().on_happened}), topic).run):
        await until(has_effects(reader, 6), 15)
    await zombie.close()


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_of_two_processes_alike_one_works_and_the_other_waits(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    one, two = (follower(buses, reader, Inbox({event: Recorder(by=by).on_happened}), topic) for by in ("one", "two"))
    async with running(two.run):
        async with running(one.run):
            for number in (1, 2):
                await bus.publish([message(event(policy=PACK, of=key, number=number)) for key in "abcdef"])
                await until(has_effects(reader, 6 * number))
                await asyncio.sleep(1.5)
            assert len({by for _, _, by in await effects(reader)}) == 1
            assert sorted(map(len, (one.slots, two.slots))) == [0, 3]
        await until(lambda: _follows(two, 3))


async def _follows(consumer: Consumer, count: int) -> bool:
    return len(consumer.slots) == count


# -- the Kafka bus


class _WithoutBrokers:
    """A client whose commits no broker answers, and which has nothing to read."""

    def __init__(self) -> None:
        self.commits = 0

    async def position(self, _partition: object) -> int:
        return 0

    async def getmany(self, *_: object, **__: object) -> dict[object, list[object]]:
        return {}

    async def commit(self, _offsets: object) -> None:
        self.commits += 1
        await asyncio.sleep(3600)


async def test_commits_that_no_broker_answers_do_not_pile_up_and_end_with_the_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka, "LAG_SECONDS", 0)
    client = _WithoutBrokers()
    member = kafka._Member(client)
    for _ in range(3):
        assert await member.read(Slot("toy", 0), 0, limit=1, wait=0) == []
        await asyncio.sleep(0)
    assert client.commits == 1
    async with asyncio.timeout(5):
        await member.end_commits()


# -- the leader


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_a_leader_that_falls_silent_loses_the_lead(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await buses.topic()
    happened_on(topic)
    database = await make_database(metadata)
    monkeypatch.setattr(service_module, "LEADER_SILENT_MS", 1500)
    goes_on, silent = service_module._first_ended, asyncio.Event()

    async def paused(*jobs: Any) -> None:
        for job in jobs:
            job.close()
        silent.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(service_module, "_first_ended", paused)
    async with process(buses, database, topic, tmp_path, "0").running():
        await asyncio.wait_for(silent.wait(), 60)  # it leads: whoever only took the lock may still go on
        assert await led(database)
        monkeypatch.setattr(service_module, "_first_ended", goes_on)
        second = process(buses, database, topic, tmp_path, "1")
        woken = asyncio.Event()
        second.relay.run = _noting(second.relay.run, woken)  # type: ignore[method-assign]
        async with second.running():
            await asyncio.wait_for(woken.wait(), 60)
            assert await leaders(database) == 1


def _noting(run: Callable[[], Awaitable[None]], noted: asyncio.Event) -> Any:
    async def noting() -> None:
        noted.set()
        await run()

    return noting


class _Stalled:
    """A bus whose reads time out when they are cancelled, as a database client does that waits with a limit."""

    def joined(self) -> bool:
        return True

    async def read(self, *_: Any, **__: Any) -> list[Record]:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise BusUnavailable("timed out") from None
        return []

    @asynccontextmanager
    async def join(self, *_: Any, on_assigned: Any, **__: Any) -> AsyncIterator[Any]:
        self.on_assigned = on_assigned
        await on_assigned(frozenset({Slot("toy", 0)}))
        yield self


async def test_a_partition_is_given_up_although_its_read_hides_the_stop_behind_a_time_out(
    make_database: MakeDatabase,
) -> None:
    bus = _Stalled()
    database = await make_database(metadata)
    consumer = Consumer(database, bus, Inbox({}), group="toy", topics=["toy"], instance="0")  # type: ignore[arg-type]
    async with running(consumer.run):
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await bus.on_assigned(frozenset())
        assert consumer.slots == frozenset()
