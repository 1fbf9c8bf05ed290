"""The world around the platform, as one process: the portal's 32 clients, and everybody who works after them.

`python -m tests.bench.journey.driver '{…}'` (`load` says what goes in). Clocks are this machine's, on both sides: the
moment of a POST is taken here, that of an event by PostgreSQL when the relay had it confirmed by the bus.
"""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from deploy.local import Addresses
from libs.common.auth import TokenIssuer
from libs.common.db import connect
from libs.common.settings import Settings
from tests.bench.journey.clerks import Clerks
from tests.bench.journey.http import Line, request
from tests.bench.journey.people import TREASURIES, WARM, filings
from tests.bench.worker import ready, serve

CLIENTS = 32
BOUND_SECONDS = 240
LOOK_SECONDS = 0.2
TOLD = (
    "ApplicationAccepted",
    "DeptAssigned",
    "DeptCompleted",
    "TalentCertified",
    "BenefitApproved",
    "PayoutOrdered",
    "PayoutSettled",
)
"""The events whose time from the POST is told."""

_EVENTS = "SELECT event_id, type, key FROM outbox WHERE key = ANY($1::text[]) AND type = ANY($2::text[])"
_TAKEN = "SELECT event_id, extract(epoch FROM taken_at)::float8 AS at FROM inbox WHERE event_id = ANY($1::uuid[])"


class Journey:
    """So many applications on their way, at most `in_flight` of them at once."""

    def __init__(self, addresses: Addresses, issuer: TokenIssuer, made: Sequence[bytes], in_flight: int) -> None:
        self._addresses = addresses
        self._token = issuer.token("portal", client="bench")
        self._requests = [
            request("POST", "/intake/v1/applications", self._token, body=body, key=uuid.uuid4().hex) for body in made
        ]
        self._room = asyncio.Semaphore(in_flight)
        self._left = len(made)
        self.posted: dict[str, float] = {}
        self.all_settled = asyncio.Event()

    def settled(self, count: int) -> None:
        """So many came to their end."""
        self._left -= count
        for _ in range(count):
            self._room.release()
        if self._left <= 0:
            self.all_settled.set()

    async def file_all(self, rate: float | None) -> None:
        """File everything: as fast as there is room, or so many a second, whatever becomes of the earlier ones."""
        began = time.time()
        due = iter([(began + n / rate if rate else None, made) for n, made in enumerate(self._requests)])

        async def client() -> None:
            line = Line(self._addresses.port_of("intake"))
            for at, made in due:
                await self._file(line, at, made)
            line.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())

    async def _file(self, line: Line, at: float | None, made: bytes) -> None:
        await self._room.acquire()
        if at is not None:
            await asyncio.sleep(at - time.time())
        began = at or time.time()  # a filing that comes late because all clients wait has waited
        receipt = json.loads(await line.send(made))
        if receipt["state"] != "accepted":
            raise RuntimeError(f"not accepted: {receipt}")
        self.posted[receipt["id"]] = began


async def load(
    *, home: str, port: int, databases: Sequence[str], first: int, count: int, in_flight: int, rate: float | None
) -> dict[str, float]:
    """Take `count` applications (numbers `first` and following) to `payout.settled`; closed loop where `rate` is None.

    `databases` hold outboxes and inboxes. Before, WARM others take the same way: connections are made, statements
    prepared.
    Gives applications a second from the first POST to the last settled, how long after it the last event was told, what
    an application cost this process of a core, and p50 and p99 from POST to each event, in ms.
    """
    addresses, issuer = Addresses(port, together=False), TokenIssuer(Settings(home=Path(home)))
    if first == 0:
        await asyncio.gather(*(Clerks(addresses, issuer, each, print).give_quota() for each in TREASURIES))
    made = filings(first, WARM + count)
    warm, journey = Journey(addresses, issuer, made[:WARM], WARM), Journey(addresses, issuer, made[WARM:], in_flight)
    async with asyncio.timeout(BOUND_SECONDS):
        await _worked(warm, addresses, issuer, rate=None)
        ready()
        began, used = time.time(), time.process_time()
        await _worked(journey, addresses, issuer, rate)
        ended, used = time.time(), time.process_time() - used
        events = await _told(databases, journey.posted)
    _settled_once(journey.posted, events)
    done = {
        "applications/s": count / (ended - began),
        "rest_ms": (time.time() - ended) * 1000,
        "world_cpu_ms": used / count * 1000,
    }
    return done | _quantiles(journey.posted, events)


async def _worked(journey: Journey, addresses: Addresses, issuer: TokenIssuer, rate: float | None) -> None:
    """File while the clerks work, until all is settled; whatever fails ends it."""
    clerks = [Clerks(addresses, issuer, treasury, journey.settled) for treasury in TREASURIES]
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for each in clerks for worker in each.workers()]
        group.create_task(journey.file_all(rate))
        await journey.all_settled.wait()
        for worker in workers:
            worker.cancel()


async def _told(databases: Sequence[str], posted: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """Type, application and moment of each event of these applications: when the first service had taken it."""
    async with AsyncExitStack() as stack:
        connections = [await connect(url) for url in databases]
        for connection in connections:
            stack.push_async_callback(connection.close)
        told = {row["event_id"]: row for each in connections for row in await each.fetch(_EVENTS, list(posted), TOLD)}
        while True:
            taken: dict[Any, float] = {}
            for connection in connections:
                for event_id, at in await connection.fetch(_TAKEN, list(told)):
                    taken[event_id] = min(at, taken.get(event_id, at))
            if len(taken) == len(told):
                return [(told[event_id]["type"], told[event_id]["key"], at) for event_id, at in taken.items()]
            await asyncio.sleep(LOOK_SECONDS)


def _settled_once(posted: Mapping[str, float], events: Sequence[tuple[str, str, float]]) -> None:
    """Raises RuntimeError where what was filed is not what was settled."""
    settled = Counter(key for kind, key, _ in events if kind == "PayoutSettled")
    if settled != Counter(posted.keys()):
        raise RuntimeError(f"{len(posted)} filed, of {len(settled)} {settled.total()} payments settled")


def _quantiles(posted: Mapping[str, float], events: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for told in TOLD:
        took = sorted((at - posted[key]) * 1000 for kind, key, at in events if kind == told)
        figures |= {f"{told}_p50_ms": took[len(took) // 2], f"{told}_p99_ms": took[len(took) * 99 // 100]}
    return figures


def work(**given: object) -> dict[str, float]:
    """The process."""
    return uvloop.run(load(**given))  # type: ignore[arg-type]  # JSON, as `load` says


if __name__ == "__main__":
    serve(work)
