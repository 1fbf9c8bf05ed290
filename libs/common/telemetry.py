"""What an operator sees of a process: the W3C trace context of the work in hand, and JSON log lines without secrets.

A log line never holds a message of an exception outside development: drivers and validators put the value they
refused into it, and here that value may be somebody's identity number.
"""

import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, TextIO

import structlog

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
_RANDOM = Random()  # an identity of a trace is no secret, and the system's own randomness is slow to ask
_QUIET_SECONDS = 30.0
_MAX_FRAMES = 20
_REPEATING = ("aiokafka", "opentelemetry")
_NOISY = ("httpx", "httpcore", "uvicorn.access", "asyncio")  # uvicorn.access and httpx print query strings

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def valid_traceparent(value: str | None) -> bool:
    """Whether a header is a W3C Trace Context `traceparent` of version 00 (later ones begin the same way)."""
    return value is not None and len(value) == 55 and _TRACEPARENT.fullmatch(value) is not None


def child_of(traceparent: str | None) -> str:
    """A new span in the same trace; a new trace where there is none, or where what is given is no traceparent."""
    if traceparent is not None and valid_traceparent(traceparent):
        return f"00{traceparent[2:36]}{_span()}-{traceparent[-2:]}"
    return f"00-{_RANDOM.getrandbits(128):032x}-{_span()}-01"


def _span() -> str:
    return f"{_RANDOM.getrandbits(64):016x}"


def current_traceparent() -> str | None:
    """The `traceparent` of the request or event in hand, or None outside both."""
    return _CURRENT.get()


def trace_id() -> str | None:
    """The 32 hexadecimal digits that name the trace in hand: what a caller quotes to operators."""
    current = _CURRENT.get()
    return current[3:35] if current else None


@contextmanager
def use(traceparent: str | None) -> Iterator[None]:
    """Work in the block belongs to this trace."""
    token = _CURRENT.set(traceparent)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def configure(*, level: str = "INFO", messages_of_exceptions: bool = False, stream: TextIO | None = None) -> None:
    """Send every log line of the process, ours and the libraries', to `stream` (standard error) as one JSON object.

    `messages_of_exceptions` is for development alone: see above.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(shared, messages_of_exceptions=messages_of_exceptions))
    handler.addFilter(Quiet())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):  # uvicorn brings handlers of its own
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("aiokafka").setLevel(logging.NOTSET)  # a command line silences it; whoever serves must hear it


class Quiet(logging.Filter):
    """Lets a complaint of a client through once in 30 seconds: while a broker or a collector is away it repeats."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown. The key is the template, so the table is as small as the library."""
        if not record.name.startswith(_REPEATING) or record.levelno < logging.WARNING:
            return True
        key, now = f"{record.name}:{record.lineno}", time.monotonic()
        if now - self._last.get(key, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return False
        self._last[key] = now
        return True


def _formatter(shared: list[structlog.typing.Processor], *, messages_of_exceptions: bool) -> logging.Formatter:
    def render(exc_info: ExcInfo) -> list[str]:
        return described(exc_info[1], with_messages=messages_of_exceptions)

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(render),
            structlog.processors.JSONRenderer(ensure_ascii=False, default=repr),
        ],
    )


def described(error: BaseException, *, with_messages: bool = False) -> list[str]:
    """An exception and its causes, outermost first: type, SQLSTATE where it has one, and the frames it came through."""
    lines: list[str] = []
    link: BaseException | None = error
    while link is not None and len(lines) < 5 * _MAX_FRAMES:
        state = getattr(link, "sqlstate", None)
        name = type(link).__qualname__ + (f" [{state}]" if state else "")
        lines.append(f"{name}: {link}" if with_messages else name)
        frames = traceback.extract_tb(link.__traceback__)[-_MAX_FRAMES:]
        lines += [f"  {Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return lines


def _add_trace(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    trace = trace_id()
    if trace:
        event["trace"] = trace
    return event
