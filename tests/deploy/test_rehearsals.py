"""Rehearsals of what must not go wrong on the day: longer than other tests, run by `tests/run --rehearsals`."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.engine import DATABASES, SERVICES, EmbeddedPostgres
from deploy.forms import CLUSTER, answering
from deploy.local import PARTITIONS, Addresses, Local, metadata_of
from deploy.operations import remove_home
from libs.common.auth import TokenIssuer
from libs.common.bus.postgres import create_schema
from libs.common.events import TOPICS
from libs.common.migration import upgrade
from libs.common.settings import Settings
from services.audit.anchors import anchors_file
from tests.conftest import ROOT, environment, free_port
from tests.deploy.conftest import folder_of_our_own
from tests.deploy.test_cli import command
from tests.intake.builders import a_filing

pytestmark = pytest.mark.rehearsal

Json = dict[str, Any]
PATIENCE_SECONDS = 60


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_of_our_own() as folder:
        yield folder


class Office:
    """A portal's and a supervisor's view of a system."""

    def __init__(self, addresses: Addresses, home: Path) -> None:
        self._addresses = addresses
        issuer = TokenIssuer(Settings(home=home))
        self._tokens = {role: issuer.token(role) for role in ("portal", "supervisor")}

    def ask(self, method: str, path: str, role: str = "supervisor", **more: Any) -> httpx.Response:
        address = self._addresses.of(path.split("/")[1]) + path
        headers = {"Authorization": f"Bearer {self._tokens[role]}", "Idempotency-Key": os.urandom(8).hex()}
        return httpx.request(method, address, headers=headers, timeout=30, **more)

    def file(self) -> httpx.Response:
        return self.ask("POST", "/intake/v1/applications", "portal", json=a_filing())

    def filed(self) -> str:
        answer = self.file()
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def has(self, application: str, service: str = "intake") -> bool:
        kind = {"intake": "applications", "workflow": "cases"}[service]
        return self.ask("GET", f"/{service}/v1/{kind}/{application}").status_code == 200

    def opened(self, application: str) -> str:
        """Wait until its case was opened."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not self.has(application, "workflow"):
            assert time.monotonic() < until, f"no case of {application}"
            time.sleep(0.1)
        return application


