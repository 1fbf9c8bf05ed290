"""The consumer alone: the inbox with a set-based handler, 500 events a transaction, beside one event a transaction."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from libs.common.bus.postgres import create_schema
from libs.common.outbox import headers_of
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, in_processes, ratio
from tests.bench.six_steps.case import metadata, told

EVENTS = 30_000
HEARD = told(1, UUID(int=0))  # dept.assigned
FILL = """
    INSERT INTO log (topic, partition, "offset", key, headers, value)
    SELECT '{topic}', 0, n - 1, md5(n::text)::uuid::text,
           jsonb_set('{headers}', '{{ce_id}}', to_jsonb(gen_random_uuid())),
           replace('{body}', '{id}', md5(n::text)::uuid::text)::bytea
      FROM generate_series(1, {events}) AS r (n)
"""
CASES = "INSERT INTO cases (id, state) SELECT md5(n::text)::uuid, 'assigned' FROM generate_series(1, {events}) AS r (n)"
RESET = (
    "TRUNCATE cases, history, outbox, inbox, consumer_offset",
    CASES.format(events=EVENTS),
    "VACUUM ANALYZE cases",
)


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """A log of events about as many cases, read from its beginning at every turn."""
    async with ground.database(metadata) as reader, ground.empty_database("bus") as bus:
        owner = ground.postgres.url(bus, "bus_owner")
        await create_schema(owner, topics=[HEARD.topic], partitions=1, app_role="bus_app")
        headers = json.dumps(headers_of(HEARD))
        values = {"topic": HEARD.topic, "headers": headers, "body": HEARD.model_dump_json(), "id": UUID(int=0)}
        await ground.execute(
            bus,
            FILL.format(events=EVENTS, **values),
            "UPDATE partition SET next = (SELECT count(*) FROM log)",
            "VACUUM ANALYZE log",
        )

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
