"""The inbox: each event takes effect once, in batches, and what cannot be handled is parked with its key.

One transaction a batch: advance this service's own offset first (no row means that another process owns the partition
now), take the event ids that are new, handle them, park what is refused alone, commit. Errors of the moment roll the
whole batch back and it is tried again for ever; only a refusal that repeats for one event alone parks it
(DESIGN §3.4–3.5).
"""

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Record, Slot
from libs.common.db import passing, savepoint
from libs.common.events import BY_TYPE, Event
from libs.common.outbox import caused_by
from libs.common.ticker import LONGEST_WAIT, PARKED_PREFIX, Due, retry, schedule

log = structlog.get_logger()

EventHandler = Callable[[AsyncConnection, Sequence[Any]], Awaitable[None]]
RecordHandler = Callable[[AsyncConnection, Sequence[Record]], Awaitable[None]]

_RESUME = text("""
    INSERT INTO consumer_offset (topic, partition, next) VALUES (:topic, :partition, 0) ON CONFLICT DO NOTHING
""")
_NEXT = text("SELECT next FROM consumer_offset WHERE topic = :topic AND partition = :partition")
_ADVANCE = text("""
    UPDATE consumer_offset AS o SET next = r.next
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:expected AS bigint[]),
                  CAST(:nexts AS bigint[])) AS r (topic, partition, expected, next)
     WHERE o.topic = r.topic AND o.partition = r.partition AND o.next = r.expected
""")
_TAKE_NEW = """
    INSERT INTO {taken} (event_id) SELECT DISTINCT unnest(CAST(:ids AS uuid[]))
    ON CONFLICT DO NOTHING RETURNING event_id
"""
_LOCK_KEYS = text("""
    SELECT key FROM parked_key WHERE topic = :topic AND key = ANY(CAST(:keys AS text[])) ORDER BY key FOR UPDATE
""")
_PARK_KEYS = text("""
    INSERT INTO parked_key (topic, key, waiting_for)
    SELECT topic, key, waiting_for
      FROM unnest(CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:waits AS text[])) AS r (topic, key, waiting_for)
    ON CONFLICT DO NOTHING
""")
_PARK = text("""
    INSERT INTO parked (topic, partition, "offset", key, record_key, headers, value, reason)
    SELECT topic, partition, "offset", key, record_key, headers::jsonb, value, reason
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:offsets AS bigint[]),
                  CAST(:keys AS text[]), CAST(:record_keys AS text[]), CAST(:headers AS text[]),
                  CAST(:bodies AS bytea[]), CAST(:reasons AS text[]))
           WITH ORDINALITY AS r (topic, partition, "offset", key, record_key, headers, value, reason, n)
     ORDER BY n
    -- What could not be decoded when it came, and is now refused under its own key.
    ON CONFLICT (topic, partition, "offset") WHERE partition >= 0
    DO UPDATE SET key = excluded.key, reason = excluded.reason
""")
_WAITING = text("SELECT topic, key FROM parked_key WHERE waiting_for = ANY(CAST(:causes AS text[]))")
_LOCK_KEY = text(
    "SELECT attempts, waiting_for, parked_at FROM parked_key WHERE topic = :topic AND key = :key FOR UPDATE"
)
_PARKED = text("""
    SELECT id, partition, "offset", record_key, headers, value
      FROM parked WHERE topic = :topic AND key = :key ORDER BY id
""")
_SET_ASIDE_IDS = text("""
    SELECT headers ->> 'ce_id' FROM parked WHERE topic = :topic AND headers ->> 'ce_id' = ANY(CAST(:ids AS text[]))
     UNION ALL
    SELECT headers ->> 'ce_id' FROM discarded WHERE topic = :topic AND headers ->> 'ce_id' = ANY(CAST(:ids AS text[]))
""")
_DISCARD = text("""
    WITH oldest AS (
        DELETE FROM parked WHERE id = (SELECT min(id) FROM parked WHERE topic = :topic AND key = :key) RETURNING *)
    INSERT INTO discarded (id, topic, partition, "offset", key, record_key, headers, value, reason, parked_at,
                           discarded_by, because)
    SELECT id, topic, partition, "offset", key, record_key, headers, value, reason, parked_at, :by, :because
      FROM oldest
""")
_DISCARDED_KEYS = text("SELECT key FROM discarded WHERE topic = :topic AND key = ANY(CAST(:keys AS text[]))")
_UNPARK = text("DELETE FROM parked WHERE id = ANY(CAST(:ids AS bigint[]))")
_UNPARK_KEY = text("DELETE FROM parked_key WHERE topic = :topic AND key = :key")
_STILL_PARKED = text("""
    UPDATE parked_key SET attempts = attempts + 1, waiting_for = :waiting_for WHERE topic = :topic AND key = :key
""")
_REASON = text("UPDATE parked SET reason = :reason WHERE id = :id")


