"""Housing on a real database, called over its HTTP edge by tokens of each role."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from libs.common.auth import TokenIssuer
from libs.common.bus.protocol import Record, Slot
from libs.common.events import BY_TYPE, BenefitApproved
from libs.common.outbox import message
from libs.common.service import Service
from libs.common.settings import Settings
from services.housing.app import create
from services.housing.models import metadata
from tests.common.packs import anyang
from tests.conftest import MakeDatabase

COUNTY = "410522"
CITY = "410500"


@dataclass
class Answer:
    status: int
    body: Any
    headers: httpx.Headers


class Caller:
    """Somebody with a token; each POST has a key of its own unless one is given."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._token = token

    async def get(self, path: str) -> Answer:
        return await self._ask("GET", path)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        return await self._ask("POST", path, json=body, headers={"Idempotency-Key": key or uuid4().hex})

    async def _ask(self, method: str, path: str, *, json: Any = None, headers: dict[str, str] | None = None) -> Answer:
        given = {"Authorization": f"Bearer {self._token}"} | (headers or {})
        answer = await self._client.request(method, f"/housing/v1{path}", json=json, headers=given)
        return Answer(answer.status_code, answer.json(), answer.headers)


class House:
    """The service with its callers, and what a test wants to know of it."""

    def __init__(self, service: Service, client: httpx.AsyncClient, settings: Settings) -> None:
        self.service = service
        self._client = client
        self._issuer = TokenIssuer(settings)

    def officer(self, treasury: str = COUNTY) -> Caller:
        return self.a("housing", org_unit=f"{treasury}/housing_construction")

    def talent(self, person: UUID) -> Caller:
        return self.a("talent", person=str(person))

    def a(self, role: str, **claims: Any) -> Caller:
        return Caller(self._client, self._issuer.token(role, **claims))

    async def hear(self, *events: BenefitApproved) -> None:
        async with self.service.database.transaction() as tx:
            slot = Slot("talent.certified", 0)
            position = await self.service.inbox.position(tx, slot)
            records = [
                Record(slot, position + n, event.key, message(event).headers, event.model_dump_json().encode())
                for n, event in enumerate(events)
            ]
            await self.service.inbox.take(tx, slot, position, records)

    async def eligibility(self, **changes: Any) -> BenefitApproved:
        event = an_approval(**changes)
        await self.hear(event)
        return event

    async def flat(self, treasury: str = COUNTY, **changes: Any) -> str:
        added = await self.officer(treasury).post("/flats", a_flat(**changes))
        assert added.status == 201, added.body
        return str(added.body["id"])

    async def tick(self, now: datetime) -> int:
        return await self.service.ticker.tick(now)

    async def rows(self, sql: str) -> Sequence[Any]:
        async with self.service.database.engine.connect() as connection:
            return (await connection.execute(text(sql))).all()

    async def emitted(self) -> list[Any]:
        """The events of the outbox, in order."""
        rows = await self.rows("SELECT type, value FROM outbox ORDER BY id")
        return [BY_TYPE[row.type].model_validate_json(row.value) for row in rows]

    async def told(self) -> list[str]:
        return [row.type for row in await self.rows("SELECT type FROM outbox ORDER BY id")]


_flats = iter(range(1, 10_000))


def a_flat(**changes: Any) -> dict[str, Any]:
    number = next(_flats)
    standards = dict.fromkeys(["decoration", "outside_style", "furnishing", "property_management"], True)
    flat = {"code": f"F-{number}", "estate": "洹园", "building": "3号楼", "room": str(number), "area": 8950}
    return flat | {"kind": "transitional", "standards": standards} | changes


def an_approval(**changes: Any) -> BenefitApproved:
    given: dict[str, Any] = {
        "policy": anyang().identity,
        "application": uuid4(),
        "item": uuid4(),
        "benefit": "talent_flat",
        "number": "B-1",
        "certification": "C-1",
        "category": "doctor",
        "beneficiary": uuid4(),
        "treasury": COUNTY,
        "accepted_on": date(2026, 2, 10),
        "decided_on": date(2026, 2, 13),
    }
    return BenefitApproved.model_validate(given | changes)


@pytest.fixture
async def house(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[House]:
    database = await make_database(metadata, "housing")
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(home=tmp_path, housing_database_url=url, bus_url=url)
    service = create(settings)
    await service.packs.load()
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://housing") as client:
        yield House(service, client, settings)
    await service.database.close()
