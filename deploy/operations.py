"""What operators do to a deployment: migrate, look how it is and what is parked, release, discard, replay, rebuild,
tell anew."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from sqlalchemy import make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.engine import SERVICES, check_service
from deploy.forms import create, wipe_brokers
from deploy.local import PARTITIONS, Local, deployed_settings, home_of_environment, metadata_of
from deploy.refusals import Refusal
from deploy.topics import apply_topics
from libs.common.bus.postgres import create_schema
from libs.common.calendar import local_date
from libs.common.db import Database, connect, passing
from libs.common.events import TOPICS
from libs.common.inbox import Outcome
from libs.common.migration import upgrade
from libs.common.packs import PackChanged, check_city, check_version, store
from libs.common.policy import Pack
from libs.common.replay import rebuild, replay
from libs.common.service import Service
from libs.common.settings import Settings, SettingsMissing, variable
from libs.common.ticker import PARKED_PREFIX
from services.intake import employers

BUS_MIGRATION_URL = "HUANQUAN_BUS_MIGRATION_URL"

_KEYS = text("""
    SELECT k.topic, k.key, count(p.id) AS events, k.parked_at, k.waiting_for,
           (array_agg(p.reason ORDER BY p.id))[1] AS reason
      FROM parked_key k LEFT JOIN parked p USING (topic, key)
     GROUP BY k.topic, k.key, k.parked_at, k.waiting_for ORDER BY k.parked_at
""")
_DISCARDED = text("""
    SELECT topic, key, reason, discarded_at, discarded_by, because FROM discarded ORDER BY discarded_at, id
""")
_EVENTS = text("""
    SELECT partition, "offset", headers, value, reason, parked_at
      FROM parked WHERE topic = :topic AND key = :key ORDER BY id
