"""Replay and rebuild: the log can be read again without anything happening twice."""

from sqlalchemy import text

from libs.common.inbox import Inbox, Outcome
from libs.common.outbox import message
from libs.common.replay import rebuild, replay
from tests.conftest import BusKit, MakeDatabase
from tests.contracts.test_bus import effects, follower, has_effects, running, until
from tests.contracts.toy import PACK, Recorder, happened_on, metadata


async def test_replay_skips_what_was_taken_and_handles_what_was_lost(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus = await make_database(metadata), buses.client()
    inbox = Inbox({event: Recorder().on_happened})
    events = [event(policy=PACK, of="a", number=n) for n in range(1, 11)]
    await bus.publish([message(each) for each in events])
    async with running(follower(buses, reader, inbox, topic).run):
        await until(has_effects(reader, 10))
    async with reader.transaction() as tx:  # an operator has found that two events left no trace
        lost = [each.id for each in events[3:5]]
        await tx.execute(text("DELETE FROM inbox WHERE event_id = ANY(:ids)"), {"ids": lost})
        await tx.execute(text("DELETE FROM effect WHERE number IN (4, 5)"))
    assert await replay(reader, bus, inbox, topic=topic) == Outcome(handled=2, known=8)
    assert sorted(number for _, number, _ in await effects(reader)) == list(range(1, 11))
    assert await replay(reader, bus, inbox, topic=topic) == Outcome(known=10)


async def test_a_rebuilt_projection_is_what_the_service_had_read_each_event_once(
    buses: BusKit, make_database: MakeDatabase
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    reader, bus, recorder = await make_database(metadata), buses.client(), Recorder()
    inbox = Inbox({event: recorder.on_happened})
    messages = [message(event(policy=PACK, of=key, number=n)) for n in (1, 2, 3) for key in "abc"]
    await bus.publish(messages)
    await bus.publish(messages[:4])  # published twice by a relay that died
    async with running(follower(buses, reader, inbox, topic).run):
        await until(has_effects(reader, 9))
        async with reader.transaction() as tx:
            await tx.execute(text("UPDATE effect SET number = 99"))  # the projection has gone wrong
        outcome = await rebuild(reader, bus, tables=["effect"], handlers={event: recorder.on_happened})
        assert (outcome.handled, outcome.known) == (9, 4)
        await bus.publish([message(event(policy=PACK, of="a", number=4))])  # and live events go on behind it
        await until(has_effects(reader, 10))
    assert sorted((key, number) for key, number, _ in await effects(reader)) == sorted(
        [(key, n) for n in (1, 2, 3) for key in "abc"] + [("a", 4)]
    )
