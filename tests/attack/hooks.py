"""What `schemathesis` may excuse, each with its reason, and how it writes what it does not know. It loads this module
(SCHEMATHESIS_HOOKS); every failure that no excuse below fits fails the run."""

import json
import re
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import RejectedPositiveData

ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"
SEMANTIC = frozenset(re.findall(r"`([a-z0-9-]+)` \|.*\*semantic\*", ERRORS.read_text(encoding="utf-8")))
"""The codes of what is well-formed and still wrong in itself."""

UPLOAD = "/intake/v1/applications/{application}/materials"
LINES = "application/x-ndjson"


Sent = Case[Any]


def _problem(response: Response) -> dict[str, Any]:
    told: dict[str, Any] = response.json()
    return told


def _wrong_in_itself(failure: Failure, _case: Sent, response: Response) -> bool:
    """A wrong check digit, a benefit that no policy holds, a month to come: no schema can tell."""
    rejected = isinstance(failure, RejectedPositiveData) and response.status_code == 422
    return rejected and _problem(response)["code"] in SEMANTIC


def _of_another_version(failure: Failure, _case: Sent, response: Response) -> bool:
    """A conflict with the state of the record, as 409 is: `If-Match` names a version that it does not have."""
    return isinstance(failure, RejectedPositiveData) and response.status_code in {412, 428}


def _no_picture_and_no_pdf(failure: Failure, case: Sent, response: Response) -> bool:
    """An upload may be of three media types, and its first bytes show which: a schema knows bytes only."""
    rejected = isinstance(failure, RejectedPositiveData) and response.status_code == 415
    return rejected and case.operation.path == UPLOAD and b"multipart/form-data" in _content_type(response)


def _over_its_limit(failure: Failure, case: Sent, response: Response) -> bool:
    """A body that is longer than the document says (`x-max-body-bytes`) is refused unread, whatever is in it."""
    weighed = isinstance(failure, RejectedPositiveData | AcceptedNegativeData) and response.status_code == 413
    return weighed and _length(response) > case.operation.definition.raw["x-max-body-bytes"]


def _refused_line_by_line(failure: Failure, case: Sent, response: Response) -> bool:
    """Of many lines in one request each is answered for itself: a bad one harms no other, so the whole is a 200."""
    if not isinstance(failure, AcceptedNegativeData) or response.status_code != 200:
        return False
    if response.headers["content-type"] == [LINES]:
        return any("problem" in json.loads(line) for line in response.content.splitlines())
    told = response.json()
    return isinstance(told, dict) and set(told) == {"lines", "succeeded", "refused"} and told["refused"] > 0


EXCUSES = (_wrong_in_itself, _of_another_version, _no_picture_and_no_pdf, _over_its_limit, _refused_line_by_line)


@schemathesis.hook
def filter_failure(_context: HookContext, failure: Failure, case: Sent, response: Response) -> bool:
    """Whether a failure counts."""
    return not any(excuse(failure, case, response) for excuse in EXCUSES)


@schemathesis.serializer(LINES)
def write_lines(_context: Any, value: Any) -> bytes:
    """A text is the file; anything else is what a line should not be."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.serializer("application/pdf", "image/jpeg", "image/png")
def write_file(_context: Any, value: Any) -> bytes:
    """A part of a form that is a file: whatever bytes."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _length(response: Response) -> int:
    return int(response.request.headers.get("content-length", 0))


def _content_type(response: Response) -> bytes:
    sent = response.request.headers.get("content-type", "")
    return sent if isinstance(sent, bytes) else sent.encode()
