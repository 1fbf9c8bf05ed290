"""Values as callers send them in JSON: what a schema can say, said so that no other form slips through.

Pydantic's own types take more than the JSON Schema that they publish: a number for a truth value, a text for a number,
seconds since 1970 for an instant; and they refuse `1.0`, which JSON Schema calls an integer.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints
from pydantic_core import PydanticCustomError, PydanticKnownError

from libs.common.identity import invisible_characters

NO_NUL = r"^[^\x00]*$"
"""The pattern of a text that PostgreSQL can hold."""

NOT_BLANK = r"^[^\x00]*[^\x00\s][^\x00]*$"
"""The pattern of such a text that is not all blanks."""

_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_LAYOUT = frozenset("\n\r\t")


def _whole(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise PydanticKnownError("int_type")


def _instant(value: object) -> object:
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        return value
    raise PydanticKnownError("datetime_type")


def _visible(words: str) -> str:
    if set(invisible_characters(words)) - _LAYOUT:
        raise PydanticCustomError("invisible-character", "请删去不可见字符后重新填写。")
    return words


WHOLE = BeforeValidator(_whole)
"""Makes an `int` a JSON integer: no truth value, no text. Stands after the bounds, which the schema would else not
show."""

Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]
"""An instant of RFC 3339."""

VISIBLE = AfterValidator(_visible)
"""Makes a text words that people write and read: line breaks, but nothing that shows nothing or turns the direction of
reading. Stands after the bounds too."""

Sentence = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NOT_BLANK), VISIBLE
]
"""Up to 500 characters of such words, and not only blanks."""
