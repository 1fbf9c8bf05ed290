"""The steps of an application's journey, each taken over HTTP by whoever takes it in life, with their own token."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from deploy.sample.bank import BankConfig, answer
from deploy.sample.client import Desk, Platform, Refused, platform
from libs.common.auth import TokenIssuer
from libs.common.calendar import local_date
from libs.common.settings import Settings
from tests.conftest import System

T = TypeVar("T")
Json = dict[str, Any]

TELLING = frozenset({"name", "number", "holder", "phone", "credit_code", "branch_no"})
PATIENCE_SECONDS = 60
CREDITS_EVERYTHING = BankConfig(bounced=0, pending=0, missing=0, wrong_amount=0, doubled=0, foreign=0)
CREDITS_STRANGERS_TOO = replace(CREDITS_EVERYTHING, foreign=1000)


@asynccontextmanager
async def desks_of(system: System) -> AsyncIterator[Platform]:
    """The system's desks: `desk(role, …)` gives somebody with a token."""
    async with platform(system.addresses, TokenIssuer(Settings(home=system.home))) as at:
        yield at


def officers_of(at: Platform, treasury: str) -> tuple[Desk, Desk]:
    """Two officers of a talent office: what one of them proposes, only the other can confirm."""
    unit = f"{treasury}/talent_office"
    first, second = (at.desk("talent_office", org_unit=unit, subject=f"officer-{n}:{treasury}") for n in (1, 2))
    return first, second


def treasurer_of(at: Platform, treasury: str) -> Desk:
    return at.desk("treasury", org_unit=f"{treasury}/finance")


def today() -> date:
    return local_date(datetime.now(UTC))


async def eventually(ask: Callable[[], Awaitable[T]], wished: Callable[[T], Any] = bool) -> T:
    """Ask until the answer is as wished: what one service did, another hears of a moment later."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not wished(told := await ask()):  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.05)
        return told


async def found(desk: Desk, path: str) -> Any:
    """What stands at a path, or None as long as nothing does."""
    try:
        return await desk.get(path)
    except Refused as refused:
        if refused.status != 404:
            raise
        return None


async def case_of(at: Platform, application: str) -> Json:
    """The case of an application, once workflow has opened it."""
    case: Json = await eventually(lambda: found(at.desk("supervisor"), f"/workflow/v1/cases/{application}"))
    return case


async def item_of(at: Platform, application: str, code: str) -> Json:
    """One item of a case."""
    item: Json = next(item for item in (await case_of(at, application))["items"] if item["code"] == code)
    return item


async def departments_answer(at: Platform, application: str) -> list[set[tuple[str, str]]]:
    """The departments look at the materials of their tasks, find nothing amiss and say so, until no task is open.

    Gives what was open at the same time, (item, department), round after round.
    """
    rounds = []
    while tasks := await _open_tasks(at, application):
        await asyncio.gather(*(_answer(at, task) for task in tasks))
        rounds.append({(task["item"]["code"], task["department"]) for task in tasks})
    return rounds


async def _open_tasks(at: Platform, application: str) -> list[Json]:
    items = (await case_of(at, application))["items"]
    return [task for item in items for task in item["tasks"] if task["state"] == "open"]


async def _answer(at: Platform, task: Json) -> None:
    department = at.desk("department", org_unit=f"{task['treasury']}/{task['department']}")
    await eventually(lambda: found(department, task["materials"]))  # intake hears from workflow who may read them
    body = {"result": "passed", "facts": {"register": "样本登记"}}
    await department.post(f"/workflow/v1/tasks/{task['id']}:complete", body, key=f"answer-{task['id']}")


async def propose(officer: Desk, item: Json, verdict: str) -> None:
    await act(officer, item, "propose", {"verdict": verdict})


async def confirm(officer: Desk, item: Json) -> None:
    await act(officer, item, "confirm")


async def act(officer: Desk, item: Json, step: str, body: Json | None = None, *, key: str | None = None) -> None:
    """An officer takes a step of an item's decision, as it is now; a step taken twice has a key for each."""
    path = f"/workflow/v1/items/{item['id']}"
    read = await officer.get(path)
    await officer.post(f"{path}:{step}", body, key=key or f"{step}-{item['id']}", headers={"If-Match": read["etag"]})


async def contest(one: Desk, other: Desk, item: Json) -> Json:
    """A certification is proposed, put on public notice and objected to; gives the objection."""
    await propose(one, item, "certify")
    await act(other, item, "publish")
    body = {"received_on": today().isoformat(), "matter": "反映其学历与申报材料不一致"}
    shown = await other.post(f"/workflow/v1/items/{item['id']}/objections", body, key=f"objection-{item['id']}")
    objection: Json = shown["notice"]["objections"][0]
    return objection


async def order_of(at: Platform, application: str, state: str) -> Json:
    """The payout order of an application with one, once it is in a state."""
    supervisor = at.desk("supervisor")
    orders = await eventually(
        lambda: supervisor.pages("/finance/v1/orders", application=application),
        lambda orders: [order["state"] for order in orders] == [state],
    )
    order: Json = orders[0]
    return order


async def give_quota(treasurer: Desk, treasury: str, benefit: str, fen: int) -> None:
    """The treasury's budget provides for a benefit this year."""
    codes = {
        "number": f"ZB-{treasury}-{benefit}",
        "budget_unit": f"{treasury}001",
        "project": f"{treasury}-{benefit}",
        "functional": "2080999",
        "economic_department": "30399",
        "economic_government": "50999",
    }
    body = {"benefit": benefit, "fiscal_year": today().year, "fen": fen, **codes}
    await treasurer.post("/finance/v1/quotas", body, key=f"quota-{treasury}-{benefit}")


async def send_to_bank(treasurer: Desk, treasury: str, order: Json) -> Json:
    """The treasury officer releases an order in a batch file for the bank; gives the batch."""
    body = {"treasury": treasury, "orders": [order["id"]]}
    batch: Json = await treasurer.post("/finance/v1/batches", body, key=f"batch-{order['id']}")
    return batch


async def take_to_bank_and_back(treasurer: Desk, batch: Json) -> Json:
    """The bank reads the batch file, credits every payment and answers; the officer imports its answer."""
    file = await treasurer.raw(batch["file"])
    result = answer(file, CREDITS_EVERYTHING, on=today())
    told: Json = await treasurer.post("/finance/v1/bank-results", key=f"result-{batch['id']}", content=result)
    return told


async def trail_of(at: Platform, key: str) -> list[Json]:
    """What audit chained under a key, in the order in which it heard."""
    return await at.desk("auditor").pages("/audit/v1/trail", key=key)


def named_in(events: Iterable[tuple[Json, str]], filings: Any) -> list[str]:
    """Whatever the headers and payloads of events repeat of the names and numbers in filings."""
    told = "\n".join(json.dumps([headers, json.loads(payload)], ensure_ascii=False) for headers, payload in events)
    return sorted({word for word in _names_and_numbers(filings) if word in told})


def _names_and_numbers(filed: Any) -> Iterator[str]:
    """What tells who somebody is: names, numbers of documents, telephones and accounts."""
    match filed:
        case dict():
            yield from (value for key, value in filed.items() if key in TELLING)
            yield from (word for value in filed.values() for word in _names_and_numbers(value))
        case list():
            yield from (word for value in filed for word in _names_and_numbers(value))
