"""Due work: what must happen at a moment is a row written in the transaction that creates the obligation.

The relay's leader also runs the ticker. Rows are taken in batches and handled like events: one transaction a batch,
halving finds the one that is refused, and that one is parked under the topic `due:<kind>` where an operator sees it.
What rests on something that has not come to this process (`Awaited`) is parked there too, as waiting for it, while all
other work goes on; it is tried again when that comes, and every minute, for another process may lead by then.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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
RELEASE = "parked.release"  # the kind of due work that tries a waiting key again
LONGEST_WAIT = timedelta(seconds=60)
_SINCE = "waiting_since"  # in the payload of work that waited: when it was parked first

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
    INSERT INTO parked (topic, partition, "offset", key, record_key, headers, value, reason, parked_at)
    SELECT topic, -1, 0, key, key, '{}', value, reason, coalesce(since, clock_timestamp())
      FROM unnest(CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:bodies AS bytea[]), CAST(:reasons AS text[]),
                  CAST(:sinces AS timestamptz[])) AS r (topic, key, value, reason, since)
""")
_PARK_KEYS = text("""
    INSERT INTO parked_key (topic, key, waiting_for, parked_at)
    SELECT topic, key, waiting_for, coalesce(since, clock_timestamp())
      FROM unnest(CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:waits AS text[]),
                  CAST(:sinces AS timestamptz[])) AS r (topic, key, waiting_for, since)
    ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class Due:
    """One piece of due work: (`kind`, `key`) is its identity, `at` the UTC instant from which it may run; `since`: the
    instant (ISO 8601) at which work that waited for its cause, and is tried again, was first set aside."""

    kind: str
    key: str
    at: datetime
    payload: Mapping[str, Any] = field(default_factory=dict)
    since: str | None = None

    @classmethod
    def stored(cls, row: Any) -> "Due":
        """From its row."""
        payload = dict(row.payload)
        since = payload.pop(_SINCE, None)
        return cls(row.kind, row.key, row.at, payload, since)

    @property
    def body(self) -> str:
        """What stands in its row beside the rest, as JSON."""
        return json.dumps({**self.payload, _SINCE: self.since} if self.since else dict(self.payload))


class Awaited(OSError):
    """Something has not come to this process: an error of the moment. Due work waits for `cause` (as `inbox.cause`
    makes it); `keys` are those of the work that does, where the handler knows: else halving finds them."""

    def __init__(self, message: str, cause: str, keys: Collection[str] = ()) -> None:
        super().__init__(message)
        self.cause = cause
        self.keys = frozenset(keys)


@dataclass(frozen=True, slots=True)
class _Aside:
    """Work to be parked: refused, or waiting for a cause."""

    due: Due
    reason: str
    waiting_for: str | None = None


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
            "payloads": [due.body for due in latest],
        },
    )


async def retry(tx: AsyncConnection, keys: Sequence[tuple[str, str]], after: timedelta) -> None:
    """Have parked keys (topic, key) tried again."""
    at = datetime.now(UTC) + after
    await schedule(tx, [Due(RELEASE, f"{topic} {key}", at, {"topic": topic, "key": key}) for topic, key in keys])


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
            # What puts due work back comes first: no due row is waited for behind the locks of a handler.
            dues = sorted((Due.stored(row) for row in rows), key=lambda due: (due.kind != RELEASE, due.kind, due.at))
            aside: list[_Aside] = []
            for kind, group in groupby(dues, key=lambda due: due.kind):
                await self._attempt(tx, kind, list(group), aside)
            await self._park(tx, aside)
        if rows:
            self._watch.worked(len(rows), began)
        return len(rows)

    async def _attempt(self, tx: AsyncConnection, kind: str, dues: Sequence[Due], aside: list[_Aside]) -> None:
        if not dues:
            return
        handler = self._handlers.get(kind)
        if handler is None:
            aside.extend(_Aside(due, f"no handler for due work of kind {kind}") for due in dues)
            return
        try:
            async with savepoint(tx):
                await handler(tx, dues)
        except Awaited as awaited:
            held = {due.key for due in dues if due.key in awaited.keys or len(dues) == 1}
            if not held:
                await self._halve(tx, kind, dues, aside)
                return
            await log.awarning("due work waits", kind=kind, n=len(held), waiting_for=awaited.cause)
            aside.extend(_Aside(due, "came before its cause", awaited.cause) for due in dues if due.key in held)
            await self._attempt(tx, kind, [due for due in dues if due.key not in held], aside)
        except Exception as error:
            if passing(error):
                raise
            if len(dues) > 1:
                await self._halve(tx, kind, dues, aside)
                return
            await log.aerror("due work parked", kind=kind, key=dues[0].key, error=repr(error))
            aside.append(_Aside(dues[0], repr(error)))

    async def _halve(self, tx: AsyncConnection, kind: str, dues: Sequence[Due], aside: list[_Aside]) -> None:
        half = len(dues) // 2
        await self._attempt(tx, kind, dues[:half], aside)
        await self._attempt(tx, kind, dues[half:], aside)

    async def _park(self, tx: AsyncConnection, aside: Sequence[_Aside]) -> None:
        if not aside:
            return
        place = {
            "topics": [PARKED_PREFIX + each.due.kind for each in aside],
            "keys": [each.due.key for each in aside],
            "sinces": [
                datetime.fromisoformat(each.due.since) if each.due.since and each.waiting_for else None
                for each in aside
            ],
        }
        await tx.execute(_PARK_KEYS, {**place, "waits": [each.waiting_for for each in aside]})
        bodies = [json.dumps(dict(each.due.payload)).encode() for each in aside]
        await tx.execute(_PARK, {**place, "bodies": bodies, "reasons": [each.reason for each in aside]})
        waiting = [(PARKED_PREFIX + each.due.kind, each.due.key) for each in aside if each.waiting_for]
        await retry(tx, waiting, LONGEST_WAIT)
