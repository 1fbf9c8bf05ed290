"""A change in one statement: what changed, what stands beside it and the events are there together, or not at all."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Table, Text, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.change import Write, change
from libs.common.db import Database, metadata
from libs.common.events import ApplicationWithdrawn
from libs.common.outbox import emit
from tests.common.packs import anyang
from tests.conftest import MakeDatabase
from tests.steps import eventually

NOW = datetime(2026, 3, 2, tzinfo=UTC)
METADATA = metadata()
Table("cases", METADATA, Column("id", postgresql.UUID, primary_key=True), Column("state", Text, nullable=False))
Table(
    "history",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("case_id", postgresql.UUID, nullable=False),
    Column("state", Text, CheckConstraint("state <> 'wrong'", name="state"), nullable=False),
)
_OPEN = text("INSERT INTO cases (id, state) VALUES (:id, 'open')")
_CLOSE = text("UPDATE cases SET state = :state WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'open' RETURNING id")
_TELL = text("INSERT INTO history (case_id, state) SELECT id, CAST(:state AS text) FROM changed")
_OUTBOX = text("SELECT key FROM outbox ORDER BY id")
_HISTORY = text("SELECT case_id, state FROM history ORDER BY id")


@pytest.fixture
async def database(make_database: MakeDatabase) -> Database:
    return await make_database(METADATA)


async def opened(database: Database, count: int) -> list[UUID]:
    cases = [uuid4() for _ in range(count)]
    async with database.transaction() as tx:
        for case in cases:
            await tx.execute(_OPEN, {"id": case})
    return cases


async def close(tx: AsyncConnection, cases: Sequence[UUID], *, said: str = "said") -> int:
    closing, told = Write(_CLOSE, {"ids": list(cases), "state": "closed"}), Write(_TELL, {"state": said})
    return await change(tx, closing, told, events=[withdrawn(case) for case in cases])


def withdrawn(case: UUID) -> ApplicationWithdrawn:
    pack = anyang().identity
    return ApplicationWithdrawn(policy=pack, application=case, withdrawn_at=NOW)


async def rows(database: Database, statement: Any) -> list[Any]:
    async with database.statements() as tx:
        return [tuple(row) for row in await tx.execute(statement)]


@pytest.mark.parametrize("count", [1, 3])
async def test_what_changed_its_history_and_its_events_are_written_together(database: Database, count: int) -> None:
    cases = await opened(database, count)
    async with database.transaction() as tx:
        assert await close(tx, cases) == count
    assert sorted(await rows(database, _HISTORY)) == sorted((case, "said") for case in cases)
    assert await rows(database, _OUTBOX) == [(str(case),) for case in cases]


@pytest.mark.parametrize("count", [1, 3])
async def test_where_nothing_changes_nothing_is_told(database: Database, count: int) -> None:
    cases = [uuid4() for _ in range(count)]
    async with database.statements() as tx:
        assert await close(tx, cases) == 0
    assert await rows(database, _HISTORY) == await rows(database, _OUTBOX) == []


async def test_without_a_transaction_it_is_whole_or_not_at_all(database: Database) -> None:
    (case,) = await opened(database, 1)
    async with database.statements() as tx:
        with pytest.raises(IntegrityError):
            await close(tx, [case], said="wrong")
    assert await rows(database, text("SELECT state FROM cases")) == [("open",)]
    assert await rows(database, _OUTBOX) == []
    async with database.statements() as tx:
        assert await close(tx, [case]) == 1
    assert await rows(database, text("SELECT state FROM cases")) == [("closed",)]


async def test_the_relay_is_woken_without_a_transaction_too(database: Database) -> None:
    woken: list[str] = []
    database.on_emitted(lambda: woken.append("woken"))
    (case,) = await opened(database, 1)
    assert not woken
    async with database.statements() as tx:
        await close(tx, [case])
        assert not woken
    assert woken == ["woken"]


@pytest.mark.parametrize(("count", "events"), [(1, 1), (3, 1), (3, 3)])
@pytest.mark.parametrize("held", [0, -1])
async def test_an_event_takes_its_place_behind_those_of_whoever_held_a_row(
    database: Database, count: int, events: int, held: int
) -> None:
    cases = await opened(database, count)
    async with database.transaction() as first:
        await first.execute(text("SELECT 1 FROM cases WHERE id = :id FOR UPDATE"), {"id": cases[held]})
        second = asyncio.create_task(_closed(database, cases, events))
        await _waits_for_a_lock(database)
        earlier = withdrawn(cases[held])
        await emit(first, earlier)
    assert await second == count
    told = await rows(database, text("SELECT event_id FROM outbox ORDER BY id"))
    assert len(told) == 1 + events
    assert told[0] == (earlier.id,)


async def _closed(database: Database, cases: Sequence[UUID], events: int) -> int:
    closing = Write(_CLOSE, {"ids": list(cases), "state": "closed"})
    async with database.statements() as tx:
        return await change(tx, closing, events=[withdrawn(case) for case in cases[:events]])


async def _waits_for_a_lock(database: Database) -> None:
    waiting = text("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    await eventually(lambda: rows(database, waiting))
