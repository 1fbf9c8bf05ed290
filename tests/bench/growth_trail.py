"""A whole trail of any size: chained by audit's own code, copied into its table."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from libs.common.bus.protocol import Record, Slot
from libs.common.db import connect
from libs.common.outbox import message
from services.audit import trail
from services.audit.models import entry
from services.audit.verifier import GENESIS, Anchor, Entry
from tests.bench.six_steps.case import told

PAGE = 10_000
NOW = datetime(2026, 3, 2, tzinfo=UTC)
COLUMNS = [column.name for column in entry.columns]


async def fill(url: str, size: int) -> None:
    """Write so many entries to an empty trail."""
    connection = await connect(url)
    head = Anchor(0, GENESIS, NOW)
    for first in range(0, size, PAGE):
        made = trail._chained(head, list(_records(first, min(PAGE, size - first))), NOW)
        await connection.copy_records_to_table("entry", records=map(_row, made), columns=COLUMNS)
        head = Anchor(made[-1].seq, made[-1].hash, NOW)
    await connection.close()


def _records(first: int, count: int) -> Iterator[tuple[UUID, Record]]:
    event = told(1, UUID(int=0))
    headers, value = message(event).headers, event.model_dump_json().encode()
    for number in range(first, first + count):
        own = UUID(int=number)
        yield own, Record(Slot(event.topic, 0), number, event.key, headers | {"ce_id": str(own)}, value)


def _row(made: Entry) -> tuple[object, ...]:
    values = {name: getattr(made, name) for name in COLUMNS}
    return tuple((values | {"event_id": UUID(made.event_id)}).values())
