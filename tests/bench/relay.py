"""The relay alone: how fast it empties an outbox onto a bus, beside the same table emptied onto nothing; onto Kafka,
beside a bare producer of the same batches."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from deploy.forms import CLUSTER
from deploy.local import PARTITIONS
from libs.common.bus.postgres import create_schema
from libs.common.db import metadata as make_metadata
from libs.common.outbox import message
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, Skipped, in_processes, ratio
from tests.bench.six_steps.case import told
from tests.conftest import free_port, make_kafka_topic

ROWS = 120_000  # these are in PostgreSQL's memory, as what the relay carries is: it has just been written
WARMING = 8  # turns of each until a broker that has just started has its code compiled: it gets twice as fast meanwhile
TOLD = (1, 2, 3)  # what workflow tells of: assigned, completed, certified
WORKER = "tests.bench.relay_worker"
# Every application tells of each of them; ids follow the applications, a batch of the relay holds them mixed.
FILL = """
    INSERT INTO outbox (event_id, topic, key, type, time, traceparent, value)
    SELECT uuidv7(), topic, md5(n::text)::uuid::text, type, time, traceparent, body::bytea
      FROM generate_series(1, {applications}) AS r (n), (VALUES {kinds}) AS k (topic, type, time, traceparent, body)
     ORDER BY n / 100, topic
"""
WAIT = "INSERT INTO unpublished (id) SELECT id FROM outbox ORDER BY id"

metadata = make_metadata()


@asynccontextmanager
async def on_postgres(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """The outbox and the bus in two databases of the one cluster, as `make up` has them."""
    async with ground.database(metadata) as outbox, ground.empty_database("bus") as bus:
        topics = [told(number, UUID(int=0)).topic for number in TOLD]
        owner = ground.postgres.url(bus, "bus_owner")
        await create_schema(owner, topics=topics, partitions=PARTITIONS, app_role="bus_app")

        async def empty_bus() -> None:
            await ground.execute(bus, "TRUNCATE log", "UPDATE partition SET next = 0")

        address = {"postgres": ground.postgres.url(bus, "bus_app")}
        yield _contenders(ground, outbox, empty_bus, relay=address, bare={})


@asynccontextmanager
async def on_kafka(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """The same outbox, and one broker started for this benchmark alone."""
    async with ground.database(metadata) as outbox, broker(ground.folder / "kafka") as bootstrap:
        for topic in {told(number, UUID(int=0)).topic for number in TOLD}:
            await make_kafka_topic(bootstrap, topic, PARTITIONS)

        async def nothing() -> None:
            """A log of Kafka's may grow."""

        address = {"kafka": bootstrap}
        contenders = _contenders(ground, outbox, nothing, relay=address, bare=address)
        for _ in range(WARMING):
            for contender in contenders.values():
                await contender()
        yield contenders


@asynccontextmanager
async def broker(home: Path) -> AsyncIterator[str]:
    """A Kafka broker for as long as the block lasts; gives its bootstrap address. Raises Skipped without java."""
    if not (shutil.which("java") and shutil.which("mvn")):
        raise Skipped("no java and maven to start a broker with")
    environment = {**os.environ, "KAFKA_HOME": str(home), "KAFKA_PORT": str(free_port())}
    try:
        yield await asyncio.to_thread(_cluster, environment, "up", "1")
    finally:
        await asyncio.to_thread(_cluster, environment, "wipe")


def _cluster(environment: Mapping[str, str], *verb: str) -> str:
    done = subprocess.run([CLUSTER, *verb], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _contenders(
    ground: Ground,
    outbox: str,
    reset: Callable[[], Awaitable[None]],
    *,
    relay: Mapping[str, str],
    bare: Mapping[str, str],
) -> Mapping[str, Contender]:
    url = ground.postgres.url(outbox, "bench_app")

    async def turn(contender: str, **given: Any) -> Figures:
        await reset()
        await ground.execute(outbox, "TRUNCATE outbox, unpublished", fill(ROWS), WAIT, "VACUUM ANALYZE")
        await ground.settle()  # nobody but the filling has to bring its pages to the disk
        return (await in_processes(WORKER, {"contender": contender, "outbox": url, "rows": ROWS, **given}))[0]

    async def ours() -> Figures:
        return await turn("relay", **relay)

    async def nothing_around() -> Figures:
        return await turn("producer" if bare else "drain", **bare)

    contenders = {"relay": ours, "bare": nothing_around}
    return contenders if bare else {**contenders, "bare, by the relay's statements": partial(turn, "drain", own=True)}


def fill(rows: int) -> str:
    """SQL that fills an outbox with what workflow tells of, as the product writes it."""
    kinds = []
    for number in TOLD:
        event = told(number, UUID(int=number))
        headers = message(event).headers
        attributes = [event.topic, headers["ce_type"], headers["ce_time"], headers["ce_traceparent"]]
        texts = [f"'{text}'" for text in (*attributes, event.model_dump_json())]
        kinds.append(f"({', '.join(texts)})")
    return FILL.format(applications=rows // len(TOLD), kinds=", ".join(kinds))


BENCHMARKS = (
    Benchmark(
        "relay",
        on_postgres,
        (Judged("relay at 500 a batch ÷ bare drain of the table", ratio("relay", "bare", "events/s"), 0.3, 0.5),),
        turns=3,
    ),
    Benchmark(
        "relay-kafka",
        on_kafka,
        (
            Judged(
                "relay on Kafka ÷ a bare aiokafka producer of the same batches",
                ratio("relay", "bare", "events/s"),
                0.7,
                0.9,
            ),
        ),
        turns=13,
    ),
)
