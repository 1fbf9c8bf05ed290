"""The consumer: follows a service's partitions, one task each, and hands their batches to the inbox.

A batch and the offset behind it commit together, so a crash anywhere leaves nothing half done; the bus's own offset is
for measuring lag only.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Bus, Member, OffsetGone, Slot
from libs.common.db import POOL_SIZE, Database, passing
from libs.common.inbox import Fenced, Inbox
from libs.common.tasks import Pulse, being_stopped
from libs.common.watch import Watch

log = structlog.get_logger()

BATCH = 500
WAIT_SECONDS = 5.0
BATCHES_AT_ONCE = POOL_SIZE - 2  # however many partitions wait, connections are left for requests and the leader
GROUP_SECONDS = 1.0
RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0)


class _Reading(Pulse):
    """How one partition goes on: each batch taken, and each look that found none, is a beat."""

    error: str | None = None  # what it is tried again for


class Consumer:
    """One process's part in a service's group."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        inbox: Inbox,
        *,
        group: str,
        topics: Sequence[str],
        instance: str,
        watch: Watch | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._inbox = inbox
        self._group = group
        self._topics = list(topics)
        self._instance = instance
        self._watch = watch or Watch()
        self._turns = asyncio.Semaphore(BATCHES_AT_ONCE)
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._joined: asyncio.Future[Member]
        self._in_group = Pulse()
        self._readings: dict[Slot, _Reading] = {}

    @property
    def slots(self) -> frozenset[Slot]:
        """The partitions followed at this moment."""
        return frozenset(self._tasks)

    @property
    def silence(self) -> float:
        """Seconds since the partition that has waited longest was last read, or since the process left its group."""
        return max([self._in_group.age, *(reading.age for reading in self._readings.values())])

    def standing_still(self) -> str | None:
        """What does not work, in words: it is not in its group, or a partition is not read. None while all goes on."""
        if not self._in_group.began or self._in_group.silent:
            return "not in its group"
        still = {slot: reading for slot, reading in self._readings.items() if reading.silent}
        if not still:
            return None
        (topic, partition), longest = max(still.items(), key=lambda item: item[1].age)
        how = f"fails again and again ({longest.error})" if longest.error else "is silent"
        more = f", and {len(still) - 1} more" if len(still) > 1 else ""
        return f"{topic}/{partition} {how} for {longest.age:.0f} s{more}"

    async def run(self) -> None:
        """Follow whatever the group assigns until cancelled."""
        self._joined = asyncio.get_running_loop().create_future()
        try:
            async with self._bus.join(
                self._group, self._topics, instance=self._instance, on_assigned=self._on_assigned
            ) as member:
                self._joined.set_result(member)
                try:
                    await self._stay(member)
                finally:
                    await self._stop(list(self._tasks))  # before leaving: they would ask a bus that is gone
        finally:
            await self._stop(list(self._tasks))

    async def _stay(self, member: Member) -> None:
        while not being_stopped():
            if member.joined():
                self._in_group.beat()
            await asyncio.sleep(GROUP_SECONDS)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._turns, self._database.transaction() as tx:
            yield tx

    async def _on_assigned(self, slots: frozenset[Slot]) -> None:
        await self._stop([slot for slot in self._tasks if slot not in slots])
        for slot in sorted(slots - self._tasks.keys()):
            reading = self._readings[slot] = _Reading()
            reading.begin()
            self._tasks[slot] = asyncio.create_task(self._follow(slot, reading), name=f"{self._group} {slot}")

    async def _stop(self, slots: Sequence[Slot]) -> None:
        tasks = [self._tasks.pop(slot) for slot in slots]
        for slot in slots:
            del self._readings[slot]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, slot: Slot, reading: _Reading) -> None:
        member = await asyncio.shield(self._joined)
        failures = 0
        expected: int | None = None  # not known: ask the row where this service is
        while not being_stopped():  # a stop may come out of a client's time-out as that time-out's error
            try:
                if expected is None:
                    expected = await self._position(slot)
                expected = await self._next(member, slot, expected)
            except Fenced:
                await log.ainfo("partition has another owner", group=self._group, slot=slot)
            except (Exception, asyncio.CancelledError) as error:  # else its partition would stay unread
                if isinstance(error, asyncio.CancelledError) and being_stopped():
                    raise
                level = log.awarning if passing(error) else log.aexception
                reading.error = type(error).__name__
                await level("consumer waits", group=self._group, slot=slot, error=type(error).__name__)
            else:
                failures = 0
                reading.beat()
                reading.error = None
                continue
            expected = None
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    async def _position(self, slot: Slot) -> int:
        async with self._transaction() as tx:
            return await self._inbox.position(tx, slot)

    async def _next(self, member: Member, slot: Slot, expected: int) -> int:
        try:
            records = await member.read(slot, expected, limit=BATCH, wait=WAIT_SECONDS)
        except OffsetGone as gone:
            return await self._skip_gap(slot, expected, gone.start)
        if not records:
            return expected
        began = monotonic()
        with self._watch.handling(records, self._inbox.hears):
            async with self._transaction() as tx:
                outcome = await self._inbox.take(tx, slot, expected, records)
        self._watch.taken(slot.topic, outcome.counts(), began)
        return records[-1].offset + 1

    async def _skip_gap(self, slot: Slot, expected: int, start: int) -> int:
        await log.aerror("log does not hold the next offset", group=self._group, slot=slot, next=expected, start=start)
        async with self._transaction() as tx:
            await self._inbox.skip(tx, slot, expected, start)
        return start
