"""The bell of the long poll: it wakes an org unit's callers when new tasks were committed for that unit.

No caller holds a transaction or a pooled connection while it waits. One look at the feeds' counters, shared by all who
wait, follows each commit of this process; another process's commits are seen within `LOOK_SECONDS`.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy import text

from libs.common.db import Database, passing

log = structlog.get_logger()

LOOK_SECONDS = 1.0
GATHER_SECONDS = 0.05  # commits come in bursts: one look serves many

_COUNTERS = text("SELECT treasury, department, last FROM task_feed")


@dataclass(eq=False, slots=True)
class _Waiter:
    unit: tuple[str | None, str | None]
    seen: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Bell:
    """Made once in `app.py`. When `stopping` is set, nobody waits any longer."""

    def __init__(self, database: Database, stopping: asyncio.Event) -> None:
        self._database = database
        self._stopping = stopping
        self._rung = asyncio.Event()
        self._waiting: set[_Waiter] = set()
        self._watch: asyncio.Task[None] | None = None
        database.on_emitted(self._rung.set)

    async def wait(self, treasury: str | None, department: str | None, seen: int, *, seconds: float) -> None:
        """Return when the unit's feed has gone past number `seen`, when the service stops, or after `seconds`."""
        waiter = _Waiter((treasury, department), seen)
        self._waiting.add(waiter)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_while_awaited(), name="task feed")
        rings = [asyncio.create_task(event.wait()) for event in (waiter.woken, self._stopping)]
        try:
            await asyncio.wait(rings, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for ring in rings:
                ring.cancel()
            self._waiting.discard(waiter)

    async def _look_while_awaited(self) -> None:
        while self._waiting:
            self._rung.clear()
            try:
                await self._look()
            except Exception as error:
                if not passing(error):
                    raise
                await log.awarning("task feed waits", error=type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), LOOK_SECONDS)
                await asyncio.sleep(GATHER_SECONDS)

    async def _look(self) -> None:
        async with self._database.statements() as connection:
            last = {(row.treasury, row.department): row.last for row in await connection.execute(_COUNTERS)}
        for waiter in self._waiting:
            if last.get(waiter.unit, 0) > waiter.seen:
                waiter.woken.set()
