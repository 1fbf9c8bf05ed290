"""The trail: every record once, in one chain, and any tampering is found and named."""

import asyncio
import io
import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from libs.common.bus.protocol import Record, Slot
from services.audit import trail, verifier
from services.audit.anchors import Anchorage, anchors_file, append, known_anchors, last_anchor
from services.audit.trail import verify_trail
from services.audit.verifier import GENESIS, Anchor, Entry, Verdict, verify, verify_export
from tests.audit.conftest import COUNTY, Hall, a_record, assigned, undecodable

NOW = datetime(2026, 2, 10, 2, tzinfo=UTC)


async def test_every_record_is_in_the_trail_once_even_what_nobody_can_decode(hall: Hall) -> None:
    records = [a_record(assigned()), undecodable(), a_record(assigned())]
    await hall.take(records)
    await hall.take(records[::2])  # delivered again, at other offsets
    assert await hall.verify() == Verdict(entries=3, verified=True)
    shown = (await hall.get("/trail")).json()["items"]
    assert [entry["seq"] for entry in shown] == [1, 2, 3]
    assert shown[1]["payload_base64"] == "/wB7"
    assert shown[0]["payload"] == records[0].value.decode()
    assert await hall.rows("SELECT 1 FROM parked") == []


async def test_what_the_inbox_has_forgotten_is_still_not_chained_twice(hall: Hall) -> None:
    record = a_record(assigned())
    await hall.take([record])
    async with hall.database.transaction() as tx:
        await tx.execute(text("DELETE FROM inbox"))
    await hall.take([record])
    assert await hall.verify() == Verdict(entries=1, verified=True)


async def test_batches_of_many_partitions_at_once_make_one_chain_without_a_gap(hall: Hall) -> None:
    batches = [[a_record(assigned(), partition) for _ in range(20)] for partition in range(12)]
    await asyncio.gather(*(hall.take(batch) for batch in batches))
    assert await hall.verify() == Verdict(entries=240, verified=True)
    (row,) = await hall.rows("SELECT min(seq) AS low, max(seq) AS high, count(DISTINCT previous) AS links FROM entry")
    assert tuple(row) == (1, 240, 240)


async def test_the_order_of_a_partition_is_the_order_of_the_chain(hall: Hall) -> None:
    records = [a_record(assigned()) for _ in range(50)]
    await hall.take(records)
    async with hall.database.transaction() as tx:
        entries = await trail.read(tx, limit=100)
    assert [entry.offset for entry in entries] == list(range(50))
    assert [entry.key for entry in entries] == [record.key for record in records]


TAMPERINGS = {
    "payload": (["UPDATE entry SET payload = '\\x7b7d' WHERE seq = 4"], 4, "payload_altered"),
    "payload and its digest": (
        ["UPDATE entry SET payload = '\\x7b7d', payload_digest = '" + verifier.sm3(b"{}") + "'"],  # noqa: S608 - ours
        1,
        "entry_altered",
    ),
    "headers": (["UPDATE entry SET headers = '{}' WHERE seq = 7"], 7, "entry_altered"),
    "topic": (["UPDATE entry SET topic = 'payout.settled' WHERE seq = 1"], 1, "entry_altered"),
    "time of recording": (
        ["UPDATE entry SET recorded_at = recorded_at - interval '1 microsecond' WHERE seq = 2"],
        2,
        "entry_altered",
    ),
    "deleted": (["DELETE FROM entry WHERE seq = 5"], 5, "missing"),
    "deleted first": (["DELETE FROM entry WHERE seq = 1"], 1, "missing"),
    "deleted and closed up": (
        ["DELETE FROM entry WHERE seq = 5", "UPDATE entry SET seq = seq - 1 WHERE seq > 5"],
        5,
        "link_broken",
    ),
    "swapped": (
        [
            "UPDATE entry SET seq = 100 WHERE seq = 3",
            "UPDATE entry SET seq = 3 WHERE seq = 8",
            "UPDATE entry SET seq = 8 WHERE seq = 100",
        ],
        3,
        "link_broken",
    ),
    "inserted": (
        [
            "UPDATE entry SET seq = seq + 100 WHERE seq > 5",
            "UPDATE entry SET seq = seq - 99 WHERE seq > 100",
            """INSERT INTO entry SELECT 6, gen_random_uuid(), topic, partition, "offset", key, type, time, recorded_at,
                      headers, payload, payload_digest, repeat('a', 64), hash FROM entry WHERE seq = 5""",
        ],
        6,
        "link_broken",
    ),
    "doubled": (
        [
            "ALTER TABLE entry DROP CONSTRAINT pk_entry, DROP CONSTRAINT uq_entry_event_id",
            "ALTER TABLE entry DROP CONSTRAINT uq_entry_previous",
            "INSERT INTO entry SELECT * FROM entry WHERE seq = 5",
        ],
        6,
        "out_of_order",
    ),
    "tail cut off": (["DELETE FROM entry WHERE seq > 9"], 10, "truncated"),
    "emptied": (["DELETE FROM entry"], 1, "truncated"),
}


