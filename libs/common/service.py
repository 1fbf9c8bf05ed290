"""A running service: its database, its handlers, and the three tasks beside its HTTP edge: relay, ticker, consumer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage
from typing import Any
from zlib import crc32

import asyncpg
import structlog
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import Bus
from libs.common.consumer import BATCHES_AT_ONCE, Consumer
from libs.common.db import Database, passing
from libs.common.events import Event
from libs.common.inbox import EventHandler, Inbox
from libs.common.measures import MESSAGING, Batches, Gauges, Live, Measure, Rows
from libs.common.outbox import Relay
from libs.common.packs import Packs
from libs.common.settings import Settings
from libs.common.tasks import Pulse, being_stopped, ended
from libs.common.ticker import RELEASE, DueHandler, Ticker
from libs.common.watch import Watch

log = structlog.get_logger()

LEADER_LOCK = crc32(b"huanquan leader")
LEADER_NAME = "huanquan leader "  # and the instance: how PostgreSQL names the session of whoever leads
EDGE_LOCK = crc32(b"huanquan edge")  # held by whoever wants the edges closed: `deploy/drain.py`
ELECTION_SECONDS = 1.0
LEADER_SILENT_MS = 8_000
SESSION_SECONDS = 5.0
REACHABLE_SECONDS = 5.0
STOP_SECONDS = 5.0
RESTART_SECONDS = 1.0
_OFFSETS = text("SELECT topic, partition, next FROM consumer_offset")

_EDGE_IS_OPEN = """
    SELECT CASE WHEN pg_try_advisory_lock_shared($1) THEN pg_advisory_unlock_shared($1) ELSE false END
