"""A change in one statement: rows that change, what is written beside them, and the events that tell of it.

Apart they are three messages to the server and three answers, and each takes as long as the work itself
(docs/benchmarks-tuning.md). Such a statement is atomic by itself, so on a connection without a transaction
(`Database.statements`) it is a whole one: no BEGIN, no COMMIT.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import EMITTED
from libs.common.events import Event
from libs.common.outbox import WAITING, appended
from libs.common.transaction import Plain, Transaction, plain

_NAME = re.compile(r"(?<![:\w]):(\w+)")


class Write(NamedTuple):
    """A statement that writes, with its parameters."""

    statement: TextClause
    parameters: Mapping[str, Any]


async def change(tx: AsyncConnection, changed: Write, *beside: Write, events: Sequence[Event] = ()) -> int:
    """Write `changed`, `beside` and the events in one statement; gives how many rows `changed` gave.

    `changed` ends with RETURNING and is the first to be written: its rows are locked before the events take their
    places in the outbox, and where it gives no row there are no events. What stands beside sees nothing of it but its
    rows, as the table `changed`; INSERT … SELECT … FROM changed writes nothing where nothing was changed.
    """
    writes = [changed, *beside]
    if events:
        tx.info[EMITTED] = True
        writes.append(Write(*appended(events, behind="changed")))
    sql, places = _joined(tuple([write.statement for write in writes]), tells=bool(events))
    return len(await cast("Transaction", tx).rows(sql, [writes[n].parameters[name] for n, name in places]))


@lru_cache(maxsize=1024)
def _joined(statements: tuple[TextClause, ...], *, tells: bool) -> tuple[str, Sequence[tuple[int, str]]]:
    """The statements as parts of one, as the driver takes it; with it each parameter's statement and its name there.
    Where it `tells`, the last one appends events."""
    # Parameters of its own for each: `:name` of the third is `:name_2`.
    parts = [_NAME.sub(rf":\1_{n}", statement.text) for n, statement in enumerate(statements)]
    names = ["changed", *(f"beside_{n}" for n in range(1, len(parts)))]
    if tells:
        names[-1:] = ["told", "waiting"]
        parts.append(WAITING)
    named = ", ".join(f"{name} AS ({part})" for name, part in zip(names, parts, strict=True))
    places = {f"{name}_{n}": (n, name) for n, each in enumerate(statements) for name in _NAME.findall(each.text)}
    # What is read here is written first, to its end; the others, which nobody reads, when this is done.
    joined = cast("Plain", plain(text(f"WITH {named} SELECT FROM changed")))  # anew: no parameter has a type
    return joined.sql, [places[name] for name in joined.names]
