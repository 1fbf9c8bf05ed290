"""What the drill does at the brokers itself: it reads what was published, sends some of it again, and sends poison."""

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.protocol import Message, Record, Slot
from libs.common.events import TOPICS, ApplicationAccepted, BenefitApproved, DeptCompleted, Event, PayoutSettled

MARK = "drill"  # the header of what is ours
PAGE = 500
NO_PACK = "0" * 64
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
        messages += [Message(slot.topic, record.key, record.headers, record.value) for record in theirs]
    await bus.publish(messages)
    return len(messages)


async def publish_poison(bus: KafkaBus, topic: str, form: int) -> str:
    """Two records under the key of an application that the topic tells of: one that cannot be decoded, and an event
    under a policy that does not exist, behind which the key's later events queue. Returns the mark that both bear.
    Raises LookupError where the topic has none of the events that its readers handle."""
    twin = await _last(bus, topic)
    mark = str(uuid.uuid4())
    fresh = {"ce_time": datetime.now(UTC).isoformat(), MARK: mark}
    told = json.loads(twin.value)
    foreign = json.dumps(told | {"policy": told["policy"] | {"sha256": NO_PACK}}).encode()
    garbled = (b'{"application": ', b"\x00\xff", foreign)[form]
    headers = {MARK: mark} if form == 1 else {**twin.headers, **fresh, "ce_id": str(uuid.uuid4())}
    key = str(uuid.uuid4()) if form == 2 else twin.key  # its key is not the event's
    await bus.publish([Message(topic, key, headers, garbled)])
    await bus.publish([Message(topic, twin.key, {**twin.headers, **fresh, "ce_id": str(uuid.uuid4())}, foreign)])
    return mark


async def _last(bus: KafkaBus, topic: str) -> Record:
    kind = POISONED[topic].__name__
    for slot, end in (await ends(bus)).items():
        if slot.topic == topic:
            for record in reversed(await _between(bus, slot, max(0, end - PAGE), end)):
                if record.headers.get("ce_type") == kind and MARK not in record.headers:
                    return record
    raise LookupError(f"no {kind} was published to {topic} yet")
