"""Every operation does what its document says, whoever calls it and whatever is sent: schemathesis with all checks.

What it may excuse stands in `hooks.py`. `make test` tries a few examples as those who together may call everything.
`make attack` tries more, and as them all that schemathesis derives from a schema (each bound met and passed, each
parameter left out, methods that are not there), then as every other role that may call anything, and as nobody.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.engine import SERVICES
from libs.common.auth import ORG_UNIT_ROLES, ROLES
from tests.attack.conftest import EXAMPLES, SEED
from tests.conftest import ROOT, System
from tests.records import HOME

FIRST = {
    "intake": ("portal", "talent_office"),
    "workflow": ("talent_office", "department"),
    "finance": ("treasury", "talent_office"),
    "housing": ("housing",),
    "audit": ("auditor",),
}
"""Who together may call every operation of a service."""

OFFICES = {"department": "human_resources", "specialist": "human_resources", "window_clerk": "government_services"} | {
    "talent_office": "talent_office",
    "treasury": "finance",
    "housing": "housing",
}
NOBODY = "nobody"
Json = dict[str, Any]


def callers(service: str) -> list[str]:
    scopes = {"intake": ("intake:", "people:")}.get(service, (f"{service}:",))
    others = [role for role, held in ROLES.items() if any(scope.startswith(scopes) for scope in held)]
    return list(dict.fromkeys((*FIRST[service], *(others if EXAMPLES else ()), NOBODY)))


@pytest.mark.parametrize(("service", "role"), [(service, role) for service in SERVICES for role in callers(service)])
def test_a_service_does_what_its_document_says(
    attacked: System, records: Mapping[str, str], tmp_path: Path, service: str, role: str
) -> None:
    address = f"{attacked.addresses.of(service)}/{service}/openapi.json"
    document = httpx.get(address).json()
    (tmp_path / "schemathesis.toml").write_text(configuration(records), encoding="utf-8")
    tried = operations(document, role)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", address, "--checks", "all", "--no-color"),
        *("--max-examples", str(EXAMPLES or 2), "--seed", str(SEED), "--continue-on-failure"),
        *(() if EXAMPLES and role in FIRST[service] else ("--phases", "fuzzing,stateful")),
        *(part for name in tried for part in ("--include-name", name)),
        *(() if role == NOBODY else ("--header", f"Authorization: Bearer {token(attacked, role)}")),
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.attack.hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"SEED={SEED}\n{done.stdout}\n{done.stderr}"
    assert re.search(rf"Tested: {len(tried)}\b", done.stdout), done.stdout


def operations(document: Json, role: str) -> list[str]:
    """The operations that a role may call; nobody tries them all."""
    return [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if role == NOBODY or scopes_of(operation) <= ROLES[role]
    ]


def scopes_of(operation: Json) -> set[str]:
    """What a caller needs for an operation."""
    return {scope for need in operation.get("security", ()) for scopes in need.values() for scope in scopes}


def token(system: System, role: str) -> str:
    """A token of somebody who has to do with the records."""
    return system.token(role, **({"org_unit": f"{HOME}/{OFFICES[role]}"} if role in ORG_UNIT_ROLES else {}))


def configuration(records: Mapping[str, str]) -> str:
    """Most parameters name a record that exists; no call waits a minute for news."""
    values = {**records, "month": "2020-01", "treasury": HOME}
    dictionaries = "\n".join(f"[dictionaries.{name}]\nvalues = [{json.dumps(value)}]" for name, value in values.items())
    bound = "\n".join(f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}' for name in values)
    return f'{dictionaries}\n[parameters]\n"query.wait" = 0\n{bound}\n'


@pytest.mark.parametrize("service", SERVICES)
def test_those_who_are_tried_may_call_everything(system: System, service: str) -> None:
    document = httpx.get(f"{system.addresses.of(service)}/{service}/openapi.json").json()
    tried = {name for role in FIRST[service] for name in operations(document, role)}
    assert tried == set(operations(document, NOBODY))
