"""A database that is none: intake's statements are answered from memory, at once, as a fresh database would."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from libs.common.db import Database
from libs.common.idempotency import _CLAIM
from services.intake import applications, claims, employers, settlement

Given = Mapping[str, Any]
_EMPLOYERS: dict[str, UUID] = {}


class Result(list[SimpleNamespace]):
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


def _rows(**columns: Iterable[Any]) -> Iterator[SimpleNamespace]:
    for values in zip(*columns.values(), strict=True):
        yield SimpleNamespace(**dict(zip(columns, values, strict=True)))


def _known_employers(given: Given) -> Iterator[SimpleNamespace]:
    codes = [code for code in given["codes"] if code in _EMPLOYERS]
    nothing = [None] * len(codes)
    return _rows(
        ref=[_EMPLOYERS[code] for code in codes], credit_code=codes, name=nothing, kind=nothing, status=nothing
    )


def _add_employers(given: Given) -> Iterator[SimpleNamespace]:
    _EMPLOYERS.update(zip(given["codes"], given["refs"], strict=True))
    return iter(())


_ANSWERS: Mapping[int, Callable[[Given], Iterator[SimpleNamespace]]] = {
    id(_CLAIM): lambda given: _rows(key=given["keys"]),
    id(applications._NEXT_NUMBERS): lambda given: _rows(platform=given["platforms"], last=given["wanted"]),
    id(settlement._SAVE_ITEMS): lambda given: _rows(
        id=given["ids"], application=given["applications"], code=given["codes"]
    ),
    id(claims._LEADING): lambda given: _rows(ref=given["people"], leading=given["people"]),
    id(claims._TAKE): lambda given: _rows(
        person=given["people"], code=given["codes"], application=given["applications"]
    ),
    id(employers._ON_RECORD): _known_employers,
    id(employers._ADD): _add_employers,
}
