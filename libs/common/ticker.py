"""Due work: what must happen at a moment is a row written in the transaction that creates the obligation.

The relay's leader also runs the ticker. Rows are taken in batches and handled like events: one transaction a batch,
halving finds the one that is refused, and that one is parked under the topic `due:<kind>` where an operator sees it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import SCHEDULED, Database, passing, savepoint
from libs.common.tasks import Pulse, being_stopped, set_within
from libs.common.watch import Watch

log = structlog.get_logger()

BATCH = 500
IDLE_SECONDS = 1.0
RETRY_SECONDS = 1.0
PARKED_PREFIX = "due:"

_SCHEDULE = text("""
    INSERT INTO due (kind, key, at, payload)
    SELECT kind, key, at, payload::jsonb
      FROM unnest(CAST(:kinds AS text[]), CAST(:keys AS text[]), CAST(:ats AS timestamptz[]), CAST(:payloads AS text[]))
           AS r (kind, key, at, payload)
    ON CONFLICT (kind, key) DO UPDATE SET at = excluded.at, payload = excluded.payload
""")
_CANCEL = text("DELETE FROM due WHERE kind = :kind AND key = ANY(CAST(:keys AS text[]))")
_TAKE = text("""
    DELETE FROM due WHERE (kind, key) IN (
        SELECT kind, key FROM due WHERE at <= :now ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING kind, key, at, payload
""")
_PARK = text("""
    INSERT INTO parked (topic, partition, "offset", key, record_key, headers, value, reason)
    SELECT topic, -1, 0, key, key, '{}', value, reason
      FROM unnest(CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:bodies AS bytea[]), CAST(:reasons AS text[]))
           AS r (topic, key, value, reason)
""")
_PARK_KEYS = text("""
    INSERT INTO parked_key (topic, key)
    SELECT topic, key FROM unnest(CAST(:topics AS text[]), CAST(:keys AS text[])) AS r (topic, key)
    ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class Due:
    """One piece of due work: (`kind`, `key`) is its identity, `at` the UTC instant from which it may run."""

    kind: str
    key: str
    at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)


DueHandler = Callable[[AsyncConnection, Sequence[Due]], Awaitable[None]]


async def schedule(tx: AsyncConnection, dues: Sequence[Due]) -> None:
    """Write due work, or move work of the same kind and key to another moment, in one statement."""
    if not dues:
        return
    if min(due.at for due in dues) <= datetime.now(UTC) + timedelta(seconds=IDLE_SECONDS):
        tx.info[SCHEDULED] = True  # what comes later is found when the ticker next looks
    # In order: two transactions that move the same rows must not wait for each other.
    latest = [due for _, due in sorted({(due.kind, due.key): due for due in dues}.items(), key=lambda item: item[0])]
    await tx.execute(
        _SCHEDULE,
        {
            "kinds": [due.kind for due in latest],
            "keys": [due.key for due in latest],
            "ats": [due.at for due in latest],
            "payloads": [json.dumps(dict(due.payload)) for due in latest],
        },
    )


async def cancel(tx: AsyncConnection, kind: str, keys: Sequence[str]) -> None:
    """Take due work back; what is not there is no error."""
    await tx.execute(_CANCEL, {"kind": kind, "keys": list(keys)})


class Ticker:
    """Runs due work. `handlers` maps each kind to its handler; a kind without one is parked, never dropped."""

    def __init__(self, database: Database, handlers: Mapping[str, DueHandler], *, watch: Watch | None = None) -> None:
        self._database = database
        self._watch = watch or Watch()
        self._handlers = handlers
        self.pulse = Pulse()
        self.paused = False
        self._woken = asyncio.Event()
        database.on_scheduled(self._woken.set)

    async def run(self) -> None:
        """Run due work until cancelled; while `paused`, leave it for later."""
        self.pulse.begin()
        while not being_stopped():
            try:
                taken = 0 if self.paused else await self.tick(datetime.now(UTC))
            except Exception as error:
                if not passing(error):
                    raise
                await log.awarning("ticker waits", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.pulse.beat()
            if taken < BATCH:
                await self._sleep()

    async def _sleep(self) -> None:
        self._woken.clear()
        await set_within(self._woken, IDLE_SECONDS)

    async def tick(self, now: datetime) -> int:
        """Run what is due at `now` (UTC instant), at most one batch; returns how many rows were taken."""
        began = monotonic()
        async with self._database.transaction() as tx:
            rows = (await tx.execute(_TAKE, {"now": now, "limit": BATCH})).all()
            dues = sorted((Due(r.kind, r.key, r.at, r.payload) for r in rows), key=lambda due: (due.kind, due.at))
            refused: list[tuple[Due, str]] = []
            for kind, group in groupby(dues, key=lambda due: due.kind):
                await self._attempt(tx, kind, list(group), refused)
            await self._park(tx, refused)
        if rows:
            self._watch.worked(len(rows), began)
        return len(rows)

    async def _attempt(
        self, tx: AsyncConnection, kind: str, dues: Sequence[Due], refused: list[tuple[Due, str]]
    ) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            refused.extend((due, f"no handler for due work of kind {kind}") for due in dues)
            return
        try:
            async with savepoint(tx):
                await handler(tx, dues)
        except Exception as error:
            if passing(error):
                raise
            if len(dues) == 1:
                await log.aerror("due work parked", kind=kind, key=dues[0].key, error=repr(error))
                refused.append((dues[0], repr(error)))
                return
            half = len(dues) // 2
            await self._attempt(tx, kind, dues[:half], refused)
            await self._attempt(tx, kind, dues[half:], refused)

    async def _park(self, tx: AsyncConnection, refused: Sequence[tuple[Due, str]]) -> None:
        if not refused:
            return
        topics = [PARKED_PREFIX + due.kind for due, _ in refused]
        keys = [due.key for due, _ in refused]
        bodies = [json.dumps(dict(due.payload)).encode() for due, _ in refused]
        await tx.execute(_PARK_KEYS, {"topics": topics, "keys": keys})
        reasons = [reason for _, reason in refused]
        await tx.execute(_PARK, {"topics": topics, "keys": keys, "bodies": bodies, "reasons": reasons})
