"""Schema changes: Alembic for each service, then the rights of its `_app` role, stated from the tables themselves.

A table whose `info` says `append_only` lets `_app` SELECT and INSERT, nothing else; no table lets it TRUNCATE, and
`_app` owns none (DESIGN §3.8).
"""

import asyncio
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, MetaData, make_url, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

APPEND_ONLY = {"append_only": True}
ROOT = Path(__file__).parents[2]


def config(service: str, url: str) -> Config:
    """Alembic's configuration for one service; `url` is that of its `_owner`."""
    made = Config()
    made.set_main_option("script_location", str(ROOT / "services" / service / "migrations"))
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    made.attributes["url"] = url
    return made


def upgrade(service: str, url: str, metadata: MetaData) -> None:
    """Bring one service's database to the newest schema and state the rights of its `_app`. Not from a running loop."""
    command.upgrade(config(service, url), "head")
    asyncio.run(grant(url, metadata, f"{service}_app"))


async def grant(url: str, metadata: MetaData, role: str) -> None:
    """State what `role` may do with each table, as the tables' owner."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=pool.NullPool)
    async with engine.begin() as connection:
        for table in metadata.sorted_tables:
            rights = "SELECT, INSERT" if table.info.get("append_only") else "SELECT, INSERT, UPDATE, DELETE"
            await connection.execute(text(f'REVOKE ALL ON "{table.name}" FROM {role}, PUBLIC'))
            await connection.execute(text(f'GRANT {rights} ON "{table.name}" TO {role}'))
        await connection.execute(text(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"))
    await engine.dispose()


def run_env(metadata: MetaData) -> None:
    """What each service's `migrations/env.py` calls."""
    url = make_url(context.config.attributes["url"]).set(drivername="postgresql+asyncpg")
    asyncio.run(_run(url.render_as_string(hide_password=False), metadata))


async def _run(url: str, metadata: MetaData) -> None:
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate, metadata)
    await engine.dispose()


def _migrate(connection: Connection, metadata: MetaData) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()
