"""What each kind of fault does to the running system: each is a block, and what it does lasts as long as the block."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.faults import log, parking
from tests.faults.bank import Bank, Mood
from tests.faults.filing import Portal
from tests.faults.plan import BROKERS, PROCESSES, Fault
from tests.faults.system import System


@dataclass(frozen=True)
class Stage:
    """What a fault may strike, and where it tells of what must not have come of it."""

    system: System
    bank: Bank
    portal: Portal
    violated: Callable[[Sequence[str]], None]


Strike = Callable[[Stage, Fault], AbstractAsyncContextManager[str]]
"""The block gives in words what was struck."""

POISONED_AT_ONCE = 4
BALLAST = 1024 * 1024


def _broker(fault: Fault) -> int:
    return int(fault.target.rsplit("-", 1)[1])


@asynccontextmanager
async def kill_process(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """`kill -9` of a process of a service; whoever supervises starts it again."""
    stage.system.processes[fault.target].send(signal.SIGKILL)
    yield fault.target


@asynccontextmanager
async def kill_leader(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """The same of the process that relays and ticks for its service at this moment."""
    leader = await stage.system.leader(fault.target)
    stage.system.processes[leader].send(signal.SIGKILL)
    yield leader


@asynccontextmanager
async def kill_broker(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """`kill -9` of a broker; it is started again on its data."""
    stage.system.brokers.send(_broker(fault), signal.SIGKILL)
    yield fault.target


@asynccontextmanager
async def kill_postgres(stage: Stage, _fault: Fault) -> AsyncIterator[str]:
    """`kill -9` of the postmaster and of all it started; it is started again and recovers from its log."""
    await stage.system.postgres.ready()
    _kill(stage.system.postgres.processes())
    yield "postgres"


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@asynccontextmanager
async def kill_backend(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """`kill -9` of the server's processes for one database: PostgreSQL ends all others and recovers."""
    killed = stage.system.postgres.processes(of=fault.target)
    _kill(killed)
    yield f"{len(killed)} backends of {fault.target}"


