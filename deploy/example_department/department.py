"""A department's own program: hears of its tasks, looks at each, decides, and returns the results.

Copy this file, put your own rule in place of `decide`, and keep the rest: it is safe to stop and start at any moment.
It needs httpx and aiokafka, nothing else. `python department.py --help` says how it is started; see README.md.
"""

import argparse
import asyncio
import hashlib
import json
import logging
import os
import random
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

log = logging.getLogger("department")

Task = Mapping[str, Any]
Material = Mapping[str, Any]

A = TypeVar("A")
T = TypeVar("T")

TOPIC = "dept.assigned"
POLL_SECONDS = 30
MOST_RESULTS = 200
SIDE_BY_SIDE = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0


@dataclass(frozen=True)
class Result:
    """What a department found. A failed result says why, in Chinese: the applicant reads it. `facts` name nobody."""

    passed: bool
    reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def decide(task: Task, materials: Sequence[Material]) -> Result:
    """The rule of this example: a licence whose number begins with 作废 is in no register. Put your own rule here.

    `task` is as `GET /workflow/v1/tasks/{id}` shows it, `materials` the list at the address that it names.
    """
    asked = {material["code"]: material["title"] for material in task["required_materials"]}
    for material in materials:
        if material["code"] in asked and str(material.get("reference") or "").startswith("作废"):
            return Result(passed=False, reason=f"{asked[material['code']]}在登记系统中查无记录或已作废")
    return Result(passed=True, facts={"materials_checked": len(asked)})


class Unusable(Exception):
    """What the program was started with does not do; the message says why, in one line."""


class Stopped(Exception):
    """The program was asked to stop; what was not accepted will be heard of again."""


