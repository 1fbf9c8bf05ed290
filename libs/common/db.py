"""A service's database: its pool, its transactions, its session connection, and the tables of messaging."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import httpx
from pydantic_core import from_json
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    NullPool,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    make_url,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from libs.common.migration import APPEND_ONLY
from libs.common.transaction import Pool, Transaction

POOL_SIZE = 5
EMITTED, SCHEDULED = "huanquan.emitted", "huanquan.scheduled"
NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
# Classes of SQLSTATE that say nothing about the event in hand: connection, rollback (deadlock, serialisation),
# resources, operator intervention, system error; and a lock, or a transaction, that was given too little time.
PASSING_CLASSES = ("08", "40", "53", "57", "58")
PASSING_STATES = ("55P03", "25006", "25P03", "25P04")
# A migration that ran since the statement was planned: it is planned anew the next time. What the driver did not see
# through, as when its connection is lost in the middle of an answer.
OF_THE_CONNECTION = (asyncpg.InvalidCachedStatementError, asyncpg.InternalClientError)

Calls = Sequence[Callable[[], None]]

_ONE = text("SELECT 1")
_KEEP_PART = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; RELEASE SAVEPOINT part"


class Database:
    """One service's database. Made once in `app.py`; `close` gives every connection back."""

    def __init__(self, url: str, *, pool_size: int = POOL_SIZE) -> None:
        self.url = make_url(url).set(drivername="postgresql+asyncpg")
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            poolclass=NullPool,  # ours is beside it
            json_deserializer=from_json,  # of JSON columns: in half the time of Python's own
            hide_parameters=True,  # an error with its values would lay personal data in a log
        )
        # On its connections `transaction` begins and commits, not SQLAlchemy.
        self.pool = Pool(self.engine.execution_options(isolation_level="AUTOCOMMIT"), pool_size)
        self._on_emitted: list[Callable[[], None]] = []
        self._on_scheduled: list[Callable[[], None]] = []

    def on_emitted(self, call: Callable[[], None]) -> None:
        """Call this after each commit that left something in the outbox."""
        self._on_emitted.append(call)

    def on_scheduled(self, call: Callable[[], None]) -> None:
        """Call this after each commit that left something among the due work whose moment has come."""
        self._on_scheduled.append(call)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: commits when the block ends, rolls back when it raises. Only edges open one (§3.2)."""
        async with self.statements() as tx:
            try:
                await tx.command("BEGIN")
                yield tx
                await tx.command("COMMIT")
            except BaseException:
                await tx.undo()
                raise

    def statements(self) -> "_Lent":
        """A connection on which each statement is a transaction of its own: to look at something, or to change it in
        one statement."""
        return _Lent(self.pool, self._on_emitted, self._on_scheduled)

    async def session(self, *, command_timeout: float | None = None) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection outside the pool, for advisory locks and LISTEN. The caller closes it."""
        return await connect(str(self.url.render_as_string(hide_password=False)), command_timeout=command_timeout)

    async def reachable(self) -> bool:
        """Whether the database answers."""
        try:
            async with self.statements() as connection:
                await connection.execute(_ONE)
        except (DBAPIError, OSError):
            return False
        return True

    async def close(self) -> None:
        """Give every connection back."""
        await self.pool.close()
        await self.engine.dispose()


class _Lent:
    """A connection lent for a block; who waits for what the block left is called when it is given back.

    A class, for the generator of a context manager takes a tenth of a step's own time (docs/benchmarks-tuning.md).
    """

    __slots__ = ("_on_emitted", "_on_scheduled", "_pool", "_tx")

    def __init__(self, pool: Pool, on_emitted: Calls, on_scheduled: Calls) -> None:
        self._pool = pool
        self._on_emitted = on_emitted
        self._on_scheduled = on_scheduled

    async def __aenter__(self) -> Transaction:
        self._tx = tx = await self._pool.take()
        tx.info.pop(EMITTED, None)  # `info` outlives what the connection was lent for
        tx.info.pop(SCHEDULED, None)
        return tx

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        info = self._tx.info
        emitted, scheduled = EMITTED in info, SCHEDULED in info
        await self._pool.give_back(self._tx)
        if kind is None:
            for call in [*(self._on_emitted if emitted else ()), *(self._on_scheduled if scheduled else ())]:
                call()


async def connect(url: str, *, command_timeout: float | None = None) -> "asyncpg.Connection[asyncpg.Record]":
    """A plain asyncpg connection from an SQLAlchemy address (a Unix socket in `?host=` included). A statement that
    takes more than `command_timeout` seconds raises TimeoutError."""
    made = await asyncpg.connect(**connect_arguments(url), command_timeout=command_timeout)
    return cast("asyncpg.Connection[asyncpg.Record]", made)


