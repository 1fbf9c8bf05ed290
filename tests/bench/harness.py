"""The protocol of a benchmark, and the run: contenders take turns, round by round, and ratios are judged on the worst.

A benchmark is a module with a `BENCHMARK`. Its `prepared` makes data and processes, gives the contenders by name, and
clears away when the block ends. One round lets every contender work once, or as many turns as the benchmark says, in
order (A B C A B C …); a contender gives its figures for each turn, and those of the round are what its turns came to
together. What is judged is a ratio of figures of one round, so that whatever slows the machine for a while slows both
sides.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean, mean
from typing import Any

from tests.bench.ground import Ground
from tests.bench.machine import Probe, probe

Figures = Mapping[str, float]
"""What a contender measured in one round, by name; `…/s` is a rate, `…_ms` a time."""
Contender = Callable[[], Awaitable[Figures]]
Round = Mapping[str, Figures]
"""The figures of one round, by contender."""

ROOT = Path(__file__).parents[2]
WORKER_SECONDS = 600


class Skipped(Exception):
    """Raised by `prepared`: this machine lacks what the benchmark needs."""


@dataclass(frozen=True)
class Judged:
    """A ratio with its floor: missed where the worst round is below. What must stay small is judged by its inverse."""

    name: str
    value: Callable[[Round], float]
    floor: float
    aim: float


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: `prepared(ground)` gives its contenders while its block lasts. Where a turn is so short that the
    machine's whims decide it, a round has several."""

    name: str
    prepared: Callable[[Ground], AbstractAsyncContextManager[Mapping[str, Contender]]]
    judged: Sequence[Judged] = ()
    turns: int = 1


@dataclass
class Measured:
    """What became of one benchmark: every round of every contender, and the machine before each."""

    benchmark: Benchmark
    rounds: list[Round] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)


def ratio(of: str, by: str, figure: str) -> Callable[[Round], float]:
    """The same figure of two contenders of a round, one divided by the other."""
    return lambda done: done[of][figure] / done[by][figure]


def together(turns: Sequence[Figures]) -> Figures:
    """What the turns of a round came to: rates of turns of the same work are all of the work by all of the time, which
    is their harmonic mean (of turns of the same time it is a little less, on both sides); of anything else the mean. A
    median would follow whichever of two speeds the machine had in one turn more than half."""
    return {
        figure: (harmonic_mean if figure.endswith("/s") else mean)([turn[figure] for turn in turns])
        for figure in turns[0]
    }


async def measure(benchmark: Benchmark, ground: Ground, rounds: int, say: Callable[[str], None]) -> Measured:
    """Run one benchmark. `say` hears of each round."""
    measured = Measured(benchmark)
    async with benchmark.prepared(ground) as contenders:
        for number in range(1, rounds + 1):
            taken: dict[str, list[Figures]] = {name: [] for name in contenders}
            for _ in range(benchmark.turns):
                for name, contender in contenders.items():
                    await ground.settle()
                    measured.probes.append(await asyncio.to_thread(probe, ground.folder))
                    taken[name].append(await contender())
                    told = ", ".join(f"{figure} {value:,.4g}" for figure, value in taken[name][-1].items())
                    say(f"{benchmark.name} {number}/{rounds}  {name}: {told}")
            measured.rounds.append({name: together(turns) for name, turns in taken.items()})
    return measured


async def in_processes(module: str, *arguments: Mapping[str, Any], python: str = sys.executable) -> list[Figures]:
    """Run `python -m module` once for each set of arguments (`worker` is their side); they begin at one moment, when
    all are ready. Gives the figures of each.

    Each contender has processes of its own: nothing that one loads, pools or leaves behind is there for the next.
    """
    processes = [await _started(python, module, given) for given in arguments]
    try:
        async with asyncio.timeout(WORKER_SECONDS):
            for process in processes:
                await _line(process, module)
            for process in processes:
                process.stdin.write(b"go\n")  # type: ignore[union-attr]  # a pipe was asked for
            return [json.loads(await _line(process, module)) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _started(python: str, module: str, given: Mapping[str, Any]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        python, "-m", module, json.dumps(given), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


async def _line(process: asyncio.subprocess.Process, module: str) -> bytes:
    line = await process.stdout.readline()  # type: ignore[union-attr]  # a pipe was asked for
    if not line:
        raise RuntimeError(f"{module} ended before its time, with {await process.wait()}")
    return line
