"""The departments of the drill: the example department's program for every org unit.

In one treasury they follow the long poll and in another they follow Kafka, as the program does by itself. Eighty polls
would be a load of their own on two cores: the others' tasks are handed to them as they come up.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer

from deploy.example_department.department import POLL_SECONDS, TOPIC, Department
from deploy.example_department.department import Platform as DepartmentPlatform
from deploy.sample.client import AT_ONCE, IDLE_SECONDS, Platform
from deploy.sample.generate import anyang
from tests.faults.system import System
from tests.faults.work import Waiting

HEARS_BY_POLL, HEARS_BY_KAFKA = "410505", "410522"
LOOK_SECONDS = 0.5

OPEN_TASKS = "SELECT id::text, treasury, department FROM task WHERE state = 'open' ORDER BY id LIMIT 500"

Unit = tuple[str, str]


class Departments:
    """All of them."""

    def __init__(self, system: System, at: Platform, http: httpx.AsyncClient) -> None:
        self._waiting = Waiting(system.postgres, "workflow", OPEN_TASKS)
        self._kafka = system.brokers.direct
        self._stop = asyncio.Event()
        self._platforms = {unit: self._platform(at, http, unit) for unit in anyang().org_units}
        self._units = {unit: Department(platform) for unit, platform in self._platforms.items()}

    def _platform(self, at: Platform, http: httpx.AsyncClient, unit: Unit) -> DepartmentPlatform:
        token = at.issuer.token("department", org_unit="/".join(unit))
        workflow, intake = at.addresses.of("workflow"), at.addresses.of("intake")
        return DepartmentPlatform(http, lambda: token, workflow=workflow, intake=intake, stop=self._stop)

    async def run(self) -> None:
        """Work until cancelled."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for unit in self._units:
                group.create_task(await self._course(stack, unit))
            group.create_task(self._hand_out())

    async def _course(self, stack: AsyncExitStack, unit: Unit) -> Coroutine[Any, Any, None]:
        treasury, department = unit
        if treasury == HEARS_BY_POLL:
            return self._units[unit].follow_poll(treasury=treasury, department=department)
        if treasury != HEARS_BY_KAFKA:
            return asyncio.sleep(0)
        consumer = AIOKafkaConsumer(
            TOPIC,
            bootstrap_servers=self._kafka,
            group_id=f"dept-{treasury}-{department}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        return self._units[unit].follow_kafka(consumer, treasury=treasury, department=department)

    async def _hand_out(self) -> None:
        while True:
            tasks: Mapping[Unit, list[str]] = defaultdict(list)
            for task, treasury, department in await self._waiting.rows():
                if treasury not in {HEARS_BY_POLL, HEARS_BY_KAFKA}:
                    tasks[treasury, department].append(task)
            await asyncio.gather(*(self._work(unit, ids) for unit, ids in tasks.items()))
            await asyncio.sleep(LOOK_SECONDS)

    async def _work(self, unit: Unit, ids: Sequence[str]) -> None:
        platform = self._platforms[unit]
        await self._units[unit].work([await platform.task(task) for task in ids])


@asynccontextmanager
async def departments(system: System, at: Platform) -> AsyncIterator[Departments]:
    """The departments, not yet at work."""
    limits = httpx.Limits(max_connections=2 * AT_ONCE, keepalive_expiry=IDLE_SECONDS)
    async with httpx.AsyncClient(timeout=POLL_SECONDS + 15, limits=limits) as http:
        yield Departments(system, at, http)
