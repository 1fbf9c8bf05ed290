"""A system that is asked to stop does so, whoever waits for news of it."""

import asyncio
import json
import signal
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests.conftest import System, start_system

POLLS_OF_A_KIND = 30
SECONDS = 3.0  # of the services; the engine's own stop, which no poll holds up, depends on the machine


async def stopped_while_polled(system: System) -> tuple[datetime, list[httpx.Response]]:
    """Ask it to stop while long polls are open; gives the moment of asking, and what the polls were answered."""
    department = {"Authorization": f"Bearer {system.token('department', org_unit='410522/education')}"}
    portal = {"Authorization": f"Bearer {system.token('portal')}"}
    tasks, changes = (system.addresses.of(name) + f"/{name}/v1" for name in ("workflow", "intake"))
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        polls = [
            asyncio.create_task(client.get(address, headers=headers))
            for address, headers in (
                (f"{tasks}/tasks:poll?wait=30", department),
                (f"{changes}/changes?wait=30", portal),
            )
            for _ in range(POLLS_OF_A_KIND)
        ]
        await asyncio.sleep(2)
        assert not any(poll.done() for poll in polls)
        asked_at = datetime.now(UTC)
        system.process.send_signal(signal.SIGINT)
        await asyncio.to_thread(system.process.wait, 30)
        return asked_at, await asyncio.gather(*polls)


def test_open_long_polls_are_answered_and_do_not_keep_a_stopping_system(tmp_path: Path) -> None:
    system = start_system(tmp_path / "home", "--no-sample")
    asked_at, answers = asyncio.run(stopped_while_polled(system))
    assert system.process.returncode == 0
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json().get("tasks", answer.json().get("items")) == [] for answer in answers)
    logged = [json.loads(line) for line in (system.home / "huanquan.log").read_text().splitlines()]
    (finished,) = [line for line in logged if line["event"].startswith("Finished server process")]
    assert (datetime.fromisoformat(finished["timestamp"]) - asked_at).total_seconds() < SECONDS
    assert [line for line in logged if line["level"] in {"error", "critical"}] == []
