"""The policy as a portal sees it: of today, of a day, of a version; and the file that it rests on."""

import hashlib

import pytest

from libs.common.packs import store
from tests.common.packs import ANYANG, a_pack, anyang, one_of
from tests.intake.conftest import House


@pytest.mark.article("第三条")
async def test_a_policy_is_shown_of_today_of_a_day_and_of_a_version(house: House) -> None:
    portal, identity = house.portal(), anyang().identity
    today = (await portal.get("/policy")).body
    assert today["identity"] == identity.model_dump()
    items = {item["code"]: item for item in today["items"]}
    assert (items["talent_certification"]["promised_working_days"], items["household_registration"]["visits"]) == (5, 1)
    assert items["talent_certification"]["statutory_working_days"] is None
    then = (await portal.get("/policy?on=2021-12-31")).body
    assert (then["on"], then["identity"]) == ("2021-12-31", today["identity"])
    same = (await portal.get(f"/policy?sha256={identity.sha256}&on=2021-03-23")).body
    assert same["items"] == today["items"]
    before = (await portal.get(f"/policy?sha256={identity.sha256}&on=2021-03-22")).body
    assert before["items"] == []


async def test_a_policy_says_whom_a_benefit_is_given_to_once_and_what_cannot_be_had_beside_it(house: House) -> None:
    pack = a_pack(('version: "2021-4.4"', 'version: "2021-5"'), one_of("talent_flat", "talent_apartment"))
    async with house.service.database.transaction() as tx:
        await store(tx, pack)
    await house.service.packs.refresh()
    told = (await house.portal().get("/policy")).body["items"]
    found = {item["code"]: (item["claim_subject"], item["alternatives"]) for item in told}
    assert found["talent_flat"] == ("household", ["talent_apartment"])
    assert found["living_allowance"] == ("person", [])
    assert found["talent_certification"] == (None, [])


@pytest.mark.article("第六条")
async def test_a_policy_says_whose_items_go_through_the_green_channel(house: House) -> None:
    channels = {item["code"]: item["green_channels"] for item in (await house.portal().get("/policy")).body["items"]}
    everybody = [category.code for category in anyang().categories]
    assert channels["children_schooling"] == [{"categories": everybody, "limit_working_days": 5}]
    assert channels["talent_certification"] == []


@pytest.mark.parametrize("query", ["on=2021-03-22", f"sha256={'0' * 64}"])
async def test_a_policy_that_nobody_holds_is_not_found(house: House, query: str) -> None:
    assert (await house.portal().get(f"/policy?{query}")).status == 404


@pytest.mark.parametrize("query", ["on=2021-3-22", "on=2021-02-30", "sha256=2e34", f"sha256={'A' * 64}"])
async def test_a_wrong_day_or_hash_is_named(house: House, query: str) -> None:
    answer = await house.portal().get(f"/policy?{query}")
    assert answer.status == 422
    assert query.split("=", maxsplit=1)[0] in str(answer.body["errors"])


async def test_the_file_is_the_one_that_the_hash_names(house: House) -> None:
    sha256 = anyang().identity.sha256
    answer = await house.portal().get(f"/policy/{sha256}")
    assert answer.status == 200
    assert answer.content == ANYANG.read_bytes()
    assert hashlib.sha256(answer.content).hexdigest() == sha256
    assert answer.headers["content-type"] == "application/yaml"
    assert "immutable" in answer.headers["cache-control"]
    (await house.portal().get(f"/policy/{'0' * 64}")).problem(404, "not-found")
