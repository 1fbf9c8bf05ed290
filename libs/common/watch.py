"""How the jobs of a service tell what they do: batches for the metrics, spans for the traces."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import monotonic

from prometheus_client import CollectorRegistry

from libs.common.bus.protocol import Message, Record
from libs.common.measures import Batches
from libs.common.tracing import Tracing


@dataclass(frozen=True)
class Watch:
    """What relay, consumer and ticker report to. Made without arguments, nobody hears of it. `began` is monotonic."""

    batches: Batches = field(default_factory=lambda: Batches("", CollectorRegistry()))
    tracing: Tracing = field(default_factory=Tracing)

    def published(self, messages: Sequence[Message], began: float) -> None:
        """Events are on the bus."""
        self.batches.published([message.topic for message in messages], monotonic() - began)
        self.tracing.published(messages)

    def handling(self, records: Sequence[Record], hears: Callable[[Record], bool]) -> AbstractContextManager[None]:
        """In this block records are handled, those that the service hears."""
        return self.tracing.handling(records, hears)

    def taken(self, topic: str, outcomes: Mapping[str, int], began: float) -> None:
        """A batch of a topic was taken, and its effects committed: how many events came to each outcome."""
        self.batches.taken(topic, outcomes, monotonic() - began)

    def worked(self, n: int, began: float) -> None:
        """So much due work was done."""
        self.batches.worked(n, monotonic() - began)
