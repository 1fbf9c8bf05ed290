"""What operators do to a deployment: migrate, look at what is parked, release, replay, rebuild."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import text

from deploy.engine import SERVICES
from deploy.forms import CLUSTER, create
from deploy.local import PARTITIONS, Local, deployed_settings, home_of_environment, metadata_of
from deploy.topics import apply_topics
from libs.common.bus.postgres import create_schema
from libs.common.db import Database
from libs.common.events import TOPICS
from libs.common.inbox import Outcome
from libs.common.migration import upgrade
from libs.common.replay import rebuild, replay
from libs.common.service import Service
from libs.common.settings import Settings, SettingsMissing

_KEYS = text("""
    SELECT k.topic, k.key, count(p.id) AS events, k.parked_at, k.waiting_for,
           (array_agg(p.reason ORDER BY p.id))[1] AS reason
      FROM parked_key k LEFT JOIN parked p USING (topic, key)
     GROUP BY k.topic, k.key, k.parked_at, k.waiting_for ORDER BY k.parked_at
""")
_EVENTS = text("""
    SELECT partition, "offset", headers, convert_from(value, 'UTF8') AS value, reason, parked_at
      FROM parked WHERE topic = :topic AND key = :key ORDER BY id
""")


@asynccontextmanager
async def opened() -> AsyncIterator[Settings]:
    """Settings of the deployment in the environment, else of the one below HUANQUAN_HOME, its engine running."""
    deployed = deployed_settings()
    if deployed:
        yield deployed
        return
    local = Local(home_of_environment())
    if not local.home.exists():
        raise LookupError(f"there is no deployment: neither HUANQUAN_INTAKE_DATABASE_URL nor {local.home}")
    found_running = local.postgres.is_up
    await asyncio.to_thread(local.postgres.start)
    try:
        addresses, kafka = local.announced()
        yield local.settings(addresses, kafka=kafka)
    finally:
        if not found_running:
            await local.close()


@asynccontextmanager
async def opened_service(name: str) -> AsyncIterator[Service]:
    """One service with its packs, but none of its background work."""
    async with opened() as settings:
        service = create(name, settings)
        try:
            await service.packs.load()
            yield service
        finally:
            await service.bus.stop()
            await service.database.close()


def _check_known(service: str) -> None:
    if service not in SERVICES:
        raise LookupError(f"no service {service!r}: one of {', '.join(SERVICES)}")


def migrate_deployed() -> Iterator[str]:
    """Bring every database of the environment's deployment up to date. Raises SettingsMissing."""
    settings = Settings()
    for service in SERVICES:
        upgrade(service, settings.migration_url(service), metadata_of(service))
        yield f"{service}: up to date"
    yield from asyncio.run(_prepare_bus(settings))


async def _prepare_bus(settings: Settings) -> list[str]:
    if settings.bus == "kafka":
        return await apply_topics(settings.bus_address())
    owner = os.environ.get("HUANQUAN_BUS_MIGRATION_URL")
    if owner is None:
        raise SettingsMissing(["HUANQUAN_BUS_MIGRATION_URL"])
    await create_schema(owner, topics=TOPICS, partitions=PARTITIONS, app_role="bus_app")
    return ["bus: up to date"]


async def parked_keys(service: str | None) -> list[tuple[Any, ...]]:
    """Every parked key: service, topic, key, events, since, waiting for, first reason."""
    found: list[tuple[Any, ...]] = []
    if service:
        _check_known(service)
    async with opened() as settings:
        for name in [service] if service else SERVICES:
            database = Database(settings.database_url(name))
            async with database.engine.connect() as connection:
                found += [(name, *row) for row in await connection.execute(_KEYS)]
            await database.close()
    return found


async def parked_events(service: str, topic: str, key: str) -> list[dict[str, Any]]:
    """The parked events of a key, oldest first."""
    _check_known(service)
    async with opened() as settings:
        database = Database(settings.database_url(service))
        async with database.engine.connect() as connection:
            rows = (await connection.execute(_EVENTS, {"topic": topic, "key": key})).mappings().all()
        await database.close()
    return [{**row, "parked_at": row["parked_at"].isoformat()} for row in rows]


async def release_key(service: str, topic: str, key: str) -> Outcome:
    """Try a parked key again."""
    async with opened_service(service) as opened_one, opened_one.database.transaction() as tx:
        return await opened_one.inbox.release(tx, topic, key)


async def replay_topic(service: str, topic: str, partition: int | None, offset: int) -> Outcome:
    """Give a service a topic again."""
    async with opened_service(service) as opened_one:
        if topic not in opened_one.topics:
            raise LookupError(f"{service} does not hear {topic!r}; it hears {', '.join(opened_one.topics)}")
        return await replay(
            opened_one.database, opened_one.bus, opened_one.inbox, topic=topic, partition=partition, offset=offset
        )


async def rebuild_projection(service: str) -> Outcome:
    """Make a service's projection anew. Raises LookupError where it has none."""
    async with opened_service(service) as opened_one:
        if opened_one.projection is None:
            raise LookupError(f"{service} has no projection")
        tables, handlers = opened_one.projection
        return await rebuild(opened_one.database, opened_one.bus, tables=tables, handlers=handlers)


def remove_home(home: Path) -> None:
    """Stop the engine and the brokers that run below a home folder, by their ids, and remove the folder."""
    local = Local(home)
    if local.postgres.is_up:
        psutil.Process(local.postgres.pid).send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        psutil.Process(local.postgres.pid).wait(timeout=30)
    if (home / "kafka").exists():
        subprocess.run([str(CLUSTER), "wipe"], env={**os.environ, "KAFKA_HOME": str(home / "kafka")}, check=True)  # noqa: S603 - our own script
    shutil.rmtree(home, ignore_errors=True)
