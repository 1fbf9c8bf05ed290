"""`huanquan`, command by command, as an operator types it, beside a running system."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from deploy import cli
from deploy.local import Local
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import Message
from libs.common.db import connect
from services.intake.api.examples import FILING
from tests.conftest import ROOT, System, start_system
from tests.steps import (
    case_of,
    confirm,
    departments_answer,
    desks_of,
    eventually,
    give_quota,
    item_of,
    officers_of,
    order_of,
    propose,
    send_to_bank,
    take_to_bank_and_back,
    treasurer_of,
)

Json = dict[str, Any]
COUNTY = "410522"
COMMANDS = {"up", "demo", "serve", "migrate", "verify", "parked", "replay", "rebuild", "due-date", "policy", "token"}


def huanquan(system: System, *arguments: str) -> Result:
    """A command beside a system, in this process: an interpreter of its own for each would take seconds."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("HUANQUAN_")}
    with (
        mock.patch.dict(os.environ, around | {"HUANQUAN_HOME": str(system.home)}, clear=True),
        mock.patch.object(cli, "console", Console(width=400)),
    ):
        return CliRunner().invoke(cli.app, arguments)


@contextmanager
def running(home: Path) -> Iterator[System]:
    system = start_system(home, "--no-sample")
    try:
        yield system
    finally:
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0


# -- what needs no system


def test_help_lists_every_command() -> None:
    listed = set(re.findall(r"^[│ ]+([a-z][a-z-]+)  ", CliRunner().invoke(cli.app, ["--help"]).output, re.MULTILINE))
    assert listed >= COMMANDS
    assert set(re.findall(r"\b(list|show|release)\b", CliRunner().invoke(cli.app, ["parked", "--help"]).output)) == {
        "list",
        "show",
        "release",
    }
    for command in COMMANDS:
        assert CliRunner().invoke(cli.app, [command, "--help"]).exit_code == 0, command


def test_rules_are_answered_without_a_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUANQUAN_HOME", str(tmp_path / "none"))
    due = CliRunner().invoke(cli.app, ["due-date", "--accepted", "2026-02-13", "--days", "2", "--json"])
    assert json.loads(due.stdout)["due"] == "2026-02-24"
    asked = "policy split --benefit living_allowance --treasury 410522 --on 2026-03-02 --fen 100 --json"
    split = json.loads(CliRunner().invoke(cli.app, asked.split()).stdout)
    assert (split["employer"], split["shares"]) == (33, {"410500": 20, COUNTY: 47})
    assert not (tmp_path / "none").exists()


def test_a_command_for_a_system_that_is_not_there_says_so_and_exits_with_2(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "deploy.cli", "verify"]
    around = {name: value for name, value in os.environ.items() if not name.startswith("HUANQUAN_")}
    here = around | {"HUANQUAN_HOME": str(tmp_path / "none")}
    refused = subprocess.run(line, cwd=ROOT, env=here, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("there is no deployment: ")


# -- beside a running system


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, str]]:
    """A system of its own and an application that was paid in it."""
    with running(tmp_path_factory.mktemp("cli") / "home") as system:
        yield system, asyncio.run(_pay(system))


async def _pay(system: System) -> str:
    async with desks_of(system) as at:
        receipt = await at.desk("portal").post("/intake/v1/applications", FILING, key="cli")
        application = str(receipt["id"])
        await departments_answer(at, application)
        one, other = officers_of(at, COUNTY)
        for code, verdict in (("talent_certification", "certify"), ("living_allowance", "approve")):
            item = await item_of(at, application, code)
            await propose(one, item, verdict)
            await confirm(other, item)
        await order_of(at, application, "unfunded")
        treasurer = treasurer_of(at, COUNTY)
        await give_quota(treasurer, COUNTY, "living_allowance", fen=1_000_000)
        batch = await send_to_bank(treasurer, COUNTY, await order_of(at, application, "due"))
        await take_to_bank_and_back(treasurer, batch)
        supervisor = at.desk("supervisor")
        await eventually(
            lambda: supervisor.get(f"/intake/v1/applications/{application}"),
            lambda view: [payment["state"] for payment in view["payments"]] == ["settled"],
        )
        await eventually(
            lambda: supervisor.pages("/audit/v1/trail", key=application),
            lambda steps: any(step["type"] == "PayoutSettled" for step in steps),
        )
    return application