@asynccontextmanager
async def kill_leader_in_flight(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """All brokers hang, so that events are on their way and not confirmed; then their relay is killed, and the brokers
    with all that waits for them on the wire: to a broker that only hung it would come in the end."""
    brokers = stage.system.brokers
    for number in BROKERS:
        brokers.send(number, signal.SIGSTOP)
    try:
        leader = await stage.system.leader(fault.target)
        yield leader
        stage.system.processes[leader].send(signal.SIGKILL)
    finally:
        for number in BROKERS:
            brokers.send(number, signal.SIGKILL)


@asynccontextmanager
async def kill_postgres_in_flight(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """Every way to the database is slow, so that transactions are under way; then PostgreSQL is killed."""
    async with AsyncExitStack() as slowed:
        for name in PROCESSES:
            await slowed.enter_async_context(stage.system.proxies.slow(name, fault.size))
        yield f"postgres, {fault.size} ms"
        _kill(stage.system.postgres.processes())


@asynccontextmanager
async def pause_process(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """SIGSTOP, then SIGCONT: it knows nothing of the time between, and others may have taken over."""
    with _paused(stage.system.processes[fault.target].send):
        yield fault.target


@asynccontextmanager
async def pause_leader(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """The same of the process that leads its service at this moment."""
    leader = await stage.system.leader(fault.target)
    with _paused(stage.system.processes[leader].send):
        yield leader


@contextmanager
def _paused(send: Callable[[signal.Signals], None]) -> Iterator[None]:
    send(signal.SIGSTOP)
    try:
        yield
    finally:
        send(signal.SIGCONT)


@asynccontextmanager
async def pause_broker(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """SIGSTOP, then SIGCONT of a broker."""
    with _paused(partial(stage.system.brokers.send, _broker(fault))):
        yield fault.target


@asynccontextmanager
async def cut(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """Nothing comes through between a process and its database, or between the processes -0 and a broker."""
    async with stage.system.proxies.cut(fault.target):
        yield fault.target


@asynccontextmanager
async def slow(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """Everything on that way takes longer by `size` to twice `size` milliseconds."""
    async with stage.system.proxies.slow(fault.target, fault.size):
        yield f"{fault.target}, {fault.size} ms"


@asynccontextmanager
async def reset(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """Every connection on that way is reset."""
    async with stage.system.proxies.reset(fault.target):
        yield fault.target


@asynccontextmanager
async def fill_disk(stage: Stage, _fault: Fault) -> AsyncIterator[str]:
    """No byte is left on the disk of the services' files (logs, anchors, keys). Where no disk of their own could be
    mounted, no process may make a file longer instead (RLIMIT_FSIZE)."""
    if stage.system.own_disk:
        ballast = stage.system.home / "ballast"
        await asyncio.to_thread(_fill, ballast)
        try:
            yield "disk of the services' files"
        finally:
            ballast.unlink()
        return
    pids = [pid for name in PROCESSES if (pid := stage.system.processes[name].pid)]
    for pid in pids:
        _limit_files(pid, 0)
    try:
        yield "file size of every process"
    finally:
        for pid in pids:
            _limit_files(pid, resource.RLIM_INFINITY)


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        for size in (BALLAST, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def _limit_files(pid: int, size: int) -> None:
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@asynccontextmanager
async def clock_ahead(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """The clock of one process is `size` seconds ahead; its monotonic clock is not touched."""
    async with _clock(stage.system, fault.target, fault.size):
        yield f"{fault.target}, {fault.size} s"


@asynccontextmanager
async def clock_back(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """The same, behind."""
    async with _clock(stage.system, fault.target, -fault.size):
        yield f"{fault.target}, {fault.size} s"


@asynccontextmanager
async def _clock(system: System, name: str, seconds: int) -> AsyncIterator[None]:
    _set(system.clock(name), seconds)
    try:
        yield
    finally:
        _set(system.clock(name), 0)


def _set(clock: Path, seconds: int) -> None:
    draft = clock.with_suffix(".new")
    draft.write_text(f"{seconds:+d}")
    draft.replace(clock)


@asynccontextmanager
async def duplicates(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """The last records of every log once more, as a relay sends them that was killed before it marked them."""
    async with log.opened(stage.system.brokers.direct) as bus:
        sent = await log.publish_again(bus, fault.size)
    yield f"{sent} records"


@asynccontextmanager
async def poison(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """Records that nobody can handle, under keys of applications that were filed just now. Once every reader has parked
    them, and later events of their keys stand behind them, they are discarded with `huanquan parked discard`."""
    under_way = [(await stage.portal.probe()).id for _ in range(POISONED_AT_ONCE)]
    async with log.opened(stage.system.brokers.direct) as bus:
        mark = await log.publish_poison(bus, fault.target, fault.size, under_way)
        await parking.until_read(stage.system, bus, fault.target)
        queued = await parking.queue(stage.system, mark)
        stage.violated(await parking.overtook(stage.system, bus, mark))
        yield f"{fault.target}, {queued} queued behind"
    await parking.discard(stage.system, mark)


@asynccontextmanager
async def bank(stage: Stage, fault: Fault) -> AsyncIterator[str]:
    """The bank answers twice, late, or not at all until somebody enquires."""
    with stage.bank.in_mood(Mood(fault.kind.removeprefix("bank "))):
        yield fault.kind


STRIKES: Mapping[str, Strike] = {
    "kill process": kill_process,
    "kill leader": kill_leader,
    "kill broker": kill_broker,
    "kill postgres": kill_postgres,
    "kill backend": kill_backend,
    "kill leader in flight": kill_leader_in_flight,
    "kill postgres in flight": kill_postgres_in_flight,
    "pause process": pause_process,
    "pause leader": pause_leader,
    "pause broker": pause_broker,
    "cut database": cut,
    "slow database": slow,
    "reset database": reset,
    "cut broker": cut,
    "slow broker": slow,
    "reset broker": reset,
    "fill disk": fill_disk,
    "clock ahead": clock_ahead,
    "clock back": clock_back,
    "duplicates": duplicates,
    "poison": poison,
    "bank twice": bank,
    "bank late": bank,
    "bank never": bank,
}
