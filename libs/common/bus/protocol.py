"""What a bus is: an ordered log per partition, published to in batches, read by groups whose members share them.

The bus keeps no progress of ours: each service resumes from its own `consumer_offset` rows (DESIGN §3.4).
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from murmurhash2 import murmurhash2
from pydantic_core import from_json

KAFKA_SEED = 0x9747B28C
"""Of MurmurHash2, as Kafka's clients have it."""


class BusUnavailable(OSError):
    """The bus cannot be reached or did not confirm in time. Nothing is known of the batch: publish it again."""


class OffsetGone(Exception):
    """The asked offset is no longer (or not yet) in the log; `start` is the first one that is."""

    def __init__(self, start: int) -> None:
        super().__init__(f"the log begins at {start}")
        self.start = start


class Slot(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


Shared = str
"""Headers that many messages have alike, as a JSON object: a driver makes them ready once and writes them once. They
are looked up for each message, and a text knows its hash."""


Headers = Sequence[tuple[str, bytes]]
"""Names and values, as they are on the wire."""


def encoded(headers: Mapping[str, str]) -> Headers:
    """Headers for the wire."""
    return [(name, value.encode()) for name, value in headers.items()]


class Message(NamedTuple):
    """One event on its way out: key, its own CloudEvents headers, JSON bytes, and the headers of all of its type."""

    topic: str
    key: str
    own: Headers
    value: bytes
    shared: Shared = "{}"

    @property
    def headers(self) -> dict[str, str]:
        """All of them, as whoever reads the record finds them."""
        return {**from_json(self.shared), **{name: value.decode() for name, value in self.own}}


class Record(NamedTuple):
    """One event as the log holds it."""

    slot: Slot
    offset: int
    key: str
    headers: Mapping[str, str]
    value: bytes


class Member(Protocol):
    """One process's membership of a group, while it lasts."""

    def joined(self) -> bool:
        """Whether the group counts this process among its members now. Raises BusUnavailable where the membership has
        ended for good: leave the block and join again."""
        ...

    async def read(self, slot: Slot, offset: int, *, limit: int, wait: float) -> list[Record]:
        """Up to `limit` records from `offset` on, waiting up to `wait` seconds for the first. Asking for `offset` also
        says that all below it is done. Raises OffsetGone, BusUnavailable."""
        ...


Assigned = Callable[[frozenset[Slot]], Awaitable[None]]


class Bus(Protocol):
    """A driver. Both pass one contract suite (`tests/contracts/test_bus.py`)."""

    async def start(self) -> None:
        """Connect; waits for nothing: a bus that is away shows in `reachable`."""
        ...

    async def stop(self) -> None:
        """Flush and disconnect."""
        ...

    async def publish(self, messages: Sequence[Message], *, after: Awaitable[None] | None = None) -> None:
        """Append all, in order per key, durably. Raises BusUnavailable; then any part may have been appended.

        What can be made ready is, and then `after` is waited for: the publishing of what goes before. Where that
        raises, so does this, and nothing is appended.
        """
        ...

    def join(
        self, group: str, topics: Sequence[str], *, instance: str, on_assigned: Assigned
    ) -> AbstractAsyncContextManager[Member]:
        """Become a member of `group`. `on_assigned` is awaited with the whole set of slots at every change of it."""
        ...

    async def ends(self, topics: Sequence[str]) -> Mapping[Slot, tuple[int, int]]:
        """First offset and next offset of every partition of these topics."""
        ...

    async def fetch(self, slot: Slot, offset: int, *, limit: int) -> list[Record]:
        """Records from `offset` on, outside any group: for replay. Empty at the end. Raises OffsetGone."""
        ...

    async def reachable(self) -> bool:
        """Whether the bus answers."""
        ...


def by_slot(messages: Sequence[Message], partitions: Mapping[str, int]) -> dict[Slot, list[Message]]:
    """Messages by the partition they belong to, in their order; `partitions` says how many each topic has."""
    found: dict[tuple[str, int], list[Message]] = defaultdict(list)
    for message in messages:
        found[message.topic, partition_of(message.key, partitions[message.topic])].append(message)
    return {Slot(*place): each for place, each in found.items()}


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key: Kafka's own default, in both drivers."""
    return (murmurhash2(key.encode(), KAFKA_SEED) & 0x7FFFFFFF) % partitions
