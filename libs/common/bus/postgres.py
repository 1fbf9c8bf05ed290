"""The bus on PostgreSQL, for one machine: a log per partition in a database of its own.

An offset is taken from the partition's counter row in the appending transaction, so the visible order is the order of
offsets (a sequence would show later offsets before earlier, uncommitted ones). A member owns a partition by an
advisory lock on its session connection; LISTEN/NOTIFY only wakes. A member that is paused keeps its session, so the
others end it after `STALE_SECONDS`; what it still tries is fenced by its service's own offset row.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from zlib import crc32

import asyncpg
import structlog
from pydantic_core import from_json, to_json

from libs.common.bus.protocol import Assigned, BusUnavailable, Message, OffsetGone, Record, Shared, Slot, by_slot
from libs.common.db import connect, connect_arguments
from libs.common.gathering import Gathering
from libs.common.tasks import being_stopped, set_within

log = structlog.get_logger()

CHANNEL = "bus"
MAKING_LOCK = 0x6275_7300  # held while the tables are made, or an older log is taken over
TICK_SECONDS = 1.0
STALE_SECONDS = 8.0
ACQUIRE_SECONDS = 10.0
STOP_SECONDS = 5.0
LOOK_SECONDS = 10.0
LOOKS = 24  # partitions in one statement: each may give a full batch
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
)

# `slot` is a `partition.id`; `heading` the headers that many records have in common, which are written once.
SCHEMA = """
CREATE TABLE IF NOT EXISTS partition (
    id integer GENERATED ALWAYS AS IDENTITY UNIQUE, topic text NOT NULL, partition integer NOT NULL,
    next bigint NOT NULL DEFAULT 0, PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS heading (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, headers text NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS log (
    slot integer NOT NULL, "offset" bigint NOT NULL, key text NOT NULL, heading integer NOT NULL, headers text NOT NULL,
    value bytea NOT NULL, appended_at timestamptz NOT NULL DEFAULT statement_timestamp(), PRIMARY KEY (slot, "offset"));
CREATE TABLE IF NOT EXISTS member (
    "group" text NOT NULL, member text NOT NULL, pid integer NOT NULL, seen_at timestamptz NOT NULL,
    PRIMARY KEY ("group", member));
"""
GRANTS = """
GRANT SELECT, UPDATE ON partition TO {role};
GRANT SELECT, INSERT ON heading TO {role};
GRANT SELECT, INSERT ON log TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON member TO {role};
"""

# A log of before docs/decisions/0021 named topic and partition in each record, and held all its headers.
_OLD = "SELECT true FROM pg_attribute WHERE attrelid = to_regclass('log') AND attname = 'topic' AND NOT attisdropped"
_ALTER = """
ALTER TABLE partition ADD id integer GENERATED ALWAYS AS IDENTITY UNIQUE;
ALTER TABLE log RENAME TO log_before;
ALTER INDEX log_pkey RENAME TO log_before_pkey;
"""
_MOVE = """
INSERT INTO heading (headers) VALUES ('{}');
INSERT INTO log (slot, "offset", key, heading, headers, value, appended_at)
SELECT p.id, b."offset", b.key, h.id, b.headers, b.value, b.appended_at
  FROM log_before AS b JOIN partition AS p USING (topic, partition), heading AS h;
DROP TABLE log_before;
"""

# Counters are locked in order, so two publishers cannot wait for each other. A notice for each partition: a payload
# holds 8000 bytes. They are told at the commit.
_TAKE_PLACES = """
    WITH wanted AS (SELECT * FROM unnest($1::int[], $2::bigint[]) AS r (id, n)),
         locked AS (SELECT p.id FROM partition p JOIN wanted USING (id) ORDER BY id FOR UPDATE OF p),
         moved AS (UPDATE partition p SET next = p.next + w.n FROM wanted w JOIN locked USING (id) WHERE p.id = w.id
                RETURNING p.id, p.topic, p.partition, p.next - w.n AS base)
    SELECT id, base, pg_notify($3, json_build_array(topic, partition)::text) FROM moved
"""
_COLUMNS = ("slot", "offset", "key", "heading", "headers", "value")
_PARTITIONS = "SELECT id FROM partition WHERE topic = $1 ORDER BY partition"
_ADD_HEADING = "INSERT INTO heading (headers) VALUES ($1) ON CONFLICT DO NOTHING"
_HEADING = "SELECT id FROM heading WHERE headers = $1"
_HEADINGS = "SELECT id, headers FROM heading"
# One statement, and so one moment: a record that is counted is seen.
_READ = """
    SELECT r.n, p.next, l."offset", l.key, l.heading, l.headers, l.value
      FROM unnest($1::text[], $2::int[], $3::bigint[], $4::int[])
           WITH ORDINALITY AS r (topic, partition, start, most, n)
      JOIN partition p ON p.topic = r.topic AND p.partition = r.partition
      LEFT JOIN LATERAL (SELECT * FROM log
                          WHERE slot = p.id AND "offset" >= r.start
                          ORDER BY "offset" LIMIT r.most) l ON true
     ORDER BY r.n, l."offset"
"""
_COUNTERS = "SELECT topic, partition, next FROM partition WHERE topic = ANY($1::text[])"
_ENDS = """
    SELECT p.topic, p.partition, p.next,
           coalesce((SELECT min(l."offset") FROM log l WHERE l.slot = p.id), p.next) AS start
      FROM partition p WHERE p.topic = ANY($1::text[])
"""
_BEAT = """
    INSERT INTO member ("group", member, pid, seen_at) VALUES ($1, $2, pg_backend_pid(), clock_timestamp())
    ON CONFLICT ("group", member) DO UPDATE SET seen_at = excluded.seen_at WHERE member.pid = excluded.pid
    RETURNING true
"""
_MEMBERS = """
    SELECT m.member, m.pid, m.member = $3 AND m.pid = pg_backend_pid() AS me, a.pid IS NOT NULL AS connected,
           m.seen_at < clock_timestamp() - $2 * interval '1 s' AS stale
      FROM member m LEFT JOIN pg_stat_activity a ON a.pid = m.pid AND a.application_name = left('bus ' || m.member, 63)
     WHERE m."group" = $1 ORDER BY m.member
"""
_FORGET = """
    DELETE FROM member WHERE "group" = $1 AND (member, pid) IN (SELECT * FROM unnest($2::text[], $3::int[]))
"""
_LEAVE = """DELETE FROM member WHERE "group" = $1 AND member = $2 AND pid = pg_backend_pid()"""
_TRY_LOCK = "SELECT pg_try_advisory_lock($1, $2)"
_UNLOCK = "SELECT pg_advisory_unlock($1, $2)"


async def create_schema(url: str, *, topics: Sequence[str], partitions: int, app_role: str) -> None:
    """Make the bus's tables and the partitions of each topic, as the owner. Running it again changes nothing; a log
    of an older form is taken over."""
    connection = await connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MAKING_LOCK)
            old = await connection.fetchval(_OLD)
            if old:
                await connection.execute(_ALTER)
            await connection.execute(SCHEMA)
            if old:
                await connection.execute(_MOVE)
            await connection.execute(GRANTS.format(role=app_role))
            slots = [(topic, n) for topic in topics for n in range(partitions)]
            statement = "INSERT INTO partition (topic, partition) VALUES ($1, $2) ON CONFLICT DO NOTHING"
            await connection.executemany(statement, slots)
    finally:
        await connection.close()


class PostgresBus:
    """The driver. One object a process; connects when it is first used."""

    def __init__(self, url: str, *, pool_size: int = 3) -> None:
        self._url = url
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._connecting = asyncio.Lock()
        self._partitions: dict[str, Sequence[int]] = {}  # their ids, by topic
        self._headings: dict[int, Mapping[str, str]] = {}
        self._heading_ids: dict[Shared, int] = {}

    async def start(self) -> None:
        """Nothing to do: the pool is made at its first use, for the database may still be away."""

    async def stop(self) -> None:
        """Close the pool."""
        if self._pool:
            pool, self._pool = self._pool, None
            with suppress(TimeoutError):  # then it has cut off whoever does not answer
                async with asyncio.timeout(STOP_SECONDS):
                    await pool.close()

    async def _connections(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._connecting:
            if self._pool is None:
                arguments = connect_arguments(self._url)
                self._pool = await asyncpg.create_pool(
                    **arguments, min_size=0, max_size=self._pool_size, reset=_leave_as_it_is
                )
            return self._pool

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            pool = await self._connections()
            async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                try:
                    yield connection
                except (asyncio.CancelledError, *AWAY):
                    # Its statement may still run, and giving it back would wait for a database that does not answer.
                    connection.terminate()
                    raise
        except AWAY as error:
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error

    async def _partitions_of(self, connection: Any, topic: str) -> Sequence[int]:
        if topic not in self._partitions:
            found = [row["id"] for row in await connection.fetch(_PARTITIONS, topic)]
            if not found:
                raise LookupError(f"the bus has no topic {topic!r}: run `huanquan migrate`")
            self._partitions[topic] = found
        return self._partitions[topic]

    async def _heading_of(self, connection: Any, shared: Shared) -> int:
        if shared not in self._heading_ids:
            await connection.execute(_ADD_HEADING, shared)
            self._heading_ids[shared] = await connection.fetchval(_HEADING, shared)
        return self._heading_ids[shared]

    async def _know_headings(self, connection: Any, wanted: set[int]) -> None:
        if not wanted <= self._headings.keys():
            self._headings |= {row["id"]: from_json(row["headers"]) for row in await connection.fetch(_HEADINGS)}

    async def publish(self, messages: Sequence[Message], *, after: Awaitable[None] | None = None) -> None:
        """Append all in one transaction."""
        async with self._connection() as connection:
            topics = {message.topic for message in messages}
            ids = {topic: await self._partitions_of(connection, topic) for topic in topics}
            shared = {message.shared for message in messages}
            headings = {each: await self._heading_of(connection, each) for each in shared}
            by_partition = by_slot(messages, {topic: len(found) for topic, found in ids.items()})
            batches = {
                ids[slot.topic][slot.partition]: [_row(message, headings[message.shared]) for message in batch]
                for slot, batch in by_partition.items()
            }
            if after is not None:
                await after
            async with connection.transaction():
                await self._append(connection, batches)

    async def _append(self, connection: Any, batches: Mapping[int, Sequence["_Row"]]) -> None:
        counts = [len(batch) for batch in batches.values()]
        bases = {row[0]: row[1] for row in await connection.fetch(_TAKE_PLACES, list(batches), counts, CHANNEL)}
        rows = [
            (slot, offset, *row)
            for slot, batch in sorted(batches.items())
            for offset, row in enumerate(batch, start=bases[slot])
        ]
        # COPY takes rows as they are; arrays for `unnest` take the driver half as long again, and the server too.
        await connection.copy_records_to_table("log", records=rows, columns=_COLUMNS)

    async def fetch(self, slot: Slot, offset: int, *, limit: int) -> list[Record]:
        """Records from `offset` on, at once; raises OffsetGone where the log begins later."""
        [found] = await self.fetch_all([Look(slot, offset, limit)])
        if isinstance(found, Exception):
            raise found
        return found

    async def fetch_all(self, looks: Sequence["Look"]) -> list[list[Record] | Exception]:
        """The same for several partitions: to each what it finds, or its OffsetGone."""
        columns = [
            list(column) for column in zip(*((*look.slot, look.offset, look.limit) for look in looks), strict=True)
        ]
        async with self._connection() as connection:
            rows = await connection.fetch(_READ, *columns, timeout=LOOK_SECONDS)
            await self._know_headings(connection, {row["heading"] for row in rows} - {None})
        found: dict[int, list[Any]] = defaultdict(list)
        for row in rows:
            found[row["n"] - 1].append(row)
        return [_found(look, found[n], self._headings) for n, look in enumerate(looks)]

    async def ends(self, topics: Sequence[str]) -> Mapping[Slot, tuple[int, int]]:
        """First and next offset of every partition."""
        async with self._connection() as connection:
            rows = await connection.fetch(_ENDS, list(topics))
        return {Slot(row["topic"], row["partition"]): (row["start"], row["next"]) for row in rows}

    async def reachable(self) -> bool:
        """Whether the bus's database answers."""
        try:
            async with self._connection() as connection:
                await connection.fetchval("SELECT 1")
        except BusUnavailable:
            return False
        return True

    @asynccontextmanager
    async def join(
        self, group: str, topics: Sequence[str], *, instance: str, on_assigned: Assigned
    ) -> AsyncIterator["_Member"]:
        """Take part in `group` as `<group>-<instance>` until the block ends."""
        member = _Member(
            self, self._url, group=group, topics=topics, name=f"{group}-{instance}", on_assigned=on_assigned
        )
        task = asyncio.create_task(member.stay(), name=f"member {group}-{instance}")
        try:
            yield member
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await member.end_looks()


class Look(NamedTuple):
    """What is asked of a partition: at most `limit` records from `offset` on."""

    slot: Slot
    offset: int
    limit: int


_Row = tuple[str, int, str, bytes]
"""Key, heading, own headers as JSON, value."""


def _row(message: Message, heading: int) -> _Row:
    return message.key, heading, to_json(dict(message.own)).decode(), message.value


def _found(look: Look, rows: Sequence[Any], headings: Mapping[int, Mapping[str, str]]) -> list[Record] | Exception:
    if not rows:
        return LookupError(f"the bus has no {look.slot}: run `huanquan migrate`")
    first = rows[0]["offset"]
    begins = rows[0]["next"] if first is None else first
    if begins != look.offset:
        return OffsetGone(begins)
    if first is None:
        return []
    return [
        Record(look.slot, r["offset"], r["key"], {**headings[r["heading"]], **from_json(r["headers"])}, r["value"])
        for r in rows
    ]


async def _leave_as_it_is(_connection: Any) -> None:
    """Nobody changes a session of the pool; setting it right after each use took as long as a read."""


class _Member:
    """Keeps this process's share of a group's partitions, second by second."""

    def __init__(
        self, bus: PostgresBus, url: str, *, group: str, topics: Sequence[str], name: str, on_assigned: Assigned
    ) -> None:
        self._bus = bus
        self._url = url
        self._group = group
        self._topics = list(topics)
        self._name = name
        self._on_assigned = on_assigned
        self._owned: set[Slot] = set()
        self._ends: dict[Slot, int] = {}  # where the log ended when it was last looked at
        self._looks = Gathering(bus.fetch_all, most=LOOKS)
        self._news: dict[Slot, asyncio.Event] = defaultdict(asyncio.Event)
        self._counted = False

    def joined(self) -> bool:
        """See the protocol."""
        return self._counted

    async def read(self, slot: Slot, offset: int, *, limit: int, wait: float) -> list[Record]:
        """See the protocol."""
        seen_all = self._ends.get(slot) == offset and not self._news[slot].is_set()
        if not seen_all and (records := await self._look(slot, offset, limit)):
            return records
        await set_within(self._news[slot], wait)
        return await self._look(slot, offset, limit)

    async def _look(self, slot: Slot, offset: int, limit: int) -> list[Record]:
        self._news[slot].clear()  # before: what comes while we look is news
        self._ends.pop(slot, None)
        records = await self._looks.ask(Look(slot, offset, limit))
        if len(records) < limit:
            self._ends[slot] = offset + len(records)
        return records

    async def end_looks(self) -> None:
        """Break off what is being read."""
        await self._looks.stop()

    async def stay(self) -> None:
        """Remain a member until cancelled; a lost session gives every partition up and joins again."""
        while not being_stopped():
            try:
                await self._session()
            except Exception as error:  # noqa: BLE001 - a member that ends would leave its process idle, unseen
                level = log.awarning if isinstance(error, AWAY) else log.aexception
                self._counted = False
                await level("left the group", group=self._group, error=type(error).__name__)
                self._owned.clear()
                await self._on_assigned(frozenset())
                await asyncio.sleep(TICK_SECONDS)

    async def _session(self) -> None:
        connection = await connect(self._url, command_timeout=STALE_SECONDS / 2)
        try:
            await connection.execute("SELECT set_config('application_name', left('bus ' || $1, 63), false)", self._name)
            await connection.add_listener(CHANNEL, self._heard)
            while True:
                await self._tick(connection)
                await asyncio.sleep(TICK_SECONDS)
        finally:
            # Closing the session gives its locks back; leaving the roll lets the others share at once.
            with suppress(*AWAY, asyncpg.PostgresError):
                await connection.execute(_LEAVE, self._group, self._name, timeout=2)
            with suppress(*AWAY):
                await connection.close(timeout=2)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._news[Slot(*json.loads(str(payload)))].set()

    async def _tick(self, connection: Any) -> None:
        alive = await self._roll(connection)
        if not await connection.fetchval(_BEAT, self._group, self._name):
            self._counted = False
            await log.aerror("another process goes by this name", member=self._name)
            return
        self._counted = True
        counters = {Slot(row[0], row[1]): row[2] for row in await connection.fetch(_COUNTERS, self._topics)}
        for slot, end in counters.items():  # covers a notification that was missed
            if end > self._ends.get(slot, end):
                self._news[slot].set()
        mine = {slot for n, slot in enumerate(sorted(counters)) if alive[n % len(alive)] == self._name}
        await self._give_up(connection, self._owned - mine)
        await self._claim(connection, mine - self._owned)

    async def _roll(self, connection: Any) -> list[str]:
        """The living members by name. A dead one's row is removed; a paused one's session is ended first."""
        rows = await connection.fetch(_MEMBERS, self._group, STALE_SECONDS, self._name)
        gone = [row for row in rows if not row["me"] and (row["stale"] or not row["connected"])]
        for row in gone:
            if row["connected"]:
                await connection.execute("SELECT pg_terminate_backend($1)", row["pid"])
        if gone:
            await connection.execute(
                _FORGET, self._group, [row["member"] for row in gone], [row["pid"] for row in gone]
            )
        names = {row["member"] for row in rows} - {row["member"] for row in gone}
        return sorted(names | {self._name})

    async def _give_up(self, connection: Any, slots: set[Slot]) -> None:
        if not slots:
            return
        self._owned -= slots
        await self._on_assigned(frozenset(self._owned))  # stops what works on them, then they are free
        for slot in slots:
            await connection.execute(_UNLOCK, *self._lock_of(slot))

    async def _claim(self, connection: Any, slots: set[Slot]) -> None:
        won = {slot for slot in sorted(slots) if await connection.fetchval(_TRY_LOCK, *self._lock_of(slot))}
        if won:
            self._owned |= won
            await self._on_assigned(frozenset(self._owned))

    def _lock_of(self, slot: Slot) -> tuple[int, int]:
        return _signed(crc32(self._group.encode())), _signed(crc32(f"{slot.topic}/{slot.partition}".encode()))


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
