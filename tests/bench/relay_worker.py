"""Contenders of the relay benchmark, each a process of its own: `relay`, `drain`, `producer`."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any

import uvloop
from aiokafka import AIOKafkaProducer
from pydantic_core import from_json

from deploy.host import settle_memory
from libs.common.bus.kafka import MAX_BATCH_BYTES, KafkaBus
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import encoded, partition_of
from libs.common.db import Database, connect
from libs.common.outbox import _PUBLISHED, _UNPUBLISHED, BATCH, TOLD, Relay, messages_of
from tests.bench.worker import ready, serve

READ = f"""
    SELECT {TOLD}
      FROM (SELECT id FROM unpublished ORDER BY id LIMIT $1) AS waiting JOIN outbox AS o USING (id) ORDER BY o.id
"""  # noqa: S608 - columns of the product
MARK = "DELETE FROM unpublished WHERE id = ANY(CAST(string_to_array($1, ',') AS bigint[]))"
"""The plain statements: a join, and a mark that is on the disk when it is answered. Columns, and ids as one text, are
the product's (libs/common/outbox.py): the limit must not be held down by the driver."""


async def relay(*, outbox: str, rows: int, postgres: str = "", kafka: str = "") -> dict[str, float]:
    """The product's relay on one of its buses."""
    database = Database(outbox)
    bus = KafkaBus(kafka) if kafka else PostgresBus(postgres)
    await database.reachable()
    await bus.reachable()
    try:
        return await _timed(Relay(database, bus).publish, rows)
    finally:
        await bus.stop()
        await database.close()


async def drain(*, outbox: str, rows: int, own: bool = False) -> dict[str, float]:
    """Read and marked by the bare driver, 500 events at a time, onto nothing; by plain statements, or the relay's own:
    by an array, with a mark that a crash may forget."""
    connection = await connect(outbox)
    read, mark, given = (_UNPUBLISHED, _PUBLISHED, ("",)) if own else (READ, MARK, ())

    async def empty() -> int:
        total = 0
        while found := await connection.fetch(read, *given, BATCH):
            await connection.execute(mark, ",".join([row[0] for row in found]))
            total += len(found)
        return total

    return await _timed(empty, rows)


async def producer(*, outbox: str, rows: int, kafka: str) -> dict[str, float]:
    """aiokafka's producer alone, set like the product's, with the same messages in memory, keys and headers bytes
    already: it finds the partitions and sends a batch for each, like the relay 500 messages at a time; as its
    documentation sends batches, one after another."""
    connection = await connect(outbox)
    found = await connection.fetch(f"SELECT {TOLD} FROM outbox AS o ORDER BY o.id")  # noqa: S608 - as above
    ready_headers = lru_cache(lambda shared: encoded(from_json(shared)))
    messages = [
        (topic, key, key.encode(), value, [*ready_headers(shared), *own])
        for topic, key, own, value, shared in messages_of(found)
    ]
    made = AIOKafkaProducer(
        bootstrap_servers=kafka, enable_idempotence=True, acks="all", max_batch_size=MAX_BATCH_BYTES
    )
    await made.start()
    partitions = {topic: len(await made.partitions_for(topic)) for topic in {message[0] for message in messages}}

    async def send() -> int:
        for at in range(0, len(messages), BATCH):
            slots: dict[tuple[str, int], Any] = defaultdict(made.create_batch)
            for topic, name, key, value, headers in messages[at : at + BATCH]:
                batch = slots[topic, partition_of(name, partitions[topic])]
                batch.append(timestamp=None, key=key, value=value, headers=headers)
            sent = [await made.send_batch(batch, topic, partition=number) for (topic, number), batch in slots.items()]
            await asyncio.gather(*sent)
        return len(messages)

    try:
        return await _timed(send, rows)
    finally:
        await made.stop()


async def _timed(work: Callable[[], Awaitable[int]], rows: int) -> dict[str, float]:
    settle_memory()  # as each process of the product does once it has started
    ready()
    own, began = time.process_time(), time.perf_counter()
    done = await work()
    took, own = time.perf_counter() - began, time.process_time() - own
    if done != rows:
        raise RuntimeError(f"{done} of {rows} events")
    return {"events/s": rows / took, "own_us": own / rows * 1e6}


CONTENDERS: Mapping[str, Callable[..., Coroutine[Any, Any, dict[str, float]]]] = {
    "relay": relay,
    "drain": drain,
    "producer": producer,
}


def work(*, contender: str, **arguments: Any) -> dict[str, float]:
    """The process."""
    return uvloop.run(CONTENDERS[contender](**arguments))


if __name__ == "__main__":
    serve(work)
