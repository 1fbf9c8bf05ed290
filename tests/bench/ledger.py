"""The ledger alone: postings on one hot treasury, netted over a batch, beside a function that locks the hot rows."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from services.finance.models import metadata
from tests.bench import books
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, in_processes, ratio
from tests.finance.builders import CITY, COUNTY

ORDERS = 2_000
CLIENTS = 32
SECONDS = 5.0
PROCESSES = 2

# One transfer a transaction, in one call: the accounts are locked in order before anything else, as such functions do.
# Locked as late as can be, behind the entries whose foreign keys share those rows, it posts a fifth and less.
FUNCTION = """
    CREATE FUNCTION post_one(n bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        made uuid := uuidv7();
        ids bigint[] := ARRAY(SELECT id FROM account ORDER BY id FOR NO KEY UPDATE);
    BEGIN
        INSERT INTO transfer (id, key, kind, treasury, month, posted_on, order_id, attempt)
        VALUES (made, 'payout:' || made, 'payout', '{county}', '{month}', '{day}', bench_id('order', n), 1);
        INSERT INTO entry (transfer_id, account_id, fen)
        SELECT made, id, fen FROM unnest(ids, {fens}) AS r (id, fen);
        UPDATE account AS a SET balance = balance + r.fen FROM unnest(ids, {fens}) AS r (id, fen) WHERE a.id = r.id;
    END $$
"""
FENS = f"ARRAY[-{books.BOTH}, {books.COUNTYS}, {books.CITYS}, {books.CITYS}, -{books.CITYS}]::bigint[]"  # as in OPENED
SCRIPT = f"\\set n random(1, {ORDERS})\nSELECT post_one(:n);\n"


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """The books of one county and its city, with orders that postings can belong to."""
    async with ground.database(metadata, "finance") as ours, ground.database(metadata, "finance") as theirs:
        for database in (ours, theirs):
            await ground.execute(database, *books.orders(ORDERS))
        function = FUNCTION.format(county=COUNTY, month=books.MONTH, day=books.DAY, fens=FENS)
        await ground.execute(theirs, function)

        async def netted() -> Figures:
            share = {"url": ground.postgres.url(ours, "finance_app"), "county": COUNTY, "city": CITY}
            done = await in_processes("tests.bench.ledger_worker", *[share] * PROCESSES)
            return {"transfers/s": sum(one["transfers/s"] for one in done)}

        async def locking() -> Figures:
            rate = await ground.pgbench(theirs, SCRIPT, clients=CLIENTS, seconds=SECONDS, role="finance_app")
            return {"transfers/s": rate}

        yield {"netted a batch": netted, "row-locking function": locking}


BENCHMARK = Benchmark(
    "ledger",
    prepared,
    (
        Judged(
            "hot-treasury posting ÷ a row-locking function",
            ratio("netted a batch", "row-locking function", "transfers/s"),
            floor=8,
            aim=20,
        ),
    ),
)