class Fenced(Exception):
    """Another process has advanced this partition: it is the owner now."""


class Early(Exception):
    """Raised by a handler: these events came before their cause. Maps event id to `cause(...)` of what it waits for."""

    def __init__(self, waiting: Mapping[UUID, str]) -> None:
        super().__init__(f"{len(waiting)} events came before their cause")
        self.waiting = waiting


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition, the first of them where this service goes on: at `expected`."""

    slot: Slot
    expected: int
    records: Sequence[Record]


@dataclass(slots=True)
class Outcome:
    """What became of a batch, in events."""

    handled: int = 0
    known: int = 0  # taken before: skipped
    foreign: int = 0  # of no use to this service: skipped
    parked: int = 0

    def counts(self) -> dict[str, int]:
        """The same by name, without what did not happen."""
        return {name: n for name, n in asdict(self).items() if n}

    def __iadd__(self, other: "Outcome") -> "Outcome":
        self.handled += other.handled
        self.known += other.known
        self.foreign += other.foreign
        self.parked += other.parked
        return self


@dataclass(frozen=True, slots=True)
class _Arrival:
    record: Record
    event_id: UUID
    matter: Event | Record
    handler: EventHandler
    place: int  # in what is handled together, where each key has its order

    @property
    def key(self) -> str:
        return self.record.key


@dataclass(frozen=True, slots=True)
class _Refusal:
    record: Record
    key: str
    reason: str
    waiting_for: str | None = None


class _Refusals(dict[UUID, _Refusal]):
    """The refused events of what is handled together, which no later event of their key may overtake."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, int] = {}

    def add(self, arrival: _Arrival, reason: str, waiting_for: str | None = None) -> None:
        self[arrival.event_id] = _Refusal(arrival.record, arrival.key, reason, waiting_for)
        self._first[arrival.key] = min(arrival.place, self._first.get(arrival.key, arrival.place))

    def before(self, arrival: _Arrival) -> bool:
        """Whether an earlier event of its key is among them. A later one holds up nothing."""
        return self._first.get(arrival.key, arrival.place) < arrival.place


def cause(event_type: type[Event] | str, key: str) -> str:
    """What an early event waits for: an event of this type and key, or `cause("pack", sha256)`."""
    return f"{event_type if isinstance(event_type, str) else event_type.__name__}:{key}"


