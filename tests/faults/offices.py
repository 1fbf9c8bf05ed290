"""The officers of the drill: the sample's, who go on until they are stopped; the treasuries deal with a bank that has
moods, and try to pay again what is unknown, which the platform must refuse."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import count

from deploy.sample.client import Platform, Refused, StayedAway, all_of, key_of
from deploy.sample.flats import read_flats
from deploy.sample.generate import PLACES, anyang
from deploy.sample.offices import HousingOffice, TalentOffice
from deploy.sample.policy import Json
from deploy.sample.portal import Filings
from deploy.sample.treasury import TreasuryOffice
from tests.faults.bank import Bank, Batch
from tests.faults.system import System
from tests.faults.work import Waiting

LOOK_SECONDS = 0.5
FLATS_PAUSE = 30.0
WAITING: Mapping[str, tuple[str, str]] = {
    "decide": (
        "workflow",
        """
        SELECT DISTINCT c.treasury FROM item AS i JOIN cases AS c USING (application)
         WHERE i.state IN ('awaiting_decision', 'proposed')
        """,
    ),
    "choose": (
        "housing",
        """
        SELECT DISTINCT treasury FROM eligibility AS e
         WHERE NOT EXISTS (SELECT FROM hold AS h WHERE h.eligibility = e.id AND h.state IN ('held', 'leased'))
        """,
    ),
    "lease": (
        "housing",
        "SELECT DISTINCT f.treasury FROM hold AS h JOIN flat AS f ON f.id = h.flat WHERE h.state = 'held'",
    ),
    "pay": (
        "finance",
        """
        SELECT DISTINCT treasury FROM payout_order WHERE state IN ('unfunded', 'due', 'sent', 'unknown', 'bounced')
        """,
    ),
}
"""Which treasuries have work of each kind."""


class Treasury(TreasuryOffice):
    """A treasury officer."""

    def __init__(self, at: Platform, treasury: str, filings: Filings, bank: Bank) -> None:
        super().__init__(at, anyang(), treasury, filings)
        self._bank = bank
        self._pressed: set[tuple[str, int]] = set()

    async def _send(self, orders: list[Json]) -> None:
        if orders:
            await self._to_the_bank(sorted((order["id"], order["attempt"]) for order in orders))

    async def _to_the_bank(self, chosen: list[tuple[str, int]]) -> None:
        body = {"treasury": self.treasury, "orders": [order for order, _ in chosen]}
        try:
            made = await self._officer.post("/finance/v1/batches", body, key=key_of("batch", chosen))
        except Refused as refused:
            if refused.code != "nothing-to-pay":
                raise
        else:
            self._bank.give(await self._officer.raw(made["file"]))

    async def _take_answers(self, orders: dict[str, list[Json]]) -> None:
        batches = self._bank.due(self.treasury, enquired=bool(orders["unknown"]))
        for batch in batches:
            await all_of(self._import(batch, copy) for copy in range(batch.copies))
            batch.delivered()
        await self._press(orders["unknown"])
        if batches:
            for one in await self._officer.pages("/finance/v1/bank-exceptions", resolved="false"):
                await self._resolve(one["id"])

    async def _import(self, batch: Batch, copy: int) -> None:
        key = f"bank-{batch.number}-{'final' if batch.answered else 'first'}-{copy}"
        await self._officer.post("/finance/v1/bank-results", key=key, content=batch.answer)

    async def _press(self, unknown: list[Json]) -> None:
        """Try once to pay again what the bank has not told of."""
        chosen = sorted((order["id"], order["attempt"]) for order in unknown)
        fresh = [each for each in chosen if each not in self._pressed]
        if fresh:
            self._pressed.update(fresh)
            await self._to_the_bank(fresh)


class Housing(HousingOffice):
    """A housing officer, who enters the sample's flats again and again, each time as other flats."""

    async def list_more(self, number: int) -> None:
        """Enter the treasury's flats for the n-th time."""
        flats = [flat for flat in read_flats() if flat.pop("treasury") == self.treasury]
        for flat in flats:
            flat["code"] += f"-{number}"
            flat["estate"] += f"{number}期"
        if flats:
            key = f"drill-flats-{self.treasury}-{number}"
            await self._officer.post("/housing/v1/flats:batch", {"flats": flats}, key=key)


class Offices:
    """Everybody at work for every treasury. `violations` has what they were refused."""

    def __init__(self, system: System, at: Platform, filings: Filings, bank: Bank) -> None:
        self.violations: list[str] = []
        self._waiting = {what: Waiting(system.postgres, *where) for what, where in WAITING.items()}
        self._housing = {treasury: Housing(at, treasury) for treasury in PLACES}
        self._treasuries = {treasury: Treasury(at, treasury, filings, bank) for treasury in PLACES}
        talent = {treasury: TalentOffice(at, treasury) for treasury in PLACES}
        self._work: Mapping[str, Mapping[str, Callable[[], Awaitable[object]]]] = {
            "decide": {treasury: each.decide for treasury, each in talent.items()},
            "choose": {treasury: each.choose for treasury, each in self._housing.items()},
            "lease": {treasury: each.lease for treasury, each in self._housing.items()},
            "pay": {treasury: each.work for treasury, each in self._treasuries.items()},
        }

    async def prepare(self) -> None:
        """Give the first quotas."""
        await all_of(each.give_quotas() for each in self._treasuries.values())

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._enter_flats())
                for what in WAITING:
                    group.create_task(self._watch(what))
        finally:
            for each in self._waiting.values():
                await each.close()

    async def _enter_flats(self) -> None:
        for number in count():
            for each in self._housing.values():
                await self._did(f"flats of {each.treasury}", partial(each.list_more, number))
            await asyncio.sleep(FLATS_PAUSE)

    async def _watch(self, what: str) -> None:
        """Do one kind of work wherever it waits, again and again."""
        while True:
            treasuries = [row[0] for row in await self._waiting[what].rows()]
            await asyncio.gather(*(self._did(f"{what} at {each}", self._work[what][each]) for each in treasuries))
            await asyncio.sleep(LOOK_SECONDS)

    async def _did(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (Refused, StayedAway) as error:
            self.violations.append(f"{what}: {error}")
