"""What is refused is parked alone, what is of the moment is not, and reading again doubles and overtakes nothing."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, Table, Text, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from libs.common.bus.protocol import Record, Slot
from libs.common.db import Database, passing
from libs.common.db import metadata as make_metadata
from libs.common.inbox import Early, Inbox, Outcome, cause
from libs.common.outbox import message
from libs.common.replay import rebuild, replay
from libs.common.ticker import Due, Ticker, schedule
from tests.conftest import BusKit, MakeDatabase, Postgres
from tests.contracts.test_bus import effects, follower, has_effects, parked_count, running, until
from tests.contracts.toy import PACK, Happened, Recorder, happened_on, metadata

strict = make_metadata()
Table("rule", strict, Column("number", Integer, primary_key=True))
Table(
    "effect",
    strict,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False),
    Column("number", Integer, ForeignKey("rule.number", deferrable=True, initially="DEFERRED"), nullable=False),
    Column("by", Text, nullable=False),
)


def records_of(events: Sequence[Happened], first: int = 0) -> list[Record]:
    """As a log of one partition would hold them."""
    return [
        Record(Slot(e.topic, 0), first + n, e.key, message(e).headers, e.model_dump_json().encode())
        for n, e in enumerate(events)
    ]


async def taken(database: Database, inbox: Inbox, records: Sequence[Record]) -> Outcome:
    async with database.transaction() as tx:
        slot = records[0].slot
        return await inbox.take(tx, slot, await inbox.position(tx, slot), records)


# -- what is refused, and what is of the moment


async def test_an_event_that_breaks_a_deferred_constraint_is_parked_alone(make_database: MakeDatabase) -> None:
    event = happened_on("toy.strict")
    database, inbox = await make_database(strict), Inbox({event: Recorder().on_happened})
    async with database.transaction() as tx:
        await tx.execute(text("INSERT INTO rule VALUES (1), (2)"))
    records = records_of([event(policy=PACK, of=key, number=n) for key, n in (("a", 1), ("b", 3), ("c", 2))])
    assert await taken(database, inbox, records) == Outcome(handled=2, parked=1)
    assert [key for key, _, _ in await effects(database)] == ["a", "c"]


@pytest.mark.parametrize("why", ["early", "refused"])
async def test_what_cannot_be_handled_holds_up_later_events_of_its_key_and_no_earlier_one(
    make_database: MakeDatabase, why: str
) -> None:
    """Else the earlier one would stand in front of it for good, and an operator who discards give up a good event."""
    event, recorder = happened_on("toy.between"), Recorder()
    database, missing = await make_database(metadata), {3, 6}

    async def between(tx: AsyncConnection, events: Sequence[Any]) -> None:
        hit = [e for e in events if e.number in missing]
        if hit and why == "early":
            raise Early({e.id: cause(event, "a cause") for e in hit})
        if hit:
            raise ValueError("refused")
        await recorder.on_happened(tx, events)

    inbox = Inbox({event: between})
    records = records_of([event(policy=PACK, of="ab"[n % 2], number=n) for n in range(8)])
    assert await taken(database, inbox, records) == Outcome(handled=4, parked=4)
    async with database.transaction() as tx:
        parked = (await tx.execute(text('SELECT key, "offset" FROM parked ORDER BY id'))).all()
        await inbox.release(tx, event.topic, "b")  # still refused: it stays, and so does what is behind it
    assert [tuple(row) for row in parked] == [("b", 3), ("b", 5), ("a", 6), ("b", 7)]
    missing.clear()
    async with database.transaction() as tx:
        for key in "ab":
            await inbox.release(tx, event.topic, key)
    done = [number for _, number, _ in await effects(database)]
    assert [n for n in done if n % 2] == [1, 3, 5, 7]
    assert [n for n in done if not n % 2] == [0, 2, 4, 6]


async def test_a_key_waits_for_the_cause_of_its_first_event_and_then_for_the_next(make_database: MakeDatabase) -> None:
    event, recorder, came = happened_on("toy.causes"), Recorder(), set[int]()
    database = await make_database(metadata)

    async def one_cause_a_time(tx: AsyncConnection, events: Sequence[Any]) -> None:
        for number in (3, 2):  # the later one is told of first
            early = [e for e in events if e.number == number and number not in came]
            if early:
                raise Early({e.id: cause(event, f"{number}") for e in early})
        await recorder.on_happened(tx, events)

    inbox, waits = Inbox({event: one_cause_a_time}), list[Any]()

    async def look(tx: AsyncConnection) -> None:
        waits.append((await tx.execute(text("SELECT waiting_for FROM parked_key"))).scalars().all())

    await taken(database, inbox, records_of([event(policy=PACK, of="a", number=n) for n in (1, 2, 3)]))
    async with database.transaction() as tx:
        await look(tx)
    for number in (2, 3):
        came.add(number)
        async with database.transaction() as tx:
            await inbox.release(tx, event.topic, "a")
            await look(tx)
            due = (await tx.execute(text("SELECT count(*) FROM due"))).scalar_one()
    assert waits == [["Happened:2"], ["Happened:3"], []]
    assert due == 1, "a waiting key is tried again by itself too"
    assert [number for _, number, _ in await effects(database)] == [1, 2, 3]


async def test_a_process_that_is_older_than_a_parked_event_leaves_it_and_its_wait_to_a_newer_one(
    make_database: MakeDatabase,
) -> None:
    event, recorder = happened_on("toy.older"), Recorder()
    database = await make_database(metadata)

    async def early(_tx: AsyncConnection, events: Sequence[Any]) -> None:
        raise Early({e.id: cause(event, "a cause") for e in events})

    await taken(database, Inbox({event: early}), records_of([event(policy=PACK, of="a", number=n) for n in (1, 2)]))
    async with database.transaction() as tx:
        assert await Inbox({}).release(tx, event.topic, "a") == Outcome(parked=2)
        assert (await tx.execute(text("SELECT waiting_for FROM parked_key"))).scalar_one() == "Happened:a cause"
        assert await Inbox({event: recorder.on_happened}).release(tx, event.topic, "a") == Outcome(handled=2)
    assert [number for _, number, _ in await effects(database)] == [1, 2]


async def test_what_an_older_process_cannot_decode_is_not_overtaken_by_what_is_behind_it(
    make_database: MakeDatabase,
) -> None:
    event, recorder = happened_on("toy.form"), Recorder()
    database, inbox = await make_database(metadata), Inbox({event: recorder.on_happened})
    recorder.refuse = {("a", 1)}
    await taken(database, inbox, records_of([event(policy=PACK, of="a", number=n) for n in (1, 2, 3)]))
    recorder.refuse = set()
    async with database.transaction() as tx:
        await tx.execute(text("""UPDATE parked SET value = '{"form": "later"}' WHERE "offset" = 1"""))
        assert await inbox.release(tx, event.topic, "a") == Outcome(handled=1, parked=2)
    assert [number for _, number, _ in await effects(database)] == [1]


async def test_due_work_that_breaks_a_deferred_constraint_is_parked_alone(make_database: MakeDatabase) -> None:
    database = await make_database(strict)

    async def record(tx: AsyncConnection, dues: Sequence[Due]) -> None:
        statement = text("INSERT INTO effect (key, number, by) SELECT k, 3, '' FROM unnest(CAST(:keys AS text[])) k")
        await tx.execute(statement, {"keys": [due.key for due in dues]})

    async with database.transaction() as tx:
        await schedule(tx, [Due("remind", "a", datetime.now(UTC))])
    assert await Ticker(database, {"remind": record}).tick(datetime.now(UTC)) == 1
    assert await parked_count(database, 1)()


async def test_a_reason_that_postgresql_cannot_hold_is_parked_all_the_same(make_database: MakeDatabase) -> None:
    event = happened_on("toy.nul")
    database = await make_database(metadata)

    async def refuse(_tx: AsyncConnection, _events: Sequence[Any]) -> None:
        raise ValueError("the name a\0b is refused")

    records = records_of([event(policy=PACK, of="a", number=1)])
    assert await taken(database, Inbox({event: refuse}), records) == Outcome(parked=1)


async def test_a_statement_planned_before_a_migration_parks_nothing(
    make_database: MakeDatabase, postgres: Postgres
) -> None:
    database = await make_database(metadata)
    assert database.url.database
    owner = create_async_engine(postgres.url(database.url.database, "toy_owner"))
    query = text("SELECT * FROM counter")
    async with database.transaction() as other, database.transaction() as tx:
        await other.execute(query)
        await tx.execute(query)
    async with owner.begin() as migration:
        await migration.execute(text("ALTER TABLE counter ADD COLUMN more integer"))
    await owner.dispose()
    errors = []
    for _ in range(3):
        try:
            async with database.transaction() as tx:
                await tx.execute(query)
        except DBAPIError as error:
            errors.append(error)
    assert errors
    assert all(passing(error) for error in errors)


async def test_a_batch_too_large_for_a_statement_is_of_the_batch_and_not_of_the_moment(
    make_database: MakeDatabase,
) -> None:
    database = await make_database(metadata)
    names = [f"p{n}" for n in range(40_000)]
    many = text(f"SELECT 1 WHERE 1 IN ({', '.join(f'CAST(:{name} AS int)' for name in names)})")
    with pytest.raises(DBAPIError) as refused:
        async with database.transaction() as tx:
            await tx.execute(many, dict.fromkeys(names, 1))
    assert not passing(refused.value)


def test_what_a_session_outside_the_pool_raises_is_judged_by_its_state() -> None:
    assert passing(asyncpg.TooManyConnectionsError("sorry, too many clients already"))
    assert passing(asyncpg.AdminShutdownError("terminating connection"))
    assert not passing(asyncpg.UniqueViolationError("twice"))


def test_a_driver_that_lost_its_thread_says_nothing_of_the_event() -> None:
    lost = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    assert passing(lost)
    assert passing(DBAPIError("SELECT 1", None, lost))


@pytest.mark.kafka
@pytest.mark.parametrize("buses", ["kafka"], indirect=True)
async def test_a_foreign_record_that_postgresql_cannot_hold_is_parked_and_blocks_nobody(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    from aiokafka import AIOKafkaProducer

    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    producer = AIOKafkaProducer(bootstrap_servers=buses.address)
    await producer.start()
    headers = [("ce_type", b"Happened"), ("ce_id", b"a\0b"), ("none", None)]
    for partition in range(3):
        await producer.send_and_wait(topic, None, key=b"a\0b", partition=partition, headers=headers)
    await producer.stop()
    await bus.publish([message(event(policy=PACK, of=key, number=1)) for key in "abcdef"])
    async with running(follower(buses, reader, Inbox({event: Recorder().on_happened}), topic).run):
        await until(has_effects(reader, 6))
        await until(parked_count(reader, 3))


# -- replay and rebuild


async def test_a_rebuild_leaves_a_parked_key_to_its_release(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()
    recorder.refuse = {("a", 3)}
    inbox = Inbox({event: recorder.on_happened})
    messages = [message(event(policy=PACK, of="a", number=n)) for n in (1, 2, 3, 4)]
    await bus.publish([*messages, messages[2]])
    async with running(follower(buses, reader, inbox, topic).run):
        await until(parked_count(reader, 2))
    recorder.refuse = set()
    outcome = await rebuild(reader, bus, tables=["effect"], handlers={event: recorder.on_happened})
    assert outcome == Outcome(handled=2, parked=3)
    assert [number for _, number, _ in await effects(reader)] == [1, 2]
    async with reader.transaction() as tx:
        assert await inbox.release(tx, topic, "a") == Outcome(handled=2)
    assert [number for _, number, _ in await effects(reader)] == [1, 2, 3, 4]


async def test_replay_does_not_overtake_what_is_not_read_yet(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    inbox = Inbox({event: Recorder().on_happened})
    await bus.publish([message(event(policy=PACK, of="a", number=n)) for n in (1, 2, 3)])
    assert await replay(reader, bus, inbox, topic=topic) == Outcome()
    async with running(follower(buses, reader, inbox, topic).run):
        await until(has_effects(reader, 3))
    assert [number for _, number, _ in await effects(reader)] == [1, 2, 3]


async def test_what_is_refused_once_it_can_be_decoded_is_parked_under_its_key(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = happened_on("toy.later")
    database, recorder = await make_database(metadata), Recorder()
    inbox = Inbox({event: recorder.on_happened})
    records = records_of([event(policy=PACK, of="a", number=1)])
    slot = records[0].slot
    with monkeypatch.context() as older:  # a program that cannot read it
        older.setattr(event, "model_validate_json", lambda _body: json.loads("{"))
        assert await taken(database, inbox, records) == Outcome(parked=1)
    recorder.refuse = {("a", 1)}
    async with database.transaction() as tx:
        assert await inbox.apply(tx, records) == Outcome(parked=1)  # as a replay does
    async with database.transaction() as tx:
        assert await inbox.release(tx, slot.topic, "partition 0 offset 0") == Outcome()
    recorder.refuse = set()
    async with database.transaction() as tx:
        assert await inbox.release(tx, slot.topic, "a") == Outcome(handled=1)
    assert [number for _, number, _ in await effects(database)] == [1]
