"""How an invariant is looked at: two sides walked together in the order of their keys, or each row of one query judged.

Both are linear and flat in memory. A look is one snapshot of each database it reads, ended with the look, so that the
longest of them, not their sum, is what holds vacuum back.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

PAGE = 2000
KEPT = 1000  # broken records kept of a look, to be looked at again

ALWAYS, NEVER = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
Connections = Mapping[str, AsyncConnection]


def told_field(name: str) -> str:
    """A field of an event in the outbox, by pattern, not as JSON: a value that is none must not end the look."""
    return f"""substring(encode(value, 'escape') FROM '"{name}":"([^"]*)"')"""


def told_words(name: str) -> str:
    """A field of an event that people wrote, by pattern too, as its SHA-256: quoted as JSON, in bytes."""
    # `encode` doubles each backslash of the JSON and writes each byte beyond ASCII as three octal digits.
    quoted = r"""("(?:[^"\\]|\\[0-7]{3}|\\\\(?:\\\\|[^\\]))*")"""
    found = f"""substring(encode(value, 'escape') FROM '"{name}":{quoted}')"""
    return f"encode(sha256(decode({found}, 'escape')), 'hex')"


def kept_words(column: str) -> str:
    """The same of what a table holds."""
    return f"encode(sha256(convert_to(to_json({column})::text, 'UTF8')), 'hex')"


@dataclass(frozen=True)
class Scope:
    """What is judged: what both sides had to know at `until` (UTC), but for what is set aside (keys of events that are
    parked or discarded: their effects are missing for a known reason)."""

    until: datetime = ALWAYS
    aside: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Finding:
    """One invariant looked at. `first` names the first broken record."""

    name: str
    checked: int
    violations: int
    first: str | None = None


@dataclass
class Tally:
    """What a look has seen so far; `broken` maps the first broken records to what is wrong with them."""

    checked: int = 0
    violations: int = 0
    broken: dict[str, str] = field(default_factory=dict)

    def count(self, key: str, flaw: str | None) -> None:
        """Count one record, and what is wrong with it."""
        self.checked += 1
        if flaw is not None:
            self.violations += 1
            if len(self.broken) < KEPT:
                self.broken[key] = flaw

    def confirmed(self, again: "Tally") -> "Tally":
        """What is broken in both of two looks: what was only on its way at the first one is not."""
        broken = {key: flaw for key, flaw in again.broken.items() if key in self.broken}
        violations = min(self.violations, again.violations) if len(self.broken) == KEPT else len(broken)
        return Tally(again.checked, violations if broken else 0, broken)

    def finding(self, name: str) -> Finding:
        """The same for the report."""
        return Finding(name, self.checked, self.violations, next(iter(self.broken.values()), None))


class Look(Protocol):
    """One invariant."""

    @property
    def name(self) -> str:
        """What must be true."""

    @property
    def services(self) -> frozenset[str]:
        """Whose databases it reads."""

    async def look(self, connections: Connections, scope: Scope) -> Tally:
        """Look at everything. Reads only."""


class Row(NamedTuple):
    """One thing as a service holds it. `at` is the UTC instant since when, None where only the other side knows;
    `about` is the key of the events that tell of it."""

    key: str
    value: str
    at: datetime | None
    about: str | None


@dataclass(frozen=True)
class Mirrored:
    """Each row `here` stands `there` with the same value, as often, and the other way round.

    Both map services to queries of (key, value, at, about).
    """

    name: str
    here: Mapping[str, str]
    there: Mapping[str, str]

    @property
    def services(self) -> frozenset[str]:
        """See the protocol."""
        return frozenset([*self.here, *self.there])

    async def look(self, connections: Connections, scope: Scope) -> Tally:
        """Walk both sides together."""
        tally = Tally()
        here, there = _merged(connections, self.here), _merged(connections, self.there)
        async with aclosing(here), aclosing(there):
            async for mine, theirs in _paired(here, there):
                if self.concerns(mine) and _is_judged(mine, theirs, scope):
                    tally.count(_key(mine or theirs), self.broken(mine, theirs))
        return tally

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
class Each:
    """A query of one service that gives (record, about, ok) for each thing: all must be ok."""

    name: str
    service: str
    sql: str

    @property
    def services(self) -> frozenset[str]:
        """See the protocol."""
        return frozenset([self.service])

    async def look(self, connections: Connections, scope: Scope) -> Tally:
        """Count what is not so."""
        counted = f"""
            WITH each AS (SELECT * FROM ({self.sql}) AS every (record, about, ok)
                           WHERE about IS NULL OR about <> ALL(CAST(:aside AS text[])))
            SELECT count(*), count(*) FILTER (WHERE ok IS NOT TRUE),
                   (SELECT min(record COLLATE "C") FROM each WHERE ok IS NOT TRUE) FROM each
        """  # noqa: S608 - the queries are code
        found = await connections[self.service].execute(text(counted), {"aside": list(scope.aside)})
        checked, violations, first = found.one()
        return Tally(checked, violations, {first: first} if violations else {})


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
    ordered = f'SELECT * FROM ({sql}) AS held (key, value, at, about) ORDER BY key COLLATE "C", value COLLATE "C"'  # noqa: S608 - the queries are code
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


def _is_judged(mine: Row | None, theirs: Row | None, scope: Scope) -> bool:
    rows = [row for row in (mine, theirs) if row]
    # Since when the two had to be alike; a pair that no side knows the moment of is judged at once.
    since = max((row.at for row in rows if row.at), default=NEVER)
    return since <= scope.until and not any(row.about in scope.aside for row in rows)


def _key(row: Row | None) -> str:
    return row.key if row else ""


def _named(mine: Row | None, theirs: Row | None) -> str:
    sides = (side.value if side else "nothing" for side in (mine, theirs))
    return f"{_key(mine or theirs)}: {' <> '.join(sides)}"
