"""The outbox: an event is a row beside the state change that it tells of, and the relay carries it to the bus.

Lock the row that stands for the event's key before the first `emit`: only then do outbox ids follow commits for one
key. The relay publishes what is unpublished in order of id; it never reads `id > last_seen`, for a row whose
transaction commits late would be skipped for good.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from time import monotonic

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Bus, Message
from libs.common.db import EMITTED, Database, passing
from libs.common.events import Event
from libs.common.settings import DEVELOPMENT_URL
from libs.common.tasks import Pulse, being_stopped, set_within
from libs.common.telemetry import child_of, current_traceparent
from libs.common.tracing import handled_as
from libs.common.watch import Watch

log = structlog.get_logger()

BATCH = 500
IDLE_SECONDS = 0.25  # how long the leader sleeps where another process wrote the row; its own process wakes it at once
RETRY_SECONDS = (0.1, 0.5, 2.0)

# The traceparent of the event being handled, by key: a batch holds many traces, and each goes on in what it causes.
_CAUSES: ContextVar[Mapping[str, str]] = ContextVar("causes", default={})  # noqa: B039 - never mutated, only replaced

_INSERT = text("""
    INSERT INTO outbox (event_id, topic, key, headers, value)
    SELECT id, topic, key, headers::jsonb, value
      FROM unnest(CAST(:ids AS uuid[]), CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:headers AS text[]),
                  CAST(:bodies AS bytea[])) WITH ORDINALITY AS r (id, topic, key, headers, value, n)
     ORDER BY n
""")
_UNPUBLISHED = text("""
    SELECT id, topic, key, headers, value FROM outbox WHERE published_at IS NULL ORDER BY id LIMIT :limit
""")
_PUBLISHED = text("UPDATE outbox SET published_at = clock_timestamp() WHERE id = ANY(CAST(:ids AS bigint[]))")


async def emit(tx: AsyncConnection, *events: Event) -> None:
    """Write events to the outbox of this transaction, in order, in one statement. They leave only if it commits."""
    if not events:
        return
    tx.info[EMITTED] = True
    await tx.execute(
        _INSERT,
        {
            "ids": [event.id for event in events],
            "topics": [event.topic for event in events],
            "keys": [event.key for event in events],
            "headers": [json.dumps(headers_of(event), separators=(",", ":")) for event in events],
            "bodies": [event.model_dump_json().encode() for event in events],
        },
    )


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
    return {
        "ce_specversion": "1.0",
        "ce_id": str(event.id),
        "ce_source": f"/huanquan/{event.topic}",
        "ce_type": type(event).__name__,
        "ce_subject": event.subject,
        "ce_time": event.time.isoformat().replace("+00:00", "Z"),
        "ce_dataschema": f"/events/{type(event).__name__}.json",
        "ce_traceparent": _CAUSES.get().get(event.key) or current_traceparent() or child_of(None),
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
        self._woken = asyncio.Event()
        database.on_emitted(self._woken.set)

    async def run(self) -> None:
        """Publish until cancelled. A bus or a database that is away is waited for; nothing is lost or skipped."""
        failures = 0
        self.pulse.begin()
        while not being_stopped():
            try:
                moved = await self.publish_batch()
                failures = 0
                self.pulse.beat()
            except Exception as error:
                if not passing(error):
                    raise
                await log.awarning("relay waits", error=type(error).__name__, failures=failures)
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            if moved < BATCH:
                await self._sleep()

    async def _sleep(self) -> None:
        await set_within(self._woken, IDLE_SECONDS)
        self._woken.clear()

    async def publish_batch(self, limit: int = BATCH) -> int:
        """Publish the oldest unpublished rows, then mark them; returns how many. A crash in between publishes them
        again under the same event ids, which the inbox of each reader knows."""
        began = monotonic()
        async with self._database.engine.connect() as connection:
            rows = (await connection.execute(_UNPUBLISHED, {"limit": limit})).all()
        if not rows:
            return 0
        await self._bus.publish([Message(row.topic, row.key, self._absolute(row.headers), row.value) for row in rows])
        async with self._database.transaction() as tx:
            await tx.execute(_PUBLISHED, {"ids": [row.id for row in rows]})
        self._watch.published(rows, began)
        return len(rows)

    def _absolute(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, "ce_dataschema": self._schemas + headers["ce_dataschema"]}
