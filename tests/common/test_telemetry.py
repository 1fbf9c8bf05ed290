"""Traces go on from cause to effect; log lines are JSON and hold no value that a driver refused."""

import io
import json
import logging
from collections.abc import Iterator
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.telemetry import child_of, configure, current_traceparent, described, trace_id, use, valid_traceparent

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure(stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_child_keeps_trace_and_flags_and_has_a_span_of_its_own() -> None:
    child = child_of(GIVEN)
    assert valid_traceparent(child)
    assert (child[:35], child[-3:]) == (GIVEN[:35], "-00")
    assert child != GIVEN


@given(st.text(max_size=80))
def test_whatever_comes_in_a_valid_trace_goes_out(text: str) -> None:
    assert valid_traceparent(child_of(text))


def test_work_in_a_block_belongs_to_its_trace_and_only_there() -> None:
    with use(GIVEN):
        assert (current_traceparent(), trace_id()) == (GIVEN, GIVEN[3:35])
    assert current_traceparent() is trace_id() is None


def test_a_line_of_any_library_is_one_json_object_with_its_trace(lines: io.StringIO) -> None:
    with use(GIVEN):
        logging.getLogger("a.library").warning("%s 张三", "hello")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["logger"], line["level"]) == ("hello 张三", "a.library", "warning")
    assert line["trace"] == GIVEN[3:35]


def test_an_exception_is_told_by_type_and_place_without_its_message(lines: io.StringIO) -> None:
    try:
        try:
            raise KeyError("410522199003071234")
        except KeyError as error:
            raise RuntimeError("410522199003071234") from error
    except RuntimeError as error:
        logging.getLogger("a.library").exception("failed")
        shown = described(error, with_messages=True)
    assert shown[0] == "RuntimeError: 410522199003071234"
    assert "410522199003071234" not in lines.getvalue()
    told = json.loads(lines.getvalue())["exception"]
    assert [line for line in told if not line.startswith(" ")] == ["RuntimeError", "KeyError"]


def test_the_kafka_client_complains_once_and_not_in_a_loop(lines: io.StringIO) -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # as a command does
    configure(stream=lines)
    own = f"aiokafka.{uuid4().hex}"  # another test of this process may have heard from a real client just now
    for _ in range(5):
        logging.getLogger(own).error("NodeNotReadyError: %s", object())
    assert len(lines.getvalue().splitlines()) == 1
