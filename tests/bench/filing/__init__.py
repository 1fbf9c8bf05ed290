"""Filing: `POST /intake/v1/applications` as a portal sends it, and the same endpoint with no database behind it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import httpx

from libs.common.auth import TokenIssuer
from libs.common.settings import Settings
from services.intake.models import metadata
from tests.bench.ground import Ground
from tests.bench.harness import ROOT, Benchmark, Contender, Figures, Judged, Round, in_processes
from tests.conftest import free_port

CLIENTS = 32
SECONDS = 6.0
MOST = 15_000  # of a turn
START_SECONDS = 30.0


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """Two servers, each a process of its own; whichever is not asked does nothing."""
    home = ground.folder / "filing"
    home.mkdir()
    token = TokenIssuer(Settings(home=home)).token("portal", client="bench")
    async with AsyncExitStack() as stack:
        name = await stack.enter_async_context(ground.database(metadata, "intake"))
        url = ground.postgres.url(name, "intake_app")
        ports = {
            behind: await stack.enter_async_context(_serving(home, url, with_database=with_database))
            for behind, with_database in (("database", True), ("no database", False))
        }

        firsts = count(step=MOST)  # nobody is filed twice: who has a certification already is not accepted

        def posting(port: int, clients: int) -> Contender:
            async def post() -> Figures:
                given = {"port": port, "token": token, "clients": clients, "seconds": SECONDS}
                [figures] = await in_processes(
                    "tests.bench.filing.load", {**given, "first": next(firsts), "most": MOST}
                )
                return figures

            return post

        yield {
            f"{behind}, {clients} clients": posting(port, clients)
            for clients in (CLIENTS, 1)
            for behind, port in ports.items()
        }


@asynccontextmanager
async def _serving(home: Path, url: str, *, with_database: bool) -> AsyncIterator[int]:
    port = free_port()
    given = json.dumps({"port": port, "home": str(home), "url": url, "with_database": with_database})
    with (home / f"{port}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.filing.server", given], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        async with httpx.AsyncClient() as client, asyncio.timeout(START_SECONDS):
            while not await _answers(client, port):  # noqa: ASYNC110 - what is awaited lies in another process
                await asyncio.sleep(0.1)
        yield port
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


async def _answers(client: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/intake/livez")).is_success
    except httpx.TransportError:
        return False


def _against_none(clients: int) -> Callable[[Round], float]:
    return lambda done: (
        done[f"database, {clients} clients"]["filings/s"] / done[f"no database, {clients} clients"]["filings/s"]
    )


BENCHMARK = Benchmark(
    "filing",
    prepared,
    (Judged(f"filing at {CLIENTS} clients ÷ the same endpoint with no database", _against_none(CLIENTS), 0.6, 0.7),),
)
