"""How a refusal or a failure becomes an answer: problem+json, in Chinese, never repeating what the caller sent."""

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from libs.common.db import passing
from libs.common.errors import (
    DomainError,
    Internal,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    TooLarge,
    Unavailable,
)
from libs.common.field_errors import refusal
from libs.common.telemetry import trace_id

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
NO_SUCH_CHARACTER = "22021"  # SQLSTATE of a NUL in a text

_BY_STATUS: Mapping[int, type[DomainError]] = {
    400: MalformedBody,
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTimeout,
    413: TooLarge,
}


def problem_response(error: DomainError) -> Response:
    """The answer to a refusal. `instance` names the trace, which finds the request in the log."""
    trace = trace_id()
    body = error.problem(f"urn:huanquan:trace:{trace}" if trace else None)
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, error.status, headers=error.headers, media_type=MEDIA_TYPE)


def failure_response(error: Exception) -> Response:
    """The answer to what nobody foresaw: 503 where it passes by itself, else 500 with nothing leaked."""
    if passing(error):
        log.warning("something needed is away", exc_info=error)
        return problem_response(Unavailable())
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == NO_SUCH_CHARACTER:
        return problem_response(MalformedBody())
    log.error("request failed", exc_info=error)
    return problem_response(Internal())


Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]


def handlers() -> dict[int | type[Exception], Handler]:
    """Exception handlers for a FastAPI or Starlette application."""
    return {DomainError: _on_domain_error, RequestValidationError: _on_invalid, HTTPException: _on_http_exception}


async def _on_domain_error(_request: Request, error: DomainError) -> Response:
    return problem_response(error)


async def _on_invalid(_request: Request, error: RequestValidationError) -> Response:
    defects = error.errors()
    if any(defect["type"] == "json_invalid" for defect in defects):
        return problem_response(MalformedBody())
    return problem_response(refusal(defects, error.body))


async def _on_http_exception(_request: Request, error: HTTPException) -> Response:
    kind = _BY_STATUS.get(error.status_code, NotFound if error.status_code < 500 else Internal)
    refusal = kind()
    refusal.headers |= dict(error.headers or {})
    return problem_response(refusal)
