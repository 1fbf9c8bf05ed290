"""Replay: give a service events from the log again, and make a projection anew from all of them.

Replay goes through the inbox, so what was taken before is skipped and said so. A rebuild empties the projection's
tables and applies every event that the service had read, each once; live events wait meanwhile.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

from sqlalchemy import text

from libs.common.bus.protocol import Bus, Record, Slot
from libs.common.db import Database
from libs.common.events import Event
from libs.common.inbox import EventHandler, Inbox, Outcome

BATCH = 500

_HELD = text("""
    SELECT topic, partition, next FROM consumer_offset WHERE topic = ANY(CAST(:topics AS text[]))
     ORDER BY topic, partition FOR UPDATE
""")


async def replay(
    database: Database, bus: Bus, inbox: Inbox, *, topic: str, partition: int | None = None, offset: int = 0
) -> Outcome:
    """Apply again what this service has read of a topic, from `offset` on (or from where the log begins); says what was
    handled, skipped, parked. What it has not read yet is its consumer's: taken here, it would overtake. Raises
    LookupError for a partition or an offset that there is not, with those that there are."""
    ranges = await _read_so_far(database, bus, inbox, topic)
    _check_within(ranges, topic, partition, offset)
    total = Outcome()
    for slot, (start, end) in ranges.items():
        if partition is not None and slot.partition != partition:
            continue
        async for records in read_log(bus, slot, max(start, offset), end):
            async with database.transaction() as tx:
                total += await inbox.apply(tx, records)
    return total


async def _read_so_far(database: Database, bus: Bus, inbox: Inbox, topic: str) -> dict[Slot, tuple[int, int]]:
    """Of each partition the first offset that the log holds, and the next that this service will read."""
    ends = sorted((await bus.ends([topic])).items())
    async with database.transaction() as tx:
        return {slot: (start, await inbox.position(tx, slot)) for slot, (start, _) in ends}


def _check_within(ranges: Mapping[Slot, tuple[int, int]], topic: str, partition: int | None, offset: int) -> None:
    partitions = [slot.partition for slot in ranges]
    if not partitions:
        raise LookupError(f"the bus has no topic {topic!r}: run `huanquan migrate`")
    if partition is not None and partition not in partitions:
        raise LookupError(f"{topic} has no partition {partition}; it has {min(partitions)} to {max(partitions)}")
    wanted = {slot.partition: ends for slot, ends in ranges.items() if partition in (None, slot.partition)}
    if offset < 0 or offset > max(end for _, end in wanted.values()):
        read = ", ".join(f"{start} to {end - 1} of partition {n}" for n, (start, end) in wanted.items() if end > start)
        raise LookupError(f"{topic} has no offset {offset} that was read; there are {read or 'none yet'}")


async def rebuild(
    database: Database, bus: Bus, *, tables: Sequence[str], handlers: Mapping[type[Event], EventHandler]
) -> Outcome:
    """Empty a projection's tables and apply again every event that this service has read. One transaction."""
    topics = sorted({event.topic for event in handlers})
    total = Outcome()
    async with database.transaction() as tx:
        held = (await tx.execute(_HELD, {"topics": topics})).all()  # live batches of these topics wait here
        for table in tables:
            await tx.execute(text(f'DELETE FROM "{table}"'))  # noqa: S608 - a name from code
        # The relay publishes at least once, so the log may hold an event twice.
        await tx.execute(text("CREATE TEMPORARY TABLE rebuilt (event_id uuid PRIMARY KEY) ON COMMIT DROP"))
        once = Inbox(handlers, taken="rebuilt")
        starts = await bus.ends(topics)
        for row in held:
            slot = Slot(row.topic, row.partition)
            async for records in read_log(bus, slot, starts[slot][0], row.next):
                total += await once.again(tx, records)
    return total


async def read_log(bus: Bus, slot: Slot, start: int, end: int) -> AsyncIterator[list[Record]]:
    """What the log holds of a partition from `start` to before `end`, in batches."""
    while start < end:
        records = await bus.fetch(slot, start, limit=min(BATCH, end - start))
        if not records:
            return
        yield records
        start = records[-1].offset + 1
