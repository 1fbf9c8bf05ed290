"""How the system is started, kept and stopped, as whoever types the commands sees it."""

import asyncio
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from rich.console import Console

from deploy.demo import _with_where_to_look
from deploy.engine import _backends, _kill
from deploy.forms import brokers
from deploy.local import Addresses, Local
from deploy.operations import remove_home
from deploy.progress import Phases
from deploy.refusals import Refusal
from deploy.sample import client
from deploy.sample.client import Refused, StayedAway, platform
from deploy.sample.run import NotAtRest
from libs.common.auth import TokenIssuer
from libs.common.settings import Settings
from services.intake.api.examples import FILING
from tests.conftest import ROOT, System, environment, free_port, start_system
from tests.steps import case_of, desks_of

SECONDS = 90


def started(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A command at work, what it prints to be read."""
    line = [sys.executable, "-m", "deploy.entry", *arguments]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(line, cwd=ROOT, env=environment(home), text=True, **both)  # type: ignore[call-overload,no-any-return]


def ended(home: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    with started(home, *arguments) as process:
        output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


def until(true: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait until it is true, as long as the process is there."""
    end = time.monotonic() + SECONDS
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)


def reads(process: "subprocess.Popen[str]", start: str) -> None:
    """Read what it prints up to the line that starts so."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"it ended without {start!r}")


def nothing_runs_on(home: Path) -> bool:
    local = Local(home)
    return not (local.is_held() or _backends(local.postgres.folder) or brokers(local))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of its own, whose name is not of the easy ones; whatever still runs on it is stopped."""
    yield tmp_path / "洹泉 home"
    remove_home(tmp_path / "洹泉 home")


@contextmanager
def running(home: Path) -> Iterator[System]:
    system = start_system(home, "--no-sample")
    try:
        yield system
    finally:
        system.process.kill()
        system.process.wait()


# -- kept


def test_an_engine_that_was_killed_is_started_again_and_work_goes_on(home: Path) -> None:
    with running(home) as system:
        application = asyncio.run(file_one(system))
        _kill(_backends(Local(home).postgres.folder))
        assert asyncio.run(file_one(system)) == application
        assert asyncio.run(case_opened(system, application))
        assert system.process.poll() is None
        assert '"engine": "PostgreSQL"' in Local(home).log.read_text()


async def file_one(system: System) -> str:
    """File an application, asking until it is answered; the same again is answered as the first time."""
    async with desks_of(system) as at:
        return str((await at.desk("portal").post("/intake/v1/applications", FILING, key="kept"))["id"])


async def case_opened(system: System, application: str) -> object:
    async with desks_of(system) as at:
        return await case_of(at, application)


@pytest.mark.kafka
@pytest.mark.skipif(not (shutil.which("java") and shutil.which("mvn")), reason="no Kafka: no java and maven")
def test_a_broker_of_our_own_that_was_killed_is_started_again_and_stops_with_the_system(home: Path) -> None:
    addresses = Addresses(free_port(), together=False)
    local = Local(home)
    with started(home, "up", "--kafka", "--no-sample", "--port", str(addresses.port)) as process:
        reads(process, "Kafka: ")
        (broker,) = brokers(local)
        broker.kill()
        until(lambda: brokers(local) not in ([], [broker]) and all_ready(addresses), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, nothing_runs_on(home)) == (0, True), output


def all_ready(addresses: Addresses) -> bool:
    try:
        return all(httpx.get(f"{addresses.of(service)}/{service}/readyz").is_success for service in ("intake", "audit"))
    except httpx.TransportError:
        return False


# -- stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_once_or_twice_it_leaves_nothing_running(home: Path, number: signal.Signals) -> None:
    with started(home, "up", "--no-sample", "--port", str(free_port())) as process:
        reads(process, "pages: ")
        process.send_signal(number)
        time.sleep(0.3)
        process.send_signal(number)
        output, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, nothing_runs_on(home)) == (0, True), output


