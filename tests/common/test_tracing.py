"""Spans: each with its duration under the one that caused it, sent to a collector; nothing where none is named."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from libs.common.bus.protocol import Record, Slot
from libs.common.outbox import caused_by, message
from libs.common.settings import Settings
from libs.common.telemetry import use, valid_traceparent
from libs.common.tracing import Tracing, handled_as
from tests.collector import Collector
from tests.contracts.toy import PACK, Happened

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAMPLED = 1
TRACE, PARENT = GIVEN[3:35], GIVEN[36:52]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def tracing_to(collector: Collector, home: Path, **more: float) -> Tracing:
    return Tracing("toy", Settings(home=home, traces_url=collector.url, **more))  # type: ignore[arg-type]


def a_record(number: int, trace: str = GIVEN) -> Record:
    event = Happened(policy=PACK, of=f"k{number}", number=number)
    with use(trace):
        return Record(Slot("toy", 0), number, event.key, message(event).headers, event.model_dump_json().encode())


def _event(record: Record) -> Happened:
    """The event as the inbox decodes it."""
    event_id, trace = UUID(record.headers["ce_id"]), record.headers["ce_traceparent"]
    event = Happened.model_validate_json(record.value)
    return event.stamped(event_id=event_id, time=datetime.now(UTC), trace=trace)


def test_a_request_is_a_span_under_the_one_that_it_names(collector: Collector, tmp_path: Path) -> None:
    tracing = tracing_to(collector, tmp_path)
    span = tracing.request(GIVEN)
    assert valid_traceparent(span.traceparent)
    span.end("POST /toy/v1/things", {"http.response.status_code": 500}, failed=True)
    tracing.close()
    (told,) = collector.spans
    assert (told.service, told.name, told.trace, told.parent) == ("huanquan-toy", "POST /toy/v1/things", TRACE, PARENT)
    assert (told.id, told.failed) == (span.traceparent[36:52], True)
    assert told.attributes["http.response.status_code"] == "500"
    assert told.ends >= told.begins


def test_an_event_is_a_span_from_when_it_was_told_until_it_is_on_the_bus(collector: Collector, tmp_path: Path) -> None:
    tracing = tracing_to(collector, tmp_path)
    record = a_record(1)
    a_second_ago = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    tracing.published([Record(record.slot, 1, "k1", {**record.headers, "ce_time": a_second_ago}, b"")])
    tracing.close()
    (told,) = collector.spans
    assert (told.name, told.trace, told.parent) == ("publish Happened", TRACE, PARENT)
    assert 1 <= told.seconds < 60
    assert told.attributes["huanquan.key"] == "k1"


async def test_in_a_batch_each_event_goes_on_in_its_own_trace(collector: Collector, tmp_path: Path) -> None:
    tracing, other = tracing_to(collector, tmp_path), "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    first, second, foreign = a_record(1), a_record(2, other), a_record(3)
    with tracing.handling([first, second, foreign], lambda record: record is not foreign):
        with caused_by([_event(first), _event(second)]):
            told = [message(Happened(policy=PACK, of=f"k{n}", number=9)).headers["ce_traceparent"] for n in (1, 2)]
        await asyncio.sleep(0.01)
    tracing.close()
    spans = {span.attributes["huanquan.key"]: span for span in collector.spans}
    assert set(spans) == {"k1", "k2"}
    assert [(spans[key].trace, spans[key].id) for key in ("k1", "k2")] == [(t[3:35], t[36:52]) for t in told]
    assert [span.trace for span in spans.values()] == [TRACE, "a" * 32]
    assert all(span.seconds >= 0.01 for span in spans.values())


def test_a_batch_that_is_refused_is_a_failed_span(collector: Collector, tmp_path: Path) -> None:
    tracing = tracing_to(collector, tmp_path)
    with pytest.raises(RuntimeError), tracing.handling([a_record(1)], lambda _: True):
        raise RuntimeError
    tracing.close()
    assert [span.failed for span in collector.spans] == [True]


def test_only_the_wished_part_of_traces_is_sent_and_all_of_one_or_nothing(collector: Collector, tmp_path: Path) -> None:
    tracing = tracing_to(collector, tmp_path, traces_ratio=0)
    begun_here, begun_elsewhere = tracing.request(None), tracing.request(GIVEN)
    assert not int(begun_here.traceparent[-2:], 16) & SAMPLED  # nobody downstream records it either
    begun_here.end("a", {})
    begun_elsewhere.end("b", {})
    tracing.close()
    assert [span.name for span in collector.spans] == ["b"]


def test_without_a_collector_traces_go_on_and_nothing_is_recorded() -> None:
    tracing = Tracing()
    span = tracing.request(GIVEN)
    assert span.traceparent[3:35] == TRACE
    span.end("a", {})
    tracing.published([a_record(1)])
    with tracing.handling([a_record(1)], lambda _: True):
        assert handled_as(a_record(1).headers["ce_id"], GIVEN) == GIVEN
    tracing.close()


async def test_a_collector_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    with Collector() as gone:
        url = gone.url
    tracing = Tracing("toy", Settings(home=tmp_path, traces_url=url))
    tracing.request(None).end("a", {})
    async with asyncio.timeout(10):
        await asyncio.to_thread(tracing.close)
