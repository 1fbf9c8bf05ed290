"""The bus on Kafka: idempotent producer, static members, positions from the service's own offset rows.

The group's committed offsets exist for lag tools only. Kafka may hand a paused member's partitions on after
`session_timeout_ms`; what the paused one still tries is fenced by its service's own offset row.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from itertools import zip_longest
from time import monotonic
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import IllegalStateError, KafkaError
from pydantic_core import from_json

from libs.common.bus.protocol import (
    Assigned,
    BusUnavailable,
    Headers,
    Message,
    OffsetGone,
    Record,
    Shared,
    Slot,
    by_slot,
    encoded,
)
from libs.common.tasks import being_stopped

log = structlog.get_logger()

SESSION_MS = 10_000
MAX_BATCH_BYTES = 900_000  # a broker takes 1 MiB a batch
REQUEST_MS = 15_000
NEVER_MS = 2**31 - 1
READER_WAIT_MS = 10
PUBLISH_SECONDS = 30.0  # an idempotent producer waits for a lost broker without end, and without a word
STOP_SECONDS = 5.0
REACHABLE_SECONDS = 5.0
RETRY_SECONDS = 1.0
LAG_SECONDS = 5.0
AWAY = (KafkaError, OSError, TimeoutError)


class KafkaBus:
    """The driver. One object a process; the producer is made at its first use, and anew after a failure."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: Any = None
        self._reader: Any = None
        self._making = asyncio.Lock()

    async def start(self) -> None:
        """Nothing to do: the brokers may still be away."""

    async def stop(self) -> None:
        """Flush and disconnect."""
        await self._drop_producer()
        if self._reader:
            await _stopped(self._reader)
            self._reader = None

    # -- publishing

    async def _ready_producer(self) -> Any:
        async with self._making:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    enable_idempotence=True,
                    acks="all",
                    max_batch_size=MAX_BATCH_BYTES,
                    request_timeout_ms=REQUEST_MS,
                )
                await _started(producer)
                self._producer = producer
            return self._producer

    async def publish(self, messages: Sequence[Message], *, after: Awaitable[None] | None = None) -> None:
        """Append all. Partitions go side by side; within one, a batch leaves only when the one before is confirmed, so
        a failure in the middle can never put a later event of a key before an earlier one."""
        try:
            producer = await self._ready_producer()
            topics = {message.topic for message in messages}
            partitions = {topic: len(await producer.partitions_for(topic)) for topic in topics}
            slots = {slot: _packed(producer, batch) for slot, batch in by_slot(messages, partitions).items()}
            if after is not None:
                await after
            async with asyncio.timeout(PUBLISH_SECONDS):
                await _append(producer, slots)
        except AWAY as error:
            await self._drop_producer()
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # Its own `stop` waits for the brokers. What the dropped one may still have written is known by its event ids.
        with suppress(*AWAY):
            async with asyncio.timeout(STOP_SECONDS):
                await producer._sender.close()  # noqa: SLF001 - there is no public way
        with suppress(*AWAY):
            async with asyncio.timeout(STOP_SECONDS):
                await producer.client.close()
        producer._closed = True  # noqa: SLF001 - or its finaliser warns

    # -- reading

    @asynccontextmanager
    async def join(
        self, group: str, topics: Sequence[str], *, instance: str, on_assigned: Assigned
    ) -> AsyncIterator["_Member"]:
        """Take part in `group` as the static member `<group>-<instance>` until the block ends."""
        consumer = await self._joined(group, topics, instance, on_assigned)
        member = _Member(consumer)
        try:
            yield member
        finally:
            try:
                await _stopped(consumer)  # first: it answers the commits that are under way
            finally:
                await member.end_commits()

    async def _joined(self, group: str, topics: Sequence[str], instance: str, on_assigned: Assigned) -> Any:
        """A consumer that has started; brokers that are away are waited for, as the relay waits."""
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                group_id=group,
                group_instance_id=f"{group}-{instance}",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=1_000,  # a new member waits for the others' next heartbeat
                # A member without partitions polls nothing and must still be there to take over.
                max_poll_interval_ms=NEVER_MS,
                request_timeout_ms=REQUEST_MS,
            )
            consumer.subscribe(topics=list(topics), listener=_Listener(on_assigned))
            try:
                await _started(consumer)
            except AWAY as error:
                await log.awarning("bus is away", group=group, error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return consumer

    async def _ready_reader(self) -> Any:
        async with self._making:
            if self._reader is None:
                reader = AIOKafkaConsumer(
                    bootstrap_servers=self._bootstrap,
                    auto_offset_reset="earliest",
                    # What is asked for is there; a request still under way for the last partition holds up the next.
                    fetch_max_wait_ms=READER_WAIT_MS,
                )
                await _started(reader)
                self._reader = reader
            return self._reader

    async def ends(self, topics: Sequence[str]) -> Mapping[Slot, tuple[int, int]]:
        """First and next offset of every partition."""
        try:
            reader = await self._ready_reader()
            await reader._client._wait_on_metadata(topics[0])  # noqa: SLF001 - no public call loads unsubscribed topics
            slots = [TopicPartition(topic, n) for topic in topics for n in await _partitions(reader, topic)]
            starts, ends = await reader.beginning_offsets(slots), await reader.end_offsets(slots)
        except AWAY as error:
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error
        return {Slot(tp.topic, tp.partition): (starts[tp], ends[tp]) for tp in slots}

    async def fetch(self, slot: Slot, offset: int, *, limit: int) -> list[Record]:
        """Records from `offset` on; empty at the end."""
        start, end = (await self.ends([slot.topic]))[slot]
        if offset >= end:
            return []
        if offset < start:
            raise OffsetGone(start)
        reader = await self._ready_reader()
        here = TopicPartition(*slot)
        async with self._making:
            try:
                reader.assign([here])
                reader.seek(here, offset)
                found = await reader.getmany(here, timeout_ms=REQUEST_MS, max_records=limit)
            except AWAY as error:
                raise BusUnavailable(f"{type(error).__name__}: {error}") from error
        return [_record(slot, message) for message in found.get(here, [])]

    async def reachable(self) -> bool:
        """Whether a broker answers."""
        try:
            async with asyncio.timeout(REACHABLE_SECONDS):
                producer = await self._ready_producer()
                return bool(await producer.client.force_metadata_update())
        except AWAY:
            return False


class _Member:
    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._committed: dict[Slot, float] = {}
        self._commits: dict[Slot, asyncio.Task[None]] = {}

    def joined(self) -> bool:
        """See the protocol."""
        coordinator = self._consumer._coordinator  # noqa: SLF001 - there is no public way, here and below
        if coordinator._coordination_task.done():  # noqa: SLF001 - nothing would ever be assigned again
            raise BusUnavailable("the client has given its group up")
        subscription = self._consumer._subscription.subscription  # noqa: SLF001
        return bool(subscription and coordinator.generation > 0 and not coordinator.need_rejoin(subscription))

    async def read(self, slot: Slot, offset: int, *, limit: int, wait: float) -> list[Record]:
        """See the protocol."""
        here = TopicPartition(*slot)
        try:
            if await self._consumer.position(here) != offset:
                self._consumer.seek(here, offset)
            self._show_lag(here, slot, offset)
            found = await self._consumer.getmany(here, timeout_ms=int(wait * 1000), max_records=limit)
        except (IllegalStateError, *AWAY) as error:
            raise BusUnavailable(f"{type(error).__name__}: {error}") from error
        messages = found.get(here, [])
        if messages and messages[0].offset != offset:
            raise OffsetGone(messages[0].offset)
        return [_record(slot, message) for message in messages]

    async def end_commits(self) -> None:
        """End the commits that nobody answers any more."""
        for task in self._commits.values():
            task.cancel()
        await asyncio.gather(*self._commits.values(), return_exceptions=True)

    def _show_lag(self, here: TopicPartition, slot: Slot, offset: int) -> None:
        """Commit beside the reading, one at a time: the client waits for a lost broker without end, and a commit that
        is cut short leaves its error to nobody."""
        under_way = slot in self._commits and not self._commits[slot].done()
        if under_way or monotonic() - self._committed.get(slot, 0) < LAG_SECONDS:
            return
        self._committed[slot] = monotonic()
        self._commits[slot] = asyncio.create_task(self._commit(here, offset), name=f"commit {slot}")

    async def _commit(self, here: TopicPartition, offset: int) -> None:
        with suppress(IllegalStateError, *AWAY):
            await self._consumer.commit({here: offset})


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka publishes no types
    def __init__(self, on_assigned: Assigned) -> None:
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        if revoked:
            await self._on_assigned(frozenset())

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        await self._on_assigned(frozenset(Slot(tp.topic, tp.partition) for tp in assigned))


def _packed(producer: Any, messages: Sequence[Message]) -> Sequence[Any]:
    """Messages of one partition as the client's batches, encoded."""
    batches = [producer.create_batch()]
    for _, key, own, value, shared in messages:
        headers = [*_ready(shared), *own]
        while batches[-1].append(timestamp=None, key=key.encode(), value=value, headers=headers) is None:
            batches.append(producer.create_batch())  # an empty one takes an event of any size
    return batches


async def _append(producer: Any, slots: Mapping[Slot, Sequence[Any]]) -> None:
    """The first batch of every partition, when all are confirmed the second, and so on: mostly there is but one."""
    for batches in zip_longest(*slots.values()):
        sent = [
            await producer.send_batch(batch, slot.topic, partition=slot.partition)
            for slot, batch in zip(slots, batches, strict=True)
            if batch
        ]
        await asyncio.gather(*sent)


@lru_cache
def _ready(headers: Shared) -> Headers:
    return encoded(from_json(headers))


def _record(slot: Slot, message: Any) -> Record:
    headers = {name: _text(value) for name, value in message.headers}
    return Record(slot, message.offset, _text(message.key), headers, message.value or b"")


def _text(value: bytes | None) -> str:
    """Whatever a foreign publisher wrote, as text that PostgreSQL holds: no such record may stop its partition."""
    return (value or b"").decode(errors="replace").replace("\0", "\ufffd")


async def _partitions(reader: Any, topic: str) -> Sequence[int]:
    await reader._client._wait_on_metadata(topic)  # noqa: SLF001 - as above
    return sorted(reader.partitions_for_topic(topic) or ())


async def _started(client: Any) -> None:
    try:
        await client.start()
    except BaseException:
        await _stopped(client)
        raise


async def _stopped(client: Any) -> None:
    """Stop a client. aiokafka's `stop` cancels a task of its own, awaits it, and lets that surface as ours."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await client.stop()
    except (asyncio.CancelledError, *AWAY) as error:
        if isinstance(client, AIOKafkaConsumer):
            await _cut_off(client)
        if isinstance(error, asyncio.CancelledError) and being_stopped():
            raise


async def _cut_off(consumer: Any) -> None:
    """What `stop` left open because a rebalance under way held it for too long; asked again, it does nothing."""
    coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001 - there is no public way
    heartbeat = getattr(coordinator, "_stop_heartbeat_task", None)
    closings = [heartbeat, fetcher and fetcher.close, consumer._client.close]  # noqa: SLF001 - as above
    for close in filter(None, closings):
        with suppress(*AWAY):
            async with asyncio.timeout(STOP_SECONDS):
                await close()
