"""A request's transaction on a real PostgreSQL: committed before the answer leaves, or the answer says otherwise."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, UniqueConstraint, func, insert, select
from sqlalchemy.exc import DBAPIError

from libs.common.db import Database, passing
from libs.common.errors import NotFound
from libs.common.settings import Settings
from libs.common.web import Tx, create_app, guarded_router, public

METADATA = MetaData()
NOTES = Table(
    "notes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    UniqueConstraint("text", deferrable=True, initially="DEFERRED"),  # violated only at the commit
)
ROUTER = guarded_router("notes")


@ROUTER.post("/notes", status_code=201, dependencies=[public()])
async def write_note(tx: Tx, text: str) -> str:
    await tx.execute(insert(NOTES).values(text=text))
    return "written"


@ROUTER.post("/refused", status_code=201, dependencies=[public()])
async def write_and_refuse(tx: Tx) -> str:
    await tx.execute(insert(NOTES).values(text="refused"))
    raise NotFound


@pytest.fixture
async def database(make_database: Callable[[MetaData], Awaitable[Database]]) -> Database:
    return await make_database(METADATA)


@pytest.fixture
async def http(database: Database, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async def ready() -> list[str]:
        return []

    settings = Settings(home=tmp_path)
    app = create_app(
        "notes", title="记", description="", settings=settings, routers=[ROUTER], asyncapi=dict, not_ready=ready
    )
    app.state.service = SimpleNamespace(database=database)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://huanquan") as client:
        yield client


async def count(database: Database) -> int:
    async with database.transaction() as tx:
        return (await tx.execute(select(func.count()).select_from(NOTES))).scalar_one()


async def test_what_was_answered_is_committed(http: httpx.AsyncClient, database: Database) -> None:
    assert (await http.post("/notes/v1/notes", params={"text": "一"})).status_code == 201
    assert await count(database) == 1


async def test_a_commit_that_fails_is_not_answered_as_done(http: httpx.AsyncClient, database: Database) -> None:
    await http.post("/notes/v1/notes", params={"text": "一"})
    answer = await http.post("/notes/v1/notes", params={"text": "一"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert await count(database) == 1


async def test_a_refusal_leaves_nothing_behind(http: httpx.AsyncClient, database: Database) -> None:
    assert (await http.post("/notes/v1/refused")).status_code == 404
    assert await count(database) == 0


async def test_a_connection_that_is_lost_in_the_middle_is_an_error_of_the_moment(database: Database) -> None:
    with pytest.raises(DBAPIError) as lost:
        await lose_connection(database)
    assert passing(lost.value)
    assert await count(database) == 0


async def lose_connection(database: Database) -> None:
    session = await database.session()
    try:
        async with database.transaction() as tx:
            pid = await tx.scalar(select(func.pg_backend_pid()))
            assert await session.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
            await tx.execute(select(NOTES))
    finally:
        await session.close()


async def test_a_character_that_no_text_may_hold_is_the_callers_mistake(http: httpx.AsyncClient) -> None:
    answer = await http.post("/notes/v1/notes", params={"text": "a\0b"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-body")
