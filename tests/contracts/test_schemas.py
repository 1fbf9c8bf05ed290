"""The events' published schemas: compatible both ways with their snapshots, free of personal data."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from libs.common.asyncapi import document, schemas
from libs.common.events import BY_TYPE, EVENTS, TOPICS, Event

SNAPSHOTS = Path(__file__).parent / "events"
PERSONAL = re.compile(r"(^|_)(name|number_of_identity|identity|id_number|mobile|phone|holder|bank|account_number)($|_)")


def schema_of(event: type[Event]) -> dict[str, Any]:
    return event.model_json_schema(mode="serialization")


def breaks(old: dict[str, Any], new: dict[str, Any], defs: tuple[dict[str, Any], dict[str, Any]]) -> list[str]:
    """What a reader of either side would trip over. Empty when both ways are compatible."""
    old, new = _resolved(old, defs[0]), _resolved(new, defs[1])
    found = [f"{name} was removed" for name in old.get("properties", {}) if name not in new.get("properties", {})]
    found += [f"{name} is required now" for name in new.get("required", []) if name not in old.get("required", [])]
    found += [f"{name} is optional now" for name in old.get("required", []) if name not in new.get("required", [])]
    for name, was in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            found += [f"{name}: {each}" for each in breaks(was, new["properties"][name], defs)]
    for keyword in ("items", "additionalProperties"):
        if isinstance(old.get(keyword), dict) and isinstance(new.get(keyword), dict):
            found += breaks(old[keyword], new[keyword], defs)
    kept = {"type", "format", "pattern", "enum", "const", "minimum", "maximum", "anyOf"}
    found += [f"{word} differs" for word in kept if _plain(old.get(word)) != _plain(new.get(word))]
    return found


def _resolved(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    return defs[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_an_event_stays_compatible_with_its_snapshot_both_ways(event: type[Event]) -> None:
    path = SNAPSHOTS / f"{event.__name__}.json"
    assert path.exists(), f"a new event: write its snapshot with `python -m tests.contracts.snapshots`: {path.name}"
    old, new = json.loads(path.read_text()), schema_of(event)
    assert breaks(old, new, (old.get("$defs", {}), new.get("$defs", {}))) == []


def test_no_snapshot_is_left_without_its_event() -> None:
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} == {event.__name__ for event in EVENTS}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s["properties"].pop("case_no"), "case_no was removed"),
        (lambda s: s["required"].append("employer"), "employer is required now"),
        (lambda s: s["required"].remove("accepted_on"), "accepted_on is optional now"),
        (lambda s: s["properties"]["accepted_on"].update(type="integer"), "accepted_on: type differs"),
        (lambda s: s["$defs"]["AcceptedItem"]["properties"].pop("code"), "items: code was removed"),
    ],
)
def test_the_check_sees_what_would_break_a_reader(change: Any, says: str) -> None:
    old = schema_of(BY_TYPE["ApplicationAccepted"])
    new = json.loads(json.dumps(old))
    change(new)
    assert says in breaks(old, new, (old["$defs"], new["$defs"]))


def test_an_optional_field_may_be_added() -> None:
    old = schema_of(BY_TYPE["DeptAssigned"])
    new = json.loads(json.dumps(old))
    new["properties"]["hint"] = {"type": "string", "default": ""}
    assert breaks(old, new, (old["$defs"], new["$defs"])) == []


def test_no_event_has_a_field_for_personal_data() -> None:
    fields = {field for schema in schemas().values() for field in schema.get("properties", {})}
    assert not {field for field in fields if PERSONAL.search(field)}


def test_the_topics_that_the_city_named_are_there() -> None:
    assert {"application.received", "dept.completed", "talent.certified", "payout.settled"} <= set(TOPICS)


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    made = document("all", emits=EVENTS, hears=EVENTS)

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    def find(reference: str) -> Any:
        node: Any = made
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        return node

    assert all(find(reference) for reference in references(made))
    assert set(made["channels"]) == set(TOPICS)
