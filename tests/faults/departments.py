"""The departments of the drill: the example department's program for every org unit.

In one treasury they follow the long poll and in another they follow Kafka, as the program does by itself. Eighty polls
would be a load of their own on two cores: the others' tasks are handed to them as they come up, and some of these go
through a special procedure (特别程序) first.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer

from deploy.example_department.department import POLL_SECONDS, TOPIC, Department
from deploy.example_department.department import Platform as DepartmentPlatform
from deploy.sample.client import AT_ONCE, IDLE_SECONDS, Platform, Refused, all_of, key_of
from deploy.sample.generate import anyang
from libs.common.calendar import local_date
from tests.faults.answers import Answers
from tests.faults.system import System
from tests.faults.work import Waiting

HEARS_BY_POLL, HEARS_BY_KAFKA = "410505", "410522"
LOOK_SECONDS = 0.5
SUSPENDED = "02468"
"""The last digits of the tasks whose clock is stopped once: five of sixteen."""

OPEN_TASKS = "SELECT id::text, treasury, department FROM task WHERE state = 'open' ORDER BY id LIMIT 500"

Unit = tuple[str, str]

MAY_BE_REFUSED = {"task-not-open", "task-not-suspended", "suspension-day-refused"}
"""The application is withdrawn; about midnight, a process whose clock is wrong has another today."""


class Departments:
    """All of them."""

    def __init__(self, system: System, at: Platform, http: httpx.AsyncClient) -> None:
        self._waiting = Waiting(system.postgres, "workflow", OPEN_TASKS)
        self._kafka = system.brokers.direct
        self._stop = asyncio.Event()
        self._at = at
        self._stood_still: set[str] = set()
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
        fresh = [task for task in ids if task[-1] in SUSPENDED and task not in self._stood_still]
        await all_of(self._stand_still(unit, task) for task in fresh)
        await self._units[unit].work([await platform.task(task) for task in ids])

    async def _stand_still(self, unit: Unit, task: str) -> None:
        """Stop the task's clock, and let it run again. Raises Refused, StayedAway."""
        desk, today = self._at.desk("department", org_unit="/".join(unit)), f"{local_date(datetime.now(UTC))}"
        place = f"/workflow/v1/tasks/{task}"
        suspension = {"reason": "expert_review", "from_day": today}
        self._stood_still.add(task)
        try:
            await desk.post(f"{place}:suspend", suspension, key=key_of("suspend", task))
            await desk.post(f"{place}:resume", {"to_day": today}, key=key_of("resume", task))
        except Refused as refused:
            if refused.code not in MAY_BE_REFUSED:
                raise


@asynccontextmanager
async def departments(system: System, at: Platform, answers: Answers) -> AsyncIterator[Departments]:
    """The departments, not yet at work; `answers` hears what they are answered."""
    limits = httpx.Limits(max_connections=2 * AT_ONCE, keepalive_expiry=IDLE_SECONDS)
    hooks = {"response": [answers.hear]}
    async with httpx.AsyncClient(timeout=POLL_SECONDS + 15, limits=limits, event_hooks=hooks) as http:
        yield Departments(system, at, http)
