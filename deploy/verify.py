"""Every invariant across the five databases, read only: nothing lost between two services, nothing done twice.

What two services hold of the same thing is compared as two streams in the order of their keys, so memory stays flat.
On a running system only what is older than the watermark is judged; `at_rest` judges everything and demands that
nothing is under way.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.engine import SERVICES
from libs.common.db import Database
from libs.common.settings import Settings
from services.audit.anchors import known_anchors
from services.audit.trail import verify_trail
from services.finance import reconcile

WATERMARK = timedelta(seconds=60)  # what is younger may still be on its way
PAGE = 2000

Connections = Mapping[str, AsyncConnection]


@dataclass(frozen=True)
class Finding:
    """One invariant looked at. `first` names the first broken record."""

    name: str
    checked: int
    violations: int
    first: str | None = None


class Row(NamedTuple):
    """One thing as a service holds it. `at` is the UTC instant since when, None where only the other side knows."""

    key: str
    value: str
    at: datetime | None


@dataclass(frozen=True)
class Mirrored:
    """Each row `here` stands `there` with the same value, and the other way round.

    Both map services to queries of (key, value, at).
    """

    name: str
    here: Mapping[str, str]
    there: Mapping[str, str]

    async def look(self, connections: Connections, until: datetime) -> Finding:
        """Walk both sides together."""
        checked = violations = 0
        first: str | None = None
        here, there = _merged(connections, self.here), _merged(connections, self.there)
        async with aclosing(here), aclosing(there):
            async for mine, theirs in _paired(here, there):
                if not self.concerns(mine) or _since(mine, theirs) > until:
                    continue
                checked += 1
                if broken := self.broken(mine, theirs):
                    violations += 1
                    first = first or broken
        return Finding(self.name, checked, violations, first)

    def concerns(self, _mine: Row | None) -> bool:
        """Whether a pair is looked at."""
        return True

    def broken(self, mine: Row | None, theirs: Row | None) -> str | None:
        """What is wrong with a pair, in words."""
        alike = mine is not None and theirs is not None and mine.value == theirs.value
        return None if alike else _named(mine, theirs)


class Known(Mirrored):
    """Each key `here` stands `there` too, where more may stand. The value `here` names the record, and no key stands
    here twice."""

    def concerns(self, mine: Row | None) -> bool:
        """Whether a key stands here."""
        return mine is not None

    def broken(self, mine: Row | None, theirs: Row | None) -> str | None:
        """The record whose key does not stand there."""
        return f"{mine.value}: {mine.key}" if mine and theirs is None else None


@dataclass(frozen=True)
class Nothing:
    """A query of one service that must find nothing; its first column names a record."""

    name: str
    service: str
    sql: str

    async def look(self, connections: Connections, _until: datetime) -> Finding:
        """Count what it finds."""
        found = (await connections[self.service].execute(text(self.sql))).all()
        return Finding(self.name, 1, len(found), str(found[0][0]) if found else None)


# The side that a fact begins on gives the moment of its commit; the other side's day alone is never younger than that.
_ACCEPTED = """
    SELECT a.id::text, a.policy_sha256, max(t.at) FROM application AS a JOIN timeline AS t ON t.application = a.id
     WHERE a.state = 'accepted' GROUP BY a.id
"""
_APPROVED = """
    SELECT i.id::text, i.benefit, max(h.at) FROM item AS i JOIN history AS h ON h.item = i.id AND h.action = 'confirmed'
     WHERE i.kind = 'benefit' AND i.state = 'done' AND i.verdict = 'approve' GROUP BY i.id
"""
_ENDED = """
    SELECT c.application::text, c.state, max(h.at) FROM cases AS c JOIN history AS h USING (application)
     WHERE c.closed_on IS NOT NULL GROUP BY c.application
"""
_SETTLED = """
    SELECT o.id::text, o.public_fen || ' on ' || o.settled_on, max(h.recorded_at)
      FROM payout_order AS o JOIN order_history AS h ON h.order_id = o.id WHERE o.state = 'settled' GROUP BY o.id
