"""Settlement, reconciliation and trail verification against size: 10^4, 10^5 and 10^6 rows of ledger and of trail; and
screening and simulation, of as many people.

Each size is worked by a process of its own, which tells its time and its peak memory; the largest once, in the first
round, whose figures stand for it in all. Judged is, as ratios that fall where growth is worse than asked: the speed
that is kept from one power of ten to the next, fitted over all sizes or, where that is less, over the last two (1 is
linear growth, 10^-0.1 an exponent of 1.1); and the memory of 10^5 rows by that of 10^6.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from services.audit.models import metadata as audit
from services.finance.models import metadata as finance
from tests.bench import books
from tests.bench.ground import Ground
from tests.bench.growth_trail import fill
from tests.bench.harness import Benchmark, Contender, Figures, Judged, Round, in_processes

SIZES = (10_000, 100_000, 1_000_000)
WORKER = "tests.bench.growth_worker"
LINEAR, NEARLY_LINEAR = 10**-0.05, 10**-0.1
FLAT, NEARLY_FLAT = 1 / 1.1, 1 / 1.3


@asynccontextmanager
async def of_books(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """Books of each size, one after another: settlement and reconciliation."""
    async with AsyncExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for size in SIZES:
            name = await stack.enter_async_context(ground.database(finance, "finance"))
            await ground.execute(name, *books.paid(size // books.ENTRIES))
            url = ground.postgres.url(name, "finance_app")
            for job in ("settlement", "reconciliation"):
                contenders[f"{job} {size}"] = _turn(job, url, size)
        yield contenders


@asynccontextmanager
async def of_trails(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """Trails of each size."""
    async with AsyncExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for size in SIZES:
            name = await stack.enter_async_context(ground.database(audit, "audit"))
            await fill(ground.postgres.url(name, "audit_app"), size)
            await ground.execute(name, "VACUUM ANALYZE")
            contenders[f"trail {size}"] = _turn("trail", ground.postgres.url(name, "audit_app"), size)
        yield contenders


@asynccontextmanager
async def of_people(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """So many people, whose facts are all that there is of them; the database stays empty."""
    async with ground.empty_database() as name:
        url = ground.postgres.url(name, "bench_app")
        yield {f"{job} {size}": _turn(job, url, size) for job in ("screening", "simulation") for size in SIZES}


def _turn(job: str, url: str, size: int) -> Contender:
    """One size in each round; the largest in the first alone: in each it would be seven minutes more."""
    known: list[Figures] = []

    async def turn() -> Figures:
        if size < SIZES[-1] or not known:
            known.append(await _worked(job, url, size))
        return known[-1]

    return turn


async def _worked(job: str, url: str, size: int) -> Figures:
    return (await in_processes(WORKER, {"job": job, "url": url, "size": size}))[0]


def exponent(job: str, done: Round) -> float:
    """The slope of log time over log size: of the line fitted to all sizes, or of the last step where that is steeper.
    Least squares through three sizes at equal steps are the line from the first to the last: what costs the same at
    every size, and is most of the smallest, would hide what grows between the others."""
    times = [math.log10(done[f"{job} {size}"]["seconds"]) for size in SIZES]
    return max((times[2] - times[0]) / 2, times[2] - times[1])


def _kept_speed(job: str) -> Callable[[Round], float]:
    return lambda done: float(10 ** (1 - exponent(job, done)))


def _flatness(job: str) -> Callable[[Round], float]:
    return lambda done: done[f"{job} {SIZES[1]}"]["peak_mib"] / done[f"{job} {SIZES[2]}"]["peak_mib"]


def _judged(*jobs: str) -> Iterator[Judged]:
    for job in jobs:
        yield Judged(f"{job}: speed kept at ten times the size", _kept_speed(job), NEARLY_LINEAR, LINEAR)
        yield Judged(f"{job}: memory at 10^5 ÷ at 10^6", _flatness(job), NEARLY_FLAT, FLAT)


BENCHMARKS = (
    Benchmark("growth-books", of_books, tuple(_judged("settlement", "reconciliation"))),
    Benchmark("growth-trail", of_trails, tuple(_judged("trail"))),
    Benchmark("growth-people", of_people, tuple(_judged("screening", "simulation"))),
)
