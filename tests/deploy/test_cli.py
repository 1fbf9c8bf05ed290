"""`huanquan`, command by command, as an operator types it, beside a running system."""

import asyncio
import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from deploy import cli
from deploy.cli import main
from deploy.local import Local
from libs.common import telemetry
from libs.common.bus.postgres import PostgresBus
from libs.common.bus.protocol import Message, encoded
from libs.common.db import connect
from libs.common.policy import load_pack
from services.intake.api.examples import FILING
from tests.common.packs import edited
from tests.conftest import ROOT, System
from tests.deploy.conftest import COUNTY, as_superuser, running
from tests.steps import (
    case_of,
    desks_of,
    eventually,
)

Json = dict[str, Any]
COMMANDS = {"up", "demo", "status", "serve", "migrate", "verify", "trace", "parked", "replay", "rebuild", "clean"} | {
    "due-date",
    "policy",
    "token",
    "backup",
    "restore",
    "bus-diff",
}


@dataclass(frozen=True)
class Ended:
    """What a command printed, and how it ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def refusal(self) -> str:
        """The one line that says why."""
        assert (self.exit_code, self.stdout) == (2, ""), self
        (line,) = self.stderr.splitlines()
        return line


def command(home: Path, *arguments: str, **variables: str) -> Ended:
    """A command on a home, in this process: an interpreter of its own for each would take seconds."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("HUANQUAN_")}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, around | {"HUANQUAN_HOME": str(home)} | variables, clear=True),
        mock.patch.object(telemetry, "configure"),  # pytest's own log handlers stay
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main(arguments)
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def huanquan(system: System, *arguments: str) -> Ended:
    """A command beside a system."""
    return command(system.home, *arguments)


# -- what needs no system


