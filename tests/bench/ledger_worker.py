"""Contender of the ledger benchmark: finance's own posting, 500 transfers a transaction, as a bank's result file is."""

import time
from datetime import date
from uuid import UUID, uuid4

import uvloop
from sqlalchemy import text

from deploy.host import settle_memory
from libs.common.db import Database
from services.finance import ledger
from services.finance.ledger import Transfer
from tests.bench import books
from tests.bench.worker import ready, serve

BATCH = 500
SECONDS = 5.0
DAY = date.fromisoformat(books.DAY)


async def measure(*, url: str, county: str, city: str) -> dict[str, float]:
    """Post for SECONDS."""
    database = Database(url)
    async with database.transaction() as tx:
        orders = list((await tx.execute(text("SELECT id FROM payout_order"))).scalars())
    settle_memory()  # as each process of the product does once it has started
    ready()
    posted, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        batch = [_transfer(orders[(posted + n) % len(orders)], county, city) for n in range(BATCH)]
        async with database.transaction() as tx:
            await ledger.hold_periods(tx, county, [books.MONTH])
            await ledger.post(tx, batch)
        posted += BATCH
    took = time.perf_counter() - began
    await database.close()
    return {"transfers/s": posted / took}


def _transfer(order: UUID, county: str, city: str) -> Transfer:
    return Transfer(
        key=f"payout:{uuid4()}",
        kind="payout",
        treasury=county,
        month=books.MONTH,
        posted_on=DAY,
        entries=ledger.payout_entries(payer=county, shares={city: books.CITYS, county: books.COUNTYS}),
        order=order,
        attempt=1,
    )


def work(*, url: str, county: str, city: str) -> dict[str, float]:
    """The process."""
    return uvloop.run(measure(url=url, county=county, city=city))


if __name__ == "__main__":
    serve(work)
