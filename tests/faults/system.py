"""The distributed form under test: two processes of each service, three brokers, one PostgreSQL, proxies between."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.engine import SERVICES
from deploy.local import Addresses
from deploy.refusals import NotStarted, Refusal
from deploy.topics import apply_topics
from libs.common.service import LEADER_NAME
from tests.faults.engines import Brokers, DrillPostgres
from tests.faults.network import Balancer, Toxiproxy, toxiproxy_binary
from tests.faults.plan import BROKERS, INSTANCES, PROCESSES
from tests.faults.processes import Kept
from tests.faults.waiting import LOOK_SECONDS, until

ROOT = Path(__file__).parents[2]
FILES_MIB = 128
PORTS = 100
READY_SECONDS = 120.0
KEEP = "keep"
_LEADER = "SELECT application_name FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE $2"


@dataclass(frozen=True)
class Ports:
    """What listens where, from one base on: balancers base+1 … base+5, processes base+10 … base+19."""

    base: int

    @property
    def front(self) -> Addresses:
        """Where the load finds each service."""
        return Addresses(self.base, together=False)

    def process(self, name: str) -> int:
        """Where a process listens."""
        return self.base + 10 + PROCESSES.index(name)

    def database(self, name: str) -> int:
        """Where a process finds its database: a proxy of its own."""
        return self.base + 30 + PROCESSES.index(name)

    @property
    def postgres(self) -> int:
        """Where PostgreSQL listens."""
        return self.base + 20

    @property
    def toxiproxy(self) -> int:
        """Where Toxiproxy is told what to do."""
        return self.base + 21

    @property
    def kafka(self) -> int:
        """The first port of the first broker."""
        return self.base + 40


@dataclass
class System:
    """Everything that runs, and what it takes to disturb it. Made by `running`."""

    folder: Path
    home: Path
    ports: Ports
    tree: Path
    postgres: DrillPostgres
    brokers: Brokers
    proxies: Toxiproxy
    own_disk: bool
    processes: dict[str, Kept] = field(default_factory=dict)
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=8))

    def environment(self, name: str | None = None) -> dict[str, str]:
        """What a process of a service is told; without a name what an operator's command is told."""
        made = {
            "HOME": str(self.home),
            "BUS": "kafka",
            "KAFKA": self.brokers.proxied if name and name.endswith("-0") else self.brokers.direct,
            "INTAKE_URL": self.ports.front.of("intake"),
            "INSTANCE": name.rsplit("-", 1)[1] if name else "operator",
        }
        between = self.ports.database(name) if name else None
        for service in SERVICES:
            made[f"{service.upper()}_DATABASE_URL"] = self.postgres.url(service, port=between)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HUANQUAN_")}
        return clean | {f"HUANQUAN_{key}": value for key, value in made.items()}

    def clock(self, name: str) -> Path:
        """The file that says how far the clock of a process is off."""
        return self.folder / "clocks" / name

    def keep(self) -> None:
        """Let the folder stay when all has stopped."""
        (self.folder / KEEP).touch()

    async def ready(self, name: str) -> bool:
        """Whether a process says that it is ready."""
        service = name.rsplit("-", 1)[0]
        try:
            answer = await self.http.get(f"http://127.0.0.1:{self.ports.process(name)}/{service}/readyz")
        except httpx.TransportError:
            return False
        return answer.is_success

    async def all_ready(self) -> bool:
        """Whether all ten are."""
        return all(await asyncio.gather(*map(self.ready, PROCESSES)))

    async def leader(self, service: str) -> str:
        """The process that relays and ticks for a service now; where none does, the next that will. Raises
        TimeoutError."""
        async with asyncio.timeout(READY_SECONDS):
            while True:
                if name := await self._leading(service):
                    return f"{service}-{name.removeprefix(LEADER_NAME)}"
                await asyncio.sleep(LOOK_SECONDS)

    async def _leading(self, service: str) -> str | None:
        await self.postgres.ready()
        connection = await self.postgres.connect()
        try:
            found: str | None = await connection.fetchval(_LEADER, service, f"{LEADER_NAME}%")
        finally:
            await connection.close()
        return found

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run `huanquan` as an operator: its exit code and all that it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.entry", *arguments),
            cwd=ROOT,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode()


