"""How the PostgreSQL bus keeps its log: what records share is written once; a log of the older form is taken over."""

import uuid

import pytest

from libs.common.bus.postgres import PostgresBus, create_schema
from libs.common.bus.protocol import Message, Slot, encoded
from libs.common.db import connect
from tests.conftest import BusKit, Postgres, create_database

OLD = """
CREATE TABLE partition (
    topic text NOT NULL, partition integer NOT NULL, next bigint NOT NULL DEFAULT 0, PRIMARY KEY (topic, partition));
CREATE TABLE log (
    topic text NOT NULL, partition integer NOT NULL, "offset" bigint NOT NULL, key text NOT NULL,
    headers jsonb NOT NULL, value bytea NOT NULL, appended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, partition, "offset"));
INSERT INTO partition VALUES ('toy.old', 0, 2);
INSERT INTO log VALUES ('toy.old', 0, 0, 'a', '{"ce_id": "1", "ce_type": "Happened"}', 'first'),
                       ('toy.old', 0, 1, 'a', '{}', 'second');
"""


async def test_a_log_of_the_older_form_is_taken_over_and_goes_on_behind_its_end(postgres: Postgres) -> None:
    name, slot = f"old_{uuid.uuid4().hex}", Slot("toy.old", 0)
    await create_database(postgres, name, "bus")
    owner = await connect(postgres.url(name, "bus_owner"))
    await owner.execute(OLD)
    for _ in range(2):
        await create_schema(postgres.url(name, "bus_owner"), topics=[slot.topic], partitions=1, app_role="bus_app")
    bus = PostgresBus(postgres.url(name, "bus_app"))
    await bus.publish([Message(slot.topic, "a", encoded({"ce_id": "3"}), b"third", '{"ce_type":"Happened"}')])
    found = await bus.fetch(slot, 0, limit=10)
    assert [(each.offset, each.key, each.headers, each.value) for each in found] == [
        (0, "a", {"ce_id": "1", "ce_type": "Happened"}, b"first"),
        (1, "a", {}, b"second"),
        (2, "a", {"ce_id": "3", "ce_type": "Happened"}, b"third"),
    ]
    await bus.stop()
    await owner.close()


@pytest.mark.parametrize("buses", ["postgres"], indirect=True)
async def test_what_many_records_have_in_common_is_written_once_and_known_to_every_reader(buses: BusKit) -> None:
    topic = await buses.topic()
    reader, kinds = buses.client(), [f'{{"ce_type":"{topic}.{n}"}}' for n in range(3)]
    slots = [Slot(topic, n) for n in range(3)]
    await reader.fetch(slots[0], 0, limit=1)  # it has looked before there was anything to know
    for writer in (buses.client(), buses.client()):
        await writer.publish([Message(topic, f"{n}", encoded({"ce_id": f"{n}"}), b"", kinds[n % 3]) for n in range(30)])
    records = [record for slot in slots for record in await reader.fetch(slot, 0, limit=100)]
    assert len(records) == 60
    assert all(r.headers == {"ce_id": r.key, "ce_type": f"{topic}.{int(r.key) % 3}"} for r in records)
    log = await connect(buses.address)
    assert await log.fetchval("SELECT count(*) FROM heading WHERE headers LIKE $1", f"%{topic}%") == 3
    await log.close()
