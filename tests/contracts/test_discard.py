"""What an operator gives up is written down for good, stays out, and lets the later events of its key go on."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from libs.common.bus.protocol import Record, Slot
from libs.common.db import Database
from libs.common.inbox import Inbox, Outcome
from libs.common.outbox import message
from libs.common.replay import rebuild, replay
from tests.conftest import BusKit, MakeDatabase
from tests.contracts.test_bus import effects, follower, running, until
from tests.contracts.test_refusals import records_of, taken
from tests.contracts.toy import PACK, Recorder, happened_on, metadata


async def discard(database: Database, inbox: Inbox, topic: str, key: str) -> Outcome:
    async with database.transaction() as tx:
        return await inbox.discard(tx, topic, key, by="wang", because="filed twice")


async def test_the_oldest_event_is_given_up_and_the_rest_of_its_key_goes_on_in_order(
    make_database: MakeDatabase,
) -> None:
    event, recorder = happened_on("toy.discard"), Recorder()
    database, inbox = await make_database(metadata), Inbox({event: recorder.on_happened})
    recorder.refuse = {("a", 1), ("a", 3)}
    events = [event(policy=PACK, of="a", number=number) for number in (1, 2, 3, 4)]
    await taken(database, inbox, records_of(events))
    assert await parked_count(database) == 4

    assert await discard(database, inbox, "toy.discard", "a") == Outcome(handled=1, parked=2)
    assert await discard(database, inbox, "toy.discard", "a") == Outcome(handled=1)
    assert [number for _, number, _ in await effects(database)] == [2, 4]
    assert await parked_count(database) == 0
    async with database.transaction() as tx:
        rows = (await tx.execute(text("SELECT * FROM discarded ORDER BY id"))).mappings().all()
    assert [row["headers"]["ce_id"] for row in rows] == [str(events[0].id), str(events[2].id)]
    assert [(row["discarded_by"], row["because"]) for row in rows] == [("wang", "filed twice")] * 2
    assert "a 1 is refused" in rows[0]["reason"]
    with pytest.raises(LookupError, match=r"nothing is parked under topic toy\.discard, key a"):
        await discard(database, inbox, "toy.discard", "a")


@pytest.mark.parametrize("change", ["UPDATE discarded SET because = ''", "DELETE FROM discarded", "TRUNCATE discarded"])
async def test_what_was_given_up_cannot_be_hidden(make_database: MakeDatabase, change: str) -> None:
    database = await make_database(metadata)
    with pytest.raises(DBAPIError, match="permission denied"):
        async with database.transaction() as tx:
            await tx.execute(text(change))


async def test_what_cannot_be_decoded_is_not_parked_again_once_it_was_given_up(make_database: MakeDatabase) -> None:
    event = happened_on("toy.discard")
    database, inbox = await make_database(metadata), Inbox({event: Recorder().on_happened})
    record = Record(Slot("toy.discard", 0), 0, "a", {"ce_type": "Happened"}, b"\xff{")
    assert await taken(database, inbox, [record]) == Outcome(parked=1)
    assert await discard(database, inbox, "toy.discard", "partition 0 offset 0") == Outcome()
    async with database.transaction() as tx:
        assert await inbox.apply(tx, [record]) == Outcome(known=1)
    assert await parked_count(database) == 0


async def test_neither_a_replay_nor_a_rebuild_brings_back_what_was_given_up(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event, recorder = happened_on(topic), Recorder()
    database, bus, inbox = await make_database(metadata), buses.client(), Inbox({event: recorder.on_happened})
    recorder.refuse = {("a", 1)}
    await bus.publish([message(event(policy=PACK, of="a", number=number)) for number in (1, 2)])
    async with running(follower(buses, database, inbox, topic).run):
        await until(lambda: _two_parked(database))
    await discard(database, inbox, topic, "a")
    recorder.refuse = set()
    assert await replay(database, bus, inbox, topic=topic) == Outcome(known=2)
    rebuilt = await rebuild(database, bus, tables=["effect"], handlers={event: recorder.on_happened})
    assert rebuilt == Outcome(handled=1, parked=1)
    assert [number for _, number, _ in await effects(database)] == [2]


async def parked_count(database: Database) -> int:
    async with database.transaction() as tx:
        return int((await tx.execute(text("SELECT count(*) FROM parked"))).scalar_one())


async def _two_parked(database: Database) -> bool:
    return await parked_count(database) == 2
