"""Anchors: the head of the chain, written outside the database, where whoever rewrites the table does not reach it."""

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.ticker import Due, schedule
from services.audit.trail import head
from services.audit.verifier import Anchor, Entry, anchors_in, read_anchors

ANCHOR = "trail.anchor"  # the kind of due work that writes one
EVERY_ENTRIES = 1000
WITHIN = timedelta(minutes=1)
TAIL_BYTES = 1024  # some ten anchors


def anchors_file(home: Path) -> Path:
    """Where the anchors of a deployment are kept: append-only storage of another administrator, if there is one."""
    return home / "anchors" / "trail.txt"


def known_anchors(home: Path) -> list[Anchor]:
    """The anchors kept so far; none where nothing was written yet. Raises ValueError for a file that is no such one."""
    path = anchors_file(home)
    return list(read_anchors(path)) if path.exists() else []


def last_anchor(home: Path) -> Anchor | None:
    """The newest anchor kept, read from the end of the file; None where none was written yet. Raises ValueError as
    above."""
    path = anchors_file(home)
    if not path.exists():
        return None
    with path.open("rb") as file:
        before = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
        file.seek(before)
        lines = file.read().decode("ascii").splitlines(keepends=True)
    return max(anchors_in(lines[1:] if before else lines), key=lambda anchor: anchor.seq, default=None)


async def plan_anchor(tx: AsyncConnection, made: Sequence[Entry], now: datetime) -> None:
    """Have an anchor written at the end of the minute, and at once where the batch fills a thousand."""
    if not made:
        return
    minute = (now + WITHIN).replace(second=0, microsecond=0)
    dues = [Due(ANCHOR, minute.isoformat(), minute)]  # batches of one minute share the row
    filled = made[-1].seq // EVERY_ENTRIES
    if filled > (made[0].seq - 1) // EVERY_ENTRIES:
        dues.append(Due(ANCHOR, str(filled * EVERY_ENTRIES), now))
    await schedule(tx, dues)


class Anchorage:
    """The due work that writes anchors into the file below `home`."""

    def __init__(self, home: Path) -> None:
        self._path = anchors_file(home)

    async def on_anchor_due(self, tx: AsyncConnection, _dues: Sequence[Due]) -> None:
        """Write the committed head. Takes no lock: batches that wait for these due rows would wait for each other."""
        anchor = await head(tx, datetime.now(UTC))
        if anchor.seq:
            await asyncio.to_thread(append, self._path, anchor)


def append(path: Path, anchor: Anchor) -> None:
    """Add an anchor to a file, durably. A line that a crash cut off is closed first, and counts for nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b" #\n")
        file.write(anchor.line().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