@asynccontextmanager
async def running(base: int, tree: Path) -> AsyncIterator[System]:
    """The system from the code in `tree`, until this ends: then everything is stopped, and what it wrote is removed
    unless it failed. Raises NotStarted."""
    faketime, binary = _faketime(), await asyncio.to_thread(toxiproxy_binary)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_folder())
        ports = Ports(base)
        postgres, brokers = DrillPostgres(folder / "pg", ports.postgres), Brokers(folder / "kafka", ports.kafka)
        own_disk = stack.enter_context(_disk(folder / "home"))
        stack.push_async_callback(asyncio.to_thread, brokers.wipe)
        await asyncio.gather(asyncio.to_thread(postgres.make), asyncio.to_thread(brokers.up))
        await _keep(stack, brokers.keep())
        await _keep(stack, postgres.kept().run())
        command = ["setpriv", "--pdeathsig", "TERM", str(binary), "-host", "127.0.0.1", "-port", str(ports.toxiproxy)]
        toxiproxy = Kept("toxiproxy", command, log=folder / "toxiproxy.log", environment=os.environ)
        await _keep(stack, toxiproxy.run())
        proxies = Toxiproxy(ports.toxiproxy)
        stack.push_async_callback(proxies.close)
        system = System(folder, folder / "home", ports, tree, postgres, brokers, proxies, own_disk)
        stack.push_async_callback(system.http.aclose)
        await asyncio.gather(
            postgres.ready(), until(proxies.answers, seconds=READY_SECONDS), apply_topics(brokers.direct)
        )
        await _connect(system)
        await _serve(stack, system, faketime)
        yield system


async def _connect(system: System) -> None:
    for name in PROCESSES:
        await system.proxies.add(name, system.ports.database(name), system.ports.postgres)
    for number in BROKERS:
        port = system.brokers.port_of(number)
        await system.proxies.add(f"broker-{number}", port + 3, port + 2)


async def _serve(stack: AsyncExitStack, system: System, faketime: Path) -> None:
    for folder in (system.home / "logs", system.folder / "clocks"):
        folder.mkdir()
    for name in PROCESSES:
        system.clock(name).write_text("+0")
        service, port = name.rsplit("-", 1)[0], str(system.ports.process(name))
        clock = {
            "LD_PRELOAD": str(faketime),
            "FAKETIME_TIMESTAMP_FILE": str(system.clock(name)),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else threads of Python wait for each other for ever
            "FAKETIME_CACHE_DURATION": "1",
        }
        process = Kept(
            name,
            [sys.executable, "-m", "deploy.entry", "serve", service, "--port", port, "--with-parent"],
            log=system.home / "logs" / f"{name}.log",
            environment=system.environment(name) | clock,
            folder=system.tree,
        )
        system.processes[name] = process
    await _keep(stack, _side_by_side(*(process.run() for process in system.processes.values())))
    for service in SERVICES:
        balancer = Balancer([system.ports.process(f"{service}-{instance}") for instance in INSTANCES])
        await stack.enter_async_context(balancer.listening(system.ports.front.port_of(service)))
    await until(system.all_ready, seconds=READY_SECONDS)


async def _side_by_side(*work: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*work)


async def _keep(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Let it work until the stack is left; then it is cancelled, and waited for."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


def _faketime() -> Path:
    found = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if found is None:
        raise NotStarted("libfaketime is missing, to set clocks with; on Debian: apt-get install -y libfaketime")
    return found


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder of the run's own. It stays where the run broke down, or was asked to."""
    path = Path(tempfile.mkdtemp(prefix="huanquan-drill-"))
    try:
        yield path
    except (asyncio.CancelledError, Refusal):
        shutil.rmtree(path)
        raise
    if not (path / KEEP).exists():
        shutil.rmtree(path)


@contextmanager
def _disk(home: Path) -> Iterator[bool]:
    """A small disk of its own for the services' files, where we may mount one; gives whether. What was written stays
    beside it in the end."""
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={FILES_MIB}m", "huanquan-drill", str(home)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            shutil.copytree(home, home.with_name("files"))
            subprocess.run(["umount", "--lazy", str(home)], check=True)
