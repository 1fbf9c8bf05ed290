"""The journey's own SQL: the five services in one process, taken through the steps, and every statement written down.

What is written down is what the services send, with its values and where each transaction begins and ends: filing, each
event taken by each service that hears it, results, proposals, confirmations, bank files and their answers. Left out is
what the bus does (the relay's reading and marking, and its log), and whatever only reads.
"""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
from sqlalchemy import event

from deploy.engine import SERVICES
from deploy.forms import create
from deploy.sample.bank import answer
from libs.common.auth import TokenIssuer
from libs.common.bus.protocol import Record, Slot
from libs.common.calendar import local_date
from libs.common.db import connect
from libs.common.outbox import TOLD, messages_of
from libs.common.paging import etag
from libs.common.service import Service
from libs.common.settings import Settings
from libs.common.transaction import Transaction
from services.finance.payees import Payees
from services.intake.api.group import Wanted, canonical, file_together
from tests.bench.journey.clerks import CREDITS_EVERYTHING, quota_of
from tests.bench.journey.people import TREASURIES

_TAKE = f"""
    WITH taken AS (DELETE FROM {{service}}.unpublished RETURNING id)
    SELECT {TOLD} FROM taken JOIN {{service}}.outbox AS o USING (id) ORDER BY o.id
"""  # noqa: S608 - columns of the product
_OPEN_TASKS = "SELECT id, treasury, department FROM workflow.task WHERE state = 'open' ORDER BY id"
_UNDECIDED = """
    SELECT i.id, i.version, c.treasury FROM workflow.item AS i JOIN workflow.cases AS c USING (application)
     WHERE i.state = $1 AND i.kind = $2 ORDER BY i.id
"""
_DUE = "SELECT id FROM finance.payout_order WHERE treasury = $1 AND state = 'due' ORDER BY id"


@dataclass
class Statement:
    """One statement of a service, with `$n` where its values go; no values for what only steers a transaction."""

    service: str
    text: str
    values: Sequence[Any] = ()


