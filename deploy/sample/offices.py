"""The offices of every treasury: departments at their tasks, two talent officers, a housing officer and the tenants."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError

from deploy.example_department.department import POLL_SECONDS, TOPIC, Department
from deploy.example_department.department import Platform as DepartmentPlatform
from deploy.sample.client import AT_ONCE, IDLE_SECONDS, Desk, Platform, Refused, all_of, key_of
from deploy.sample.policy import Json, Policy
from libs.common.calendar import local_date

MOST_LINES = 500
LEASE_DAYS = 3 * 365
RETRY_SECONDS = 1.0


# -- departments


@asynccontextmanager
async def departments(at: Platform, policy: Policy, kafka: str | None = None) -> AsyncIterator[None]:
    """The example department's program at work for every org unit, as long as this lasts. With `kafka`, those of the
    policy's example treasury hear of their tasks from there; the others poll."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=POLL_SECONDS + 15, transport=_Gated()))
        working = []
        for treasury, department in policy.org_units:
            brokers = kafka if treasury == policy.example else None
            work = _department(stack, at, http, treasury=treasury, department=department, stop=stop, kafka=brokers)
            working.append(asyncio.create_task(await work))
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*working)


async def _department(
    stack: AsyncExitStack,
    at: Platform,
    http: httpx.AsyncClient,
    *,
    treasury: str,
    department: str,
    stop: asyncio.Event,
    kafka: str | None,
) -> Coroutine[Any, Any, None]:
    """The work of one org unit, as a coroutine."""
    token = at.issuer.token("department", org_unit=f"{treasury}/{department}")
    workflow, intake = at.addresses.of("workflow"), at.addresses.of("intake")
    unit = Department(DepartmentPlatform(http, lambda: token, workflow=workflow, intake=intake, stop=stop))
    if kafka is None:
        return unit.follow_poll(treasury=treasury, department=department)
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=kafka,
        group_id=f"dept-{treasury}-{department}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    stack.push_async_callback(consumer.stop)
    await _connected(consumer)
    return unit.follow_kafka(consumer, treasury=treasury, department=department)


async def _connected(consumer: AIOKafkaConsumer) -> None:
    """Connect, however long the brokers are away; the run's own bound ends it."""
    while True:
        try:
            await consumer.start()
        except KafkaConnectionError:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


class _Gated(httpx.AsyncHTTPTransport):
    """Lets AT_ONCE calls of all departments through at a time; those that only wait for news do not count."""

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS)
        super().__init__(limits=limits)
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(":poll"):
            return await super().handle_async_request(request)
        async with self._gate:
            return await super().handle_async_request(request)


# -- the talent office


class TalentOffice:
    """Two officers of one treasury: one proposes, the other confirms."""

    def __init__(self, at: Platform, treasury: str) -> None:
        unit = f"{treasury}/talent_office"
        self._treasury = treasury
        self._first = at.desk("talent_office", org_unit=unit, subject=f"sample-officer-1:{treasury}")
        self._second = at.desk("talent_office", org_unit=unit, subject=f"sample-officer-2:{treasury}")

    async def decide(self) -> int:
        """Propose and confirm whatever waits; gives how many items were decided."""
        waiting = await self._first.pages("/workflow/v1/decisions", state="awaiting_decision")
        await _in_bulk(self._first, "propose", [_proposal(one) for one in waiting if one["ready"]])
        proposed = await self._second.pages("/workflow/v1/decisions", state="proposed")
        await _in_bulk(self._second, "confirm", [{"item": one["item"], "etag": one["etag"]} for one in proposed])
        return len(proposed)

    async def review(self, policy: Policy) -> int:
        """Review what waits for it before a later instalment: everybody still is what they were; gives how many."""
        shown = await self._first.pages("/finance/v1/pending-reviews")
        waiting = [one for one in shown if one["treasury"] == self._treasury]  # where the employer moved, others review
        for one in waiting:
            path = f"/finance/v1/entitlements/{one['entitlement']}/instalments/{one['instalment']}"
            facts = policy.still_holding(one["benefit"], one["category"])
            await self._first.post(f"{path}:review", {"facts": facts}, key=key_of("review", path))
        return len(waiting)


def _proposal(one: Json) -> Json:
    named = {"item": one["item"], "etag": one["etag"]}
    if one["obstacles"]:
        reasons = "；".join(obstacle["title"] for obstacle in one["obstacles"])
        return named | {"verdict": "refuse", "reason": reasons}
    return named | {"verdict": "certify" if one["kind"] == "certification" else "approve"}


async def _in_bulk(officer: Desk, action: str, lines: Sequence[Json]) -> None:
    # A line that is refused (somebody was quicker) shows itself again, or no more, in the next round.
    for start in range(0, len(lines), MOST_LINES):
        part = lines[start : start + MOST_LINES]
        await officer.post(f"/workflow/v1/items:{action}", {"items": part}, key=key_of(action, part))


# -- housing


class HousingOffice:
    """The housing officer of one treasury, and the talents who choose flats."""

    def __init__(self, at: Platform, treasury: str) -> None:
        self._at = at
        self.treasury = treasury
        self._officer = at.desk("housing", org_unit=f"{treasury}/housing")

    async def list_flats(self, flats: Sequence[Json]) -> None:
        """Enter those of the flats that are the treasury's, once."""
        own = [{key: value for key, value in flat.items() if key != "treasury"} for flat in flats if self._has(flat)]
        if own:
            await self._officer.post("/housing/v1/flats:batch", {"flats": own}, key=f"sample-flats-{self.treasury}")

    def _has(self, flat: Json) -> bool:
        return bool(flat["treasury"] == self.treasury)

    async def choose(self) -> int:
        """Let each talent without a flat hold one; gives how many had none."""
        waiting = [one for one in await self._officer.pages("/housing/v1/eligibilities") if one["hold"] is None]
        for one in waiting:
            await self._hold(one)
        return len(waiting)

    async def _hold(self, eligibility: Json) -> None:
        talent = self._at.desk("talent", person=eligibility["beneficiary"])
        offered = await talent.pages("/housing/v1/flats", kind=eligibility["kind"], status="available")
        offered.sort(key=lambda flat: (flat["treasury"] != eligibility["treasury"], flat["code"]))
        for flat in offered:
            key = f"hold-{eligibility['id']}-{flat['id']}"
            try:
                await talent.post(f"/housing/v1/flats/{flat['id']}:hold", {"eligibility": eligibility["id"]}, key=key)
            except Refused as refused:
                if refused.code != "flat-already-held":
                    raise
            else:
                return

    async def lease(self) -> int:
        """Sign the lease of each hold on the treasury's flats; gives how many there were."""
        held = await self._officer.pages("/housing/v1/holds", state="held")
        today = local_date(datetime.now(UTC))
        term = {"from_day": today.isoformat(), "to_day": (today + timedelta(days=LEASE_DAYS)).isoformat()}
        await all_of(
            self._officer.post(f"/housing/v1/holds/{one['id']}:lease", term, key=f"lease-{one['id']}") for one in held
        )
        return len(held)
