"""Finance on a real database, called over its HTTP edge by tokens of each role, with a stand-in for intake."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from libs.common.auth import TokenIssuer
from libs.common.bus.protocol import Record, Slot
from libs.common.events import BY_TYPE, BenefitApproved, Event
from libs.common.outbox import message
from libs.common.policy import Pack
from libs.common.service import Service
from libs.common.settings import POLICIES, Settings
from services.finance import reconcile
from services.finance.app import create
from services.finance.models import metadata
from services.finance.payees import Payees
from tests.common.packs import publish
from tests.conftest import MakeDatabase
from tests.finance.builders import CITY, DISTRICT, a_result, an_approval, today


@dataclass
class Answer:
    status: int
    body: Any
    raw: bytes

    def problem(self, status: int, code: str) -> Any:
        assert (self.status, self.body["code"]) == (status, code), self.body
        return self.body

    def ok(self, status: int = 200) -> Any:
        assert self.status == status, self.body
        return self.body


class Caller:
    """Somebody with a token; each POST has a key of its own unless one is given."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._token = token

    async def get(self, path: str, **query: Any) -> Answer:
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        given = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await self._ask("POST", path, headers={"Idempotency-Key": key or uuid4().hex}, **given)

    async def _ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        given = {"Authorization": f"Bearer {self._token}"} | (headers or {})
        answer = await self._client.request(method, f"/finance/v1{path}", headers=given, **more)
        is_json = "json" in answer.headers.get("content-type", "")
        return Answer(answer.status_code, answer.json() if is_json else None, answer.content)


class Intake:
    """Stands in for intake's people:resolve. `owners` maps accounts to people; `merged` leads a person to another;
    `away` makes it fail."""  # fmt: skip

    def __init__(self) -> None:
        self.unknown: set[UUID] = set()
        self.owners: dict[UUID, UUID] = {}
        self.merged: dict[UUID, UUID] = {}
        self.holders: dict[UUID, str] = {}
        self.away = False
        self.calls: list[Any] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused")
        asked = json.loads(request.content)
        self.calls.append(asked)
        items = [self._item(UUID(ref)) for ref in asked["refs"] if UUID(ref) not in self.unknown]
        return httpx.Response(200, json={"items": [item for item in items if item]})

    def account_of(self, person: UUID) -> UUID:
        """Another account of a person."""
        account = uuid4()
        self.owners[account] = person
        return account

    def _item(self, ref: UUID) -> dict[str, Any] | None:
        owner = self.owners.get(ref, ref)
        if owner not in self.owners.values():
            return None
        told = {"ref": str(ref), "person": str(self.merged.get(owner, owner))}
        if ref == owner:
            return {**told, "kind": "person"}
        return {**told, "kind": "payee_account", "payee_account": self._account(ref)}

    def _account(self, ref: UUID) -> dict[str, str]:
        holder = self.holders.get(ref, "张三")
        number = f"6222{ref.int % 10**15:015}"
        return {"holder": holder, "account_number": number, "bank": "中原银行", "branch_number": "313496000012"}