def test_a_token_of_the_command_opens_the_system(paid: tuple[System, str]) -> None:
    system, application = paid
    printed = huanquan(system, "token", "--role", "department", "--org-unit", f"{COUNTY}/public_security")
    assert (printed.exit_code, printed.stderr) == (0, "")

    async def seen() -> list[Json]:
        async with desks_of(system) as at:
            desk = at.desk("supervisor")
            desk._headers = {"Authorization": f"Bearer {printed.stdout.strip()}"}
            return await desk.pages("/workflow/v1/tasks")

    assert [task["application"] for task in asyncio.run(seen())] == [application]


def test_nothing_is_parked_where_nothing_failed(paid: tuple[System, str]) -> None:
    listed = huanquan(paid[0], "parked", "list")
    assert (listed.exit_code, listed.stdout) == (0, "nothing is parked\n")
    assert refused_with(huanquan(paid[0], "parked", "list", "--service", "nobody")).startswith("no service 'nobody'")


def test_a_replay_says_what_it_skipped_and_does_nothing_twice(paid: tuple[System, str]) -> None:
    system, _ = paid
    before = told_of(paid)
    replayed = huanquan(system, "replay", "--service", "intake", "--topic", "dept.assigned")
    assert (replayed.exit_code, replayed.stdout) == (
        0,
        "handled 0, skipped 6 taken before and 0 of no use to intake, parked 0\n",
    )
    certified = huanquan(system, "replay", "--service", "housing", "--topic", "talent.certified")
    assert certified.stdout.startswith("handled 0, skipped ")
    assert told_of(paid) == before
    refused = refused_with(huanquan(system, "replay", "--service", "intake", "--topic", "people.resolved"))
    assert refused.startswith("intake does not hear 'people.resolved'")


@pytest.mark.parametrize("service", ["intake", "audit"])
def test_a_rebuilt_projection_answers_as_before(paid: tuple[System, str], service: str) -> None:
    before = told_of(paid)
    rebuilt = huanquan(paid[0], "rebuild", "--service", service)
    assert rebuilt.exit_code == 0, rebuilt.stderr
    counted = re.fullmatch(r"applied (\d+) events, skipped 0 repeated ones, parked 0\n", rebuilt.stdout)
    assert counted, rebuilt.stdout
    assert int(counted[1]) > 10
    assert told_of(paid) == before


def test_who_has_no_projection_cannot_rebuild_it(paid: tuple[System, str]) -> None:
    assert refused_with(huanquan(paid[0], "rebuild", "--service", "finance")) == "finance has no projection"


def refused_with(result: Result) -> str:
    """What `main` tells an operator before it exits with 2."""
    assert isinstance(result.exception, LookupError)
    return str(result.exception.args[0])


def told_of(paid: tuple[System, str]) -> Json:
    """What the projections of intake and audit answer, and how long the trail is."""
    system, application = paid

    async def ask() -> Json:
        async with desks_of(system) as at:
            supervisor = at.desk("supervisor")
            return {
                "application": await supervisor.get(f"/intake/v1/applications/{application}"),
                "changes": await supervisor.get("/intake/v1/changes", limit=200),
                "supervision": await supervisor.get("/audit/v1/supervision/summary"),
                "overdue in 2099": await supervisor.get("/audit/v1/supervision/overdue", on="2099-12-30"),
                "trail": (await supervisor.get("/audit/v1/anchors/head"))["hash"],
            }

    return asyncio.run(ask())


DAMAGES = (  # service, damage, how it is mended, what names the broken record
    (
        "finance",
        "UPDATE entry SET fen = fen + 1 WHERE id = (SELECT min(id) FROM entry)",
        "UPDATE entry SET fen = fen - 1 WHERE id = (SELECT min(id) FROM entry)",
        "SELECT key FROM transfer",
    ),
    (
        "audit",
        "UPDATE entry SET payload = payload || ' '::bytea WHERE seq = 3",
        "UPDATE entry SET payload = substring(payload FOR length(payload) - 1) WHERE seq = 3",
        "SELECT '3: '",
    ),
    (
        "intake",
        "UPDATE payment SET fen = fen + 1",
        "UPDATE payment SET fen = fen - 1",
        'SELECT "order"::text FROM payment',
    ),
    (
        "workflow",
        "UPDATE item SET verdict = 'refuse' WHERE kind = 'benefit'",
        "UPDATE item SET verdict = 'approve' WHERE kind = 'benefit'",
        "SELECT id::text FROM item WHERE kind = 'benefit'",
    ),
)


