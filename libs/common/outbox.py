"""The outbox: an event is a row beside the state change that it tells of, and the relay carries it to the bus.

Lock the row that stands for the event's key before the first `emit`: only then do outbox ids follow commits for one
key. The relay publishes what is unpublished in order of id; it never reads `id > last_seen`, for a row whose
transaction commits late would be skipped for good. What is unpublished stands in a table of its own, a number a row:
to mark an event is to take its number away, and the event itself is written once (docs/decisions/0019).
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from time import monotonic
from typing import Any
from uuid import UUID

import structlog
from asyncpg import Record
from pydantic_core import to_json
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Bus, Message, Shared
from libs.common.db import EMITTED, Database, columns, passing
from libs.common.events import Event
from libs.common.settings import DEVELOPMENT_URL
from libs.common.tasks import Pulse, being_stopped, ended, set_within
from libs.common.telemetry import child_of, current_traceparent
from libs.common.tracing import handled_as
from libs.common.watch import Watch

log = structlog.get_logger()

BATCH = 500
READING = 4 * BATCH  # events read at once: each reading passes over what was marked since the table was last vacuumed
IDLE_SECONDS = 0.25  # how long the leader sleeps where another process wrote the row; its own process wakes it at once
RETRY_SECONDS = (0.1, 0.5, 2.0)

# The traceparent of the event being handled, by key: a batch holds many traces, and each goes on in what it causes.
_CAUSES: ContextVar[Mapping[str, str]] = ContextVar("causes", default={})  # noqa: B039 - never mutated, only replaced

_ONE = """
    INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value)
    SELECT :id, :topic, :key, :type, :time, :traceparent, :value {where} RETURNING id
"""
_MANY = """
    INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value)
    SELECT id, topic, key, type, time, traceparent, value
      FROM unnest(CAST(:ids AS uuid[]), CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:types AS text[]),
                  CAST(:times AS text[]), CAST(:traceparents AS text[]), CAST(:values AS bytea[]))
           WITH ORDINALITY AS r (id, topic, key, type, time, traceparent, value, n)
      {where}
     ORDER BY n RETURNING id
"""
WAITING = "INSERT INTO unpublished (id) SELECT id FROM told"
"""What stands beside the statement of `appended`, whose part is named `told`."""

TOLD = """
    CAST(o.id AS text), textsend(CAST(o.event_id AS text)), o.topic, o.key, o.type, textsend(o.time),
    textsend(o.traceparent), o.value
"""
"""What `messages_of` takes of an event, as columns of `outbox AS o`: the server makes the bytes in less time than the
driver takes for what they are made of. `textsend` is what it sends a text by, here UTF-8 (half the time of
`convert_to`)."""

# Ids as one text: of an array the driver looks at each element through two abstract classes, which takes longer than
# all else that it does for a batch.
_UNPUBLISHED = f"""
    SELECT {TOLD}
      FROM outbox AS o
     WHERE o.id = ANY(ARRAY(  -- two thirds of the time of a join
           SELECT id FROM unpublished
            -- a subquery, for an array is searched from its beginning for each row
            WHERE id NOT IN (SELECT unnest(CAST(string_to_array($1, ',') AS bigint[])))
            ORDER BY id LIMIT $2))
     ORDER BY o.id
"""  # noqa: S608 - columns of our own
# Not waited for at the disk: a mark that a crash forgets is an event that is published again, as after any crash.
_PUBLISHED = """
    DELETE FROM unpublished USING set_config('synchronous_commit', 'off', true)
     WHERE id = ANY(CAST(string_to_array($1, ',') AS bigint[]))
