"""What `/readyz` names: a job that stands still, which is not one that waits for work; and a database that hangs."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import consumer as consumer_module
from libs.common import service as service_module
from libs.common import tasks
from libs.common.bus import postgres as postgres_module
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import Bus, Record, Slot
from libs.common.db import Database
from libs.common.inbox import EventHandler, Inbox
from libs.common.outbox import message
from libs.common.packs import Packs
from libs.common.service import Service
from libs.common.settings import Settings
from tests.conftest import BusKit, MakeDatabase
from tests.contracts.stall import Stall
from tests.contracts.test_bus import effects, has_effects, parked_count, until
from tests.contracts.test_leader import led, process
from tests.contracts.toy import PACK, Recorder, an_app, happened_on, metadata


@pytest.fixture(autouse=True)
def _short_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(consumer_module, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(service_module, "REACHABLE_SECONDS", 1.0)


def service(database: Database, bus: Bus, topic: str, folder: Path, inbox: Inbox) -> Service:
    return Service(
        name=topic,
        settings=Settings(home=folder),
        database=database,
        bus=bus,
        inbox=inbox,
        topics=(topic,),
        app=an_app(),
        packs=Packs(database, folder),
    )


@asynccontextmanager
async def following(
    kit: BusKit, make_database: MakeDatabase, folder: Path, handler: EventHandler
) -> AsyncIterator[Service]:
    """A service that runs and is ready, with one event on its topic that comes to `handler`."""
    topic = await kit.topic()
    event = happened_on(topic)
    made = service(await make_database(metadata), kit.client(), topic, folder, Inbox({event: handler}))
    async with made.running():
        await until(lambda: ready(made), 20)
        await kit.client().publish([message(event(policy=PACK, of="a", number=1))])
        yield made


async def ready(made: Service) -> bool:
    return await made.not_ready() == []


async def names(made: Service, what: str) -> bool:
    return any(what in thing for thing in await made.not_ready())


async def test_a_service_is_ready_when_it_has_joined_and_stays_so_without_work(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    topic = await buses.topic()
    happened_on(topic)
    made = service(await make_database(metadata), buses.client(), topic, tmp_path, Inbox({}))
    assert await made.not_ready() == ["consumer: not in its group"]
    async with made.running():
        await until(lambda: ready(made), 20)
        await asyncio.sleep(tasks.SILENT_SECONDS + 1)
        assert await made.not_ready() == []


async def test_an_event_that_is_tried_again_for_ever_is_named_with_its_partition_and_error(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    mended = asyncio.Event()
    recorder = Recorder()
    told: list[str] = []

    async def fails(tx: AsyncConnection, events: Sequence[Any]) -> None:
        if not mended.is_set():
            raise ConnectionResetError
        await recorder.on_happened(tx, events)

    async def only_named() -> bool:  # in one look: a partition that is assigned anew is ready for a moment
        told[:] = await made.not_ready()
        pattern = rf"consumer: {made.topics[0]}/\d+ fails again and again \(ConnectionResetError\)[^:]*"
        return bool(re.fullmatch(pattern, " and ".join(told)))

    async with following(buses, make_database, tmp_path, fails) as made:
        try:
            await until(only_named, 20)
        except AssertionError:
            pytest.fail(f"it was told {told}")
        assert await parked_count(made.database, 0)()
        mended.set()
        await until(has_effects(made.database, 1))
        await until(lambda: ready(made))


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_an_event_that_is_tried_again_for_ever_is_named_though_its_log_gives_it_late(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def fails(_tx: AsyncConnection, _events: Sequence[Any]) -> None:
        nonlocal tries
        tries += 1
        raise ConnectionResetError

    member = postgres_module._Member
    read, given = member.read, dict[Slot, int]()

    async def late(self: Any, slot: Slot, offset: int, *, limit: int, wait: float) -> list[Record]:
        records = await read(self, slot, offset, limit=limit, wait=wait)
        given[slot] = given.get(slot, 0) + len(records)
        return records if given[slot] % 2 else []  # every other time

    monkeypatch.setattr(member, "read", late)
    async with following(buses, make_database, tmp_path, fails) as made:
        await until(lambda: names(made, "fails again and again (ConnectionResetError)"))
        assert tries > 1


async def test_a_partition_whose_batch_never_ends_is_named_silent(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    async def hangs(_tx: AsyncConnection, _events: Sequence[Any]) -> None:
        await asyncio.sleep(3600)

    async with following(buses, make_database, tmp_path, hangs) as made:
        await until(lambda: names(made, "is silent"), 20)


async def test_a_relay_whose_bus_is_away_is_named_beside_it(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    topic = await buses.topic()
    made = service(
        await make_database(metadata), PostgresBus("postgresql://nobody@127.0.0.1:1/none"), topic, tmp_path, Inbox({})
    )

    async def fails() -> int:
        raise OSError

    made.relay.publish = fails  # type: ignore[method-assign]
    async with made.running():
        await until(lambda: names(made, "relay"), 20)
        named = await made.not_ready()
    assert [thing.split(":")[0] for thing in named] == ["bus", "relay", "consumer"]


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_who_stands_by_is_ready(buses: BusKit, make_database: MakeDatabase, tmp_path: Path) -> None:
    topic = await buses.topic()
    happened_on(topic)
    database = await make_database(metadata)
    async with process(buses, database, topic, tmp_path, "0").running():
        await until(lambda: led(database))
        second = process(buses, database, topic, tmp_path, "1")
        async with second.running():
            await until(lambda: ready(second), 20)
            await asyncio.sleep(tasks.SILENT_SECONDS + 1)
            assert await second.not_ready() == []


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_a_database_that_hangs_is_named_and_all_goes_on_when_it_answers_again(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    address = await make_database(metadata)
    direct = address.url.render_as_string(hide_password=False)
    async with Stall(direct).running() as stall:
        database, bus = Database(stall.url(direct)), PostgresBus(stall.url(buses.address))
        made = service(database, bus, topic, tmp_path, Inbox({event: Recorder().on_happened}))
        async with made.running():
            await until(lambda: ready(made), 20)
            stall.begin()
            async with asyncio.timeout(20):
                assert {"database", "bus"} <= set(await made.not_ready())
            await until(lambda: names(made, "leader"), 40)
            await buses.client().publish([message(event(policy=PACK, of=key, number=1)) for key in "abcdef"])
            stall.end()
            await until(lambda: ready(made), 40)
            await until(has_effects(address, 6))
    assert len(await effects(address)) == 6


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_a_service_stops_although_its_database_hangs(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    topic = await buses.topic()
    happened_on(topic)
    direct = (await make_database(metadata)).url.render_as_string(hide_password=False)
    async with Stall(direct).running() as stall:
        database, bus = Database(stall.url(direct)), PostgresBus(stall.url(buses.address))
        made = service(database, bus, topic, tmp_path, Inbox({}))
        async with asyncio.timeout(60), made.running():
            await until(lambda: ready(made), 20)
            stall.begin()
