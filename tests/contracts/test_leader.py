"""One leader a service: one process relays and ticks, another takes over when it is gone."""

import asyncio
from pathlib import Path

from sqlalchemy import text

from libs.common.db import Database
from libs.common.inbox import Inbox
from libs.common.packs import Packs
from libs.common.service import LEADER_LOCK, Service
from libs.common.settings import Settings
from tests.conftest import BusKit, MakeDatabase
from tests.contracts.test_bus import all_records, until
from tests.contracts.test_packs import metadata as pack_metadata
from tests.contracts.toy import an_app, count_up, happened_on, metadata

if "policy_pack" not in metadata.tables:
    pack_metadata.tables["policy_pack"].to_metadata(metadata)

# This database's own holders: other tests run on the same cluster.
HOLDERS = text("""
    SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database
     WHERE locktype = 'advisory' AND objid = :lock AND granted AND d.datname = current_database()
""")


def process(kit: BusKit, database: Database, topic: str, folder: Path, instance: str) -> Service:
    """A service as a process of its own has it: its own pool and its own client of the bus."""
    own = Database(database.url.render_as_string(hide_password=False))
    settings = Settings(home=folder, instance=instance)
    return Service(
        name=topic,  # also the group: other tests share the broker
        settings=settings,
        database=own,
        bus=kit.client(),
        inbox=Inbox({}),
        topics=(topic,),
        app=an_app(),
        packs=Packs(own, folder),
    )


async def leaders(database: Database) -> int:
    async with database.engine.connect() as connection:
        return len((await connection.execute(HOLDERS, {"lock": LEADER_LOCK})).all())


async def test_one_process_leads_and_the_other_takes_over(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    database = await make_database(metadata)
    bus = buses.client()

    async def emit_one() -> None:
        async with database.transaction() as tx:
            await count_up(tx, event, "a")

    async def published(count: int) -> bool:
        return len(await all_records(bus, topic)) == count

    async with process(buses, database, topic, tmp_path, "0").running():
        await emit_one()
        await until(lambda: published(1))
        second = process(buses, database, topic, tmp_path, "1").running()
        await second.__aenter__()
        await asyncio.sleep(0.2)
        assert await leaders(database) == 1
    try:
        await emit_one()
        await until(lambda: published(2))
        assert await leaders(database) == 1
    finally:
        await second.__aexit__(None, None, None)


async def test_a_leader_whose_session_is_cut_is_elected_again_and_nothing_is_lost(
    buses: BusKit, make_database: MakeDatabase, tmp_path: Path
) -> None:
    topic = await buses.topic()
    event = happened_on(topic)
    database = await make_database(metadata)
    bus = buses.client()

    async def published(count: int) -> bool:
        return len(await all_records(bus, topic)) == count

    async with process(buses, database, topic, tmp_path, "0").running():
        await until(lambda: led(database))
        async with database.transaction() as tx:
            (holder,) = (await tx.execute(HOLDERS, {"lock": LEADER_LOCK})).scalars()
            await tx.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": holder})
        async with database.transaction() as tx:
            await count_up(tx, event, "a")
        await until(lambda: published(1))


async def led(database: Database) -> bool:
    return await leaders(database) == 1
