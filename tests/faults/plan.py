"""The schedule of faults: which, against whom, how long. It follows from the seed alone, so a run can be repeated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from deploy.engine import SERVICES
from tests.faults.log import POISONED

INSTANCES = (0, 1)
BROKERS = (1, 2, 3)
PROCESSES = tuple(f"{service}-{instance}" for service in SERVICES for instance in INSTANCES)
PROXIED = tuple(f"broker-{number}" for number in BROKERS)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: whom it may strike, how long it is held (seconds, from and to), and how strong it is."""

    targets: Sequence[str]
    seconds: tuple[float, float] = (0.0, 0.0)
    sizes: Sequence[int] = (0,)
    often: int = 1


KINDS: Mapping[str, Kind] = {
    "kill process": Kind(PROCESSES, often=2),
    "kill leader": Kind(SERVICES, often=2),
    "kill broker": Kind(PROXIED),
    "kill postgres": Kind(("postgres",)),
    "kill backend": Kind(SERVICES),
    "kill leader in flight": Kind(SERVICES, (2, 4)),
    "kill postgres in flight": Kind(("postgres",), (2, 4), sizes=(50, 150)),
    "pause process": Kind(PROCESSES, (3, 14), often=2),
    "pause leader": Kind(SERVICES, (9, 14)),
    "pause broker": Kind(PROXIED, (3, 12)),
    "cut database": Kind(PROCESSES, (3, 10)),
    "slow database": Kind(PROCESSES, (4, 8), sizes=(50, 200, 800)),
    "reset database": Kind(PROCESSES, (1, 4)),
    "cut broker": Kind(PROXIED, (3, 10)),
    "slow broker": Kind(PROXIED, (4, 8), sizes=(50, 200, 800)),
    "reset broker": Kind(PROXIED, (1, 4)),
    "fill disk": Kind(("files",), (3, 8)),
    "clock ahead": Kind(PROCESSES, (3, 8), sizes=(45, 600)),
    "clock back": Kind(PROCESSES, (3, 8), sizes=(45, 600)),
    "duplicates": Kind(("every topic",), sizes=(20, 100)),
    "poison": Kind(tuple(POISONED), sizes=(0, 1, 2)),
    "bank twice": Kind(("bank",), (4, 8)),
    "bank late": Kind(("bank",), (4, 8)),
    "bank never": Kind(("bank",), (4, 8)),
}
"""Sizes: milliseconds of latency, seconds of a clock, records of a log sent again, forms of poison."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `after` is the pause before it, `seconds` how long it is held; `size` is what its kind says."""

    number: int
    kind: str
    target: str
    after: float
    seconds: float
    size: int

    def __str__(self) -> str:
        held = f" for {self.seconds:.1f} s" if self.seconds else ""
        size = f" ({self.size})" if self.size else ""
        return f"{self.kind} {self.target}{size}{held}"


def plan(seed: int, faults: int, kinds: Sequence[str] = tuple(KINDS)) -> list[Fault]:
    """The schedule of a seed. Every kind comes before one comes again, but for those that come often."""
    random = Random(seed)
    made = []
    dealt = _dealt(random, kinds)
    for number in range(1, faults + 1):
        name = next(dealt)
        kind = KINDS[name]
        made.append(
            Fault(
                number,
                name,
                random.choice(kind.targets),
                after=round(random.uniform(0.2, 2.0), 1),
                seconds=round(random.uniform(*kind.seconds), 1),
                size=random.choice(kind.sizes),
            )
        )
    return made


def _dealt(random: Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        deck = [name for name in kinds for _ in range(KINDS[name].often)]
        random.shuffle(deck)
        yield from deck
