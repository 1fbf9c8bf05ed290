"""Group commit: filings that come at the same moment are taken in together, in one transaction.

Alone a filing takes some twenty statements and a flush of the log to disk; a group takes as many (DESIGN §3.2). Each
answer is given after the commit. Who is refused harms no neighbour: the group falls apart, and each is tried alone. So
do filings that lean on one another.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.db import Database, passing
from libs.common.errors import DomainError, IdempotencyKeyReused, MalformedBody
from libs.common.idempotency import Reply, claim, known_keys, record, request_hash
from services.intake.applications import Desk, Filed

MOST = 64
"""Of one group: a statement of more rows costs each row as much."""

BESIDE = 16
"""So many must wait for a second group to start beside one in flight: small groups cost each filing more than it gains
by not waiting."""

AT_ONCE = 2
"""Groups in flight: while the database works on one, the next is made ready. Connections are left for others."""

FILE = "applications.file"
"""The operation of an idempotency key, whether the filing came alone or as a line of a file."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filing as it came: its idempotency key, its JSON, the same as canonical bytes, and the request's trace."""

    key: str
    raw: Mapping[str, Any]
    body: bytes
    trace: str | None


Answer = Reply | Exception


@dataclass(slots=True)
class _Waiting:
    wanted: Wanted
    answer: "asyncio.Future[Reply]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class GroupCommit:
    """Gathers what waits for each caller and files it in groups, one caller after another."""

    def __init__(self, database: Database, desk: Desk) -> None:
        self._database = database
        self._desk = desk
        self._waiting: dict[Principal, list[_Waiting]] = {}
        self._groups: set[asyncio.Task[None]] = set()

    async def file(self, caller: Principal, wanted: Wanted) -> Reply:
        """File something with whatever else waits; answers after the commit. Raises what it is refused for."""
        mine = _Waiting(wanted)
        self._waiting.setdefault(caller, []).append(mine)
        asyncio.get_running_loop().call_soon(self._start)  # after the requests that came in the same moment
        return await mine.answer

    def _start(self) -> None:
        """Start a group for whoever waits longest, unless enough of them are in flight."""
        caller = next(iter(self._waiting), None)
        if caller is None or len(self._groups) >= AT_ONCE:
            return
        waiting = self._waiting[caller]
        if self._groups and len(waiting) < BESIDE:
            return
        del self._waiting[caller]
        if rest := waiting[MOST:]:
            self._waiting[caller] = rest  # behind the other callers
        group = asyncio.create_task(self._take(caller, waiting[:MOST]))
        self._groups.add(group)
        group.add_done_callback(self._ended)

    def _ended(self, group: "asyncio.Task[None]") -> None:
        self._groups.discard(group)
        self._start()

    async def _take(self, caller: Principal, group: Sequence[_Waiting]) -> None:
        answers = await file_together(self._database, self._desk, caller, [one.wanted for one in group])
        for one, answer in zip(group, answers, strict=True):
            if one.answer.cancelled():  # its client has gone
                continue
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)


async def file_together(database: Database, desk: Desk, caller: Principal, wanted: Sequence[Wanted]) -> list[Answer]:
    """File a group in one transaction, in order; gives the answer to each, or what it is refused for. An error of the
    moment (`passing`) is everybody's: they try again under the same keys."""
    if not wanted:
        return []
    try:
        async with database.transaction() as tx:
            return await _file(tx, desk, caller, wanted)
    except Exception as error:  # noqa: BLE001 - the answer of whoever is alone
        if len(wanted) == 1 or passing(error):
            return [error for _ in wanted]
    return [answer for one in wanted for answer in await file_together(database, desk, caller, [one])]


async def _file(tx: AsyncConnection, desk: Desk, caller: Principal, wanted: Sequence[Wanted]) -> list[Answer]:
    now = datetime.now(UTC)
    first: dict[str, Wanted] = {}
    for one in wanted:
        first.setdefault(one.key, one)
    hashes = {key: request_hash(one.body) for key, one in first.items()}
    filed: dict[str, Filed] = {}
    answers: dict[str, Answer] = {}
    for key, one in first.items():
        try:
            filed[key] = Filed(desk.read(one.raw, caller, now), one.trace)
        except DomainError as refused:
            answers[key] = refused
    new = await claim(tx, caller.client, FILE, {key: hashes[key] for key in filed})
    if len(new) < len(first):  # what was answered before is answered again, whatever today's rules say of it
        for key, known in (await known_keys(tx, caller.client, FILE, first.keys() - new)).items():
            answers[key] = known.reply if known.request_hash == hashes[key] else IdempotencyKeyReused()
    keys = [key for key in filed if key in new]
    if keys:
        receipts = await desk.file(tx, [filed[key] for key in keys], caller, now)
        replies = {
            key: Reply(201, receipt, {"Location": f"/intake/v1/applications/{receipt.id}"})
            for key, receipt in zip(keys, receipts, strict=True)
        }
        await record(tx, caller.client, FILE, replies)
        answers |= replies
    return [_answer(answers[one.key], one, first[one.key]) for one in wanted]


def _answer(answer: Answer, one: Wanted, first: Wanted) -> Answer:
    """The answer to one of a group. The second under a key gets the first one's again; another body is refused."""
    if one is first:
        return answer
    if one.body != first.body:
        return IdempotencyKeyReused()
    return replace(answer, replayed=True) if isinstance(answer, Reply) else answer


def canonical(raw: Any) -> bytes:
    """A JSON body as bytes that do not depend on blanks or the order of keys. Raises MalformedBody."""
    try:
        return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()
    except RecursionError:  # nested deeper than any filing
        raise MalformedBody from None
