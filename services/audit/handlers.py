"""What audit does with every record of every topic: chain it, measure it, and see that the head is kept outside."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Record
from services.audit import supervision, trail
from services.audit.anchors import plan_anchor


async def on_records(tx: AsyncConnection, records: Sequence[Record]) -> None:
    """Extend the trail by a batch, then bring the supervision projection forward by what was new in it."""
    now = datetime.now(UTC)
    made = await trail.extend(tx, records, now)
    await supervision.project(tx, filter(None, map(trail.event_in, made)))
    await plan_anchor(tx, made, now)
