"""How far each service is behind: what it has not published, not read, parked, and not done in time."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, text

from deploy.verify.bus import Progress, oldest_unread
from deploy.verify.looks import Connections, Finding
from libs.common.bus.protocol import Bus, Slot
from libs.common.settings import SERVICES

LATE_SECONDS = 60
"""Due work is taken within a second or two, on a busy machine within some; what has waited longer is behind (as the
alert DueWorkOverdue has it)."""

_UNPUBLISHED = text("""
    SELECT count(*) AS n, min(created_at) AS at,
           (SELECT topic || ' ' || event_id FROM unpublished JOIN outbox USING (id) ORDER BY id LIMIT 1) AS first
      FROM unpublished JOIN outbox USING (id)
""")
_PARKED = text("""
    SELECT count(*) AS n, min(parked_at) AS at, count(waiting_for) AS waiting,
           (SELECT topic || ' ' || key FROM parked_key ORDER BY parked_at LIMIT 1) AS first FROM parked_key
""")
_OVERDUE = text("""
    SELECT count(*) AS n, min(at) AS at, (SELECT kind || ' ' || key FROM due ORDER BY at LIMIT 1) AS first
      FROM due WHERE at < now() - :seconds * interval '1 s'
""")


@dataclass(frozen=True)
class Behind:
    """So much of one kind waits; `first` names what has waited longest, since `at` (UTC; None where not known)."""

    what: str
    n: int
    at: datetime | None = None
    first: str | None = None

    def told(self, now: datetime) -> str | None:
        """What waits longest, in words; None where nothing waits."""
        if not self.n:
            return None
        return f"{self.first}, for {max(0.0, (now - self.at).total_seconds()):.0f} s" if self.at else self.first


@dataclass(frozen=True)
class Lag:
    """What one service is behind with, as of `now` (UTC)."""

    service: str
    now: datetime
    to_publish: Behind
    to_read: Behind
    others: tuple[Behind, ...]

    @property
    def since(self) -> datetime:
        """Before this moment everything was published and read."""
        return min((each.at for each in (self.to_publish, self.to_read) if each.at), default=self.now)

    def findings(self, *, at_rest: bool) -> list[Finding]:
        """For the report; nothing may be behind where all is at rest."""
        return [
            Finding(f"lag of {self.service}: {each.what}", each.n, each.n if at_rest else 0, each.told(self.now))
            for each in (self.to_publish, self.to_read, *self.others)
        ]


async def measured(connections: Connections, bus: Bus, made: Progress) -> list[Lag]:
    """The lag of every service. Raises BusUnavailable."""
    return [await _lag(connections, bus, made, service) for service in SERVICES]


async def _lag(connections: Connections, bus: Bus, made: Progress, service: str) -> Lag:
    async def counted(query: Any, **values: Any) -> RowMapping:
        return (await connections[service].execute(query, values)).mappings().one()

    outbox, parked, due = (
        await counted(_UNPUBLISHED),
        await counted(_PARKED),
        await counted(_OVERDUE, seconds=LATE_SECONDS),
    )
    waiting = f"{parked['first']} ({parked['waiting']} wait for their cause)"
    return Lag(
        service,
        datetime.now(UTC),
        Behind("events to publish", outbox["n"], outbox["at"], outbox["first"]),
        await _to_read(bus, made, service),
        (
            Behind("keys parked", parked["n"], parked["at"], waiting),
            Behind("work overdue", due["n"], due["at"], due["first"]),
        ),
    )


async def _to_read(bus: Bus, made: Progress, service: str) -> Behind:
    unread = made.unread(service)
    if not unread:
        return Behind("events to read", 0)
    oldest = await oldest_unread(bus, unread, made, service)
    slot, at = oldest or (next(iter(unread)), None)
    return Behind("events to read", sum(unread.values()), at, _in(slot, unread[slot]))


def _in(slot: Slot, n: int) -> str:
    return f"{slot.topic}/{slot.partition} ({n} there)"
