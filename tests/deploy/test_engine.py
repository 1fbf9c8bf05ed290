"""The embedded engine: under any name of its folder, found again, and started again after it was killed."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.engine import EmbeddedPostgres, _backends, _kill, _until
from deploy.keeper import DEATHS, keep
from deploy.refusals import NotStarted
from libs.common.db import connect

MakeEngine = Callable[[Path], EmbeddedPostgres]
NAMES = ("with a blank", "安阳", "$HOME; `id` & 'quoted'", "very-long-" * 12)


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Starts an engine in a folder; stops it at the end."""
    made: list[EmbeddedPostgres] = []

    def make(folder: Path) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(folder))
        made[-1].start()
        return made[-1]

    yield make
    for engine in made:
        engine.stop()
        engine.forget()


async def answer_of(engine: EmbeddedPostgres, question: str) -> object:
    connection = await connect(engine.url("postgres"))
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", NAMES)
async def test_it_serves_whatever_its_folder_is_called(name: str, tmp_path: Path, make_engine: MakeEngine) -> None:
    engine = make_engine(tmp_path / name / "pg")
    assert await answer_of(engine, "SELECT 1") == 1
    assert await answer_of(EmbeddedPostgres(tmp_path / name / "pg"), "SELECT 2") == 2  # as another process finds it
    engine.stop()
    assert (engine.postmaster, _backends(engine.folder)) == (None, [])


async def test_killed_with_all_its_children_it_starts_again_on_its_data(
    tmp_path: Path, make_engine: MakeEngine
) -> None:
    engine = make_engine(tmp_path / "pg")
    await answer_of(engine, "CREATE TABLE kept AS SELECT 7 AS n")
    for killed in (_backends(engine.folder), [engine.postmaster]):  # all of it; then the postmaster alone
        _kill(process for process in killed if process)
        _until(lambda: not engine.is_up, 10)
        engine.start()
        assert await answer_of(engine, "SELECT n FROM kept") == 7


async def test_a_process_id_that_is_somebody_elses_by_now_does_not_stop_it(
    tmp_path: Path, make_engine: MakeEngine
) -> None:
    """As after the power has failed, or in a container started anew: low numbers come again."""
    engine = make_engine(tmp_path / "pg")
    left = (engine.folder / "postmaster.pid").read_text()
    engine.stop()
    (engine.folder / "postmaster.pid").write_text(left.replace(left.split("\n", 1)[0], str(os.getppid()), 1))
    assert not engine.is_up
    engine.start()
    assert await answer_of(engine, "SELECT 1") == 1
    assert psutil.pid_exists(os.getppid())


async def test_an_engine_that_cannot_start_says_why_in_one_line(tmp_path: Path, make_engine: MakeEngine) -> None:
    engine = make_engine(tmp_path / "pg")
    engine.stop()
    (engine.folder / "postgresql.conf").write_text("shared_buffers = nonsense\n")
    with pytest.raises(NotStarted, match=r"^PostgreSQL did not start on .*/pg: .*FATAL: .*$") as refused:
        engine.start()
    assert "\n" not in str(refused.value)


async def test_an_engine_that_a_busy_machine_starts_late_is_waited_for(
    tmp_path: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tmp_path / "pg")
    engine.stop()
    start, late = engine._run, iter([True, True, False])

    def starts_late() -> None:
        if next(late):
            raise subprocess.TimeoutExpired("pg_ctl", 10)
        start()

    monkeypatch.setattr(engine, "_run", starts_late)
    engine.start()
    assert await answer_of(engine, "SELECT 1") == 1


async def test_what_does_not_stay_up_is_given_up_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.keeper.LOOK_SECONDS", 0)
    starts: list[int] = []

    async def start() -> None:
        starts.append(1)
        if len(starts) % 2:
            raise NotStarted("no room on the disk")

    with pytest.raises(NotStarted, match=f"^the engine died {DEATHS} times"):
        await asyncio.wait_for(keep("the engine", alive=lambda: False, start=start), 10)
    assert len(starts) == DEATHS - 1


def test_it_is_stopped_even_while_it_is_paused(tmp_path: Path, make_engine: MakeEngine) -> None:
    engine = make_engine(tmp_path / "pg")
    assert engine.postmaster
    engine.postmaster.send_signal(signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("deploy.engine.STOP_SECONDS", 1.0)
        engine.stop()
    assert not engine.is_up
