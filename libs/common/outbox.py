"""The outbox: an event is a row beside the state change that it tells of, and the relay carries it to the bus.

Lock the row that stands for the event's key before the first `emit`: only then do outbox ids follow commits for one
key. The relay publishes what is unpublished in order of id; it never reads `id > last_seen`, for a row whose
transaction commits late would be skipped for good.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from time import monotonic
from typing import Any
from uuid import UUID

import structlog
from asyncpg import Record
from pydantic_core import from_json, to_json
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Bus, Message
from libs.common.db import EMITTED, Database, columns, passing
from libs.common.events import Event
from libs.common.settings import DEVELOPMENT_URL
from libs.common.tasks import Pulse, being_stopped, ended, set_within
from libs.common.telemetry import child_of, current_traceparent
from libs.common.tracing import handled_as
from libs.common.watch import Watch

log = structlog.get_logger()

BATCH = 500
IDLE_SECONDS = 0.25  # how long the leader sleeps where another process wrote the row; its own process wakes it at once
RETRY_SECONDS = (0.1, 0.5, 2.0)

# The traceparent of the event being handled, by key: a batch holds many traces, and each goes on in what it causes.
_CAUSES: ContextVar[Mapping[str, str]] = ContextVar("causes", default={})  # noqa: B039 - never mutated, only replaced

_ONE = """
    INSERT INTO outbox (event_id, topic, key, headers, value)
    SELECT :id, :topic, :key, CAST(CAST(:headers AS text) AS jsonb), :body {where}
"""
_MANY = """
    INSERT INTO outbox (event_id, topic, key, headers, value)
    SELECT id, topic, key, headers::jsonb, value
      FROM unnest(CAST(:ids AS uuid[]), CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:headers AS text[]),
                  CAST(:bodies AS bytea[])) WITH ORDINALITY AS r (id, topic, key, headers, value, n)
      {where}
     ORDER BY n
"""
# Ids as one text: of an array the driver looks at each element through two abstract classes, which takes longer than
# all else that it does for a batch.
_UNPUBLISHED = """
    SELECT id, topic, key, headers, value FROM outbox
     WHERE published_at IS NULL
       -- a subquery, for an array is searched from its beginning for each row
       AND id NOT IN (SELECT unnest(CAST(string_to_array($1, ',') AS bigint[]))) ORDER BY id LIMIT $2
"""
_PUBLISHED = """
    UPDATE outbox SET published_at = clock_timestamp() WHERE id = ANY(CAST(string_to_array($1, ',') AS bigint[]))
"""


async def emit(tx: AsyncConnection, *events: Event) -> None:
    """Write events to the outbox of this transaction, in order, in one statement. They leave only if it commits."""
    if not events:
        return
    tx.info[EMITTED] = True
    await tx.execute(*appended(events))


def appended(events: Sequence[Event], *, behind: str = "") -> tuple[TextClause, dict[str, Any]]:
    """The statement that appends events (one at least), and its parameters. `behind` names a part of the same
    statement that is written first; where that gave no row, nothing is appended."""
    if len(events) == 1:  # most requests tell of one thing: without the arrays it is two thirds of the time
        event_id, topic, key, headers, body = _row(events[0])
        return _insert(_ONE, behind), {"id": event_id, "topic": topic, "key": key, "headers": headers, "body": body}
    rows = [_row(event) for event in events]
    return _insert(_MANY, behind), columns(("ids", "topics", "keys", "headers", "bodies"), rows)


@lru_cache
def _insert(sql: str, behind: str) -> TextClause:
    where = f"WHERE EXISTS (SELECT FROM {behind})" if behind else ""
    return text(sql.format(where=where))


def _row(event: Event) -> tuple[UUID, str, str, str, bytes]:
    key = event.key
    return event.stamp.id, event.topic, key, to_json(_headers(event, key)).decode(), event.model_dump_json().encode()


def caused_by(events: Sequence[Event]) -> AbstractContextManager[None]:
    """While this lasts, what is emitted under a key of these events continues that event's trace."""
    traces = {event.key: handled_as(str(event.id), event.trace) for event in events}
    return continuing({key: trace for key, trace in traces.items() if trace})


@contextmanager
def continuing(traces: Mapping[str, str]) -> Iterator[None]:
    """While this lasts, what is emitted under one of these keys continues that trace (a `traceparent`)."""
    token = _CAUSES.set(traces)
    try:
        yield
    finally:
        _CAUSES.reset(token)


