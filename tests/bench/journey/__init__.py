"""The whole journey, from `POST /intake/v1/applications` to `payout.settled`, on five processes and either bus.

Saturated, a closed loop keeps so many applications on their way; at a tenth and at seven tenths of that rate they come
in an open loop, however long the earlier ones take. Beside it the limit: the journey's own SQL on bare PostgreSQL.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from deploy.topics import apply_topics
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, Round, Skipped, in_processes
from tests.bench.journey.people import WARM
from tests.bench.journey.replay import recordings
from tests.bench.journey.system import System, deployed
from tests.bench.relay import broker

APPLICATIONS = 1_200
IN_FLIGHT = 600
TENTH, SEVENTY = 0.1, 0.7
STEADY_SECONDS = {TENTH: 40.0, SEVENTY: 20.0}
SINGLY, TOGETHER = "pgbench, one a transaction", "pgbench, 500 a transaction"
FEWEST = 200
"""A p99 of fewer says nothing."""


class Turns:
    """The turns of one deployment: each files people whom no turn before it filed."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._filed = 0
        self._saturated = 0.0

    async def saturated(self) -> Figures:
        """As fast as it goes."""
        figures = await self._take(APPLICATIONS, IN_FLIGHT)
        self._saturated = figures["applications/s"]
        return figures

    async def steady(self, share: float) -> Figures:
        """At this share of the saturated rate of the same round."""
        rate = share * self._saturated
        count = max(FEWEST, int(rate * STEADY_SECONDS[share]))
        return await self._take(count, count, rate)

    async def _take(self, count: int, in_flight: int, rate: float | None = None) -> Figures:
        async with self._system.serving() as running:
            given = {
                "home": str(self._system.home),
                "port": running.addresses.port,
                "databases": self._system.outboxes,
                "first": self._filed,
                "count": count,
                "in_flight": in_flight,
                "rate": rate,
            }
            self._filed += WARM + count
            before = running.cpu_seconds()
            [figures] = await in_processes("tests.bench.journey.driver", given)
            used = {
                f"{name}_cpu_ms": (seconds - before[name]) / (WARM + count) * 1000
                for name, seconds in running.cpu_seconds().items()
            }
            return {**figures, **used}


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """A deployment for each bus, Kafka's where java is there, and the recorded SQL."""
    async with AsyncExitStack() as stack:
        singly, together = await stack.enter_async_context(recordings(ground))
        turns = Turns(await stack.enter_async_context(deployed(ground, "journey")))
        contenders: dict[str, Contender] = {
            "saturated": turns.saturated,
            SINGLY: singly.replay,
            TOGETHER: together.replay,
            "at 10 %": partial(turns.steady, TENTH),
            "at 70 %": partial(turns.steady, SEVENTY),
        }
        with suppress(Skipped):  # the relay's benchmark says so
            kafka = await stack.enter_async_context(broker(ground.folder / "kafka"))
            await apply_topics(kafka)
            on_kafka = Turns(await stack.enter_async_context(deployed(ground, "journey-kafka", kafka=kafka)))
            contenders |= {
                "Kafka, saturated": on_kafka.saturated,
                "Kafka, at 10 %": partial(on_kafka.steady, TENTH),
                "Kafka, at 70 %": partial(on_kafka.steady, SEVENTY),
            }
        yield contenders


def _told_later(done: Round) -> float:
    """How much longer the slowest of a hundred wait at 70 % than at 10 %: judged by its inverse."""
    return done["at 10 %"]["PayoutSettled_p99_ms"] / done["at 70 %"]["PayoutSettled_p99_ms"]


def _of_limit(limit: str) -> Callable[[Round], float]:
    return lambda done: done["saturated"]["applications/s"] / done[limit]["applications/s"]


BENCHMARK = Benchmark(
    "journey",
    prepared,
    (
        Judged("journey ÷ pgbench, one transaction a step", _of_limit(SINGLY), floor=1.5, aim=2.5),
        Judged("journey ÷ batched limit, 500 a transaction", _of_limit(TOGETHER), floor=0.12, aim=0.25),
        Judged("journey's p99 at 10 % ÷ p99 at 70 % of the saturated rate", _told_later, floor=1 / 3, aim=0.5),
    ),
)