def test_help_lists_every_command() -> None:
    listed = set(re.findall(r"^[│ ]+([a-z][a-z-]+)  ", CliRunner().invoke(cli.app, ["--help"]).output, re.MULTILINE))
    assert listed >= COMMANDS
    of_parked = CliRunner().invoke(cli.app, ["parked", "--help"]).output
    assert set(re.findall(r"^[│ ]+([a-z]+)  ", of_parked, re.MULTILINE)) == {"list", "show", "release", "discard"}
    of_backup = CliRunner().invoke(cli.app, ["backup", "--help"]).output
    assert set(re.findall(r"^[│ ]+([a-z]+)  ", of_backup, re.MULTILINE)) == {
        "take",
        "follow",
        "list",
        "verify",
        "forget",
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


NO_DEPLOYMENT = "there is no deployment: "
KEY = ("--service", "workflow", "application.received", "x")


@pytest.mark.parametrize(
    "line",
    [
        ("verify",),
        ("status",),
        ("migrate",),
        ("parked", "list"),
        ("parked", "show", *KEY),
        ("parked", "release", *KEY),
        ("parked", "discard", *KEY, "--reason", "no use"),
        ("replay", "--service", "intake", "--topic", "dept.assigned"),
        ("rebuild", "--service", "intake"),
        ("backup", "take", "/nowhere"),
        ("backup", "follow", "/nowhere"),
        ("backup", "forget"),
        ("bus-diff",),
    ],
)
@pytest.mark.parametrize("folder", ["none", "empty"])
def test_a_command_for_a_system_that_was_never_started_says_so_and_makes_nothing(
    tmp_path: Path, line: tuple[str, ...], folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / folder, *line).refusal.startswith(NO_DEPLOYMENT)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_a_process_of_its_own_refuses_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "deploy.entry", "verify"]
    around = {name: value for name, value in os.environ.items() if not name.startswith("HUANQUAN_")}
    here = around | {"HUANQUAN_HOME": str(tmp_path / "none")}
    refused = subprocess.run(line, cwd=ROOT, env=here, capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.startswith(NO_DEPLOYMENT)


@pytest.mark.parametrize(
    ("line", "variables", "said"),
    [
        ("nonsense", {}, "nonsense"),
        ("verify --json /nowhere/at/all.json", {}, "there is no folder /nowhere/at"),
        ("demo --json /nowhere/at/all.json", {}, "there is no folder /nowhere/at"),
        ("verify --json /", {}, "/ is a folder"),
        ("verify", {"HUANQUAN_MODE": "prod"}, "HUANQUAN_MODE: "),
        (
            "verify",
            {"HUANQUAN_BUS": "x", "HUANQUAN_MAX_BODY_BYTES": "-1"},
            "HUANQUAN_BUS: .*; HUANQUAN_MAX_BODY_BYTES: ",
        ),
        ("verify", {"HUANQUAN_INTAKE_DATABASE_URL": "there"}, "HUANQUAN_INTAKE_DATABASE_URL is no address"),
        ("up", {"PORT": "eight"}, "PORT"),
        ("up --port 65534", {}, "--port"),
        ("parked list --service nobody", {}, "no service 'nobody': one of intake, "),
        ("parked show --service nobody application.received x", {}, "no service 'nobody'"),
        ("parked release --service nobody application.received x", {}, "no service 'nobody'"),
        ("parked discard --service workflow application.received x", {}, "--reason"),
        ("replay --service nobody --topic dept.assigned", {}, "no service 'nobody'"),
        ("rebuild --service nobody", {}, "no service 'nobody'"),
        ("serve nobody", {}, "no service 'nobody'"),
        ("serve", {"HUANQUAN_MODE": "production"}, "not set: .*AUDIT_DATABASE_URL, .*INTAKE_DATABASE_URL.*VAULT_KEY"),
        ("migrate", {"HUANQUAN_MODE": "production"}, "not set: .*HUANQUAN_BUS_MIGRATION_URL, .*INTAKE_MIGRATION_URL"),
    ],
)
def test_what_is_refused_is_one_line_that_names_it(
    tmp_path: Path, line: str, variables: dict[str, str], said: str
) -> None:
    assert re.search(said, command(tmp_path / "none", *line.split(), **variables).refusal)
    assert not (tmp_path / "none").exists()


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    nobody = "postgresql://intake_app:secret@127.0.0.1:1/intake"
    refusal = command(tmp_path, "verify", HUANQUAN_INTAKE_DATABASE_URL=nobody).refusal
    assert "127.0.0.1:1/intake (HUANQUAN_INTAKE_DATABASE_URL) does not answer" in refusal
    assert "is it up" in refusal
    assert "secret" not in refusal


def test_ctrl_c_ends_a_command_with_130_and_no_traceback(tmp_path: Path) -> None:
    with mock.patch("deploy.operations._found", side_effect=KeyboardInterrupt):
        ended = command(tmp_path, "verify")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (130, "", "")


# -- beside a running system


def test_a_token_of_the_command_opens_the_system(paid: tuple[System, str]) -> None:
    system, application = paid
    printed = huanquan(system, "token", "--role", "department", "--org-unit", f"{COUNTY}/public_security")
    assert (printed.exit_code, printed.stderr) == (0, "")

    async def seen() -> list[Json]:
        async with desks_of(system) as at:
            desk = at.desk("supervisor")
            desk._headers = {"Authorization": f"Bearer {printed.stdout.strip()}"}
            return await desk.pages("/workflow/v1/tasks")

    assert application in [task["application"] for task in asyncio.run(seen())]


def test_nothing_is_parked_where_nothing_failed(paid: tuple[System, str]) -> None:
    listed = huanquan(paid[0], "parked", "list")
    assert (listed.exit_code, listed.stdout) == (0, "nothing is parked\n")
    assert huanquan(paid[0], "parked", "list", "--discarded").stdout == "nothing was discarded\n"
    absent = huanquan(paid[0], "parked", "release", *KEY).refusal
    assert absent.startswith("nothing is parked in workflow under topic application.received, key 'x'")
    unheard = huanquan(paid[0], "parked", "show", "--service", "workflow", "no.topic", "x").refusal
    assert unheard.startswith("no topic 'no.topic': one of application.received, ")


def test_the_status_names_home_form_and_addresses(paid: tuple[System, str], tmp_path: Path) -> None:
    system, _ = paid
    told = huanquan(system, "status")
    assert told.exit_code == 0
    assert f"home: {system.home}\nform: five services in one process\n" in told.stdout
    assert told.stdout.count(": ready, http://127.0.0.1:") == 5
    (tmp_path / "pg").mkdir()
    (tmp_path / "pg" / "PG_VERSION").write_text("18")
    stopped = command(tmp_path, "status")
    assert (stopped.exit_code, "stopped; `huanquan up` starts it" in stopped.stdout) == (1, True)


@pytest.mark.article("第十条")
def test_a_published_version_is_taken_in_by_the_running_services(paid: tuple[System, str], tmp_path: Path) -> None:
    system, _ = paid
    later = tmp_path / "2099-1.yaml"
    begins = "in_force_from: 2021-03-23", "in_force_from: 2099-01-01"  # nothing that is filed today goes by it
    later.write_text(edited(('version: "2021-4.4"', 'version: "2099-1"'), begins), encoding="utf-8")
    identity = load_pack(later).identity
    for _ in range(2):
        published = huanquan(system, "policy", "publish", str(later))
        assert published.exit_code == 0, published.stderr
        assert published.stdout.splitlines()[0] == f"audit: {identity}"
        assert published.stdout.splitlines()[4] == f"intake: {identity}"
    asyncio.run(_serves(system, identity.sha256))
    later.write_bytes(later.read_bytes() + b"# changed\n")
    refused = huanquan(system, "policy", "publish", str(later)).refusal
    assert refused.startswith("anyang/2099-1 is stored as")
    assert refused.endswith("a changed policy is a new version; nothing was published")
    later.write_text(edited(("city: anyang\n", "city: elsewhere\n")), encoding="utf-8")
    refused = huanquan(system, "policy", "publish", str(later)).refusal
    assert refused == "this deployment serves anyang, the pack is of elsewhere; nothing was published"


async def _serves(system: System, sha256: str) -> None:
    async with desks_of(system) as at:
        desk = at.desk("supervisor")
        told = await eventually(
            lambda: desk.get("/intake/v1/policy", on="2099-01-01"),
            lambda policy: policy["identity"]["sha256"] == sha256,
        )
    assert told["identity"]["version"] == "2099-1"


def test_migrate_brings_the_home_up_to_date_where_the_environment_names_no_database(paid: tuple[System, str]) -> None:
    system, _ = paid
    asyncio.run(as_superuser(system, "workflow", "SELECT 1", "ALTER TABLE discarded RENAME TO kept"))
    try:
        assert "run `huanquan migrate`" in huanquan(system, "parked", "list").refusal
    finally:
        asyncio.run(as_superuser(system, "workflow", "SELECT 1", "ALTER TABLE kept RENAME TO discarded"))
    migrated = huanquan(system, "migrate")
    assert (migrated.exit_code, migrated.stdout.count(": up to date\n")) == (0, 6)


def test_a_replay_says_what_it_skipped_and_does_nothing_twice(paid: tuple[System, str]) -> None:
    system, _ = paid
    before = told_of(paid)
    replayed = huanquan(system, "replay", "--service", "intake", "--topic", "dept.assigned")
    assert (replayed.exit_code, replayed.stdout) == (
        0,
        "handled 0, skipped 10 taken before and 0 of no use to intake, parked 0\n",
    )
    certified = huanquan(system, "replay", "--service", "housing", "--topic", "talent.certified")
    assert certified.stdout.startswith("handled 0, skipped ")
    assert told_of(paid) == before
    refused = huanquan(system, "replay", "--service", "intake", "--topic", "people.resolved").refusal
    assert refused.startswith("intake does not hear 'people.resolved'; it hears ")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (("--partition", "99"), "dept.assigned has no partition 99; it has 0 to 5"),
        (("--partition", "-1"), "dept.assigned has no partition -1; it has 0 to 5"),
        (("--offset", "-1"), "dept.assigned has no offset -1 that was read; there are 0 to "),
        (("--offset", "999"), "dept.assigned has no offset 999 that was read; there are 0 to "),
    ],
)
def test_a_replay_of_what_the_log_does_not_hold_names_what_it_holds(
    paid: tuple[System, str], where: tuple[str, str], said: str
) -> None:
    refusal = huanquan(paid[0], "replay", "--service", "intake", "--topic", "dept.assigned", *where).refusal
    assert refusal.startswith(said)


