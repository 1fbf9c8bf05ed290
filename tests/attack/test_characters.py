"""Characters that few people type, in every field of a filing: the rare ones of names live on unharmed, those that show
nothing, turn the direction of reading, or are none at all are refused by the name of their field."""

import copy
import json
import unicodedata
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import example, given, seed
from hypothesis import strategies as st

from tests.attack.conftest import SEED
from tests.attack.mangling import tried
from tests.conftest import System
from tests.intake.builders import a_filing, a_person, an_account

Json = dict[str, Any]
PLANES = "𠀀𪛟𪜀𫝀𫠠𬺰𰀀𱍐𮯰"  # first and last of extension B, then the first of C, D, E, F, G, H, I
PERSON = a_person(phone="13800000000", latin_name="Wang Xiaoming")
FILING = a_filing(
    beneficiary=PERSON,
    handler={"person": a_person(), "authority": {"kind": "power_of_attorney", "evidence": "委托书"}},
    external_refs=[{"system": "henan", "kind": "case", "value": "HN-1"}],
)
NEVER = st.sampled_from(
    [
        *("\0", "\x07", "\x1b", "\x7f", "\x85"),  # control
        *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad"),  # zero width
        *("\u202a", "\u202e", "\u2066", "\u2069", "\u200f", "\u061c"),  # bidirectional
        *("\u2028", "\u2029", "\U000e0001", "\U000e0041"),  # separators, tags
    ]
)
"""What no text of a filing may hold."""
RARE = st.sampled_from(
    [*PLANES, "\u0301", "\ufe0f", "\U000e0100", "\ue000", "\U0010fffd", "\uffff", "\u3164", "İ", "ﬁ", "😀"]
)


def texts(found: Any, place: str = "") -> Iterator[str]:
    """The place of every text."""
    if isinstance(found, str):
        yield place
    for step, part in found.items() if isinstance(found, dict) else enumerate(found if isinstance(found, list) else ()):
        yield from texts(part, f"{place}/{step}")


def with_text(place: str, change: Any) -> Json:
    """The filing with the text at a place changed."""
    filing = copy.deepcopy(FILING)
    *way, last = (int(step) if step.isdecimal() else step for step in place.split("/")[1:])
    here: Any = filing
    for step in way:
        here = here[step]
    here[last] = change(here[last])
    filing["external_refs"][0]["value"] += uuid4().hex if place != "/external_refs/0/value" else ""
    return filing


@pytest.fixture(scope="module")
def portal(attacked: System) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {attacked.token('portal')}"}
    with httpx.Client(base_url=attacked.addresses.of("intake"), headers=headers, timeout=60) as client:
        yield client


def file(portal: httpx.Client, filing: Json) -> httpx.Response:
    return portal.post("/intake/v1/applications", json=filing, headers={"idempotency-key": str(uuid4())})


@seed(SEED)
@tried(few=30)
@given(place=st.sampled_from(sorted(texts(FILING))), character=NEVER | RARE, at=st.integers(0, 30))
@example(place="/beneficiary/name", character="\ud800", at=1)
@example(place="/beneficiary/name", character="\udfff\ud800", at=0)
@example(place="/external_refs/0/value", character="\ud800", at=0)
def test_a_character_is_taken_or_refused_by_the_name_of_its_field(
    portal: httpx.Client, place: str, character: str, at: int
) -> None:
    body = with_text(place, lambda text: text[:at] + character + text[at:])
    headers = {"idempotency-key": str(uuid4()), "content-type": "application/json"}
    told = portal.post("/intake/v1/applications", content=json.dumps(body).encode("ascii"), headers=headers)
    # What Unicode calls white space falls away at the ends of a text and out of numbers, as a blank does.
    invisible = unicodedata.category(character[0]) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and not character.isspace()
    if told.status_code == 422:
        errors = told.json()["errors"]
        assert any(error["field"] == place or error["field"].startswith(place) for error in errors), errors
        assert character not in told.text or not invisible
    else:
        assert told.status_code in {201, 409}, told.text
        assert not (invisible and told.status_code == 201), f"{place} holds {character!a}"


@pytest.mark.parametrize("name", [PLANES, "阿依古丽·买买提", "Renée", "Nguyễn Văn Ánh", "王\u3007"])
def test_a_rare_name_comes_back_as_it_was_written(attacked: System, portal: httpx.Client, name: str) -> None:
    filed = file(portal, a_filing(beneficiary=a_person(name), payee_account=an_account(name)))
    assert filed.status_code == 201, filed.text
    question = {"refs": [filed.json()["beneficiary"]], "fields": ["name"], "purpose": "核对"}
    service = {"authorization": f"Bearer {attacked.token('service')}"}
    resolved = portal.post("/intake/v1/people:resolve", json=question, headers=service).json()
    assert resolved["items"][0]["name"] == unicodedata.normalize("NFC", name)
