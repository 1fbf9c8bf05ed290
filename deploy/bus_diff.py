"""What the bus knows and the databases do not, and the other way round: after a restore the two may be of two moments.

    unknown   a record that no outbox holds: it was published after the moment that the databases were restored to
    lost      an event whose outbox row says that it was published, and which the log does not hold
    ahead     a service has read further than the log goes

Mended, an unknown record is discarded by every reader that has not taken it (kept with who, when and why; a replay
skips it), a lost event is published once more under its id, and whoever reads a topic that lost something reads it
again from its beginning: what was taken before is skipped. Memory stays flat: the log's ids are laid beside each
publisher's outbox in temporary tables.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.engine import SERVICES
from deploy.forms import make_topics
from deploy.forms import own_broker as broker_of
from deploy.local import Local, deployed_settings
from deploy.operations import opened, started_home
from deploy.refusals import Refusal
from deploy.topics import Topic, load_topics
from libs.common.bus.protocol import Bus, Record, Slot
from libs.common.db import Database
from libs.common.inbox import identity_of
from libs.common.replay import read_log
from libs.common.service import open_bus

PAGE = 500
REASON = "published after the moment that the databases were restored to: no outbox holds it"

_LAY_OUT = (
    """CREATE TEMPORARY TABLE logged (event_id uuid PRIMARY KEY, topic text, partition integer, "offset" bigint,
                                      key text, type text, at text)""",
    "CREATE TEMPORARY TABLE sent (event_id uuid, topic text, key text, type text, at text, published boolean)",
)
_PUBLISHED = """CREATE TEMPORARY TABLE published AS
    SELECT id FROM outbox WHERE NOT EXISTS (SELECT FROM unpublished WHERE unpublished.id = outbox.id)"""
_LOGGED = text("""
    INSERT INTO logged SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:offsets AS bigint[]),
        CAST(:keys AS text[]), CAST(:types AS text[]), CAST(:ats AS text[]))
    ON CONFLICT DO NOTHING
""")
_SENT = text("""
    INSERT INTO sent
    SELECT event_id, topic, key, type, time,
           EXISTS (SELECT FROM published WHERE published.id = outbox.id)
      FROM outbox WHERE topic = ANY(CAST(:topics AS text[]))
""")
_INDEX = text("CREATE INDEX ON sent (event_id)")
_UNKNOWN = text("""
    SELECT * FROM logged WHERE NOT EXISTS (SELECT FROM sent WHERE sent.event_id = logged.event_id)
     ORDER BY topic, partition, "offset"
""")
_UNKNOWN_OF = text("""
    SELECT id FROM unnest(CAST(:ids AS uuid[])) AS r (id) WHERE NOT EXISTS (SELECT FROM sent WHERE event_id = id)
""")
_LOST = text("""
    SELECT event_id, topic, key, type, at FROM sent
     WHERE published AND NOT EXISTS (SELECT FROM logged WHERE logged.event_id = sent.event_id) ORDER BY at, event_id
""")
_BECAME = text("""
    SELECT EXISTS (SELECT FROM inbox WHERE event_id = :id) AS known,
           EXISTS (SELECT FROM discarded WHERE (topic, key, partition, "offset") = (:topic, :key, :partition, :offset))
               AS discarded
""")
_OFFSETS = text("SELECT topic, partition, next FROM consumer_offset")

_TAKE = text("""
    INSERT INTO inbox (event_id) SELECT unnest(CAST(:ids AS uuid[])) ON CONFLICT DO NOTHING RETURNING event_id
""")
_DISCARD = text("""
    INSERT INTO discarded (id, topic, partition, "offset", key, record_key, headers, value, reason, parked_at,
                           discarded_by, because)
    VALUES (nextval(pg_get_serial_sequence('parked', 'id')), :topic, :partition, :offset, :key, :key,
            CAST(:headers AS jsonb), :value, :reason, clock_timestamp(), :by, :because)
""")
_AGAIN = text("""
    INSERT INTO unpublished (id) SELECT id FROM outbox WHERE event_id = ANY(CAST(:ids AS uuid[])) ON CONFLICT DO NOTHING