def test_where_employers_belong_can_be_told_again(paid: tuple[System, str]) -> None:
    told = huanquan(paid[0], "tell-affiliations")
    assert (told.exit_code, told.stdout) == (0, "told where 1 employers belong\n")
    verified = huanquan(paid[0], "verify")
    assert verified.exit_code == 0, verified.stdout


@pytest.mark.parametrize("service", ["intake", "audit"])
def test_a_rebuilt_projection_answers_as_before(paid: tuple[System, str], service: str) -> None:
    before = told_of(paid)
    rebuilt = huanquan(paid[0], "rebuild", "--service", service)
    assert rebuilt.exit_code == 0, rebuilt.stderr
    counted = re.fullmatch(
        r"applied (\d+) events, skipped 0 repeated ones, left out 0 that are parked, discarded or refused\n",
        rebuilt.stdout,
    )
    assert counted, rebuilt.stdout
    assert int(counted[1]) > 10
    assert told_of(paid) == before


def test_who_has_no_projection_cannot_rebuild_it(paid: tuple[System, str]) -> None:
    assert huanquan(paid[0], "rebuild", "--service", "finance").refusal == "finance has no projection"


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


# -- what is parked


REFUSE_CASES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no case today'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON cases FOR EACH ROW EXECUTE FUNCTION refuse();
    ALTER TABLE cases ENABLE ALWAYS TRIGGER refuse;
