"""The bus against the services: what each has read of it, what is still before it, and that nothing read was lost.

Each log is read once from the first record on that retention kept, a page at a time.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import text

from deploy.verify.looks import Connections, Finding, Scope, Tally
from libs.common.bus.protocol import Bus, OffsetGone, Record, Slot
from libs.common.events import EVENTS, TOPICS, Event
from libs.common.inbox import identity_of
from libs.common.settings import SERVICES
from services.finance.app import HEARS as FINANCE_HEARS
from services.housing.app import HEARS as HOUSING_HEARS
from services.intake.feedback import HANDLERS as INTAKE_HANDLERS
from services.workflow.app import HEARS as WORKFLOW_HEARS

HEARS: Mapping[str, frozenset[str] | None] = {
    name: None if events is None else frozenset(event.__name__ for event in events)
    for name, events in {
        "intake": INTAKE_HANDLERS,
        "workflow": WORKFLOW_HEARS,
        "finance": FINANCE_HEARS,
        "housing": HOUSING_HEARS,
        "audit": None,
    }.items()
}
"""Which types of events each service handles; None: every record."""

PAGE = 1000
Snapshots = Callable[[Collection[str]], AbstractAsyncContextManager[Connections]]

_OFFSETS = text("SELECT topic, partition, next FROM consumer_offset")
_TAKEN = text("SELECT event_id FROM inbox WHERE event_id = ANY(CAST(:ids AS uuid[]))")
_CHAINED = text('SELECT event_id, topic, partition, "offset" FROM entry WHERE event_id = ANY(CAST(:ids AS uuid[]))')
_ASIDE = text("""
    SELECT "offset"
      FROM (SELECT topic, partition, "offset" FROM parked UNION ALL SELECT topic, partition, "offset" FROM discarded)
        AS aside
     WHERE topic = :topic AND partition = :partition AND "offset" = ANY(CAST(:offsets AS bigint[]))
""")


def topics_of(service: str) -> tuple[str, ...]:
    """The topics that a service hears."""
    types = HEARS[service]
    heard: Sequence[type[Event]] = [event for event in EVENTS if types is None or event.__name__ in types]
    return tuple(dict.fromkeys(event.topic for event in heard))


@dataclass(frozen=True)
class Progress:
    """How far each service has read (the next offset of each slot), and where each slot's log begins and ends."""

    read: Mapping[str, Mapping[Slot, int]]
    ends: Mapping[Slot, tuple[int, int]]

    def unread(self, service: str) -> dict[Slot, int]:
        """How many records of each slot are before a service; slots that it has read are left out."""
        slots = (slot for slot in self.ends if slot.topic in topics_of(service))
        behind = {slot: self.ends[slot][1] - max(self.next(service, slot), self.ends[slot][0]) for slot in slots}
        return {slot: n for slot, n in sorted(behind.items()) if n > 0}

    def next(self, service: str, slot: Slot) -> int:
        """Where a service goes on."""
        return self.read[service].get(slot, 0)


async def progress(connections: Connections, bus: Bus) -> Progress:
    """Read the services' offsets, then the ends of the logs, which only move on. Raises BusUnavailable."""
    read = {
        service: {Slot(row.topic, row.partition): row.next for row in await connections[service].execute(_OFFSETS)}
        for service in SERVICES
    }
    return Progress(read, await bus.ends(TOPICS))


def offsets_in_log(made: Progress) -> Finding:
    """No service has read beyond the end of a log: it would miss what comes there next."""
    tally = Tally()
    for service in SERVICES:
        for slot, at in sorted(made.read[service].items()):
            end = made.ends.get(slot, (0, 0))[1]
            flaw = f"{service} goes on in {slot.topic}/{slot.partition} at {at}, the log ends at {end}"
            tally.count(f"{service} {slot}", flaw if at > end else None)
    return tally.finding("no service has read beyond the end of a log")


