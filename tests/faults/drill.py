"""One drill: start, load, a calm look, fault after fault with the time to recover, then rest and judgement."""

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy.sample.client import Refused, StayedAway
from tests.faults import judge, log
from tests.faults.filing import ProbeRefused
from tests.faults.load import Load, loaded
from tests.faults.plan import Fault
from tests.faults.strikes import STRIKES, Stage
from tests.faults.system import ROOT, running
from tests.faults.waiting import until


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds: for the recovery from one fault, and for rest at the end."""

    recovery: float = 120.0
    rest: float = 300.0

    def times(self, factor: float) -> "Patience":
        """So many times more."""
        return Patience(self.recovery * factor, self.rest * factor)


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


async def drill(
    seed: int,
    faults: Sequence[Fault],
    *,
    base: int,
    rate: float,
    say: Say,
    tree: Path = ROOT,
    patience: Patience = Patience(),
) -> Result:
    """Run the faults against the code in `tree`, on a hundred ports from `base` on, at `rate` filings a second. Raises
    Refusal where the engines or services of the drill do not start. What breaks it off later is a violation: the load
    asks for nothing that a platform under faults may refuse."""
    began, result = time.monotonic(), Result(seed)
    async with running(base, tree) as system:
        say(f"up after {time.monotonic() - began:.0f} s: ten processes, three brokers, PostgreSQL; {system.folder}")
        try:
            async with loaded(system, seed, rate) as load:
                await _Drill(load, result, patience, say).run(faults)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
            say(traceback.format_exc())
            result.violations.append(f"the drill broke off: {error!r}")
        if result.violations:
            system.keep()
            say(f"violated, first: {result.violations[0]}; logs and data stay in {system.folder}")
        result.seconds = round(time.monotonic() - began, 1)
    return result


class _Drill:
    def __init__(self, load: Load, result: Result, patience: Patience, say: Say) -> None:
        self._load = load
        self._result = result
        self._patience = patience
        self._say = say

    async def run(self, faults: Sequence[Fault]) -> None:
        """The calm look, the faults, the calm look again, the judgement."""
        try:
            await self._faults_and_judgement(faults)
        finally:
            self._violated(self._load.violations)

    async def _faults_and_judgement(self, faults: Sequence[Fault]) -> None:
        self._result.calm_seconds = await self._calm("before any fault") or 0.0
        start = time.monotonic()
        for fault in faults:
            await asyncio.sleep(fault.after)
            struck = await self._strike(fault, start)
            self._result.faults.append(struck)
            self._say(_line(struck))
            if struck.recovery is None:
                self._violated([f"no recovery within {self._patience.recovery:.0f} s after {fault}"])
                break
        else:
            await self._calm("after the last fault")
        chained = await judge.chained(self._load.system)
        await self._rest()
        await self._due_work(chained)
        await self._judge()

    def _violated(self, found: Sequence[str]) -> None:
        self._result.violations += found

    async def _calm(self, when: str) -> float | None:
        """While nothing is disturbed: how long a probe takes, None for too long, and that nothing is published twice.
        After faults too: a leader that lost its lock in one must not relay on."""
        async with log.opened(self._load.system.brokers.direct) as bus:
            since = await log.ends(bus)
            recovery = await self._recovered()
            twice = await log.repeated(bus, since, await log.ends(bus))
        self._violated([f"published twice while nothing was disturbed, {when}: {event}" for event in twice[:10]])
        if recovery is None:
            self._violated([f"a probe took more than {self._patience.recovery:.0f} s {when}"])
            return None
        self._say(f"calm {when}: a probe takes {recovery:.1f} s")
        return recovery

    async def _due_work(self, chained: int) -> None:
        """That what is due is done: what was chained when the faults were over is anchored, within a minute if the
        ticker ticks. Taken from the due work and not done, it would be missed by nobody else."""
        try:
            await until(lambda: judge.anchored(self._load.system, chained), seconds=self._patience.recovery)
        except TimeoutError:
            self._violated([f"the due work is not done: no anchor of the trail at {chained} or behind"])

    async def _strike(self, fault: Fault, start: float) -> Struck:
        at = time.monotonic() - start
        stage = Stage(self._load.system, self._load.bank, self._load.portal, self._violated)
        async with STRIKES[fault.kind](stage, fault) as what:
            await asyncio.sleep(fault.seconds)
        return Struck(fault.number, fault.kind, what, fault.seconds, round(at, 1), await self._recovered())

    async def _recovered(self) -> float | None:
        """Seconds until an application filed now is through and all ten processes are ready; None where that takes too
        long."""
        began, bound = time.monotonic(), self._patience.recovery
        try:
            async with asyncio.timeout(bound):
                filed = await self._load.portal.probe()
                await until(lambda: self._load.through(filed), seconds=bound)
                await until(self._load.system.all_ready, seconds=bound)
        except (TimeoutError, StayedAway, Refused, ProbeRefused) as error:
            self._say(f"not recovered: {error!r}")
            return None
        return round(time.monotonic() - began, 1)

    async def _rest(self) -> None:
        self._say("no more filings; waiting until all is at rest")
        under_way = await self._load.rest(self._patience.rest)
        if not under_way:
            await self._load.close_months()
            under_way = await self._load.rest(self._patience.rest)
        self._violated([f"not at rest: {each}" for each in under_way[:10]])

    async def _judge(self) -> None:
        load, result = self._load, self._result
        result.applications = len(load.portal.filings.applications())
        result.payments = load.bank.credited.total()
        self._say(f"judging {result.applications} applications, {result.payments} payments")
        result.findings, violated = await judge.verified(load.system)
        self._violated(violated)
        for look in (judge.led(load.system), judge.acknowledged(load), judge.as_the_bank_says(load)):
            self._violated(await look)


def _line(struck: Struck) -> str:
    recovery = "NOT RECOVERED" if struck.recovery is None else f"recovered in {struck.recovery:.1f} s"
    return (
        f"{struck.at:7.1f} s  {struck.number:4}  {struck.kind}: {struck.target}, held {struck.held:.1f} s, {recovery}"
    )
