"""The example department against a platform that fails as real ones do."""

import ast
import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from deploy.example_department import department as program
from deploy.example_department.department import Department, Platform, Result, Unusable, token_source

Json = dict[str, Any]
UNIT = {"treasury": "410522", "department": "education"}


@dataclass
class FakePlatform:
    """Workflow and intake as one department sees them. `troubles` are what the next calls of an address meet first."""

    tasks: dict[str, Json] = field(default_factory=dict)
    materials: dict[str, list[Json]] = field(default_factory=dict)
    results: dict[str, Json] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    asked_after: list[str | None] = field(default_factory=list)
    troubles: dict[str, list[Callable[[], httpx.Response]]] = field(default_factory=dict)
    fed: asyncio.Event = field(default_factory=asyncio.Event)

    def assign(self, name: str, *, state: str = "open", reference: str = "SL-1") -> Json:
        self.tasks[name] = {
            "id": name,
            "state": state,
            "treasury": "410522",
            "department": "education",
            "materials": f"/intake/v1/applications/of-{name}/materials",
            "required_materials": [{"code": "degree_certificate", "title": "学历学位证书"}],
        }
        self.materials[f"of-{name}"] = [
            {"code": "degree_certificate", "evidence": "electronic_licence", "reference": reference}
        ]
        return self.tasks[name]

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer token"
        path = request.url.path
        waiting = self.troubles.get(path)
        if path.endswith("tasks:complete"):
            return self.complete(request, waiting)
        if waiting:
            return waiting.pop(0)()
        if path.endswith("tasks:poll"):
            return await self.poll(request)
        if path.endswith("/materials"):
            return httpx.Response(200, json={"items": self.materials[path.split("/")[4]]})
        task = self.tasks.get(path.rsplit("/", 1)[1])
        return httpx.Response(200, json=task) if task else httpx.Response(404, json={"code": "not-found"})

    async def poll(self, request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("after")
        self.asked_after.append(after)
        heard = [task for task in self.tasks.values() if task["state"] == "open"]
        if not heard:
            self.fed.set()
            await asyncio.sleep(60)
        return httpx.Response(200, json={"tasks": heard, "next": f"position-{len(self.asked_after)}"})

    def complete(self, request: httpx.Request, waiting: list[Callable[[], httpx.Response]] | None) -> httpx.Response:
        """Takes the results, and only then meets with trouble: the answer is lost, the effect is not."""
        self.keys.append(request.headers["Idempotency-Key"])
        lines = []
        for line in json.loads(request.content)["tasks"]:
            task = self.tasks[line["task"]]
            lines.append({"id": line["task"], "status": 200 if task["state"] == "open" else 409, "problem": None})
            if task["state"] == "open":
                task["state"] = "completed"
                self.results[line["task"]] = line
        if waiting:
            return waiting.pop(0)()
        return httpx.Response(200, json={"lines": lines})


def unavailable() -> httpx.Response:
    return httpx.Response(503)


def lost() -> httpx.Response:
    raise httpx.ReadError("connection reset")


def unknown() -> httpx.Response:
    return httpx.Response(404, json={"code": "not-found"})


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    monkeypatch.setattr(program, "FIRST_PAUSE", 0.001)
    return FakePlatform()


@pytest.fixture
def stop() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def department(platform: FakePlatform, stop: asyncio.Event) -> AsyncIterator[Department]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(platform.answer)) as http:
        base = "http://platform"
        yield Department(Platform(http, lambda: "token", workflow=base, intake=base, stop=stop))


async def until_fed(department: Department, platform: FakePlatform, stop: asyncio.Event) -> None:
    following = asyncio.create_task(department.follow_poll(**UNIT))
    async with asyncio.timeout(10):
        await platform.fed.wait()
        stop.set()
        await following