def headers_of(event: Event) -> dict[str, str]:
    """CloudEvents 1.0 in Kafka's binary mode: the attributes as `ce_` headers, the data as the value. The relay makes
    `ce_dataschema` absolute: where a deployment is reached is not known to the transaction that emits."""
    headers: dict[str, str] = from_json(to_json(_headers(event, event.key)))
    return headers


def _headers(event: Event, key: str) -> dict[str, object]:
    """The headers, some of them not yet as JSON has them: pydantic writes identity and time sooner than Python does."""
    kind, (event_id, time, _) = type(event).__name__, event.stamp
    return {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": f"/huanquan/{event.topic}",
        "ce_type": kind,
        "ce_subject": key,
        "ce_time": time,
        "ce_dataschema": f"/events/{kind}.json",
        "ce_traceparent": _CAUSES.get().get(key) or current_traceparent() or child_of(None),
        "content-type": "application/json",
    }


class Relay:
    """Carries the outbox to the bus. Run by one process of a service at a time: its leader. `schemas` is the base
    address below which this deployment serves the schemas of its events."""

    def __init__(
        self, database: Database, bus: Bus, *, schemas: str = DEVELOPMENT_URL, watch: Watch | None = None
    ) -> None:
        self._database = database
        self._bus = bus
        self._watch = watch or Watch()
        self._schemas = schemas.rstrip("/")
        self.pulse = Pulse()
        self._confirmed = 0.0  # when the bus confirmed the last batch
        self._woken = asyncio.Event()
        database.on_emitted(self._woken.set)

    async def run(self) -> None:
        """Publish until cancelled. A bus or a database that is away is waited for; nothing is lost or skipped."""
        failures = 0
        self.pulse.begin()
        while not being_stopped():
            try:
                await self.publish()
                failures = 0
                self.pulse.beat()
            except Exception as error:
                if not passing(error):
                    raise
                await log.awarning("relay waits", error=type(error).__name__, failures=failures)
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            await self._sleep()

    async def _sleep(self) -> None:
        await set_within(self._woken, IDLE_SECONDS)
        self._woken.clear()

    async def publish(self) -> int:
        """Publish what is unpublished, oldest first, and mark it; returns how many. A crash in between publishes it
        again under the same event ids, which the inbox of each reader knows.

        While one batch is on its way to the bus, the one before is marked, and those behind are read and made ready as
        far as the bus can (docs/benchmarks.md). Each leaves only when the one before has been confirmed.
        """
        total = 0
        while batch := await self._unpublished([]):
            total += await self._flow(batch)
        return total

    async def _flow(self, batch: Sequence[Record]) -> int:
        """Publish and mark this batch and those behind it; returns how many."""
        total, ids, before = 0, list[int](), list[int]()
        sending, marking, reading = asyncio.create_task(_nothing()), asyncio.create_task(_nothing()), None
        try:
            while batch:
                before, ids = ids, [row[0] for row in batch]
                messages = [self._message(*row) for row in batch]
                earlier, sending = sending, asyncio.create_task(self._send(messages, after=sending))
                await earlier
                await marking
                marking = asyncio.create_task(self._mark(before))
                # Only now: what is read sooner would be encoded before this batch has left, and the bus have nothing.
                reading = asyncio.create_task(self._unpublished([*before, *ids]))
                total += len(batch)
                batch = await reading
            await marking
            await sending
            await self._mark(ids)
            return total
        finally:
            await ended(task for task in (sending, marking, reading) if task)

    def _message(self, _: int, topic: str, key: str, headers: dict[str, str], value: bytes) -> Message:
        headers["ce_dataschema"] = self._schemas + headers["ce_dataschema"]
        return Message(topic, key, headers, value)

    async def _send(self, messages: Sequence[Message], *, after: asyncio.Task[None]) -> None:
        began = monotonic()
        await self._bus.publish(messages, after=after)
        self._watch.published(messages, max(began, self._confirmed))
        self._confirmed = monotonic()
        self.pulse.beat()

    async def _unpublished(self, under_way: Sequence[int]) -> Sequence[Record]:
        """The next batch, without what is under way."""
        async with self._database.statements() as tx:
            return await tx.rows(_UNPUBLISHED, (_listed(under_way), BATCH))

    async def _mark(self, confirmed: Sequence[int]) -> None:
        if confirmed:
            async with self._database.statements() as tx:
                await tx.rows(_PUBLISHED, (_listed(confirmed),))


def _listed(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


async def _nothing() -> None:
    """What is under way before anything is."""
