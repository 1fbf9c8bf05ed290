"""Bringing a running system to rest between its services: edges closed, everything published, everything read.

For as long as the block lasts, every process of every service refuses what would change something (503, Retry-After)
and leaves due work alone: each looks every second whether the lock of its database is held (`Service.closed`). If
this process dies its sessions end, and with them the locks: the edges open again by themselves.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from deploy.engine import SERVICES
from deploy.refusals import Refusal
from deploy.topics import load_topics
from libs.common.bus.protocol import Bus, Slot
from libs.common.db import connect
from libs.common.service import EDGE_LOCK, ELECTION_SECONDS, open_bus
from libs.common.settings import Settings

CLOSED_SECONDS = 3 * ELECTION_SECONDS  # every process has looked, and what it had let in is done
DRAIN_SECONDS = 120.0
LOOK_SECONDS = 1.0

Sessions = Mapping[str, Any]

_EMITTED = "SELECT coalesce(max(id), 0) FROM outbox"
_UNPUBLISHED = "SELECT count(*) FROM unpublished"
_OFFSETS = "SELECT topic, partition, next FROM consumer_offset"


@asynccontextmanager
async def drained(settings: Settings) -> AsyncIterator[None]:
    """Nothing is under way between the services while this lasts. Raises Refusal where they do not come to rest, and
    at the end where something moved nevertheless."""
    bus = open_bus(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bus.stop)
        sessions: dict[str, Any] = {}
        for service in SERVICES:
            sessions[service] = session = await connect(settings.database_url(service))
            stack.push_async_callback(session.close)
            await session.execute("SELECT pg_advisory_lock($1)", EDGE_LOCK)
        await asyncio.sleep(CLOSED_SECONDS)
        before = await _at_rest(sessions, bus)
        yield
        for service, last in (await _emitted(sessions)).items():
            if last != before[service]:
                raise Refusal(
                    f"{service} went on while the backup was taken, so it was not kept: do all its processes run?"
                )


async def _at_rest(sessions: Sessions, bus: Bus) -> Mapping[str, int]:
    """Wait until two looks find nothing under way and nothing new in between; returns what was emitted last."""
    seen: Mapping[str, int] = {}
    for _ in range(int(DRAIN_SECONDS / LOOK_SECONDS)):
        under_way = await _under_way(sessions, bus)
        last = await _emitted(sessions)
        if not under_way and last == seen:
            return last
        seen = {} if under_way else last
        await asyncio.sleep(LOOK_SECONDS)
    why = under_way or "something is emitted again and again"
    raise Refusal(f"the system did not come to rest within {DRAIN_SECONDS:.0f} s: {why}; no backup was taken")


async def _emitted(sessions: Sessions) -> Mapping[str, int]:
    return {service: await session.fetchval(_EMITTED) for service, session in sessions.items()}


async def _under_way(sessions: Sessions, bus: Bus) -> str | None:
    """What is still to be published or read, in words."""
    for service, session in sessions.items():
        if waiting := await session.fetchval(_UNPUBLISHED):
            return f"{service} has {waiting} events to publish"
    topics = load_topics().topics
    ends = await bus.ends(list(topics))
    for service, session in sessions.items():
        read = {Slot(row[0], row[1]): row[2] for row in await session.fetch(_OFFSETS)}
        heard = {name for name, topic in topics.items() if service in topic.subscribers}
        unread = sum(end - read.get(slot, 0) for slot, (_, end) in ends.items() if slot.topic in heard)
        if unread > 0:
            return f"{service} has {unread} events to read"
    return None