""")
_IS_PARKED = text("SELECT true FROM parked_key WHERE topic = :topic AND key = :key")
_MISSING = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NULL"


# -- which deployment


@asynccontextmanager
async def opened(*services: str) -> AsyncIterator[Settings]:
    """Settings of the deployment in the environment, else of the one below HUANQUAN_HOME, its engine running; the
    databases of these services answer and are up to date. Raises Refusal, SettingsMissing."""
    async with _found() as settings:
        for service in services:
            tables = list(metadata_of(service).tables)
            await _check_database(settings.database_url(service), variable(f"{service}_database_url"), tables)
        yield settings


@asynccontextmanager
async def _found() -> AsyncIterator[Settings]:
    deployed = deployed_settings()
    if deployed:
        yield deployed
        return
    async with _running(started_home()) as local:
        addresses, kafka = local.announced()
        yield local.settings(addresses, kafka=kafka)


def started_home() -> Local:
    """The home of the environment. Raises Refusal, and makes nothing, where no system was ever started in it."""
    local = Local(home_of_environment())
    if not (local.home / "pg" / "PG_VERSION").exists():
        raise Refusal(
            f"there is no deployment: HUANQUAN_INTAKE_DATABASE_URL is not set, and no system was ever started in "
            f"{local.home}; start one with `huanquan up`, or name another HUANQUAN_HOME"
        )
    return local


@asynccontextmanager
async def _running(local: Local) -> AsyncIterator[Local]:
    """A home with its engine running; stopped afterwards if it was not running before."""
    found_running = local.postgres.is_up
    await asyncio.to_thread(local.postgres.start)
    try:
        yield local
    finally:
        if not found_running:
            await local.close()


async def _check_database(url: str, named: str, tables: Sequence[str] = ()) -> None:
    """Raises Refusal where a database cannot be used, or holds not all of these tables. `named` is its variable."""
    try:
        where = make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        raise Refusal(f"{named} is no address of a database: write postgresql://user:password@host/database") from None
    try:
        connection = await connect(url)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        why = str(error) or type(error).__name__
        raise Refusal(f"{where} ({named}) does not answer: {why}; is it up, and is the address right?") from error
    try:
        missing = await connection.fetch(_MISSING, list(tables))
    finally:
        await connection.close()
    if missing:
        raise Refusal(f"{where} ({named}) is not up to date (no table {missing[0][0]}): run `huanquan migrate`")


@asynccontextmanager
async def opened_service(name: str) -> AsyncIterator[Service]:
    """One service with its packs, but none of its background work. Raises Refusal, SettingsMissing."""
    check_service(name)
    async with opened(name) as settings:
        service = create(name, settings)
        try:
            await service.packs.load()
            yield service
        finally:
            await service.bus.stop()
            await service.database.close()


@asynccontextmanager
async def _opened_with_bus(name: str) -> AsyncIterator[Service]:
    async with opened_service(name) as service:
        if service.settings.bus == "postgres":
            await _check_database(service.settings.bus_address(), variable("bus_url"), ["partition", "heading", "log"])
        elif not await service.bus.reachable():
            brokers = service.settings.bus_address()
            raise Refusal(f"Kafka at {brokers} ({variable('kafka')}) does not answer; is it up?")
        yield service


# -- migrating


def migrate_deployed() -> Iterator[str]:
    """Bring every database up to date: those of the environment's deployment, else those below HUANQUAN_HOME.

    Raises Refusal, SettingsMissing."""
    settings = Settings()
    if settings.mode == "production" or any(_addresses(settings)):
        yield from _migrate_named(settings)
    else:
        yield from asyncio.run(_migrate_home())


def _addresses(settings: Settings) -> list[object]:
    fields = [f"{service}_{kind}_url" for service in SERVICES for kind in ("migration", "database")]
    return [getattr(settings, field) for field in fields] + [os.environ.get(BUS_MIGRATION_URL)]


async def _migrate_home() -> list[str]:
    async with _running(started_home()) as local:
        await local.prepare()
        return [f"{name}: up to date" for name in (*SERVICES, "bus")]


def _migrate_named(settings: Settings) -> Iterator[str]:
    missing = [variable(f"{s}_migration_url") for s in SERVICES if getattr(settings, f"{s}_migration_url") is None]
    if settings.bus == "kafka":
        missing += [variable("kafka")] if settings.kafka is None else []
    elif BUS_MIGRATION_URL not in os.environ:
        missing.append(BUS_MIGRATION_URL)
    if missing:
        raise SettingsMissing(missing)
    urls = {service: settings.migration_url(service) for service in SERVICES}
    for service, url in urls.items():  # all of them before the first is changed
        asyncio.run(_check_database(url, variable(f"{service}_migration_url")))
    for service, url in urls.items():
        upgrade(service, url, metadata_of(service))
        yield f"{service}: up to date"
    yield from asyncio.run(_prepare_bus(settings))


async def _prepare_bus(settings: Settings) -> list[str]:
    if settings.bus == "kafka":
        return await apply_topics(settings.bus_address())
    owner = os.environ[BUS_MIGRATION_URL]
    await _check_database(owner, BUS_MIGRATION_URL)
    await create_schema(owner, topics=TOPICS, partitions=PARTITIONS, app_role="bus_app")
    return ["bus: up to date"]


# -- publishing a policy


async def publish(pack: Pack) -> list[str]:
    """Store a pack with every service, intake last: nobody files under it before the others can read it. Running
    processes take it in by themselves. Doing it again changes nothing.

    Raises Refusal: another city's pack, and a version that is stored with other content, before anything is stored; a
    database that goes away half way, with the services that have it.
    """
    async with opened(*SERVICES) as settings:
        databases = {name: Database(settings.database_url(name)) for name in reversed(SERVICES)}
        stored: list[str] = []
        try:
            for database in databases.values():
                async with database.transaction() as tx:
                    await check_city(tx, pack)
                    await check_version(tx, pack)
            for name, database in databases.items():
                async with database.transaction() as tx:
                    await store(tx, pack)
                stored.append(name)
        except PackChanged as error:
            raise Refusal(f"{error}; nothing was published") from error
        except Exception as error:
            if not passing(error):
                raise
            held = ", ".join(stored) or "nobody"
            raise Refusal(f"a database went away: {held} has the pack; publish it again") from error
        finally:
            for database in databases.values():
                await database.close()
    return [f"{name}: {pack.identity}" for name in databases]


# -- what is parked


async def parked_keys(service: str | None) -> list[Mapping[str, Any]]:
    """Every parked key: service, topic, key, events, parked_at, waiting_for, reason (of its oldest event)."""
    return await _from_each(service, _KEYS)


async def discarded_events(service: str | None) -> list[Mapping[str, Any]]:
    """Every event given up: service, topic, key, reason (of its parking), discarded_at, discarded_by, because."""
    return await _from_each(service, _DISCARDED)


async def _from_each(service: str | None, query: Any) -> list[Mapping[str, Any]]:
    if service:
        check_service(service)
    names = [service] if service else list(SERVICES)
    found: list[Mapping[str, Any]] = []
    async with opened(*names) as settings:
        for name in names:
            async with _connected(settings, name) as connection:
                found += [{"service": name, **row} for row in (await connection.execute(query)).mappings()]
    return found


@asynccontextmanager
async def _connected(settings: Settings, service: str) -> AsyncIterator[AsyncConnection]:
    database = Database(settings.database_url(service))
    try:
        async with database.engine.connect() as connection:
            yield connection
    finally:
        await database.close()


async def parked_events(service: str, topic: str, key: str) -> list[dict[str, Any]]:
    """The parked events of a key, oldest first; bytes that are no UTF-8 are shown as U+FFFD. Raises Refusal."""
    check_service(service)
    async with opened(service) as settings, _connected(settings, service) as connection:
        await _check_parked(connection, service, topic, key)
        rows = (await connection.execute(_EVENTS, {"topic": topic, "key": key})).mappings().all()
    shown = ({**row, "value": bytes(row["value"]).decode(errors="replace")} for row in rows)
    return [{**row, "parked_at": row["parked_at"].isoformat()} for row in shown]


async def _check_parked(tx: AsyncConnection, service: str, topic: str, key: str) -> None:
    if topic not in TOPICS and not topic.startswith(PARKED_PREFIX):
        raise Refusal(f"no topic {topic!r}: one of {', '.join(TOPICS)}, or {PARKED_PREFIX}<kind> for due work")
    if (await tx.execute(_IS_PARKED, {"topic": topic, "key": key})).first() is None:
        listing = f"`huanquan parked list --service {service}`"
        raise Refusal(f"nothing is parked in {service} under topic {topic}, key {key!r}; {listing} shows what is")


async def release_key(service: str, topic: str, key: str) -> Outcome:
    """Try a parked key again. Raises Refusal."""
    async with opened_service(service) as opened_one, opened_one.database.transaction() as tx:
        await _check_parked(tx, service, topic, key)
        return await opened_one.inbox.release(tx, topic, key)


async def discard_oldest(service: str, topic: str, key: str, *, by: str, because: str) -> Outcome:
    """Give up the oldest parked event of a key and try the rest again. Raises Refusal."""
    async with opened_service(service) as opened_one, opened_one.database.transaction() as tx:
        await _check_parked(tx, service, topic, key)
        return await opened_one.inbox.discard(tx, topic, key, by=by, because=because)


# -- reading the log again


async def replay_topic(service: str, topic: str, partition: int | None, offset: int) -> Outcome:
    """Give a service a topic again. Raises Refusal, LookupError for what the log does not hold."""
    async with _opened_with_bus(service) as opened_one:
        if topic not in opened_one.topics:
            raise Refusal(f"{service} does not hear {topic!r}; it hears {', '.join(opened_one.topics)}")
        return await replay(
            opened_one.database, opened_one.bus, opened_one.inbox, topic=topic, partition=partition, offset=offset
        )


async def rebuild_projection(service: str) -> Outcome:
    """Make a service's projection anew. Raises Refusal where it has none."""
    async with _opened_with_bus(service) as opened_one:
        if opened_one.projection is None:
            raise Refusal(f"{service} has no projection")
        tables, handlers = opened_one.projection
        return await rebuild(opened_one.database, opened_one.bus, tables=tables, handlers=handlers)


