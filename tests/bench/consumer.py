"""The consumer alone: the inbox with a set-based handler, 500 events a transaction, beside one event a transaction."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from uuid import UUID

from libs.common.bus.postgres import PostgresBus, create_schema
from libs.common.consumer import BATCH
from libs.common.outbox import message
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, in_processes, ratio
from tests.bench.six_steps.case import metadata, told

EVENTS = 30_000
HEARD = 1  # what workflow tells of at the first step: dept.assigned
_drawn = Random(4)
CASES = [UUID(int=_drawn.getrandbits(128)) for _ in range(EVENTS)]
RESET = (
    "TRUNCATE cases, history, outbox, unpublished, inbox, consumer_offset",
    f"INSERT INTO cases (id, state) SELECT unnest('{{{','.join(map(str, CASES))}}}'::uuid[]), 'assigned'",
    "VACUUM ANALYZE cases",
)


async def fill(url: str) -> None:
    """Tell of every case, as the relay does."""
    bus = PostgresBus(url)
    try:
        for first in range(0, EVENTS, BATCH):
            await bus.publish([message(told(HEARD, case)) for case in CASES[first : first + BATCH]])
    finally:
        await bus.stop()


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """A log of events about as many cases, read from its beginning at every turn."""
    async with ground.database(metadata) as reader, ground.empty_database("bus") as bus:
        owner = ground.postgres.url(bus, "bus_owner")
        await create_schema(owner, topics=[told(HEARD, CASES[0]).topic], partitions=1, app_role="bus_app")
        await fill(ground.postgres.url(bus, "bus_app"))
        await ground.execute(bus, "VACUUM ANALYZE log")

        async def turn(size: int) -> Figures:
            await ground.execute(reader, *RESET)
            urls = {"bus": ground.postgres.url(bus, "bus_app"), "database": ground.postgres.url(reader, "bench_app")}
            return (await in_processes("tests.bench.consumer_worker", {"size": size, **urls}))[0]

        async def batches() -> Figures:
            return await turn(500)

        async def one_by_one() -> Figures:
            return await turn(1)

        yield {"500 a transaction": batches, "one a transaction": one_by_one}


BENCHMARK = Benchmark(
    "consumer",
    prepared,
    (
        Judged(
            "batch consumer ÷ one transaction an event",
            ratio("500 a transaction", "one a transaction", "events/s"),
            floor=15,
            aim=25,
        ),
    ),
)
