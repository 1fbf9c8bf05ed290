"""A transaction on a pooled connection, and the short way that plain SQL takes in it.

Nearly every statement of the product is a `text()` constant with plain parameters. SQLAlchemy takes such a statement
through a greenlet, its cache of compiled forms, an adapter that looks like a DBAPI cursor and a result described anew:
five times the work of the driver (docs/benchmarks-tuning.md). Here it goes to the driver straight, with the same answer
and the same errors. Everything else (a `select()`, a savepoint, a stream) SQLAlchemy runs, on the same connection in
the same transaction; so its engine must be one with `isolation_level="AUTOCOMMIT"` and `Database` begins and commits.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from inspect import unwrap
from typing import Any, NamedTuple, cast

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import NullType

MOST_PREPARED = 256  # of one connection: more than any service has constants
UNDO_SECONDS = 5.0
TURN_SECONDS = 30.0

_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]
# Without its guard, whose five calls ask whether asyncpg's own pool has the connection back (it has none of ours), and
# whether it is closed, which the protocol asks too.
_FETCH = unwrap(PreparedStatement.fetch)
_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Answer(IteratorResult[Any]):
    """What a plain statement gave: rows as SQLAlchemy's, and `rowcount`."""

    def __init__(self, metadata: SimpleResultMetaData, rows: Sequence[Any], status: str) -> None:
        super().__init__(metadata, iter(rows))
        self._status = status

    @property
    def rowcount(self) -> int:
        """How many rows it gave or changed: the last word of `INSERT 0 3`, `UPDATE 3`, `SELECT 3`."""
        count = self._status.rpartition(" ")[2]
        return int(count) if count.isdigit() else -1


class Plain(NamedTuple):
    """A statement with the driver's numbered parameters, and the name of each."""

    sql: str
    names: tuple[str, ...]


class _Prepared(NamedTuple):
    statement: "PreparedStatement[asyncpg.Record]"
    metadata: SimpleResultMetaData


class Transaction(AsyncConnection):
    """A connection inside a transaction."""

    driver: "asyncpg.Connection[asyncpg.Record]"
    """The driver's connection, also once it is lost: SQLAlchemy, asked for it then, would try to make another."""

    async def start(self, is_ctxmanager: bool = False) -> "Transaction":
        """Connect."""
        await super().start(is_ctxmanager)
        raw = await self.get_raw_connection()
        self.driver = cast("asyncpg.Connection[asyncpg.Record]", raw.driver_connection)
        self._info = super().info
        self._prepared: dict[str, _Prepared] = {}
        return self

    @property
    def info(self) -> dict[str, Any]:
        """As SQLAlchemy's `info`, asked for once: its way through two proxies is taken several times a statement."""
        return self._info

    def in_transaction(self) -> bool:
        """As SQLAlchemy's, without its proxy: asked at each return to the pool."""
        return self.sync_connection is not None and self.sync_connection.in_transaction()

    async def execute(  # an Answer has all that callers use of a CursorResult
        self, statement: Any, parameters: Any = None, *, execution_options: Any = None
    ) -> Any:
        """As SQLAlchemy's `execute`."""
        if type(statement) is TextClause and not execution_options and (parameters is None or type(parameters) is dict):
            short = plain(statement)
            if short is not None:
                given = parameters or {}
                rows = await self.rows(short.sql, [given[name] for name in short.names])
                ready = self._prepared[short.sql]
                return Answer(ready.metadata, rows, ready.statement.get_statusmsg() or "")
        return await super().execute(statement, parameters, execution_options=execution_options)

    async def rows(self, sql: str, arguments: Sequence[Any]) -> Sequence[asyncpg.Record]:
        """What a statement with the driver's own numbered parameters gives, as the driver's rows. Raises as `execute`
        does."""
        try:
            ready = self._prepared.get(sql) or await self._prepare(sql)
            rows: Sequence[asyncpg.Record] = await _FETCH(ready.statement, *arguments)
            return rows
        except _ERRORS as error:
            self._prepared.clear()  # a migration may have changed what a statement gives: it is planned anew
            raise self._translated(error, sql) from error

    async def _prepare(self, sql: str) -> _Prepared:
        if len(self._prepared) >= MOST_PREPARED:
            self._prepared.clear()
        statement = await self.driver.prepare(sql)
        ready = _Prepared(statement, SimpleResultMetaData([each.name for each in statement.get_attributes()]))
        self._prepared[sql] = ready
        return ready

    async def command(self, sql: str) -> None:
        """A statement without parameters and rows, in one message to the server."""
        try:
            await self.driver.execute(sql)
        except _ERRORS as error:
            raise self._translated(error, sql) from error

    async def undo(self) -> None:
        """Roll back. A connection that does not get through it is cut off, which rolls back too."""
        driver = self.driver
        try:
            async with asyncio.timeout(UNDO_SECONDS):
                await driver.execute("ROLLBACK")
        except (*_ERRORS, OSError):  # TimeoutError is one
            driver.terminate()
        except asyncio.CancelledError:
            driver.terminate()
            raise

    def _translated(self, error: Exception, sql: str) -> DBAPIError:
        """The error that SQLAlchemy raises for one of the driver, without the statement's values."""
        kind = IntegrityError if isinstance(error, asyncpg.IntegrityConstraintViolationError) else DBAPIError
        lost = self.driver.is_closed()
        return kind(sql, None, error, hide_parameters=True, connection_invalidated=lost)


@lru_cache(maxsize=4096)
def plain(statement: TextClause) -> Plain | None:
    """The statement as the driver takes it; None where SQLAlchemy has to see to its parameters."""
    compiled = statement.compile(dialect=_DIALECT)
    if all(isinstance(bind.type, NullType) and not bind.expanding for bind in compiled.binds.values()):
        return Plain(compiled.string, tuple(compiled.positiontup or ()))
    return None


class Pool:
    """The connections of one process to one database, at most `size`, each made when it is first needed.

    Lent whole, as a Transaction: what SQLAlchemy does at each checkout and return took as long as three statements.
    `lent` is how many are in use.
    """

    def __init__(self, engine: AsyncEngine, size: int) -> None:
        self.size = size
        self.lent = 0
        self._engine = engine
        self._closed = False
        self._idle: list[Transaction] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> Transaction:
        """A connection, for this caller alone. Raises TimeoutError where none is given back in time."""
        if self.lent < self.size:
            self.lent += 1
        else:
            await self._turn()
        try:
            while self._idle:
                found = self._idle.pop()
                if not found.driver.is_closed():
                    return found
                await found.close()  # PostgreSQL went while it was idle
            made = Transaction(self._engine)
            await made.start()
            return made
        except BaseException:
            self._free()
            raise

    async def _turn(self) -> None:
        """Wait for a place that somebody gives up; first come, first served."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await turn
        except BaseException:
            if not turn.cancelled():  # it came at the moment when it was no more waited for
                self._free()
            raise

    async def give_back(self, tx: Transaction) -> None:
        """Its work is committed or undone."""
        try:
            if tx.in_transaction():  # SQLAlchemy's own account of it, kept where it ran a statement
                await tx.rollback()
        finally:
            self._idle.append(tx)
            self._free()
            if self._closed:
                await self.close()

    def _free(self) -> None:
        """Pass the place on to who waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.lent -= 1

    async def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back. Where that is broken off, for the server does
        not answer, it is cut off."""
        self._closed = True
        try:
            for tx in self._idle:
                await tx.driver.close()
        finally:
            while self._idle:
                tx = self._idle.pop()
                tx.driver.terminate()
                await tx.close()  # SQLAlchemy's part, which waits for nobody any more
