"""Packs: stored for good, refused when they change under one version, waited for when they have not come yet."""

import asyncio
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from libs.common.db import metadata as make_metadata
from libs.common.inbox import Early
from libs.common.packs import PackChanged, PackNotHere, Packs, policy_pack_table, store
from libs.common.policy import Pack, PackRefused
from tests.common.packs import ANYANG, a_pack, edited
from tests.conftest import ROOT, MakeDatabase
from tests.contracts.test_bus import until
from tests.contracts.toy import PACK, Happened

STRANGE = b"in_force_from: 2040-01-01\ncity: [of a later form]\n"
LATER = a_pack(('version: "2021-4.4"', 'version: "2030-1"'))

metadata = make_metadata()
policy_pack_table(metadata)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "anyang").mkdir()
    (tmp_path / "anyang" / ANYANG.name).write_bytes(ANYANG.read_bytes())
    return tmp_path


async def test_a_pack_is_found_again_by_what_it_was_decided_under(make_database: MakeDatabase, folder: Path) -> None:
    database = await make_database(metadata)
    packs = Packs(database, folder)
    await packs.load()
    identity = Pack.parse(ANYANG.read_bytes()).identity
    today = date(2026, 3, 2)
    assert packs.get(identity).identity == packs.on(today, "anyang").identity == identity
    elsewhere = Packs(database, folder / "no files here")
    await elsewhere.load()
    assert elsewhere.on(today).identity == identity


async def test_the_pack_of_a_day_began_last_and_is_the_highest_version(
    make_database: MakeDatabase, folder: Path
) -> None:
    database = await make_database(metadata)
    await Packs(database, folder).load()
    begins = ("in_force_from: 2021-03-23", "in_force_from: 2030-01-01")
    for version, *more in (("2030-1", begins), ("2030-10", begins), ("2030-2", begins)):
        body = edited(('version: "2021-4.4"', f'version: "{version}"'), *more)
        (folder / "anyang" / f"{version}.yaml").write_text(body, encoding="utf-8")
        await Packs(database, folder).load()
    packs = Packs(database, folder / "no files here")
    await packs.load()
    days = date(2021, 3, 23), date(2029, 12, 31), date(2030, 1, 1)
    assert [packs.on(day).version for day in days] == ["2021-4.4", "2021-4.4", "2030-10"]
    assert packs.find_on(date(2021, 3, 22)) is None
    with pytest.raises(LookupError, match="2021-03-22"):
        packs.on(date(2021, 3, 22))


async def test_the_same_version_with_other_content_refuses_to_start(make_database: MakeDatabase, folder: Path) -> None:
    database = await make_database(metadata)
    await Packs(database, folder).load()
    path = folder / "anyang" / ANYANG.name
    path.write_bytes(path.read_bytes() + b"# changed\n")
    with pytest.raises(PackChanged, match=r"anyang/2021-4\.4 is stored as"):
        await Packs(database, folder).load()


async def test_another_citys_policy_refuses_to_start(make_database: MakeDatabase, folder: Path) -> None:
    database = await make_database(metadata)
    await Packs(database, folder).load()
    with pytest.raises(PackChanged, match="this deployment serves anyang, the pack is of lanting"):
        await Packs(database, ROOT / "deploy" / "cities").load()


async def test_an_event_under_a_pack_that_has_not_come_is_early(make_database: MakeDatabase, folder: Path) -> None:
    packs = Packs(await make_database(metadata), folder)
    await packs.load()
    event = Happened(policy=PACK, of="a", number=1)
    with pytest.raises(Early) as early:
        packs.for_events([event])
    assert early.value.waiting == {event.id: f"pack:{PACK.sha256}"}


async def test_a_stored_pack_cannot_be_altered_by_the_service(make_database: MakeDatabase, folder: Path) -> None:
    database = await make_database(metadata)
    await Packs(database, folder).load()
    for statement in ("UPDATE policy_pack SET body = ''", "DELETE FROM policy_pack", "TRUNCATE policy_pack"):
        with pytest.raises(Exception, match="permission denied"):
            async with database.transaction() as tx:
                await tx.execute(text(statement))


async def test_a_published_pack_is_taken_in_while_the_service_runs_and_wakes_what_waits(
    make_database: MakeDatabase, folder: Path
) -> None:
    database = await make_database(metadata)
    packs = Packs(database, folder)
    await packs.load()
    async with database.transaction() as tx:
        await tx.execute(
            text("INSERT INTO parked_key (topic, key, waiting_for) VALUES ('toy', 'a', :pack)"),
            {"pack": f"pack:{LATER.identity.sha256}"},
        )
        await store(tx, LATER)
    assert packs.find(LATER.identity.sha256) is None

    async def taken_in() -> bool:
        return packs.find(LATER.identity.sha256) is not None

    following = asyncio.create_task(packs.follow())
    await until(taken_in, 20)
    following.cancel()
    await asyncio.wait([following])
    assert packs.on(date(2026, 3, 2)).version == "2030-1"
    async with database.transaction() as tx:
        assert (await tx.execute(text("SELECT key FROM due"))).scalars().all() == ["toy a"]


async def test_a_pack_that_this_process_cannot_read_is_told_once_and_harms_no_other(
    make_database: MakeDatabase, folder: Path
) -> None:
    database = await make_database(metadata)
    packs = Packs(database, folder)
    await packs.load()
    strange = {"sha256": "0" * 64, "city": "anyang", "version": "2040-1", "body": STRANGE}
    async with database.transaction() as tx:
        await tx.execute(
            text("INSERT INTO policy_pack (sha256, city, version, body) VALUES (:sha256, :city, :version, :body)"),
            strange,
        )
        await store(tx, LATER)
    with capture_logs() as told:
        await packs.refresh()
        await packs.refresh()
    assert [line["pack"] for line in told] == ["0" * 64]
    assert packs.find(LATER.identity.sha256) is not None
    assert packs.find("0" * 64) is None
    assert packs.on(date(2039, 12, 31)).version == "2030-1"
    with pytest.raises(PackNotHere, match="2040-1"):
        packs.on(date(2040, 1, 1))  # by an earlier version it would decide wrongly


async def test_a_pack_that_was_stored_before_a_check_asked_more_stays_readable(
    make_database: MakeDatabase, folder: Path
) -> None:
    """What was granted under it is paid under it: one pack that is not here would hold up all due work."""
    plan = (
        '  - id: sharing.tangyin\n    benefits: [living_allowance]\n    treasuries: ["410523"]\n'
        '    shares: [{bearer: "410500", share: 5/10}, {bearer: affiliated, share: 5/10}]\n'
        "    document: county-measure\n    article: 第二条\n    valid_from: 2021-03-23\n    version_by: due_on\n"
    )
    measure = (
        "  - id: county-measure\n    kind: county_measure\n    number: 汤县人才〔2020〕3 号\n    title: 测试文件\n"
        "    issued_by: 测试机关\n    articles: [第二条]\n"
    )
    law = "  - id: licensing-law\n"
    body = edited(
        ('version: "2021-4.4"', 'version: "2021-4.5"'),
        ("sharing_plans:\n", f"sharing_plans:\n{plan}"),
        (law, f"{measure}{law}"),
    ).encode()
    with pytest.raises(PackRefused, match="用 overrides 写明取代它"):
        Pack.parse(body)
    before = Pack.stored(body)
    database = await make_database(metadata)
    async with database.transaction() as tx:
        await store(tx, before)
    packs = Packs(database, folder)
    await packs.load()
    assert packs.get(before.identity).source == body
