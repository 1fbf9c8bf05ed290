"""The limit: what was recorded, replayed by PostgreSQL's own load generator with nothing around it.

The five services' tables lie in five schemas of one database, so that one client of pgbench takes an application
through all its steps, as it goes in life. Each statement is prepared once in each session, as the services' driver
does, and executed with the recorded values. Fair to the limit: nothing but SQL is timed (all sessions have connected,
prepared, and taken applications along before the first step, one by one so many that plans are made), nobody waits for
an event, and audit's lock on its chain is left out, which alone would let one transaction at a time pass: the places in
the chain are recorded, so nothing needs it.
"""

import asyncio
import enum
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from deploy.engine import SERVICES
from deploy.local import metadata_of
from libs.common import telemetry
from libs.common.db import connect, connect_arguments
from libs.common.migration import upgrade
from libs.common.settings import Settings
from tests.bench.ground import PGBENCH_THREADS, Ground, tool
from tests.bench.journey.people import TREASURIES, filings
from tests.bench.journey.record import Composed, Statement, Tape

SINGLY, CLIENTS = 96, 32
WARM_EACH = 6
"""So many a client takes along first: PostgreSQL plans the first five executions of a prepared statement anew."""

PARTS, BATCH = 4, 500
KNOWN = 1_000
"""So many are there before: on tables of a few pages a session would plan to read all of them, and keep to it."""
GATE = 4_210_500
REPLAY_SECONDS = 120

Transactions = list[list[Statement]]

_ROLE = """
    DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} LOGIN; END IF;
    END $$
"""
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"


@dataclass(frozen=True)
class Recorded:
    """A script for pgbench that begins with this database; each client of it takes a part of the applications."""

    ground: Ground
    database: str
    script: Path
    clients: int
    applications: int

    async def replay(self) -> dict[str, float]:
        """Applications a second that PostgreSQL gets through, on a fresh copy of the database."""
        async with self.ground.empty_database("bench", self.database) as name:
            await self.ground.settle()
            gate = await connect(self.ground.postgres.url(name))
            await gate.execute("SELECT pg_advisory_lock($1)", GATE)
            process = await self._pgbench(name)
            async with asyncio.timeout(REPLAY_SECONDS):
                while await gate.fetchval(_WAITING, GATE) < self.clients:  # noqa: ASYNC110 - sessions of pgbench
                    await asyncio.sleep(0.05)
                await gate.execute("SELECT pg_advisory_unlock($1)", GATE)
                began = time.perf_counter()
                if await process.wait():
                    raise RuntimeError("pgbench failed")
                took = time.perf_counter() - began
            await gate.close()
        return {"applications/s": self.applications / took}

    async def _pgbench(self, database: str) -> asyncio.subprocess.Process:
        arguments = ["--no-vacuum", "--transactions=1", f"--client={self.clients}", f"--jobs={PGBENCH_THREADS}"]
        where = connect_arguments(self.ground.postgres.url(database))
        arguments += [f"--file={self.script}", f"--host={where['host']}", f"--username={where['user']}", database]
        return await asyncio.create_subprocess_exec(tool("pgbench"), *arguments, stdout=asyncio.subprocess.DEVNULL)


@asynccontextmanager
async def recordings(ground: Ground) -> AsyncIterator[tuple[Recorded, Recorded]]:
    """The journey recorded with one application, task, item and event a transaction, and with BATCH of them."""
    telemetry.configure(level="WARNING")  # the services' lines of access would stand among the bench's own
    folder = ground.folder / "recordings"
    folder.mkdir()
    async with ground.empty_database() as name:
        composed = Composed(await _settings(ground, name, folder), ground.postgres.url(name))
        await composed.open()
        await composed.give_quotas()
        await composed.journey(filings(0, KNOWN), BATCH)  # employers, accounts, feeds: as in a system at work
        await composed.close()
        async with ground.empty_database(template=name) as base:
            await ground.execute(base, "VACUUM ANALYZE")
            warm, singly, together = await _recorded(composed)
            alone = _written(folder / "singly.sql", warm, singly, CLIENTS)
            batched = _written(folder / "together.sql", warm[:PARTS], together, PARTS)  # one each: that is no batch
            yield (
                Recorded(ground, base, alone, CLIENTS, SINGLY),
                Recorded(ground, base, batched, PARTS, PARTS * BATCH),
            )


async def _recorded(composed: Composed) -> tuple[list[Transactions], list[Transactions], list[Transactions]]:
    """The transactions of WARM_EACH applications for each client to begin with, of each application alone, and of each
    BATCH of them, all of one treasury."""
    tape = Tape()
    await composed.open()
    for service in composed.services.values():
        tape.listen(service)
    alone = [filings(KNOWN + n, 1) for n in range(CLIENTS * WARM_EACH + SINGLY)]
    first = KNOWN + len(alone)
    parts = [filings(first + n * BATCH, BATCH, TREASURIES[n % len(TREASURIES)]) for n in range(PARTS)]
    singly, together = await _taken(composed, tape, alone, 1), await _taken(composed, tape, parts, BATCH)
    await composed.close()
    return singly[:-SINGLY], singly[-SINGLY:], together


