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
    handled, skipped, parked. What it has not read yet is its consumer's: taken here, it would overtake."""
    total = Outcome()
    for slot, (start, _) in sorted((await bus.ends([topic])).items()):
        if partition is not None and slot.partition != partition:
            continue
        async with database.transaction() as tx:
            end = await inbox.position(tx, slot)
        async for records in _read(bus, slot, max(start, offset), end):
            async with database.transaction() as tx:
                total += await inbox.apply(tx, records)
    return total


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
            async for records in _read(bus, slot, starts[slot][0], row.next):
                total += await once.again(tx, records)
    return total


async def _read(bus: Bus, slot: Slot, start: int, end: int) -> AsyncIterator[list[Record]]:
    while start < end:
        records = await bus.fetch(slot, start, limit=min(BATCH, end - start))
        if not records:
            return
        yield records
        start = records[-1].offset + 1
