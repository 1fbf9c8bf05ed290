"""Contender: one process of the product that takes cases through their six steps, one step a transaction."""

import asyncio
import time

import uvloop
from sqlalchemy import text
from uuid_utils.compat import uuid7

from deploy.host import settle_memory
from libs.common.db import Database
from tests.bench.six_steps.case import step, step_all
from tests.bench.six_steps.statements import SECONDS, STEPS
from tests.bench.worker import ready, serve


class Tally:
    """Steps taken until the time is up."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.own = time.process_time()
        self.steps = 0

    @property
    def over(self) -> bool:
        return time.perf_counter() - self.began >= SECONDS

    def figures(self) -> dict[str, float]:
        """Steps a second, and this process's own time a step."""
        own = time.process_time() - self.own
        return {"steps/s": self.steps / (time.perf_counter() - self.began), "own_us": own / self.steps * 1e6}


async def client(database: Database, tally: Tally) -> None:
    """One case after another; each step waits for its commit."""
    while not tally.over:
        case = uuid7()
        for number in range(len(STEPS)):
            async with database.statements() as tx:
                await step(tx, number, case)
            tally.steps += 1


async def batches(database: Database, tally: Tally, size: int) -> None:
    """The same in batches of `size` cases, as a consumer's task takes them."""
    while not tally.over:
        cases = [uuid7() for _ in range(size)]
        for number in range(len(STEPS)):
            async with database.transaction() as tx:
                await step_all(tx, number, cases)
            tally.steps += size


async def measure(*, url: str, clients: int, batch: int) -> dict[str, float]:
    """Take steps with so many clients, one case a transaction or `batch` of them."""
    database = Database(url, pool_size=clients)
    await asyncio.gather(*(_greet(database) for _ in range(clients)))
    settle_memory()  # as each process of the product does once it has started
    ready()
    tally = Tally()
    await asyncio.gather(
        *(batches(database, tally, batch) if batch else client(database, tally) for _ in range(clients))
    )
    figures = tally.figures()
    await database.close()
    return figures


async def _greet(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("SELECT pg_sleep(0.2)"))  # long enough that each client has a connection of its own


def work(*, url: str, clients: int, batch: int = 0) -> dict[str, float]:
    """The process."""
    return uvloop.run(measure(url=url, clients=clients, batch=batch))


if __name__ == "__main__":
    serve(work)