@contextmanager
def process(line: list[str], around: Mapping[str, str], tree: Path = ROOT) -> Iterator["subprocess.Popen[bytes]"]:
    """`huanquan` of a tree, asked to stop at the end, and it does."""
    whole = [sys.executable, "-m", "deploy.entry", *line]
    with subprocess.Popen(whole, cwd=tree, env=around, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        try:
            yield started
        finally:
            started.send_signal(signal.SIGINT)
            try:
                started.wait(60)
            finally:
                started.kill()


def violated(home: Path, **variables: str) -> list[Json]:
    """What `huanquan verify` finds violated."""
    ended = command(home, "verify", "--json", "-", **variables)
    return [each for each in json.loads(ended.stdout) if each["violations"]]


# -- several clusters


class Clusters:
    """A deployment on two clusters, as the environment describes it: finance has one of its own."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.home = home
        self.first, self.second = EmbeddedPostgres(folder / "first"), EmbeddedPostgres(folder / "second")

    def start(self) -> None:
        for engine in (self.first, self.second):
            engine.start()

    def stop(self) -> None:
        for engine in (self.first, self.second):
            engine.stop()

    def of(self, database: str) -> EmbeddedPostgres:
        return self.second if database == "finance" else self.first

    def prepare(self) -> None:
        for engine in (self.first, self.second):
            asyncio.run(engine.provision([name for name in DATABASES if self.of(name) is engine]))
        for service in SERVICES:
            upgrade(service, self.of(service).owner_url(service), metadata_of(service))
        asyncio.run(
            create_schema(self.first.owner_url("bus"), topics=TOPICS, partitions=PARTITIONS, app_role="bus_app")
        )

    def variables(self, addresses: Addresses) -> dict[str, str]:
        made = Local(self.home).environment(addresses)
        made |= {f"HUANQUAN_{name.upper()}_DATABASE_URL": self.of(name).app_url(name) for name in SERVICES}
        clusters = [engine.url("postgres") for engine in (self.first, self.second)]
        return made | {"HUANQUAN_BUS_URL": self.first.app_url("bus"), "HUANQUAN_BACKUP_URL": ",".join(clusters)}


def test_on_two_clusters_the_edges_close_everything_drains_and_the_copies_fit_together(tmp_path: Path) -> None:
    addresses, home, archive = Addresses(free_port(), together=True), tmp_path / "home", str(tmp_path / "archive")
    home.mkdir()
    clusters, restored = Clusters(tmp_path / "here", home), Clusters(tmp_path / "there", home)
    with ExitStack() as stack:
        for each in (clusters, restored):
            stack.callback(each.stop)
        clusters.start()
        clusters.prepare()
        variables = clusters.variables(addresses)
        with process(["serve", "--port", str(addresses.port)], {**environment(home), **variables}):
            asyncio.run(answering(addresses))
            office = Office(addresses, home)
            kept = [office.filed() for _ in range(5)]
            one = {"HUANQUAN_BACKUP_URL": clusters.first.url("postgres")}
            unnamed = command(home, "backup", "take", archive, **variables | one).refusal
            assert "the database of finance is on a cluster that HUANQUAN_BACKUP_URL does not name" in unnamed
            anchors = anchors_file(home)
            covered = anchors.read_text() if anchors.exists() else ""
            line = [sys.executable, "-m", "deploy.entry", "backup", "take", archive]
            with subprocess.Popen(line, cwd=ROOT, env={**environment(home), **variables}) as taking:
                answers = []
                while taking.poll() is None:
                    answers.append(office.file())
            assert taking.returncode == 0
            closed = [answer for answer in answers if answer.status_code == 503]
            assert closed
            assert {answer.headers["retry-after"] for answer in closed} == {"5"}
            time.sleep(2)
            office.filed()  # open again
        for database, engine in (("intake", restored.first), ("finance", restored.second)):
            laid = command(home, "restore", archive, "--data", str(engine.folder), "--database", database)
            assert laid.exit_code == 0, laid
            engine.adopt()
        if anchors.exists():  # one written since tells of entries that the copy has not: the auditor begins a new file
            anchors.write_text(covered)
        restored.start()
        variables = restored.variables(addresses)
        with process(["serve", "--port", str(addresses.port)], {**environment(home), **variables}):
            asyncio.run(answering(addresses))
            before = [answer.json()["id"] for answer in answers[: answers.index(closed[0])]]
            for application in [*kept, *before]:
                assert office.has(application)
                assert office.has(application, "workflow")
        assert violated(home, **variables) == []


# -- Kafka


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A Kafka of the test's own; wiped at the end."""
    around = {**environment(folder), "KAFKA_HOME": str(folder)}
    up = subprocess.run([CLUSTER, "up", "1"], env=around, stdout=subprocess.PIPE, check=True, timeout=180)
    try:
        yield up.stdout.decode().strip()
    finally:
        subprocess.run([CLUSTER, "wipe"], env=around, check=True, timeout=60)


@contextmanager
def apart(home: Path, kafka: str) -> Iterator[Office]:
    addresses = Addresses(free_port(), together=False)
    line = ["up", "--kafka", "--no-sample", "--brokers", kafka, "--port", str(addresses.port)]
    with process(line, environment(home)):
        asyncio.run(answering(addresses))
        yield Office(addresses, home)


def refusal_of_up(home: Path, kafka: str) -> str:
    line = [sys.executable, "-m", "deploy.entry", "up", "--kafka", "--no-sample", "--brokers", kafka]
    around = environment(home) | {"PORT": str(free_port())}
    ended = subprocess.run(line, cwd=ROOT, env=around, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended
    return ended.stderr


def bus_diff(home: Path, kafka: str, *more: str) -> tuple[int, list[Json]]:
    ended = command(home, "bus-diff", "--kafka", kafka, *more)
    assert ended.exit_code in (0, 1), ended
    return ended.exit_code, [json.loads(line) for line in ended.stdout.splitlines()]


def applications(listed: Iterable[Mapping[str, str]]) -> set[str]:
    """The applications whose events are listed; beside them stand the employers of whom something was told."""
    return {each["key"] for each in listed if each["type"] != "EmployerAffiliated"}


@pytest.mark.kafka
@pytest.mark.skipif(not (shutil.which("java") and shutil.which("mvn")), reason="no Kafka: no java and maven")
def test_from_a_copy_alone_what_kafka_knows_is_listed_by_key_and_a_kafka_that_is_lost_gets_everything_again(
    tmp_path: Path,
) -> None:
    home, archive = tmp_path / "home", str(tmp_path / "archive")
    again = tmp_path / "restored"
    try:
        with broker(tmp_path / "kafka") as kafka:
            with apart(home, kafka) as office:
                early = office.opened(office.filed())
                taken = command(home, "backup", "take", archive)
                assert taken.exit_code == 0, taken
                late = office.opened(office.filed())
            restored = command(again, "restore", archive, "--keys", str(home))
            assert restored.exit_code == 0, restored
            assert "its bus lies elsewhere" in restored.stdout
            assert "`huanquan bus-diff --mend` sets it right" in refusal_of_up(again, kafka)
            found, unknown = bus_diff(again, kafka)
            assert (found, applications(unknown)) == (1, {late})
            assert {each["what"] for each in unknown} == {"unknown"}
            assert "ApplicationAccepted" in {each["type"] for each in unknown}
            assert bus_diff(again, kafka, "--mend") == (0, unknown)
            assert bus_diff(again, kafka) == (0, [])
            with apart(again, kafka) as office:
                middle = office.opened(office.filed())
                assert office.has(early)
                assert not office.has(late)
                assert not office.has(late, "workflow")
                assert violated(again) == []
        with broker(tmp_path / "new") as kafka:  # and now Kafka is lost
            found, lost = bus_diff(again, kafka, "--mend")
            assert found == 0
            assert applications(each for each in lost if each["what"] == "lost") == {early, middle}
            assert "ahead" in {each["what"] for each in lost}
            with apart(again, kafka) as office:
                office.opened(office.filed())
                assert violated(again) == []
            assert bus_diff(again, kafka) == (0, [])
    finally:
        for each in (home, again):
            remove_home(each)


# -- a migration under load


MIGRATION = """from alembic import op

revision, down_revision, branch_labels, depends_on = "{revision}", "{revises}", None, None


def upgrade() -> None:
    {what}
"""
COLUMN = 'op.execute("ALTER TABLE {table} ADD COLUMN rehearsed text")'
INDEX = 'from libs.common.migration import create_index_online as make; make("ix_rehearsed", "{table}", ["rehearsed"])'
CHANGED = {"intake": "application", "workflow": "cases", "finance": "payout_order", "audit": "entry"}


def newer_tree(folder: Path) -> Path:
    """A copy of the code with one more column and index in four services, and models that know them."""
    for room in ("libs", "services", "deploy"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for service, table in CHANGED.items():
        versions = folder / "services" / service / "migrations" / "versions"
        newest = max(file.name[:4] for file in versions.glob("[0-9]*.py"))
        for revision, revises, what in (("9998", newest, COLUMN), ("9999", "9998", INDEX)):
            written = MIGRATION.format(revision=revision, revises=revises, what=what.format(table=table))
            (versions / f"{revision}_rehearsed.py").write_text(written)
        with (folder / "services" / service / "models.py").open("a") as models:
            models.write(f'\nmetadata.tables["{table}"].append_column(Column("rehearsed", Text))\n')
    return folder


class Load:
    """Clients that file without a pause, at whichever processes are there; what they are answered is counted."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.offices: list[Office] = []
        self.filed: list[str] = []
        self.refused: list[str] = []
        self.stopping = False

    def run(self) -> None:
        turn = 0
        while not self.stopping:
            turn += 1
            answer = self.offices[turn % len(self.offices)].file()
            if answer.status_code == 201:
                self.filed.append(answer.json()["id"])
            else:
                self.refused.append(answer.text)

    def more(self, count: int) -> None:
        """Wait for so many more answers."""
        until, wanted = time.monotonic() + PATIENCE_SECONDS, len(self.filed) + count
        while len(self.filed) < wanted and not self.refused:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_old_and_new_processes_work_side_by_side_while_the_schema_changes_under_load(tmp_path: Path) -> None:
    home, tree = tmp_path / "home", newer_tree(tmp_path / "newer")
    old, new = Addresses(free_port(), together=True), Addresses(free_port(), together=True)
    local, load = Local(home), Load(home)
    asyncio.run(local.prepare())
    serve = ("serve", "--port")
    around = environment(home) | local.environment(old)
    try:
        with ExitStack() as stack:
            stopped = stack.enter_context(ExitStack())
            stopped.enter_context(process([*serve, str(old.port)], around))
            asyncio.run(answering(old))
            pool = stack.enter_context(ThreadPoolExecutor(3))
            stack.callback(setattr, load, "stopping", True)
            load.offices = [Office(old, home)]
            runs = [pool.submit(load.run) for _ in range(3)]
            load.more(20)
            migrate = [sys.executable, "-m", "deploy.entry", "migrate"]
            both = around | {"HUANQUAN_BUS_MIGRATION_URL": local.postgres.owner_url("bus")}
            together = [subprocess.Popen(migrate, cwd=tree, env=both, stdout=subprocess.DEVNULL) for _ in range(2)]
            assert [each.wait(60) for each in together] == [0, 0]
            load.more(20)
            stack.enter_context(process([*serve, str(new.port)], around | {"HUANQUAN_INSTANCE": "new"}, tree))
            asyncio.run(answering(new))
            load.offices = [Office(old, home), Office(new, home)]
            load.more(20)
            load.offices = load.offices[1:]
            time.sleep(1)
            stopped.close()
            load.more(20)
            load.stopping = True
            for run in runs:
                run.result()
            assert load.refused == []
            for application in load.filed:
                load.offices[0].opened(application)
        assert violated(home) == []
    finally:
        local.postgres.stop()
        remove_home(home)
