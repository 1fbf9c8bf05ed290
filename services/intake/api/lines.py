"""JSON lines as callers send them: read as they come, each with its number, none longer than the limit."""

import json
from collections.abc import AsyncIterator, Iterable
from email.message import Message
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from libs.common.errors import MalformedBody, UnsupportedMediaType
from libs.common.field_errors import refusal
from libs.common.settings import MIB

M = TypeVar("M", bound=BaseModel)

MAX_LINE_BYTES = MIB // 4
MAX_FILE_BYTES = 16 * MIB
MEDIA_TYPE = "application/x-ndjson"
ANY_BYTES = "application/octet-stream"
"""Taken too: generated clients know no JSON lines, and drop an operation that takes nothing else."""


def documented(description: str, example: object) -> dict[str, Any]:
    """The body of JSON lines as OpenAPI shows it, with an example of one line."""
    content = {
        MEDIA_TYPE: {"schema": {"type": "string"}, "example": f"{_line(example)}\n"},
        ANY_BYTES: {"schema": {"type": "string", "format": "binary"}},
    }
    return {"requestBody": {"required": True, "description": description, "content": content}}


def answered(description: str) -> dict[int | str, dict[str, Any]]:
    """The answer in JSON lines as OpenAPI shows it."""
    return {200: {"description": description, "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}}


def written(results: Iterable[object]) -> Response:
    """An answer of one line a result."""
    return Response("".join(f"{_line(result)}\n" for result in results), media_type=MEDIA_TYPE)


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loaded(raw: bytes) -> Any:
    """What stands in a line. Raises MalformedBody."""
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise MalformedBody from None


def validated(model: type[M], found: Any) -> M:
    """What stands in a line, as its model. Raises InvalidRequest or ContentWrong, naming every field."""
    try:
        return model.model_validate(found)
    except ValidationError as error:
        defects = [{**defect, "loc": ("body", *defect["loc"])} for defect in error.errors(include_input=False)]
        raise refusal(defects, found) from None


def check_media_type(request: Request) -> None:
    """Raises UnsupportedMediaType where the body is neither JSON lines nor bytes."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    if message.get_content_type() not in {MEDIA_TYPE, ANY_BYTES}:
        raise UnsupportedMediaType(accepted=MEDIA_TYPE)


async def lines_of(request: Request) -> AsyncIterator[tuple[int, bytes | None]]:
    """The lines that are not blank, with their numbers from 1; None for a line over the limit."""
    number, held, over = 0, b"", False
    async for chunk in request.stream():
        *ended, rest = (held + chunk).split(b"\n")
        for line in ended:
            number += 1
            if over or line.strip():
                yield number, None if over or len(line) > MAX_LINE_BYTES else line
            over = False
        over = over or len(rest) > MAX_LINE_BYTES
        held = b"" if over else rest
    if over or held.strip():
        yield number + 1, None if over else held
