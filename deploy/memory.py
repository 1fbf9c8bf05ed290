"""How much memory the whole system takes: every process of ours, shared pages counted once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import psutil

SAMPLE_SECONDS = 2.0
MIB = 1024 * 1024


class Meter:
    """The highest sum seen so far, in MiB."""

    def __init__(self, roots: Callable[[], Iterable[psutil.Process]]) -> None:
        self._roots = roots
        self.peak_mb = 0.0

    def measure(self) -> None:
        """Look once at the roots, as they are now, and all that they started."""
        seen: dict[int, int] = {}
        for root in self._roots():
            for process in _family(root):
                seen[process.pid] = _proportional_set(process)
        self.peak_mb = max(self.peak_mb, sum(seen.values()) / MIB)


@asynccontextmanager
async def measured(roots: Callable[[], Iterable[psutil.Process]]) -> AsyncIterator[Meter]:
    """Measure every two seconds while this lasts."""
    meter = Meter(roots)

    async def watch() -> None:
        while True:
            await asyncio.to_thread(meter.measure)
            await asyncio.sleep(SAMPLE_SECONDS)

    task = asyncio.create_task(watch())
    try:
        yield meter
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        meter.measure()


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _proportional_set(process: psutil.Process) -> int:
    """PSS, so PostgreSQL's shared buffers count once; the resident set where the kernel does not tell."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
