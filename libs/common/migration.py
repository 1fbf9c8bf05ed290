"""Schema changes: Alembic for each service, then the rights of its `_app` role, stated from the tables themselves.

A table whose `info` says `append_only` lets `_app` SELECT and INSERT, nothing else; no table lets it TRUNCATE, and
`_app` owns none (DESIGN §3.8).

The system goes on meanwhile (docs/migrations.md): two that migrate one database go one after the other, and a change
that waits for a table gives way after `LOCK_SECONDS`, for whoever comes after it would wait too.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from alembic import command, context, op
from alembic.config import Config
from sqlalchemy import Connection, MetaData, TextClause, make_url, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

APPEND_ONLY = {"append_only": True}
ROOT = Path(__file__).parents[2]
LOCK = crc32(b"huanquan migration")
LOCK_SECONDS = 2
TRIES, PAUSE_SECONDS = 30, 1.0
_LOCK_NOT_AVAILABLE = "55P03"


class TablesBusy(Exception):
    """Something held a table for as long as we tried; nothing is half done, and the command may be given again."""


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
    async with engine.connect() as connection:
        await connection.run_sync(_take_turn)
        for table in metadata.sorted_tables:
            rights = "SELECT, INSERT" if table.info.get("append_only") else "SELECT, INSERT, UPDATE, DELETE"
            await connection.execute(text(f'REVOKE ALL ON "{table.name}" FROM {role}, PUBLIC'))
            await connection.execute(text(f'GRANT {rights} ON "{table.name}" TO {role}'))
        await connection.execute(text(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"))
        await connection.commit()
    await engine.dispose()


def create_index_online(name: str, table: str, columns: Sequence[str], *, where: TextClause | None = None) -> None:
    """Make an index while rows are written: for tables that grow; with `where`, of the rows that it says. Call it in a
    migration that does nothing else with what is inside a transaction: it is made outside, and anew where an earlier
    attempt was broken off."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # it waits for older transactions, and keeps nobody
        op.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')
        op.create_index(name, table, list(columns), postgresql_concurrently=True, postgresql_where=where)
        op.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")


def events_written_once() -> None:
    """What an event says stands in columns instead of JSON, and what is unpublished in a table of its own, so that no
    row of the outbox is written twice (docs/decisions/0019). Processes older than this stop first."""
    op.execute("CREATE TABLE unpublished (id bigint CONSTRAINT pk_unpublished PRIMARY KEY)")
    op.execute("INSERT INTO unpublished (id) SELECT id FROM outbox WHERE published_at IS NULL")
    op.execute("""
        ALTER TABLE outbox ADD COLUMN type text, ADD COLUMN time text, ADD COLUMN traceparent text,
                           DROP COLUMN published_at
    """)
    op.execute("COMMENT ON COLUMN outbox.time IS 'UTC, RFC 3339: as its header says it'")
    op.execute("""
        UPDATE outbox SET type = headers ->> 'ce_type', time = headers ->> 'ce_time',
                          traceparent = headers ->> 'ce_traceparent'
    """)
    op.execute("""
        ALTER TABLE outbox ALTER COLUMN type SET NOT NULL, ALTER COLUMN time SET NOT NULL,
                           ALTER COLUMN traceparent SET NOT NULL, DROP COLUMN headers
    """)


def events_written_twice() -> None:
    """The way back, for development: when an event was published is not known any more."""
    op.execute("ALTER TABLE outbox ADD COLUMN headers jsonb, ADD COLUMN published_at timestamptz")
    op.execute("""
        UPDATE outbox
           SET published_at = CASE WHEN EXISTS (SELECT FROM unpublished AS u WHERE u.id = outbox.id) THEN NULL
                                   ELSE created_at END,
               headers = jsonb_build_object(
                   'ce_specversion', '1.0', 'ce_id', event_id, 'ce_source', '/huanquan/' || topic, 'ce_type', type,
                   'ce_subject', key, 'ce_time', time, 'ce_dataschema', '/events/' || type || '.json',
                   'ce_traceparent', traceparent, 'content-type', 'application/json')
    """)
    op.execute("""
        ALTER TABLE outbox ALTER COLUMN headers SET NOT NULL, DROP COLUMN type, DROP COLUMN time,
                           DROP COLUMN traceparent
    """)
    op.execute("DROP TABLE unpublished")
    op.create_index("ix_outbox_unpublished", "outbox", ["id"], postgresql_where="published_at IS NULL")


def run_env(metadata: MetaData) -> None:
    """What each service's `migrations/env.py` calls."""
    url = make_url(context.config.attributes["url"]).set(drivername="postgresql+asyncpg")
    asyncio.run(_run(url.render_as_string(hide_password=False), metadata))


async def _run(url: str, metadata: MetaData) -> None:
    engine = create_async_engine(url, poolclass=pool.NullPool)
    try:
        for _ in range(TRIES):
            try:
                async with engine.connect() as connection:
                    return await connection.run_sync(_migrate, metadata)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                    raise
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await engine.dispose()
    where = make_url(url).render_as_string(hide_password=True)
    raise TablesBusy(f"{where}: a table that changes was held all the time, by a long transaction; try again")


def _take_turn(connection: Connection) -> None:
    """Hold this database's migrations for the session. Whoever waited for the lock inside a transaction would be waited
    for by an index that is being made concurrently, and neither would go on: so it is asked for again and again."""
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        connection.commit()
        time.sleep(PAUSE_SECONDS)
    connection.commit()


def _migrate(connection: Connection, metadata: MetaData) -> None:
    _take_turn(connection)
    connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
    connection.commit()
    context.configure(
        connection=connection, target_metadata=metadata, compare_server_default=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()