async def _taken(composed: Composed, tape: Tape, parts: Sequence[Sequence[bytes]], size: int) -> list[Transactions]:
    taken = []
    for part in parts:
        tape.transactions.clear()
        await composed.journey(part, size)
        if not tape.transactions:
            raise RuntimeError("nothing was recorded: the services no longer send their statements by the ways watched")
        taken.append(list(tape.transactions))
    return taken


async def _settings(ground: Ground, database: str, home: Path) -> Settings:
    """Settings of services whose tables lie in one database, each service's in a schema that is all its roles see."""
    urls: dict[str, Any] = {"bus_url": ground.postgres.url(database)}
    for service in SERVICES:
        owner, app = f"{service}_owner", f"{service}_app"
        await ground.execute(
            database,
            *(_ROLE.format(role=role) for role in (owner, app)),
            f"CREATE SCHEMA {service} AUTHORIZATION {owner}",
            f"GRANT USAGE ON SCHEMA {service} TO {app}",
            *(f'ALTER ROLE {role} IN DATABASE "{database}" SET search_path = {service}' for role in (owner, app)),
            f'ALTER ROLE {app} IN DATABASE "{database}" SET synchronous_commit = off',  # recording is not timed
        )
        await asyncio.to_thread(upgrade, service, ground.postgres.url(database, owner), metadata_of(service))
        await ground.execute(database, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {service} TO {app}")
        urls[f"{service}_database_url"] = ground.postgres.url(database, app)
    return Settings(home=home, **urls)


# -- the script


def _written(file: Path, warm: Sequence[Transactions], parts: Sequence[Transactions], clients: int) -> Path:
    """A script of which each client prepares all, takes its share of the warm ones along, waits for the others, and
    then runs its own share of the parts, in order."""
    names: dict[tuple[str, str], str] = {}
    for statement in (each for part in [*warm, *parts] for transaction in part for each in transaction):
        if _replayed(statement) and _prepared(statement):
            names.setdefault((statement.service, statement.text), f"p{len(names)}")
    with file.open("w") as out:
        for (service, text), name in names.items():
            out.write(f"SET search_path = {service};\nPREPARE {name} AS {text.strip()};\n")
        _write_shares(out, [warm[client::clients] for client in range(clients)], names)
        out.write(f"SELECT pg_advisory_lock_shared({GATE});\n")
        _write_shares(out, [parts[client::clients] for client in range(clients)], names)
    return file


def _write_shares(out: TextIO, shares: Sequence[Sequence[Transactions]], names: Mapping[tuple[str, str], str]) -> None:
    for client, share in enumerate(shares):
        out.write(f"\\if :client_id = {client}\n")
        out.writelines(_lines(each, names) for part in share for each in part)
        out.write("\\endif\n")


def _lines(transaction: Sequence[Statement], names: Mapping[tuple[str, str], str]) -> str:
    """One transaction. A statement is planned for the path that it was prepared under, so the path is set first: in one
    message with BEGIN, which costs no turn."""
    begin = f"BEGIN\\; SET LOCAL search_path = {transaction[0].service};\n"
    return begin + "".join(_line(each, names) for each in transaction if _replayed(each)) + "COMMIT;\n"


def _replayed(statement: Statement) -> bool:
    return not (statement.service == "audit" and "pg_advisory_xact_lock" in statement.text)


def _prepared(statement: Statement) -> bool:
    return not statement.text.lstrip().startswith(("SET ", "SAVEPOINT ", "RELEASE ", "ROLLBACK "))


def _line(statement: Statement, names: Mapping[tuple[str, str], str]) -> str:
    if not _prepared(statement):
        one_message = statement.text.strip().replace("; ", "\\; ")
        return f"{one_message};\n"
    values = ", ".join(literal(each) for each in statement.values)
    return f"EXECUTE {names[statement.service, statement.text]}{f' ({values})' if values else ''};\n"


def literal(value: Any) -> str:
    """A value as SQL writes it; its type is the prepared statement's."""
    return "NULL" if value is None else "'" + _text(value).replace("'", "''") + "'"


def _text(value: Any) -> str:
    match value:
        case enum.Enum():
            return _text(value.value)
        case bool():
            return "true" if value else "false"
        case bytes():
            return "\\x" + value.hex()
        case date():  # a datetime is one
            return value.isoformat()
        case list() | tuple():
            return "{" + ",".join("NULL" if each is None else _element(_text(each)) for each in value) + "}"
        case _:
            return str(value)


def _element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