"""


Told = Iterable[Any]
"""Number in the outbox, identity, topic, key, type, UTC instant (RFC 3339), `traceparent` and value of an event: str,
bytes, str, str, str and three bytes, which are as on the wire; a row of TOLD is one."""

_PARAMETERS = ("id", "topic", "key", "type", "time", "traceparent", "value")


async def emit(tx: AsyncConnection, *events: Event) -> None:
    """Write events to the outbox of this transaction, in order, in one statement. They leave only if it commits."""
    if not events:
        return
    tx.info[EMITTED] = True
    statement, parameters = appended(events)
    await tx.execute(_emitting(statement), parameters)


def appended(events: Sequence[Event], *, behind: str = "") -> tuple[TextClause, dict[str, Any]]:
    """The statement that appends events (one at least), and its parameters; WAITING belongs to it. `behind` names a
    part of the same statement that is written first; where that gave no row, nothing is appended."""
    if len(events) == 1:  # most requests tell of one thing: without the arrays it is two thirds of the time
        return _insert(_ONE, behind), dict(zip(_PARAMETERS, _row(events[0]), strict=True))
    return _insert(_MANY, behind), columns([f"{name}s" for name in _PARAMETERS], [_row(event) for event in events])


@lru_cache
def _insert(sql: str, behind: str) -> TextClause:
    where = f"WHERE EXISTS (SELECT FROM {behind})" if behind else ""
    return text(sql.format(where=where))


@lru_cache
def _emitting(statement: TextClause) -> TextClause:
    return text(f"WITH told AS ({statement.text}) {WAITING}")


def _row(event: Event) -> tuple[UUID, str, str, str, str, str, bytes]:
    key, (event_id, time, _) = event.key, event.stamp
    trace = _CAUSES.get().get(key) or current_traceparent() or child_of(None)
    told = str(to_json(time), "ascii")[1:-1]  # in half the time of `isoformat`
    return event_id, event.topic, key, type(event).__name__, told, trace, event.model_dump_json().encode()


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


def message(event: Event) -> Message:
    """What the relay of a deployment that serves its schemas nowhere would send."""
    event_id, topic, key, kind, time, traceparent, value = _row(event)
    told = ("", str(event_id).encode(), topic, key, kind, time.encode(), traceparent.encode(), value)
    return messages_of([told])[0]


def messages_of(events: Iterable[Told], *, schemas: str = "") -> list[Message]:
    """CloudEvents 1.0 in Kafka's binary mode: the attributes as `ce_` headers, the data as the value. Made when an
    event leaves: where a deployment serves its schemas (`schemas`) is not known to the transaction that emits."""
    messages = []
    for _, event_id, topic, key, kind, time, traceparent, value in events:
        own = (
            ("ce_id", event_id),
            ("ce_subject", key.encode()),
            ("ce_time", time),
            ("ce_traceparent", traceparent),
        )
        messages.append(Message(topic, key, own, value, _shared(topic, kind, schemas)))
    return messages


@lru_cache
def _shared(topic: str, kind: str, schemas: str) -> Shared:
    headers = {
        "ce_specversion": "1.0",
        "ce_source": f"/huanquan/{topic}",
        "ce_type": kind,
        "ce_dataschema": f"{schemas}/events/{kind}.json",
        "content-type": "application/json",
    }
    return to_json(headers).decode()


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

        While one batch is on its way to the bus, the one before is marked, and the one behind is read and made ready as
        far as the bus can (docs/benchmarks-tuning.md). Each leaves only when the one before has been confirmed.
        """
        total = 0
        while found := await self._unpublished():
            total += await self._flow(found)
        return total

    async def _flow(self, found: Sequence[Record]) -> int:
        """Publish and mark what was read and what is behind it; returns how many."""
        total, ids, sending, reading = 0, "", asyncio.create_task(_nothing()), None
        try:
            while found:
                batch, found = found[:BATCH], found[BATCH:]
                before, ids = ids, _listed(batch)
                messages = messages_of(batch, schemas=self._schemas)
                earlier, sending = sending, asyncio.create_task(self._send(messages, after=sending))
                await earlier
                # This batch leaves now. While the database is busy for us the loop is free for it: what is made ready
                # sooner would hold it up, and the bus have nothing.
                reading = reading or asyncio.create_task(self._unpublished(before, ids, _listed(found)))
                await self._mark(before)
                if not found:
                    found, reading = await reading, None
                total += len(batch)
            await sending
            await self._mark(ids)
            return total
        finally:
            await ended(task for task in (sending, reading) if task)

    async def _send(self, messages: Sequence[Message], *, after: asyncio.Task[None]) -> None:
        began = monotonic()
        await self._bus.publish(messages, after=after)
        self._watch.published(messages, max(began, self._confirmed))
        self._confirmed = monotonic()
        self.pulse.beat()

    async def _unpublished(self, *under_way: str) -> Sequence[Record]:
        """What is to be published next, without the batches that are under way, each as `_listed` names it."""
        async with self._database.statements() as tx:
            return await tx.rows(_UNPUBLISHED, (",".join(filter(None, under_way)), READING))

    async def _mark(self, confirmed: str) -> None:
        if confirmed:
            async with self._database.statements() as tx:
                await tx.rows(_PUBLISHED, (confirmed,))


def _listed(batch: Sequence[Record]) -> str:
    return ",".join([row[0] for row in batch])


async def _nothing() -> None:
    """What is under way before anything is."""