@dataclass
class Walk:
    """What one reading of the whole log has found: `repeated` counts records that stand in it again, as they do when a
    relay was stopped between publishing and marking."""

    made: Progress
    taken: Tally = field(default_factory=Tally)
    chained: Tally = field(default_factory=Tally)
    repeated: int = 0

    def findings(self) -> list[Finding]:
        """For the report."""
        again = f"{self.repeated} of them stand on the bus again, and were taken once" if self.repeated else None
        chained = self.chained.finding("every record that audit has read is in the trail")
        return [
            self.taken.finding("every record that a service has read is in its inbox, or set aside"),
            chained if chained.violations else Finding(chained.name, chained.checked, 0, again),
        ]


async def walk_slot(walk: Walk, snapshots: Snapshots, bus: Bus, slot: Slot, scope: Scope) -> None:
    """Read one log, and look up each record that a service has read in its inbox, and in the trail; each page is looked
    up in a snapshot of its own. Raises BusUnavailable."""
    offset, end = walk.made.ends[slot]
    end = min(end, max(walk.made.next(service, slot) for service in SERVICES))
    while offset < end:
        try:
            records = await bus.fetch(slot, offset, limit=PAGE)
        except OffsetGone as gone:  # retention has passed by meanwhile
            offset = gone.start
            continue
        if not records:
            return
        async with snapshots(SERVICES) as connections:
            await _look_up(walk, connections, records, scope)
        offset = records[-1].offset + 1


async def _look_up(walk: Walk, connections: Connections, records: Sequence[Record], scope: Scope) -> None:
    slot = records[0].slot
    for service, types in HEARS.items():
        read = [record for record in records if record.offset < walk.made.next(service, slot)]
        heard = read if types is None else [record for record in read if record.headers.get("ce_type") in types]
        await _taken(connections, walk, service, heard)
    await _in_trail(connections, walk, [r for r in records if r.offset < walk.made.next("audit", slot)], scope)


async def _taken(connections: Connections, walk: Walk, service: str, records: Sequence[Record]) -> None:
    if not records:
        return
    known = set((await connections[service].execute(_TAKEN, {"ids": [identity_of(r) for r in records]})).scalars())
    missing = {record.offset for record in records if identity_of(record) not in known}
    if missing:
        slot = records[0].slot
        where = {"topic": slot.topic, "partition": slot.partition, "offsets": sorted(missing)}
        missing -= set((await connections[service].execute(_ASIDE, where)).scalars())
    for record in records:
        flaw = f"{service} has not taken {_place(record)}" if record.offset in missing else None
        walk.taken.count(f"{service} {_place(record)}", flaw)


async def _in_trail(connections: Connections, walk: Walk, records: Sequence[Record], scope: Scope) -> None:
    if not records:
        return
    rows = await connections["audit"].execute(_CHAINED, {"ids": [identity_of(record) for record in records]})
    places: dict[UUID, tuple[Slot, int]] = {row.event_id: (Slot(row.topic, row.partition), row.offset) for row in rows}
    for record in records:
        at = places.get(identity_of(record))
        if at is None and record.key in scope.aside:
            continue
        walk.chained.count(_place(record), None if at else f"audit has not chained {_place(record)}")
        walk.repeated += at is not None and at != (record.slot, record.offset)


def _place(record: Record) -> str:
    return f"{record.slot.topic}/{record.slot.partition} offset {record.offset} ({identity_of(record)})"


async def oldest_unread(
    bus: Bus, unread: Mapping[Slot, int], made: Progress, service: str
) -> tuple[Slot, datetime] | None:
    """The unread record that was told first, by its own time (UTC), and its slot; None where that is not known."""
    found: dict[Slot, datetime] = defaultdict(lambda: datetime.max.replace(tzinfo=UTC))
    for slot in unread:
        at = max(made.next(service, slot), made.ends[slot][0])
        for record in await bus.fetch(slot, at, limit=1):
            try:
                found[slot] = datetime.fromisoformat(record.headers["ce_time"]).astimezone(UTC)
            except (KeyError, ValueError):  # somebody else's record says nothing of when
                continue
    return min(found.items(), key=lambda each: each[1], default=None)
