"""The stock of flats: one flat is listed once, and everybody sees what is theirs to see."""

from uuid import uuid4

import pytest

from tests.housing.conftest import CITY, COUNTY, House, a_flat


async def test_a_flat_is_added_to_the_stock_of_the_officers_treasury(house: House) -> None:
    officer = house.officer()
    added = await officer.post("/flats", a_flat(code="A-1", room="１０１"))
    assert (added.status, added.body["treasury"], added.body["status"]) == (201, COUNTY, "available")
    assert added.body["room"] == "101"
    assert (await officer.get(f"/flats/{added.body['id']}")).body == added.body
    assert added.headers["location"] == f"/housing/v1/flats/{added.body['id']}"


async def test_the_same_key_adds_one_flat(house: House) -> None:
    body = a_flat()
    first = await house.officer().post("/flats", body, key="one")
    again = await house.officer().post("/flats", body, key="one")
    assert again.body == first.body
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("field", ["estate", "building", "room"])
@pytest.mark.parametrize("unseen", ["\u200b", " \u3000\u00a0", "\u2800", "\u3164", "甲\u200b园", "甲\x00园"], ids=ascii)
async def test_an_address_of_invisible_characters_is_refused(house: House, field: str, unseen: str) -> None:
    refused = await house.officer().post("/flats", a_flat(**{field: unseen}))
    assert (refused.status, [error["field"] for error in refused.body["errors"]]) == (422, [f"/{field}"])


async def test_a_batch_is_added_whole_or_not_at_all_and_names_the_lines_that_stand_in_stock(house: House) -> None:
    known = a_flat()
    await house.officer().post("/flats", known)
    same_room = a_flat() | {"room": known["room"]}
    refused = await house.officer().post("/flats:batch", {"flats": [a_flat(), same_room, a_flat(code=known["code"])]})
    assert (refused.status, refused.body["code"]) == (409, "flat-already-listed")
    assert [error["field"] for error in refused.body["errors"]] == ["/flats/1/code", "/flats/2/code"]
    assert len((await house.officer().get("/flats")).body["items"]) == 1


async def test_five_hundred_flats_are_added_at_once_and_read_page_by_page(house: House) -> None:
    added = await house.officer().post("/flats:batch", {"flats": [a_flat() for _ in range(500)]})
    assert added.status == 201
    ids = [flat["id"] for flat in added.body["flats"]]
    seen: list[str] = []
    cursor = ""
    for _ in range(10):
        page = (await house.officer().get(f"/flats?limit=200{cursor}")).body
        seen += [flat["id"] for flat in page["items"]]
        if not page["next"]:
            break
        cursor = f"&cursor={page['next']}"
    assert sorted(seen) == sorted(ids)
    assert (await house.officer().post("/flats:batch", {"flats": [a_flat() for _ in range(501)]})).status == 422


async def test_a_cursor_that_is_not_ours_is_refused(house: House) -> None:
    answer = await house.officer().get("/flats?cursor=WyJ4Il0")
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, "query/cursor")


async def test_filters_narrow_the_list(house: House) -> None:
    await house.flat(estate="甲园")
    apartment = await house.flat(estate="乙园", kind="apartment")
    held = await house.flat(estate="乙园")
    eligibility = await house.eligibility()
    await house.officer().post(f"/flats/{held}:hold", {"eligibility": str(eligibility.item)})

    async def found(query: str) -> list[str]:
        return [flat["id"] for flat in (await house.officer().get(f"/flats?{query}")).body["items"]]

    assert await found("kind=apartment") == [apartment]
    assert await found("estate=乙园&status=available") == [apartment]
    assert await found("status=held") == [held]
    assert await found(f"treasury={CITY}") == []


async def test_another_treasurys_flat_looks_like_an_unknown_one(house: House) -> None:
    flat = await house.flat()
    stranger = house.officer("410523")
    missing = await stranger.get(f"/flats/{uuid4()}")
    hidden = await stranger.get(f"/flats/{flat}")
    for answer in (missing, hidden):
        answer.body.pop("instance")
    assert (hidden.status, hidden.body) == (missing.status, missing.body) == (404, missing.body)
    assert (await stranger.post(f"/flats/{flat}:withdraw")).status == 404
    assert (await stranger.get("/flats")).body["items"] == []


@pytest.mark.article("第四条")
async def test_a_talent_sees_the_flats_that_suit_their_eligibility(house: House) -> None:
    eligibility = await house.eligibility()
    own, city = await house.flat(COUNTY), await house.flat(CITY)
    await house.flat("410523")
    await house.flat(COUNTY, kind="apartment")
    seen = (await house.talent(eligibility.beneficiary).get("/flats")).body["items"]
    assert {flat["id"] for flat in seen} == {own, city}
    assert (await house.talent(uuid4()).get("/flats")).body["items"] == []
    assert (await house.a("talent").get("/flats")).body["items"] == []


async def test_supervisor_and_auditor_see_every_flat_and_change_none(house: House) -> None:
    flat = await house.flat()
    for role in ("supervisor", "auditor"):
        caller = house.a(role)
        assert (await caller.get(f"/flats/{flat}")).status == 200
        assert (await caller.post("/flats", a_flat())).status == 403
        assert (await caller.post(f"/flats/{flat}:hold", {"eligibility": str(uuid4())})).status == 403


async def test_a_withdrawn_flat_cannot_be_chosen_until_it_is_offered_again(house: House) -> None:
    flat, eligibility = await house.flat(), await house.eligibility()
    officer, chosen = house.officer(), {"eligibility": str(eligibility.item)}
    assert (await officer.post(f"/flats/{flat}:withdraw")).body["status"] == "withdrawn"
    refused = await officer.post(f"/flats/{flat}:hold", chosen)
    assert (refused.status, refused.body["code"]) == (409, "flat-not-offered")
    assert (await officer.post(f"/flats/{flat}:offer")).body["status"] == "available"
    assert (await officer.post(f"/flats/{flat}:hold", chosen)).status == 201
    taken = await officer.post(f"/flats/{flat}:withdraw")
    assert (taken.status, taken.body["code"]) == (409, "flat-taken")
