"""The six-step case (open, assign, complete, certify, order, settle) on the product, on bare PostgreSQL, on peers."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

from libs.common.outbox import headers_of
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, in_processes, ratio
from tests.bench.six_steps.case import metadata, told
from tests.bench.six_steps.statements import ACTOR, APPEND, CLIENTS, MOVE, OPEN, SECONDS, STEPS, TELL

PROCESSES = 2  # of each service, as in the distributed form; and of each peer
BATCH = 500
SPIFF_THREADS = 4
PEERS_PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """A database for each contender."""
    async with AsyncExitStack() as stack:
        names = [await stack.enter_async_context(ground.database(metadata)) for _ in range(4)]
        ours, bare, dbos, spiff = names

        async def limit() -> Figures:
            scripts = await ground.pgbench(
                bare, script(), clients=CLIENTS, seconds=SECONDS, variables=variables(), role="bench_app"
            )
            return {"steps/s": scripts * len(STEPS)}

        async def on_the_product() -> Figures:
            share = {"url": ground.postgres.url(ours, "bench_app"), "clients": CLIENTS // PROCESSES}
            return await _together("ours", [share] * PROCESSES)

        async def in_batches() -> Figures:
            share = {"url": ground.postgres.url(ours, "bench_app"), "clients": 1, "batch": BATCH}
            return await _together("ours", [share] * PROCESSES)

        async def on_dbos() -> Figures:
            url = ground.postgres.url(dbos, "bench_owner").replace("asyncpg", "psycopg")
            share = {"url": url, "clients": CLIENTS // PROCESSES, "events": _events()}
            return await _together("dbos_peer", [share | {"name": str(n)} for n in range(PROCESSES)], PEERS_PYTHON)

        async def on_spiff() -> Figures:
            url = ground.postgres.url(spiff, "bench_owner").replace("+asyncpg", "")
            share = {"url": url, "clients": SPIFF_THREADS, "events": _events()}
            return await _together("spiff_peer", [share] * PROCESSES, PEERS_PYTHON)

        yield {
            "ours": on_the_product,
            "pgbench": limit,
            "DBOS": on_dbos,
            "SpiffWorkflow": on_spiff,
            "ours in batches": in_batches,
        }


async def _together(module: str, shares: Sequence[Mapping[str, Any]], python: str = sys.executable) -> Figures:
    """The clients shared among two processes."""
    done = await in_processes(f"tests.bench.six_steps.{module}", *shares, python=python)
    return {"steps/s": sum(one["steps/s"] for one in done), "own_us": sum(one["own_us"] for one in done) / len(done)}


def _events() -> list[list[str]]:
    """Topic, headers and body of each step's event, as long as the product's own."""
    events = [told(number, UUID(int=number)) for number in range(len(STEPS))]
    return [[event.topic, json.dumps(headers_of(event)), event.model_dump_json()] for event in events]


def script() -> str:
    """One case: six transactions. The case's id is made where its row is, so that it costs no statement."""
    return "\n".join(_transaction(number) for number in range(len(STEPS))) + "\n"


def _transaction(number: int) -> str:
    action, before, state = STEPS[number]
    values = {
        "state": f"'{state}'",
        "before": f"'{before}'",
        "action": f"'{action}'",
        "actor": f"'{ACTOR}'",
        "event": "gen_random_uuid()",
        "key": "CAST(:case AS text)",
        "topic": f":topic{number}",
        "headers": f":headers{number}",
        "body": f":body{number}",
    }
    opened = OPEN.replace(":case", "gen_random_uuid()") + ' RETURNING id AS "case" \\gset'
    first = f"{MOVE};" if before else opened
    statements = "\n".join((first, f"{TELL};", f"{APPEND};"))
    return f"BEGIN;\n{re.sub(r':([a-z]+)', lambda at: values.get(at[1], at[0]), statements)}\nCOMMIT;"


def variables() -> dict[str, str]:
    """What an event of each step says, for pgbench."""
    names = ("topic", "headers", "body")
    return {f"{name}{n}": text for n, event in enumerate(_events()) for name, text in zip(names, event, strict=True)}


BENCHMARK = Benchmark(
    "six-steps",
    prepared,
    (
        Judged("six-step case ÷ pgbench of the same SQL", ratio("ours", "pgbench", "steps/s"), floor=0.5, aim=0.8),
        Judged("six-step case ÷ DBOS", ratio("ours", "DBOS", "steps/s"), floor=10, aim=15),
        Judged("six-step case ÷ SpiffWorkflow", ratio("ours", "SpiffWorkflow", "steps/s"), floor=5, aim=8),
        Judged(
            "six steps in batches ÷ pgbench, one step a transaction",
            ratio("ours in batches", "pgbench", "steps/s"),
            floor=4,
            aim=8,
        ),
    ),
)