@pytest.mark.parametrize(("statements", "first", "reason"), TAMPERINGS.values(), ids=TAMPERINGS.keys())
async def test_a_superusers_tampering_is_found_and_the_first_broken_entry_named(
    hall: Hall, statements: list[str], first: int, reason: str
) -> None:
    await hall.take([a_record(assigned()) for _ in range(12)])
    anchor = await hall.head()
    assert await hall.verify(anchor) == Verdict(12, verified=True)
    await hall.as_superuser(*statements)
    verdict = await hall.verify(anchor)
    assert (verdict.verified, verdict.first_broken, verdict.reason) == (False, first, reason)
    offline = verify_export(await hall.export(), [anchor])
    assert not offline.verified
    if reason != "out_of_order":  # the export reads by seq, and shows one of two rows with the same one
        assert (offline.first_broken, offline.reason) == (first, reason)


async def test_a_chain_that_was_rewritten_whole_is_found_by_an_anchor(hall: Hall) -> None:
    await hall.take([a_record(assigned()) for _ in range(12)])
    anchor = await hall.head()
    async with hall.database.transaction() as tx:
        entries = await trail.read(tx, limit=100)
    forged = rechained(entries, altered=6)
    assert verify(forged) == Verdict(12, verified=True)
    await hall.as_superuser(*(rewrite(each) for each in reversed(forged)))
    assert (await hall.verify()).verified
    assert await hall.verify(anchor) == Verdict(12, verified=False, first_broken=12, reason="anchor_mismatch")
    earlier = Anchor(5, entries[4].hash, NOW)
    assert (await hall.verify(earlier)).verified  # what an older anchor proves still stands


def rewrite(entry: Entry) -> str:
    columns = f"hash = '{entry.hash}', previous = '{entry.previous}', payload_digest = '{entry.payload_digest}'"
    payload = f"decode('{entry.payload.hex()}', 'hex')"
    return f"UPDATE entry SET {columns}, payload = {payload} WHERE seq = {entry.seq}"  # noqa: S608 - the tamperer's own


def rechained(entries: list[Entry], *, altered: int) -> list[Entry]:
    made: list[Entry] = []
    previous = GENESIS
    for entry in entries:
        fields: dict[str, Any] = {name: getattr(entry, name) for name in Entry.__slots__} | {"previous": previous}
        if entry.seq == altered:
            fields |= {"payload": b"{}", "payload_digest": verifier.sm3(b"{}")}
        forged = Entry(**fields | {"hash": Entry(**fields).computed_hash()})
        made.append(forged)
        previous = forged.hash
    return made


async def test_two_anchors_that_disagree_are_a_finding(hall: Hall) -> None:
    await hall.take([a_record(assigned())])
    head = await hall.head()
    verdict = await hall.verify(head, Anchor(1, "a" * 64, NOW))
    assert (verdict.first_broken, verdict.reason) == (1, "anchor_mismatch")