"""
_HEARD_OF = """
    SELECT "order"::text, fen || ' on ' || settled_on, NULL::timestamptz FROM payment WHERE settled_on IS NOT NULL
"""
# Finance keeps the references that it was told; a person merged since is known by any of them.
_OWED = """
    SELECT e.item || ' for ' || e.beneficiary, 'entitlement ' || e.id, e.recorded_at FROM entitlement AS e
"""
_ASKED = """
    SELECT i.id || ' for ' || p.ref, '', NULL::timestamptz
      FROM application_item AS i JOIN application AS a ON a.id = i.application
      JOIN person AS b ON b.ref = a.beneficiary
      JOIN person AS p ON coalesce(p.merged_into, p.ref) = coalesce(b.merged_into, b.ref)
"""
_PAID_TO = """
    SELECT 'account ' || o.payee_account || ' of ' || o.beneficiary, 'order ' || min(o.id::text), max(h.recorded_at)
      FROM payout_order AS o JOIN order_history AS h ON h.order_id = o.id
     WHERE o.payee_account IS NOT NULL GROUP BY o.payee_account, o.beneficiary
"""
_ACCOUNTS = """
    SELECT 'account ' || a.ref || ' of ' || p.ref, '', NULL::timestamptz
      FROM payee_account AS a JOIN person AS b ON b.ref = a.person
      JOIN person AS p ON coalesce(p.merged_into, p.ref) = coalesce(b.merged_into, b.ref)
