"""The six-step case (open, assign, complete, certify, order, settle) on the product, on bare PostgreSQL, on peers."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID

from libs.common.outbox import headers_of
from tests.bench.ground import Ground
from tests.bench.harness import Benchmark, Contender, Figures, Judged, in_processes, ratio
from tests.bench.six_steps.case import metadata, told
from tests.bench.six_steps.statements import ACTOR, APPEND, CLIENTS, MOVE, OPEN, SECONDS, STEPS, TELL

PROCESSES = 2
BATCH = 500


@asynccontextmanager
async def prepared(ground: Ground) -> AsyncIterator[Mapping[str, Contender]]:
    """One database a contender."""
    async with ground.database(metadata) as mine, ground.database(metadata) as bare:
        url = ground.postgres.url(mine, "bench_app")

        async def ours() -> Figures:
            return await together(url, clients=CLIENTS)

        async def ours_in_batches() -> Figures:
            return await together(url, clients=PROCESSES, batch=BATCH)

        async def limit() -> Figures:
            scripts = await ground.pgbench(
                bare, script(), clients=CLIENTS, seconds=SECONDS, variables=variables(), role="bench_app"
            )
            return {"steps/s": scripts * len(STEPS)}

        yield {"ours": ours, "pgbench": limit, "ours in batches": ours_in_batches}


async def together(url: str, *, clients: int, batch: int = 0) -> Figures:
    """The clients shared among the processes of a service."""
    share = {"url": url, "clients": clients // PROCESSES, "batch": batch}
    done = await in_processes("tests.bench.six_steps.ours", *[share] * PROCESSES)
    return {"steps/s": sum(one["steps/s"] for one in done), "own_us": sum(one["own_us"] for one in done) / PROCESSES}


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
    """What an event of each step says: as long as the product's own."""
    given = {}
    for number in range(len(STEPS)):
        event = told(number, UUID(int=number))
        given[f"topic{number}"] = event.topic
        given[f"headers{number}"] = json.dumps(headers_of(event), separators=(",", ":"))
        given[f"body{number}"] = event.model_dump_json()
    return given


BENCHMARK = Benchmark(
    "six-steps",
    prepared,
    (
        Judged("six-step case ÷ pgbench of the same SQL", ratio("ours", "pgbench", "steps/s"), floor=0.5, aim=0.8),
        Judged(
            "six steps in batches ÷ pgbench, one step a transaction",
            ratio("ours in batches", "pgbench", "steps/s"),
            floor=4,
            aim=8,
        ),
    ),
)
