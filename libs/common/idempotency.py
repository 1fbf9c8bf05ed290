"""One command, one effect: the answer to a client's `Idempotency-Key` is stored beside what the command did.

A key is claimed by inserting it first, so a concurrent duplicate waits on the unique index until the first one commits
(and then gets its answer) or rolls back (and then does the work itself). A refusal rolls back and is not stored: the
same key may be tried again with the cause mended.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from libs.common.auth import Principal
from libs.common.errors import IdempotencyKeyMissing, IdempotencyKeyReused

_KEY = re.compile(r"[!-~]{1,200}")

_CLAIM = text("""
    INSERT INTO idempotency (client, operation, key, request_hash)
    SELECT :client, :operation, key, hash
      FROM unnest(CAST(:keys AS text[]), CAST(:hashes AS bytea[])) AS r (key, hash)
     ORDER BY key
    ON CONFLICT DO NOTHING
    RETURNING key
""")
_KNOWN = text("""
    SELECT key, request_hash, status, body::text AS body, headers::text AS headers
      FROM idempotency
     WHERE client = :client AND operation = :operation AND key = ANY(CAST(:keys AS text[])) AND status IS NOT NULL
""")
_ANSWER = text("""
    UPDATE idempotency AS i
       SET status = r.status, body = r.body::json, headers = r.headers::json
      FROM unnest(CAST(:keys AS text[]), CAST(:statuses AS smallint[]), CAST(:bodies AS text[]),
                  CAST(:headers AS text[])) AS r (key, status, body, headers)
     WHERE i.client = :client AND i.operation = :operation AND i.key = r.key
""")
_RELEASE = text("""
    DELETE FROM idempotency
     WHERE client = :client AND operation = :operation AND key = ANY(CAST(:keys AS text[])) AND status IS NULL
""")


def idempotency_table(metadata: MetaData) -> Table:
    """The table of claimed keys and their answers: `json`, not `jsonb`, so an answer is given again byte by byte."""
    return Table(
        "idempotency",
        metadata,
        Column("client", Text, nullable=False),
        Column("operation", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("request_hash", LargeBinary, nullable=False),
        Column("status", SmallInteger, comment="null only inside the transaction that claimed the key"),
        Column("body", JSON),
        Column("headers", JSON),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("client", "operation", "key"),
    )


async def idempotency_key(
    key: Annotated[
        str | None, Header(alias="Idempotency-Key", description="本次操作的唯一编号；重试时使用同一编号")
    ] = None,
) -> str:
    """The key of the request: 1 to 200 visible ASCII characters. Raises IdempotencyKeyMissing."""
    if key is None or not valid_key(key):
        raise IdempotencyKeyMissing
    return key


IdempotencyKey = Annotated[str, Depends(idempotency_key)]


def valid_key(key: str) -> bool:
    """Whether a text may serve as a key: 1 to 200 visible ASCII characters."""
    return _KEY.fullmatch(key) is not None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `body` is a model or plain JSON. `replayed` is true where it had been given before."""

    status: int
    body: BaseModel | Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False

    def text(self) -> str:
        """The body as JSON text."""
        if isinstance(self.body, _Stored):
            return self.body.text
        if isinstance(self.body, BaseModel):
            return self.body.model_dump_json(by_alias=True)
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))

    def response(self) -> Response:
        """The answer over HTTP; a replayed one says so in `Idempotency-Replayed`."""
        headers = dict(self.headers) | ({"Idempotency-Replayed": "true"} if self.replayed else {})
        return Response(self.text(), self.status, headers=headers, media_type="application/json")


@dataclass(frozen=True, slots=True)
class _Stored:
    text: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a key: the hash of its request and the answer given."""

    request_hash: bytes
    reply: Reply


def request_hash(body: bytes | BaseModel, target: str = "") -> bytes:
    """SHA-256 of what was asked: the body, and the record in the address where there is one."""
    raw = body.model_dump_json().encode() if isinstance(body, BaseModel) else body
    return hashlib.sha256(target.encode() + b"\0" + raw).digest()


async def once(
    tx: AsyncConnection,
    *,
    caller: Principal,
    operation: str,
    key: str,
    body: bytes | BaseModel,
    do: Callable[[], Awaitable[Reply]],
    target: str = "",
) -> Response:
    """Run `do` once per client, operation and key, in this transaction; afterwards give its answer again.

    `target` is what the address names (an application's id), so one key never answers for two records.
    Raises IdempotencyKeyReused where the key stands for another body or target.
    """
    asked = request_hash(body, target)
    if await claim(tx, caller.client, operation, {key: asked}):
        reply = await do()
        await record(tx, caller.client, operation, {key: reply})
        return reply.response()
    known = (await known_keys(tx, caller.client, operation, [key]))[key]
    if known.request_hash != asked:
        raise IdempotencyKeyReused
    return known.reply.response()


async def claim(tx: AsyncConnection, client: str, operation: str, hashes: Mapping[str, bytes]) -> set[str]:
    """Claim keys (key → request hash) for this transaction; gives those that are new.

    Waits for other transactions that hold one of the keys, in order of key, so two bulk files do not deadlock. Every
    claimed key is given its answer (`record`) or let go (`release`) before the commit.
    """
    rows = await tx.execute(
        _CLAIM, {"client": client, "operation": operation, "keys": list(hashes), "hashes": list(hashes.values())}
    )
    return set(rows.scalars())


async def known_keys(tx: AsyncConnection, client: str, operation: str, keys: Iterable[str]) -> dict[str, Known]:
    """What is stored of these keys; a key that nobody used is absent."""
    rows = await tx.execute(_KNOWN, {"client": client, "operation": operation, "keys": list(keys)})
    return {
        row.key: Known(
            bytes(row.request_hash),
            Reply(row.status, _Stored(row.body), json.loads(row.headers), replayed=True),
        )
        for row in rows
    }


async def record(tx: AsyncConnection, client: str, operation: str, replies: Mapping[str, Reply]) -> None:
    """Store the answers to keys that this transaction claimed."""
    given = list(replies.values())
    await tx.execute(
        _ANSWER,
        {
            "client": client,
            "operation": operation,
            "keys": list(replies),
            "statuses": [reply.status for reply in given],
            "bodies": [reply.text() for reply in given],
            "headers": [json.dumps(dict(reply.headers)) for reply in given],
        },
    )


async def release(tx: AsyncConnection, client: str, operation: str, keys: Iterable[str]) -> None:
    """Let go of claimed keys whose line of a bulk file was refused, so that the mended line may use them again."""
    await tx.execute(_RELEASE, {"client": client, "operation": operation, "keys": list(keys)})
