"""Spans with durations, on the `traceparent` that requests and events carry anyway: off unless a collector is named.

A span is one piece of work: a request from its first byte to its last; an event from the moment it was told to the bus;
an event from a reader's first look at it to the commit of its effects. In a batch each event goes on in its own trace.
Attributes are routes, types, topics and the key of an event: nobody's name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from time import time_ns
from typing import Protocol, TypeVar

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace import Span as Recorded

from libs.common.settings import Settings
from libs.common.telemetry import child_of, valid_traceparent

EXPORT_SECONDS = 5
QUEUE = (
    20_000  # spans waiting to be sent; with more, or with a collector that is away, they are dropped and nothing waits
)

# The traceparent of the span under which each event (by its id) is handled at present.
_HANDLED: ContextVar[Mapping[str, str]] = ContextVar("handled", default={})  # noqa: B039 - never mutated, only replaced


class Told(Protocol):
    """What a span of an event is made from: a record of the bus, or a message to it."""

    @property
    def key(self) -> str:
        """The event's key."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its CloudEvents headers."""


R = TypeVar("R", bound=Told)


class Span:
    """One piece of work under way. `traceparent` is what it causes continues."""

    __slots__ = ("_recorded", "traceparent")

    def __init__(self, traceparent: str, recorded: Recorded | None = None) -> None:
        self.traceparent = traceparent
        self._recorded = recorded

    def end(self, name: str, attributes: Mapping[str, str | int], *, failed: bool = False) -> None:
        """The work is done, and only now is it known what it was."""
        if self._recorded is not None:
            self._recorded.update_name(name)
            self._recorded.set_attributes(attributes)
            if failed:
                self._recorded.set_status(Status(StatusCode.ERROR))
            self._recorded.end()


class Tracing:
    """A service's spans; without settings that name a collector nothing is recorded, and traces go on all the same."""

    def __init__(self, service: str = "", settings: Settings | None = None) -> None:
        self._provider = _provider(service, settings) if settings and settings.traces_url else None
        self._tracer: Tracer | None = self._provider.get_tracer("huanquan") if self._provider else None

    def request(self, parent: str | None) -> Span:
        """An HTTP request has come in, with this `traceparent` or none."""
        if self._tracer is None:
            return Span(child_of(parent))
        recorded = self._tracer.start_span("request", _context(parent), SpanKind.SERVER)
        return Span(_traceparent(recorded), recorded)

    def published(self, messages: Sequence[Told]) -> None:
        """These events are on the bus now; they were told at their own time."""
        if self._tracer is None:
            return
        for message in messages:
            parent = _context(message.headers["ce_traceparent"])
            told_at = int(datetime.fromisoformat(message.headers["ce_time"]).timestamp() * 1e9)
            began = min(told_at, time_ns())  # a clock may have been set back meanwhile
            span = self._tracer.start_span(
                f"publish {message.headers['ce_type']}",
                parent,
                SpanKind.PRODUCER,
                attributes=_attributes(message),
                start_time=began,
            )
            span.end()

    @contextmanager
    def handling(self, records: Sequence[R], hears: Callable[[R], bool]) -> Iterator[None]:
        """Those of these events that the service hears are handled, and their effects committed, in this block; what
        they cause continues their spans."""
        if self._tracer is None:
            yield
            return
        spans = {r.headers.get("ce_id", ""): self._handled(self._tracer, r) for r in records if hears(r)}
        token = _HANDLED.set({event_id: _traceparent(span) for event_id, span in spans.items()})
        failed = True
        try:
            yield
            failed = False
        finally:
            _HANDLED.reset(token)
            for span in spans.values():
                if failed:
                    span.set_status(Status(StatusCode.ERROR))
                span.end()

    def _handled(self, tracer: Tracer, record: Told) -> Recorded:
        name = f"handle {record.headers.get('ce_type', '')}"
        parent = _context(record.headers.get("ce_traceparent"))
        return tracer.start_span(name, parent, SpanKind.CONSUMER, attributes=_attributes(record))

    def close(self) -> None:
        """Send what is left, within a few seconds, and end."""
        if self._provider is not None:
            self._provider.shutdown()


def handled_as(event_id: str, trace: str | None) -> str | None:
    """The traceparent that what an event causes continues: of its handling, where that is recorded, else its own."""
    return _HANDLED.get().get(event_id, trace)


def _provider(service: str, settings: Settings) -> TracerProvider:
    resource = Resource({SERVICE_NAME: f"huanquan-{service}", SERVICE_INSTANCE_ID: settings.instance})
    sampler = ParentBased(TraceIdRatioBased(settings.traces_ratio))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=settings.traces_url, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=1000))
    return provider


def _context(traceparent: str | None) -> Context:
    if traceparent is None or not valid_traceparent(traceparent):
        return Context()
    ids = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    parent = SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(int(traceparent[53:], 16)))
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _traceparent(span: Recorded) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _attributes(told: Told) -> dict[str, str]:
    headers = told.headers
    named = {
        "ce_type": "cloudevents.event_type",
        "ce_id": "cloudevents.event_id",
        "ce_source": "cloudevents.event_source",
    }
    return {"huanquan.key": told.key} | {name: headers[header] for header, name in named.items() if header in headers}
