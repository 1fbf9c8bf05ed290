"""Candidates: a file of people in, the entitled ones out; what cannot be read harms nobody else."""

import json
from typing import Any

import pytest

from services.intake.api.candidates import MAX_LINES
from tests.intake.conftest import Answer, House

SOUND = {"person.degree": "master", "employer.good_standing": True, "employer.demand_declared": True}


async def screened(house: House, *lines: Any, query: str = "") -> Answer:
    body = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    headers = {"content-type": "application/x-ndjson"}
    office = house.a("talent_office", org_unit="410522/talent_office")
    return await office.post(f"/eligibility:candidates{query}", headers=headers, content=body)


def told(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.content.splitlines()]


@pytest.mark.article("第二条")
@pytest.mark.article("第五条")
async def test_the_entitled_are_listed_with_what_they_get_and_the_others_are_not(house: House) -> None:
    found = told(
        await screened(
            house,
            {"ref": "a", "facts": SOUND},
            {"ref": "b", "facts": {**SOUND, "employer.demand_declared": False}},
            {"ref": "c", "facts": {"person.degree": "master"}},
            {"ref": "d", "facts": {"person.science_technology": True}},
        )
    )
    assert [(one.get("line"), one.get("ref")) for one in found] == [(1, "a"), (4, "d"), (None, None)]
    mine = {each["item"]: each for each in found[0]["entitled"]}
    assert mine["living_allowance"]["category"] == "master"
    assert mine["living_allowance"]["amount"] == {"fen": 3_600_000, "currency": "CNY"}
    flexible = {each["item"] for each in found[1]["entitled"]}
    assert "talent_apartment" in flexible
    assert flexible.isdisjoint({"living_allowance", "purchase_subsidy"})
    assert found[-1] == {"lines": 4, "entitled": 2, "refused": 0}


async def test_a_line_that_cannot_be_read_is_told_and_harms_no_other(house: House) -> None:
    lines: list[Any] = [
        b"{broken\n",
        {"ref": "a", "facts": {"person.degree": "phd"}},
        {"ref": "无", "facts": {}},
        {"facts": SOUND},
        {"ref": "e", "facts": SOUND},
    ]
    found = told(await screened(house, *lines))
    assert [one["problem"]["code"] for one in found[:4]] == [
        "malformed-body",
        "filing-wrong",
        "invalid-request",
        "invalid-request",
    ]
    assert found[1]["problem"]["errors"][0]["field"] == "/facts/person.degree"
    assert found[4]["ref"] == "e"
    assert found[-1] == {"lines": 5, "entitled": 1, "refused": 4}


async def test_nothing_is_kept_of_it(house: House) -> None:
    before = await house.everything()
    told(await screened(house, {"ref": "a", "facts": SOUND}))
    assert await house.everything() == before


async def test_a_file_that_is_too_long_or_of_another_kind_is_refused(house: House) -> None:
    many = await screened(house, b'{"ref":"a"}\n' * (MAX_LINES + 1))
    many.problem(413, "too-many-candidates")
    office = house.a("talent_office", org_unit="410522/talent_office")
    (await office.post("/eligibility:candidates", {"ref": "a"})).problem(415, "unsupported-media-type")
    (await screened(house, {"ref": "a"}, query="?on=2021-03-22")).problem(404, "not-found")


async def test_only_the_talent_office_screens_people(house: House) -> None:
    headers = {"content-type": "application/x-ndjson"}
    refused = await house.portal().post("/eligibility:candidates", headers=headers, content=b'{"ref":"a"}\n')
    refused.problem(403, "forbidden")
