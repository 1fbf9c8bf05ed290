"""A toy service for the contract suite: one table of effects, one table of keys, one event."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy import BigInteger, Column, Identity, Integer, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import metadata as make_metadata
from libs.common.events import BY_TYPE, Event
from libs.common.outbox import emit
from libs.common.policy.identity import PackIdentity
from libs.common.tracing import Tracing

PACK = PackIdentity(city="toy", version="1", sha256="0" * 64)
metadata = make_metadata()
Table(
    "effect",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("key", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("by", Text, nullable=False),
)
Table("counter", metadata, Column("key", Text, primary_key=True), Column("number", Integer, nullable=False))


def an_app() -> FastAPI:
    """What a service needs of its application."""
    app = FastAPI()
    app.state.metrics, app.state.tracing = CollectorRegistry(), Tracing()
    return app


class Happened(Event):
    """A numbered fact about a key."""

    topic: ClassVar[str] = "toy"
    of: str
    number: int

    @property
    def key(self) -> str:
        return self.of


def happened_on(topic: str) -> type[Happened]:
    """The event on a topic of its own; known to the inbox under the one name it has in every process."""
    made = type("Happened", (Happened,), {"topic": topic, "__module__": __name__})
    BY_TYPE["Happened"] = made  # type: ignore[index]
    return made


async def count_up(tx: AsyncConnection, event: type[Happened], key: str) -> None:
    """One state change with its event: the key's row is locked before the emit."""
    statement = text("""
        INSERT INTO counter (key, number) VALUES (:key, 1)
        ON CONFLICT (key) DO UPDATE SET number = counter.number + 1 RETURNING number
    """)
    number = (await tx.execute(statement, {"key": key})).scalar_one()
    await emit(tx, event(policy=PACK, of=key, number=number))


class Recorder:
    """The handler: one effect row an event. `refuse` names the (key, number) pairs it will not take."""

    def __init__(self, by: str = "") -> None:
        self.by = by
        self.refuse: set[tuple[str, int]] = set()
        self.calls = 0

    async def on_happened(self, tx: AsyncConnection, events: Sequence[Any]) -> None:
        self.calls += 1
        for event in events:
            if (event.of, event.number) in self.refuse:
                raise ValueError(f"{event.of} {event.number} is refused")
        await tx.execute(
            text("""INSERT INTO effect (key, number, by)
                    SELECT key, number, :by FROM unnest(CAST(:keys AS text[]), CAST(:numbers AS int[]))
                           WITH ORDINALITY AS r (key, number, n) ORDER BY n"""),
            {"keys": [e.of for e in events], "numbers": [e.number for e in events], "by": self.by},
        )
