"""Every invariant across the five databases and the bus, read only: nothing lost between two services, nothing done
twice.

On a running system only what is older than the watermark is judged: a minute before the oldest event that is not
published, or not read yet. How far each service is behind is reported beside it. `at_rest` judges everything, and
demands that nothing is under way.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ParamSpec

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.verify.between import BETWEEN
from deploy.verify.bus import Progress, Walk, offsets_in_log, progress, walk_slot
from deploy.verify.lag import Lag, measured
from deploy.verify.looks import ALWAYS, Connections, Finding, Look, Scope, Tally
from deploy.verify.within import AT_REST, WITHIN
from deploy.verify.worked_out import worked_out
from libs.common.bus.protocol import Bus
from libs.common.crypto import Vault
from libs.common.db import Database
from libs.common.service import open_bus
from libs.common.settings import SERVICES, Settings
from services.audit import trail
from services.audit.anchors import known_anchors
from services.audit.verifier import Verification
from services.finance import reconcile

P = ParamSpec("P")

WATERMARK = timedelta(seconds=60)  # what is younger may still be on its way
AGAIN_SECONDS = 2.0
LOOK_SECONDS = 600.0
"""The longest that one look, and with it one transaction, may take; a look that takes longer is itself a finding."""

_ASIDE = text("""
    SELECT key FROM parked_key UNION SELECT record_key FROM parked
     UNION SELECT key FROM discarded UNION SELECT record_key FROM discarded
""")


@dataclass(frozen=True)
class Report:
    """What was found, how far each service is behind, and until when (UTC) things were judged."""

    findings: list[Finding]
    lags: list[Lag]
    until: datetime

    @property
    def violated(self) -> list[Finding]:
        """What does not hold."""
        return [finding for finding in self.findings if finding.violations]


async def verify_all(settings: Settings, *, at_rest: bool) -> Report:
    """Look at every invariant. Each look is one snapshot of the databases that it reads, and no longer.

    Raises BusUnavailable, SettingsMissing."""
    databases = {service: Database(settings.database_url(service), pool_size=2) for service in SERVICES}
    bus = open_bus(settings)
    await bus.start()
    try:
        return await _Verification(settings, databases, bus, at_rest=at_rest).run()
    finally:
        await bus.stop()
        await asyncio.gather(*(database.close() for database in databases.values()))


class _Verification:
    """One run over all looks."""

    def __init__(self, settings: Settings, databases: dict[str, Database], bus: Bus, *, at_rest: bool) -> None:
        self._settings = settings
        self._databases = databases
        self._bus = bus
        self._at_rest = at_rest
        current, retired = settings.vault()
        self._vault = Vault(current, retired)

    async def run(self) -> Report:
        async with self._snapshots(SERVICES) as connections:
            made = await progress(connections, self._bus)
            lags = await measured(connections, self._bus, made)
            scope = Scope(self._until(lags), await _aside(connections))
        findings = [each for lag in lags for each in lag.findings(at_rest=self._at_rest)]
        findings.append(offsets_in_log(made))
        findings += await self._log(made, scope)
        looks: list[Look] = [*BETWEEN, *WITHIN, *worked_out(self._vault), *(AT_REST if self._at_rest else ())]
        findings += [await _bounded(look.name, self._judged, look, scope) for look in looks]
        findings += await self._finance()
        findings.append(await _bounded("the trail is whole and meets its anchors", self._trail))
        return Report(findings, lags, scope.until)

    def _until(self, lags: Collection[Lag]) -> datetime:
        if self._at_rest:
            return ALWAYS
        return min(lag.since for lag in lags) - WATERMARK

    @asynccontextmanager
    async def _snapshots(self, services: Collection[str]) -> AsyncIterator[Connections]:
        """These databases as of this moment, in one that nothing else is done in."""
        async with AsyncExitStack() as stack:
            made = {name: await stack.enter_async_context(_snapshot(self._databases[name])) for name in services}
            await asyncio.gather(*(connection.execute(text("SELECT 1")) for connection in made.values()))
            yield made

    async def _judged(self, look: Look, scope: Scope) -> Finding:
        """What is broken; across databases only what is broken at a second look too, for they are no one moment."""
        tally = await self._look(look, scope)
        if tally.violations and len(look.services) > 1 and not self._at_rest:
            await asyncio.sleep(AGAIN_SECONDS)
            tally = tally.confirmed(await self._look(look, scope))
        return tally.finding(look.name)

    async def _look(self, look: Look, scope: Scope) -> Tally:
        async with self._snapshots(look.services) as connections:
            return await look.look(connections, scope)

    async def _log(self, made: Progress, scope: Scope) -> list[Finding]:
        walk = Walk(made)
        for slot in sorted(made.ends):
            await walk_slot(walk, self._snapshots, self._bus, slot, scope)
        return walk.findings()

    async def _finance(self) -> list[Finding]:
        return [await _bounded(f"finance: {name}", self._balanced, name, sql) for name, sql in reconcile.INVARIANTS]

    async def _balanced(self, name: str, sql: str) -> Finding:
        async with _snapshot(self._databases["finance"]) as connection:
            check = await reconcile.look(connection, name, sql)
        first = f"{check.first}: {check.detail}" if check.violations else None
        return Finding(f"finance: {name}", check.checked, check.violations, first)

    async def _trail(self) -> Finding:
        """The chain, a page and a snapshot at a time: what is chained never changes."""
        walk = Verification(await asyncio.to_thread(known_anchors, self._settings.home))
        after = 0
        while True:
            async with _snapshot(self._databases["audit"]) as connection:
                page = await trail.read(connection, after=after, limit=trail.PAGE)
            for entry in page:
                walk.add(entry)
            if len(page) < trail.PAGE:
                break
            after = page[-1].seq
        verdict = walk.verdict()
        first = None if verdict.verified else f"{verdict.first_broken}: {verdict.reason}"
        return Finding("the trail is whole and meets its anchors", verdict.entries, int(not verdict.verified), first)


async def _bounded(name: str, look: Callable[P, Awaitable[Finding]], *args: P.args, **more: P.kwargs) -> Finding:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await look(*args, **more)
    except TimeoutError:
        return Finding(name, 0, 1, f"the look was not finished within {LOOK_SECONDS:.0f} s")


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection


async def _aside(connections: Connections) -> frozenset[str]:
    return frozenset([key for each in connections.values() for key in (await each.execute(_ASIDE)).scalars()])
