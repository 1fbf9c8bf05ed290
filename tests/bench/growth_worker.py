"""Contenders of the growth benchmarks: one job on data of one size, with its time and this process's peak memory."""

import time
from datetime import UTC, date, datetime
from itertools import cycle, islice
from pathlib import Path

import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import Database
from libs.common.policy import Facts, Pack, Screening
from libs.common.policy.simulation import Simulation, drawn
from services.audit.trail import verify_trail
from services.finance import reconcile, settlement
from tests.bench import books
from tests.bench.worker import ready, serve
from tests.common.packs import anyang
from tests.finance.builders import COUNTY

_CHECK_NOW = text("SET CONSTRAINTS ALL IMMEDIATE")


class _Undone(Exception):
    """Raised so that the same month can be closed at the next turn."""


async def settle(tx: AsyncConnection, pack: Pack, size: int) -> None:
    """Close the month and settle it, to the fen, with every deferred check."""
    now = datetime.now(UTC)
    closing = await settlement.close(tx, pack, treasury=COUNTY, month=books.MONTH, reason=None, actor="bench", now=now)
    await tx.execute(_CHECK_NOW)
    if closing.fen != size // books.ENTRIES * books.CITYS:
        raise RuntimeError(f"settled {closing.fen}")
    raise _Undone


async def reconciled(tx: AsyncConnection, _pack: Pack, size: int) -> None:
    """Every invariant of finance."""
    report = await reconcile.report(tx)
    if report.differences or sum(report.paid.values()) != size // books.ENTRIES * books.BOTH:
        raise RuntimeError(str(report))


async def verified(tx: AsyncConnection, _pack: Pack, size: int) -> None:
    """The whole trail, entry by entry."""
    verdict = await verify_trail(tx)
    if not verdict.verified or verdict.entries != size:
        raise RuntimeError(str(verdict))


async def screened(_tx: AsyncConnection, pack: Pack, size: int) -> None:
    """What so many people are entitled to: half of them to something."""
    screening = Screening(pack, DAY)
    found = sum(bool(screening.entitled(facts)) for facts in islice(cycle(PEOPLE), size))
    if found != size // 2:
        raise RuntimeError(f"{found} are entitled")


async def simulated(_tx: AsyncConnection, pack: Pack, size: int) -> None:
    """What so many people cost over ten years, each of them another."""
    simulation = Simulation(pack)
    for people in drawn(pack, size, first_year=DAY.year, years=10, seed=size):
        simulation.take(people)
    if simulation.account.outcomes.total() != size or not simulation.account.fen:
        raise RuntimeError(str(simulation.account.outcomes))


DAY = date(2026, 3, 2)
SOUND: Facts = {"employer.good_standing": True, "employer.demand_declared": True}
PEOPLE: tuple[Facts, ...] = (
    {**SOUND, "person.degree": "doctor"},
    {**SOUND, "person.degree": "none"},
    {"person.startup_here": True, "person.household_here": False, "person.insured_here": False},
    {"person.degree": "master"},
)
JOBS = {
    "settlement": settle,
    "reconciliation": reconciled,
    "trail": verified,
    "screening": screened,
    "simulation": simulated,
}


async def measure(*, job: str, url: str, size: int) -> dict[str, float]:
    """Do it once."""
    database, pack = Database(url), anyang()
    await database.reachable()
    ready()
    began = time.perf_counter()
    try:
        async with database.transaction() as tx:
            await JOBS[job](tx, pack, size)
    except _Undone:
        pass
    took = time.perf_counter() - began
    await database.close()
    return {"seconds": took, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """The most memory that this program has had at a time. `ru_maxrss` would be that of whoever started it, where that
    was more."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) / 1024


def work(*, job: str, url: str, size: int) -> dict[str, float]:
    """The process."""
    return uvloop.run(measure(job=job, url=url, size=size))


if __name__ == "__main__":
    serve(work)
