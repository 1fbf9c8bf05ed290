"""An employer that moves to another treasury: who bears the instalments on each side of the day."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.calendar import end_of_day
from libs.common.events import BenefitApproved, EmployerAffiliated, PayoutOrdered, StatedAffiliation
from libs.common.policy import ManualDecision, NoRuleInForce, Pack, Succession, affiliated_treasury
from libs.common.treasuries import Affiliation, AffiliationKind, EmployerKind
from services.finance.entitlements import share
from tests.common.packs import anyang, edited
from tests.finance.builders import CITY, COUNTY, DISTRICT, an_approval, this_month, today
from tests.finance.conftest import House, reference
from tests.finance.test_versions import BY_ACCEPTED_ON, BY_DUE_ON, CHANGES_ON, from_a_day_on

YINDU = "410505"
MOVES_ON = date(today().year + 1, 7, 1)
LAST_DAY = MOVES_ON - timedelta(days=1)


def tied(treasury: str, first: date = date.min, last: date | None = None) -> StatedAffiliation:
    return StatedAffiliation(kind="fiscal", treasury=treasury, valid_from=first, valid_to=last)


MOVED = (tied(COUNTY, last=LAST_DAY), tied(YINDU, MOVES_ON))


def told(employer: UUID | None, *ties: StatedAffiliation, revision: int = 1) -> EmployerAffiliated:
    assert employer
    return EmployerAffiliated(policy=anyang().identity, employer=employer, revision=revision, affiliations=ties)


def an_allowance(**changes: Any) -> BenefitApproved:
    """A living allowance in six instalments, approved in 安阳县, of which the employer bears no part."""
    given = {"benefit": "living_allowance", "employer_kind": "institution", "treasury": COUNTY}
    return an_approval(**given | changes)


async def ordered(house: House, event: BenefitApproved) -> Sequence[Any]:
    """Every instalment's order that is made, each on its day."""
    (first, *_) = await house.orders(application=event.application)
    for part in await house.planned(first):
        await house.tick(end_of_day(part.order_on))
        await house.tick(end_of_day(part.order_on))  # one of provisional days was only looked at
    return await house.orders(application=event.application)


