"""Everybody after the portal: departments, two officers of the talent office, the treasury officer, and the bank.

Each works as a program would: it takes all that waits, in bulk, answers, and looks again.
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any

from deploy.local import Addresses
from deploy.sample.bank import BankConfig, answer
from libs.common.auth import TokenIssuer
from libs.common.calendar import local_date
from tests.bench.journey.http import Line, Refused, request

PAUSE_SECONDS = 0.2
"""Everybody does what there is to do and looks again so much later; meanwhile the next work gathers."""

PAGE, BULK = 200, 500
DEPARTMENTS = ("public_security", "education", "human_resources", "tax", "talent_office")
CREDITS_EVERYTHING = BankConfig(bounced=0, pending=0, missing=0, wrong_amount=0, doubled=0, foreign=0)
BENEFIT = "living_allowance"
AMPLE_FEN = 10**15

Worker = Callable[[], Coroutine[Any, Any, None]]


class Clerks:
    """The clerks of one treasury. `settled` is called with how many payments a bank result settled."""

    def __init__(
        self, addresses: Addresses, issuer: TokenIssuer, treasury: str, settled: Callable[[int], None]
    ) -> None:
        self._addresses = addresses
        self._issuer = issuer
        self._treasury = treasury
        self._settled = settled

    def workers(self) -> list[Worker]:
        """Each works until cancelled."""
        officers = [
            partial(self._decide, "awaiting_decision", "propose", officer=1),
            partial(self._decide, "proposed", "confirm", officer=2),
        ]
        return [*(partial(self._answer, unit) for unit in DEPARTMENTS), *officers, self._pay]

    def _line(self, service: str) -> Line:
        return Line(self._addresses.port_of(service))

    def _token(self, role: str, unit: str, officer: int = 1) -> str:
        org_unit = f"{self._treasury}/{unit}"
        return self._issuer.token(role, org_unit=org_unit, subject=f"{role}-{officer}:{org_unit}")

    async def give_quota(self) -> None:
        """Provide for the benefit, once."""
        line, token = self._line("finance"), self._token("treasury", "finance")
        await line.post("/finance/v1/quotas", token, quota_of(self._treasury), key=f"quota-{self._treasury}")
        line.close()

    async def _answer(self, unit: str) -> None:
        """A department's system: hears of tasks by long poll, returns what it found."""
        line, token, after = self._line("workflow"), self._token("department", unit), ""
        while True:
            heard = await line.get(f"/workflow/v1/tasks:poll?wait=30&limit={PAGE}{after}", token)
            after = f"&after={heard['next']}"
            results = [{"task": task["id"], "result": "passed"} for task in heard["tasks"]]
            if results:
                _check(await line.post("/workflow/v1/tasks:complete", token, {"tasks": results}, key=_key()))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _decide(self, state: str, action: str, *, officer: int) -> None:
        """An officer's screen: lists what waits, proposes or confirms all of it."""
        line, token = self._line("workflow"), self._token("talent_office", "talent_office", officer)
        while True:
            lines = [_decision(one) for one in await self._listed(line, token, state) if one["ready"]]
            for start in range(0, len(lines), BULK):
                body = {"items": lines[start : start + BULK]}
                _check(await line.post(f"/workflow/v1/items:{action}", token, body, key=_key()))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _listed(self, line: Line, token: str, state: str) -> list[Any]:
        items, cursor = [], ""
        while True:
            page = await line.get(f"/workflow/v1/decisions?state={state}&limit={PAGE}{cursor}", token)
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = f"&cursor={page['next']}"

    async def _pay(self) -> None:
        """The treasury officer: releases what is due, takes the file to the bank and its answer back."""
        line, token = self._line("finance"), self._token("treasury", "finance")
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                batch = await line.post("/finance/v1/batches", token, {"treasury": self._treasury}, key=_key())
            except Refused as refused:
                if refused.code == "nothing-to-pay":
                    continue
                raise
            file = await line.send(request("GET", batch["file"], token))
            told = answer(file, CREDITS_EVERYTHING, on=local_date(datetime.now(UTC)))
            kind = "application/octet-stream"
            done = await line.send(request("POST", "/finance/v1/bank-results", token, body=told, key=_key(), kind=kind))
            self._settled(json.loads(done)["verdicts"].get("settle", 0))


def quota_of(treasury: str) -> dict[str, Any]:
    """The treasury's budget for the benefit, with room for whatever comes."""
    return {
        "benefit": BENEFIT,
        "fiscal_year": local_date(datetime.now(UTC)).year,
        "fen": AMPLE_FEN,
        "number": f"ZB-{treasury}",
        "budget_unit": f"{treasury}001",
        "project": f"{treasury}-allowance",
        "functional": "2080999",
        "economic_department": "30399",
        "economic_government": "50999",
    }


def _decision(one: Any) -> dict[str, Any]:
    named = {"item": one["item"], "etag": one["etag"]}
    if one["proposal"] is None:
        named["verdict"] = "certify" if one["kind"] == "certification" else "approve"
    return named


def _check(reply: Any) -> None:
    bad = [line for line in reply["lines"] if line["status"] != 200]
    if bad:
        raise RuntimeError(f"{len(bad)} lines were refused: {bad[0]}")


def _key() -> str:
    return uuid.uuid4().hex
