"""Who files: sample populations of ever new people, at a rate, and the probes that recovery is measured with."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from deploy.sample.client import Platform, Refused, StayedAway
from deploy.sample.filings import item
from deploy.sample.generate import Population, certification
from deploy.sample.lines import Line
from deploy.sample.portal import Filed, Filings, certification_number
from libs.common.treasuries import EmployerKind

PROBES = "410505"
"""The treasury that probes belong to, whose departments follow the long poll."""

BULK = 5
AT_WORK = 12
_NUMBERS = re.compile(r'"documents": \[\{"type": "\w+", "number": "([^"]+)"')


class People:
    """Populations in which nobody comes twice."""

    def __init__(self, seed: int) -> None:
        self._seeds = count(seed * 100_000 + 1)
        self._seen: set[str] = set()

    def populations(self) -> Iterator[list[Line]]:
        """The sample's lines with other people, under keys and numbers of their own, without end."""
        for seed in self._seeds:
            lines = Population(seed).fill()
            if self._new(*lines):
                yield [_own(line, seed) for line in lines]

    def probe(self) -> Line:
        """A filing for money and for a flat, by somebody new."""
        while True:
            seed = next(self._seeds)
            items = [certification("master"), item("living_allowance"), item("talent_flat")]
            draft = Population(seed).draft(PROBES, items, EmployerKind.INSTITUTION)
            line = Line(f"probe-{seed}", wave=1, role="portal", body=draft.body(), expect={"state": "closed"})
            if self._new(line):
                return line

    def _new(self, *lines: Line) -> bool:
        numbers = {number for line in lines for number in _NUMBERS.findall(json.dumps(line.body))}
        if numbers & self._seen:
            return False
        self._seen |= numbers
        return True


def _own(line: Line, seed: int) -> Line:
    refs = [ref | {"value": f"{seed}-{ref['value']}"} for ref in line.body.get("external_refs", ())]
    expect = dict(line.expect)
    if line.then and line.then.get("withdraw"):
        del expect["state"]  # whether it still counts depends on who is quicker
    return replace(
        line,
        key=f"{seed}-{line.key}",
        certification_of=line.certification_of and f"{seed}-{line.certification_of}",
        body=line.body | ({"external_refs": refs} if refs else {}),
        expect=expect,
    )


class ProbeRefused(Exception):
    """A probe was answered otherwise than by taking it in."""


class Portal:
    """Files until it is stopped. `filings` has what was acknowledged, `violations` what must not have been."""

    def __init__(self, at: Platform, seed: int, rate: float) -> None:
        self.filings = Filings(at, lambda _: None)
        self.violations: list[str] = []
        self._people = People(seed)
        self._rate = rate
        self._gate = asyncio.Semaphore(AT_WORK)
        self._later: deque[Line] = deque()
        self._stopped = False

    async def run(self) -> None:
        """File population after population; ends once it is stopped and everything begun is acknowledged."""
        for lines in self._people.populations():
            for wave in (1, 2):
                await self._file([line for line in lines if line.wave == wave])
            self._later.extend(line for line in lines if line.wave == 3)
            if self._stopped:
                return

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    async def probe(self) -> Filed:
        """File a probe; gives it once it is acknowledged. Raises StayedAway, ProbeRefused."""
        line = self._people.probe()
        await self.filings.file([line])
        if line.key not in self.filings.filed:
            raise ProbeRefused(self.filings.surprises[-1])
        return self.filings.filed[line.key]

    async def _file(self, lines: Sequence[Line]) -> None:
        async with asyncio.TaskGroup() as group:
            for part in _parts(lines):
                if self._stopped:
                    return
                await self._gate.acquire()
                group.create_task(self._acknowledged(part))
                await asyncio.sleep(len(part) / self._rate)

    async def _acknowledged(self, lines: Sequence[Line]) -> None:
        try:
            await self.filings.file(lines)
            await self._file_one_later()
        except (Refused, StayedAway) as error:
            self.violations.append(f"filing {lines[0].key}: {error}")
        finally:
            self._gate.release()

    async def _file_one_later(self) -> None:
        """File a benefit whose certification has come meanwhile; the others wait for their turn."""
        if not self._later:
            return
        line = self._later.popleft()
        number = await certification_number(self.filings, str(line.certification_of))
        if number is None:
            self._later.append(line)
        else:
            await self.filings.file_later(line, number)


def _parts(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """One by one; those for bulk files in some, where they stand together."""
    bulk: list[Line] = []
    for line in lines:
        if line.batch:
            bulk.append(line)
        else:
            yield [line]
        if len(bulk) == BULK:
            yield bulk
            bulk = []
    if bulk:
        yield bulk
