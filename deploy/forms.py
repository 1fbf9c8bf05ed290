"""The two forms of the system: five services in one process, or five processes with Kafka between them."""

import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
import structlog
import uvicorn

from deploy.engine import SERVICES
from deploy.host import Host, host
from deploy.local import Addresses, Local, NotStarted, PortTaken
from deploy.topics import apply_topics
from libs.common.service import Service
from libs.common.settings import Settings

log = structlog.get_logger()

CLUSTER = Path(__file__).parent / "kafka" / "cluster"
START_SECONDS = 60
STOP_SECONDS = 20
RESTART_SECONDS = 1.0


def create(name: str, settings: Settings) -> Service:
    """One service, made by its composition root. Raises LookupError, SettingsMissing."""
    if name not in SERVICES:
        raise LookupError(f"no service {name!r}: one of {', '.join(SERVICES)}")
    made: Service = importlib.import_module(f"services.{name}.app").create(settings)
    return made


class StoppedAtStart(NotStarted):
    """The system stopped while it was starting."""


class Server(uvicorn.Server):
    """A server whose services hear that it stops before it waits for what they still answer: a long poll would keep it
    until it is cut off."""

    def __init__(self, config: uvicorn.Config, services: Sequence[Service]) -> None:
        super().__init__(config)
        self._services = services

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped. uvicorn exits the process where a service refuses to start; its caller shall say why."""
        with suppress(SystemExit):
            await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the services answer whoever waits, then stop."""
        for service in self._services:
            service.stopping.set()
        await super().shutdown(sockets)

    def why_not(self, otherwise: Exception) -> Exception:
        """What kept it from starting, as far as a service said so."""
        failures = self.config.app.failures if isinstance(self.config.app, Host) else ()
        return NotStarted(f"{type(failures[0]).__name__}: {failures[0]}") if failures else otherwise


class _WithoutSignals(Server):
    """Leaves signals to whoever runs it: uvicorn raises them again when it has stopped, and nothing exits with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server(
    names: Sequence[str],
    settings: Settings,
    *,
    bind: str,
    port: int,
    extra: Callable[[], str] = str,
    kind: type[Server] = Server,
) -> Server:
    """A server of these services, not yet running."""
    services = [create(name, settings) for name in names]
    settings.require(*names)
    app = host(*services, extra=extra)
    config = uvicorn.Config(
        app, host=bind, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=STOP_SECONDS // 2
    )
    return kind(config, services)


def check_free(*ports: int) -> None:
    """Refuse to start on a port that is taken. Raises PortTaken."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise PortTaken(f"port {port} is taken; stop what listens there, or choose others: PORT=n") from error


@asynccontextmanager
async def together(
    local: Local, addresses: Addresses, *, extra: Callable[[], str] = str
) -> AsyncIterator[asyncio.Event]:
    """All five in this process. Yields an event that is set when the process is asked to stop."""
    check_free(addresses.port)
    local.claim("together")
    await local.prepare()
    stop = _stopped_by_signal()
    try:
        settings = local.settings(addresses)
        running = server(SERVICES, settings, bind="127.0.0.1", port=addresses.port, extra=extra, kind=_WithoutSignals)
        task = asyncio.create_task(running.serve(), name="server")
        task.add_done_callback(lambda _: stop.set())
        local.announce(addresses)
        try:
            await answering(addresses, stop)
            yield stop
        except StoppedAtStart as early:
            raise running.why_not(early) from None
        finally:
            running.should_exit = True
            await asyncio.wait([task], timeout=STOP_SECONDS)
    finally:
        await local.close()


@asynccontextmanager
async def apart(local: Local, addresses: Addresses, *, kafka: str | None = None) -> AsyncIterator[asyncio.Event]:
    """Five processes with Kafka; a process that dies is started again. A broker of our own where `kafka` is None."""
    check_free(*(addresses.port_of(service) for service in SERVICES))
    local.claim("apart")
    stop = _stopped_by_signal()
    own_cluster = kafka is None
    try:
        bootstrap = kafka or await _cluster(local, "up", "1")
        await asyncio.gather(local.prepare(), apply_topics(bootstrap))
        local.announce(addresses, kafka=bootstrap)
        environment = {**os.environ, **local.environment(addresses, kafka=bootstrap)}
        keepers = [asyncio.create_task(_keep(service, local, addresses, environment)) for service in SERVICES]
        try:
            await answering(addresses, stop)
            yield stop
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
    finally:
        await local.close()
        if own_cluster:
            await _cluster(local, "down")


def _stopped_by_signal() -> asyncio.Event:
    """Set when the process is asked to stop (Ctrl-C, SIGTERM)."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _keep(service: str, local: Local, addresses: Addresses, environment: dict[str, str]) -> None:
    """Run a service as a process of its own until cancelled, starting it again when it dies."""
    command = [
        sys.executable,
        "-m",
        "deploy.cli",
        "serve",
        service,
        "--port",
        str(addresses.port_of(service)),
        "--with-parent",
    ]
    while True:
        with (local.home / f"{service}.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
            raise
        await log.aerror("service died and is started again", service=service, code=code)
        await asyncio.sleep(RESTART_SECONDS)


async def _cluster(local: Local, *arguments: str) -> str:
    """Run the cluster's script; returns what it prints. In a thread: brokers outlive it, and must not hold its pipe."""
    environment = {**os.environ, "KAFKA_HOME": str(local.home / "kafka")}
    done = await asyncio.to_thread(
        subprocess.run,
        [str(CLUSTER), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout.decode().strip()


async def answering(addresses: Addresses, stop: asyncio.Event | None = None) -> None:
    """Wait until every service says it is ready. Raises TimeoutError, or StoppedAtStart."""
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(timeout=5) as client:
        for service in SERVICES:
            while not await _ready(client, f"{addresses.of(service)}/{service}/readyz"):
                if stop and stop.is_set():
                    raise StoppedAtStart("the system stopped while it was starting; its log says why")
                await asyncio.sleep(0.1)


async def _ready(client: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await client.get(address)).is_success
    except httpx.TransportError:
        return False


async def find_running(port: int) -> Addresses | None:
    """The system that answers at a port, in whichever form; None where none does."""
    async with httpx.AsyncClient(timeout=2) as client:
        for addresses in (Addresses(port, together=True), Addresses(port, together=False)):
            if await _ready(client, f"{addresses.of('intake')}/intake/livez"):
                return addresses
    return None


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies (Linux), so a killed supervisor leaves nothing behind."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