def test_asked_to_stop_while_it_starts_it_says_so_and_leaves_nothing_running(home: Path) -> None:
    with started(home, "up", "--no-sample", "--port", str(free_port())) as process:
        until((home / "pg").exists)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode in {2, 130}, output
    assert "Traceback" not in output
    assert nothing_runs_on(home)


# -- a demo on a system that runs already


def test_a_demo_names_the_home_where_another_system_answers(home: Path, tmp_path: Path) -> None:
    with running(home) as system:
        other = tmp_path / "other"
        code, output = ended(other, "demo", "--port", str(system.addresses.port))
        assert (code, output.count("\n")) == (2, 1)
        assert output.startswith(f"what answers at port {system.addresses.port} does not run on {other}: ")
        assert "HUANQUAN_HOME" in output
        assert not other.exists()


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (Refused(401, {"code": "unauthorized"}), r"does not know the tokens of .*: name its home in HUANQUAN_HOME$"),
        (NotAtRest("3 applications"), r"^the sample run failed: 3 applications; see .*log and `huanquan parked list`$"),
    ],
)
def test_a_run_that_fails_says_in_one_line_where_to_look(refused: Refusal, said: str, tmp_path: Path) -> None:
    assert re.search(said, str(_with_where_to_look(refused, Local(tmp_path), Addresses(8000, together=True))))


def test_an_interrupted_demo_leaves_the_system_that_it_found(home: Path) -> None:
    with running(home) as system:
        with started(home, "demo", "--port", str(system.addresses.port)) as process:
            reads(process, "filings")
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=SECONDS)
        assert (process.returncode, "Traceback" in output) == (130, False), output
        assert httpx.get(f"{system.addresses.of('intake')}/readyz").is_success


# -- removed


def test_clean_stops_who_runs_on_the_home_and_removes_it(home: Path) -> None:
    with running(home) as system:
        assert ended(home, "clean") == (0, "")
        assert system.process.wait(SECONDS) == 0
        assert not home.exists()
    assert not _backends(Local(home).postgres.folder)


def test_clean_stops_what_a_killed_system_left(home: Path) -> None:
    with running(home) as system:
        system.process.kill()
        system.process.wait()
        assert Local(home).postgres.is_up
        assert ended(home, "clean") == (0, "")
    assert not home.exists()
    assert not _backends(Local(home).postgres.folder)


def test_clean_refuses_a_folder_that_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "pg").mkdir()
    with pytest.raises(Refusal, match="is not a home of Huanquan: nothing was removed"):
        remove_home(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "pg"}


def test_clean_leaves_what_somebody_else_put_into_a_home(tmp_path: Path) -> None:
    local = Local(tmp_path)
    local.claim("together")
    local.release()
    (tmp_path / "thesis.txt").write_text("years of work")
    remove_home(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_clean_says_nothing_where_there_is_no_home(tmp_path: Path) -> None:
    assert ended(tmp_path / "none", "clean") == (0, "")


def test_who_took_the_lock_is_known_only_as_long_as_it_is_held(tmp_path: Path) -> None:
    local = Local(tmp_path)
    local.claim("together")
    assert local.holder() == psutil.Process()
    local.release()
    assert (local.is_held(), local.holder()) == (False, None)


# -- told


def test_each_phase_is_told_as_it_goes_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    with Phases(Console(file=file)) as report:
        for done in (1, 2, 2):
            report("filings answered", done, 2)
        report("grants paid or let", 0, 1)
    assert file.getvalue().splitlines() == ["filings answered …", "filings answered: 2 of 2", "grants paid or let …"]


async def test_who_stays_away_is_named_with_what_came_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.5)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        addresses = Addresses(nobody.getsockname()[1], together=True)
        async with platform(addresses, TokenIssuer(Settings(home=tmp_path))) as at:
            with pytest.raises(StayedAway, match=r"^GET http://.*/audit/v1/trail was not answered .*ConnectError$"):
                await at.desk("auditor").get("/audit/v1/trail")
