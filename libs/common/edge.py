"""The outermost layer of a service: trace context, access log, metrics, the last answer to a failure, and body limits.

Pure ASGI, so nothing is buffered. A log line holds method, route template, status and time: no query, no path
parameter, no person.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Mapping

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.errors import TooManyRequests
from libs.common.problems import failure_response
from libs.common.settings import MIB
from libs.common.telemetry import use
from libs.common.tracing import Span, Tracing

log = structlog.get_logger("access")

UNMATCHED = "(unmatched)"
MAX_CLIENTS = 10_000
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What `/metrics` tells of the HTTP edge; a service adds its own to `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "http_request_seconds",
            "Time from request to the end of the answer",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )


class Edge:
    """Wraps one service. `routes` maps an endpoint to its path template."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        tracing: Tracing,
        routes: Mapping[object, str],
        quiet: frozenset[str],
    ) -> None:
        self._app = app
        self._tracing = tracing
        self._metrics = metrics
        self._routes = routes
        self._quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request under its trace; whatever escapes becomes a problem here and is not raised again."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        span = self._tracing.request(Headers(scope=scope).get("traceparent"))
        started, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _stamp(MutableHeaders(scope=message), span.traceparent)
            await send(message)

        with use(span.traceparent):
            try:
                await self._app(scope, receive, answer)
            except Exception as error:
                response = failure_response(error)
                if status:  # the answer had begun: only breaking it off tells the client
                    raise
                await response(scope, receive, answer)
            finally:
                self._tell(scope, span, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, span: Span, status: int, seconds: float) -> None:
        route = self._routes.get(scope.get("endpoint"), UNMATCHED)
        method = scope["method"] if route != UNMATCHED else "*"  # a method is free text: bound the labels
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        told = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        span.end(f"{method} {route}", told, failed=status >= 500)
        if route not in self._quiet or status >= 400:
            principal = scope.get("state", {}).get("principal")
            client = principal.client if principal else None
            log.info("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1), client=client)


def _stamp(headers: MutableHeaders, traceparent: str) -> None:
    headers["traceparent"] = traceparent
    headers.setdefault("x-content-type-options", "nosniff")
    if "json" in headers.get("content-type", ""):
        headers.setdefault("cache-control", "no-store")


def limited(scope: Scope, receive: Receive, *, max_bytes: int, seconds_per_mib: float) -> Receive:
    """A `receive` that raises HTTPException 413 over `max_bytes` (chunked bodies too), 408 where the body is slow.

    HTTPException, because FastAPI turns anything else raised while it parses a body into a 400.
    """
    announced = Headers(scope=scope).get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise HTTPException(413, headers={"Connection": "close"})
    seen, done, deadline = 0, False, 0.0

    async def next_message() -> Message:
        nonlocal seen, done, deadline
        if done:  # what still comes is the disconnect, however late
            return await receive()
        deadline = deadline or time.monotonic() + seconds_per_mib * max(1.0, max_bytes / MIB)
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise HTTPException(408, headers={"Connection": "close"}) from None
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise HTTPException(413, headers={"Connection": "close"})
        done = not message.get("more_body", False)
        return message

    return next_message


class RateLimit:
    """A token bucket per client, in memory: it stops a loop gone wild, it is no quota."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Let one request of this client in. Raises TooManyRequests with the seconds to wait."""
        now = time.monotonic()
        level, at = self._buckets.pop(client, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._per_second)
        self._buckets[client] = (level - 1 if level >= 1 else level, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if level < 1:
            raise TooManyRequests(seconds=math.ceil((1 - level) / self._per_second))
