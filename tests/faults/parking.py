"""What operators do with poison: wait until it is parked wherever it was read, look for it, discard it."""

import asyncpg

from deploy.engine import SERVICES
from libs.common.bus.kafka import KafkaBus
from tests.faults import log
from tests.faults.system import System
from tests.faults.waiting import until

READ_SECONDS = 60.0
REASON = "drill: poison of the fault drill"

_READ = "SELECT partition, next FROM consumer_offset WHERE topic = $1"
_OLDEST = """
    SELECT topic, key
      FROM (SELECT DISTINCT ON (topic, key) topic, key, headers FROM parked ORDER BY topic, key, id) AS oldest
     WHERE headers ->> $1 = $2
"""


async def until_read(system: System, bus: KafkaBus, topic: str) -> None:
    """Wait until every service has read what a topic holds now. Raises TimeoutError."""
    ends = {slot.partition: end for slot, end in (await log.ends(bus)).items() if slot.topic == topic}

    async def read() -> bool:
        return all([await _has_read(system, service, topic, ends) for service in SERVICES])

    await until(read, seconds=READ_SECONDS)


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


async def _rows(system: System, service: str, sql: str, *arguments: str) -> list[asyncpg.Record]:
    connection = await system.postgres.connect(service)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()