@pytest.mark.parametrize(
    "attempt",
    [
        "UPDATE entry SET payload = ''",
        "DELETE FROM entry",
        "TRUNCATE entry",
        "GRANT audit_owner TO audit_app",
        "ALTER TABLE entry DISABLE TRIGGER ALL",
        "ALTER TABLE entry OWNER TO audit_app",
        "DROP TABLE entry",
        "SET ROLE audit_owner",
        "CREATE RULE r AS ON INSERT TO entry DO INSTEAD NOTHING",
    ],
)
async def test_the_services_own_role_is_refused(hall: Hall, attempt: str) -> None:
    await hall.take([a_record(assigned())])
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner|ADMIN option|admin option"):
        async with hall.database.transaction() as tx:
            await tx.execute(text(attempt))
    assert (await hall.verify()).entries == 1


async def test_the_services_own_role_cannot_grant_itself_more(hall: Hall) -> None:
    async with hall.database.transaction() as tx:
        await tx.execute(text("GRANT ALL ON entry TO audit_app"))  # PostgreSQL warns, and grants nothing
    (row,) = await hall.rows(
        "SELECT has_table_privilege('entry', 'UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES') AS more"
    )
    assert row.more is False


async def test_verification_of_ten_thousand_entries_is_quick_and_its_memory_flat(hall: Hall) -> None:
    for _ in range(20):
        await hall.take([a_record(assigned()) for _ in range(500)])
    async with hall.database.engine.connect() as connection:
        tracemalloc.start()
        try:
            verdict = await verify_trail(connection)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        begun = time.perf_counter()
        assert await verify_trail(connection) == verdict == Verdict(10_000, verified=True)
        assert time.perf_counter() - begun < 10
    assert peak < 8_000_000


# -- anchors


async def test_the_ticker_keeps_the_head_outside_the_database(hall: Hall, tmp_path: Path) -> None:
    await hall.take([a_record(assigned()) for _ in range(3)])
    head = await hall.head()
    assert await hall.service.ticker.tick(datetime.now(UTC)) == 0
    assert await hall.service.ticker.tick(datetime.now(UTC) + timedelta(minutes=1)) == 1
    (kept,) = known_anchors(tmp_path)
    assert (kept.seq, kept.hash) == (head.seq, head.hash)
    await hall.as_superuser("DELETE FROM entry WHERE seq = 3")
    told = (await hall.post("/trail:verify")).json()
    assert told == {
        "entries": 2,
        "verified": False,
        "first_broken": 3,
        "reason": "truncated",
        "told": "链尾缺失：库外留存的锚点晚于最后一条",
        "anchors": 1,
    }


async def test_the_metrics_tell_how_many_entries_no_anchor_covers_yet(hall: Hall, tmp_path: Path) -> None:
    await hall.hear(*(assigned() for _ in range(3)))
    append(anchors_file(tmp_path), Anchor(1, "0" * 64, datetime.now(UTC)))
    told = await hall.metrics()
    assert told['huanquan_trail_entries{service="audit"}'] == 3
    assert told['huanquan_trail_unanchored{service="audit"}'] == 2


def test_the_newest_anchor_is_read_from_the_end_of_a_long_file(tmp_path: Path) -> None:
    assert last_anchor(tmp_path) is None
    for seq in range(1, 40):
        append(anchors_file(tmp_path), Anchor(seq, "0" * 64, datetime.now(UTC)))
    with anchors_file(tmp_path).open("a") as file:
        file.write("40 00")  # a crash cut it off
    newest = last_anchor(tmp_path)
    assert newest is not None
    assert newest.seq == 39


async def test_a_thousand_entries_are_anchored_at_once(hall: Hall, tmp_path: Path) -> None:
    for _ in range(2):
        await hall.take([a_record(assigned()) for _ in range(500)])
    assert await hall.service.ticker.tick(datetime.now(UTC)) == 1
    assert [anchor.seq for anchor in known_anchors(tmp_path)] == [1000]


