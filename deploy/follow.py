"""`huanquan trace`: one application followed through all five services, by what their databases know of its events.

It needs no collector: each outbox says when an event was told and whether it is on the bus, each inbox when it was
taken. Events of one trace stand together, for they came of one request or one moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from itertools import groupby
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.refusals import Refusal
from libs.common.db import Database
from libs.common.settings import SERVICES, Settings

_TOLD = text("""
    SELECT event_id, type, substr(traceparent, 4, 32) AS trace, created_at,
           NOT EXISTS (SELECT FROM unpublished AS u WHERE u.id = outbox.id) AS published
      FROM outbox WHERE key = :key ORDER BY id
""")
_TAKEN = text("SELECT event_id, taken_at FROM inbox WHERE event_id = ANY(CAST(:ids AS uuid[]))")
_PARKED = text("SELECT headers ->> 'ce_id' AS id FROM parked WHERE headers ->> 'ce_id' = ANY(CAST(:ids AS text[]))")
_BY_NUMBER = text("SELECT id FROM application WHERE case_no = :number")


@dataclass(frozen=True)
class Step:
    """One event of an application. Instants are UTC; `taken` maps each service that took it to when it did, `parked`
    names those that have set it aside."""

    service: str
    event_id: UUID
    type: str
    trace: str
    told_at: datetime
    published: bool
    taken: dict[str, datetime] = field(default_factory=dict)
    parked: list[str] = field(default_factory=list)

    @property
    def last_at(self) -> datetime:
        """When the last thing that is known of it happened."""
        return max([self.told_at, *self.taken.values()])

    @property
    def first_taken_at(self) -> datetime:
        """When the first service had taken it; when it was told, where none has."""
        return min(self.taken.values(), default=self.told_at)


async def follow(settings: Settings, application: str) -> list[Step]:
    """The events of an application (its id, or its case number), in the order in which they were told.

    Raises Refusal where nothing is known of it."""
    databases = {service: Database(settings.database_url(service), pool_size=1) for service in SERVICES}
    try:
        async with databases["intake"].engine.connect() as connection:
            key = await _key(connection, application)
        steps: list[Step] = []
        for service, database in databases.items():
            async with database.engine.connect() as connection:
                told = await connection.execute(_TOLD, {"key": key})
                steps += [Step(service, *row) for row in told]
        by_id = {step.event_id: step for step in steps}
        for service, database in databases.items():
            async with database.engine.connect() as connection:
                for event_id, at in await connection.execute(_TAKEN, {"ids": list(by_id)}):
                    by_id[event_id].taken[service] = at
                for row in await connection.execute(_PARKED, {"ids": [str(event_id) for event_id in by_id]}):
                    by_id[UUID(row.id)].taken.pop(service, None)
                    by_id[UUID(row.id)].parked.append(service)
    finally:
        for database in databases.values():
            await database.close()
    if not steps:
        raise Refusal(f"nothing was told of {application!r}: it is no application's id or case number here")
    return sorted(steps, key=lambda step: step.told_at)


async def _key(connection: AsyncConnection, application: str) -> str:
    found = (await connection.execute(_BY_NUMBER, {"number": application})).scalar()
    return str(found or application)


def traces(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps by trace, in the order in which the traces began."""
    began: dict[str, int] = {}
    for n, step in enumerate(steps):
        began.setdefault(step.trace, n)
    ordered = sorted(steps, key=lambda step: began[step.trace])
    return [list(group) for _, group in groupby(ordered, key=lambda step: step.trace)]


# -- as text


def as_text(steps: Sequence[Step]) -> str:
    """A line an event: when it was told, by whom, and how long after taken by whom, or set aside."""
    lines: list[str] = []
    for trace in traces(steps):
        lines.append(f"trace {trace[0].trace} began {trace[0].told_at:%Y-%m-%d %H:%M:%S}Z")
        lines += [_line(step, trace[0].told_at) for step in trace]
    return "\n".join([*lines, _sum(steps)])


def _line(step: Step, began: datetime) -> str:
    taken = [f"{service} {_ms(step.told_at, at)}" for service, at in sorted(step.taken.items(), key=lambda it: it[1])]
    taken += [f"{service} has parked it" for service in step.parked]
    if not taken:
        taken = ["not taken yet" if step.published else "not published yet"]
    when = f"+{_ms(began, step.told_at)}"
    return f"{when:>12}  {step.service:<9}{step.type:<22}{', '.join(taken)}"