""")
_REWIND = text(
    "UPDATE consumer_offset SET next = :next WHERE topic = :topic AND partition = :partition AND next > :next"
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that bus and databases disagree on. `service` publishes it (lost) or reads it (ahead)."""

    what: Literal["unknown", "lost", "ahead"]
    topic: str
    service: str | None = None
    key: str | None = None
    type: str | None = None
    event_id: UUID | None = None
    at: str | None = None  # when it happened, as its publisher said
    partition: int | None = None
    offset: int | None = None
    log_end: int | None = None
    taken_by: tuple[str, ...] = ()
    """Readers that an unknown record has had its effect in already."""

    def to_json(self) -> dict[str, Any]:
        """What is known of it, by name."""
        return {name: _plain(value) for name, value in asdict(self).items() if value not in (None, ())}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


class Comparison:
    """Bus and databases side by side. `databases` by service; `topics` says who publishes and who reads what."""

    def __init__(self, databases: Mapping[str, Database], bus: Bus, topics: Mapping[str, Topic]) -> None:
        self._databases = databases
        self._bus = bus
        self._topics = topics
        self._ends: Mapping[Slot, tuple[int, int]] = {}

    async def differences(self) -> AsyncIterator[Difference]:
        """Every difference. On a running system only what was published before this began is expected in the log."""
        async with AsyncExitStack() as stack:
            beside: dict[str, AsyncConnection] = {
                service: await stack.enter_async_context(self._databases[service].engine.connect())
                for service in sorted({name for topic in self._topics.values() for name in topic.publishers})
            }
            for connection in beside.values():
                await connection.execute(text(_PUBLISHED))
            self._ends = await self._bus.ends(list(self._topics))
            await self._lay_out(beside)
            for service, connection in beside.items():
                async for unknown in self._unknown(beside, service):
                    yield unknown
                async for lost in _lost(connection, service):
                    yield lost
        async for ahead in self._ahead():
            yield ahead

    # -- looking

    async def _lay_out(self, beside: Mapping[str, AsyncConnection]) -> None:
        for connection in beside.values():
            for statement in _LAY_OUT:
                await connection.execute(text(statement))
        for slot, (start, end) in self._ends.items():
            publishers = [beside[name] for name in sorted(self._topics[slot.topic].publishers)]
            async for records in read_log(self._bus, slot, start, end):
                for connection in publishers:
                    await connection.execute(_LOGGED, _columns(records))
        for service, connection in beside.items():  # after the log: what stands in it was in an outbox before
            topics = [name for name, topic in self._topics.items() if service in topic.publishers]
            await connection.execute(_SENT, {"topics": topics})
            await connection.execute(_INDEX)

    async def _unknown(self, beside: Mapping[str, AsyncConnection], service: str) -> AsyncIterator[Difference]:
        """Records of the topics that a service publishes first of all, and that no outbox of theirs holds."""
        async for rows in _pages(beside[service], _UNKNOWN):
            for topic in sorted({row.topic for row in rows}):
                first, *others = sorted(self._topics[topic].publishers)
                left = {row.event_id: row for row in rows if row.topic == topic and first == service}
                for other in others:
                    found = await beside[other].execute(_UNKNOWN_OF, {"ids": list(left)})
                    left = {event_id: left[event_id] for event_id in found.scalars()}
                for row in left.values():
                    if described := await self._described(row):
                        yield described

    async def _described(self, row: Any) -> Difference | None:
        """What became of an unknown record; None where all its readers have discarded it."""
        place = {"topic": row.topic, "key": row.key, "partition": row.partition, "offset": row.offset}
        taken_by, discarded_by = [], set()
        for service in sorted(self._topics[row.topic].subscribers):
            async with self._databases[service].engine.connect() as connection:
                became = (await connection.execute(_BECAME, {"id": row.event_id, **place})).one()
            if became.discarded:
                discarded_by.add(service)
            elif became.known:
                taken_by.append(service)
        if discarded_by == self._topics[row.topic].subscribers:
            return None
        known = {"type": row.type, "event_id": row.event_id, "at": row.at, "taken_by": tuple(taken_by)}
        return Difference(what="unknown", **place, **known)

    async def _ahead(self) -> AsyncIterator[Difference]:
        for service, database in self._databases.items():
            async with database.engine.connect() as connection:
                rows = (await connection.execute(_OFFSETS)).all()
            for row in rows:
                start_end = self._ends.get(Slot(row.topic, row.partition))
                if start_end and row.next > start_end[1]:
                    place = {"partition": row.partition, "offset": row.next, "log_end": start_end[1]}
                    yield Difference(what="ahead", topic=row.topic, service=service, **place)

    # -- mending

    async def mend(self, differences: Sequence[Difference], *, by: str, because: str) -> None:
        """Mend some of what `differences` gave: again and again until all is. Each part may be done twice."""
        for unknown in (each for each in differences if each.what == "unknown"):
            await self._discard(unknown, by=by, because=because)
        for service in {each.service for each in differences if each.what == "lost"}:
            ids = [each.event_id for each in differences if (each.what, each.service) == ("lost", service)]
            async with self._databases[str(service)].transaction() as tx:
                await tx.execute(_AGAIN, {"ids": ids})
        for topic in {each.topic for each in differences if each.what != "unknown"}:
            await self._rewind(topic)

    async def _discard(self, unknown: Difference, *, by: str, because: str) -> None:
        assert unknown.offset is not None  # noqa: S101 - it stands in the log
        assert unknown.partition is not None  # noqa: S101
        (record,) = await self._bus.fetch(Slot(unknown.topic, unknown.partition), unknown.offset, limit=1)
        known = {"topic": unknown.topic, "partition": unknown.partition, "offset": unknown.offset, "key": record.key}
        kept = known | {"headers": json.dumps(dict(record.headers)), "value": record.value}
        for service in sorted(self._topics[unknown.topic].subscribers - set(unknown.taken_by)):
            async with self._databases[service].transaction() as tx:
                if (await tx.execute(_TAKE, {"ids": [unknown.event_id]})).first():
                    await tx.execute(_DISCARD, kept | {"reason": REASON, "by": by, "because": because})

    async def _rewind(self, topic: str) -> None:
        for service in sorted(self._topics[topic].subscribers):
            async with self._databases[service].transaction() as tx:
                for slot, (start, _) in sorted(self._ends.items()):
                    if slot.topic == topic:
                        where = {"topic": topic, "partition": slot.partition, "next": start}
                        await tx.execute(_REWIND, where)


