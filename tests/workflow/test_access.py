"""Who sees which case: the guard first, then one view for each role, and the same 404 outside it."""

from typing import Any
from uuid import uuid4

import pytest

from libs.common.auth import ROLES
from tests.workflow.builders import COUNTY, DISTRICT, an_acceptance
from tests.workflow.conftest import Caller, House

PERSONS: dict[str, Any] = {"beneficiary": uuid4(), "applicant": uuid4(), "handler": uuid4()}
SEES: dict[str, list[dict[str, str]]] = {
    "talent": [{"person": str(PERSONS["beneficiary"])}, {"person": str(PERSONS["applicant"])}],
    "handler": [{"person": str(PERSONS["handler"])}],
    "window_clerk": [{"org_unit": f"{COUNTY}/government_services"}],
    "talent_office": [{"org_unit": f"{COUNTY}/talent_office"}],
    "department": [{"org_unit": f"{COUNTY}/education"}],
    "specialist": [{"org_unit": f"{COUNTY}/human_resources"}],
    "supervisor": [{}],
    "auditor": [{}],
}
SEES_NOT: dict[str, list[dict[str, str]]] = {
    "talent": [{}, {"person": "nonsense"}, {"person": str(PERSONS["handler"])}, {"person": str(uuid4())}],
    "handler": [{}, {"person": str(PERSONS["beneficiary"])}],
    "window_clerk": [{"org_unit": f"{DISTRICT}/government_services"}],
    "talent_office": [{"org_unit": f"{DISTRICT}/talent_office"}, {"org_unit": f"{COUNTY}/education"}],
    "department": [{"org_unit": f"{COUNTY}/tax"}, {"org_unit": f"{DISTRICT}/education"}],
    "specialist": [{"org_unit": f"{COUNTY}/talent_office"}],
}


async def reads(house: House, caller: Caller, application: Any) -> set[int]:
    case = await caller.get(f"/cases/{application.application}")
    listed = (await caller.get("/cases")).ok()["items"]
    item = await caller.get(f"/items/{application.items[0].item}")
    assert (case.status == 200) == bool(listed)
    return {case.status, item.status}


@pytest.mark.parametrize("role", SEES)
async def test_a_case_shows_itself_to_those_it_concerns_and_to_nobody_else(house: House, role: str) -> None:
    application = an_acceptance(**PERSONS)
    await house.hear(application)
    for claims in SEES[role]:
        assert await reads(house, house.a(role, **claims), application) == {200}
    for claims in SEES_NOT.get(role, []):
        assert await reads(house, house.a(role, **claims), application) == {404}


READS = ("/tasks", "/tasks:poll", "/cases", f"/cases/{uuid4()}", f"/tasks/{uuid4()}", f"/archive/{uuid4()}")
WORKS = (
    f"/tasks/{uuid4()}:complete",
    "/tasks:complete",
    f"/tasks/{uuid4()}:suspend",
    f"/tasks/{uuid4()}:resume",
)
DECIDES = (
    f"/items/{uuid4()}:propose",
    f"/items/{uuid4()}:confirm",
    f"/items/{uuid4()}:reject",
    "/items:propose",
    "/items:confirm",
)


@pytest.mark.parametrize("role", ROLES)
async def test_a_missing_scope_is_refused_before_any_look_up(house: House, role: str) -> None:
    if role == "service":
        return
    org_unit = f"{COUNTY}/education" if role != "talent_office" else f"{COUNTY}/talent_office"
    caller = house.a(role, org_unit=org_unit)
    for scope, method, paths in (
        ("workflow:read", "get", READS),
        ("workflow:work", "post", WORKS),
        ("workflow:decide", "post", DECIDES),
    ):
        for path in paths:
            answer = await (caller.get(path, wait=0) if method == "get" else caller.post(path, {}))
            assert (answer.status == 403) == (scope not in ROLES[role]), (path, answer.body)


async def test_without_a_token_nothing_is_answered(house: House) -> None:
    nobody = Caller(house._client, "")
    for path in READS:
        (await nobody.get(path)).problem(401, "unauthenticated")


async def test_the_pages_and_documents_of_the_service_are_complete(house: House) -> None:
    client = house._client
    openapi = (await client.get("/workflow/openapi.json")).json()
    assert {"/workflow/v1/tasks:poll", "/workflow/v1/items:confirm", "/workflow/v1/certifications/{number}"} <= set(
        openapi["paths"]
    )
    asyncapi = (await client.get("/workflow/asyncapi.json")).json()
    assert "SlaBreached" in asyncapi["components"]["messages"]
    lines = openapi["components"]["schemas"]["Results"]["properties"]["tasks"]["items"]
    assert set(lines["properties"]) == {"task", "result", "reason", "facts"}