def test_verify_names_every_broken_record_and_exits_with_1(paid: tuple[System, str], tmp_path: Path) -> None:
    system, file = paid[0], tmp_path / "findings.json"
    assert huanquan(system, "verify", "--at-rest", "--json", str(file)).exit_code == 0
    whole = json.loads(file.read_text())
    assert {finding["violations"] for finding in whole} == {0}
    assert len([finding for finding in whole if finding["checked"]]) > 15
    broken = [asyncio.run(as_superuser(system, service, name, damage)) for service, damage, _, name in DAMAGES]
    try:
        found = huanquan(system, "verify", "--at-rest", "--json", str(file))
    finally:
        for service, _, mend, name in DAMAGES:
            asyncio.run(as_superuser(system, service, name, mend))
    assert found.exit_code == 1
    named = [finding["first"] for finding in json.loads(file.read_text()) if finding["violations"]]
    assert [record for record in broken if not any(record in first for first in named)] == [], named
    assert [record for record in broken if record not in found.stdout] == []


async def as_superuser(system: System, service: str, name: str, change: str) -> str:
    """Do to a table what no service may; gives what names the record."""
    local = Local(system.home)
    local.postgres.start()
    connection = await connect(local.postgres.url(service))
    try:
        named = str(await connection.fetchval(name))
        await connection.execute("SET session_replication_role = replica")  # not even triggers
        await connection.execute(change)
        return named
    finally:
        await connection.close()


# -- what is parked


REFUSE_CASES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no case today'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON cases FOR EACH ROW EXECUTE FUNCTION refuse();
    ALTER TABLE cases ENABLE ALWAYS TRIGGER refuse;
"""


POISON = Message("application.received", "poison", {"ce_type": "ApplicationAccepted", "ce_id": "none"}, b"\xff{")


def test_what_is_parked_is_listed_shown_and_released(tmp_path: Path) -> None:
    with running(tmp_path / "home") as system:
        asyncio.run(as_superuser(system, "workflow", "SELECT 1", REFUSE_CASES))
        asyncio.run(_publish(system, POISON))
        application = asyncio.run(_file_one(system))
        rows = parked_rows(system, "workflow")
        [of_the_poison] = [row for row in rows if not _is_refused(row)]
        [refused] = [row for row in rows if _is_refused(row)]
        assert refused[1:4] == ["application.received", application, "1"]

        shown = parked(system, "show", application)
        assert (shown.exit_code, '"ce_type": "ApplicationAccepted"' in shown.stdout) == (0, True)
        assert "no case today" in shown.stdout
        again = parked(system, "release", application)
        assert (again.exit_code, again.stdout) == (1, "handled 0, still parked 1\n")

        asyncio.run(as_superuser(system, "workflow", "SELECT 1", "DROP FUNCTION refuse CASCADE"))
        released = parked(system, "release", application)
        assert (released.exit_code, released.stdout) == (0, "handled 1, still parked 0\n")
        assert parked_rows(system, "workflow") == [of_the_poison]  # which no release can mend, and which stops nobody
        assert parked(system, "release", of_the_poison[2]).exit_code == 1
        assert asyncio.run(_case(system, application))["state"] == "in_progress"


def parked(system: System, action: str, key: str) -> Result:
    return huanquan(system, "parked", action, "--service", "workflow", "application.received", key)


def parked_rows(system: System, service: str) -> list[list[str]]:
    """The rows of `parked list`: service, topic, key, events, since, waiting for, reason."""
    listed = huanquan(system, "parked", "list", "--service", service)
    assert listed.exit_code == 0, listed.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in listed.stdout.splitlines()]
    return [row for row in rows if row[0] == service]


def _is_refused(row: list[str]) -> bool:
    return "no case today" in row[-1]


async def _file_one(system: System) -> str:
    """File an application, and wait until workflow has parked it."""
    async with desks_of(system) as at:
        filed = await at.desk("portal").post("/intake/v1/applications", FILING, key="parked")
    local = Local(system.home)
    local.postgres.start()
    connection = await connect(local.postgres.url("workflow"))
    try:
        await eventually(lambda: connection.fetchval("SELECT count(*) = 2 FROM parked_key"))
    finally:
        await connection.close()
    return str(filed["id"])


async def _case(system: System, application: str) -> Json:
    async with desks_of(system) as at:
        return await case_of(at, application)


async def _publish(system: System, message: Message) -> None:
    local = Local(system.home)
    local.postgres.start()
    bus = PostgresBus(local.postgres.app_url("bus"))
    await bus.start()
    try:
        await bus.publish([message])
    finally:
        await bus.stop()