def borne(order: Any) -> Mapping[str, int]:
    """In hundredths of what is paid."""
    return {treasury: fen * 100 // order.public_fen for treasury, fen in order.shares.items()}


def of_its_day(order: Any) -> tuple[str, Mapping[str, int]]:
    """The treasury that the move leaves to an order, and the ratio of its kind."""
    return (COUNTY, {CITY: 30, COUNTY: 70}) if order.due_on < MOVES_ON else (YINDU, {CITY: 40, YINDU: 60})


# -- over time


@pytest.mark.article("第二条")
@pytest.mark.article("第五条")
async def test_each_side_of_the_day_of_a_move_has_its_treasury_its_ratio_its_quota_and_its_settlement(
    house: House,
) -> None:
    event = an_allowance()
    await house.hear(told(event.employer, *MOVED))
    await house.hear(event)
    orders = await ordered(house, event)
    assert len(orders) == 6
    assert {order.due_on < MOVES_ON for order in orders} == {True, False}
    for order in orders:
        assert (order.treasury, borne(order)) == of_its_day(order)
    lines = await house.rows("SELECT o.id, q.treasury FROM payout_order AS o JOIN quota AS q ON q.id = o.quota_id")
    assert {line.id: line.treasury for line in lines} == {order.id: order.treasury for order in orders}
    assert [each.treasury for each in await house.emitted(PayoutOrdered)] == [order.treasury for order in orders]

    for treasury, year in {(order.treasury, order.due_on.year) for order in orders}:
        await house.give_quota(treasury, benefit="living_allowance", year=year)
    for treasury in (COUNTY, YINDU):
        await house.send(treasury=treasury)
        mine = [order for order in orders if order.treasury == treasury]
        await house.told(*(credited_of(order) for order in mine), treasury=treasury)
        (closed,) = await house.close(this_month(), treasury)
        assert closed["fen"] == sum(order.shares[CITY] for order in mine)
    assert await house.differences() == []


def credited_of(order: Any) -> str:
    return f"R|{reference(order)}|{order.public_fen}|C|{today():%Y%m%d}|"


async def test_what_is_due_after_a_move_is_borne_anew_also_where_the_move_is_told_after_the_approval(
    house: House,
) -> None:
    event = an_allowance()
    await house.hear(told(event.employer, tied(COUNTY)))
    await house.hear(event)
    await house.hear(told(event.employer, *MOVED, revision=2))
    for order in await ordered(house, event):
        assert (order.treasury, borne(order)) == of_its_day(order)
    assert await house.differences() == []


async def test_the_first_instalment_too_is_borne_by_the_treasury_of_its_day(house: House) -> None:
    event = an_allowance()
    await house.hear(told(event.employer, tied(COUNTY, last=today()), tied(YINDU, today() + timedelta(days=1))))
    await house.hear(event)
    (order,) = await house.orders(application=event.application)
    assert (order.treasury, borne(order)) == (YINDU, {CITY: 40, YINDU: 60})


async def test_an_employer_of_whom_nothing_was_told_stays_where_each_approval_says(house: House) -> None:
    event, alone = an_allowance(), an_allowance(employer=None, employer_kind=None)
    await house.hear(told(uuid4(), *MOVED))
    await house.hear(event, alone)
    for each in (event, alone):
        orders = await ordered(house, each)
        assert {(order.treasury, order.shares[CITY] * 100 // order.public_fen) for order in orders} == {(COUNTY, 30)}


async def test_the_newest_statement_counts_in_whatever_order_and_how_often_it_comes(house: House) -> None:
    event = an_allowance()
    corrected = told(event.employer, tied(DISTRICT), revision=7)
    wrong = told(event.employer, *MOVED, revision=3)
    await house.hear(corrected, wrong)
    await house.hear(wrong, corrected)
    await house.hear(told(event.employer, tied(DISTRICT), revision=7))  # told again, as an event of its own
    await house.hear(event)
    (order,) = await house.orders(application=event.application)
    assert (order.treasury, borne(order)) == (DISTRICT, {CITY: 40, DISTRICT: 60})
    rows = await house.rows("SELECT revision FROM employer_affiliation ORDER BY revision")
    assert [row.revision for row in rows] == [3, 7]


async def test_a_corrected_statement_moves_what_has_no_order_yet_and_nothing_else(house: House) -> None:
    event = an_allowance()
    await house.hear(told(event.employer, tied(COUNTY)))
    await house.hear(event)
    (first,) = await house.orders(application=event.application)
    await house.hear(told(event.employer, tied(DISTRICT), revision=2))
    before, *later = await ordered(house, event)
    assert before == first
    assert {order.treasury for order in later} == {DISTRICT}


@pytest.mark.parametrize(
    ("ties", "why"),
    [
        ((tied(COUNTY, last=LAST_DAY),), "no affiliation on"),
        ((tied(COUNTY), tied(YINDU, MOVES_ON)), "two fiscal affiliations on"),
        ((tied(COUNTY, last=LAST_DAY), tied("410000", MOVES_ON)), "above the city"),
    ],
)
async def test_where_the_day_due_has_no_one_treasury_no_money_moves_until_it_has(
    house: House, ties: Sequence[StatedAffiliation], why: str
) -> None:
    event = an_allowance()
    await house.hear(told(event.employer, *ties))
    await house.hear(event)
    orders = await ordered(house, event)
    assert {order.treasury for order in orders} == {COUNTY}
    parked = await house.rows("SELECT topic, key, reason FROM parked ORDER BY id")
    assert len(orders) + len(parked) == 6
    assert {why in row.reason for row in parked} == {True}

    await house.hear(told(event.employer, *MOVED, revision=2))
    async with house.service.database.transaction() as tx:
        for row in parked:
            await house.service.inbox.release(tx, row.topic, row.key)
    for order in await house.orders(application=event.application):
        assert (order.treasury, borne(order)) == of_its_day(order)
    assert await house.differences() == []


async def test_both_treasuries_see_the_benefit_and_each_the_orders_that_it_pays(house: House) -> None:
    event = an_allowance()
    await house.hear(told(event.employer, *MOVED))
    await house.hear(event)
    orders = await ordered(house, event)
    path = f"/entitlements/{orders[0].entitlement_id}"
    for treasury in (COUNTY, YINDU):
        shown = (await house.treasurer(treasury).get(path)).ok()
        assert [part["treasury"] for part in shown["instalments"]] == [order.treasury for order in orders]
        seen = (await house.treasurer(treasury).get("/orders")).ok()["items"]
        assert {order["treasury"] for order in seen} == {treasury}
    (await house.treasurer(DISTRICT).get(path)).problem(404, "not-found")


# -- the date that the plan names


@cache
def the_pack(*, county: str, district: str) -> Pack:
    """The plans of the allowance name these dates; the districts' ratio changes on a day."""
    text = edited(('version: "2021-4.4"', f'version: "2021-{len(county)}.{len(district)}"'), from_a_day_on(district))
    head, *plans = text.split("\n  - id: ")
    counties = "sharing.living-allowance.county"
    named = [
        plan.replace(f"version_by: {BY_DUE_ON}", f"version_by: {county}") if plan.startswith(counties) else plan
        for plan in plans
    ]
    return Pack.parse("\n  - id: ".join([head, *named]).encode())


def tie(treasury: str, first: date = date.min, last: date | None = None, kind: str = "fiscal") -> Affiliation:
    return Affiliation(kind=AffiliationKind(kind), treasury=treasury, valid_from=first, valid_to=last)


AS_MOVED = tie(COUNTY, last=LAST_DAY), tie(YINDU, MOVES_ON)


def borne_on(pack: Pack, on: date, ties: Sequence[Affiliation], granted: str = COUNTY) -> tuple[str, int]:
    """Who pays of 100 fen, and the city's part."""
    event, policy = an_allowance(treasury=granted), Succession(pack, pack)
    parts = share(policy, event, due_on=on, fen=100, employer_kind=EmployerKind.INSTITUTION, ties=ties)
    assert sum(parts.shares.values()) == 100
    assert set(parts.shares) == {CITY, parts.advanced_by}
    return parts.advanced_by, parts.shares[CITY]


def test_where_the_plan_goes_by_the_day_of_acceptance_the_treasury_of_the_grant_stays() -> None:
    pack = the_pack(county=BY_ACCEPTED_ON, district=BY_DUE_ON)
    for on in (LAST_DAY, MOVES_ON):
        assert borne_on(pack, on, AS_MOVED) == (COUNTY, 30)
    assert borne_on(pack, MOVES_ON, []) == (COUNTY, 30)


def test_a_ratio_by_acceptance_at_a_treasury_by_the_day_due_is_for_people() -> None:
    pack = the_pack(county=BY_DUE_ON, district=BY_ACCEPTED_ON)
    assert borne_on(pack, LAST_DAY, AS_MOVED) == (COUNTY, 30)
    with pytest.raises(ManualDecision, match="410505 by the day due"):
        borne_on(pack, MOVES_ON, AS_MOVED)


SPAN = st.dates(today(), today() + timedelta(days=900))
TIES = st.builds(
    lambda treasury, days, kind: tie(treasury, min(days), max(days), kind),
    st.sampled_from([COUNTY, YINDU, DISTRICT, CITY]),
    st.tuples(SPAN, SPAN),
    st.sampled_from(["fiscal", "tax"]),
)


def part_of_the_city(treasury: str, on: date) -> int:
    districts = 50 if on >= CHANGES_ON else 40
    return {COUNTY: 30, YINDU: districts, DISTRICT: districts, CITY: 100}[treasury]


@given(st.lists(TIES, max_size=5), SPAN, st.sampled_from([COUNTY, DISTRICT]))
def test_on_any_day_treasury_and_ratio_are_those_of_that_day(ties: list[Affiliation], on: date, granted: str) -> None:
    pack = the_pack(county=BY_DUE_ON, district=BY_DUE_ON)
    try:
        treasury = affiliated_treasury(pack, ties, on).code
    except (ManualDecision, NoRuleInForce) as refused:
        with pytest.raises(type(refused)):
            borne_on(pack, on, ties, granted)
        return
    assert borne_on(pack, on, ties, granted) == (treasury, part_of_the_city(treasury, on))


DATES = st.sampled_from([BY_DUE_ON, BY_ACCEPTED_ON])


@given(st.lists(TIES, max_size=5), SPAN, DATES, DATES)
def test_whatever_date_each_plan_names_treasury_and_ratio_are_of_one_date(
    ties: list[Affiliation], on: date, county: str, district: str
) -> None:
    pack = the_pack(county=county, district=district)
    try:
        paid_by, of_the_city = borne_on(pack, on, ties, granted=DISTRICT)
    except (ManualDecision, NoRuleInForce):
        assert district == BY_DUE_ON
        return
    if district == BY_ACCEPTED_ON:
        assert (paid_by, of_the_city) == (DISTRICT, 40)
    else:
        assert paid_by == affiliated_treasury(pack, ties, on).code
        assert of_the_city == part_of_the_city(paid_by, on)
