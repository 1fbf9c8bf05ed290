"""JSON lines as callers send them: read as they come, each with its number, none longer than the limit."""

from collections.abc import AsyncIterator
from email.message import Message

from fastapi import Request

from libs.common.errors import UnsupportedMediaType
from libs.common.settings import MIB

MAX_LINE_BYTES = MIB // 4
MAX_FILE_BYTES = 16 * MIB
MEDIA_TYPE = "application/x-ndjson"


def check_media_type(request: Request) -> None:
    """Raises UnsupportedMediaType where the body is no JSON lines."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    if message.get_content_type() != MEDIA_TYPE:
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