async def test_an_anchor_that_a_crash_cut_off_counts_for_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    path = anchors_file(tmp_path)
    whole, second = Anchor(1, "a" * 64, NOW), Anchor(2, "b" * 64, NOW)
    append(path, whole)
    with path.open("a") as file:
        file.write("2 bbbb")
    assert known_anchors(tmp_path) == [whole]
    append(path, second)
    assert known_anchors(tmp_path) == [whole, second]


async def test_an_empty_trail_writes_no_anchor(hall: Hall, tmp_path: Path) -> None:
    async with hall.database.transaction() as tx:
        await Anchorage(tmp_path).on_anchor_due(tx, [])
    assert known_anchors(tmp_path) == []
    head = await hall.head()
    assert (head.seq, head.hash) == (0, GENESIS)


# -- the offline verifier


async def test_an_outsider_checks_an_export_with_the_verifier_alone(hall: Hall, tmp_path: Path) -> None:
    await hall.take([a_record(assigned()), undecodable(), a_record(assigned())])
    export, anchors = tmp_path / "export.ndjson", tmp_path / "anchors.txt"
    export.write_text("\n".join(await hall.export()) + "\n", encoding="utf-8")
    anchors.write_text((await hall.head()).line() + "\n")
    shutil.copy(verifier.__file__, tmp_path / "alone.py")  # away from every module of ours
    asked = [sys.executable, "-I", str(tmp_path / "alone.py"), str(export), "--anchor", str(anchors)]
    done = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] is True
    export.write_text(export.read_text(encoding="utf-8").replace(COUNTY, "410523", 1), encoding="utf-8")
    done = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) | {"told": ""} == {
        "entries": 3,
        "verified": False,
        "first_broken": 1,
        "reason": "payload_altered",
        "told": "",
        "anchors": 1,
    }


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "null",
        '{"seq": 1}',
        "[" * 100_000,
        '{"seq": 1e999}',
        '{"seq": "x"}',
    ],
)
def test_a_line_that_is_no_entry_breaks_the_chain_where_it_stands(line: str) -> None:
    assert verify_export([line]) == Verdict(0, verified=False, first_broken=1, reason="unreadable")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recorded_at", "0001-01-01T00:00:00+23:59"),
        ("recorded_at", 7),
        ("headers", {"a": 1}),
        ("headers", "text"),
        ("payload", "\ud800"),
        ("key", "\ud800"),
        ("offset", 10**30),
        ("hash", None),
    ],
)
async def test_a_made_up_field_is_a_finding_and_no_crash(hall: Hall, field: str, value: Any) -> None:
    await hall.take([a_record(assigned())])
    (line,) = await hall.export()
    verdict = verify_export([json.dumps(json.loads(line) | {field: value})])
    assert (verdict.verified, verdict.first_broken) == (False, 1)


@pytest.mark.parametrize(
    "tampered",
    [
        lambda line, _: json.dumps(json.loads(line) | {"remark": "evil"}),
        lambda line, _: line.replace("{", '{"payload": "evil", ', 1),
        lambda line, _: line.replace('"headers":', '"headers": {"a": "evil"}, "headers":', 1),
        lambda line, _: json.dumps(json.loads(line) | {"payload_base64": "ZXZpbA=="}),
        lambda line, _: json.dumps(json.loads(line) | {"offset": str(json.loads(line)["offset"])}),
        lambda line, _: json.dumps(json.loads(line) | {"seq": True}),
        lambda line, _: json.dumps(json.loads(line) | {"seq": 1.0}),
        lambda line, at: json.dumps(json.loads(line) | {"recorded_at": at.isoformat()}),
    ],
    ids=["unknown", "twice", "headers-twice", "base64-beside", "number-as-text", "truth", "fraction", "instant"],
)
async def test_an_export_shows_nothing_beside_what_the_chain_proves(hall: Hall, tampered: Any) -> None:
    await hall.take([a_record(assigned())])
    (line,) = await hall.export()
    assert verify_export([line]).verified
    at = datetime.fromisoformat(json.loads(line)["recorded_at"])
    verdict = verify_export([tampered(line, at)])
    assert (verdict.verified, verdict.first_broken, verdict.reason) == (False, 1, "unreadable")


