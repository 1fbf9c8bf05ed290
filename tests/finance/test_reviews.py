"""Reviews before later instalments: what is withheld, what lets it go, and that no fen is lost or paid twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.calendar import CALENDAR, end_of_day
from libs.common.events import EmployerAffiliated, InstalmentReviewed, SlaBreached, StatedAffiliation
from libs.common.policy import load_pack
from libs.common.policy.instalments import add_months
from libs.common.ticker import retry
from services.finance.entitlements import order_in_time
from services.finance.payouts import lock_applications
from tests.common.packs import a_pack, anyang, reviewed
from tests.conftest import ROOT, MakeDatabase
from tests.contracts.test_bus import until
from tests.finance.builders import COUNTY, DISTRICT, an_approval, credited, today
from tests.finance.conftest import Answer, House, a_house, reference

CITIES = ROOT / "deploy" / "cities"
SOUND = {"person.insured_here": True, "employer.good_standing": True}
LAPSED = SOUND | {"person.insured_here": False}
UNKNOWN = {"employer.good_standing": True}
LONG_AGO = timedelta(days=200)  # the second of six half years is to be ordered


class Granted:
    """An allowance whose later instalments are reviewed."""

    def __init__(self, house: House, entitlement: UUID, application: UUID) -> None:
        self._house = house
        self.id = entitlement
        self.application = application

    async def review(self, number: int, facts: Any, *, by: Any = None, key: str | None = None) -> Answer:
        path = f"/entitlements/{self.id}/instalments/{number}:review"
        answer: Answer = await (by or self._house.office()).post(path, {"facts": facts}, key=key)
        return answer

    async def instalments(self) -> list[Any]:
        shown = (await self._house.office().get(f"/entitlements/{self.id}")).ok()
        return [SimpleNamespace(**part) for part in shown["instalments"]]

    async def ordered(self) -> list[int]:
        return [order.instalment for order in await self._house.orders(application=self.application)]


async def granted(house: House, *, ago: timedelta = timedelta(0)) -> Granted:
    pack = await house.publish(a_pack(('version: "2021-4.4"', 'version: "2021-4.5"'), reviewed("living_allowance")))
    decided = today() - ago
    event = an_approval(
        policy=pack.identity,
        benefit="living_allowance",
        decided_on=decided,
        accepted_on=decided - timedelta(days=7),
    )
    await house.hear(event)
    (row,) = await house.rows("SELECT id FROM entitlement WHERE item = :item", item=event.item)
    return Granted(house, row.id, event.application)


async def work(house: House, on: date | None = None) -> None:
    """Run all that is due until the end of a day; what is of provisional days is looked at first."""
    for _ in range(2):
        await house.tick(end_of_day(on) if on else datetime.now(UTC))


async def pending(house: House, by: Any = None, **query: Any) -> list[Any]:
    shown = (await (by or house.office()).get("/pending-reviews", **query)).ok()
    return [SimpleNamespace(**each) for each in shown["items"]]


# -- what is withheld, and what lets it go


async def test_without_a_review_nothing_later_is_ordered_and_the_one_that_passes_orders_at_once(house: House) -> None:
    allowance = await granted(house, ago=LONG_AGO)
    await work(house)
    assert await allowance.ordered() == [1]
    assert [part.withheld for part in await allowance.instalments()] == [False, True, *[False] * 4]
    told = (await allowance.review(2, SOUND)).ok(201)
    assert (told["verdict"], told["verdict_title"], told["facts"], told["by"]) == ("pass", "符合", SOUND, "officer-1")
    await work(house)
    assert await allowance.ordered() == [1, 2]
    (_, second, *_) = await allowance.instalments()
    assert (second.withheld, second.state, second.reviews) == (False, "unfunded", [told])
    assert await house.differences() == []


async def test_after_a_late_review_the_treasury_has_its_two_days_and_the_quota_of_this_year(house: House) -> None:
    allowance = await granted(house, ago=timedelta(days=400))
    await work(house)
    (await allowance.review(2, SOUND)).ok(201)
    await work(house)
    (_, order) = await house.orders(application=allowance.application)
    assert order.due_on == CALENDAR.add_working_days(today(), 2)
    assert [event.record for event in await house.emitted(SlaBreached) if event.record == order.id] == []
    (line,) = await house.rows("SELECT fiscal_year FROM quota WHERE id = :id", id=order.quota_id)
    assert line.fiscal_year == order.due_on.year


async def test_what_waits_for_a_review_waits_for_nothing_else(house: House) -> None:
    """The employer belongs nowhere any more: nobody could bear the instalment, and nobody has to."""
    allowance = await granted(house, ago=LONG_AGO)
    (row,) = await house.rows("SELECT employer FROM entitlement")
    gone = StatedAffiliation(kind="fiscal", treasury=DISTRICT, valid_from=date.min, valid_to=today() - LONG_AGO)
    ties = {"employer": row.employer, "revision": 1, "affiliations": (gone,)}
    await house.hear(EmployerAffiliated(policy=anyang().identity, **ties))
    lines = await house.rows("SELECT id FROM quota")
    await work(house)
    assert await house.rows("SELECT key FROM parked") == []
    assert await house.rows("SELECT id FROM quota") == lines
    (await allowance.review(2, SOUND)).ok(201)
    await work(house)
    (parked,) = await house.rows("SELECT reason FROM parked")
    assert "no affiliation on" in parked.reason


async def test_a_review_that_passes_before_the_day_leaves_the_order_to_its_day(house: House) -> None:
    allowance = await granted(house)
    (_, second, *_) = await allowance.instalments()
    (await allowance.review(2, SOUND)).ok(201)
    order_on = date.fromisoformat(second.order_on)
    await work(house, order_on - timedelta(days=2))
    assert await allowance.ordered() == [1]
    await work(house, order_on - timedelta(days=1))  # at its end the day of the order begins
    assert await allowance.ordered() == [1, 2]
    (_, order) = await house.orders(application=allowance.application)
    assert order.due_on.isoformat() == second.due_on


@pytest.mark.parametrize(
    ("facts", "verdict", "rules", "sentence"),
    [
        (LAPSED, "fail", ("still.insured",), "参保已中断，本期缓发"),
        (UNKNOWN, "undetermined", ("still.insured",), "参保情况尚不清楚，请人社部门核实"),
        ({}, "undetermined", ("still.insured", "still.in-good-standing"), "用人单位经营状况尚不清楚"),
    ],
)
async def test_what_does_not_pass_stays_withheld_and_is_told_with_its_reason(
    house: House, facts: Any, verdict: str, rules: tuple[str, ...], sentence: str
) -> None:
    allowance = await granted(house, ago=LONG_AGO)
    told = (await allowance.review(2, facts)).ok(201)
    assert told["verdict"] == verdict
    assert sentence in [clause["sentence"] for clause in told["clauses"] if clause["verdict"] == verdict]
    assert {clause["article"] for clause in told["clauses"]} == {"第四条"}
    await work(house)
    assert await allowance.ordered() == [1]
    (event,) = await house.emitted(InstalmentReviewed)
    assert (event.verdict, event.rules, event.instalment) == (verdict, rules, 2)
    assert (event.review, event.reviewed_on) == (UUID(told["id"]), today())
    (_, second, *_) = await allowance.instalments()
    assert second.withheld
    (await allowance.review(2, SOUND)).ok(201)
    await work(house)
    assert await allowance.ordered() == [1, 2]
    assert await house.differences() == []


async def test_the_last_review_counts_and_none_is_taken_behind_the_order(house: House) -> None:
    allowance = await granted(house, ago=LONG_AGO)
    for facts in (SOUND, LAPSED):
        (await allowance.review(2, facts)).ok(201)
    await work(house)
    assert await allowance.ordered() == [1]
    (await allowance.review(2, SOUND)).ok(201)
    await work(house)
    (await allowance.review(2, LAPSED)).problem(409, "instalment-ordered")
    (_, second, *_) = await allowance.instalments()
    assert [review["verdict"] for review in second.reviews] == ["pass", "fail", "pass"]
    assert await allowance.ordered() == [1, 2]


async def test_an_instalment_is_reviewed_in_its_own_time_and_only_where_the_policy_asks(house: House) -> None:
    allowance = await granted(house)
    third = (await allowance.review(3, SOUND)).problem(409, "review-too-early")
    assert add_months(today(), 6).isoformat() in third["detail"]
    (await allowance.review(1, SOUND)).problem(409, "nothing-to-review")
    (await allowance.review(7, SOUND)).problem(404, "not-found")
    plain = await house.due_order(benefit="living_allowance")
    path = f"/entitlements/{plain.entitlement_id}/instalments/2:review"
    (await house.office().post(path, {"facts": SOUND})).problem(409, "nothing-to-review")
    assert [part.review_from for part in await house.planned(plain)] == [None] * 6


async def test_facts_that_the_policy_does_not_hold_are_refused_by_name(house: House) -> None:
    allowance = await granted(house)
    wrong = {"person.insured_here": "yes", "person.happy": True, "person.degree": "magister"}
    refused = (await allowance.review(2, wrong)).problem(422, "content-wrong")
    assert {(each["field"], each["code"]) for each in refused["errors"]} == {
        ("/facts/person.insured_here", "fact-wrong-type"),
        ("/facts/person.happy", "unknown-fact"),
        ("/facts/person.degree", "unknown-fact-value"),
    }
    assert await house.rows("SELECT 1 FROM instalment_review") == []
    (await allowance.review(241, SOUND)).problem(422, "invalid-request")


# -- once, by whom


async def test_the_same_key_reviews_once_and_another_body_under_it_is_refused(house: House) -> None:
    allowance = await granted(house)
    key = uuid4().hex
    first, again = [(await allowance.review(2, SOUND, key=key)).ok(201) for _ in range(2)]
    assert first == again
    (await allowance.review(2, LAPSED, key=key)).problem(409, "idempotency-key-reused")
    assert len(await house.rows("SELECT 1 FROM instalment_review")) == 1


@pytest.mark.parametrize(("other", "orders"), [(SOUND, {1}), (LAPSED, {0, 1})])
async def test_reviews_and_the_day_of_the_order_at_one_moment_make_one_order_at_most(
    house: House, other: Any, orders: set[int]
) -> None:
    allowance = await granted(house, ago=LONG_AGO)
    reviews = (allowance.review(2, facts) for facts in (SOUND, other, SOUND, other))
    answers = await asyncio.gather(work(house), *reviews, work(house))
    assert {answer.status for answer in answers if answer} <= {201, 409}
    await work(house)
    assert (await allowance.ordered()).count(2) in orders
    assert await house.differences() == []
    assert await house.rows("SELECT 1 FROM parked") == []


async def test_a_tick_that_releases_what_was_parked_and_a_review_never_wait_for_each_other(house: House) -> None:
    """Of one application the second instalment falls due while the third, set aside, is put back and reviewed."""
    allowance = await granted(house, ago=LONG_AGO)
    await work(house)
    (await allowance.review(2, SOUND)).ok(201)
    await parked_instalment(house, allowance, 3)
    query = "SELECT e.*, i.number AS instalment FROM entitlement AS e JOIN instalment AS i ON i.entitlement_id = e.id"
    (third,) = await house.rows(f"{query} WHERE i.number = 3")
    async with house.service.database.transaction() as tx:
        await order_in_time(tx, house.service.packs, third)  # as the review does
        ticking = asyncio.create_task(house.tick(datetime.now(UTC) + timedelta(minutes=2)))
        await somebody_waits(house)
        await lock_applications(tx, [allowance.application])
    await ticking
    assert await allowance.ordered() == [1, 2]
    assert await house.rows("SELECT key FROM parked") == []


async def parked_instalment(house: House, allowance: Granted, number: int) -> None:
    """The due work of an instalment, set aside and about to be tried again."""
    key = f"{allowance.id}/{number}"
    async with house.service.database.transaction() as tx:
        await tx.execute(text("DELETE FROM due WHERE key = :key"), {"key": key})
        await tx.execute(text("INSERT INTO parked_key VALUES ('due:instalment.order', :key, 'pack:x')"), {"key": key})
        await tx.execute(
            text("""INSERT INTO parked (topic, partition, "offset", key, record_key, headers, value, reason)
                    VALUES ('due:instalment.order', -1, 0, :key, :key, '{}', :value, 'came before its cause')"""),
            {"key": key, "value": json.dumps({"entitlement": str(allowance.id), "number": number}).encode()},
        )
        await retry(tx, [("due:instalment.order", key)], timedelta())


async def somebody_waits(house: House) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def found() -> bool:
        return bool(await house.rows(waiting))

    await until(found)


async def test_only_the_talent_office_of_the_treasury_reviews(house: House) -> None:
    allowance = await granted(house)
    (person,) = await house.rows("SELECT beneficiary FROM entitlement")
    talent = house.a("talent", person=str(person.beneficiary))
    for caller in (house.treasurer(), house.a("supervisor"), talent):
        (await allowance.review(2, SOUND, by=caller)).problem(403, "forbidden")
        assert [each.instalment for each in await pending(house, caller)] == [2]
    elsewhere = house.office(COUNTY)
    (await allowance.review(2, SOUND, by=elsewhere)).problem(404, "not-found")
    for stranger in (elsewhere, house.a("talent", person=str(uuid4()))):
        assert await pending(house, stranger) == []


# -- an employer that moved


def tied(treasury: str, first: date = date.min, last: date | None = None, kind: Any = "fiscal") -> StatedAffiliation:
    return StatedAffiliation(kind=kind, treasury=treasury, valid_from=first, valid_to=last)


async def moved(house: House, allowance: Granted, *ties: StatedAffiliation, revision: int = 1) -> None:
    (row,) = await house.rows("SELECT employer FROM entitlement WHERE id = :id", id=allowance.id)
    told = {"employer": row.employer, "revision": revision, "affiliations": ties}
    await house.hear(EmployerAffiliated(policy=anyang().identity, **told))


async def seen_by(house: House, treasury: str) -> list[tuple[int, str]]:
    return [(each.instalment, each.treasury) for each in await pending(house, house.office(treasury))]


@pytest.mark.article("第二条")
async def test_the_treasury_that_an_employer_moved_to_reviews_and_the_old_one_only_sees(house: House) -> None:
    allowance = await granted(house, ago=LONG_AGO)
    (_, _, third, *_) = await allowance.instalments()
    moves_on = date.fromisoformat(third.due_on)
    ties = tied(DISTRICT, last=moves_on - timedelta(days=1)), tied(COUNTY, moves_on)
    await moved(house, allowance, *ties)
    assert await seen_by(house, DISTRICT) == [(2, DISTRICT), (3, COUNTY)]
    assert await seen_by(house, COUNTY) == [(3, COUNTY)]
    (entitlement,) = {each.entitlement for each in await pending(house)}
    new, old = house.office(COUNTY), house.office(DISTRICT)
    shown = (await new.get(f"/entitlements/{entitlement}")).ok()
    assert [part["number"] for part in shown["instalments"] if part["withheld"]] == [2]

    refused = (await allowance.review(3, SOUND, by=old)).problem(409, "reviewed-elsewhere")
    assert "安阳县" in refused["detail"]
    assert COUNTY in refused["detail"]
    (await allowance.review(2, SOUND, by=new)).problem(404, "not-found")
    (await allowance.review(3, SOUND, by=new)).ok(201)
    (await allowance.review(2, SOUND, by=old)).ok(201)
    assert [event.treasury for event in await house.emitted(InstalmentReviewed)] == [COUNTY, DISTRICT]
    await work(house)
    await work(house, date.fromisoformat(third.order_on))
    orders = await house.orders(application=allowance.application)
    assert [(order.instalment, order.treasury) for order in orders] == [(1, DISTRICT), (2, DISTRICT), (3, COUNTY)]


async def test_who_bears_an_instalment_is_not_known_the_treasury_of_the_grant_reviews(house: House) -> None:
    allowance = await granted(house, ago=LONG_AGO)
    await moved(house, allowance, tied(DISTRICT), tied(COUNTY))  # two that disagree
    assert await seen_by(house, DISTRICT) == [(2, DISTRICT), (3, DISTRICT)]
    assert await seen_by(house, COUNTY) == []
    (await allowance.review(2, SOUND, by=house.office(COUNTY))).problem(404, "not-found")
    (await house.office(COUNTY).get(f"/entitlements/{allowance.id}")).problem(404, "not-found")
    (await allowance.review(2, SOUND)).ok(201)


async def test_a_treasury_that_an_employer_only_pays_taxes_to_sees_nothing(house: House) -> None:
    allowance = await granted(house, ago=LONG_AGO)
    await moved(house, allowance, tied(DISTRICT), tied(COUNTY, kind="tax"))
    assert await seen_by(house, COUNTY) == []
    (await house.office(COUNTY).get(f"/entitlements/{allowance.id}")).problem(404, "not-found")


async def test_every_page_of_the_list_leads_on_also_where_it_holds_nothing_of_the_reader(house: House) -> None:
    one, other = await granted(house, ago=LONG_AGO), await granted(house, ago=LONG_AGO)
    await moved(house, one, tied(DISTRICT), tied(COUNTY, kind="tax"))
    await moved(house, other, tied(COUNTY))
    found: list[str] = []
    page: dict[str, Any] = {"limit": 1}
    while page:
        shown = (await house.office(COUNTY).get("/pending-reviews", **page)).ok()
        found += [each["entitlement"] for each in shown["items"]]
        page = {"limit": 1, "cursor": shown["next"]} if shown["next"] else {}
    assert found == [str(other.id)] * 2


# -- the list


async def test_what_waits_for_a_review_is_listed_with_what_is_to_be_found_until_one_passes(house: House) -> None:
    old, new = await granted(house, ago=LONG_AGO), await granted(house)
    listed = await pending(house)
    assert [(each.entitlement, each.instalment, each.withheld) for each in listed] == [
        (str(old.id), 2, True),
        (str(old.id), 3, False),
        (str(new.id), 2, False),
    ]
    assert {fact["name"] for clause in listed[0].conditions for fact in clause["missing"]} == set(SOUND)
    assert listed[0].review is None
    paged: list[str] = []
    page: dict[str, Any] = {"limit": 1}
    while True:
        shown = (await house.office().get("/pending-reviews", **page)).ok()
        paged += [f"{each['entitlement']} {each['instalment']}" for each in shown["items"]]
        if shown.get("next") is None:
            break
        page["cursor"] = shown["next"]
    assert paged == [f"{each.entitlement} {each.instalment}" for each in listed]
    failed = (await old.review(2, LAPSED)).ok(201)
    (first, *_) = await pending(house)
    assert (first.review, first.conditions) == (failed, listed[0].conditions)
    (await old.review(2, SOUND)).ok(201)
    assert [each.instalment for each in await pending(house)] == [3, 2]


# -- the second city: eight quarters


@pytest.fixture
async def lanting(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(make_database, tmp_path, CITIES) as made:
        yield made


async def test_a_quarter_that_fails_is_made_up_for_by_a_later_review_and_the_sum_is_whole(lanting: House) -> None:
    district = "990102"
    pack = load_pack(CITIES / "lanting" / "2025-1.yaml")
    event = an_approval(
        policy=pack.identity,
        benefit="settling_allowance",
        category="skilled",
        treasury=district,
        accepted_on=date(2025, 1, 3),
        decided_on=date(2025, 1, 10),
    )
    await lanting.hear(event)
    (row,) = await lanting.rows("SELECT id FROM entitlement")
    for year in (2025, 2026):
        await lanting.give_quota(district, benefit="settling_allowance", year=year)
    office = lanting.office(district)
    sound = {"person.working_here": True, "person.insured_here": True}

    async def paid_after(*reviews: tuple[int, Any]) -> list[int]:
        for number, facts in reviews:
            path = f"/entitlements/{row.id}/instalments/{number}:review"
            (await office.post(path, {"facts": facts})).ok(201)
        await work(lanting)
        if orders := [order for order in await lanting.orders() if order.state == "due"]:
            await lanting.send(*orders, treasury=district)
            await lanting.told(*(credited(reference(order), order.public_fen) for order in orders), treasury=district)
        assert await lanting.differences() == []
        return sorted(order.instalment for order in await lanting.orders(state="settled"))

    left = sound | {"person.working_here": False}
    assert await paid_after() == [1]
    reviews = [(number, left if number == 5 else sound) for number in range(2, 9)]
    assert await paid_after(*reviews) == [1, 2, 3, 4, 6, 7, 8]
    assert [each.instalment for each in await pending(lanting, office)] == [5]
    assert await paid_after((5, sound)) == list(range(1, 9))
    (paid,) = await lanting.rows("SELECT sum(public_fen + employer_fen) AS fen FROM payout_order")
    assert paid.fen == 8_000_000
    assert await pending(lanting, office) == []


async def test_a_treasury_sees_what_it_owes_a_review(house: House) -> None:
    await granted(house)
    assert [each.treasury for each in await pending(house, house.treasurer(DISTRICT))] == [DISTRICT]
