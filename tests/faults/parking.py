"""What operators do with poison: wait until it is parked wherever it was read, look for it, discard it. Before they do,
nothing may have overtaken it."""

from contextlib import suppress
from uuid import UUID

import asyncpg

from deploy.engine import SERVICES
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.protocol import Slot
from tests.faults import log
from tests.faults.system import System
from tests.faults.waiting import until

READ_SECONDS = 60.0
QUEUE_SECONDS = 12.0
QUEUE = 3
"""What stands behind poison before it is discarded: two of one key must come out in their order."""
REASON = "drill: poison of the fault drill"

_READ = "SELECT partition, next FROM consumer_offset WHERE topic = $1"
_OLDEST = """
    SELECT topic, key
      FROM (SELECT DISTINCT ON (topic, key) topic, key, headers FROM parked ORDER BY topic, key, id) AS oldest
     WHERE headers ->> $1 = $2
"""
_POISON = """
    SELECT topic, partition, "offset", key FROM parked WHERE headers ->> $1 = $2 AND key = record_key AND partition >= 0
"""
_QUEUED = """
    SELECT count(*) FROM parked
     WHERE (topic, key) IN (SELECT topic, key FROM parked WHERE headers ->> $1 = $2)
       AND headers ->> $1 IS DISTINCT FROM $2
"""
_OVERTOOK = """
    SELECT event_id FROM inbox
     WHERE event_id = ANY($1) AND NOT EXISTS (SELECT FROM parked WHERE headers ->> 'ce_id' = event_id::text)
"""


async def queue(system: System, mark: str) -> int:
    """How many events stand behind the poison of a mark, over all services; waits a while for a few."""

    async def standing() -> int:
        return sum([(await _rows(system, service, _QUEUED, log.MARK, mark))[0][0] for service in SERVICES])

    async def long_enough() -> bool:
        return await standing() >= QUEUE

    with suppress(TimeoutError):
        await until(long_enough, seconds=QUEUE_SECONDS)
    return await standing()


async def overtook(system: System, bus: KafkaBus, mark: str) -> list[str]:
    """The later events that a service took while it held poison under their key."""
    found = []
    for service in SERVICES:
        for topic, partition, offset, key in await _rows(system, service, _POISON, log.MARK, mark):
            later = [UUID(name) for name in await log.behind(bus, Slot(topic, partition), offset, key)]
            taken = await _rows(system, service, _OVERTOOK, later)
            found += [f"{service} took {row[0]} of {key}, whose earlier event is parked" for row in taken]
    return found


async def until_read(system: System, bus: KafkaBus, topic: str) -> None:
    """Wait until every service has read what a topic holds now. Raises TimeoutError, which says so."""
    ends = {slot.partition: end for slot, end in (await log.ends(bus)).items() if slot.topic == topic}

    async def read() -> bool:
        return all([await _has_read(system, service, topic, ends) for service in SERVICES])

    try:
        await until(read, seconds=READ_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"{topic} was not read to its end by every service within {READ_SECONDS:.0f} s") from None


async def _has_read(system: System, service: str, topic: str, ends: dict[int, int]) -> bool:
    rows = await _rows(system, service, _READ, topic)
    return all(row["next"] >= ends[row["partition"]] for row in rows)


async def discard(system: System, mark: str) -> None:
    """Discard every parked record that bears a mark. Raises RuntimeError where the command refuses."""
    for service in SERVICES:
        for row in await _rows(system, service, _OLDEST, log.MARK, mark):
            arguments = ("--service", service, row["topic"], row["key"], "--reason", REASON, "--by", "drill")
            code, printed = await system.command("parked", "discard", *arguments)
            if code:
                raise RuntimeError(f"huanquan parked discard {' '.join(arguments)} ended with {code}: {printed}")


async def _rows(system: System, service: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await system.postgres.connect(service)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()
