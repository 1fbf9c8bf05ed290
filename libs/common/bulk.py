"""Bulk requests whose lines stand each for itself: a bad line harms no other, and each has its answer in order."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from libs.common.errors import DomainError, Problem
from libs.common.field_errors import refusal
from libs.common.settings import MIB
from libs.common.telemetry import trace_id

L = TypeVar("L", bound=BaseModel)

MAX_LINES = 500
BULK_BYTES = 4 * MIB


class DuplicateLine(DomainError):
    """409: an earlier line of the same file names the same record."""

    status, code, title = 409, "duplicate-line", "同一批次中重复"
    detail = "同一批次中已有该记录的一行，本行未处理。"


class BulkLine(BaseModel):
    """What became of one line. `id` repeats the record that it named, where it could be read."""

    id: str | None
    status: int = Field(description="200 成功；否则为该行的错误状态")
    problem: Problem | None = None


class BulkReply(BaseModel):
    """What became of each line, in the order of the request."""

    lines: list[BulkLine]
    succeeded: int
    refused: int


def read_lines(model: type[L], key: str, raw: Sequence[Any]) -> tuple[list[L], dict[int, DomainError]]:
    """The lines that are well formed (each record once), and the refusal of each other line by its place."""
    good: dict[Hashable, L] = {}
    refused: dict[int, DomainError] = {}
    for place, each in enumerate(raw):
        try:
            line = model.model_validate(each)
        except ValidationError as error:
            defects = [{**defect, "loc": ("body", *defect["loc"])} for defect in error.errors()]
            refused[place] = refusal(defects, each)
            continue
        named = getattr(line, key)
        if named in good:
            refused[place] = DuplicateLine()
        else:
            good[named] = line
    return list(good.values()), refused


def bulk_reply(
    key: str,
    raw: Sequence[Any],
    malformed: Mapping[int, DomainError],
    refused: Mapping[Any, DomainError],
    *,
    read: Callable[[str], object] = UUID,
) -> BulkReply:
    """The answer to a bulk request, line by line. `read` makes what a line names its record by of the text that came;
    it raises ValueError for what names none."""
    by_name = {str(named): error for named, error in refused.items()}
    lines = []
    for place, each in enumerate(raw):
        named = _named(each, key, read)
        error = malformed.get(place) or by_name.get(named or "")
        lines.append(BulkLine(id=named, status=error.status if error else 200, problem=_problem(error)))
    bad = sum(line.problem is not None for line in lines)
    return BulkReply(lines=lines, succeeded=len(lines) - bad, refused=bad)


def _named(line: Any, key: str, read: Callable[[str], object]) -> str | None:
    given = line.get(key) if isinstance(line, Mapping) else None
    try:
        return str(read(given)) if isinstance(given, str) else None
    except ValueError:
        return None


def _problem(error: DomainError | None) -> Problem | None:
    if error is None:
        return None
    trace = trace_id()
    return Problem.model_validate(error.problem(f"urn:huanquan:trace:{trace}" if trace else None))
