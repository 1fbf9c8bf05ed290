"""The platform as a deployment runs it: five processes, a database each, and one of the buses."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from deploy.engine import SERVICES, EmbeddedPostgres
from deploy.local import PARTITIONS, Addresses, metadata_of
from libs.common.bus.postgres import create_schema
from libs.common.events import TOPICS
from libs.common.migration import upgrade
from tests.bench.ground import Ground
from tests.bench.harness import ROOT
from tests.conftest import environment, free_port

NO_LIMIT = "1000000"
START_SECONDS = 150
STOP_SECONDS = 30


@dataclass(frozen=True)
class Running:
    """A deployment at work."""

    addresses: Addresses
    processes: Mapping[str, "subprocess.Popen[bytes]"]
    postgres: EmbeddedPostgres

    def cpu_seconds(self) -> dict[str, float]:
        """What each service has used of the processor, and all of PostgreSQL."""
        used = {name: sum(psutil.Process(each.pid).cpu_times()[:2]) for name, each in self.processes.items()}
        postmaster = self.postgres.postmaster
        if postmaster is None:
            raise RuntimeError("PostgreSQL has stopped")
        alive = sum(_cpu_seconds(each) for each in postmaster.children())
        return used | {"postgres": sum(postmaster.cpu_times()) + alive}


def _cpu_seconds(backend: psutil.Process) -> float:
    """What a backend has used; of one that has ended since it was listed, the postmaster's time tells."""
    try:
        return float(sum(backend.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0


@dataclass(frozen=True)
class System:
    """A deployment at rest: `serving` starts its processes for as long as a turn lasts."""

    home: Path
    variables: dict[str, str]
    outboxes: tuple[str, ...]
    postgres: EmbeddedPostgres

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Running]:
        """Five processes, ready; stopped when the block ends."""
        addresses = Addresses(free_port(), together=False)
        with (self.home / "services.log").open("a") as log:
            processes = {service: self._start(service, addresses, log.fileno()) for service in SERVICES}
        try:
            await _ready(addresses, list(processes.values()))
            yield Running(addresses, processes, self.postgres)
        finally:
            for process in processes.values():
                process.send_signal(signal.SIGTERM)
            for process in processes.values():
                await asyncio.to_thread(process.wait, STOP_SECONDS)

    def _start(self, service: str, addresses: Addresses, log: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "deploy.entry", "serve", service, "--port", str(addresses.port_of(service))]
        given = environment(self.home) | self.variables | {"HUANQUAN_INTAKE_URL": addresses.of("intake")}
        return subprocess.Popen([*command, "--with-parent"], cwd=ROOT, env=given, stdout=log, stderr=log)


@asynccontextmanager
async def deployed(ground: Ground, name: str, *, kafka: str | None = None) -> AsyncIterator[System]:
    """Databases for one deployment, as `huanquan migrate` makes them; gone when the block ends."""
    home = ground.folder / name
    home.mkdir()
    async with AsyncExitStack() as stack:
        names = {owner: await stack.enter_async_context(ground.empty_database(owner)) for owner in (*SERVICES, "bus")}
        for service in SERVICES:
            owner = ground.postgres.url(names[service], f"{service}_owner")
            await asyncio.to_thread(upgrade, service, owner, metadata_of(service))
        owner = ground.postgres.url(names["bus"], "bus_owner")
        await create_schema(owner, topics=TOPICS, partitions=PARTITIONS, app_role="bus_app")
        urls = {owner: ground.postgres.url(names[owner], f"{owner}_app") for owner in names}
        variables = {f"HUANQUAN_{service.upper()}_DATABASE_URL": urls[service] for service in SERVICES}
        variables |= {"HUANQUAN_REQUESTS_PER_SECOND": NO_LIMIT, "HUANQUAN_REQUESTS_BURST": NO_LIMIT}
        variables |= {"HUANQUAN_BUS": "kafka", "HUANQUAN_KAFKA": kafka} if kafka else {"HUANQUAN_BUS_URL": urls["bus"]}
        yield System(home, variables, tuple(urls[service] for service in SERVICES), ground.postgres)


async def _ready(addresses: Addresses, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(START_SECONDS):
        for service in SERVICES:
            while not await _answers(client, f"{addresses.of(service)}/{service}/readyz"):
                if any(process.poll() is not None for process in processes):
                    raise RuntimeError("a service stopped while it was starting: see services.log")
                await asyncio.sleep(0.1)


async def _answers(client: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await client.get(address)).is_success
    except httpx.TransportError:
        return False
