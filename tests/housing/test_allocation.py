"""Holds and leases: two people never have the same flat, and a hold ends by itself."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from libs.common.calendar import end_of_day, local_date
from libs.common.events import LeaseEnded
from libs.common.policy.identity import PackIdentity
from services.housing.domain import HOLD_DAYS
from tests.housing.conftest import CITY, COUNTY, Caller, House, an_approval

TODAY = local_date(datetime.now(UTC))
A_YEAR = {"from_day": TODAY.isoformat(), "to_day": (TODAY + timedelta(days=365)).isoformat()}
LATER = datetime.now(UTC) + timedelta(days=HOLD_DAYS + 2)


async def hold(house: House, caller: Caller, flat: str, item: Any) -> str:
    answer = await caller.post(f"/flats/{flat}:hold", {"eligibility": str(item)})
    assert answer.status == 201, answer.body
    return str(answer.body["id"])


async def status(house: House, flat: str) -> str:
    return str((await house.a("auditor").get(f"/flats/{flat}")).body["status"])


async def test_an_approved_housing_benefit_gives_an_eligibility_once(house: House) -> None:
    flat, apartment = an_approval(), an_approval(benefit="talent_apartment")
    await house.hear(flat, apartment, an_approval(benefit="living_allowance"))
    await house.hear(flat)
    held = (await house.a("auditor").get("/eligibilities")).body["items"]
    assert {(each["id"], each["kind"]) for each in held} == {
        (str(flat.item), "transitional"),
        (str(apartment.item), "apartment"),
    }
    (kept,) = await house.rows("SELECT DISTINCT policy_sha256 FROM eligibility")
    assert kept.policy_sha256 == flat.policy.sha256


async def test_an_approval_under_a_pack_not_known_yet_waits_for_it(house: House) -> None:
    await house.hear(an_approval(policy=PackIdentity(city="anyang", version="9", sha256="9" * 64)))
    (parked,) = await house.rows("SELECT waiting_for FROM parked_key")
    assert parked.waiting_for == f"pack:{'9' * 64}"


async def test_of_twenty_who_choose_the_same_flat_at_once_one_gets_it(house: House) -> None:
    flat = await house.flat()
    approvals = [an_approval() for _ in range(20)]
    await house.hear(*approvals)
    answers = await asyncio.gather(
        *(
            house.talent(each.beneficiary).post(f"/flats/{flat}:hold", {"eligibility": str(each.item)})
            for each in approvals
        )
    )
    assert sorted(answer.status for answer in answers) == [201] + [409] * 19
    refused = next(answer.body for answer in answers if answer.status == 409)
    assert (refused["code"], refused["title"]) == ("flat-already-held", "该房源已被他人锁定，请另选房源")
    assert await house.told() == ["FlatHeld"]


async def test_one_eligibility_holds_one_flat_even_when_it_asks_for_many_at_once(house: House) -> None:
    approval = await house.eligibility()
    flats = [await house.flat() for _ in range(6)]
    me = house.talent(approval.beneficiary)
    answers = await asyncio.gather(
        *(me.post(f"/flats/{flat}:hold", {"eligibility": str(approval.item)}) for flat in flats)
    )
    assert sorted(answer.status for answer in answers) == [201] + [409] * 5
    assert {answer.body["code"] for answer in answers if answer.status == 409} == {"eligibility-in-use"}


async def test_the_database_itself_refuses_a_second_taker(house: House) -> None:
    flat, first, second = await house.flat(), await house.eligibility(), await house.eligibility()
    await hold(house, house.officer(), flat, first.item)
    with pytest.raises(IntegrityError, match="uq_hold_flat_taken"):
        async with house.service.database.transaction() as tx:
            await tx.execute(
                text("""INSERT INTO hold (id, flat, eligibility, state, held_at, held_until, held_by, changed_at)
                        VALUES (:id, :flat, :item, 'leased', now(), now() + interval '1 day', 'x', now())"""),
                {"id": uuid4(), "flat": flat, "item": second.item},
            )


async def test_a_hold_lasts_to_the_end_of_its_last_day_and_is_released_by_itself(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.officer(), flat, approval.item)
    shown = (await house.officer().get(f"/holds/{held}")).body
    until = datetime.fromisoformat(shown["held_until"])
    assert until == end_of_day(TODAY + timedelta(days=HOLD_DAYS))
    assert await house.tick(until - timedelta(seconds=1)) == 0
    assert await house.tick(until) == 1
    assert (await house.officer().get(f"/holds/{held}")).body["state"] == "released"
    assert await status(house, flat) == "available"
    assert await house.told() == ["FlatHeld", "FlatReleased"]
    (row,) = await house.rows("SELECT convert_from(value, 'UTF8')::jsonb->>'reason' AS reason FROM outbox OFFSET 1")
    assert row.reason == "expired"


async def test_a_flat_that_was_given_up_is_free_for_the_next(house: House) -> None:
    flat, first, second = await house.flat(), await house.eligibility(), await house.eligibility()
    me = house.talent(first.beneficiary)
    held = await hold(house, me, flat, first.item)
    assert (await me.post(f"/holds/{held}:release")).body["state"] == "released"
    await hold(house, house.talent(second.beneficiary), flat, second.item)
    assert await house.told() == ["FlatHeld", "FlatReleased", "FlatHeld"]
    refused = await me.post(f"/holds/{held}:release")
    assert (refused.status, refused.body["code"]) == (409, "hold-not-in-state")
    assert "“已锁定”" in refused.body["detail"]


async def test_a_hold_becomes_a_lease_which_the_ticker_no_longer_releases(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.talent(approval.beneficiary), flat, approval.item)
    leased = await house.officer().post(f"/holds/{held}:lease", A_YEAR)
    assert (leased.status, leased.body["state"], leased.body["to_day"]) == (201, "leased", A_YEAR["to_day"])
    assert await house.tick(LATER) == 0
    assert await status(house, flat) == "leased"
    assert await house.told() == ["FlatHeld", "FlatLeased"]
    assert (await house.talent(approval.beneficiary).get("/leases")).body["items"] == [leased.body]
    twice = await house.officer().post(f"/holds/{held}:lease", A_YEAR)
    assert (twice.status, twice.body["code"]) == (409, "hold-not-in-state")
    assert "只适用于“已锁定”的记录" in twice.body["detail"]


async def test_a_lease_ends_after_its_last_day_and_the_flat_is_free(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.officer(), flat, approval.item)
    await house.officer().post(f"/holds/{held}:lease", A_YEAR)
    over = end_of_day(TODAY + timedelta(days=365))
    assert await house.tick(over - timedelta(seconds=1)) == 0
    assert await house.tick(over) == 1
    assert await status(house, flat) == "available"
    assert (await house.officer().get("/leases?state=ended")).body["items"][0]["hold"] == held
    assert await house.tick(over) == 0
    *_, leased, ended = await house.emitted()
    assert isinstance(ended, LeaseEnded)
    assert (ended.application, ended.item, str(ended.flat)) == (approval.application, approval.item, flat)
    assert (ended.lease, ended.ended_on, ended.reason) == (leased.lease, leased.to_day, "expired")


async def test_a_lease_may_be_ended_early_by_the_officer(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.officer(), flat, approval.item)
    leased = await house.officer().post(f"/holds/{held}:lease", A_YEAR)
    ended = await house.officer().post(f"/leases/{leased.body['id']}:end")
    assert (ended.status, ended.body["state"]) == (200, "ended")
    told = (await house.emitted())[-1]
    assert isinstance(told, LeaseEnded)
    assert (str(told.lease), told.ended_on, told.reason) == (leased.body["id"], TODAY, "ended_early")
    again = await house.officer().post(f"/leases/{leased.body['id']}:end")
    assert (again.status, await house.told()) == (409, ["FlatHeld", "FlatLeased", "LeaseEnded"])
    assert await status(house, flat) == "available"
    assert await house.rows("SELECT 1 FROM due") == []
    history = await house.rows("SELECT move, state FROM hold_history ORDER BY id")
    assert [tuple(row) for row in history] == [("hold", "held"), ("lease", "leased"), ("end", "ended")]


async def test_lease_days_must_make_sense(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.officer(), flat, approval.item)
    backwards = await house.officer().post(f"/holds/{held}:lease", {"from_day": "2031-01-02", "to_day": "2031-01-01"})
    assert (backwards.status, backwards.body["errors"][0]["code"]) == (422, "lease-days")
    over = await house.officer().post(f"/holds/{held}:lease", {"from_day": "2022-01-01", "to_day": "2022-12-31"})
    assert (over.status, over.body["code"]) == (409, "lease-over")
    early = await house.officer().post(f"/holds/{held}:lease", A_YEAR | {"from_day": "2022-01-01"})
    assert (early.status, early.body["code"]) == (409, "lease-before-hold")


@pytest.mark.parametrize("day", [0, "0", "2021-03-23T00:00:00", "1616457600", "2021-3-23", " 2021-03-23"])
async def test_a_lease_day_is_a_day_in_full(house: House, day: object) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.officer(), flat, approval.item)
    for field in ("from_day", "to_day"):
        answer = await house.officer().post(f"/holds/{held}:lease", A_YEAR | {field: day})
        assert (answer.status, answer.body["errors"][0]["field"]) == (422, f"/{field}")


async def test_a_hold_past_its_last_moment_cannot_be_leased_even_before_the_ticker_comes(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.officer(), flat, approval.item)
    async with house.service.database.transaction() as tx:
        await tx.execute(text("UPDATE hold SET held_at = now() - interval '9 days', held_until = now()"))
    refused = await house.officer().post(f"/holds/{held}:lease", A_YEAR)
    assert (refused.status, refused.body["code"]) == (409, "hold-lapsed")
    assert (await house.officer().get(f"/holds/{held}")).body["state"] == "held"


async def test_ticker_and_officer_who_meet_at_the_same_hold_do_not_both_win(house: House) -> None:
    approvals = [an_approval() for _ in range(8)]
    await house.hear(*approvals)
    held = [await hold(house, house.officer(), await house.flat(), each.item) for each in approvals]
    answers, *_ = await asyncio.gather(
        asyncio.gather(*(house.officer().post(f"/holds/{each}:lease", A_YEAR) for each in held)),
        house.tick(LATER),
        house.tick(LATER),
    )
    assert {answer.status for answer in answers} <= {201, 409}
    leased = sum(answer.status == 201 for answer in answers)
    rows = await house.rows("SELECT state, count(*) AS n FROM hold GROUP BY state")
    assert {row.state: row.n for row in rows} == {
        state: n for state, n in {"leased": leased, "released": 8 - leased}.items() if n
    }
    assert len(await house.told()) == 16


async def test_the_same_key_holds_once_and_another_flat_under_it_is_refused(house: House) -> None:
    flat, other, approval = await house.flat(), await house.flat(), await house.eligibility()
    body = {"eligibility": str(approval.item)}
    first = await house.officer().post(f"/flats/{flat}:hold", body, key="k")
    assert (await house.officer().post(f"/flats/{flat}:hold", body, key="k")).body == first.body
    assert (await house.officer().post(f"/flats/{other}:hold", body, key="k")).body["code"] == "idempotency-key-reused"
    assert await house.told() == ["FlatHeld"]


async def test_nobody_chooses_with_the_eligibility_of_another(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    body = {"eligibility": str(approval.item)}
    other = await house.eligibility()  # sees the flat, not the eligibility
    for stranger in (house.talent(other.beneficiary), house.officer("410523"), house.a("talent")):
        assert (await stranger.post(f"/flats/{flat}:hold", body)).status == 404
    assert await house.told() == []


async def test_a_flat_of_another_kind_does_not_suit(house: House) -> None:
    flat, approval = await house.flat(kind="apartment"), await house.eligibility()
    refused = await house.officer().post(f"/flats/{flat}:hold", {"eligibility": str(approval.item)})
    assert (refused.status, refused.body["code"]) == (409, "flat-not-suitable")


async def test_a_talent_of_a_county_may_choose_a_flat_of_the_city(house: House) -> None:
    flat, approval = await house.flat(CITY), await house.eligibility(treasury=COUNTY)
    held = await hold(house, house.talent(approval.beneficiary), flat, approval.item)
    assert (await house.officer(CITY).post(f"/holds/{held}:lease", A_YEAR)).status == 201


@pytest.mark.parametrize(
    ("role", "claims", "expected"),
    [
        ("housing", {"org_unit": f"{COUNTY}/housing_construction"}, 1),
        ("housing", {"org_unit": "410523/housing_construction"}, 0),
        ("talent_office", {"org_unit": f"{COUNTY}/talent_office"}, 1),
        ("talent_office", {"org_unit": "410523/talent_office"}, 0),
        ("supervisor", {}, 1),
        ("auditor", {}, 1),
        ("talent", {"person": str(uuid4())}, 0),
        ("talent", {"person": "nobody"}, 0),
    ],
)
async def test_each_role_sees_what_is_theirs(house: House, role: str, claims: dict[str, str], expected: int) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    held = await hold(house, house.officer(), flat, approval.item)
    leased = await house.officer().post(f"/holds/{held}:lease", A_YEAR)
    caller = house.a(role, **claims)
    for listed, one in (("eligibilities", approval.item), ("holds", held), ("leases", leased.body["id"])):
        assert len((await caller.get(f"/{listed}")).body["items"]) == expected
        assert (await caller.get(f"/{listed}/{one}")).status == (200 if expected else 404)


async def test_history_cannot_be_rewritten_by_the_service(house: House) -> None:
    flat, approval = await house.flat(), await house.eligibility()
    await hold(house, house.officer(), flat, approval.item)
    for attempt in ("UPDATE hold_history SET state = 'ended'", "DELETE FROM hold_history", "DELETE FROM lease"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with house.service.database.transaction() as tx:
                await tx.execute(text(attempt))
