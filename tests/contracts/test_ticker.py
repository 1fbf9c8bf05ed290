"""Due work: it happens once, when it is due, and what is refused is parked where an operator can release it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import Database
from libs.common.inbox import Inbox, wake
from libs.common.ticker import LONGEST_WAIT, RELEASE, Awaited, Due, Ticker, cancel, schedule
from tests.conftest import MakeDatabase
from tests.contracts.toy import metadata

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


async def record(tx: AsyncConnection, dues: Sequence[Due]) -> None:
    for due in dues:
        if due.payload.get("poison"):
            raise ValueError(due.key)
    statement = "INSERT INTO effect (key, number, by) SELECT unnest(CAST(:keys AS text[])), 1, 'ticker'"
    await tx.execute(text(statement), {"keys": [due.key for due in dues]})


async def keys(database: Database) -> list[str]:
    async with database.engine.connect() as connection:
        return list((await connection.execute(text("SELECT key FROM effect ORDER BY id"))).scalars())


async def parked(database: Database) -> list[tuple[str, str]]:
    async with database.engine.connect() as connection:
        rows = await connection.execute(text("SELECT topic, key FROM parked ORDER BY id"))
        return [tuple(row) for row in rows]


async def test_work_happens_once_and_not_before_it_is_due(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    ticker = Ticker(database, {"remind": record})
    async with database.transaction() as tx:
        await schedule(tx, [Due("remind", "early", NOW), Due("remind", "late", LATER)])
    assert await ticker.tick(NOW - timedelta(seconds=1)) == 0
    assert await ticker.tick(NOW) == 1
    assert await ticker.tick(NOW) == 0
    assert await ticker.tick(LATER) == 1
    assert await keys(database) == ["early", "late"]


async def test_work_moves_when_it_is_scheduled_again_and_goes_when_it_is_cancelled(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    ticker = Ticker(database, {"remind": record})
    async with database.transaction() as tx:
        await schedule(tx, [Due("remind", "moved", NOW), Due("remind", "gone", NOW)])
        await schedule(tx, [Due("remind", "moved", LATER)])
        await cancel(tx, "remind", ["gone", "never there"])
    assert await ticker.tick(NOW) == 0
    assert await ticker.tick(LATER) == 1
    assert await keys(database) == ["moved"]


async def test_refused_work_is_parked_alone_and_can_be_released(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    ticker = Ticker(database, {"remind": record})
    dues = [Due("remind", f"key-{n}", NOW, {"poison": n == 3}) for n in range(8)]
    async with database.transaction() as tx:
        await schedule(tx, dues)
    assert await ticker.tick(NOW) == 8
    assert sorted(await keys(database)) == [f"key-{n}" for n in range(8) if n != 3]
    assert await parked(database) == [("due:remind", "key-3")]
    async with database.transaction() as tx:
        assert (await Inbox({}).release(tx, "due:remind", "key-3")).handled == 1
    assert await parked(database) == []
    assert await ticker.tick(datetime.now(UTC)) == 1  # it is tried again, and refused again
    assert await parked(database) == [("due:remind", "key-3")]


class Lacking:
    """A handler that lacks what some of its work rests on, and names all of it, or says so only of what it is given."""

    def __init__(self, *, names: bool) -> None:
        self._names = names
        self.here: set[str] = set()
        self.calls = 0

    async def __call__(self, tx: AsyncConnection, dues: Sequence[Due]) -> None:
        self.calls += 1
        held = [due.key for due in dues if due.payload["of"] not in self.here]
        if held:
            raise Awaited(
                "it is not here", f"pack:{next(d.payload['of'] for d in dues if d.key in held)}", held * self._names
            )
        assert all(set(due.payload) == {"of"} for due in dues)
        await record(tx, dues)


@pytest.mark.parametrize("names", [True, False])
async def test_work_that_rests_on_what_is_not_here_waits_alone_and_goes_on_when_it_comes(
    make_database: MakeDatabase, names: bool
) -> None:
    database = await make_database(metadata)
    handler = Lacking(names=names)
    handler.here.add("old")
    inbox = Inbox({})
    ticker = Ticker(database, {"remind": handler, "other": record, RELEASE: inbox.on_release_due})
    dues = [Due("remind", f"key-{n}", NOW, {"of": "new" if n in {2, 5} else "old"}) for n in range(8)]
    async with database.transaction() as tx:
        await schedule(tx, [*dues, Due("other", "beside", NOW)])
    await ticker.tick(NOW)
    assert len(await keys(database)) == 7
    assert handler.calls == 2 or not names
    assert sorted(await parked(database)) == [("due:remind", "key-2"), ("due:remind", "key-5")]
    first = await waiting(database)
    assert {cause for cause, _ in first.values()} == {"pack:new"}

    minute = datetime.now(UTC) + LONGEST_WAIT
    await ticker.tick(minute)  # tried again, in vain
    await ticker.tick(minute)
    assert await waiting(database) == first  # an operator sees since when
    handler.here.add("new")
    async with database.transaction() as tx:
        await wake(tx, ["pack:new"])
    for _ in range(2):
        await ticker.tick(datetime.now(UTC))
    assert len(await keys(database)) == 9
    assert await parked(database) == []
    assert await waiting(database) == {}


async def waiting(database: Database) -> dict[str, tuple[str, datetime]]:
    async with database.engine.connect() as connection:
        rows = await connection.execute(text("SELECT key, waiting_for, parked_at FROM parked_key"))
        return {row.key: (row.waiting_for, row.parked_at) for row in rows}


async def test_work_of_a_kind_that_nobody_handles_is_parked_and_never_dropped(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    async with database.transaction() as tx:
        await schedule(tx, [Due("unheard of", "a", NOW)])
    await Ticker(database, {}).tick(NOW)
    assert await parked(database) == [("due:unheard of", "a")]


async def test_two_tickers_at_once_do_each_piece_of_work_once(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    one, two = (Ticker(database, {"remind": record}) for _ in range(2))
    async with database.transaction() as tx:
        await schedule(tx, [Due("remind", f"key-{n}", NOW) for n in range(900)])
    while sum(await asyncio.gather(one.tick(NOW), two.tick(NOW))):
        pass
    assert len(await keys(database)) == 900
    assert len(set(await keys(database))) == 900


async def test_work_of_a_transaction_that_rolled_back_never_happens(make_database: MakeDatabase) -> None:
    database = await make_database(metadata)
    connection = await database.engine.connect()
    transaction = await connection.begin()
    await schedule(connection, [Due("remind", "a", NOW)])
    await transaction.rollback()
    await connection.close()
    assert await Ticker(database, {"remind": record}).tick(LATER) == 0