async def test_every_open_task_gets_its_result_and_the_program_stops_when_asked(
    department: Department, platform: FakePlatform, stop: asyncio.Event
) -> None:
    for name in ("t1", "t2", "t3"):
        platform.assign(name)
    await until_fed(department, platform, stop)
    assert {line["result"] for line in platform.results.values()} == {"passed"}
    assert platform.asked_after == [None, "position-1"]


async def test_a_licence_in_no_register_fails_with_its_reason_in_chinese(
    department: Department, platform: FakePlatform
) -> None:
    await department.work([platform.assign("t1", reference="作废-SL-1"), platform.assign("t2")])
    assert platform.results["t1"]["result"] == "failed"
    assert "学历学位证书" in platform.results["t1"]["reason"]
    assert platform.results["t2"]["result"] == "passed"


async def test_a_lost_answer_is_asked_for_again_under_the_same_key_and_counts_once(
    department: Department, platform: FakePlatform
) -> None:
    platform.troubles["/workflow/v1/tasks:complete"] = [lost, unavailable]
    await department.work([platform.assign("t1")])
    assert len(platform.keys) == 3
    assert len(set(platform.keys)) == 1
    assert platform.results["t1"]["result"] == "passed"


async def test_a_platform_that_is_away_is_waited_for(department: Department, platform: FakePlatform) -> None:
    troubles = [unavailable, lost, lambda: httpx.Response(429)]
    platform.troubles["/intake/v1/applications/of-t1/materials"] = troubles
    await department.work([platform.assign("t1")])
    assert "t1" in platform.results


async def test_materials_that_intake_does_not_yet_show_are_asked_for_again(
    department: Department, platform: FakePlatform
) -> None:
    platform.troubles["/intake/v1/applications/of-t1/materials"] = [unknown, unknown]
    await department.work([platform.assign("t1"), platform.assign("t2")])
    assert set(platform.results) == {"t1", "t2"}


async def test_tasks_of_others_and_tasks_that_are_not_open_are_left_alone(
    department: Department, platform: FakePlatform
) -> None:
    done, stopped = platform.assign("t1", state="completed"), platform.assign("t2", state="suspended")
    await department.work([None, done, stopped])
    assert platform.keys == []


async def test_a_task_that_is_taken_back_while_its_materials_are_not_shown_is_let_go(
    department: Department, platform: FakePlatform
) -> None:
    task = platform.assign("t1")
    platform.tasks["t1"] = task | {"state": "cancelled"}
    platform.troubles["/intake/v1/applications/of-t1/materials"] = [unknown]
    await department.work([task])
    assert platform.keys == []


async def test_a_stopped_program_leaves_off_in_the_middle_of_its_pauses(
    department: Department, platform: FakePlatform, stop: asyncio.Event
) -> None:
    platform.assign("t1")
    platform.troubles["/intake/v1/applications/of-t1/materials"] = [lost] * 1000
    following = asyncio.create_task(department.follow_poll(**UNIT))
    await asyncio.sleep(0.02)
    stop.set()
    async with asyncio.timeout(2):
        await following
    assert platform.results == {}


async def test_a_token_of_another_unit_is_told_and_none_of_its_tasks_is_worked(
    department: Department, platform: FakePlatform
) -> None:
    platform.assign("t1")
    with pytest.raises(Unusable, match="the token is that of 410522/education, and not of 410522/tax"):
        await department.follow_poll(treasury="410522", department="tax")
    assert platform.results == {}


