"""Backup and restore as an operator does it: beside a running system, and after its disk is gone."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.archive import Archive, Cluster
from deploy.backup import RECEIVER, copy_keys
from deploy.engine import _backends, _kill
from deploy.local import Local
from deploy.operations import remove_home
from libs.common.db import connect
from tests.conftest import ROOT, System, environment, start_system
from tests.deploy.conftest import folder_of_our_own
from tests.deploy.test_cli import Ended, command
from tests.intake.builders import a_filing

Json = dict[str, Any]
FILERS = 4
ENOUGH = 20


@dataclass
class Struck:
    """A system whose disk was lost while filings came in; and what its clients had been told by then."""

    system: System
    archive: Path
    keys: Path
    answered: list[str] = field(default_factory=list)
    early: str = ""
    between: datetime | None = None
    cursor: str = ""

    def restore(self, home: Path, *arguments: str, **variables: str) -> Ended:
        return command(home, "restore", str(self.archive), *arguments, **variables)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_of_our_own() as folder:
        yield folder


@pytest.fixture(scope="module")
def struck() -> Iterator[Struck]:
    with folder_of_our_own() as folder:
        home = folder / "home"
        try:
            yield strike(start_system(home, "--no-sample"), folder / "archive", folder / "keys")
        finally:
            remove_home(home)


def strike(system: System, archive: Path, keys: Path) -> Struck:
    """Follow it, take a copy, keep its keys elsewhere, and lose its disk in the midst of filings."""
    struck = Struck(system, archive, keys)
    with following(system.home, archive), client_of(system) as portal:
        taken = command(system.home, "backup", "take", str(archive))
        assert taken.exit_code == 0, taken
        copy_keys(system.home, keys)
        struck.early = file(portal)
        struck.between = moment_between()
        struck.answered += [file(portal) for _ in range(3)]
        struck.cursor = read_feed(portal, 8)
        asyncio.run(strike_while_filing(struck))
    return struck


@contextmanager
def following(home: Path, archive: Path) -> Iterator["subprocess.Popen[str]"]:
    """`huanquan backup follow --synchronous`, from when commits wait for it until it is asked to end."""
    line = [sys.executable, "-m", "deploy.entry", "backup", "follow", str(archive), "--synchronous"]
    streams: Json = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, cwd=ROOT, env=environment(home), **streams) as process:
        try:
            asyncio.run(commits_wait(home, process))
            yield process
        finally:
            process.terminate()
            process.wait(30)


async def commits_wait(home: Path, process: "subprocess.Popen[str]") -> None:
    connection = await connect(Local(home).postgres.url("postgres"))
    try:
        async with asyncio.timeout(30):
            while await connection.fetchval("SHOW synchronous_standby_names") != RECEIVER:
                assert process.poll() is None, process.communicate()
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


def client_of(system: System) -> httpx.Client:
    headers = {"Authorization": f"Bearer {system.token('portal')}"}
    return httpx.Client(base_url=f"{system.addresses.of('intake')}/intake/v1", headers=headers, timeout=30)


def file(portal: httpx.Client) -> str:
    answer = portal.post("/applications", json=a_filing(), headers={"Idempotency-Key": uuid4().hex})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def moment_between() -> datetime:
    """A moment that lies between what was committed before and what comes after."""
    time.sleep(0.05)
    now = datetime.now(UTC)
    time.sleep(0.05)
    return now


def read_feed(portal: httpx.Client, count: int, after: str = "") -> str:
    """Read the feed of changes until so many were told; returns its cursor."""
    seen: list[Json] = []
    until = time.monotonic() + 20
    while len(seen) < count and time.monotonic() < until:
        told = portal.get("/changes", params={"wait": 1} | ({"after": after} if after else {})).json()
        seen, after = seen + told["items"], told["next"]
    assert len(seen) >= count
    return after


async def strike_while_filing(struck: Struck) -> None:
    """Filings come in from several clients; in their midst everything is killed at once, and the disk is gone."""
    headers = {"Authorization": f"Bearer {struck.system.token('portal')}"}
    base = f"{struck.system.addresses.of('intake')}/intake/v1"

    async def filing(client: httpx.AsyncClient) -> None:
        while True:
            try:
                answer = await client.post("/applications", json=a_filing(), headers={"Idempotency-Key": uuid4().hex})
            except httpx.TransportError:
                return
            if answer.status_code == 201:
                struck.answered.append(answer.json()["id"])

    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as client:
        filers = [asyncio.create_task(filing(client)) for _ in range(FILERS)]
        async with asyncio.timeout(60):
            while len(struck.answered) < ENOUGH:  # noqa: ASYNC110 - they come in from the others
                await asyncio.sleep(0.01)
        struck.system.process.kill()
        pg = Local(struck.system.home).postgres.folder
        _kill(_backends(pg))
        await asyncio.gather(*filers)
        await asyncio.to_thread(struck.system.process.wait)
        shutil.rmtree(pg)


@contextmanager
def started(home: Path) -> Iterator[System]:
    system = start_system(home, "--no-sample")
    try:
        yield system
    finally:
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0


def findings(home: Path) -> list[Json]:
    """The invariants that `huanquan verify` finds violated."""
    ended = command(home, "verify", "--json", "-")
    return [each for each in json.loads(ended.stdout) if each["violations"]]


def test_restored_to_the_last_commit_received_nothing_that_was_answered_is_lost(struck: Struck, tmp_path: Path) -> None:
    home = tmp_path / "restored"
    done = struck.restore(home, "--keys", str(struck.keys))
    assert done.exit_code == 0, done
    with started(home) as system, client_of(system) as portal:
        for application in [struck.early, *struck.answered]:
            found = portal.get(f"/applications/{application}")
            assert found.status_code == 200, application
            assert found.json()["beneficiary"], "its names can be opened again"
        file(portal)
        supervisor = {"Authorization": f"Bearer {system.token('supervisor')}"}
        for application in [struck.early, *struck.answered]:  # what was on its way to workflow arrives
            case = f"{system.addresses.of('workflow')}/workflow/v1/cases/{application}"
            assert eventually_answers(case, supervisor), application
        assert findings(home) == []


def eventually_answers(address: str, headers: dict[str, str]) -> bool:
    until = time.monotonic() + 20
    while httpx.get(address, headers=headers).status_code != 200:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_restored_to_an_instant_it_is_as_it_was_then_and_the_feed_goes_on_from_a_cursor_of_the_lost_time(
    struck: Struck, tmp_path: Path
) -> None:
    home = tmp_path / "earlier"
    assert struck.between
    done = struck.restore(home, "--to", struck.between.isoformat(), "--keys", str(struck.keys))
    assert done.exit_code == 0, done
    with started(home) as system, client_of(system) as portal:
        assert portal.get(f"/applications/{struck.early}").status_code == 200
        assert portal.get(f"/applications/{struck.answered[0]}").status_code == 404
        file(portal)
        read_feed(portal, 2, struck.cursor)  # though transactions of these numbers were read before
        assert findings(home) == []


def test_whole_copies_are_said_to_be_whole_and_an_altered_file_is_named(struck: Struck, tmp_path: Path) -> None:
    kept = tmp_path / "archive"
    shutil.copytree(struck.archive, kept)
    listed = command(tmp_path, "backup", "list", str(kept))
    assert "without keys, can be restored to " in listed.stdout
    whole = command(tmp_path, "backup", "verify", str(kept))
    assert (whole.exit_code, ": whole, " in whole.stdout) == (0, True), whole
    altered = next(file for file in sorted(kept.glob("base/*/*/base/*/*")) if file.stat().st_size)
    content = bytearray(altered.read_bytes())
    content[-1] ^= 1
    altered.write_bytes(content)
    damaged = command(tmp_path, "backup", "verify", str(kept))
    assert damaged.exit_code == 1
    assert f"DAMAGED: {altered} is not what was written" in damaged.stdout
    refusal = command(tmp_path / "home", "restore", str(kept), "--keys", str(struck.keys)).refusal
    assert refusal == f"{altered} is not what was written"
    assert not (tmp_path / "home").exists()


def test_wal_that_is_missing_in_the_middle_is_not_passed_over(struck: Struck, tmp_path: Path) -> None:
    kept = tmp_path / "archive"
    shutil.copytree(struck.archive, kept)
    for file_ in kept.glob("wal/*/*"):
        file_.unlink()
    later = ("--to", datetime.now(UTC).isoformat())
    refusal = command(tmp_path / "home", "restore", str(kept), *later, "--keys", str(struck.keys)).refusal
    assert "no WAL that goes on from" in refusal
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "is sealed with key [0-9a-f]{8}, which is not in it: name the folder of vault.key with --keys"),
        (("--to", "2020-01-01T00:00:00+08:00"), "is the oldest backup of .*: nothing leads to 2019-12-31 16:00:00"),
        (("--to", "2020-01-01"), "write an instant with its offset"),
        (("--copy", "yesterday"), "holds no backup 'yesterday'"),
        (("--data", "{tmp}/data", "--database", "nothing"), "holds no database 'nothing'"),
    ],
)
def test_what_cannot_be_restored_is_refused_in_one_line_and_makes_nothing(
    struck: Struck, tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    line = [each.format(tmp=tmp_path) for each in arguments]
    assert re.search(said, struck.restore(tmp_path / "home", *line).refusal)
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_holds_anything_is_left_alone(struck: Struck, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear")
    assert "is not empty" in struck.restore(tmp_path, "--keys", str(struck.keys)).refusal
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_server_gets_a_data_directory_that_recovers_when_it_starts(struck: Struck, tmp_path: Path) -> None:
    data = tmp_path / "data"
    laid = struck.restore(tmp_path / "home", "--data", str(data))
    assert laid.exit_code == 0, laid
    assert "give it to the user of a PostgreSQL " in laid.stdout
    assert (data / "recovery.signal").exists()
    assert not (tmp_path / "home").exists()


def test_keys_are_in_a_copy_only_where_they_were_asked_for(system: System, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    without = command(system.home, "backup", "take", str(archive), "--keep", "1")
    assert (without.exit_code, "without keys" in without.stdout) == (0, True), without
    assert not [file for file in archive.rglob("*") if file.name in ("vault.key", "private.json")]
    time.sleep(1)  # the next has another name
    with_keys = command(system.home, "backup", "take", str(archive), "--keep", "1", "--with-keys")
    assert (with_keys.exit_code, ": removed, 1 are kept" in with_keys.stdout) == (0, True), with_keys
    (copy,) = Archive(archive).copies()
    assert copy.keys
    assert (copy.keys / "vault.key").read_text() == (system.home / "vault.key").read_text()
    restored = command(tmp_path / "home", "restore", str(archive))
    assert restored.exit_code == 0, restored
    until = r"(to the commit of \d{4}-\d\d-\d\d [0-9:.]+Z|as it was taken)"  # whether anybody committed meanwhile
    assert re.match(f"{copy.name} restored into {tmp_path / 'home'}, {until}\n", restored.stdout), restored


def test_backups_of_two_systems_do_not_share_a_folder(struck: Struck, system: System) -> None:
    refusal = command(system.home, "backup", "take", str(struck.archive)).refusal
    assert "holds backups of another system" in refusal


def test_a_bus_in_the_same_cluster_differs_in_nothing(system: System) -> None:
    compared = command(system.home, "bus-diff")
    assert (compared.exit_code, compared.stdout, compared.stderr) == (0, "", "0 unknown, 0 lost, 0 ahead\n")


def test_wal_segments_are_named_as_postgresql_names_them() -> None:
    cluster = Cluster("1", timeline=2, major=18, segment_bytes=16 * 1024 * 1024, databases=())
    assert cluster.segment(1) == "000000020000000000000001"
    assert cluster.segment(256) == "000000020000000100000000"