class House:
    """The service with its callers, and what a test wants to know of it."""

    def __init__(self, service: Service, client: httpx.AsyncClient, settings: Settings, intake: Intake) -> None:
        self.service = service
        self.intake = intake
        self._client = client
        self._issuer = TokenIssuer(settings)

    def a(self, role: str, **claims: Any) -> Caller:
        return Caller(self._client, self._issuer.token(role, **claims))

    def treasurer(self, treasury: str = DISTRICT, subject: str = "treasurer-1") -> Caller:
        return self.a("treasury", org_unit=f"{treasury}/finance", subject=subject)

    def office(self, treasury: str = DISTRICT) -> Caller:
        """An officer of a treasury's talent office."""
        return self.a("talent_office", org_unit=f"{treasury}/talent_office", subject="officer-1")

    # -- what happens to it

    async def hear(self, *events: Event) -> None:
        """Let events come over the bus as one batch; intake knows whose accounts they name."""
        for event in events:
            if isinstance(event, BenefitApproved) and event.payee_account:
                self.intake.owners.setdefault(event.payee_account, event.beneficiary)
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

    async def give_quota(
        self, treasury: str = DISTRICT, fen: int = 10**12, *, benefit: str = "purchase_subsidy", year: int = 0
    ) -> Any:
        body = {
            "benefit": benefit,
            "fiscal_year": year or today().year,
            "fen": fen,
            "number": f"ZB{uuid4().hex[:10]}",
            "budget_unit": "101001",
            "project": "P2026-01",
            "functional": "2080799",
            "economic_department": "30399",
            "economic_government": "50999",
        }
        return (await self.treasurer(treasury).post("/quotas", body)).ok(201)

    async def due_order(self, **changes: Any) -> Any:
        """One approved benefit with its funded order."""
        event = an_approval(**changes)
        await self.hear(event)
        (order,) = await self.orders(application=event.application)
        if order.state == "unfunded":
            await self.give_quota(order.treasury, benefit=order.benefit, year=order.due_on.year)
        (order,) = await self.orders(application=event.application)
        assert order.state == "due"
        return order

    async def send(self, *orders: Any, treasury: str = DISTRICT) -> Any:
        """Send orders, or all that are due, in one batch."""
        body = {"treasury": treasury} | ({"orders": [str(order.id) for order in orders]} if orders else {})
        return (await self.treasurer(treasury).post("/batches", body)).ok(201)

    async def told(self, *lines: str, finals: Sequence[str] = (), treasury: str = DISTRICT) -> Any:
        """Import a result file of these lines."""
        raw = a_result(*lines, finals=finals, treasury=treasury)
        return (await self.treasurer(treasury).post("/bank-results", raw)).ok()

    async def close(self, month: str, treasury: str | None = None, **body: Any) -> Any:
        path = f"/periods/{treasury}/{month}:close" if treasury else f"/periods/{month}:close"
        return (await self.treasurer(CITY).post(path, {"reason": "演示关账"} | body)).ok()["results"]

    # -- what is known of it

    async def orders(self, **where: Any) -> Sequence[Any]:
        condition = " AND ".join(f"{name} = :{name}" for name in where) or "true"
        return await self.rows(f"SELECT * FROM payout_order WHERE {condition} ORDER BY due_on, id", **where)  # noqa: S608

    async def planned(self, order: Any) -> Sequence[Any]:
        """The instalments of an order's entitlement, as its treasury reads them; days as days."""
        shown = (await self.treasurer(order.treasury).get(f"/entitlements/{order.entitlement_id}")).ok()
        days = ("due_on", "order_on")
        return [
            SimpleNamespace(**part | {name: date.fromisoformat(part[name]) for name in days})
            for part in shown["instalments"]
        ]

    async def order(self, order: Any) -> Any:
        (found,) = await self.orders(id=order.id)
        return found

    async def balances(self) -> dict[tuple[str, str, str], int]:
        rows = await self.rows("SELECT treasury, kind, counterparty, balance FROM account WHERE balance <> 0")
        return {(row.treasury, row.kind, row.counterparty): row.balance for row in rows}

    async def emitted(self, kind: type[Event] | None = None) -> list[Any]:
        """The events of the outbox, in order."""
        rows = await self.rows("SELECT type, value FROM outbox ORDER BY id")
        events = [BY_TYPE[row.type].model_validate_json(row.value) for row in rows]
        return [event for event in events if kind is None or isinstance(event, kind)]

    async def differences(self) -> list[reconcile.Checked]:
        async with self.service.database.transaction() as tx:
            return (await reconcile.report(tx)).differences

    async def rows(self, query: str, **values: Any) -> Sequence[Any]:
        async with self.service.database.transaction() as tx:
            return (await tx.execute(text(query), values)).all()


def reference(order: Any) -> str:
    """What the bank calls the present attempt of an order."""
    return f"{order.id.hex}{order.attempt:02d}"


@pytest.fixture
async def house(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(make_database, tmp_path) as made:
        yield made


@asynccontextmanager
async def a_house(make_database: MakeDatabase, home: Path, policies: Path = POLICIES) -> AsyncIterator[House]:
    """Finance under the policies of a folder: Anyang's where it is not said."""
    database = await make_database(metadata, owner="finance")
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(home=home, policies=policies, finance_database_url=url, bus_url=url)
    service = create(settings)
    intake = Intake()
    service.app.state.payees = Payees(settings, httpx.MockTransport(intake.answer))
    await service.packs.load()
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://huanquan") as client:
        yield House(service, client, settings, intake)
    await service.database.close()
