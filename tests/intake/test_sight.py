"""Who may see what, and every way to ask: lists, filters, the policy, the pages."""

from typing import Any
from uuid import uuid4

import pytest

from services.intake.api.examples import FILING
from services.intake.filing import read_filing
from tests.common.packs import anyang
from tests.intake.builders import CITY, COUNTY, DISTRICT, PAPERS, a_mandate, a_person, an_employer, licences
from tests.intake.conftest import House
from tests.intake.test_course import DAY


async def test_each_sees_what_is_theirs_and_the_rest_looks_unknown(house: House) -> None:
    receipt = await house.portal().file(handler={"person": a_person("李经办"), "authority": a_mandate()})
    path = f"/applications/{receipt['id']}"
    beneficiary, handler = receipt["beneficiary"], receipt["handler"]
    seeing = [
        house.portal(),
        house.a("talent", person=beneficiary),
        house.a("talent", person=handler),
        house.a("handler", person=handler),
        house.clerk(COUNTY),
        house.a("talent_office", org_unit=f"{COUNTY}/talent_office"),
        house.a("supervisor"),
        house.a("auditor"),
    ]
    blind = [
        house.portal("portal-b"),
        house.a("talent", person=str(uuid4())),
        house.a("talent", person="nobody"),
        house.a("talent"),
        house.a("handler", person=beneficiary),
        house.clerk(DISTRICT),
        house.a("talent_office", org_unit=f"{CITY}/talent_office"),
        house.a("department", org_unit=f"{COUNTY}/education"),
        house.a("specialist", org_unit=f"{COUNTY}/education"),
    ]
    for caller in seeing:
        assert (await caller.get(path)).status == 200
        assert [one["id"] for one in (await caller.get("/applications")).body["items"]] == [receipt["id"]]
        assert len((await caller.get("/changes?wait=20")).body["items"]) == 2
    unknown = (await house.portal().get(f"/applications/{uuid4()}")).problem(404, "not-found")
    for caller in blind:
        told = (await caller.get(path)).problem(404, "not-found")
        assert {**told, "instance": ""} == {**unknown, "instance": ""}
        assert (await caller.get("/applications")).body["items"] == []
        assert (await caller.get("/changes")).body["items"] == []
    for role in ("ops", "treasury", "housing"):
        unit: dict[str, Any] = {} if role == "ops" else {"org_unit": f"{COUNTY}/finance"}
        (await house.a(role, **unit).get(path)).problem(403, "forbidden")


async def test_outside_ones_view_every_command_looks_like_unknown(house: House) -> None:
    receipt = await house.portal().file(materials=[])
    other = house.portal("portal-b")
    for command, body in ((":correct", {"materials": licences(*PAPERS)}), (":withdraw", None)):
        (await other.post(f"/applications/{receipt['id']}{command}", body)).problem(404, "not-found")
    assert (await house.portal().show(receipt["id"]))["state"] == "correction"


async def test_lists_go_page_by_page_newest_first_and_are_found_by_number(house: House) -> None:
    portal = house.portal()
    filed = [await portal.file(external_refs=[{"system": "p", "kind": "case", "value": f"N:{n}"}]) for n in range(5)]
    first = (await portal.get("/applications?limit=3")).body
    second = (await portal.get(f"/applications?limit=3&cursor={first['next']}")).body
    assert [one["id"] for one in first["items"] + second["items"]] == [one["id"] for one in reversed(filed)]
    assert second["next"] is None
    for query in (f"case_no={filed[1]['case_no'].lower()}", "external_ref=p:case:N:1"):
        assert [one["id"] for one in (await portal.get(f"/applications?{query}")).body["items"]] == [filed[1]["id"]]
    assert len((await portal.get("/applications?state=accepted")).body["items"]) == 5
    (await portal.get("/applications?state=happy")).problem(422, "invalid-request")
    (await portal.get("/applications?external_ref=p")).problem(422, "invalid-request")
    (await portal.get("/applications?cursor=W251bGxd")).problem(422, "content-wrong")


async def test_the_policy_tells_every_code_that_may_be_filed(house: House) -> None:
    policy = (await house.portal().get("/policy")).body
    assert policy["identity"]["sha256"] == anyang().identity.sha256
    item = next(item for item in policy["items"] if item["code"] == "talent_certification")
    assert [material["code"] for material in item["materials"]] == list(PAPERS)
    certified = {item["code"]: item["categories"] for item in policy["items"] if item["categories"]}
    assert certified["flexible_certification"] == ["flexible"]
    assert set(certified) == {"talent_certification", "flexible_certification"}
    assert {"code": "410522", "title": "安阳县人才综合服务平台"} in policy["platforms"]


async def test_the_documented_example_is_taken_in_as_it_stands(house: House) -> None:
    document = (await house.client.get("/intake/openapi.json")).json()
    body = document["paths"]["/intake/v1/applications"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/Filing"}
    (example,) = body["examples"].values()
    answer = await house.portal().post("/applications", example["value"])
    assert (answer.status, answer.body["state"]) == (201, "accepted"), answer.body


def test_the_example_reads_under_the_policy() -> None:
    assert read_filing(FILING, anyang(), DAY).beneficiary.name == "王小明"


@pytest.mark.parametrize("page", ["openapi.json", "docs", "asyncapi.json", "livez"])
async def test_the_pages_are_there(house: House, page: str) -> None:
    assert (await house.client.get(f"/intake/{page}")).status_code == 200


async def test_a_clerk_sees_what_was_filed_at_their_window_and_moved_on(house: House) -> None:
    receipt = await house.clerk(DISTRICT).file(channel="on_site", employer=an_employer(COUNTY))
    shown = await house.clerk(DISTRICT).show(receipt["id"])
    assert shown["successor"]["platform"] == COUNTY
    assert (await house.clerk(COUNTY).show(shown["successor"]["id"]))["predecessor"] == receipt["id"]
