"""The two forms of the system: five services in one process, or five processes with Kafka between them."""

import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import structlog
import uvicorn
from aiokafka.errors import KafkaError

from deploy.engine import SERVICES, check_service
from deploy.host import Host, host
from deploy.keeper import keep
from deploy.local import Addresses, Local
from deploy.refusals import NotStarted, PortTaken, Refusal
from deploy.topics import TopicsDifferError, apply_topics
from libs.common.connection import Connection
from libs.common.service import Service
from libs.common.settings import Settings, variable

log = structlog.get_logger()

CLUSTER = Path(__file__).parent / "kafka" / "cluster"
START_SECONDS = 60
STOP_SECONDS = 20
RESTART_SECONDS = 1.0


def create(name: str, settings: Settings) -> Service:
    """One service, made by its composition root. Raises LookupError, SettingsMissing."""
    check_service(name)
    made: Service = importlib.import_module(f"services.{name}.app").create(settings)
    return made


class StoppedAtStart(NotStarted):
    """The system stopped while it was starting."""


class Interrupted(StoppedAtStart):
    """It was asked to stop while it was starting."""


class Stop(asyncio.Event):
    """Set when the system stops; `asked` says that somebody wanted it: Ctrl-C, SIGTERM, or the terminal was closed."""

    asked = False

    def ask(self) -> None:
        """Ask the system to stop."""
        self.asked = True
        self.set()

    def check(self) -> None:
        """Raises StoppedAtStart where it is set."""
        if self.asked:
            raise Interrupted("stopped while it was starting")
        if self.is_set():
            raise StoppedAtStart("the system stopped while it was starting; its log says why")


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
    settings.require(*names)  # first: it names everything that is missing
    if not settings.policies.is_dir():
        raise NotStarted(f"{variable('policies')}: there is no folder {settings.policies}")
    services = [create(name, settings) for name in names]
    app = host(*services, extra=extra)
    config = uvicorn.Config(
        app,
        host=bind,
        port=port,
        http=Connection,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_SECONDS // 2,
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
async def together(local: Local, addresses: Addresses, *, extra: Callable[[], str] = str) -> AsyncIterator[Stop]:
    """All five in this process. Yields an event that is set when the system stops. Raises Refusal, at the end too where
    the system stopped by itself."""
    check_free(addresses.port)
    stop = stopped_by_signal()
    local.claim("together")
    try:
        await local.prepare(stop)
        stop.check()
        settings = local.settings(addresses)
        running = server(SERVICES, settings, bind="127.0.0.1", port=addresses.port, extra=extra, kind=_WithoutSignals)
        task = asyncio.create_task(running.serve(), name="server")
        task.add_done_callback(lambda _: stop.set())
        local.announce(addresses)
        async with _watched(stop, _keep_postgres(local)):
            try:
                await answering(addresses, stop)
                yield stop
                if task.done():
                    raise NotStarted(f"the services stopped by themselves; {local.log} says why")
            except StoppedAtStart as early:
                raise running.why_not(early) from None
            finally:
                running.should_exit = True
                await asyncio.wait([task], timeout=STOP_SECONDS)
    finally:
        await local.close()


@asynccontextmanager
async def apart(local: Local, addresses: Addresses, *, kafka: str | None = None) -> AsyncIterator[Stop]:
    """Five processes with Kafka; a process that dies is started again. A broker of our own where `kafka` is None.
    Raises Refusal as `together` does."""
    check_free(*(addresses.port_of(service) for service in SERVICES))
    stop = stopped_by_signal()
    local.claim("apart")
    try:
        _check_compared(local)
        bootstrap = kafka or await _cluster(local, "up", "1", stop=stop)
        stop.check()
        await asyncio.gather(local.prepare(stop), make_topics(bootstrap))
        stop.check()
        local.announce(addresses, kafka=bootstrap)
        environment = {**os.environ, **local.environment(addresses, kafka=bootstrap)}
        services = [_keep(service, local, addresses, environment) for service in SERVICES]
        broker = [] if kafka else [_keep_broker(local)]
        async with _watched(stop, _keep_postgres(local), *broker, *services):
            await answering(addresses, stop)
            yield stop
    finally:
        await local.close()
        if kafka is None:
            await _cluster(local, "down")


@asynccontextmanager
async def _watched(stop: Stop, *jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run jobs for as long as this lasts. One that ends stops the system, and what it refused is raised at the end."""
    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for refusal in outcomes:
            if isinstance(refusal, Refusal):
                raise refusal


def stopped_by_signal() -> Stop:
    """Set when the process is asked to stop. A second Ctrl-C changes nothing: it stops already."""
    stop = Stop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop.ask)
    return stop


async def _keep_postgres(local: Local) -> None:
    await keep("PostgreSQL", alive=lambda: local.postgres.is_up, start=lambda: asyncio.to_thread(local.postgres.start))


async def _keep_broker(local: Local) -> None:
    await keep("the Kafka broker", alive=lambda: bool(brokers(local)), start=lambda: _cluster(local, "start", "1"))


def brokers(local: Local) -> list[psutil.Process]:
    """The processes of the home's own cluster. A process id that was given to somebody else since is not one."""
    folder = local.home / "kafka"
    found = []
    for file in folder.glob("[1-9].pid"):
        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(file.read_text()))
            if process.cwd() == str(folder) and f"{file.stem}.properties" in process.cmdline():
                found.append(process)
    return found


@asynccontextmanager
async def own_broker(local: Local) -> AsyncIterator[str]:
    """The home's own broker while nothing else runs on it, with the topics. Raises NotStarted."""
    local.claim("apart")
    try:
        bootstrap = await _cluster(local, "up", "1")
        await make_topics(bootstrap)
        yield bootstrap
    finally:
        await _cluster(local, "down")
        local.release()


def wipe_brokers(local: Local) -> None:
    """Stop the home's own cluster and delete its data. Raises NotStarted where it says why it cannot."""
    if (local.home / "kafka").exists():
        done = subprocess.run([str(CLUSTER), "wipe"], env=_of_cluster(local), check=False)  # noqa: S603 - our own script
        _check(done.returncode)


async def _keep(service: str, local: Local, addresses: Addresses, environment: dict[str, str]) -> None:
    """Run a service as a process of its own until cancelled, starting it again when it dies."""
    command = [
        sys.executable,
        "-m",
        "deploy.entry",
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


def _check_compared(local: Local) -> None:
    if local.restored.exists():
        what = f"{local.home} was restored, and its bus may know more than its databases, or less"
        raise NotStarted(f"{what}: `huanquan bus-diff` shows it, `huanquan bus-diff --mend` sets it right")


async def _cluster(local: Local, *arguments: str, stop: Stop | None = None) -> str:
    """Run the cluster's script; returns what it prints. In a thread: brokers outlive it, and must not hold its pipe.
    It is broken off when `stop` is set. Raises NotStarted."""
    script = subprocess.Popen(  # noqa: ASYNC220, S603 - our own script; only forks here
        [str(CLUSTER), *arguments], env=_of_cluster(local), stdout=subprocess.PIPE, start_new_session=True
    )
    ended = asyncio.create_task(asyncio.to_thread(script.communicate))
    if stop:
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
        if not asked.cancel():
            with suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGTERM)
    printed, _ = await asyncio.shield(ended)
    if stop:
        stop.check()
    _check(script.returncode)
    return printed.decode().strip()


async def make_topics(bootstrap: str) -> None:
    """Make the topics that brokers do not have yet. Raises NotStarted."""
    try:
        await apply_topics(bootstrap)
    except (KafkaError, TimeoutError, TopicsDifferError) as error:
        raise NotStarted(f"Kafka at {bootstrap}: {error or type(error).__name__}") from error


def _of_cluster(local: Local) -> dict[str, str]:
    return {**os.environ, "KAFKA_HOME": str(local.home / "kafka")}


def _check(returncode: int) -> None:
    if returncode:
        raise NotStarted("the Kafka cluster did not do what it was asked; what it said stands above")


async def answering(addresses: Addresses, stop: Stop | None = None) -> None:
    """Wait until every service says it is ready. Raises NotStarted."""
    until = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(timeout=5) as client:
        for service in SERVICES:
            while not await _ready(client, f"{addresses.of(service)}/{service}/readyz"):
                if stop:
                    stop.check()
                if time.monotonic() > until:
                    raise NotStarted(f"{service} is not ready after {START_SECONDS} s; its log says why")
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
