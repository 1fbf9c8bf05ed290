"""The database's room: transactions on a pool of its own; and nothing that a person may be known by leaves it, not even
with a failed statement."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import Database, savepoint
from tests.conftest import MakeDatabase

METADATA = MetaData()
NOTES = Table("notes", METADATA, Column("id", Integer, primary_key=True), Column("text", Text, nullable=False))
WRITE = text("INSERT INTO notes (id, text) VALUES (:id, :text)")
READ = text("SELECT id, text FROM notes ORDER BY id")


@pytest.fixture
async def database(make_database: Callable[[MetaData], Awaitable[Database]]) -> Database:
    return await make_database(METADATA)


async def ids(database: Database) -> list[int]:
    async with database.transaction() as tx:
        return list((await tx.execute(select(NOTES.c.id).order_by(NOTES.c.id))).scalars())


async def test_a_failed_statement_does_not_tell_its_values(make_database: MakeDatabase) -> None:
    database = await make_database(MetaData())
    with pytest.raises(DBAPIError) as failed:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1 FROM no_such_table WHERE name = :name"), {"name": "王小明"})
    for told in (str(failed.value), repr(failed.value), repr(failed.value.orig)):
        assert "王小明" not in told
    assert "no_such_table" in str(failed.value)


async def test_plain_and_built_statements_are_one_transaction(database: Database) -> None:
    async def both_then_refuse() -> None:
        async with database.transaction() as tx:
            await tx.execute(WRITE, {"id": 1, "text": "一"})
            await tx.execute(insert(NOTES).values(id=2, text="二"))
            assert [tuple(row) for row in await tx.execute(READ)] == [(1, "一"), (2, "二")]
            assert (await tx.execute(select(func.count()).select_from(NOTES))).scalar_one() == 2
            raise LookupError

    with pytest.raises(LookupError):
        await both_then_refuse()
    assert await ids(database) == []


async def test_a_plain_statement_answers_as_a_built_one(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(WRITE, {"id": 1, "text": "一", "not asked for": 0})
        read = text("SELECT id, text FROM notes WHERE id = :id")
        row = (await tx.execute(read, {"id": 1})).one()
        assert (row.id, row.text, row[1]) == (1, "一", "一")
        assert [dict(row) for row in (await tx.execute(READ)).mappings()] == [{"id": 1, "text": "一"}]
        assert (await tx.execute(read, {"id": 2})).first() is None
        assert (
            await tx.execute(text("UPDATE notes SET text = '二' WHERE id = ANY(:ids)"), {"ids": [1, 2]})
        ).rowcount == 1
        assert (await tx.execute(WRITE, {"id": 2, "text": "三"})).rowcount == 1


async def test_what_a_savepoint_undoes_leaves_the_rest(database: Database) -> None:
    async def twice(tx: AsyncConnection) -> None:
        async with savepoint(tx):
            await tx.execute(WRITE, {"id": 2, "text": "二"})
            await tx.execute(WRITE, {"id": 1, "text": "又一"})

    async with database.transaction() as tx:
        await tx.execute(WRITE, {"id": 1, "text": "一"})
        with pytest.raises(IntegrityError, match="notes_pkey"):
            await twice(tx)
        await tx.execute(WRITE, {"id": 3, "text": "三"})
    assert await ids(database) == [1, 3]


async def test_a_connection_lost_while_idle_is_replaced_and_nobody_notices(database: Database) -> None:
    async with database.transaction() as tx, database.transaction() as other:
        pid = (await other.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        mine = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    session = await database.session()
    await session.fetch("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS r (pid)", [pid, mine])
    await session.close()
    await asyncio.sleep(0.2)  # until the news is here
    for number in range(3):
        async with database.transaction() as tx:
            await tx.execute(WRITE, {"id": number, "text": "一"})
    assert await ids(database) == [0, 1, 2]


async def test_a_cancelled_transaction_leaves_nothing_behind_for_the_next_one(database: Database) -> None:
    async def long() -> None:
        async with database.transaction() as tx:
            await tx.execute(WRITE, {"id": 1, "text": "一"})
            await tx.execute(text("SELECT pg_sleep(30)"))

    tasks = [asyncio.create_task(long()) for _ in range(5)]
    for delay in (0.0, 0.001, 0.003, 0.01, 0.3):  # at whatever it is doing then
        await asyncio.sleep(delay)
        task = tasks.pop()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(10):
        assert await ids(database) == []
        for number in range(5):
            async with database.transaction() as tx:
                await tx.execute(WRITE, {"id": number, "text": "一"})
    assert await ids(database) == [0, 1, 2, 3, 4]


async def test_one_more_than_the_pool_holds_waits_for_its_turn(database: Database) -> None:
    small = Database(database.url.render_as_string(hide_password=False), pool_size=2)
    at_once = most = 0

    async def work() -> None:
        nonlocal at_once, most
        async with small.transaction() as tx:
            at_once += 1
            most = max(most, at_once)
            await tx.execute(text("SELECT pg_sleep(0.01)"))
            at_once -= 1

    await asyncio.gather(*(work() for _ in range(10)))
    await small.close()
    assert most == 2


async def test_who_waits_for_a_connection_gets_it_in_turn_and_who_gave_up_waiting_takes_none(
    database: Database,
) -> None:
    pool, came = database.pool, list[str]()

    async def take(name: str) -> None:
        tx = await pool.take()
        came.append(name)
        await pool.give_back(tx)

    held = [await pool.take() for _ in range(pool.size)]
    tasks = {name: asyncio.create_task(take(name)) for name in ("gives up", "first", "has its turn", "second")}
    await asyncio.sleep(0)
    tasks["gives up"].cancel()
    await asyncio.sleep(0)
    await pool.give_back(held.pop())  # to the first
    await pool.give_back(held.pop())
    tasks["has its turn"].cancel()  # which has come, and is passed on
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert came == ["first", "second"]
    for tx in held:
        await pool.give_back(tx)
    assert pool.lent == 0


async def test_a_connection_that_comes_back_after_the_close_is_closed_too(database: Database) -> None:
    late = Database(database.url.render_as_string(hide_password=False))
    tx = await late.pool.take()
    await late.close()
    await tx.command("SELECT 1")
    await late.pool.give_back(tx)
    assert tx.driver.is_closed()
    assert late.pool.lent == 0
