"""The AsyncAPI 3 document of a service, made from its event classes: what it publishes and what it hears."""

from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import models_json_schema

from libs.common.events import EVENTS, Event

HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0, Kafka binding, binary mode",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "ce_traceparent"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "format": "uuid", "description": "the same at every redelivery"},
        "ce_source": {"type": "string", "format": "uri-reference"},
        "ce_type": {"type": "string", "description": "the message's name"},
        "ce_subject": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time", "description": "UTC instant"},
        "ce_dataschema": {
            "type": "string",
            "format": "uri",
            "description": "where the publishing deployment served the JSON Schema of the data when the event left:"
            " fetch it there, or at `/events/<ce_type>.json` of any service. It names no version: a type's"
            " schema only ever gains optional fields",
        },
        "ce_traceparent": {"type": "string", "description": "W3C Trace Context"},
        "content-type": {"const": "application/json"},
    },
}

_DESCRIPTION = """Events of the {} service. `ce_dataschema` is an absolute URI, `<base>/events/<Type>.json`; the base \
is the deployment's choice (`HUANQUAN_SCHEMAS_URL`, else the address of intake). A subscriber that reaches it \
under another address finds the same schema at `/events/<Type>.json` of any service."""


def schemas(events: Iterable[type[Event]] = EVENTS) -> dict[str, Any]:
    """JSON Schema of each event's payload and of what they share, by name."""
    pairs = [(event, "serialization") for event in events]
    _, document = models_json_schema(pairs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return dict(document["$defs"])


def document(service: str, *, emits: Iterable[type[Event]], hears: Iterable[type[Event]]) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of one service."""
    sends, receives = list(emits), list(hears)
    topics = dict.fromkeys(event.topic for event in [*sends, *receives])
    operations = {
        f"{action}.{topic}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{topic}"},
            "messages": [{"$ref": f"#/channels/{topic}/messages/{e.__name__}"} for e in mine if e.topic == topic],
        }
        for action, mine in (("send", sends), ("receive", receives))
        for topic in dict.fromkeys(event.topic for event in mine)
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": f"Huanquan {service}", "version": "1", "description": _DESCRIPTION.format(service)},
        "defaultContentType": "application/json",
        "channels": {topic: _channel(topic, dict.fromkeys([*sends, *receives])) for topic in topics},
        "operations": operations,
        "components": {
            "messages": {event.__name__: _message(event) for event in dict.fromkeys([*sends, *receives])},
            "schemas": {**schemas(dict.fromkeys([*sends, *receives])), "CloudEventHeaders": HEADERS},
        },
    }


def _channel(topic: str, events: Iterable[type[Event]]) -> dict[str, Any]:
    names = [event.__name__ for event in events if event.topic == topic]
    return {"address": topic, "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names}}


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.__name__,
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip(),
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "bindings": {"kafka": {"key": {"type": "string"}}},
    }