class Inbox:
    """A service's handlers behind the once-only door: one handler an event type, or `every` for all records.

    `taken` is the table that knows the ids taken before.
    """

    def __init__(
        self,
        handlers: Mapping[type[Event], EventHandler] | None = None,
        *,
        every: RecordHandler | None = None,
        taken: str = "inbox",
    ) -> None:
        self._handlers = dict(handlers or {})
        self._every = every
        self._take_ids = text(_TAKE_NEW.format(taken=taken))

    def hears(self, record: Record) -> bool:
        """Whether a handler here is for records of this type."""
        return self._every is not None or BY_TYPE.get(record.headers.get("ce_type", "")) in self._handlers

    async def position(self, tx: AsyncConnection, slot: Slot) -> int:
        """Where this service goes on in a partition; 0 at its first time."""
        where = {"topic": slot.topic, "partition": slot.partition}
        await tx.execute(_RESUME, where)
        return int((await tx.execute(_NEXT, where)).scalar_one())

    async def take(self, tx: AsyncConnection, slot: Slot, expected: int, records: Sequence[Record]) -> Outcome:
        """Advance past `records` and handle them. Raises Fenced, before any work, if `expected` is not where we are."""
        return await self.take_together(tx, [Batch(slot, expected, records)])

    async def take_together(self, tx: AsyncConnection, batches: Sequence[Batch]) -> Outcome:
        """The same for several partitions of one topic. Raises Fenced, before any work, if we are elsewhere in one."""
        await self._advance(tx, [(batch.slot, batch.expected, batch.records[-1].offset + 1) for batch in batches])
        return await self.apply(tx, [record for batch in batches for record in batch.records])

    async def advance(self, tx: AsyncConnection, slot: Slot, expected: int, to: int) -> None:
        """Move this service's offset of one partition. Raises Fenced."""
        await self._advance(tx, [(slot, expected, to)])

    async def _advance(self, tx: AsyncConnection, moves: Sequence[tuple[Slot, int, int]]) -> None:
        moved = await tx.execute(
            _ADVANCE,
            {
                "topics": [slot.topic for slot, _, _ in moves],
                "partitions": [slot.partition for slot, _, _ in moves],
                "expected": [expected for _, expected, _ in moves],
                "nexts": [to for _, _, to in moves],
            },
        )
        if moved.rowcount != len(moves):
            raise Fenced

    async def apply(self, tx: AsyncConnection, records: Sequence[Record]) -> Outcome:
        """Handle the records of one topic that are new; park what is refused. Raises only errors of the moment."""
        arrivals, undecodable, known = await self._decode_kept(tx, records)
        fresh = await self._take_new(tx, arrivals)
        blocked = await self._blocked_keys(tx, fresh)
        refusals = _Refusals()
        live = [arrival for arrival in fresh if arrival.key not in blocked]
        await self._handle(tx, live, refusals)
        parked = [
            refusals.get(arrival.event_id) or _Refusal(arrival.record, arrival.key, "behind a parked event of its key")
            for arrival in fresh
            if arrival.event_id in refusals or arrival.key in blocked
        ]
        await self._park(tx, [*undecodable, *parked])
        await self._wake_waiting(tx, [arrival for arrival in live if arrival.event_id not in refusals])
        return Outcome(
            handled=len(fresh) - len(parked),
            known=known + len(arrivals) - len(fresh),
            foreign=len(records) - known - len(arrivals) - len(undecodable),
            parked=len(parked) + len(undecodable),
        )

    async def again(self, tx: AsyncConnection, records: Sequence[Record]) -> Outcome:
        """Handle the records of one partition for a rebuild. What is parked now is left to its release, what was
        discarded stays out, and what is refused is left out and said so: all count as parked. Raises only errors of
        the moment."""
        arrivals, undecodable = self._decode(records)
        topic, ids = records[0].slot.topic, [str(arrival.event_id) for arrival in arrivals]
        aside = set((await tx.execute(_SET_ASIDE_IDS, {"topic": topic, "ids": ids})).scalars())
        due = [arrival for arrival in arrivals if str(arrival.event_id) not in aside]
        fresh = await self._take_new(tx, due)
        refusals = _Refusals()
        await self._handle(tx, fresh, refusals)
        for refusal in refusals.values():
            await log.aerror("rebuild leaves out an event", topic=topic, key=refusal.key, why=refusal.reason)
        return Outcome(
            handled=len(fresh) - len(refusals),
            known=len(due) - len(fresh),
            foreign=len(records) - len(arrivals) - len(undecodable),
            parked=len(arrivals) - len(due) + len(refusals) + len(undecodable),
        )

    async def skip(self, tx: AsyncConnection, slot: Slot, expected: int, to: int) -> None:
        """Go on at `to` where the log does not hold `expected`; what may be lost is parked as a gap. Raises Fenced."""
        await self.advance(tx, slot, expected, to)
        where = f"partition {slot.partition} offset {expected}"
        reason = f"the log does not hold offsets {expected} to {to - 1}: compare with the publisher's outbox"
        await self._park(tx, [_Refusal(Record(slot, expected, where, {}, b""), where, reason)])

    # -- decoding

    async def _decode_kept(
        self, tx: AsyncConnection, records: Sequence[Record]
    ) -> tuple[list[_Arrival], list[_Refusal], int]:
        """Decoded records, and refusals of those that cannot be, without (and with the number of) those discarded."""
        arrivals, undecodable = self._decode(records)
        if not undecodable:
            return arrivals, undecodable, 0
        places = {"topic": records[0].slot.topic, "keys": [refusal.key for refusal in undecodable]}
        given_up = set((await tx.execute(_DISCARDED_KEYS, places)).scalars())
        kept = [refusal for refusal in undecodable if refusal.key not in given_up]
        return arrivals, kept, len(undecodable) - len(kept)

    def _decode(self, records: Sequence[Record]) -> tuple[list[_Arrival], list[_Refusal]]:
        arrivals: list[_Arrival] = []
        undecodable: list[_Refusal] = []
        for place, record in enumerate(records):
            try:
                arrival = self._arrival(record, place)
            except (ValueError, KeyError) as error:  # ValidationError is a ValueError
                where = f"partition {record.slot.partition} offset {record.offset}"
                undecodable.append(_Refusal(record, where, f"cannot be decoded: {_why(error)}"[:2000]))
                continue
            if arrival:
                arrivals.append(arrival)
        return arrivals, undecodable

    def _arrival(self, record: Record, place: int) -> _Arrival | None:
        if self._every is not None:
            return _Arrival(record, identity_of(record), record, self._every, place)
        event_type = BY_TYPE.get(record.headers["ce_type"])
        handler = self._handlers.get(event_type) if event_type else None
        if event_type is None or handler is None:
            return None  # a fact that this service has no use for, or that a newer publisher brought in
        event = event_type.model_validate_json(record.value).stamped(
            event_id=UUID(record.headers["ce_id"]),
            time=datetime.fromisoformat(record.headers["ce_time"]),
            trace=record.headers.get("ce_traceparent"),
        )
        if event.key != record.key:
            message = f"the record's key is {record.key!r}, the event's {event.key!r}"
            raise ValueError(message)
        return _Arrival(record, event.id, event, handler, place)

    # -- handling

    async def _take_new(self, tx: AsyncConnection, arrivals: Sequence[_Arrival]) -> list[_Arrival]:
        if not arrivals:
            return []
        taken = await tx.execute(self._take_ids, {"ids": [arrival.event_id for arrival in arrivals]})
        new = set(taken.scalars())
        fresh: list[_Arrival] = []
        for arrival in arrivals:  # the same id may stand twice in one batch: the first counts
            if arrival.event_id in new:
                new.discard(arrival.event_id)
                fresh.append(arrival)
        return fresh

    async def _blocked_keys(self, tx: AsyncConnection, arrivals: Sequence[_Arrival]) -> set[str]:
        if not arrivals:
            return set()
        # Locked, so that a release under way either sees what joins its key or has already set the key free.
        keys = sorted({arrival.key for arrival in arrivals})
        return set((await tx.execute(_LOCK_KEYS, {"topic": arrivals[0].record.slot.topic, "keys": keys})).scalars())

    async def _handle(self, tx: AsyncConnection, arrivals: Sequence[_Arrival], refusals: _Refusals) -> None:
        for group in _waves(arrivals):
            await self._attempt(tx, _behind(group, refusals), refusals)

    async def _attempt(self, tx: AsyncConnection, group: Sequence[_Arrival], refusals: _Refusals) -> None:
        if not group:
            return
        try:
            async with savepoint(tx):
                with caused_by([arrival.matter for arrival in group if isinstance(arrival.matter, Event)]):
                    await group[0].handler(tx, [arrival.matter for arrival in group])
        except Early as early:
            waiting = [arrival for arrival in group if arrival.event_id in early.waiting]
            if not waiting:
                raise RuntimeError("a handler named early events that it was not given") from early
            for arrival in waiting:
                refusals.add(arrival, "came before its cause", early.waiting[arrival.event_id])
            rest = [arrival for arrival in group if arrival.event_id not in early.waiting]
            await self._attempt(tx, _behind(rest, refusals), refusals)
        except Exception as error:
            if passing(error):
                raise
            await self._halve(tx, group, refusals, error)

    async def _halve(
        self, tx: AsyncConnection, group: Sequence[_Arrival], refusals: _Refusals, error: Exception
    ) -> None:
        if len(group) == 1:
            refusals.add(group[0], f"{type(error).__name__}: {error}"[:2000])
            return
        half = len(group) // 2
        await self._attempt(tx, group[:half], refusals)
        await self._attempt(tx, _behind(group[half:], refusals), refusals)

    # -- parking

    async def _park(self, tx: AsyncConnection, refusals: Sequence[_Refusal]) -> None:
        if not refusals:
            return
        topics = [refusal.record.slot.topic for refusal in refusals]
        keys = [refusal.key for refusal in refusals]
        await tx.execute(
            _PARK_KEYS, {"topics": topics, "keys": keys, "waits": [refusal.waiting_for for refusal in refusals]}
        )
        await tx.execute(
            _PARK,
            {
                "topics": topics,
                "partitions": [refusal.record.slot.partition for refusal in refusals],
                "offsets": [refusal.record.offset for refusal in refusals],
                "keys": keys,
                "record_keys": [refusal.record.key for refusal in refusals],
                "headers": [json.dumps(dict(refusal.record.headers)) for refusal in refusals],
                "bodies": [refusal.record.value for refusal in refusals],
                "reasons": [refusal.reason.replace("\0", "\ufffd") for refusal in refusals],  # no text holds a NUL
            },
        )
        waiting = [(r.record.slot.topic, r.key) for r in refusals if r.waiting_for]
        # The retry also covers a cause that commits at the same moment as the parking and sees nothing to wake.
        await retry(tx, waiting, timedelta(seconds=1))
        for refusal in refusals:
            if not refusal.waiting_for:
                await log.aerror("event parked", topic=refusal.record.slot.topic, key=refusal.key, why=refusal.reason)

    async def _wake_waiting(self, tx: AsyncConnection, handled: Sequence[_Arrival]) -> None:
        causes = [cause(type(a.matter), a.key) for a in handled if isinstance(a.matter, Event)]
        if causes:
            await wake(tx, causes)

    async def release(self, tx: AsyncConnection, topic: str, key: str) -> Outcome:
        """Drain a parked key in order under its row lock; stops at the first event that is refused again."""
        locked = (await tx.execute(_LOCK_KEY, {"topic": topic, "key": key})).first()
        if locked is None:
            return Outcome()
        rows = (await tx.execute(_PARKED, {"topic": topic, "key": key})).all()
        if not rows:
            await self._unpark(tx, topic, key, [])
            return Outcome()
        if topic.startswith(PARKED_PREFIX):
            since = locked.parked_at.isoformat() if locked.waiting_for else None
            return await self._release_due(tx, topic, key, rows, since)
        records = [Record(Slot(topic, r.partition), r.offset, r.record_key, r.headers, r.value) for r in rows]
        if rows[0].record_key != key:  # could not be decoded when it came, so the inbox has not seen its id yet
            await self._unpark(tx, topic, key, [row.id for row in rows])
            return await self.apply(tx, records)
        arrivals, _ = self._decode(records)
        # What this process cannot read any more, being older than the one that parked it, waits for a newer one, and
        # so does what is behind it.
        readable = [arrival for n, arrival in enumerate(arrivals) if arrival.place == n]
        refusals = _Refusals()
        await self._handle(tx, readable, refusals)
        done = [row.id for row, arrival in zip(rows, readable, strict=False) if arrival.event_id not in refusals]
        if len(done) == len(rows):
            await self._unpark(tx, topic, key, done)
            return Outcome(handled=len(done))
        await tx.execute(_UNPARK, {"ids": done})
        waiting_for = locked.waiting_for
        if refusals:  # whatever is behind the first is refused too, so `done` stands before it
            first = refusals[readable[len(done)].event_id]
            await tx.execute(_REASON, {"id": rows[len(done)].id, "reason": first.reason})
            waiting_for = first.waiting_for
        await tx.execute(_STILL_PARKED, {"topic": topic, "key": key, "waiting_for": waiting_for})
        if waiting_for:
            await retry(tx, [(topic, key)], min(LONGEST_WAIT, timedelta(seconds=2 ** min(locked.attempts, 6))))
        return Outcome(handled=len(done), parked=len(rows) - len(done))

    async def discard(self, tx: AsyncConnection, topic: str, key: str, *, by: str, because: str) -> Outcome:
        """Give up the oldest parked event of a key, writing down who and why, and release the rest in order. It counts
        as taken: a replay skips it, a rebuild leaves it out. Raises LookupError where nothing of the key is parked."""
        locked = (await tx.execute(_LOCK_KEY, {"topic": topic, "key": key})).first()
        if locked is None:
            raise LookupError(f"nothing is parked under topic {topic}, key {key}")
        await tx.execute(_DISCARD, {"topic": topic, "key": key, "by": by, "because": because})
        return await self.release(tx, topic, key)

    async def _unpark(self, tx: AsyncConnection, topic: str, key: str, ids: Sequence[int]) -> None:
        await tx.execute(_UNPARK, {"ids": ids})
        await tx.execute(_UNPARK_KEY, {"topic": topic, "key": key})

    async def _release_due(
        self, tx: AsyncConnection, topic: str, key: str, rows: Sequence[Any], since: str | None
    ) -> Outcome:
        kind, now = topic.removeprefix(PARKED_PREFIX), datetime.now(UTC)
        dues = [Due(kind, key, now, json.loads(row.value), since) for row in rows]
        await schedule(tx, dues)
        await self._unpark(tx, topic, key, [row.id for row in rows])
        return Outcome(handled=len(rows))

    async def on_release_due(self, tx: AsyncConnection, dues: Sequence[Due]) -> None:
        """Due work: try waiting keys again. A loop, for each key has its own lock; such keys are few. Those of due work
        first: they are put back before any event takes locks of its own."""
        for due in sorted(dues, key=lambda due: not due.payload["topic"].startswith(PARKED_PREFIX)):
            await self.release(tx, due.payload["topic"], due.payload["key"])


