"""What the drill does at the brokers itself: it reads what was published, sends some of it again, and sends poison."""

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.protocol import Message, Record, Slot, encoded
from libs.common.events import TOPICS, ApplicationAccepted, BenefitApproved, DeptCompleted, Event, PayoutSettled

MARK = "drill"  # the header of what is ours
PAGE = 500
NO_PACK = "0" * 64
NO_TEXT = {ApplicationAccepted: "case_no", BenefitApproved: "number"}
"""Where a NUL makes an event that no database takes. A reader finds it by halving its batch."""
POISONED: Mapping[str, type[Event]] = {
    event.topic: event for event in (ApplicationAccepted, BenefitApproved, DeptCompleted, PayoutSettled)
}
"""The topics that poison is sent to, each with an event that a reader handles: what nobody handles is no poison."""

Ends = Mapping[Slot, int]


@asynccontextmanager
async def opened(bootstrap: str) -> AsyncIterator[KafkaBus]:
    """The brokers, with nothing between."""
    bus = KafkaBus(bootstrap)
    try:
        yield bus
    finally:
        await bus.stop()


async def ends(bus: KafkaBus) -> Ends:
    """Where every log ends now."""
    return {slot: end for slot, (_, end) in (await bus.ends(TOPICS)).items()}


async def repeated(bus: KafkaBus, since: Ends, until: Ends) -> list[str]:
    """The events that stand more than once between two moments, as `topic type key`."""
    seen: Counter[str] = Counter()
    told: dict[str, str] = {}
    for slot, end in until.items():
        for record in await _between(bus, slot, since.get(slot, 0), end):
            name = record.headers.get("ce_id", "")
            seen[name] += 1
            told[name] = f"{slot.topic} {record.headers.get('ce_type')} {record.key}"
    return [told[name] for name, count in seen.items() if count > 1]


async def _between(bus: KafkaBus, slot: Slot, start: int, end: int) -> list[Record]:
    found: list[Record] = []
    while start < end:
        page = await bus.fetch(slot, start, limit=PAGE)
        if not page:
            break
        found += [record for record in page if record.offset < end]
        start = page[-1].offset + 1
    return found


async def publish_again(bus: KafkaBus, size: int) -> int:
    """The last `size` records of each log once more, as they are; returns how many."""
    messages: list[Message] = []
    for slot, end in (await ends(bus)).items():
        last = await _between(bus, slot, max(0, end - size), end)
        theirs = (record for record in last if MARK not in record.headers)  # poison is not sent twice: it was discarded
        messages += [Message(slot.topic, record.key, encoded(record.headers), record.value) for record in theirs]
    await bus.publish(messages)
    return len(messages)


async def publish_poison(bus: KafkaBus, topic: str, form: int, under_way: Sequence[str]) -> str:
    """A record that cannot be decoded, and behind it an event under the key of each application that is under way: in
    turn one under a policy that does not exist, and one that no database takes. The later events of their keys must
    queue. Returns the mark that all bear. Raises LookupError where the topic has none of the events that its readers
    handle."""
    twin = await _last(bus, topic)
    mark = str(uuid.uuid4())
    garbled = (b'{"application": ', b"\x00\xff", _foreign(twin, twin.key))[form]
    headers = {MARK: mark} if form == 1 else _headers(twin, mark)
    key = str(uuid.uuid4()) if form == 2 else twin.key  # its key is not the event's
    await bus.publish([Message(topic, key, encoded(headers), garbled)])
    spoiled = [(key, (_untakeable if n % 2 else _foreign)(twin, key)) for n, key in enumerate(under_way)]
    await bus.publish([Message(topic, key, encoded(_headers(twin, mark)), value) for key, value in spoiled])
    return mark


def _headers(twin: Record, mark: str) -> dict[str, str]:
    return {**twin.headers, "ce_time": datetime.now(UTC).isoformat(), "ce_id": str(uuid.uuid4()), MARK: mark}


def _foreign(twin: Record, application: str) -> bytes:
    told = json.loads(twin.value)
    return json.dumps(told | {"application": application, "policy": told["policy"] | {"sha256": NO_PACK}}).encode()


def _untakeable(twin: Record, application: str) -> bytes:
    field = NO_TEXT.get(POISONED[twin.slot.topic])
    if field is None:
        return _foreign(twin, application)
    return json.dumps(json.loads(twin.value) | {"application": application, field: "\0"}).encode()


async def _last(bus: KafkaBus, topic: str) -> Record:
    kind = POISONED[topic].__name__
    for slot, end in (await ends(bus)).items():
        if slot.topic == topic:
            for record in reversed(await _between(bus, slot, max(0, end - PAGE), end)):
                if record.headers.get("ce_type") == kind and MARK not in record.headers:
                    return record
    raise LookupError(f"no {kind} was published to {topic} yet")


async def behind(bus: KafkaBus, slot: Slot, offset: int, key: str) -> list[str]:
    """The ids of the events of a key that stand behind an offset, without those that stood before it already."""
    _, end = (await bus.ends([slot.topic]))[slot]
    records = await _between(bus, slot, max(0, offset - PAGE), end)
    named = [
        (record.offset, record.headers["ce_id"])
        for record in records
        if record.key == key and MARK not in record.headers
    ]
    return sorted({name for at, name in named if at > offset} - {name for at, name in named if at < offset})