# -- telling again


async def tell_affiliations() -> int:
    """Have intake tell where every employer on record belongs; gives how many those are. Raises Refusal."""
    async with opened_service("intake") as intake:
        policy = intake.packs.on(local_date(datetime.now(UTC))).identity
        after, told = "", 0
        while True:
            async with intake.database.transaction() as tx:
                codes = await employers.tell_next(tx, policy, after)
            if not codes:
                return told
            after, told = codes[-1], told + len(codes)


# -- how it is


async def status_of_home() -> tuple[list[str], bool]:
    """What runs on HUANQUAN_HOME, line by line, and whether all of it is ready. Raises Refusal."""
    if deployed_settings():
        raise Refusal("the environment names the databases of a deployment: ask each service at /<service>/readyz")
    local = started_home()
    addresses, kafka = local.announced()
    form = "five services in one process" if addresses.together else f"five processes, Kafka at {kafka}"
    lines = [f"home: {local.home}", f"form: {form}"]
    if not local.is_held():
        return [*lines, "stopped; `huanquan up` starts it"], False
    async with httpx.AsyncClient(timeout=5) as client:
        states = [await _state(client, f"{addresses.of(service)}/{service}/readyz") for service in SERVICES]
    lines += [
        f"{name}: {state}, {addresses.of(name)}/{name}/docs" for name, state in zip(SERVICES, states, strict=True)
    ]
    return lines, set(states) == {"ready"}


async def _state(client: httpx.AsyncClient, address: str) -> str:
    try:
        answer = await client.get(address)
    except httpx.TransportError:
        return "does not answer"
    if answer.is_success:
        return "ready"
    with suppress(ValueError):
        return f"not ready: {answer.json().get('detail')}"
    return f"not ready: HTTP {answer.status_code}"


def remove_home(home: Path) -> None:
    """Stop what runs on a home folder (the process that holds it, the engine, the brokers), and remove what it holds
    of ours; what somebody else put there stays. Raises Refusal where it is not a home, or does not stop."""
    local = Local(home)
    if not local.home.exists():
        return
    local.check_removable()
    local.stop_holder()
    local.postgres.stop()
    wipe_brokers(local)
    local.remove()