def connect_arguments(url: str) -> dict[str, Any]:
    """What asyncpg needs to know from an SQLAlchemy address."""
    parts = make_url(url)
    return {
        "host": parts.query.get("host") or parts.host or "127.0.0.1",
        "port": parts.port or 5432,
        "user": parts.username,
        "password": parts.password,
        "database": parts.database,
        "timeout": 10,
    }


def passing(error: BaseException) -> bool:
    """Whether an error is of the moment (retry for ever, never park) and not of the event in hand (DESIGN §3.5)."""
    if isinstance(error, DBAPIError):
        origin = getattr(error.orig, "__cause__", None) or error.orig
        return error.connection_invalidated or isinstance(origin, OF_THE_CONNECTION) or _passing_state(error.orig)
    if isinstance(error, asyncpg.PostgresError):  # from a session outside the pool
        return _passing_state(error)
    others = OSError | TimeoutError | httpx.TransportError | asyncpg.InterfaceError | asyncpg.InternalClientError
    return isinstance(error, others)


def _passing_state(error: BaseException | None) -> bool:
    state = getattr(error, "sqlstate", None) or ""
    return state[:2] in PASSING_CLASSES or state in PASSING_STATES


@asynccontextmanager
async def savepoint(tx: AsyncConnection) -> AsyncIterator[None]:
    """A part of a transaction that stands or falls alone. Deferred constraints are checked at its end: at the commit
    they would undo the other parts too. One message to the server before and one behind."""
    tx = cast("Transaction", tx)
    await tx.command("SAVEPOINT part")
    try:
        yield
        await tx.command(_KEEP_PART)
    except Exception:  # a cancellation undoes the whole transaction
        await tx.command("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
        raise


def columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Rows (one at least) as the columns that a statement with `unnest` takes."""
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def metadata() -> MetaData:
    """A service's one MetaData, with the tables of messaging in it. Called once, in its `models.py`."""
    made = MetaData(naming_convention=NAMING)
    _messaging(made)
    return made


def _messaging(meta: MetaData) -> None:
    now = func.clock_timestamp()
    Table(
        "outbox",
        meta,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("event_id", UUID, nullable=False),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("time", Text, nullable=False, comment="UTC, RFC 3339: as its header says it"),
        Column("traceparent", Text, nullable=False),
        Column("value", LargeBinary, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=now),
        info=APPEND_ONLY,
    )
    Table("unpublished", meta, Column("id", BigInteger, primary_key=True, autoincrement=False))
    Table(
        "inbox",
        meta,
        Column("event_id", UUID, primary_key=True),
        Column("taken_at", DateTime(timezone=True), nullable=False, server_default=now),
    )
    Table(
        "consumer_offset",
        meta,
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("next", BigInteger, nullable=False),
        PrimaryKeyConstraint("topic", "partition"),
    )
    parked_key = Table(
        "parked_key",
        meta,
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("waiting_for", Text),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("parked_at", DateTime(timezone=True), nullable=False, server_default=now),
        PrimaryKeyConstraint("topic", "key"),
    )
    Index("ix_parked_key_waiting_for", parked_key.c.waiting_for, postgresql_where=parked_key.c.waiting_for.is_not(None))
    parked = Table(
        "parked",
        meta,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        *_record(),
        Column("reason", Text, nullable=False),
        Column("parked_at", DateTime(timezone=True), nullable=False, server_default=now),
    )
    Index("ix_parked_topic_key", parked.c.topic, parked.c.key, parked.c.id)
    Index(  # due work is parked under partition -1 and has no place in a log
        "uq_parked_place",
        parked.c.topic,
        parked.c.partition,
        parked.c.offset,
        unique=True,
        postgresql_where=parked.c.partition >= 0,
    )
    discarded = Table(  # what an operator gave up, as it was parked; who did, when and why
        "discarded",
        meta,
        Column("id", BigInteger, primary_key=True, autoincrement=False, comment="the one it was parked under"),
        *_record(),
        Column("reason", Text, nullable=False, comment="why it was parked"),
        Column("parked_at", DateTime(timezone=True), nullable=False),
        Column("discarded_at", DateTime(timezone=True), nullable=False, server_default=now),
        Column("discarded_by", Text, nullable=False),
        Column("because", Text, nullable=False),
        info=APPEND_ONLY,
    )
    Index("ix_discarded_topic_key", discarded.c.topic, discarded.c.key, discarded.c.id)
    due = Table(
        "due",
        meta,
        Column("kind", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("payload", JSONB, nullable=False),
        PrimaryKeyConstraint("kind", "key"),
    )
    Index("ix_due_at", due.c.at)


def _record() -> tuple[Column[Any], ...]:
    """What is kept of a record that was set aside: its place in the log, the key that it blocks, and the record."""
    return (
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("key", Text, nullable=False),
        Column("record_key", Text, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("value", LargeBinary, nullable=False),
    )
