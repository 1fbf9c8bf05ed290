"""Contender of the consumer benchmark: one partition read through the product's inbox, `size` events a transaction."""

import time
from collections.abc import Sequence

import uvloop
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.host import settle_memory
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import Slot
from libs.common.consumer import BATCH
from libs.common.db import Database
from libs.common.events import DeptAssigned
from libs.common.inbox import Inbox
from tests.bench.six_steps.case import step_all
from tests.bench.worker import ready, serve

SECONDS = 5.0
SLOT = Slot(DeptAssigned.topic, 0)


async def on_dept_assigned(tx: AsyncConnection, events: Sequence[DeptAssigned]) -> None:
    """What handlers do: move the cases, write their history, tell of it."""
    await step_all(tx, 2, [event.application for event in events])


async def measure(*, bus: str, database: str, size: int) -> dict[str, float]:
    """Read the log to its end, or for SECONDS."""
    own_database, log = Database(database), PostgresBus(bus)
    inbox = Inbox({DeptAssigned: on_dept_assigned})
    async with own_database.transaction() as tx:
        at = await inbox.position(tx, SLOT)
    await log.reachable()
    settle_memory()  # as each process of the product does once it has started
    ready()
    own, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < SECONDS and (records := await log.fetch(SLOT, at, limit=BATCH)):
        for first in range(0, len(records), size):
            if time.perf_counter() - began >= SECONDS:
                break
            batch = records[first : first + size]
            async with own_database.transaction() as tx:
                await inbox.take(tx, SLOT, at, batch)
            at = batch[-1].offset + 1
    took, own = time.perf_counter() - began, time.process_time() - own
    await log.stop()
    await own_database.close()
    return {"events/s": at / took, "own_us": own / at * 1e6}


def work(*, bus: str, database: str, size: int) -> dict[str, float]:
    """The process."""
    return uvloop.run(measure(bus=bus, database=database, size=size))


if __name__ == "__main__":
    serve(work)
