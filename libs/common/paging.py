"""Reading lists page by page, and writing only what one has read: opaque cursors, ETag and If-Match."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Header, Query
from pydantic import BaseModel, Field

from libs.common.errors import ContentWrong, PreconditionFailed, PreconditionRequired
from libs.common.field_errors import field_error

T = TypeVar("T")
Scalar = str | int | None
MAX_LIMIT = 200
MAX_CURSOR = 512
CURSOR = "query/cursor"
_RUNNING_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class Page(BaseModel, Generic[T]):
    """One page of a list. `next` goes into `cursor` for the following page; it is absent on the last."""

    items: list[T]
    next: str | None = Field(default=None, description="游标：取下一页时填入 cursor；没有下一页时为空")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for: at most `limit` items that come after the sort key `after` (None: from the start)."""

    limit: int
    after: tuple[Scalar, ...] | None


async def paging(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="每页条数")] = 50,
    cursor: Annotated[str | None, Query(max_length=MAX_CURSOR, description="上一页返回的 next")] = None,
) -> PageRequest:
    """Read `limit` and `cursor`. Raises ContentWrong for a cursor that is not ours."""
    return PageRequest(limit, None if cursor is None else decode_cursor(cursor))


Paging = Annotated[PageRequest, Depends(paging)]


def page_of(items: Sequence[T], request: PageRequest, key: Callable[[T], tuple[Scalar, ...]]) -> Page[T]:
    """A page from up to `request.limit + 1` items in order of `key`: the one too many says that there is more."""
    shown = list(items[: request.limit])
    more = len(items) > request.limit
    return Page(items=shown, next=encode_cursor(*key(shown[-1])) if more else None)


def encode_cursor(*after: Scalar) -> str:
    """An opaque, address-safe cursor for a sort key."""
    return base64.urlsafe_b64encode(json.dumps(after, separators=(",", ":")).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, field: str = CURSOR) -> tuple[Scalar, ...]:
    """The sort key in a cursor, which came as `field`. Raises ContentWrong."""
    try:
        after = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        after = None
    if not isinstance(after, list) or not all(map(_sorts, after)):
        raise wrong_cursor(field)
    return tuple(after)


def _sorts(value: object) -> bool:
    return value.isprintable() if isinstance(value, str) else isinstance(value, int | None)


def read_after(asked: PageRequest, *kinds: Callable[[str], Any]) -> tuple[Any, ...] | None:
    """The sort key that the page comes after, each part read by its kind (`UUID`, `date.fromisoformat`, `str`); None
    from the start. Raises ContentWrong for the cursor of another list."""
    if asked.after is None:
        return None
    try:
        return tuple(read(str(value)) for read, value in zip(kinds, asked.after, strict=True))
    except ValueError:
        raise wrong_cursor() from None


def running_number(text: str) -> int:
    """A number that the database gave a row, as a part of a sort key. Raises ValueError."""
    if not _RUNNING_NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def wrong_cursor(field: str = CURSOR) -> ContentWrong:
    """The refusal of a cursor that holds no sort key of the list it was given to; it came as `field`."""
    return ContentWrong(errors=[field_error(field, "cursor")])


IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=200, description="所读版本的 ETag")]


def etag(version: int) -> str:
    """The strong ETag of a record's version."""
    return f'"{version}"'


def check_version(if_match: str | None, version: int) -> None:
    """Refuse a change that was not made on this version. Raises PreconditionRequired, PreconditionFailed."""
    if if_match is None:
        raise PreconditionRequired
    if etag(version) not in {tag.strip() for tag in if_match.split(",")} and if_match.strip() != "*":
        raise PreconditionFailed