def test_files_that_cannot_be_read_are_told_apart_from_a_broken_trail(tmp_path: Path) -> None:
    out = io.StringIO()
    assert verifier.main([str(tmp_path / "none")], out) == 2
    (tmp_path / "export").write_text("")
    (tmp_path / "anchors").write_text("not an anchor\n")
    assert verifier.main([str(tmp_path / "export"), "--anchor", str(tmp_path / "anchors")], out) == 2
    assert verifier.main([str(tmp_path / "export")], out) == 0


def test_the_hash_is_that_of_the_written_definition() -> None:
    entry = Entry(
        seq=1,
        event_id="00000000-0000-0000-0000-000000000001",
        topic="t",
        partition=0,
        offset=0,
        key="键",
        type="T",
        time="",
        recorded_at=NOW,
        headers="{}",
        payload=b"abc",
        payload_digest="66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",  # GB/T 32905, example 1
        previous=GENESIS,
        hash="",
    )
    assert verifier.sm3(b"abc") == entry.payload_digest
    parts = ["1", entry.event_id, "t", "0", "0", "键", "T", "", "2026-02-10T02:00:00.000000Z", "{}"]
    form = b"huanquan-trail-1" + b"".join(
        len(part.encode()).to_bytes(4, "big") + part.encode() for part in [*parts, entry.payload_digest, GENESIS]
    )
    assert entry.computed_hash() == verifier.sm3(form)


# -- reading


async def test_the_trail_is_read_by_key_by_topic_and_page_by_page(hall: Hall) -> None:
    mine = assigned()
    await hall.take([a_record(assigned()), a_record(mine), a_record(assigned())])
    await hall.take([Record(Slot("people.resolved", 0), 0, mine.key, {}, b"x")])
    by_key = (await hall.get(f"/trail?key={mine.key}")).json()["items"]
    assert [entry["seq"] for entry in by_key] == [2, 4]
    assert [entry["seq"] for entry in (await hall.get("/trail?topic=people.resolved")).json()["items"]] == [4]
    first = (await hall.get("/trail?limit=3")).json()
    rest = (await hall.get(f"/trail?limit=3&cursor={first['next']}")).json()
    assert [entry["seq"] for entry in [*first["items"], *rest["items"]]] == [1, 2, 3, 4]
    assert rest["next"] is None
    assert (await hall.get("/trail/2")).json()["key"] == mine.key
    for unknown in ("9", "0", "x", "9" * 30, mine.key):
        assert (await hall.get(f"/trail/{unknown}")).status_code == 404
    assert (await hall.get("/trail?cursor=WyJ4Il0")).status_code == 422


async def test_an_export_longer_than_a_page_is_whole(hall: Hall) -> None:
    for _ in range(3):
        await hall.take([a_record(assigned()) for _ in range(400)])
    assert verify_export(await hall.export(), [await hall.head()]) == Verdict(1200, verified=True)


async def test_anchors_of_ones_own_are_checked_too(hall: Hall) -> None:
    await hall.take([a_record(assigned())])
    head = await hall.head()
    good = await hall.post("/trail:verify", {"anchors": [{"seq": head.seq, "hash": head.hash}]})
    assert good.json()["verified"] is True
    bad = await hall.post("/trail:verify", {"anchors": [{"seq": 2, "hash": "b" * 64}]})
    assert (bad.json()["verified"], bad.json()["reason"]) == (False, "truncated")


@pytest.mark.parametrize(
    "path", ["/trail", "/trail/1", "/trail:export", "/anchors/head", "/supervision/overdue", "/supervision/summary"]
)
async def test_only_supervisor_and_auditor_read_here(hall: Hall, path: str) -> None:
    assert (await hall.get(path, role="talent")).status_code == 403
    assert (await hall.get(path, role="talent_office", org_unit="410522/talent_office")).status_code == 403
    assert (await hall.get(path, role="supervisor")).status_code in {200, 404}
    assert (await hall.post("/trail:verify", role="ops")).status_code == 403
