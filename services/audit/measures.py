"""Audit's gauges: the lights of every org unit, worked out when asked for, and how far the trail is anchored."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.calendar import Light, local_date
from libs.common.measures import Measure, Rows
from libs.common.packs import Packs
from services.audit import trail
from services.audit.anchors import last_anchor
from services.audit.overdue import count_open


def measures(packs: Packs, home: Path) -> tuple[Measure, ...]:
    """The gauges of a deployment whose anchors lie below `home`."""

    async def lights(connection: AsyncConnection) -> Rows:
        counts = await count_open(connection, packs, local_date(datetime.now(UTC)))
        return [
            {
                "treasury": treasury,
                "department": department,
                "kind": kind,
                "light": light.value,
                "clocks": unit[light.value],
            }
            for (treasury, department, kind), unit in counts.items()
            for light in Light
        ]

    async def anchored(connection: AsyncConnection) -> Rows:
        anchor = await asyncio.to_thread(last_anchor, home)
        head = await trail.head(connection, datetime.now(UTC))
        return [{"trail_entries": head.seq, "trail_unanchored": head.seq - (anchor.seq if anchor else 0)}]

    return (
        Measure(
            gauges={"clocks": "Time limits running, by the light that they show today; red is overdue"},
            labels=("kind", "treasury", "department", "light"),
            look=lights,
            every=60,
        ),
        Measure(
            gauges={
                "trail_entries": "Entries of the trail",
                "trail_unanchored": "Entries behind the newest anchor kept outside the database",
            },
            labels=(),
            look=anchored,
        ),
    )