async def wake(tx: AsyncConnection, causes: Collection[str]) -> None:
    """A cause has come: try at once what waits for it."""
    waiting = (await tx.execute(_WAITING, {"causes": list(causes)})).all()
    await retry(tx, [(row.topic, row.key) for row in waiting], timedelta())


def _behind(group: Sequence[_Arrival], refusals: _Refusals) -> list[_Arrival]:
    """The arrivals that may go on; the others join the refused event of their key."""
    for arrival in group:
        if refusals.before(arrival):
            refusals.add(arrival, "behind a parked event of its key")
    return [arrival for arrival in group if arrival.event_id not in refusals]


def _waves(arrivals: Sequence[_Arrival]) -> list[list[_Arrival]]:
    """Groups for one handler call each, as few as keep the order of every key."""
    last: dict[str, tuple[int, EventHandler]] = {}
    groups: dict[tuple[int, EventHandler], list[_Arrival]] = defaultdict(list)
    for arrival in arrivals:
        level, handler = last.get(arrival.key, (0, arrival.handler))
        level += handler is not arrival.handler
        last[arrival.key] = (level, arrival.handler)
        groups[level, arrival.handler].append(arrival)
    return [groups[at] for at in sorted(groups, key=lambda at: at[0])]


def _why(error: Exception) -> str:
    """What is wrong with a record, without what stands in it: that may be somebody's."""
    if isinstance(error, ValidationError):
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(f"{'/'.join(map(str, fault['loc'])) or 'the event'}: {fault['msg']}" for fault in faults)
    if isinstance(error, KeyError):
        return f"no header {error}"
    return f"{type(error).__name__}: {error}"


def identity_of(record: Record) -> UUID:
    """The event's id, or a steady one made of its place in the log where the header is missing or wrong."""
    try:
        return UUID(record.headers["ce_id"])
    except (KeyError, ValueError):
        return uuid5(NAMESPACE_URL, f"{record.slot.topic}/{record.slot.partition}/{record.offset}")
