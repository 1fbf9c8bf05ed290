"""The sample population: the same from its seed, right in all but what is meant wrong, and of every kind."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from deploy.sample import filings, flats
from deploy.sample.generate import PLACES, SIZE, anyang, population
from deploy.sample.lines import Line, expected_states
from libs.common.identity import DocumentType, check_credit_code, check_document, check_name, refuses
from libs.common.policy.model import ItemKind
from libs.common.treasuries import EmployerKind
from services.intake.filing import FilingWrong, corrected, read_filing
from tests.intake.builders import judgement

FILES = Path(filings.__file__).parent
TODAY = date(2026, 3, 2)
EXTENSIONS = {
    "B": range(0x20000, 0x2A6E0),
    "C": range(0x2A700, 0x2B73A),
    "D": range(0x2B740, 0x2B81E),
    "E": range(0x2B820, 0x2CEA2),
    "F": range(0x2CEB0, 0x2EBE1),
    "G": range(0x30000, 0x3134B),
    "H": range(0x31350, 0x323B0),
}


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return population()


def people_of(value: Any) -> Iterator[dict[str, Any]]:
    """Everybody in a body, however deep."""
    if isinstance(value, dict):
        if "documents" in value:
            yield value
        for inner in value.values():
            yield from people_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from people_of(inner)


def test_the_checked_in_files_are_what_the_seed_gives(lines: list[Line]) -> None:
    stored = (FILES / "population.jsonl").read_text(encoding="utf-8").splitlines()
    assert stored == [line.to_json() for line in lines]
    assert len(stored) == SIZE
    assert [json.loads(line) for line in (FILES / "flats.jsonl").read_text().splitlines()] == list(
        flats.flats(anyang())
    )


def test_every_number_is_right_but_those_meant_wrong(lines: list[Line]) -> None:
    for line in lines:
        told = {
            problem.code
            for person in people_of([line.body, line.then])
            for document in person["documents"]
            for problem in check_document(DocumentType(document["type"]), document["number"], on=TODAY)
            if not problem.warning
        }
        employer = line.body.get("employer")
        told |= {problem.code for problem in check_credit_code(employer["credit_code"])} if employer else set()
        assert sorted(told) == line.expect.get("errors", []), line.key
        assert not any(refuses(check_name(person["name"])) for person in people_of(line.body))


def test_nobody_is_two_people(lines: list[Line]) -> None:
    names: dict[str, str] = {}
    for line in lines:
        if line.expect.get("code"):
            continue
        for person in people_of(line.body):
            assert names.setdefault(person["documents"][0]["number"], person["name"]) == person["name"], line.key


def test_it_is_of_every_kind(lines: list[Line]) -> None:
    pack = anyang().pack
    bodies = [line.body for line in lines]
    items = [item for body in bodies for item in body["items"]]
    employers = [body["employer"] for body in bodies if "employer" in body]
    assert {item["code"] for item in items} == {item.code for item in pack.items}
    assert {pack.item(item["code"], TODAY).kind for item in items} == set(ItemKind)
    assert {item["category"] for item in items if "category" in item} == {each.code for each in pack.categories}
    assert {employer["kind"] for employer in employers} == {kind.value for kind in EmployerKind}
    documents = {document["type"] for person in people_of(bodies) for document in person["documents"]}
    assert documents == {kind.value for kind in DocumentType}
    assert len({len(body["items"]) for body in bodies}) >= 5


def test_every_treasury_has_every_kind_of_employer_and_money_to_pay(lines: list[Line]) -> None:
    seen = {
        (tie["treasury"], employer["kind"])
        for body in (line.body for line in lines)
        if (employer := body.get("employer")) and any(item["code"] == "living_allowance" for item in body["items"])
        for tie in employer.get("affiliations", ())
    }
    ordinary = [kind.value for kind in EmployerKind if kind is not EmployerKind.CENTRAL_OR_PROVINCIAL]
    assert {(treasury, kind) for treasury in PLACES for kind in ordinary} <= seen
    assert {treasury.code for treasury in anyang().pack.treasuries if treasury.regions} == set(PLACES)


def test_names_hold_rare_characters_dots_and_latin_letters(lines: list[Line]) -> None:
    names = {person["name"] for line in lines for person in people_of(line.body)}
    points = {ord(char) for name in names for char in name}
    assert [plane for plane, span in EXTENSIONS.items() if not points.intersection(span)] == []
    assert any("·" in name for name in names)
    assert any(name.isascii() for name in names)
    assert any("'" in name or "-" in name for name in names)


def test_intake_judges_each_filing_as_the_file_says(lines: list[Line]) -> None:
    for line in lines:
        if line.wave == 1:
            assert judged(line, line.body) == foreseen(line), line.key
        if line.then and "correct" in line.then:
            assert judged(line, corrected(line.body, line.then["correct"])) == "accepted", line.key


def judged(line: Line, body: dict[str, Any]) -> str:
    if line.expect.get("status") == 422:
        with pytest.raises(FilingWrong) as refusal:
            read_filing(body, anyang().pack, TODAY)
        assert [error.code for error in refusal.value.errors] == line.expect["errors"]
        return "422"
    return judgement(anyang().pack, body, TODAY)


def foreseen(line: Line) -> str:
    if "status" in line.expect:
        return str(line.expect["status"])
    state: str = line.expect["state"]
    if line.then and {"correct", "upload"} & line.then.keys():
        return "correction"
    if state in {"not_accepted", "transferred"}:
        return state
    complete = all(
        code in {material["code"] for material in line.body["materials"]}
        for code in anyang().materials_of(line.body["items"])
    )
    handler = line.body.get("handler")
    return "accepted" if complete and (handler is None or "authority" in handler) else "correction"


def test_what_the_population_ends_in(lines: list[Line]) -> None:
    assert expected_states(lines) == {
        "closed": 257,
        "not_accepted": 11,
        "refused": 4,
        "transferred": 3,
        "withdrawn": 13,
    }
