"""A database that is none: intake's statements are answered from memory, at once, as a database would that holds
people and employers whom it was told of, and nothing else."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from libs.common.db import Database
from libs.common.idempotency import _CLAIM
from services.intake import applications, claims, employers, people, settlement

Given = Mapping[str, Any]
Row = SimpleNamespace
_EMPLOYERS: dict[str, Row] = {}
_STATED: dict[UUID, list[Row]] = {}
_DOCUMENTS: dict[bytes, Row] = {}
_NAMED: defaultdict[UUID, list[Row]] = defaultdict(list)


class Result(list[Row]):
    """Rows, as far as intake asks for them."""

    def all(self) -> "Result":
        """Every row."""
        return self

    def scalars(self) -> Iterator[Any]:
        """The first column."""
        return (next(iter(vars(row).values())) for row in self)


class NoConnection:
    """Executes nothing."""

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}

    async def execute(self, statement: object, given: Given | None = None) -> Result:
        """What a database would answer."""
        answer = _ANSWERS.get(id(statement))
        return Result(answer(given or {}) if answer else ())


class NoDatabase(Database):
    """Gives connections that execute nothing."""

    def __init__(self) -> None: ...

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """No transaction."""
        yield NoConnection()


def _rows(**columns: Iterable[Any]) -> Iterator[Row]:
    for values in zip(*columns.values(), strict=True):
        yield Row(**dict(zip(columns, values, strict=True)))


def _add_employers(given: Given) -> Iterator[Row]:
    for ref, code in zip(given["refs"], given["codes"], strict=True):
        _EMPLOYERS[code] = Row(ref=ref, credit_code=code, name=None, kind=None, status=None)
    return iter(())


def _add_versions(given: Given) -> Iterator[Row]:
    known = {row.ref: row for row in _EMPLOYERS.values()}
    told = (given[name] for name in ("employers", "names", "kinds", "statuses"))
    for ref, name, kind, status in zip(*told, strict=True):
        vars(known[ref]).update(name=name, kind=kind, status=status)
    return iter(())


def _state(given: Given) -> Iterator[Row]:
    told = ("employer", "statement", "kind", "treasury", "evidence", "valid_from", "valid_to")
    names = ("employers", "statements", "kinds", "treasuries", "evidences", "froms", "tos")
    rows = list(_rows(**dict(zip(told, (given[name] for name in names), strict=True)), id=range(len(given["kinds"]))))
    for employer in set(given["employers"]):
        _STATED[employer] = [row for row in rows if row.employer == employer]
    return iter(())


def _add_documents(given: Given) -> Iterator[Row]:
    told = {"person": "people", "type": "types", "number_index": "indexes", "claimed": "claimed"}
    for row in _rows(**{name: given[names] for name, names in told.items()}, id=range(len(given["people"]))):
        _DOCUMENTS.setdefault(row.number_index, row)
    return iter(())


def _add_names(given: Given) -> Iterator[Row]:
    for row in _rows(person=given["people"], name_index=given["indexes"]):
        _NAMED[row.person].append(row)
    return iter(())


_ANSWERS: Mapping[int, Callable[[Given], Iterable[Row]]] = {
    id(_CLAIM): lambda given: _rows(key=given["keys"]),
    id(applications._NEXT_NUMBERS): lambda given: _rows(platform=given["platforms"], last=given["wanted"]),
    id(settlement._SAVE_ITEMS): lambda given: _rows(
        id=given["ids"], application=given["applications"], code=given["codes"]
    ),
    id(claims._LEADING): lambda given: _rows(ref=given["people"], leading=given["people"]),
    id(claims._TAKE): lambda given: _rows(
        person=given["people"], code=given["codes"], application=given["applications"]
    ),
    id(employers._ON_RECORD): lambda given: [_EMPLOYERS[code] for code in given["codes"] if code in _EMPLOYERS],
    id(employers._ADD): _add_employers,
    id(employers._ADD_VERSIONS): _add_versions,
    id(employers._STATE): _state,
    id(employers._AFFILIATIONS): lambda given: [row for ref in given["employers"] for row in _STATED.get(ref, ())],
    id(people._BY_DOCUMENTS): lambda given: [_DOCUMENTS[index] for index in given["indexes"] if index in _DOCUMENTS],
    id(people._ADD_DOCUMENTS): _add_documents,
    id(people._NAMES): lambda given: [row for ref in given["people"] for row in _NAMED.get(ref, ())],
    id(people._ADD_NAMES): _add_names,
}
