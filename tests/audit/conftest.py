"""Audit on a real database: records as the bus hands them over, and a superuser who tampers."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.engine import EmbeddedPostgres
from libs.common.auth import TokenIssuer
from libs.common.bus.protocol import Record, Slot
from libs.common.events import DeptAssigned, Event
from libs.common.outbox import message
from libs.common.service import Service
from libs.common.settings import Settings
from services.audit.app import create
from services.audit.models import metadata
from services.audit.trail import verify_trail
from services.audit.verifier import Anchor, Verdict
from tests.common.packs import anyang
from tests.conftest import MakeDatabase

COUNTY = "410522"
E = TypeVar("E", bound=Event)


class Hall:
    """The service, what comes to it, and those who read it."""

    def __init__(self, service: Service, client: httpx.AsyncClient, superuser: str) -> None:
        self.service = service
        self.database = service.database
        self._client = client
        self._superuser = superuser
        self._issuer = TokenIssuer(service.settings)

    async def hear(self, *events: Event, partition: int = 0) -> list[Record]:
        records: list[Record] = []
        for topic in dict.fromkeys(event.topic for event in events):
            mine = [event for event in events if event.topic == topic]
            records += await self.take([a_record(event, partition) for event in mine])
        return records

    async def take(self, records: Sequence[Record]) -> list[Record]:
        """Records of one partition, placed where its log goes on."""
        async with self.database.transaction() as tx:
            slot = records[0].slot
            position = await self.service.inbox.position(tx, slot)
            placed = [Record(slot, position + n, r.key, r.headers, r.value) for n, r in enumerate(records)]
            await self.service.inbox.take(tx, slot, position, placed)
        return placed

    async def get(self, path: str, *, role: str = "auditor", **claims: Any) -> httpx.Response:
        return await self._client.get(f"/audit/v1{path}", headers=self._bearer(role, claims))

    async def post(self, path: str, body: Any = None, *, role: str = "auditor", **claims: Any) -> httpx.Response:
        return await self._client.post(f"/audit/v1{path}", json=body, headers=self._bearer(role, claims))

    async def metrics(self) -> dict[str, float]:
        """What `/metrics` tells: value by name and labels."""
        lines = (await self._client.get("/audit/metrics")).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def _bearer(self, role: str, claims: dict[str, Any]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._issuer.token(role, **claims)}"}

    async def verify(self, *anchors: Anchor) -> Verdict:
        async with self.database.engine.connect() as connection:
            return await verify_trail(connection, anchors)

    async def head(self) -> Anchor:
        given = (await self.get("/anchors/head")).json()
        return Anchor.parsed(given["line"])

    async def export(self) -> list[str]:
        return (await self.get("/trail:export")).text.splitlines()

    async def rows(self, sql: str) -> Sequence[Any]:
        async with self.database.engine.connect() as connection:
            return (await connection.execute(text(sql))).all()

    async def as_superuser(self, *statements: str) -> None:
        engine = create_async_engine(self._superuser)
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()


def assigned(**changes: Any) -> DeptAssigned:
    time = changes.pop("at", datetime(2026, 2, 10, 2, tzinfo=UTC))
    given: dict[str, Any] = {
        "policy": anyang().identity,
        "application": uuid4(),
        "task": uuid4(),
        "department": "public_security",
        "treasury": COUNTY,
        "item": uuid4(),
        "due_on": date(2026, 2, 13),
    }
    return at(DeptAssigned.model_validate(given | changes), time)


def at(event: E, time: datetime) -> E:
    return event.stamped(event_id=event.id, time=time, trace=None)


def a_record(event: Event, partition: int = 0, **headers: str) -> Record:
    value = event.model_dump_json().encode()
    return Record(Slot(event.topic, partition), 0, event.key, message(event).headers | headers, value)


def undecodable(topic: str = "dept.assigned") -> Record:
    return Record(Slot(topic, 0), 0, "键", {"ce_type": "DeptAssigned"}, b"\xff\x00{")


@pytest.fixture
async def hall(make_database: MakeDatabase, postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Hall]:
    database = await make_database(metadata, "audit")
    url = database.url.render_as_string(hide_password=False)
    service = create(Settings(home=tmp_path, audit_database_url=url, bus_url=url))
    await service.packs.load()
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://audit") as client:
        yield Hall(service, client, postgres.url(str(database.url.database)))
    await service.database.close()
