"""What is told of a field: words for clerks, not pydantic's."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from libs.common.dated import Day
from libs.common.field_errors import field_errors


class Colour(StrEnum):
    """Three values, so that commas and the last word between them both occur."""

    RED = "a"
    GREEN = "b"
    BLUE = "c"


class One(BaseModel):
    """One alternative of a tagged union."""

    kind: Literal["one"]


class Two(BaseModel):
    """The other one."""

    kind: Literal["two"]


class Document(BaseModel):
    """A field of each sort that lists what may be filled in."""

    colour: Colour = Colour.RED
    letter: Literal["a", "b", "c"] = "a"
    number: Literal[1, 2] = 1
    warm: Literal[Colour.RED, Colour.GREEN] = Colour.RED
    part: Annotated[One | Two | None, Field(discriminator="kind")] = None
    day: Annotated[Day, Field(le=date(2099, 12, 31))] = date(2026, 3, 2)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"colour": "x"}, "可填：a、b、c。"),
        ({"letter": "x"}, "可填：a、b、c。"),
        ({"number": 3}, "可填：1、2。"),
        ({"warm": "c"}, "可填：a、b。"),
        ({"part": {"kind": "x"}}, "可填：one、two。"),
        ({"part": {}}, "请填写 kind。"),
        ({"day": "2199-01-01"}, "应不大于 2099-12-31。"),
    ],
)
def test_what_may_be_filled_in_is_told_as_people_write_it_and_not_as_python_does(
    body: dict[str, object], told: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Document.model_validate(body)
    (error,) = field_errors([{**each, "loc": ("body", *each["loc"])} for each in caught.value.errors()], body)
    assert error.detail == told