"""


POISON = Message(
    "application.received", "poison", encoded({"ce_type": "ApplicationAccepted", "ce_id": "none"}), b"\xff{"
)


def test_what_is_parked_is_listed_shown_released_and_discarded(tmp_path: Path) -> None:
    with running(tmp_path / "home") as system:
        asyncio.run(as_superuser(system, "workflow", "SELECT 1", REFUSE_CASES))
        asyncio.run(_publish(system, POISON))
        application = asyncio.run(_file_one(system))
        keys = parked_keys(system)
        [of_the_poison] = [key for key in keys if key != application]
        assert application in keys
        listed = huanquan(system, "parked", "list", "--service", "workflow").stdout
        assert "no case today" in " ".join(listed.split())
        assert max(len(line) for line in listed.splitlines()) <= 80

        shown = parked(system, "show", application)
        assert (shown.exit_code, '"ce_type": "ApplicationAccepted"' in shown.stdout) == (0, True)
        assert "no case today" in shown.stdout
        again = parked(system, "release", application)
        assert (again.exit_code, again.stdout) == (1, "handled 0, still parked 1\n")

        asyncio.run(as_superuser(system, "workflow", "SELECT 1", "DROP FUNCTION refuse CASCADE"))
        released = parked(system, "release", application)
        assert (released.exit_code, released.stdout) == (0, "handled 1, still parked 0\n")
        assert parked_keys(system) == [of_the_poison]  # which no release can mend, and which stops nobody
        assert parked(system, "release", of_the_poison).exit_code == 1
        assert "\ufffd{" in parked(system, "show", of_the_poison).stdout
        assert asyncio.run(_case(system, application))["state"] == "in_progress"

        discarded = parked(system, "discard", of_the_poison, "--reason", "no JSON at all", "--by", "wang")
        assert (discarded.exit_code, discarded.stdout) == (0, "discarded 1, handled 0, still parked 0\n")
        assert parked_keys(system) == []
        kept = huanquan(system, "parked", "list", "--discarded").stdout
        assert "by wang" in kept
        assert "because: no JSON at all" in kept
        assert "cannot be decoded" in kept
        assert parked(system, "discard", of_the_poison, "--reason", "twice").refusal.startswith("nothing is parked")


def parked(system: System, action: str, key: str, *more: str) -> Ended:
    return huanquan(system, "parked", action, "--service", "workflow", "application.received", key, *more)


def parked_keys(system: System) -> list[str]:
    """The keys of `parked list`, each from the line that names it as a command takes it."""
    listed = huanquan(system, "parked", "list", "--service", "workflow")
    assert listed.exit_code == 0, listed.stderr
    return [shlex.split(line)[-1] for line in listed.stdout.splitlines() if line.startswith("--service workflow ")]


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
