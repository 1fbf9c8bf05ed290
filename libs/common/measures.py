"""What `/metrics` tells beyond the HTTP edge: gauges looked up when they are asked for, and batches counted as they go.

A look is one set-based statement, and its answer stands for some seconds: however many ask, the database is asked once.
Labels are topics, kinds, treasuries, departments and states: codes, few, and nobody's name.
"""

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import Database, passing

log = structlog.get_logger()

LOOK_SECONDS = 4.0
"""The longest that all looks of one scrape may take together, for who scrapes waits some seconds only; what has not
answered by then counts as failed, and its last answer is no more told."""

SIZES = (1, 5, 10, 50, 100, 250, 500)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Some gauges of one look. `gauges` maps each name, without its `huanquan_`, to its help; `look` gives rows with a
    value under each of these names and a text under each of `labels`; an answer stands for `every` seconds."""

    gauges: Mapping[str, str]
    labels: tuple[str, ...]
    look: Callable[[AsyncConnection], Awaitable[Rows]]
    every: float = 5.0


def query(sql: str) -> Callable[[AsyncConnection], Awaitable[Rows]]:
    """The look that is one statement."""
    statement = text(sql)

    async def look(connection: AsyncConnection) -> Rows:
        return [row._asdict() for row in await connection.execute(statement)]

    return look


class Batches:
    """Batches as they go: how many events of which topic, of what size, in what time."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self._service = service
        self._events = Counter(
            "huanquan_events",
            "Events published, and events taken, by what became of them",
            ["service", "topic", "outcome"],
            registry=registry,
        )
        self._sizes = Histogram(
            "huanquan_batch_events",
            "Events of a topic in a batch; due work has no topic",
            ["service", "job", "topic"],
            buckets=SIZES,
            registry=registry,
        )
        self._seconds = Histogram(
            "huanquan_batch_seconds",
            "Time of a batch, its commit included",
            ["service", "job"],
            buckets=SECONDS,
            registry=registry,
        )

    def published(self, topics: Iterable[str], seconds: float) -> None:
        """The relay carried a batch to the bus: the topic of each event."""
        counts = Tally(topics)
        for topic, n in counts.items():
            self._events.labels(self._service, topic, "published").inc(n)
        self._batch("relay", counts, seconds)

    def taken(self, topic: str, outcomes: Mapping[str, int], seconds: float) -> None:
        """The inbox took a batch of one topic: how many events came to each outcome."""
        for outcome, n in outcomes.items():
            self._events.labels(self._service, topic, outcome).inc(n)
        self._batch("consumer", {topic: sum(outcomes.values())}, seconds)

    def worked(self, n: int, seconds: float) -> None:
        """The ticker did so much due work."""
        self._batch("ticker", {"": n}, seconds)

    def _batch(self, job: str, sizes: Mapping[str, int], seconds: float) -> None:
        for topic, n in sizes.items():
            self._sizes.labels(self._service, job, topic).observe(n)
        self._seconds.labels(self._service, job).observe(seconds)


class Live(NamedTuple):
    """A gauge that this process knows by itself. `values` gives a value for each value of `label`; without a label,
    one under the empty text."""

    name: str
    help: str
    label: str
    values: Callable[[], Mapping[str, float]]


class Gauges(Collector):
    """A service's gauges: `measures` are looked up by `refresh`, `live` ones asked at once."""

    def __init__(self, service: str, database: Database, measures: Sequence[Measure], live: Sequence[Live]) -> None:
        self._service = service
        self._database = database
        self._live = live
        self._looks = [_Look(measure) for measure in measures]
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> None:
        """Look again at what is older than it may be. A look that fails is told as such, and raises nothing."""
        async with self._refreshing:
            until = asyncio.get_running_loop().time() + LOOK_SECONDS
            for look in self._looks:
                if monotonic() - look.at >= look.measure.every:
                    await self._refreshed(look, until)

    async def _refreshed(self, look: "_Look", until: float) -> None:
        look.at, look.rows, look.failed = monotonic(), [], False
        try:
            async with asyncio.timeout_at(until), self._database.statements() as connection:
                look.rows = list(await look.measure.look(connection))
        except Exception as error:  # noqa: BLE001 - one gauge that cannot be told must not hide the others
            look.failed = True
            level = log.awarning if passing(error) else log.aexception
            await level("not measured", gauges=list(look.measure.gauges), error=type(error).__name__)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What Prometheus is told."""
        for live in self._live:
            labels = [live.label] if live.label else []
            samples = [((key,)[: len(labels)], value) for key, value in live.values().items()]
            yield self._family(live.name, live.help, labels, samples)
        for look in self._looks:
            measure = look.measure
            for name, help_ in measure.gauges.items():
                samples = [(tuple(row[label] or "" for label in measure.labels), row[name]) for row in look.rows]
                yield self._family(name, help_, measure.labels, samples)
        failed = [((look.name,), float(look.failed)) for look in self._looks]
        yield self._family(
            "look_failed", "1 where the last look at a gauge failed or took too long", ("gauge",), failed
        )

    def _family(
        self, name: str, help_: str, labels: Sequence[str], samples: Iterable[tuple[tuple[str, ...], float]]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"huanquan_{name}", help_, labels=["service", *labels])
        for values, value in samples:
            family.add_metric([self._service, *values], float(value))
        return family


class _Look:
    """A measure with its last answer."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.rows: list[Mapping[str, Any]] = []
        self.at = float("-inf")
        self.failed = False

    @property
    def name(self) -> str:
        return next(iter(self.measure.gauges))


MESSAGING: tuple[Measure, ...] = (
    Measure(
        gauges={
            "outbox_unpublished": "Events in the outbox that are not on the bus",
            "outbox_oldest_seconds": "Age of the oldest of them",
        },
        labels=("topic",),
        look=query("""
            SELECT topic, count(*) AS outbox_unpublished,
                   extract(epoch FROM clock_timestamp() - min(created_at)) AS outbox_oldest_seconds
              FROM unpublished JOIN outbox USING (id) GROUP BY topic
        """),
    ),
    Measure(
        gauges={
            "parked_keys": "Keys that are parked: refused, or waiting for their cause",
            "parked_oldest_seconds": "Since when the oldest of them is parked",
        },
        labels=("topic", "waiting"),
        look=query("""
            SELECT topic, CASE WHEN waiting_for IS NULL THEN 'no' ELSE 'yes' END AS waiting, count(*) AS parked_keys,
                   extract(epoch FROM clock_timestamp() - min(parked_at)) AS parked_oldest_seconds
              FROM parked_key GROUP BY 1, 2
        """),
    ),
    Measure(
        gauges={
            "due_overdue": "Due work whose moment has passed and that is not done",
            "due_overdue_seconds": "For how long the oldest of it has waited",
        },
        labels=("kind",),
        look=query("""
            SELECT kind, count(*) AS due_overdue,
                   extract(epoch FROM clock_timestamp() - min(at)) AS due_overdue_seconds
              FROM due WHERE at <= clock_timestamp() GROUP BY kind
        """),
    ),
)
