"""Intake on a real database, called over its HTTP edge by tokens of each role."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from libs.common.auth import TokenIssuer
from libs.common.bus.protocol import Record, Slot
from libs.common.events import BY_TYPE, Event
from libs.common.outbox import message
from libs.common.service import Service
from libs.common.settings import Settings
from services.intake.app import create
from services.intake.models import metadata
from tests.conftest import MakeDatabase
from tests.intake.builders import COUNTY, a_filing


@dataclass
class Answer:
    status: int
    body: Any
    headers: httpx.Headers
    content: bytes

    def problem(self, status: int, code: str) -> Any:
        assert (self.status, self.body["code"]) == (status, code), self.body
        return self.body


class Caller:
    """Somebody with a token; each POST has a key of its own unless one is given."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._token = token

    async def get(self, path: str, **more: Any) -> Answer:
        return await self._ask("GET", path, **more)

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **more: Any) -> Answer:
        headers = {"Idempotency-Key": key or uuid4().hex} | more.pop("headers", {})
        return await self._ask("POST", path, json=body, headers=headers, **more)

    async def file(self, **changes: Any) -> Any:
        """File something that is taken in; gives the receipt."""
        answer = await self.post("/applications", a_filing(**changes))
        assert answer.status == 201, answer.body
        return answer.body

    async def show(self, application: str) -> Any:
        answer = await self.get(f"/applications/{application}")
        assert answer.status == 200, answer.body
        return answer.body

    async def _ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        given = {"Authorization": f"Bearer {self._token}"} | (headers or {})
        answer = await self._client.request(method, f"/intake/v1{path}", headers=given, **more)
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        is_json = media_type in {"application/json", "application/problem+json"}
        return Answer(answer.status_code, answer.json() if is_json else None, answer.headers, answer.content)


class House:
    """The service with its callers, and what a test wants to know of it."""

    def __init__(self, service: Service, client: httpx.AsyncClient, settings: Settings) -> None:
        self.service = service
        self.client = client
        self._issuer = TokenIssuer(settings)

    def portal(self, client: str = "portal-a") -> Caller:
        return self.a("portal", client=client)

    def clerk(self, treasury: str = COUNTY) -> Caller:
        return self.a("window_clerk", org_unit=f"{treasury}/government_services")

    def a(self, role: str, **claims: Any) -> Caller:
        return Caller(self.client, self._issuer.token(role, **claims))

    async def hear(self, *events: Event) -> None:
        """Let events come over the bus, one batch for each run of one topic."""
        for event in events:
            slot = Slot(event.topic, 0)
            async with self.service.database.transaction() as tx:
                position = await self.service.inbox.position(tx, slot)
                record = Record(slot, position, event.key, message(event).headers, event.model_dump_json().encode())
                await self.service.inbox.take(tx, slot, position, [record])

    async def tick(self, now: datetime) -> None:
        await self.service.ticker.tick(now)

    async def emitted(self, application: str | None = None) -> list[Any]:
        """The events of the outbox, in order."""
        rows = await self.rows("SELECT key, type, value FROM outbox ORDER BY id")
        return [
            BY_TYPE[row.type].model_validate_json(row.value)
            for row in rows
            if application is None or row.key == application
        ]

    async def kinds(self, application: str) -> list[str]:
        return [type(event).__name__ for event in await self.emitted(application)]

    async def rows(self, query: str, **values: Any) -> Sequence[Any]:
        async with self.service.database.transaction() as tx:
            return (await tx.execute(text(query), values)).all()

    async def everything(self) -> str:
        """All that the database holds in clear, as one text: sealed values and hashes are bytes, shown as hex."""
        found = []
        for table in metadata.sorted_tables:
            rows = await self.rows(f'SELECT to_jsonb(t) AS row FROM "{table.name}" AS t')  # noqa: S608
            found += [json.dumps(row.row, ensure_ascii=False) for row in rows]
        return "\n".join(found)


@pytest.fixture
async def house(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[House]:
    database = await make_database(metadata, owner="intake")
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(home=tmp_path, intake_database_url=url, bus_url=url)
    service = create(settings)
    await service.packs.load()
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://huanquan") as client:
        yield House(service, client, settings)
    await service.database.close()


def uuids(receipt: Any) -> tuple[UUID, dict[str, UUID]]:
    """The application's id, and the items' by code."""
    return UUID(receipt["id"]), {item["code"]: UUID(item["id"]) for item in receipt["items"]}
