"""The AsyncAPI documents, as they are served, pass the AsyncAPI project's own parser."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from deploy.engine import SERVICES
from tests.conftest import System

PARSER = Path(__file__).parent / "asyncapi"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found and (PARSER / "node_modules").exists():
        return found
    missing = f"no parser of AsyncAPI: .ci/install puts it into {PARSER} (it needs node and npm)"
    if os.environ.get("ASYNCAPI") == "required":
        pytest.fail(missing)
    pytest.skip(missing)


def test_every_asyncapi_document_passes_the_public_parser(system: System, node: str) -> None:
    documents = [httpx.get(f"{system.addresses.of(each)}/{each}/asyncapi.json").json() for each in SERVICES]
    bad = {**documents[0], "channels": {"x": {"address": 7}}}
    lines = "".join(json.dumps(document) + "\n" for document in [*documents, bad])
    told = subprocess.run([node, "validate.mjs"], cwd=PARSER, input=lines, capture_output=True, text=True, check=True)
    *found, of_the_bad_one = [json.loads(line) for line in told.stdout.splitlines()]
    assert of_the_bad_one, "the parser must see what is wrong"
    for service, defects in zip(SERVICES, found, strict=True):
        # We write 3.0, which every tool reads; that there is a 3.1 is no defect.
        assert [it for it in defects if it["code"] != "asyncapi-latest-version"] == [], service
