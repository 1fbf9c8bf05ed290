"""After a restore the bus may know more than the databases, or less: that is named and mended, and nothing is lost."""

import pytest
from sqlalchemy import text

from deploy.bus_diff import Comparison, Difference
from deploy.topics import Topic
from libs.common.db import Database
from libs.common.inbox import Inbox
from libs.common.outbox import Relay, message
from tests.conftest import BusKit, MakeDatabase
from tests.contracts.test_bus import effects, follower, has_effects, running, until
from tests.contracts.toy import PACK, Happened, Recorder, count_up, happened_on, metadata


def beside(kit: BusKit, topic: str, publisher: Database, reader: Database) -> Comparison:
    """A publisher and a reader of one topic, beside the bus."""
    rights = Topic(
        key="application",
        retention="forever",
        publishers=frozenset({"workflow"}),
        subscribers=frozenset({"finance"}),
    )
    return Comparison({"workflow": publisher, "finance": reader}, kit.client(), {topic: rights})


async def found(comparison: Comparison) -> list[Difference]:
    return [difference async for difference in comparison.differences()]


async def mended(comparison: Comparison) -> list[Difference]:
    """What it finds, mends, and finds no more."""
    differences = await found(comparison)
    await comparison.mend(differences, by="tester", because="a test")
    return differences


async def publish(database: Database, event: type[Happened], kit: BusKit, *keys: str) -> None:
    """As the service does: an outbox row beside the change, then the relay."""
    for key in keys:
        async with database.transaction() as tx:
            await count_up(tx, event, key)
    await Relay(database, kit.client()).publish()


async def asked(database: Database, query: str) -> list[tuple[object, ...]]:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def done(database: Database, statement: str, **values: object) -> None:
    """What befell a database: its owner may do what the service may not."""
    owner = Database(database.url.set(username="toy_owner").render_as_string(hide_password=False))
    async with owner.transaction() as tx:
        await tx.execute(text(statement), values)
    await owner.close()


async def test_where_bus_and_databases_agree_nothing_is_named(buses: BusKit, make_database: MakeDatabase) -> None:
    topic = await buses.topic()
    publisher, reader = await make_database(metadata), await make_database(metadata)
    await publish(publisher, happened_on(topic), buses, *"abc")
    async with publisher.transaction() as tx:  # not published yet, and no difference
        await count_up(tx, happened_on(topic), "d")
    assert await found(beside(buses, topic, publisher, reader)) == []


async def test_what_was_published_after_the_restored_moment_is_named_by_key_and_never_has_an_effect(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    publisher, reader, recorder = await make_database(metadata), await make_database(metadata), Recorder()
    await publish(publisher, event, buses, *"abc")
    future = event(policy=PACK, of="future", number=1)
    await buses.client().publish([message(future)])  # its outbox row was not restored
    comparison = beside(buses, topic, publisher, reader)
    (unknown,) = await mended(comparison)
    assert (unknown.what, unknown.key, unknown.type) == ("unknown", "future", "Happened")
    assert (unknown.event_id, unknown.taken_by) == (future.id, ())
    assert await found(comparison) == []
    await publish(publisher, event, buses, "d")
    async with running(follower(buses, reader, Inbox({event: recorder.on_happened}), topic).run):
        await until(has_effects(reader, 4))
    assert sorted(key for key, _, _ in await effects(reader)) == ["a", "b", "c", "d"]
    assert await asked(reader, "SELECT key, discarded_by, because FROM discarded") == [("future", "tester", "a test")]


async def test_a_reader_that_took_an_unknown_event_already_is_named_and_left_alone(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    publisher, reader = await make_database(metadata), await make_database(metadata)
    await publish(publisher, event, buses, "a")
    async with running(follower(buses, reader, Inbox({event: Recorder().on_happened}), topic).run):
        await until(has_effects(reader, 1))
    await done(publisher, "DELETE FROM outbox")  # the publisher alone was restored
    comparison = beside(buses, topic, publisher, reader)
    for _ in range(2):
        (unknown,) = await mended(comparison)
        assert (unknown.key, unknown.taken_by) == ("a", ("finance",))
    assert await asked(reader, "SELECT * FROM discarded") == []


async def test_what_the_bus_has_lost_is_published_again_and_read_again_though_its_readers_were_further(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic, fresh = await buses.topic(), await buses.topic()
    publisher, reader, recorder = await make_database(metadata), await make_database(metadata), Recorder()
    await publish(publisher, happened_on(topic), buses, *"abcdefgh")
    inbox = Inbox({happened_on(topic): recorder.on_happened})
    async with running(follower(buses, reader, inbox, topic).run):
        await until(has_effects(reader, 8))
    # The bus is made anew, empty; the reader had taken all but one event, which nobody else has.
    event = happened_on(fresh)
    await done(publisher, "UPDATE outbox SET topic = :topic", topic=fresh)
    await done(reader, "UPDATE consumer_offset SET topic = :topic, next = next + 1", topic=fresh)
    ((missing,),) = await asked(publisher, "SELECT event_id FROM outbox WHERE key = 'e'")
    await done(reader, "DELETE FROM inbox WHERE event_id = :missing", missing=missing)
    await done(reader, "DELETE FROM effect WHERE key = 'e'")
    comparison = beside(buses, fresh, publisher, reader)
    differences = await mended(comparison)
    assert sorted(each.key for each in differences if each.what == "lost" and each.key) == list("abcdefgh")
    assert {each.service for each in differences if each.what == "ahead"} == {"finance"}
    await publish(publisher, event, buses)
    async with running(follower(buses, reader, Inbox({event: recorder.on_happened}), fresh).run):
        await until(has_effects(reader, 8))
    assert sorted(key for key, _, _ in await effects(reader)) == list("abcdefgh")
    assert await found(comparison) == []


@pytest.mark.parametrize("read", [0, 2])
async def test_a_log_that_lost_its_end_and_grew_again_hides_nothing_from_whoever_was_further(
    buses: BusKit, make_database: MakeDatabase, read: int
) -> None:
    """The reader's offset is not beyond the end any more: only the ids tell."""
    topic = await buses.topic()
    event = happened_on(topic)
    publisher, reader, recorder = await make_database(metadata), await make_database(metadata), Recorder()
    async with publisher.transaction() as tx:
        for _ in range(2):
            await count_up(tx, event, "k")
    await done(publisher, "DELETE FROM unpublished")  # and the log lost both
    await publish(publisher, event, buses, *"kk")
    comparison = beside(buses, topic, publisher, reader)
    slot = next(slot for slot, (_, end) in (await buses.client().ends([topic])).items() if end)
    await done(reader, "INSERT INTO consumer_offset VALUES (:topic, :partition, :read)", **slot._asdict(), read=read)
    assert [each.what for each in await mended(comparison)] == ["lost", "lost"]
    await publish(publisher, event, buses)
    async with running(follower(buses, reader, Inbox({event: recorder.on_happened}), topic).run):
        await until(has_effects(reader, 4))
    assert sorted(number for _, number, _ in await effects(reader)) == [1, 2, 3, 4]
