"""People are within the bounds of the caller's org unit: resolved, merged and renamed only where they appeared."""

from typing import Any
from uuid import uuid4

from tests.intake.builders import COUNTY, DISTRICT, SCHOOLING, a_number, a_person, an_employer, licences
from tests.intake.conftest import Caller, House

CARE: dict[str, Any] = {
    "items": [{"code": "medical_care"}], "materials": licences("identity_document"), "payee_account": None,
}  # fmt: skip
SERVICE: dict[str, Any] = {
    "items": [SCHOOLING], "materials": licences("household_register", "birth_certificate"), "payee_account": None,
}  # fmt: skip


def office(house: House, treasury: str) -> Caller:
    return house.a("talent_office", org_unit=f"{treasury}/talent_office")


async def test_a_talent_office_resolves_only_people_of_applications_it_may_see(house: House) -> None:
    receipt = await house.portal().file()
    (account,) = await house.rows("SELECT ref FROM payee_account")
    refs = [receipt["beneficiary"], str(account.ref), str(uuid4())]
    question = {"refs": refs, "fields": ["name", "payee_account"], "purpose": "certification"}
    near = (await office(house, COUNTY).post("/people:resolve", question)).body
    assert ([item["ref"] for item in near["items"]], near["unknown"]) == (refs[:2], refs[2:])
    far = (await office(house, DISTRICT).post("/people:resolve", question)).body
    assert (far["items"], far["unknown"]) == ([], refs)
    assert len(await house.rows("SELECT 1 FROM people_resolved")) == 2


async def test_a_talent_office_merges_only_people_of_applications_it_may_see(house: House) -> None:
    near = await house.portal().file(**CARE)
    also = await house.portal().file(**CARE)
    far = await house.portal().file(employer=an_employer(DISTRICT), **CARE)
    for merged, into in ((near, far), (far, near)):
        merge = {"merged": merged["beneficiary"], "into": into["beneficiary"], "reason": "一人两证"}
        for treasury in (COUNTY, DISTRICT):
            (await office(house, treasury).post("/people:merge", merge)).problem(404, "not-found")
    merge = {"merged": also["beneficiary"], "into": near["beneficiary"], "reason": "一人两证"}
    (await office(house, DISTRICT).post("/people:merge", merge)).problem(404, "not-found")
    assert (await office(house, COUNTY).post("/people:merge", merge)).status == 200


async def test_a_clerk_renames_only_who_appeared_at_their_own_platform(house: House) -> None:
    number = a_number()
    await house.portal().file(beneficiary=a_person("王小明", number), **CARE)
    away = house.clerk(DISTRICT)
    renamed = {"channel": "on_site", "beneficiary": a_person("赵大", number), "employer": an_employer(DISTRICT)}
    for _ in range(2):  # what was filed there under the wrong name opens no door
        stranger = await away.file(**renamed, **SERVICE)
        assert [defect["code"] for defect in stranger["defects"]] == ["name-differs"]
    again = await away.post(f"/applications/{stranger['id']}:correct", {"beneficiary": a_person("赵大", number)})
    assert again.body["state"] == "correction"
    await away.file(**renamed | {"employer": an_employer(COUNTY)}, **SERVICE)  # transferred
    assert (await away.file(**renamed, **SERVICE))["state"] == "correction"
    own = await house.clerk().file(**renamed | {"employer": an_employer(COUNTY)}, **SERVICE)
    assert own["state"] == "accepted"
    fresh = await away.file(**renamed | {"beneficiary": a_person("钱二")}, **SERVICE)
    assert fresh["state"] == "accepted"
