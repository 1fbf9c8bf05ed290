"""Workflow on a real database, called over its HTTP edge by tokens of each role."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from libs.common.auth import TokenIssuer
from libs.common.bus.protocol import Record, Slot
from libs.common.events import BY_TYPE, ApplicationAccepted, Event
from libs.common.outbox import message
from libs.common.policy import Pack
from libs.common.service import Service
from libs.common.settings import Settings
from services.workflow.app import create
from services.workflow.models import metadata
from tests.common.packs import publish
from tests.conftest import MakeDatabase
from tests.workflow.builders import COUNTY


@dataclass
class Answer:
    status: int
    body: Any
    headers: httpx.Headers

    def problem(self, status: int, code: str) -> Any:
        assert (self.status, self.body["code"]) == (status, code), self.body
        return self.body

    def ok(self) -> Any:
        assert self.status == 200, self.body
        return self.body


class Caller:
    """Somebody with a token; each POST has a key of its own unless one is given."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._token = token

    async def get(self, path: str, **query: Any) -> Answer:
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: Any = None, *, key: str | None = None, etag: str | None = None) -> Answer:
        headers = {"Idempotency-Key": key or uuid4().hex} | ({"If-Match": etag} if etag else {})
        return await self._ask("POST", path, json=body, headers=headers)

    async def _ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        given = {"Authorization": f"Bearer {self._token}"} | (headers or {})
        answer = await self._client.request(method, f"/workflow/v1{path}", headers=given, **more)
        return Answer(answer.status_code, answer.json(), answer.headers)


class House:
    """The service with its callers, and what a test wants to know of it."""

    def __init__(self, service: Service, client: httpx.AsyncClient, settings: Settings) -> None:
        self.service = service
        self._client = client
        self._issuer = TokenIssuer(settings)

    def a(self, role: str, **claims: Any) -> Caller:
        return Caller(self._client, self._issuer.token(role, **claims))

    def department(self, department: str, treasury: str = COUNTY) -> Caller:
        return self.a("department", org_unit=f"{treasury}/{department}")

    def officer(self, subject: str = "officer-1", treasury: str = COUNTY) -> Caller:
        return self.a("talent_office", org_unit=f"{treasury}/talent_office", subject=subject)

    # -- what happens to it

    async def hear(self, *events: Event) -> None:
        """Let events come over the bus, one after the other."""
        for event in events:
            slot = Slot(event.topic, 0)
            async with self.service.database.transaction() as tx:
                position = await self.service.inbox.position(tx, slot)
                record = Record(slot, position, event.key, message(event).headers, event.model_dump_json().encode())
                await self.service.inbox.take(tx, slot, position, [record])

    async def hear_together(self, *events: Event) -> None:
        """Let events come as one batch."""
        slot = Slot(events[0].topic, 0)
        async with self.service.database.transaction() as tx:
            start = await self.service.inbox.position(tx, slot)
            records = [
                Record(slot, start + n, event.key, message(event).headers, event.model_dump_json().encode())
                for n, event in enumerate(events)
            ]
            await self.service.inbox.take(tx, slot, start, records)

    async def publish(self, pack: Pack) -> Pack:
        """Have the service know a pack, as `policy publish` does."""
        return await publish(self.service, pack)

    async def tick(self, now: datetime) -> int:
        return await self.service.ticker.tick(now)

    async def work_off(self, *applications: ApplicationAccepted, fail: str | None = None) -> None:
        """Let every department return its results, stage by stage; `fail` names one that says no."""
        for application in applications:
            for _ in range(5):
                open_tasks = [each for each in await self.tasks(application) if each.state == "open"]
                if not open_tasks:
                    break
                for task in open_tasks:
                    body = {"result": "passed"}
                    if task.department == fail:
                        body = {"result": "failed", "reason": "学历信息与登记不符"}
                    unit = self.department(task.department, task.treasury)
                    (await unit.post(f"/tasks/{task.id}:complete", body)).ok()

    async def decide(self, item: Any, verdict: str, *, treasury: str = COUNTY, **more: Any) -> Answer:
        """Propose by one officer and confirm by another; gives the confirming answer."""
        first, second = self.officer("officer-1", treasury), self.officer("officer-2", treasury)
        etag = (await first.get(f"/items/{item}")).ok()["etag"]
        proposed = await first.post(f"/items/{item}:propose", {"verdict": verdict} | more, etag=etag)
        return await second.post(f"/items/{item}:confirm", etag=proposed.ok()["etag"])

    # -- what is known of it

    async def tasks(self, application: ApplicationAccepted) -> Sequence[Any]:
        query = "SELECT * FROM task WHERE application = :a ORDER BY stage, id"
        return await self.rows(query, a=application.application)

    async def task(self, application: ApplicationAccepted, department: str) -> Any:
        (found,) = [each for each in await self.tasks(application) if each.department == department]
        return found

    async def state(self, application: ApplicationAccepted) -> str:
        (row,) = await self.rows("SELECT state FROM cases WHERE application = :a", a=application.application)
        return str(row.state)

    async def actions(self, application: ApplicationAccepted) -> list[str]:
        query = "SELECT action FROM history WHERE application = :a ORDER BY id"
        return [row.action for row in await self.rows(query, a=application.application)]

    async def emitted(self, kind: type[Event] | None = None) -> list[Any]:
        """The events of the outbox, in order."""
        rows = await self.rows("SELECT type, value FROM outbox ORDER BY id")
        events = [BY_TYPE[row.type].model_validate_json(row.value) for row in rows]
        return [event for event in events if kind is None or isinstance(event, kind)]

    async def rows(self, query: str, **values: Any) -> Sequence[Any]:
        async with self.service.database.transaction() as tx:
            return (await tx.execute(text(query), values)).all()


@pytest.fixture
async def house(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[House]:
    database = await make_database(metadata, owner="workflow")
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(home=tmp_path, workflow_database_url=url, bus_url=url)
    service = create(settings)
    await service.packs.load()
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://huanquan") as client:
        yield House(service, client, settings)
    await service.database.close()
