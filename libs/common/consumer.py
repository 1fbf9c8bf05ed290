"""The consumer: follows a service's partitions, one task each, and hands their batches to the inbox.

A batch and the offset behind it commit together, so a crash anywhere leaves nothing half done; the bus's own offset is
for measuring lag only. While one topic's events are handled, what its other partitions read gathers, and is taken in
one transaction next: under load the batches grow instead of waiting for one another's locks.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Bus, Member, OffsetGone, Slot
from libs.common.db import POOL_SIZE, Database, passing
from libs.common.inbox import Batch, Fenced, Inbox
from libs.common.tasks import Pulse, being_stopped, ended
from libs.common.watch import Watch

log = structlog.get_logger()

BATCH = 500
WAIT_SECONDS = 5.0
BATCHES_AT_ONCE = POOL_SIZE - 2  # however many partitions wait, connections are left for requests and the leader
GROUP_SECONDS = 1.0
RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0)


class _Reading(Pulse):
    """How one partition goes on: each batch taken, and each look that found none, is a beat. A look that does not find
    again what was read and not taken is none: a log under load may give it later than one waits."""

    error: str | None = None  # what it is tried again for
    tried: int | None = None  # the offset of the batch that was read last


@dataclass(eq=False, slots=True)
class _Waiting:
    """A batch that a partition's task has read, until it is committed."""

    batch: Batch
    taken: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


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
        at_once: int = BATCHES_AT_ONCE,
        watch: Watch | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._inbox = inbox
        self._group = group
        self._topics = list(topics)
        self._instance = instance
        self._watch = watch or Watch()
        self._turns = asyncio.Semaphore(at_once)
        self._waiting: dict[str, list[_Waiting]] = defaultdict(list)
        self._taking: dict[str, asyncio.Task[None]] = {}
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
            await ended(self._taking.values())

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
        await ended(tasks)

    async def _follow(self, slot: Slot, reading: _Reading) -> None:
        member = await asyncio.shield(self._joined)
        failures = 0
        expected: int | None = None  # not known: ask the row where this service is
        while not being_stopped():  # a stop may come out of a client's time-out as that time-out's error
            try:
                if expected is None:
                    expected = await self._position(slot)
                expected = await self._next(member, slot, expected, reading)
            except Fenced:
                await log.ainfo("partition has another owner", group=self._group, slot=slot)
            except (Exception, asyncio.CancelledError) as error:  # else its partition would stay unread
                if isinstance(error, asyncio.CancelledError) and being_stopped():
                    raise
                level = log.awarning if passing(error) else log.aexception
                reading.error = type(error).__name__
                await level("consumer waits", group=self._group, slot=slot, error=type(error).__name__)
            else:
                if expected == reading.tried:
                    continue
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

    async def _next(self, member: Member, slot: Slot, expected: int, reading: _Reading) -> int:
        try:
            records = await member.read(slot, expected, limit=BATCH, wait=WAIT_SECONDS)
        except OffsetGone as gone:
            return await self._skip_gap(slot, expected, gone.start)
        if not records:
            return expected
        reading.tried = expected
        mine = _Waiting(Batch(slot, expected, records))
        self._waiting[slot.topic].append(mine)
        self._take_next(slot.topic)
        await mine.taken
        return records[-1].offset + 1

    def _take_next(self, topic: str) -> None:
        """Take what waits of a topic, unless that is being done or nothing waits."""
        waiting = self._waiting[topic] = [one for one in self._waiting[topic] if not one.taken.done()]
        if waiting and topic not in self._taking:
            taking = self._taking[topic] = asyncio.create_task(self._take(topic), name=f"{self._group} {topic}")
            taking.add_done_callback(lambda _: self._go_on(topic))

    def _go_on(self, topic: str) -> None:
        del self._taking[topic]
        self._take_next(topic)

    async def _take(self, topic: str) -> None:
        """Take what has gathered of a topic when its turn comes; what fails together is tried each alone."""
        async with self._turns:
            group = self._gathered(topic)
            if not await self._together(group):
                for one in group:
                    await self._together([one])

    def _gathered(self, topic: str) -> list[_Waiting]:
        """The first batch that waits, and of the others those that make no more than a full one with it."""
        waiting = [one for one in self._waiting[topic] if not one.taken.done()]  # done: its partition was given up
        sums = accumulate(len(one.batch.records) for one in waiting)
        count = sum(place == 0 or so_far <= BATCH for place, so_far in enumerate(sums))
        self._waiting[topic] = waiting[count:]
        return waiting[:count]

    async def _together(self, group: Sequence[_Waiting]) -> bool:
        """Take batches in one transaction and tell their partitions. False where each is to be tried alone: something
        fails that is not of the moment, and may be one's own matter."""
        if not group:
            return True
        began = monotonic()
        records = [record for one in group for record in one.batch.records]
        try:
            with self._watch.handling(records, self._inbox.hears):
                async with self._database.transaction() as tx:
                    outcome = await self._inbox.take_together(tx, [one.batch for one in group])
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and being_stopped():
                raise
            if len(group) > 1 and not passing(error):
                return False
            for one in group:
                _tell(one, error)
        else:
            self._watch.taken(records[0].slot.topic, outcome.counts(), began)
            for one in group:
                _tell(one, None)
        return True

    async def _skip_gap(self, slot: Slot, expected: int, start: int) -> int:
        await log.aerror("log does not hold the next offset", group=self._group, slot=slot, next=expected, start=start)
        async with self._transaction() as tx:
            await self._inbox.skip(tx, slot, expected, start)
        return start


def _tell(one: _Waiting, error: BaseException | None) -> None:
    if one.taken.done():
        return
    if error is None:
        one.taken.set_result(None)
    elif isinstance(error, asyncio.CancelledError):  # a library's own, which no future holds
        one.taken.cancel()
    else:
        one.taken.set_exception(error)
