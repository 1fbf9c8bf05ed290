"""The load: everybody who files and everybody who has to do with it, over the REST APIs, until stopped and at rest."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import httpx

from deploy.engine import SERVICES
from deploy.sample.client import AT_ONCE, IDLE_SECONDS, Desk, Platform, StayedAway
from deploy.sample.generate import anyang
from deploy.sample.portal import AT_REST, Filed, states_of
from deploy.sample.treasury import close_months
from libs.common.auth import TokenIssuer
from libs.common.bus.protocol import Slot
from libs.common.settings import Settings
from tests.faults import log
from tests.faults.answers import Answers
from tests.faults.bank import Bank
from tests.faults.departments import departments
from tests.faults.engines import AWAY
from tests.faults.filing import Portal
from tests.faults.offices import Offices
from tests.faults.system import System

ANSWER_SECONDS = 30.0
"""Whoever is not answered asks again, and the balancer takes another process."""

LOOK_SECONDS = 0.3
PAID = {"settled", "bounced"}
UNPAID = ["unfunded", "due", "sent", "unknown", "bounced"]


class Doubting(httpx.AsyncHTTPTransport):
    """Takes a 401 for no answer: a process whose clock is wrong refuses every token."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ConnectError for a 401."""
        response = await super().handle_async_request(request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            await response.aread()
            raise httpx.ConnectError("401", request=request)
        return response


@dataclass
class Load:
    """The load at work."""

    system: System
    at: Platform
    answers: Answers
    bank: Bank
    portal: Portal
    offices: Offices
    filing: "asyncio.Task[None]"
    working: "Sequence[asyncio.Task[None]]"

    @property
    def violations(self) -> list[str]:
        """What somebody was refused that had to be possible or told wrongly, and who stopped working."""
        ended = [task for task in (self.filing, *self.working) if task.done() and not task.cancelled()]
        failed = [f"{task.get_name()} ended: {error!r}" for task in ended if (error := task.exception())]
        told = (self.answers, self.bank, self.portal, self.offices)
        return [*failed, *(violation for each in told for violation in each.violations)]

    @property
    def supervisor(self) -> Desk:
        """Somebody who sees everything."""
        return self.at.desk("supervisor")

    async def through(self, filed: Filed) -> bool:
        """Whether an application has come through all five services: paid, and intake knows; eligible for a flat; and
        the trail has its payment."""
        view = await self.supervisor.get(f"/intake/v1/applications/{filed.id}")
        if view["state"] != "closed" or not any(payment["state"] in PAID for payment in view["payments"]):
            return False
        talent = self.at.desk("talent", person=filed.receipt["beneficiary"])
        if not (await talent.get("/housing/v1/eligibilities"))["items"]:
            return False
        trail = await self.at.desk("auditor").get("/audit/v1/trail", key=filed.id)
        return any(entry["type"] in {"PayoutSettled", "PayoutBounced"} for entry in trail["items"])

    async def rest(self, seconds: float) -> list[str]:
        """File nothing more and wait until all is at rest; gives what is not, where that takes too long."""
        self.portal.stop()
        await self.filing
        until, under_way = time.monotonic() + seconds, ["nothing was looked at"]
        while under_way and time.monotonic() < until:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(StayedAway, *AWAY):
                under_way = await self._under_way()
        return under_way

    async def _under_way(self) -> list[str]:
        states = await states_of(self.supervisor)
        found = [f"application {name} is {state}" for name, state in states.items() if state not in AT_REST]
        orders = await self.supervisor.pages("/finance/v1/orders", state=UNPAID)
        found += [f"order {order['id']} is {order['state']}" for order in orders]
        return found or await self._unread()

    async def _unread(self) -> list[str]:
        async with log.opened(self.system.brokers.direct) as bus:
            ends = await log.ends(bus)
        found = []
        for service in SERVICES:
            connection = await self.system.postgres.connect(service)
            try:
                unpublished = await connection.fetchval("SELECT count(*) FROM unpublished")
                rows = await connection.fetch("SELECT topic, partition, next FROM consumer_offset")
            finally:
                await connection.close()
            if unpublished:
                found.append(f"{service} has {unpublished} events to publish")
            behind = [row for row in rows if row["next"] < ends[Slot(row["topic"], row["partition"])]]
            found += [
                f"{service} has not read {row['topic']}/{row['partition']} from {row['next']} on" for row in behind
            ]
        return found

    async def close_months(self) -> None:
        """Close every month with postings."""
        await close_months(self.at, anyang())


@asynccontextmanager
async def loaded(system: System, seed: int, rate: float) -> AsyncIterator[Load]:
    """The load for as long as this lasts; `rate` is in filings a second."""
    issuer, answers = TokenIssuer(Settings(home=system.home)), Answers()
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE, keepalive_expiry=IDLE_SECONDS)
    async with AsyncExitStack() as stack:
        transport, hooks = Doubting(limits=limits), {"response": [answers.hear]}
        http = await stack.enter_async_context(
            httpx.AsyncClient(timeout=ANSWER_SECONDS, transport=transport, event_hooks=hooks)
        )
        at = Platform(http, system.ports.front, issuer, asyncio.Semaphore(AT_ONCE))
        bank, portal = Bank(), Portal(at, seed, rate)
        offices = Offices(system, at, portal.filings, bank)
        await offices.prepare()
        everybody = await stack.enter_async_context(departments(system, at, answers))
        filing = asyncio.create_task(portal.run(), name="filing")
        working = [
            asyncio.create_task(offices.run(), name="offices"),
            asyncio.create_task(everybody.run(), name="departments"),
        ]
        try:
            yield Load(system, at, answers, bank, portal, offices, filing, working)
        finally:
            for task in (filing, *working):
                task.cancel()
            await asyncio.gather(filing, *working, return_exceptions=True)
