"""A collector of spans for tests: takes OTLP over HTTP on a port of its own, as any intranet collector does."""

from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True)
class Told:
    """One span as it came. Instants in nanoseconds; ids in hexadecimal."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    begins: int
    ends: int
    attributes: dict[str, str]
    failed: bool

    @property
    def seconds(self) -> float:
        return (self.ends - self.begins) / 1e9


class Collector:
    """Collects as long as its block lasts."""

    def __init__(self) -> None:
        self.spans: list[Told] = []
        collected = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collected.extend(spans_in(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def spans_in(body: bytes) -> list[Told]:
    """The spans of one export."""
    return [
        _told({each.key: _text(each.value) for each in resource.resource.attributes}, span)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _told(about: dict[str, str], span: Span) -> Told:
    return Told(
        service=about["service.name"],
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        begins=span.start_time_unix_nano,
        ends=span.end_time_unix_nano,
        attributes={each.key: _text(each.value) for each in span.attributes},
        failed=span.status.code == Status.STATUS_CODE_ERROR,
    )


def _text(value: AnyValue) -> str:
    return str(getattr(value, str(value.WhichOneof("value"))))
