"""Lists handed the cursor of another list, or one that somebody made up, say that it is none of theirs."""

from collections.abc import Iterator

import httpx
import pytest

from deploy.engine import SERVICES
from libs.common.auth import ROLES
from libs.common.paging import encode_cursor
from tests.attack.test_openapi import Json, scopes_of, token
from tests.conftest import System

CALLERS = ("portal", "department", "talent_office", "treasury", "housing", "auditor")
RECORD = "0197c1b5-a2e0-7d3f-9a6c-f00b3c8be0d4"
NAMED = {"directory": "leading_enterprise", "credit_code": "91410522MA0000001E"}
"""What the parameters in the paths of lists stand for."""

CURSORS = [
    *((), (1,), (0,), (-1,), (2**70,), (None,), ("x",), ("",), (RECORD,), ("410500",)),
    *((1, 2), (2**63, 0), ("2026-06-10", RECORD), (RECORD, "living_allowance"), ("2026-06", "410500")),
    *(("410500", "cash", ""), ("9999-99-99", "x"), ("a\0b",), ("\ud800",), (RECORD, RECORD, RECORD)),
]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


@pytest.mark.parametrize("service", SERVICES)
def test_no_cursor_breaks_a_list(system: System, http: httpx.Client, service: str) -> None:
    base = system.addresses.of(service)
    lists = list(_lists(http.get(f"{base}/{service}/openapi.json").json()))
    assert lists
    for path, parameter, role in lists:
        headers = {"authorization": f"Bearer {token(system, role)}"}
        for place in CURSORS:
            told = http.get(base + path, params={parameter: encode_cursor(*place), "wait": 0}, headers=headers)
            if told.status_code != 200:
                assert told.status_code == 422, f"{path} {place}: {told.text}"
                assert [error["code"] for error in told.json()["errors"]] == ["cursor"], f"{path} {place}: {told.text}"


def _lists(document: Json) -> Iterator[tuple[str, str, str]]:
    """Path, name of the cursor's parameter, and a role that may read it."""
    for path, methods in document["paths"].items():
        operation = methods.get("get", {})
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in {"cursor", "after"}:
                yield (
                    path.format(**NAMED),
                    parameter["name"],
                    next(role for role in CALLERS if scopes_of(operation) <= ROLES[role]),
                )