def _sum(steps: Sequence[Step]) -> str:
    services = {step.service for step in steps} | {service for step in steps for service in step.taken}
    return f"{len(steps)} events in {len(traces(steps))} traces through {len(services)} services"


def _ms(since: datetime, at: datetime) -> str:
    return f"{(at - since).total_seconds() * 1000:.0f} ms"


# -- as a picture

COLOURS = {"intake": "#0072b2", "workflow": "#d55e00", "finance": "#009e73", "housing": "#cc79a7", "audit": "#7f7f7f"}
WIDTH, LABEL, TOP, ROW, HEAD = 980, 270, 70, 22, 30
TICKS = 4


@dataclass(frozen=True)
class _Scale:
    """Where a moment of a trace lies: `began` at the edge of the labels, `longest` seconds later at the right edge."""

    began: datetime
    longest: float

    def x(self, at: datetime) -> float:
        share = (at - self.began).total_seconds() / self.longest
        return LABEL + round(share * (WIDTH - LABEL - 20), 1)


def as_svg(steps: Sequence[Step], title: str) -> str:
    """The same as a picture (SVG). A row an event: a bar until the first service took it, in the teller's colour; a
    line in each service's own until that one took it. All traces have one scale, and each begins at the left."""
    groups = traces(steps)
    longest = max((max(step.last_at for step in g) - g[0].told_at).total_seconds() for g in groups) or 0.001
    y, parts = TOP, [_legend()]
    for group in groups:
        scale = _Scale(group[0].told_at, longest)
        parts.append(_head(group[0], y))
        y += HEAD
        for step in group:
            parts.append(_row(step, scale, y))
            y += ROW
    frame = f'<rect width="{WIDTH}" height="{y + 10}" fill="white"/>'
    grid = "".join(_tick(longest * n / TICKS, longest, y) for n in range(TICKS + 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{escape(title)}</title>{frame}'
        f'<text x="10" y="22" font-size="15" font-weight="bold">{escape(title)}: {_sum(steps)}</text>'
        f"{grid}{''.join(parts)}</svg>\n"
    )


def _legend() -> str:
    parts = [
        f'<rect x="{10 + 95 * n}" y="34" width="12" height="12" fill="{colour}"/>'
        f'<text x="{26 + 95 * n}" y="44">{service}</text>'
        for n, (service, colour) in enumerate(COLOURS.items())
    ]
    words = "bar: told until the first took it; line: told until that service took it"
    return "".join(parts) + f'<text x="{10 + 95 * len(COLOURS)}" y="44" fill="#555">{words}</text>'


def _tick(seconds: float, longest: float, bottom: int) -> str:
    x = LABEL + round(seconds / longest * (WIDTH - LABEL - 20), 1)
    return (
        f'<line x1="{x}" y1="{TOP - 4}" x2="{x}" y2="{bottom}" stroke="#e4e4e4"/>'
        f'<text x="{x}" y="{TOP - 8}" text-anchor="middle" fill="#555">{seconds * 1000:.0f} ms</text>'
    )


def _head(first: Step, y: int) -> str:
    words = f"trace {first.trace[:8]}…, began {first.told_at:%Y-%m-%d %H:%M:%S}Z"
    return f'<text x="10" y="{y + 22}" font-weight="bold" fill="#333">{words}</text>'


def _row(step: Step, scale: _Scale, y: int) -> str:
    middle, colour = y + ROW / 2, COLOURS[step.service]
    label = f'<text x="10" y="{middle + 4}"><tspan fill="{colour}">{step.service}</tspan> {escape(step.type)}</text>'
    began, taken = scale.x(step.told_at), scale.x(step.first_taken_at)
    size = f'width="{max(1.5, taken - began):.1f}" height="{ROW - 8}"'
    bar = f'<rect x="{began}" y="{y + 4}" {size} fill="{colour}" opacity="0.55"/>'
    return label + bar + "".join(_takers(step.taken, began, scale, y))


def _takers(taken: Mapping[str, datetime], began: float, scale: _Scale, y: int) -> Iterable[str]:
    for service, at in taken.items():
        line, x = y + 5 + 3 * list(COLOURS).index(service), scale.x(at)
        yield f'<line x1="{began}" y1="{line}" x2="{x}" y2="{line}" stroke="{COLOURS[service]}" stroke-width="1.5"/>'
        yield f'<circle cx="{x}" cy="{line}" r="2.5" fill="{COLOURS[service]}"/>'
