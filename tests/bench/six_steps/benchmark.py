"""The six-step case (open, assign, complete, certify, order, settle) on the product, on bare PostgreSQL, on peers."""

import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

from libs.common.consumer import BATCHES_AT_ONCE
from libs.common.telemetry import child_of
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, in_processes, ratio
from tests.bench.six_steps.case import metadata, told
from tests.bench.six_steps.statements import (
    ACTOR,
    APPEND,
    APPEND_CHANGED,
    CLIENTS,
    MOVE,
    OPEN,
    RETURNING,
    SECONDS,
    STEPS,
    TELL,
    TELL_CHANGED,
    WAITING,
)

PROCESSES = 2  # of each service, as in the distributed form; and of each peer
BATCH = 500
SPIFF_THREADS = 4
OPENED = OPEN.replace(":case", "uuidv7()")
PEERS_PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """A database for each contender."""
    async with AsyncExitStack() as stack:
        names = [await stack.enter_async_context(ground.database(metadata)) for _ in range(4)]
        ours, bare, dbos, spiff = names

        async def limit(step: Callable[[int], str]) -> Figures:
            scripts = await ground.pgbench(
                bare, script(step), clients=CLIENTS, seconds=SECONDS, variables=variables(), role="bench_app"
            )
            return {"steps/s": scripts * len(STEPS)}

        async def on_the_product() -> Figures:
            share = {"url": ground.postgres.url(ours, "bench_app"), "clients": CLIENTS // PROCESSES}
            return await _together("ours", [share] * PROCESSES)

        async def in_batches() -> Figures:
            share = {"url": ground.postgres.url(ours, "bench_app"), "clients": BATCHES_AT_ONCE, "batch": BATCH}
            return await _together("ours", [share] * PROCESSES)

        async def on_dbos() -> Figures:
            url = ground.postgres.url(dbos, "bench_owner").replace("asyncpg", "psycopg")
            share = {"url": url, "clients": CLIENTS // PROCESSES, "events": _events()}
            return await _together("dbos_peer", [share | {"name": str(n)} for n in range(PROCESSES)], PEERS_PYTHON)

        async def on_spiff(*, kept: bool) -> Figures:
            url = ground.postgres.url(spiff, "bench_owner").replace("+asyncpg", "")
            share = {"url": url, "clients": SPIFF_THREADS, "events": _events(), "kept": kept}
            return await _together("spiff_peer", [share] * PROCESSES, PEERS_PYTHON)

        yield {
            "ours": on_the_product,
            "pgbench": partial(limit, one_statement),
            "pgbench, three statements a step": partial(limit, three_statements),
            "DBOS": on_dbos,
            "SpiffWorkflow": partial(on_spiff, kept=False),
            "SpiffWorkflow, specification kept": partial(on_spiff, kept=True),
            "ours in batches": in_batches,
        }


async def _together(module: str, shares: Sequence[Mapping[str, Any]], python: str = sys.executable) -> Figures:
    """The clients shared among two processes."""
    done = await in_processes(f"tests.bench.six_steps.{module}", *shares, python=python)
    return {"steps/s": sum(one["steps/s"] for one in done), "own_us": sum(one["own_us"] for one in done) / len(done)}


def _events() -> list[list[str]]:
    """Topic, type, traceparent and body of each step's event, as long as the product's own."""
    events = [told(number, UUID(int=number)) for number in range(len(STEPS))]
    return [[event.topic, type(event).__name__, child_of(None), event.model_dump_json()] for event in events]


def script(transaction: Callable[[int], str]) -> str:
    """One case: six transactions."""
    return "\n".join(transaction(number) for number in range(len(STEPS))) + "\n"


def three_statements(number: int) -> str:
    """A step between BEGIN and COMMIT. The case's id is made where its row is, so that it costs no statement."""
    changed = f"{MOVE};" if number else f'{OPENED}{RETURNING} AS "case" \\gset'
    return _filled(number, "\n".join(("BEGIN;", changed, f"{TELL};", f"{APPEND};", "COMMIT;")))


def one_statement(number: int) -> str:
    """A step as the product writes it."""
    changed = MOVE if number else OPENED
    parts = f"changed AS ({changed}{RETURNING}), told AS ({TELL_CHANGED}), appended AS ({APPEND_CHANGED})"
    parts += f", waiting AS ({WAITING})"
    return _filled(number, f'WITH {parts} SELECT id AS "case" FROM changed \\gset')  # noqa: S608 - from code


def _filled(number: int, sql: str) -> str:
    action, before, state = STEPS[number]
    values = {
        "state": f"'{state}'",
        "before": f"'{before}'",
        "action": f"'{action}'",
        "actor": f"'{ACTOR}'",
        "event": "uuidv7()",
        "key": "CAST(:case AS text)",
        "topic": f":topic{number}",
        "type": f":type{number}",
        "trace": f":trace{number}",
        "body": f":body{number}",
    }
    return re.sub(r":([a-z]+)", lambda at: values.get(at[1], at[0]), sql)


def variables() -> dict[str, str]:
    """What an event of each step says, for pgbench."""
    names = ("topic", "type", "trace", "body")
    return {f"{name}{n}": text for n, event in enumerate(_events()) for name, text in zip(names, event, strict=True)}


BENCHMARK = Benchmark(
    "six-steps",
    prepared,
    (
        Judged("six-step case ÷ pgbench of the same SQL", ratio("ours", "pgbench", "steps/s"), floor=0.5, aim=0.8),
        Judged(
            "six-step case ÷ pgbench, three statements a step",
            ratio("ours", "pgbench, three statements a step", "steps/s"),
            floor=0.5,
            aim=0.8,
        ),
        Judged("six-step case ÷ DBOS", ratio("ours", "DBOS", "steps/s"), floor=10, aim=15),
        Judged("six-step case ÷ SpiffWorkflow", ratio("ours", "SpiffWorkflow", "steps/s"), floor=5, aim=8),
        Judged(
            "six steps in batches ÷ pgbench, one step a transaction",
            ratio("ours in batches", "pgbench, three statements a step", "steps/s"),
            floor=4,
            aim=8,
        ),
    ),
    turns=6,  # of few, whoever meets a slow moment of the machine has it for the whole round
)
