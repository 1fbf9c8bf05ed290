"""Packs: stored for good, refused when they change under one version, waited for when they have not come yet."""

from pathlib import Path

import pytest
from sqlalchemy import text

from deploy.rules_cli import ANYANG
from libs.common.db import metadata as make_metadata
from libs.common.inbox import Early
from libs.common.packs import PackChanged, Packs, policy_pack_table
from libs.common.policy import Pack
from tests.conftest import MakeDatabase
from tests.contracts.toy import PACK, Happened

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
    assert packs.get(identity).identity == packs.current("anyang").identity == identity
    elsewhere = Packs(database, folder / "no files here")
    await elsewhere.load()
    assert elsewhere.current().identity == identity


async def test_the_same_version_with_other_content_refuses_to_start(make_database: MakeDatabase, folder: Path) -> None:
    database = await make_database(metadata)
    await Packs(database, folder).load()
    path = folder / "anyang" / ANYANG.name
    path.write_bytes(path.read_bytes() + b"# changed\n")
    with pytest.raises(PackChanged, match="anyang/2021-4 is stored as"):
        await Packs(database, folder).load()


async def test_a_service_without_any_pack_refuses_to_start(make_database: MakeDatabase, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=f"no policy pack: .* below {tmp_path}"):
        await Packs(await make_database(metadata), tmp_path).load()


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
