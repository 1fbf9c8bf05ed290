"""One drill: start, load, a calm look, fault after fault with the time to recover, then rest and judgement."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy.sample.client import Refused, StayedAway
from tests.faults import judge, log
from tests.faults.load import Load, loaded
from tests.faults.plan import Fault
from tests.faults.strikes import STRIKES, Stage
from tests.faults.system import ROOT, running
from tests.faults.waiting import until

RECOVERY_SECONDS = 120.0
REST_SECONDS = 300.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Struck:
    """A fault as it went: `at` seconds after the load began; `recovery` seconds after it was over, None for never."""

    number: int
    kind: str
    target: str
    held: float
    at: float
    recovery: float | None


@dataclass
class Result:
    """What a drill came to."""

    seed: int
    calm_seconds: float = 0.0
    faults: list[Struck] = field(default_factory=list)
    applications: int = 0
    payments: int = 0
    findings: list[dict[str, object]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The form of the file."""
        return {"passed": not self.violations, **asdict(self)}


async def drill(seed: int, faults: Sequence[Fault], *, base: int, rate: float, say: Say, tree: Path = ROOT) -> Result:
    """Run the faults against the code in `tree`. Raises Refusal where the drill itself cannot be done."""
    began, result = time.monotonic(), Result(seed)
    async with running(base, tree) as system:
        say(f"up after {time.monotonic() - began:.0f} s: ten processes, three brokers, PostgreSQL; {system.folder}")
        async with loaded(system, seed, rate) as load:
            await _calm(load, result, say)
            start = time.monotonic()
            for fault in faults:
                await asyncio.sleep(fault.after)
                struck = await _strike(load, fault, start)
                result.faults.append(struck)
                say(_line(struck))
                if struck.recovery is None:
                    result.violations.append(f"no recovery within {RECOVERY_SECONDS:.0f} s after {fault}")
                    break
            await _judge(load, result, say)
        if result.violations:
            system.keep()
            say(f"violated; logs and data stay in {system.folder}")
        result.seconds = round(time.monotonic() - began, 1)
    return result


async def _calm(load: Load, result: Result, say: Say) -> None:
    """Before any fault: how long a probe takes, and that nothing is published twice."""
    async with log.opened(load.system.brokers.direct) as bus:
        since = await log.ends(bus)
        recovery = await _recovered(load)
        if recovery is None:
            result.violations.append(f"a probe took more than {RECOVERY_SECONDS:.0f} s before any fault")
            return
        twice = await log.repeated(bus, since, await log.ends(bus))
    result.violations += [f"published twice while nothing was disturbed: {event}" for event in twice[:10]]
    result.calm_seconds = recovery
    say(f"calm: a probe takes {recovery:.1f} s")


async def _strike(load: Load, fault: Fault, start: float) -> Struck:
    at = time.monotonic() - start
    async with STRIKES[fault.kind](Stage(load.system, load.bank), fault) as what:
        await asyncio.sleep(fault.seconds)
    return Struck(fault.number, fault.kind, what, fault.seconds, round(at, 1), await _recovered(load))


async def _recovered(load: Load) -> float | None:
    """Seconds until all ten processes are ready and an application filed now is through; None where that takes too
    long."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(RECOVERY_SECONDS):
            filed = await load.portal.probe()
            await until(lambda: load.through(filed), seconds=RECOVERY_SECONDS)
            await until(load.system.all_ready, seconds=RECOVERY_SECONDS)
    except (TimeoutError, StayedAway, Refused):
        return None
    return round(time.monotonic() - began, 1)


async def _judge(load: Load, result: Result, say: Say) -> None:
    say("no more filings; waiting until all is at rest")
    under_way = await load.rest(REST_SECONDS)
    result.violations += [f"not at rest: {each}" for each in under_way[:10]]
    if not under_way:
        await load.close_months()
        await load.rest(REST_SECONDS)
    result.applications = len(load.portal.filings.applications())
    result.payments = load.bank.credited.total()
    say(f"judging {result.applications} applications, {result.payments} payments")
    result.findings, violated = await judge.verified(load.system)
    result.violations += violated
    result.violations += await judge.led(load.system)
    result.violations += await judge.acknowledged(load)
    result.violations += await judge.as_the_bank_says(load)


def _line(struck: Struck) -> str:
    recovery = "NOT RECOVERED" if struck.recovery is None else f"recovered in {struck.recovery:.1f} s"
    return (
        f"{struck.at:7.1f} s  {struck.number:4}  {struck.kind}: {struck.target}, held {struck.held:.1f} s, {recovery}"
    )
