"""The trail: every record of every topic, once, in one chain that nobody can rewrite unseen.

The head is the row with the highest `seq`, read under an advisory lock that lasts until the commit: no row of the
trail is ever updated, so the service's role needs no more than SELECT and INSERT on it. What is hashed, and how, is
in `verifier`.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zlib import crc32

from sqlalchemy import Row, Select, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.bus.protocol import Record
from libs.common.events import BY_TYPE, Event
from libs.common.inbox import identity_of
from services.audit import models
from services.audit.verifier import GENESIS, Anchor, Entry, Verdict, Verification, canonical_headers, sm3

PAGE = 500
CHAIN = crc32(b"huanquan trail")

_LOCK = text("SELECT pg_advisory_xact_lock(:chain)")
_KNOWN = text("SELECT event_id FROM entry WHERE event_id = ANY(CAST(:ids AS uuid[]))")
_EXTEND = text("""
    INSERT INTO entry (seq, event_id, topic, partition, "offset", key, type, time, recorded_at, headers, payload,
                       payload_digest, previous, hash)
    SELECT seq, event_id, topic, partition, "offset", key, type, time, :recorded_at, headers, payload,
           payload_digest, previous, hash
      FROM unnest(CAST(:seqs AS bigint[]), CAST(:ids AS uuid[]), CAST(:topics AS text[]),
                  CAST(:partitions AS integer[]), CAST(:offsets AS bigint[]), CAST(:keys AS text[]),
                  CAST(:types AS text[]), CAST(:times AS text[]), CAST(:headers AS text[]), CAST(:payloads AS bytea[]),
                  CAST(:digests AS text[]), CAST(:previous AS text[]), CAST(:hashes AS text[]))
           AS r (seq, event_id, topic, partition, "offset", key, type, time, headers, payload, payload_digest,
                 previous, hash)
""")
_ENTRIES = select(models.entry).order_by(models.entry.c.seq)
_HEAD = select(models.entry.c.seq, models.entry.c.hash).order_by(models.entry.c.seq.desc()).limit(1)


async def lock_chain(tx: AsyncConnection) -> None:
    """Let nobody else extend the chain until this transaction ends."""
    await tx.execute(_LOCK, {"chain": CHAIN})


async def head(tx: AsyncConnection, now: datetime) -> Anchor:
    """The head of the chain as an anchor taken now; seq 0 and 64 zeros where the trail is empty."""
    row = (await tx.execute(_HEAD)).first()
    return Anchor(row.seq, row.hash, now) if row else Anchor(0, GENESIS, now)


async def extend(tx: AsyncConnection, records: Sequence[Record], now: datetime) -> list[Entry]:
    """Add those records that the trail does not hold yet, in order, in one statement; gives the new entries."""
    await lock_chain(tx)
    by_id: dict[UUID, Record] = {}
    for record in records:
        by_id.setdefault(identity_of(record), record)  # of two with one id the first counts
    known = set((await tx.execute(_KNOWN, {"ids": list(by_id)})).scalars())
    fresh = [(event_id, record) for event_id, record in by_id.items() if event_id not in known]
    made = _chained(await head(tx, now), fresh, now)
    if made:
        await tx.execute(_EXTEND, _columns(made, now))
    return made


def _chained(last: Anchor, records: Sequence[tuple[UUID, Record]], now: datetime) -> list[Entry]:
    made: list[Entry] = []
    seq, previous = last.seq, last.hash
    for event_id, record in records:
        seq += 1
        entry = _entry(seq, event_id, record, now, previous)
        made.append(entry)
        previous = entry.hash
    return made


def _entry(seq: int, event_id: UUID, record: Record, now: datetime, previous: str) -> Entry:
    fields: dict[str, Any] = {
        "seq": seq,
        "event_id": str(event_id),
        "topic": record.slot.topic,
        "partition": record.slot.partition,
        "offset": record.offset,
        "key": record.key,
        "type": record.headers.get("ce_type", ""),
        "time": record.headers.get("ce_time", ""),
        "recorded_at": now,
        "headers": canonical_headers(record.headers),
        "payload": record.value,
        "payload_digest": sm3(record.value),
        "previous": previous,
    }
    return Entry(**fields, hash=Entry(**fields, hash="").computed_hash())


def _columns(made: Sequence[Entry], now: datetime) -> dict[str, Any]:
    return {
        "seqs": [each.seq for each in made],
        "ids": [UUID(each.event_id) for each in made],
        "topics": [each.topic for each in made],
        "partitions": [each.partition for each in made],
        "offsets": [each.offset for each in made],
        "keys": [each.key for each in made],
        "types": [each.type for each in made],
        "times": [each.time for each in made],
        "recorded_at": now,
        "headers": [each.headers for each in made],
        "payloads": [each.payload for each in made],
        "digests": [each.payload_digest for each in made],
        "previous": [each.previous for each in made],
        "hashes": [each.hash for each in made],
    }


async def verify_trail(connection: AsyncConnection, anchors: Iterable[Anchor] = ()) -> Verdict:
    """Check the stored trail from its first entry to its last, as of one moment, in flat memory."""
    walk = Verification(anchors)
    async with connection.stream(_ENTRIES, execution_options={"yield_per": PAGE}) as rows:
        async for row in rows:
            walk.add(entry_of(row))
    return walk.verdict()


async def read(
    tx: AsyncConnection, *, after: int = 0, limit: int = PAGE, key: str | None = None, topic: str | None = None
) -> list[Entry]:
    """Entries behind `after` in order of `seq`, at most `limit`; of one key or topic where named."""
    query: Select[Any] = _ENTRIES.where(models.entry.c.seq > after).limit(limit)
    if key is not None:
        query = query.where(models.entry.c.key == key)
    if topic is not None:
        query = query.where(models.entry.c.topic == topic)
    return [entry_of(row) for row in await tx.execute(query)]


async def find(tx: AsyncConnection, seq: int) -> Entry | None:
    """One entry, or None."""
    row = (await tx.execute(select(models.entry).where(models.entry.c.seq == seq))).first()
    return entry_of(row) if row else None


async def pages(tx: AsyncConnection) -> AsyncIterator[list[Entry]]:
    """The whole trail, a page at a time."""
    after = 0
    while page := await read(tx, after=after):
        yield page
        after = page[-1].seq


def entry_of(row: Row[Any]) -> Entry:
    """A row of the table as the chain knows it."""
    return Entry(
        seq=row.seq,
        event_id=str(row.event_id),
        topic=row.topic,
        partition=row.partition,
        offset=row.offset,
        key=row.key,
        type=row.type,
        time=row.time,
        recorded_at=row.recorded_at,
        headers=row.headers,
        payload=row.payload,
        payload_digest=row.payload_digest,
        previous=row.previous,
        hash=row.hash,
    )


def event_in(entry: Entry) -> Event | None:
    """The event in an entry, or None where it holds none that this system knows."""
    event_type = BY_TYPE.get(entry.type)
    if event_type is None:
        return None
    try:
        event = event_type.model_validate_json(entry.payload)
        return event.stamped(event_id=UUID(entry.event_id), time=datetime.fromisoformat(entry.time), trace=None)
    except ValueError:  # a ValidationError is one
        return None