class Platform:
    """The platform's REST APIs, as one org unit's token shows them. Every call is repeated until it is answered."""

    def __init__(
        self, http: httpx.AsyncClient, token: Callable[[], str], *, workflow: str, intake: str, stop: asyncio.Event
    ) -> None:
        self._http = http
        self._token = token
        self._workflow = f"{workflow}/workflow/v1"
        self._intake = intake
        self._stop = stop

    async def poll(self, after: str | None) -> tuple[list[Task], str]:
        """Wait for tasks after a position; gives them and the next position. From None: all that are unfinished."""
        asked = {"wait": str(POLL_SECONDS), "limit": str(MOST_RESULTS), **({"after": after} if after else {})}
        answer = await self._call("GET", f"{self._workflow}/tasks:poll", params=asked)
        answer.raise_for_status()
        feed = answer.json()
        return feed["tasks"], feed["next"]

    async def task(self, task_id: str) -> Task | None:
        """One task; None where it is not ours (the platform then says 404, as for a task that does not exist)."""
        answer = await self._call("GET", f"{self._workflow}/tasks/{task_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found: Task = answer.raise_for_status().json()
        return found

    async def materials(self, task: Task) -> Sequence[Material] | None:
        """The materials of a task's application; None where intake has not yet heard that the task is ours."""
        answer = await self._call("GET", self._intake + task["materials"])
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        listed: Sequence[Material] = answer.raise_for_status().json()["items"]
        return listed

    async def complete(self, results: Mapping[str, Result]) -> None:
        """Return results. One that was accepted before, or whose task was taken back, counts as returned."""
        lines = [_line(task, result) for task, result in results.items()]
        # The same results have the same key: a repetition after a lost answer changes nothing.
        key = "results-" + hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()
        headers = {"Idempotency-Key": key}
        answer = await self._call("POST", f"{self._workflow}/tasks:complete", json={"tasks": lines}, headers=headers)
        for line in answer.raise_for_status().json()["lines"]:
            if line["status"] not in {httpx.codes.OK, httpx.codes.CONFLICT, httpx.codes.NOT_FOUND}:
                log.error("the platform refuses our result of task %s: %s", line["id"], line["problem"])

    async def _call(self, method: str, address: str, **request: Any) -> httpx.Response:
        """One request, again and again with growing pauses while the platform is away or busy. Raises Stopped."""
        pause = FIRST_PAUSE
        while True:
            try:
                headers = {**request.get("headers", {}), "Authorization": f"Bearer {self._token()}"}
                answer = await self.unless_stopped(
                    self._http.request(method, address, **(request | {"headers": headers}))
                )
                if answer.status_code not in {401, 408, 429} and answer.status_code < 500:
                    return answer
                log.warning("%s %s: %s", method, address, answer.status_code)
            except httpx.TransportError as error:
                log.warning("%s %s: %s", method, address, type(error).__name__)
            except Unusable as error:  # the token file is being replaced
                log.warning("%s", error)
            pause = await self.pause(pause)

    async def pause(self, seconds: float) -> float:
        """Wait a while, some more or less so that not all come back at once; gives the next pause. Raises Stopped."""
        await self.unless_stopped(asyncio.sleep(seconds * random.uniform(0.5, 1.5)))
        return min(seconds * 2, LONGEST_PAUSE)

    async def unless_stopped(self, work: Awaitable[T]) -> T:
        """The outcome of `work`, which is given up when the program is asked to stop. Raises Stopped."""
        doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise Stopped
            return await doing
        finally:
            for task in (doing, stopping):
                task.cancel()
                with suppress(asyncio.CancelledError, httpx.TransportError):
                    await task


class Department:
    """One org unit at work. No more than MOST_RESULTS tasks are in hand at a time."""

    def __init__(self, platform: Platform, rule: Callable[[Task, Sequence[Material]], Result] = decide) -> None:
        self._platform = platform
        self._rule = rule

    async def follow_poll(self, *, treasury: str, department: str) -> None:
        """Work whatever the long poll tells of, until stopped. Begins with all that is open, so nothing is missed.

        The poll tells of the tasks of the token's unit. Raises Unusable where that is another one.
        """
        after: str | None = None
        with suppress(Stopped):
            while True:
                heard, following = await self._platform.poll(after)
                for unit in {f"{task['treasury']}/{task['department']}" for task in heard}:
                    if unit != f"{treasury}/{department}":
                        raise Unusable(f"the token is that of {unit}, and not of {treasury}/{department} as was asked")
                await self.work(heard)
                after = following  # only now: what was not accepted is told again

    async def follow_kafka(self, consumer: Any, *, treasury: str, department: str) -> None:
        """Work whatever `dept.assigned` tells of, until stopped; `consumer` is one of aiokafka, started."""
        pause = FIRST_PAUSE
        with suppress(Stopped):
            while True:
                try:
                    batches = await self._platform.unless_stopped(
                        consumer.getmany(timeout_ms=1000, max_records=MOST_RESULTS)
                    )
                    messages = [message for batch in batches.values() for message in batch]
                    ours = _ours(messages, treasury=treasury, department=department)
                    await self.work(await self._side_by_side(self._platform.task, ours))
                    if batches:
                        await consumer.commit()  # only now: what was not accepted is told again
                    pause = FIRST_PAUSE
                except KafkaError as error:  # the brokers are away, or our partitions went to another process of ours
                    log.warning("Kafka: %s", type(error).__name__)
                    pause = await self._platform.pause(pause)

    async def work(self, tasks: Iterable[Task | None]) -> None:
        """Look at the materials of tasks, decide and return the results; who is not ours is None. Raises Stopped."""
        left = [task for task in tasks if task is not None and task["state"] == "open"]
        pause = FIRST_PAUSE
        while left:
            materials = await self._side_by_side(self._platform.materials, left)
            shown = [(task, listed) for task, listed in zip(left, materials, strict=True) if listed is not None]
            if shown:
                await self._platform.complete({task["id"]: self._rule(task, listed) for task, listed in shown})
            left = [task for task, listed in zip(left, materials, strict=True) if listed is None]
            if left:
                pause = await self._platform.pause(pause)
                left = await self._still_open(left)

    async def _still_open(self, tasks: Sequence[Task]) -> list[Task]:
        """Whose materials are not shown, intake has not yet heard of, or the task was taken back meanwhile."""
        found = await self._side_by_side(self._platform.task, [task["id"] for task in tasks])
        return [task for task in found if task is not None and task["state"] == "open"]

    async def _side_by_side(self, call: Callable[[A], Awaitable[T]], arguments: Sequence[A]) -> list[T]:
        """The answers to a few calls at a time, in order."""
        gate = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(argument: A) -> T:
            async with gate:
                return await call(argument)

        return list(await asyncio.gather(*map(one, arguments)))


def _line(task: str, result: Result) -> dict[str, Any]:
    line: dict[str, Any] = {
        "task": task,
        "result": "passed" if result.passed else "failed",
        "facts": dict(result.facts),
    }
    return line if result.reason is None else {**line, "reason": result.reason}


def _ours(messages: Iterable[Any], *, treasury: str, department: str) -> list[str]:
    """The tasks of our org unit among messages of the topic, which tells of those of all."""
    ids = []
    for message in messages:
        try:
            assigned = json.loads(message.value)
            if (assigned["treasury"], assigned["department"]) == (treasury, department):
                ids.append(assigned["task"])
        except (ValueError, KeyError, TypeError):
            log.error("message at partition %s offset %s is unreadable", message.partition, message.offset)
    return list(dict.fromkeys(ids))


def arguments() -> argparse.Namespace:
    """What the command line says; what does not go together ends the program."""
    parser = argparse.ArgumentParser(description="The program of one org unit, on the long poll or on Kafka.")
    parser.add_argument("--base", default="http://127.0.0.1:8000", help="address of the platform")
    parser.add_argument("--workflow", help="address of workflow, where it stands alone (else --base)")
    parser.add_argument("--intake", help="address of intake, where it stands alone (else --base)")
    parser.add_argument("--token-file", type=Path, help="file with the bearer token; else DEPARTMENT_TOKEN has it")
    parser.add_argument("--treasury", required=True, help="code of the treasury, as 410522")
    parser.add_argument("--department", required=True, help="code of the department, as public_security")
    parser.add_argument("--kafka", help="brokers, host:port,host:port; without them the long poll is followed")
    parser.add_argument("--kafka-user", help="user name at the brokers (SASL over TLS)")
    parser.add_argument("--kafka-password-file", type=Path, help="file with its password")
    asked = parser.parse_args()
    if asked.kafka_user and not asked.kafka_password_file:
        parser.error("--kafka-user needs --kafka-password-file")
    return asked


def token_source(file: Path | None) -> Callable[[], str]:
    """The token, read anew each time: a renewed one is used without a restart. Reading it raises Unusable."""

    def token() -> str:
        found = secret(file) if file else os.environ.get("DEPARTMENT_TOKEN", "").strip()
        if not found:
            raise Unusable("there is no token: name its file with --token-file, or set DEPARTMENT_TOKEN")
        return found

    return token


def secret(file: Path) -> str:
    """What a file holds. Raises Unusable where it cannot be read, or holds nothing."""
    try:
        found = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise Unusable(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no plain text'}") from None
    if not found:
        raise Unusable(f"{file} is empty")
    return found


@asynccontextmanager
async def consumer_of(asked: argparse.Namespace) -> AsyncIterator[Any]:
    """A consumer of the topic in this org unit's own group. Its offsets are committed by hand."""
    secured: dict[str, Any] = {}
    if asked.kafka_user:
        secured = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": asked.kafka_user,
            "sasl_plain_password": secret(asked.kafka_password_file),
            "ssl_context": ssl.create_default_context(),
        }
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=asked.kafka,
        group_id=f"dept-{asked.treasury}-{asked.department}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **secured,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def run(asked: argparse.Namespace) -> None:
    """Work until SIGINT or SIGTERM; what has been begun is finished or will be heard of again. Raises Unusable."""
    token, unit = token_source(asked.token_file), {"treasury": asked.treasury, "department": asked.department}
    token()  # now, and not at the first call, which would be repeated for ever
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    limits = httpx.Limits(keepalive_expiry=2)  # the server closes idle connections a little later
    async with httpx.AsyncClient(timeout=POLL_SECONDS + 15, limits=limits) as http:
        platform = Platform(
            http,
            token,
            workflow=asked.workflow or asked.base,
            intake=asked.intake or asked.base,
            stop=stop,
        )
        department = Department(platform)
        if not asked.kafka:
            await department.follow_poll(**unit)
            return
        async with consumer_of(asked) as consumer:
            await department.follow_kafka(consumer, **unit)


def main() -> None:
    """The program, from its command line until it is stopped."""
    asked = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(run(asked))
    except Unusable as error:
        sys.exit(f"department: {error}")


if __name__ == "__main__":
    main()
