"""The people of the sample at their desks: REST calls with a token, repeated under the same key until answered."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx

from deploy.local import Addresses
from deploy.refusals import Refusal
from deploy.sample.policy import Json

T = TypeVar("T")

AT_ONCE = 16
PATIENCE_SECONDS = 120.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
PAGE = 200
IDLE_SECONDS = 2.0
"""A connection idle for longer is not used again: the server closes it after five."""

BUSY = frozenset({408, 429, 502, 503, 504})


class Issuer(Protocol):
    """Gives tokens, as `libs.common.auth.TokenIssuer` does."""

    def token(
        self, role: str, *, org_unit: str | None = None, subject: str | None = None, person: str | None = None
    ) -> str:
        """A bearer token."""
        ...


class StayedAway(Refusal):
    """The platform did not answer for as long as we ask again; the message says what, and why."""


class Refused(Refusal):
    """The platform said no: the status and the problem that it told."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')} {problem.get('errors') or ''}")
        self.status = status
        self.code = str(problem.get("code"))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Platform:
    """Where the services answer, and the gate that lets AT_ONCE calls through."""

    http: httpx.AsyncClient
    addresses: Addresses
    issuer: Issuer
    gate: asyncio.Semaphore

    def desk(
        self, role: str, *, org_unit: str | None = None, subject: str | None = None, person: str | None = None
    ) -> "Desk":
        """Somebody with a token. Without `subject`, the role at its unit."""
        return Desk(self, self.issuer.token(role, org_unit=org_unit, subject=subject, person=person))


@asynccontextmanager
async def platform(addresses: Addresses, issuer: Issuer) -> AsyncIterator[Platform]:
    """The platform for as long as the sample runs."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE, keepalive_expiry=IDLE_SECONDS)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        yield Platform(http, addresses, issuer, asyncio.Semaphore(AT_ONCE))


class Desk:
    """One person's or system's calls. Raises Refused where the platform says no, StayedAway where it is silent."""

    def __init__(self, at: Platform, token: str) -> None:
        self._at = at
        self._headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON at a path such as `/intake/v1/applications`."""
        asked = {name: value for name, value in query.items() if value is not None}
        return (await self._call("GET", path, params=asked)).json()

    async def raw(self, path: str) -> bytes:
        """The bytes at a path."""
        content: bytes = (await self._call("GET", path)).content
        return content

    async def pages(self, path: str, **query: Any) -> list[Any]:
        """Every item of a list."""
        items: list[Any] = []
        cursor: str | None = None
        while True:
            page = await self.get(path, **query, limit=PAGE, cursor=cursor)
            items += page["items"]
            cursor = page.get("next")
            if cursor is None:
                return items

    async def post(self, path: str, body: Any = None, *, key: str | None = None, **more: Any) -> Any:
        """The JSON answer to a post; `key` is its Idempotency-Key. `more` goes to httpx (`content`, `files`, …)."""
        headers = {**more.pop("headers", {}), **({"Idempotency-Key": key} if key else {})}
        if body is not None:
            more["json"] = body
        answer = await self._call("POST", path, headers=headers, **more)
        return answer.json() if answer.content else None

    async def lines(self, path: str, **more: Any) -> list[Any]:
        """The JSON lines that answer a post of JSON lines."""
        answer = await self._call("POST", path, **more)
        return [json.loads(line) for line in answer.text.split("\n") if line]

    async def _call(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        address = self._at.addresses.of(path.split("/", 2)[1]) + path
        pause, told = FIRST_PAUSE, "nothing"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    answer = await self._once(method, address, headers=self._headers | dict(headers or {}), **more)
                    if isinstance(answer, httpx.Response):
                        return answer
                    told = answer
                    await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                    pause = min(pause * 2, LONGEST_PAUSE)
        except TimeoutError:
            away = f"{method} {address} was not answered for {PATIENCE_SECONDS:.0f} s; last came {told}"
            raise StayedAway(away) from None

    async def _once(self, method: str, address: str, **more: Any) -> httpx.Response | str:
        """The answer, or in words what came where it is to be asked again."""
        try:
            async with self._at.gate:
                answer = await self._at.http.request(method, address, **more)
        except httpx.TransportError as error:
            return type(error).__name__
        if answer.status_code in BUSY:
            return f"{answer.status_code} {_problem(answer).get('detail', '')}".rstrip()
        if answer.is_error:
            raise Refused(answer.status_code, _problem(answer))
        return answer


def key_of(word: str, *parts: Any) -> str:
    """An Idempotency-Key that is the same whenever the same is asked."""
    return f"{word}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]}"


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """The outcomes of work done side by side, in order; the first failure ends the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _problem(answer: httpx.Response) -> Json:
    try:
        told: Json = answer.json()
    except ValueError:
        told = {"code": "no-problem-json", "detail": answer.text[:200]}
    return told
