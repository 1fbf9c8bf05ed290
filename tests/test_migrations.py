"""A fresh database brought up by its migrations is the one that the models describe, with the rights they state."""

import asyncio
import importlib
import uuid

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.engine import SERVICES
from libs.common.db import Database, connect
from libs.common.migration import config, upgrade
from tests.conftest import Postgres, create_database

_CHECKS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
      FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace
"""


@pytest.fixture(params=SERVICES)
def migrated(request: pytest.FixtureRequest, postgres: Postgres) -> tuple[str, str]:
    service, name = request.param, f"m_{uuid.uuid4().hex}"
    asyncio.run(create_database(postgres, name, service))
    metadata = importlib.import_module(f"services.{service}.models").metadata
    upgrade(service, postgres.url(name, f"{service}_owner"), metadata)
    return service, name


def test_migrations_and_models_agree(migrated: tuple[str, str], postgres: Postgres) -> None:
    service, name = migrated
    command.check(config(service, postgres.url(name, f"{service}_owner")))


def test_migrations_and_models_have_the_same_check_constraints(migrated: tuple[str, str], postgres: Postgres) -> None:
    """Alembic does not compare them."""
    service, name = migrated

    async def checks(database: str) -> set[tuple[str, str, str]]:
        connection = await connect(postgres.url(database, f"{service}_owner"))
        rows = await connection.fetch(_CHECKS)
        await connection.close()
        return {tuple(row) for row in rows}

    async def made_from_models() -> str:
        fresh = f"m_{uuid.uuid4().hex}"
        await create_database(postgres, fresh, service)
        engine = create_async_engine(postgres.url(fresh, f"{service}_owner"))
        async with engine.begin() as connection:
            await connection.run_sync(importlib.import_module(f"services.{service}.models").metadata.create_all)
        await engine.dispose()
        return fresh

    models = asyncio.run(checks(asyncio.run(made_from_models())))
    assert asyncio.run(checks(name)) == models != set()


def test_running_the_migrations_again_changes_nothing(migrated: tuple[str, str], postgres: Postgres) -> None:
    service, name = migrated
    metadata = importlib.import_module(f"services.{service}.models").metadata
    upgrade(service, postgres.url(name, f"{service}_owner"), metadata)
    command.check(config(service, postgres.url(name, f"{service}_owner")))


def test_the_app_role_owns_nothing_and_truncates_nothing(migrated: tuple[str, str], postgres: Postgres) -> None:
    service, name = migrated

    async def rights() -> tuple[int, int]:
        database = Database(postgres.url(name, f"{service}_app"))
        async with database.engine.connect() as connection:
            owned = await connection.execute(text("SELECT count(*) FROM pg_tables WHERE tableowner = current_user"))
            truncates = await connection.execute(
                text("""SELECT count(*) FROM pg_tables
                         WHERE schemaname = 'public'
                           AND has_table_privilege(format('%I.%I', schemaname, tablename), 'TRUNCATE')""")
            )
            counts = owned.scalar_one(), truncates.scalar_one()
        await database.close()
        return counts

    assert asyncio.run(rights()) == (0, 0)
