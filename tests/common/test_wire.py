"""Values as callers send them: what their schema says is what is taken, no more and no less."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from libs.common.dated import Day, between
from libs.common.errors import ContentWrong, InvalidRequest
from libs.common.field_errors import refusal
from libs.common.paging import PageRequest, read_after
from libs.common.wire import WHOLE, Instant, Sentence


class Sent(BaseModel):
    count: Annotated[int, Field(gt=0, le=10), WHOLE] = 1
    at: Instant | None = None
    words: Sentence = "为什么"
    on: Annotated[Day | None, between(date(2005, 1, 1), date(2099, 12, 30))] = None


def code_of(**given: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        Sent(**given)
    return refusal([{**each, "loc": ("body", *each["loc"])} for each in refused.value.errors()], given).code


def test_a_whole_number_may_be_written_with_a_point_as_json_schema_has_it() -> None:
    assert Sent(count=3.0).count == 3


@pytest.mark.parametrize(
    "given",
    [{"count": value} for value in ("3", True, 3.5, float("inf"), float("nan"), None, 0, 11, 1e300)]
    + [{"at": value} for value in (0, "0", "1700000000", "2026-02-13", "2026-02-13T09:00:00", "2026-02-13T09:00:60Z")]
    + [{"words": value} for value in ("", " ", "\u3000", "a\0", "字" * 501, 7)]
    + [{"on": value} for value in (0, "2026-02-30", "2026-02-13T00:00:00Z")],
    ids=repr,
)
def test_what_is_of_another_form_is_refused_for_its_form(given: dict[str, Any]) -> None:
    assert code_of(**given) == InvalidRequest.code


@pytest.mark.parametrize(
    "given",
    [{"words": f"改{mark}为"} for mark in "\u200b\u202e\u2066\ufe0f\x1b\u2028\ufeff"]
    + [{"on": "2004-12-31"}, {"on": "2099-12-31"}],
    ids=ascii,
)
def test_what_has_the_right_form_is_refused_for_its_content(given: dict[str, Any]) -> None:
    assert code_of(**given) == ContentWrong.code


def test_the_schema_shows_the_bounds() -> None:
    shown = Sent.model_json_schema()["properties"]
    assert (shown["count"]["exclusiveMinimum"], shown["count"]["maximum"]) == (0, 10)
    assert shown["words"]["maxLength"] == 500


def test_words_may_run_over_several_lines_and_into_the_newest_planes() -> None:
    assert Sent(words=" 𠀀𪜀𫝀𫠠𬺰𰀀𱍐\n\t第二行 ").words == "𠀀𪜀𫝀𫠠𬺰𰀀𱍐\n\t第二行"


def test_a_place_in_a_list_is_read_as_its_kind() -> None:
    record = uuid4()
    asked = PageRequest(50, ("2026-02-13", str(record)))
    assert read_after(asked, date.fromisoformat, UUID) == (date(2026, 2, 13), record)
    assert read_after(PageRequest(50, None), UUID) is None


@given(st.lists(st.none() | st.integers() | st.text(), max_size=3))
def test_the_cursor_of_another_list_is_refused_for_its_content(after: list[str | int | None]) -> None:
    with pytest.raises(ContentWrong):
        read_after(PageRequest(50, tuple(after)), date.fromisoformat, UUID)