"""


@dataclass(kw_only=True)
class Service:
    """One of the five. Made in its `app.py`; `running` is entered by whoever hosts it. `topics` are what it hears."""

    name: str
    settings: Settings
    database: Database
    bus: Bus
    inbox: Inbox
    topics: tuple[str, ...]
    due: Mapping[str, DueHandler] = field(default_factory=dict)
    app: FastAPI
    packs: Packs
    measures: Sequence[Measure] = ()  # gauges of its own, beside those of messaging
    projection: tuple[Sequence[str], Mapping[type[Event], EventHandler]] | None = (
        None  # tables and handlers of a rebuild
    )
    batches_at_once: int = BATCHES_AT_ONCE
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # the host stops: what waits for news answers now

    leads: bool = field(default=False, init=False)  # this process holds the leader's lock, as far as it knows

    def __post_init__(self) -> None:
        self.app.state.service = self
        due = {**self.due, RELEASE: self.inbox.on_release_due}
        watch = Watch(Batches(self.name, self.app.state.metrics), self.app.state.tracing)
        self.relay = Relay(self.database, self.bus, schemas=self.settings.schemas_url, watch=watch)
        self.ticker = Ticker(self.database, due, watch=watch)
        self.leading = Pulse()
        self.consumer = Consumer(
            self.database,
            self.bus,
            self.inbox,
            group=self.name,
            topics=self.topics,
            instance=self.settings.instance,
            watch=watch,
            at_once=self.batches_at_once,
        )
        self.gauges = Gauges(
            self.name, self.database, [*MESSAGING, *self.measures, self._unread_measure()], self._live()
        )
        self.app.state.metrics.register(self.gauges)
        self.app.state.gauges = self.gauges

    def _live(self) -> Sequence[Live]:
        jobs = {"leader": self.leading, "relay": self.relay.pulse, "ticker": self.ticker.pulse}
        pool = self.database.pool
        return (
            Live("leader", "1 where this process relays and ticks", "", lambda: {"": self.leads}),
            Live("pool_size", "Connections that the pool may hold", "", lambda: {"": pool.size}),
            Live("pool_in_use", "Connections of the pool in use", "", lambda: {"": pool.lent}),
            Live(
                "home_free_bytes",
                "Room left where this process writes its files",
                "",
                lambda: {"": disk_usage(self.settings.home if self.settings.home.exists() else Path.cwd()).free},
            ),
            Live("partitions", "Partitions that this process reads", "", lambda: {"": len(self.consumer.slots)}),
            Live(
                "job_silent_seconds",
                "How long a job of this process has stood still",
                "job",
                lambda: {name: pulse.age for name, pulse in jobs.items()} | {"consumer": self.consumer.silence},
            ),
        )

    def _unread_measure(self) -> Measure:
        return Measure(
            gauges={"topic_unread": "Events on the bus that the service has not read"},
            labels=("topic",),
            look=self._unread,
        )

    async def _unread(self, connection: AsyncConnection) -> Rows:
        read = {(row.topic, row.partition): row.next for row in await connection.execute(_OFFSETS)}
        unread = dict.fromkeys(self.topics, 0)
        for slot, (start, end) in (await self.bus.ends(self.topics)).items():
            unread[slot.topic] += max(0, end - max(start, read.get((slot.topic, slot.partition), 0)))
        return [{"topic": topic, "topic_unread": n} for topic, n in unread.items()]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Packs are loaded, then relay, ticker and consumer run while this lasts. Raises PackRefused, PackChanged."""
        await self.packs.load()
        await self.bus.start()
        self.leading.begin()
        tasks = [
            asyncio.create_task(_kept_alive(self._lead), name=f"{self.name} leader"),
            asyncio.create_task(_kept_alive(self.consumer.run), name=f"{self.name} consumer"),
            asyncio.create_task(_kept_alive(self.packs.follow), name=f"{self.name} packs"),
        ]
        try:
            yield
        finally:
            await ended(tasks)
            await self.bus.stop()
            with suppress(TimeoutError):  # a database that does not answer must not keep the process
                async with asyncio.timeout(STOP_SECONDS):
                    await self.database.close()
            await asyncio.to_thread(self.app.state.tracing.close)

    async def _lead(self) -> None:
        """Wait for the leader's lock, then relay and tick until the session that holds it is lost."""
        session = await self.database.session(command_timeout=SESSION_SECONDS)
        try:
            # A leader that is paused, or whose machine is gone, lets the lock go when its session has been silent.
            await session.execute(f"SET idle_session_timeout = {LEADER_SILENT_MS}")
            while not await session.fetchval("SELECT pg_try_advisory_lock($1)", LEADER_LOCK):
                self._stand_by()
                await self._look_at_edge(session)
                await asyncio.sleep(ELECTION_SECONDS)
            await session.execute("SELECT set_config('application_name', $1, false)", self._leader_name)
            self.leads = True
            await log.ainfo("leading", service=self.name)
            await _first_ended(self.relay.run(), self.ticker.run(), self._held(session))
        finally:
            self.leads = False
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await session.close(timeout=2)

    @property
    def _leader_name(self) -> str:
        return f"{LEADER_NAME}{self.settings.instance}"[:63]  # PostgreSQL keeps no more

    async def _held(self, session: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Raise once the session is lost, and with it the lock."""
        while True:
            await self._look_at_edge(session)
            self.leading.beat()
            await asyncio.sleep(ELECTION_SECONDS)

    async def _look_at_edge(self, session: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Close or open this process to whatever would change something, as the database's edge lock says."""
        closed = not await session.fetchval(_EDGE_IS_OPEN, EDGE_LOCK)
        self.app.state.closed = self.ticker.paused = closed

    def _stand_by(self) -> None:
        self.leading.beat()
        self.relay.pulse.stop()  # another process relays and ticks
        self.ticker.pulse.stop()

    async def not_ready(self) -> list[str]:
        """What keeps this service from working, by name; empty when it is ready.

        `database` and `bus`: no answer within seconds. `leader`: neither leads nor stands by. `relay`, `ticker`: this
        process leads, and nothing of it succeeded for SILENT_SECONDS. `consumer`: it is not in its group, or a
        partition is silent (nothing ends) or fails again and again (an error of the moment that does not pass).
        """
        checks = {"database": self.database.reachable(), "bus": self.bus.reachable()}
        answers = await asyncio.gather(*map(_answers, checks.values()))
        away = [name for name, reachable in zip(checks, answers, strict=True) if not reachable]
        jobs = {"leader": self.leading, "relay": self.relay.pulse, "ticker": self.ticker.pulse}
        still = [f"{name}: stands still for {pulse.age:.0f} s" for name, pulse in jobs.items() if pulse.silent]
        unread = self.consumer.standing_still()
        return [*away, *still, *([f"consumer: {unread}"] if unread else [])]


def open_bus(settings: Settings) -> Bus:
    """The bus that a deployment chose. Raises SettingsMissing where its address is not set."""
    if settings.bus == "kafka":
        return KafkaBus(settings.bus_address())
    return PostgresBus(settings.bus_address())


async def _answers(check: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(REACHABLE_SECONDS):
            return await check
    except TimeoutError:
        return False


async def _first_ended(*jobs: Any) -> None:
    """Run side by side until one ends or fails, then stop the others."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await ended(tasks)


async def _kept_alive(job: Any) -> None:
    """Run a job for ever: it is begun again when it fails, at once visible in the log."""
    while not being_stopped():
        try:
            await job()
        except (Exception, asyncio.CancelledError) as error:  # a job that ends would stop the service unseen
            if isinstance(error, asyncio.CancelledError) and being_stopped():
                raise
            level = log.awarning if passing(error) else log.aexception
            await level("job begins again", job=getattr(job, "__qualname__", str(job)), error=type(error).__name__)
        await asyncio.sleep(RESTART_SECONDS)