"""
BETWEEN: tuple[Mirrored, ...] = (
    Mirrored(
        "every accepted application has its case, under the same pack",
        {"intake": _ACCEPTED},
        {"workflow": "SELECT application::text, sha256, opened_at FROM cases"},
    ),
    Mirrored(
        "every end of a case is known to intake",
        {"workflow": _ENDED},
        {"intake": "SELECT application::text, state, NULL::timestamptz FROM case_end"},
    ),
    Mirrored(
        "every approved benefit is an entitlement to money or to a flat",
        {"workflow": _APPROVED},
        {
            "finance": "SELECT item::text, benefit, recorded_at FROM entitlement",
            "housing": "SELECT id::text, benefit, NULL::timestamptz FROM eligibility",
        },
    ),
    Known("every entitlement is of whom its application names", {"finance": _OWED}, {"intake": _ASKED}),
    Known("every payout order goes to an account of its beneficiary", {"finance": _PAID_TO}, {"intake": _ACCOUNTS}),
    Mirrored("every settled payment is known to intake, to the fen", {"finance": _SETTLED}, {"intake": _HEARD_OF}),
    Mirrored(
        "every published event is in the trail once, and nothing else is",
        dict.fromkeys(SERVICES, "SELECT event_id::text, key, published_at FROM outbox WHERE published_at IS NOT NULL"),
        {"audit": "SELECT event_id::text, key, recorded_at FROM entry"},
    ),
)
ALWAYS: tuple[Nothing, ...] = (
    Nothing(
        "no flat is given to two at once",
        "housing",
        "SELECT flat FROM hold WHERE state IN ('held', 'leased') GROUP BY flat HAVING count(*) > 1",
    ),
    Nothing(
        "nobody both proposed and confirmed a decision",
        "workflow",
        "SELECT id FROM item WHERE confirmed_by = proposed_by",
    ),
)
AT_REST: tuple[Nothing, ...] = (
    *(Nothing(f"outbox of {s} is empty", s, "SELECT id FROM outbox WHERE published_at IS NULL") for s in SERVICES),
    *(Nothing(f"nothing is parked in {s}", s, "SELECT topic || ' ' || key FROM parked_key") for s in SERVICES),
    Nothing("no application waits for a correction", "intake", "SELECT id FROM application WHERE state = 'correction'"),
    Nothing("no case is in progress", "workflow", "SELECT application FROM cases WHERE state = 'in_progress'"),
    Nothing(
        "no payout order is under way",
        "finance",
        "SELECT id FROM payout_order WHERE state NOT IN ('settled', 'cancelled', 'recovered')",
    ),
)


async def verify_all(settings: Settings, *, at_rest: bool) -> list[dict[str, Any]]:
    """Look at every invariant: `{name, checked, violations, first}` each. Reads only, a database as of one moment."""
    until = datetime.max.replace(tzinfo=UTC) if at_rest else datetime.now(UTC) - WATERMARK
    databases = {service: Database(settings.database_url(service), pool_size=2) for service in SERVICES}
    try:
        async with AsyncExitStack() as stack:
            connections = {
                name: await stack.enter_async_context(_snapshot(database)) for name, database in databases.items()
            }
            looks: list[Mirrored | Nothing] = [*BETWEEN, *ALWAYS, *(AT_REST if at_rest else ())]
            findings = [await each.look(connections, until) for each in looks]
            findings += [_of_finance(check) for check in await reconcile.check(connections["finance"])]
            findings.append(await _trail(connections["audit"], settings))
    finally:
        await asyncio.gather(*(database.close() for database in databases.values()))
    return [asdict(finding) for finding in findings]


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection


async def _merged(connections: Connections, queries: Mapping[str, str]) -> AsyncGenerator[Row, None]:
    """The rows of several services as one stream in the order of their keys."""
    streams = [_rows(connections[service], sql) for service, sql in queries.items()]
    heads = [await anext(stream, None) for stream in streams]
    while any(heads):
        n = min((n for n, row in enumerate(heads) if row), key=lambda n: _key(heads[n]))
        row, heads[n] = heads[n], await anext(streams[n], None)
        if row:
            yield row


async def _rows(connection: AsyncConnection, sql: str) -> AsyncGenerator[Row, None]:
    ordered = f'SELECT * FROM ({sql}) AS held (key, value, at) ORDER BY key COLLATE "C"'  # noqa: S608 - one of those above
    async with connection.stream(text(ordered), execution_options={"yield_per": PAGE}) as rows:
        async for row in rows:
            yield Row(*row)


async def _paired(
    here: AsyncGenerator[Row, None], there: AsyncGenerator[Row, None]
) -> AsyncIterator[tuple[Row | None, Row | None]]:
    """Rows of one key together; None where a side has none."""
    mine, theirs = await anext(here, None), await anext(there, None)
    while mine or theirs:
        if theirs is None or (mine and mine.key < theirs.key):
            yield mine, None
            mine = await anext(here, None)
        elif mine is None or theirs.key < mine.key:
            yield None, theirs
            theirs = await anext(there, None)
        else:
            yield mine, theirs
            mine, theirs = await anext(here, None), await anext(there, None)


def _since(mine: Row | None, theirs: Row | None) -> datetime:
    """From when the two had to be alike; a row that no side knows the moment of is judged at once."""
    return min((row.at for row in (mine, theirs) if row and row.at), default=datetime.min.replace(tzinfo=UTC))


def _key(row: Row | None) -> str:
    return row.key if row else ""


def _named(mine: Row | None, theirs: Row | None) -> str:
    row = mine or theirs
    sides = (side.value if side else "nothing" for side in (mine, theirs))
    return f"{row.key if row else ''}: {' <> '.join(sides)}"


def _of_finance(check: reconcile.Checked) -> Finding:
    first = f"{check.first}: {check.detail}" if check.violations else None
    return Finding(f"finance: {check.name}", check.checked, check.violations, first)


async def _trail(connection: AsyncConnection, settings: Settings) -> Finding:
    verdict = await verify_trail(connection, known_anchors(settings.home))
    first = None if verdict.verified else f"{verdict.first_broken}: {verdict.reason}"
    return Finding("the trail is whole and meets its anchors", verdict.entries, int(not verdict.verified), first)
