"""The OpenAPI documents: what an operation does in Chinese, the refusals that follow from what it takes, and for each
body an example that its own schema and model accept."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from deploy.engine import SERVICES
from deploy.forms import create
from libs.common.settings import Settings

Operation = tuple[str, dict[str, Any]]
HAN = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module", params=SERVICES)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    nowhere = "postgresql://nobody@127.0.0.1/none"
    urls = {f"{service}_database_url": nowhere for service in SERVICES}
    home: Path = tmp_path_factory.mktemp("home")
    return create(request.param, Settings(home=home, bus_url=nowhere, **urls)).app  # type: ignore[arg-type]


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def json_bodies(document: dict[str, Any]) -> Iterator[Operation]:
    for name, operation in operations(document):
        media = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if media is not None:
            yield name, media


def taken_from(operation: dict[str, Any]) -> set[str]:
    """The refusals that follow from what an operation takes."""
    parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
    due = {"413", "422", "503"}
    due |= {"401", "403", "429"} if operation.get("security") else set()
    due |= {"400", "408", "415"} if "requestBody" in operation else set()
    due |= {"400", "409"} if "Idempotency-Key" in parameters else set()
    return due | ({"412", "428"} if "If-Match" in parameters else set())


def test_every_operation_says_in_chinese_what_it_does(app: Any) -> None:
    silent = [
        name
        for name, operation in operations(app.openapi())
        if not all(HAN.search(operation.get(part, "")) for part in ("summary", "description"))
    ]
    assert silent == []


def test_every_operation_documents_the_refusals_that_follow_from_what_it_takes(app: Any) -> None:
    missing = {
        name: sorted(left)
        for name, operation in operations(app.openapi())
        if (left := taken_from(operation) - set(operation["responses"]))
    }
    assert missing == {}


def test_generators_of_clients_know_a_body_of_every_operation_and_what_comes_back(app: Any) -> None:
    """As openapi-python-client 0.29 does: an operation with no body that it knows is dropped."""
    known = {"application/json", "application/octet-stream", "multipart/form-data"}
    for name, operation in operations(app.openapi()):
        assert "requestBody" not in operation or known & set(operation["requestBody"]["content"]), name
        assert operation["tags"], name
        done = {status: told for status, told in operation["responses"].items() if status.startswith("2")}
        assert all(told.get("content") for status, told in done.items() if status != "204"), name


def examples_of(document: dict[str, Any], media: dict[str, Any]) -> list[Any]:
    given = [each["value"] for each in media.get("examples", {}).values()]
    schemas = [media["schema"], *media["schema"].get("anyOf", ())]
    for schema in schemas:
        named = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
        given += named.get("examples", [])
    return given


def test_every_body_has_an_example_that_its_schema_accepts(app: Any) -> None:
    document = app.openapi()
    for name, media in json_bodies(document):
        examples = examples_of(document, media)
        assert examples, f"{name} has no example"
        validator = Draft202012Validator({**media["schema"], "components": document["components"]})
        for example in examples:
            assert [error.message for error in validator.iter_errors(example)] == [], name


def test_every_example_is_accepted_by_its_model(app: Any) -> None:
    for route in app.routes:
        model = route.body_field.field_info.annotation if isinstance(route, APIRoute) and route.body_field else None
        if isinstance(model, type) and issubclass(model, BaseModel):
            for example in model.model_json_schema().get("examples", []):
                model.model_validate(example)


def test_no_schema_bears_the_name_of_a_module(app: Any) -> None:
    """As FastAPI names two models that are called alike; generators of clients drop the operations that take them."""
    assert [name for name in app.openapi()["components"]["schemas"] if "__" in name] == []