@dataclass
class Tape:
    """Transactions as they were committed, each a list of statements."""

    transactions: list[list[Statement]] = field(default_factory=list)

    def listen(self, service: Service) -> None:
        """Write down what this service commits from now on, unless it only reads."""
        pool = service.database.pool
        take = pool.take
        watched: dict[int, Transaction] = {}  # held, or another one might get its number

        async def taken() -> Transaction:
            tx = await take()
            if id(tx) not in watched:
                watched[id(tx)] = tx
                self._watch(tx, service.name)
            return tx

        pool.take = taken  # type: ignore[method-assign]

    def _watch(self, tx: Transaction, service: str) -> None:
        """Both ways that a statement takes to the driver, and the commands around them."""
        under_way: list[Statement] = []
        rows, command = tx.rows, tx.command

        async def ran(sql: str, arguments: Sequence[Any]) -> Any:
            under_way.append(Statement(service, sql, arguments))
            return await rows(sql, arguments)

        async def commanded(sql: str) -> None:
            if sql == "BEGIN":
                under_way.clear()
            elif sql != "COMMIT":
                under_way.append(Statement(service, sql))
            elif any(_writes(each.text) for each in under_way):
                self.transactions.append(list(under_way))
            await command(sql)

        def executed(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
            under_way.append(Statement(service, text, values or ()))

        tx.rows, tx.command = ran, commanded  # type: ignore[method-assign]
        event.listen(tx.sync_connection, "before_cursor_execute", executed)


def _writes(text: str) -> bool:
    return text.split(maxsplit=1)[0].upper() in {"INSERT", "UPDATE", "DELETE", "WITH"}


class Composed:
    """The five services without their background work; what one emits, `carry` takes to those who hear it."""

    def __init__(self, settings: Settings, superuser: str) -> None:
        self._settings = settings
        self._superuser = superuser
        self._looking: asyncpg.Connection[asyncpg.Record] | None = None
        self._issuer = TokenIssuer(settings)
        self.services: Mapping[str, Service] = {}
        self._clients: Mapping[str, httpx.AsyncClient] = {}
        self._ends: dict[Slot, int] = defaultdict(int)
        self._positions: set[tuple[str, Slot]] = set()

    async def open(self) -> None:
        """Make the services; again after `close`."""
        self.services = {name: create(name, self._settings) for name in SERVICES}
        self._clients = {
            name: httpx.AsyncClient(transport=httpx.ASGITransport(each.app), base_url="http://bench")
            for name, each in self.services.items()
        }
        intake = httpx.ASGITransport(self.services["intake"].app)
        self.services["finance"].app.state.payees = Payees(self._settings, intake)
        for service in self.services.values():
            await service.packs.load()

    async def give_quotas(self) -> None:
        """Each treasury's, for the year."""
        for treasury in TREASURIES:
            officer = self._token("treasury", f"{treasury}/finance")
            await self._post("/finance/v1/quotas", officer, json=quota_of(treasury))

    async def close(self) -> None:
        """Give every connection back."""
        for service in self.services.values():
            await service.database.close()
        if self._looking is not None:
            await self._looking.close()
            self._looking = None

    async def journey(self, filings: Sequence[bytes], size: int) -> None:
        """Take these applications to their end, `size` of them, or of their tasks and items, a transaction."""
        await self._file(filings, size)
        while tasks := await self._read(_OPEN_TASKS):
            await self._complete(tasks, size)
            await self._carry(size)
        for kind, verdict in (("certification", "certify"), ("benefit", "approve")):
            for state, action, officer in (("awaiting_decision", "propose", 1), ("proposed", "confirm", 2)):
                told = {"verdict": verdict} if action == "propose" else {}
                await self._decide(await self._read(_UNDECIDED, state, kind), action, officer, told, size)
                await self._carry(size)
        await self._pay(size)
        await self._carry(size)

    # -- the steps

    async def _file(self, filings: Sequence[bytes], size: int) -> None:
        app = self.services["intake"].app
        portal = await app.state.verifier.verify(self._issuer.token("portal", client="bench"))
        database = self.services["intake"].database
        for part in _parts(filings, size):
            raw = [json.loads(body) for body in part]
            wanted = [Wanted(uuid.uuid4().hex, each, canonical(each), None) for each in raw]
            for told in await file_together(database, app.state.desk, portal, wanted):
                if isinstance(told, Exception):
                    raise told
            await self._carry(size)

    async def _complete(self, tasks: Sequence[Any], size: int) -> None:
        for unit, group in _grouped(tasks, lambda task: f"{task['treasury']}/{task['department']}"):
            token = self._token("department", unit)
            for part in _parts(group, size):
                lines = [{"task": str(task["id"]), "result": "passed"} for task in part]
                await self._post("/workflow/v1/tasks:complete", token, json={"tasks": lines})

    async def _decide(
        self, items: Sequence[Any], action: str, officer: int, told: Mapping[str, str], size: int
    ) -> None:
        for treasury, group in _grouped(items, lambda item: item["treasury"]):
            token = self._token("talent_office", f"{treasury}/talent_office", f"officer-{officer}")
            for part in _parts(group, size):
                lines = [{"item": str(item["id"]), "etag": etag(item["version"]), **told} for item in part]
                await self._post(f"/workflow/v1/items:{action}", token, json={"items": lines})

    async def _pay(self, size: int) -> None:
        for treasury in TREASURIES:
            token = self._token("treasury", f"{treasury}/finance")
            orders = await self._read(_DUE, treasury)
            for part in _parts(orders, size):
                body = {"treasury": treasury, "orders": [str(order["id"]) for order in part]}
                batch = (await self._post("/finance/v1/batches", token, json=body)).json()
                file = await self._client("finance").get(batch["file"], headers=_bearer(token))
                told = answer(file.content, CREDITS_EVERYTHING, on=local_date(datetime.now(UTC)))
                await self._post("/finance/v1/bank-results", token, content=told)

    async def _carry(self, size: int) -> None:
        """What the bus does: each event to every service that hears its topic, until nobody emits any more."""
        while any([await self._carry_of(name, size) for name in SERVICES]):
            pass

    async def _carry_of(self, name: str, size: int) -> bool:
        rows = await self._read(_TAKE.format(service=name))
        for topic, group in _grouped(rows, lambda row: row["topic"]):
            slot = Slot(topic, 0)
            records = []
            for message in messages_of(group):
                records.append(Record(slot, self._ends[slot], message.key, message.headers, message.value))
                self._ends[slot] += 1
            for part in _parts(records, size):
                await self._take(slot, part)
        return bool(rows)

    async def _take(self, slot: Slot, records: Sequence[Record]) -> None:
        for name, service in self.services.items():
            if slot.topic not in service.topics:
                continue
            if (name, slot) not in self._positions:
                self._positions.add((name, slot))
                async with service.database.transaction() as tx:
                    await service.inbox.position(tx, slot)
            async with service.database.transaction() as tx:
                outcome = await service.inbox.take(tx, slot, records[0].offset, records)
            if outcome.parked:
                raise RuntimeError(f"{name} parked events of {slot.topic}")

    # -- calls

    def _token(self, role: str, unit: str, subject: str = "clerk") -> str:
        return self._issuer.token(role, org_unit=unit, subject=f"{subject}:{unit}")

    def _client(self, service: str) -> httpx.AsyncClient:
        return self._clients[service]

    async def _post(self, path: str, token: str, **body: Any) -> httpx.Response:
        headers = _bearer(token) | {"Idempotency-Key": uuid.uuid4().hex}
        told = await self._client(path.split("/")[1]).post(path, headers=headers, **body)
        if told.is_error or told.json().get("refused"):
            raise RuntimeError(f"{path}: {told.status_code} {told.text[:500]}")
        return told

    async def _read(self, query: str, *values: Any) -> list[Any]:
        if self._looking is None:
            self._looking = await connect(self._superuser)
        return list(await self._looking.fetch(query, *values))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _parts(things: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (things[start : start + size] for start in range(0, len(things), size))


def _grouped(things: Iterable[Any], key: Any) -> Iterable[tuple[str, list[Any]]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return groups.items()