async def test_a_token_file_that_is_being_replaced_is_read_again(
    platform: FakePlatform, stop: asyncio.Event, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    contents = iter(["", "token"])

    def token() -> str:
        file.write_text(next(contents, "token"))
        return token_source(file)()

    async with httpx.AsyncClient(transport=httpx.MockTransport(platform.answer)) as http:
        at = Platform(http, token, workflow="http://p", intake="http://p", stop=stop)
        await Department(at).work([platform.assign("t1")])
    assert "t1" in platform.results


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"--token-file": "nowhere"}, "department: nowhere cannot be read: No such file or directory"),
        ({"--token-file": "empty"}, "department: empty is empty"),
        ({}, "department: there is no token: name its file with --token-file, or set DEPARTMENT_TOKEN"),
        (
            {
                "--token-file": "token",
                "--kafka": "127.0.0.1:1",
                "--kafka-user": "u",
                "--kafka-password-file": "nowhere",
            },
            "department: nowhere cannot be read: No such file or directory",
        ),
        (
            {"--token-file": "token", "--kafka": "127.0.0.1:1", "--kafka-user": "u"},
            "department.py: error: --kafka-user needs --kafka-password-file",
        ),
    ],
)
def test_what_it_cannot_be_started_with_is_told_in_one_line(given: dict[str, str], says: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "token").write_text("token\n")
    options = [each for option in ({"--treasury": "410522", "--department": "tax"} | given).items() for each in option]
    environment = {name: value for name, value in os.environ.items() if name != "DEPARTMENT_TOKEN"}
    started = [sys.executable, program.__file__, *options]
    ended = subprocess.run(started, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (ended.returncode != 0, ended.stderr.splitlines()[-1]) == (True, says)
    assert "Traceback" not in ended.stderr


class FakeConsumer:
    """A Kafka consumer with one batch, which stops the program when it is asked for more."""

    def __init__(self, platform: FakePlatform, stop: asyncio.Event, values: list[bytes]) -> None:
        self.platform = platform
        self.stop = stop
        self.messages = [SimpleNamespace(value=v, partition=0, offset=n) for n, v in enumerate(values)]
        self.committed_after: set[str] | None = None

    async def getmany(self, **_: Any) -> dict[str, list[Any]]:
        if self.committed_after is not None:
            self.stop.set()
            await asyncio.sleep(60)
        return {"dept.assigned-0": self.messages}

    async def commit(self) -> None:
        self.committed_after = set(self.platform.results)


def assigned(task: str, department: str = "education") -> bytes:
    return json.dumps({"task": task, "treasury": "410522", "department": department}).encode()


async def test_offsets_are_committed_only_after_the_results_are_accepted(
    department: Department, platform: FakePlatform, stop: asyncio.Event
) -> None:
    platform.assign("t1")
    platform.assign("t2")
    platform.troubles["/workflow/v1/tasks:complete"] = [lost]
    theirs, gone = assigned("theirs", "tax"), assigned("not shown to us")
    values = [assigned("t1"), b"not json", b"[]", theirs, gone, assigned("t2"), assigned("t1")]
    consumer = FakeConsumer(platform, stop, values)
    async with asyncio.timeout(10):
        await department.follow_kafka(consumer, **UNIT)
    assert consumer.committed_after == {"t1", "t2"}


async def test_a_rule_of_ones_own_takes_the_place_of_the_example(platform: FakePlatform, stop: asyncio.Event) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(platform.answer)) as http:
        at = Platform(http, lambda: "token", workflow="http://p", intake="http://p", stop=stop)
        strict = Department(at, lambda _task, _materials: Result(passed=False, reason="样本规则"))
        await strict.work([platform.assign("t1")])
    assert platform.results["t1"]["reason"] == "样本规则"


def test_it_imports_nothing_but_httpx_and_aiokafka() -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(program.__file__).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"httpx", "aiokafka"}


def test_it_starts_from_this_repository_and_as_the_one_file_that_a_department_copies(tmp_path: Path) -> None:
    copy = shutil.copy(Path(program.__file__), tmp_path)
    for started in (["-I", copy], ["-m", "deploy.example_department"]):
        told = subprocess.run([sys.executable, *started, "--help"], capture_output=True, text=True, check=True)
        assert "--treasury" in told.stdout


def test_the_readme_names_the_libraries_that_the_program_is_tested_with() -> None:
    readme = Path(program.__file__).with_name("README.md").read_text()
    for library in ("httpx", "aiokafka"):
        assert f"{library}=={version(library)}" in readme