async def _lost(connection: AsyncConnection, service: str) -> AsyncIterator[Difference]:
    async for rows in _pages(connection, _LOST):
        for row in rows:
            known = {"key": row.key, "type": row.type, "event_id": row.event_id, "at": row.at}
            yield Difference(what="lost", topic=row.topic, service=service, **known)


async def _pages(connection: AsyncConnection, query: Any) -> AsyncIterator[Sequence[Any]]:
    async with connection.stream(query) as rows:
        async for page in rows.partitions(PAGE):
            yield page


def _columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    return {
        "ids": [identity_of(record) for record in records],
        "topics": [record.slot.topic for record in records],
        "partitions": [record.slot.partition for record in records],
        "offsets": [record.offset for record in records],
        "keys": [record.key for record in records],
        "types": [record.headers.get("ce_type") for record in records],
        "ats": [record.headers.get("ce_time") for record in records],
    }


# -- which deployment


@asynccontextmanager
async def comparison(*, kafka: str | None, own_broker: bool) -> AsyncIterator[Comparison]:
    """The deployment of the environment beside its bus. Raises Refusal, SettingsMissing."""
    home = None if deployed_settings() else started_home()
    async with AsyncExitStack() as stack:
        brokers = await stack.enter_async_context(_brokers(home, kafka, own=own_broker)) if home else kafka
        settings = await stack.enter_async_context(opened(*SERVICES))
        if brokers:
            settings = settings.model_copy(update={"bus": "kafka", "kafka": brokers})
        bus = open_bus(settings)
        stack.push_async_callback(bus.stop)
        if not await bus.reachable():
            raise Refusal("the bus does not answer; is it up?")
        databases = {service: Database(settings.database_url(service), pool_size=2) for service in SERVICES}
        for database in databases.values():
            stack.push_async_callback(database.close)
        yield Comparison(databases, bus, load_topics().topics)


@asynccontextmanager
async def _brokers(home: Local, kafka: str | None, *, own: bool) -> AsyncIterator[str | None]:
    """Where the bus of a home is; None for the one in its own cluster."""
    if (home.home / "form").read_text() == "together":
        yield None
    elif brokers := kafka or (home.announced()[1] if home.is_held() else None):
        await make_topics(brokers)  # as `up` does: a Kafka that is lost has none
        yield brokers
    elif own:
        async with broker_of(home) as bootstrap:
            yield bootstrap
    else:
        raise Refusal("which bus? Name its brokers with --kafka, or --own-broker for one of the home's own")
