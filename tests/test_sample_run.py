"""The sample population on a system of its own: to rest, once more, and through `kill -9`.

What each application must come to stands in the population's file (`expect`). What is paid follows from it alone, for
the sandbox bank only decides when. So every run comes to the same sums, however often something was killed.
"""

import asyncio
import html
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil
import pytest

from deploy.engine import SERVICES
from deploy.local import Addresses
from deploy.operations import remove_home
from deploy.sample.generate import PLACES, anyang
from deploy.sample.lines import expected_states
from deploy.sample.pages import first_page, visitors
from deploy.sample.portal import read_population
from libs.common.auth import TokenIssuer
from libs.common.settings import Settings
from tests.conftest import ROOT, System, environment, free_port, start_system
from tests.steps import named_in

Json = dict[str, Any]
KEYS = {
    "applications",
    "paid_fen",
    "fiscal_settlement_fen",
    "reconciliation_differences",
    "trail",
    "seconds",
    "peak_rss_mb",
}
MEASURED = {"seconds", "peak_rss_mb"}
CITY, COUNTY = "410500", "410522"
BOUND_SECONDS = 300
KILLED_AT = (300, 1500, 3000)
"""Entries of the trail; a whole run has more than four thousand."""
EACH_KILLED_AT = dict(zip(SERVICES, range(400, 3000, 500), strict=False))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of its own; whatever still runs below it is stopped."""
    yield tmp_path / "home"
    remove_home(tmp_path / "home")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, Json]]:
    """Home, port and JSON of one `huanquan demo` that nothing disturbed."""
    home, port = tmp_path_factory.mktemp("whole") / "home", free_port()
    yield home, port, demo(home, port)
    remove_home(home)


def test_the_population_comes_to_rest(whole_run: tuple[Path, int, Json]) -> None:
    home, _, made = whole_run
    assert set(made) == KEYS
    assert made["applications"] == expected_states(read_population())
    assert set(made["paid_fen"]) == set(PLACES)
    assert set(made["fiscal_settlement_fen"]) == set(PLACES) - {CITY}
    for treasury, owed in made["fiscal_settlement_fen"].items():
        assert 0 < owed < made["paid_fen"][treasury]  # it advanced the city's share
    assert made["reconciliation_differences"] == 0
    assert set(made["trail"]) == {"entries", "verified"}
    assert made["trail"]["verified"] is True
    assert all(set(finding) == {"name", "checked", "violations", "first"} for finding in all_holds(home))


def test_the_same_population_again_gives_the_same_answers_and_changes_nothing(
    whole_run: tuple[Path, int, Json],
) -> None:
    home, port, made = whole_run
    again = demo(home, port)
    assert {key: again[key] for key in KEYS - MEASURED} == {key: made[key] for key in KEYS - MEASURED}


@pytest.fixture(scope="module")
def after_the_run(whole_run: tuple[Path, int, Json]) -> Iterator[System]:
    """The system that the run was on, started again on its data."""
    started = start_system(whole_run[0], "--no-sample")
    yield started
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(30) == 0


def pasted(page: str) -> list[str]:
    return [html.unescape(command) for command in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]


def output_of(command: str) -> Any:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout


def test_every_command_of_the_first_page_works_when_pasted(after_the_run: System) -> None:
    system = after_the_run
    commands = pasted(first_page(system.addresses, Settings(home=system.home)))
    answers = dict(zip((visitor.role for visitor in visitors(anyang())), map(output_of, commands), strict=True))
    assert [role for role, answer in answers.items() if "status" in answer and "code" in answer] == []
    assert answers["portal"]["state"] == "accepted"
    assert answers["portal"] == output_of(commands[0])
    assert answers["auditor"]["verified"]
    for role in ("talent", "handler", "treasury", "housing", "window_clerk"):
        assert answers[role]["items"], role


def test_what_a_visitor_filed_is_not_the_fault_of_the_next_demo(
    after_the_run: System, whole_run: tuple[Path, int, Json]
) -> None:
    system = after_the_run
    assert output_of(pasted(first_page(system.addresses, Settings(home=system.home)))[0])["state"] == "accepted"
    again = demo(system.home, system.addresses.port)
    assert again["paid_fen"] == whole_run[2]["paid_fen"]


@contextmanager
def department_at_work(system: System, token: Path, department: str) -> Iterator[None]:
    base = ["--base", system.addresses.of("workflow"), "--token-file", str(token)]
    unit = ["--treasury", COUNTY, "--department", department]
    process = subprocess.Popen([sys.executable, "-m", "deploy.example_department", *base, *unit], cwd=ROOT)
    yield
    process.terminate()
    assert process.wait(10) == 0


def test_the_example_department_works_its_tasks_as_a_process_of_its_own(after_the_run: System, tmp_path: Path) -> None:
    system = after_the_run
    filed = output_of(pasted(first_page(system.addresses, Settings(home=system.home)))[0])
    token = tmp_path / "token"
    token.write_text(system.token("department", org_unit=f"{COUNTY}/education"))
    supervisor = {"Authorization": f"Bearer {system.token('supervisor')}"}
    case = f"{system.addresses.of('workflow')}/workflow/v1/cases/{filed['id']}"
    with department_at_work(system, token, "education"):
        for _ in range(100):
            shown = httpx.get(case, headers=supervisor)
            results = {t["department"]: t["result"] for i in shown.json().get("items", ()) for t in i["tasks"]}
            if results.get("education"):
                break
            time.sleep(0.2)
    assert results["education"] == "passed"
    assert results["public_security"] is None


def test_killed_three_times_the_run_finishes_and_nobody_is_paid_twice(
    home: Path, whole_run: tuple[Path, int, Json]
) -> None:
    addresses = Addresses(free_port(), together=True)
    for entries in KILLED_AT:
        with up(home, addresses) as process:
            wait_for_entries(home, addresses, entries, process)
            process.kill()
    came_to_the_same(demo(home, addresses.port), whole_run[2])
    all_holds(home)


@pytest.mark.rehearsal
@pytest.mark.kafka
@pytest.mark.skipif(not (shutil.which("java") and shutil.which("mvn")), reason="no Kafka: no java and maven")
def test_each_of_five_processes_killed_is_started_again_and_the_run_finishes(
    home: Path, whole_run: tuple[Path, int, Json]
) -> None:
    addresses = Addresses(free_port(), together=False)
    with up(home, addresses, "--kafka", "--no-sample") as supervisor:
        wait_for_entries(home, addresses, 0, supervisor)
        with command(home, "demo", "--port", str(addresses.port), "--json", str(json_of(home))) as driver:
            for service, entries in EACH_KILLED_AT.items():
                wait_for_entries(home, addresses, entries, supervisor, driver)
                process_of(supervisor, service).kill()
            output, _ = driver.communicate(timeout=BOUND_SECONDS)
            assert driver.returncode == 0, output
        came_to_the_same(json.loads(json_of(home).read_text()), whole_run[2])
        all_holds(home)
        certified_as_published(home, addresses)


# -- the system and its commands


@contextmanager
def command(home: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """`huanquan` with arguments on a home of its own; killed where it has not ended."""
    line = [sys.executable, "-m", "deploy.entry", *arguments]
    streams: Json = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, cwd=ROOT, env=environment(home), **streams) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def up(home: Path, addresses: Addresses, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`huanquan up`, killed at the end: what comes next must find its way."""
    line = [sys.executable, "-m", "deploy.entry", "up", "--port", str(addresses.port), *arguments]
    with subprocess.Popen(line, cwd=ROOT, env=environment(home), stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def json_of(home: Path) -> Path:
    return home.with_suffix(".json")


def demo(home: Path, port: int) -> Json:
    """What `huanquan demo --json` writes, having ended well: it exits with 1 where an invariant is violated."""
    with command(home, "demo", "--port", str(port), "--json", str(json_of(home))) as process:
        output, _ = process.communicate(timeout=BOUND_SECONDS)
    assert process.returncode == 0, output
    made: Json = json.loads(json_of(home).read_text())
    return made


def all_holds(home: Path) -> list[Json]:
    """What `huanquan verify --at-rest` finds: every invariant across five databases, none violated."""
    with command(home, "verify", "--at-rest", "--json", str(json_of(home))) as process:
        output, _ = process.communicate(timeout=BOUND_SECONDS)
    findings: list[Json] = json.loads(json_of(home).read_text())
    assert [finding for finding in findings if finding["violations"]] == []
    assert process.returncode == 0, output
    return findings


def came_to_the_same(made: Json, whole: Json) -> None:
    """The sums of a run that was disturbed are those of one that was not."""
    for key in KEYS - MEASURED - {"trail"}:
        assert made[key] == whole[key], key
    assert made["trail"]["verified"] is True


def wait_for_entries(home: Path, addresses: Addresses, least: int, *processes: "subprocess.Popen[Any]") -> None:
    """Wait until the trail has so many entries; whoever is away is asked again, as long as the processes are there."""
    until = time.monotonic() + BOUND_SECONDS
    while _entries(home, addresses) < least:
        for process in processes:
            assert process.poll() is None, f"{process.args!r} ended with {process.returncode}: {_said(process)}"
        assert time.monotonic() < until, f"the trail never came to {least} entries"
        time.sleep(0.1)


def _said(process: "subprocess.Popen[Any]") -> str:
    return repr(process.stdout.read()) if process.stdout else "see its log"


def _entries(home: Path, addresses: Addresses) -> int:
    head = f"{addresses.of('audit')}/audit/v1/anchors/head"
    try:
        token = TokenIssuer(Settings(home=home)).token("auditor")
        answer = httpx.get(head, headers={"Authorization": f"Bearer {token}"}, timeout=5)
    except httpx.TransportError:
        return -1
    return int(answer.json()["seq"]) if answer.is_success else -1


def process_of(supervisor: "subprocess.Popen[bytes]", service: str) -> psutil.Process:
    """The process that serves one service under a supervisor."""
    children = psutil.Process(supervisor.pid).children()
    return next(child for child in children if ["serve", service] == child.cmdline()[3:5])


# -- what a stranger's client reads


def certified_as_published(home: Path, addresses: Addresses) -> None:
    """`talent.certified` holds CloudEvents in binary mode, as AsyncAPI says, and nobody's name or number."""
    document = httpx.get(f"{addresses.of('workflow')}/workflow/asyncapi.json").raise_for_status().json()
    brokers = json.loads((home / "running.json").read_text())["kafka"]
    read = read_by_kcat if shutil.which("kcat") else read_by_aiokafka
    events = read(brokers, "talent.certified")
    assert {headers["ce_type"] for headers, _ in events} == {
        "TalentCertified",
        "BenefitApproved",
        "PayeeAccountChanged",
    }
    for headers, payload in events:
        jsonschema.validate(headers, document["components"]["schemas"]["CloudEventHeaders"])
        schema = {"$ref": f"#/components/schemas/{headers['ce_type']}", "components": document["components"]}
        jsonschema.validate(json.loads(payload), schema)
    assert named_in(events, [line.body for line in read_population()]) == []


def read_by_kcat(brokers: str, topic: str) -> list[tuple[Json, str]]:
    """Headers and payload of every record of a topic, as kcat reads them."""
    line = ["kcat", "-C", "-q", "-e", "-b", brokers, "-t", topic, "-J"]
    read = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout
    records = [json.loads(each) for each in read.splitlines()]
    return [(dict(zip(r["headers"][::2], r["headers"][1::2], strict=True)), r["payload"]) for r in records]


def read_by_aiokafka(brokers: str, topic: str) -> list[tuple[Json, str]]:
    """The same, where kcat is not installed."""

    async def read() -> list[tuple[Json, str]]:
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            records: list[Any] = []
            while len(records) < sum(ends.values()):
                records += [each for batch in (await consumer.getmany(timeout_ms=1000)).values() for each in batch]
        finally:
            await consumer.stop()
        return [({name: value.decode() for name, value in r.headers}, r.value.decode()) for r in records]

    return asyncio.run(read())
