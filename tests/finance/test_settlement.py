"""Closing months: what the city owes, by which route, and what a posting does meanwhile."""

import asyncio
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.events import FiscalSettlementClosed
from libs.common.policy import Pack
from services.finance import ledger, settlement
from services.finance.ledger import Transfer
from tests.common.packs import a_pack, anyang
from tests.finance.builders import (
    CITY,
    COUNTY,
    DISTRICT,
    PROVINCE,
    PROVINCE_MANAGED,
    ZONE,
    bounced,
    credited,
    this_month,
    today,
)
from tests.finance.conftest import House, reference

PUBLIC = 3_333_334


async def paid(house: House, treasury: str = DISTRICT, **changes: Any) -> Any:
    order = await house.due_order(treasury=treasury, **changes)
    await house.send(order, treasury=order.treasury)
    await house.told(credited(reference(order), order.public_fen), treasury=order.treasury)
    return order


async def test_a_district_is_settled_directly(house: House) -> None:
    await paid(house)
    (result,) = await house.close(this_month(), DISTRICT)
    assert (result["result"], result["fen"], result["route"]) == ("closed", 1_000_000, "direct")
    assert await house.balances() == {
        (DISTRICT, "cash", ""): -PUBLIC + 1_000_000,
        (DISTRICT, "expenditure", ""): PUBLIC - 1_000_000,
        (CITY, "cash", ""): -1_000_000,
        (CITY, "expenditure", ""): 1_000_000,
    }
    (event,) = await house.emitted(FiscalSettlementClosed)
    assert (event.key, event.month, event.fen, event.route) == (DISTRICT, this_month(), 1_000_000, "direct")
    assert await house.differences() == []


async def test_a_county_under_the_province_is_settled_through_it_with_both_legs_mirrored(house: House) -> None:
    await paid(house, PROVINCE_MANAGED)
    (result,) = await house.close(this_month(), PROVINCE_MANAGED)
    assert (result["fen"], result["route"]) == (333_333, "via_province")
    legs = await house.rows("""
        SELECT t.key, a.treasury, a.kind, a.counterparty, e.fen FROM entry e JOIN transfer t ON t.id = e.transfer_id
          JOIN account a ON a.id = e.account_id WHERE t.kind = 'settlement' ORDER BY t.key, e.fen DESC, a.treasury
    """)
    key = f"settlement:{PROVINCE_MANAGED}:{this_month()}"
    assert [tuple(leg) for leg in legs if leg.fen > 0] == [
        (f"{key}:1", PROVINCE, "cash", "", 333_333),
        (f"{key}:1", CITY, "due_to", PROVINCE_MANAGED, 333_333),
        (f"{key}:2", PROVINCE, "due_to", PROVINCE_MANAGED, 333_333),
        (f"{key}:2", PROVINCE_MANAGED, "cash", "", 333_333),
    ]
    assert not [account for account in await house.balances() if account[0] == PROVINCE]
    assert await house.differences() == []


async def test_a_return_after_the_close_is_owed_the_other_way_next_month(house: House) -> None:
    order = await paid(house)
    await house.close(this_month(), DISTRICT)
    await house.told(bounced(reference(order), PUBLIC))
    following = ledger.next_month(this_month())
    (reversal,) = await house.rows("SELECT * FROM transfer WHERE kind = 'payout_reversal'")
    assert (reversal.month, reversal.posted_on) == (following, today())
    later = datetime.now(UTC) + timedelta(days=62)
    async with house.service.database.transaction() as tx:
        closing = await settlement.close(
            tx, anyang(), treasury=DISTRICT, month=following, reason=None, actor="test", now=later
        )
    assert closing.fen == -1_000_000
    assert await house.balances() == {}
    assert await house.differences() == []


async def test_a_bounce_in_the_same_month_nets_to_nothing_owed(house: House) -> None:
    order = await paid(house)
    await house.told(bounced(reference(order), PUBLIC))
    (result,) = await house.close(this_month(), DISTRICT)
    assert result["fen"] == 0
    assert await house.rows("SELECT * FROM transfer WHERE kind = 'settlement'") == []
    assert await house.differences() == []


async def test_all_treasuries_close_together_and_one_that_fails_stops_no_other(house: House) -> None:
    for treasury in (DISTRICT, COUNTY, ZONE, CITY):
        await paid(house, treasury)
    await house.close(this_month(), ZONE)
    post = ledger.post

    async def failing(tx: AsyncConnection, transfers: list[Transfer]) -> None:
        if transfers and transfers[0].treasury == COUNTY:
            raise RuntimeError("of this county alone")
        await post(tx, transfers)

    with patch.object(ledger, "post", failing):
        results = {result["treasury"]: result for result in await house.close(this_month())}
    assert len(results) == 11
    assert (results[COUNTY]["result"], results[COUNTY]["why"]) == ("failed", "RuntimeError")
    assert results[ZONE]["result"] == "already_closed"
    assert (results[DISTRICT]["result"], results[DISTRICT]["fen"]) == ("closed", 1_000_000)
    assert (results[CITY]["result"], results[CITY]["fen"]) == ("closed", None)
    assert {row.treasury for row in await house.rows("SELECT * FROM settlement")} >= {DISTRICT, ZONE}
    assert COUNTY not in {row.treasury for row in await house.rows("SELECT * FROM settlement")}
    (again,) = await house.close(this_month(), COUNTY)
    assert again["fen"] == 333_333
    assert await house.differences() == []


async def test_a_month_is_closed_early_only_with_a_reason_and_once(house: House) -> None:
    officer = house.treasurer(CITY)
    path = f"/periods/{DISTRICT}/{this_month()}:close"
    (await officer.post(path, {})).problem(422, "reason-required")
    (await officer.post(f"/periods/{this_month()}:close", {})).problem(422, "reason-required")
    ahead = f"/periods/{DISTRICT}/{ledger.next_month(this_month())}:close"
    (await officer.post(ahead, {"reason": "x"})).problem(422, "month-ahead")
    first = (await officer.post(path, {"reason": "演示"}, key="one")).ok()
    assert (await officer.post(path, {"reason": "演示"}, key="one")).ok() == first
    (await officer.post(path, {"reason": "演示"})).problem(409, "period-closed")
    (await officer.post(f"/periods/419999/{this_month()}:close", {"reason": "x"})).problem(404, "not-found")
    (await officer.post(f"/periods/{PROVINCE}/{this_month()}:close", {"reason": "x"})).problem(404, "not-found")
    (await house.treasurer(COUNTY).post(path, {"reason": "x"})).problem(403, "not-the-city-treasury")
    (await officer.post(f"/periods/{DISTRICT}/2026-13:close", {})).problem(422, "invalid-request")


async def test_what_is_credited_into_a_closed_month_is_posted_to_the_next_open_one(house: House) -> None:
    order = await house.due_order()
    await house.send()
    await house.close(this_month(), DISTRICT)
    await house.told(credited(reference(order), PUBLIC))
    (posted,) = await house.rows("SELECT month, posted_on FROM transfer")
    assert (posted.month, posted.posted_on) == (ledger.next_month(this_month()), today())
    assert (await house.order(order)).settled_on == today()
    assert await house.differences() == []


async def test_a_close_waits_for_a_posting_under_way_and_counts_it(house: House) -> None:
    month = this_month()
    transfer = a_transfer(await house.due_order(), month)
    async with house.service.database.transaction() as posting:
        await ledger.hold_periods(posting, DISTRICT, [month])
        closing = asyncio.create_task(house.close(month, DISTRICT))
        await asyncio.sleep(0.3)
        assert not closing.done()
        await ledger.post(posting, [transfer])
    (result,) = await closing
    assert result["fen"] == 1_000_000


async def test_a_posting_waits_for_a_close_under_way_and_takes_the_next_month(house: House) -> None:
    month = this_month()
    async with house.service.database.transaction() as closing:
        await settlement.close(
            closing, anyang(), treasury=DISTRICT, month=month, reason="演示", actor="test", now=datetime.now(UTC)
        )

        async def post() -> dict[str, str]:
            async with house.service.database.transaction() as tx:
                return await ledger.hold_periods(tx, DISTRICT, [month])

        posting = asyncio.create_task(post())
        await asyncio.sleep(0.3)
        assert not posting.done()
    assert await posting == {month: ledger.next_month(month)}


def a_transfer(order: Any, month: str) -> Transfer:
    return Transfer(
        key=f"payout:{order.id}:1",
        kind="payout",
        treasury=order.treasury,
        month=month,
        posted_on=today(),
        entries=ledger.payout_entries(payer=order.treasury, shares=order.shares),
        order=order.id,
        attempt=1,
    )


@pytest.mark.parametrize(
    ("day", "treasury", "kind"),
    [
        (date(2021, 12, 31), COUNTY, "direct"),
        (date(2022, 1, 31), COUNTY, "via_province"),
        (date(2021, 4, 30), PROVINCE_MANAGED, "via_province"),
        (date(2026, 6, 30), DISTRICT, "direct"),
        (date(2026, 6, 30), ZONE, "direct"),
    ],
)
async def test_the_route_is_that_of_the_months_last_day(house: House, day: date, treasury: str, kind: str) -> None:
    async with house.service.database.transaction() as tx:
        closing = await settlement.close(
            tx, anyang(), treasury=treasury, month=f"{day:%Y-%m}", reason=None, actor="test", now=datetime.now(UTC)
        )
    assert closing.route == kind


# -- what others than the city owe

DISTRICTS_PLAN = """sharing.purchase-subsidy.district
    benefits: [purchase_subsidy]
    treasury_kinds: [district]
    shares: [{bearer: "410500", share: 3/10}, {bearer: affiliated, share: 7/10}]"""
THREE_BEAR = """sharing.purchase-subsidy.district
    benefits: [purchase_subsidy]
    treasury_kinds: [district]
    shares: [{bearer: "410500", share: 3/10}, {bearer: "410526", share: 2/10}, {bearer: affiliated, share: 5/10}]"""
LATER_VERSION = ('version: "2021-4.4"', 'version: "2021-4.5"')


async def under(house: House, *changes: tuple[str, str]) -> Pack:
    """The pack, edited, in force in the service."""
    return await house.publish(a_pack(LATER_VERSION, *changes))


async def test_three_treasuries_share_one_payout_and_each_debtor_pays_its_part_by_way_of_the_city(house: House) -> None:
    pack = await under(house, (DISTRICTS_PLAN, THREE_BEAR))
    await paid(house, policy=pack.identity)
    (result,) = await house.close(this_month(), DISTRICT)
    owed = {CITY: 1_000_000, PROVINCE_MANAGED: 666_666}
    assert (result["fen"], result["owed"], result["route"]) == (1_666_666, owed, "direct")
    assert await house.balances() == {
        (DISTRICT, "cash", ""): -PUBLIC + 1_666_666,
        (DISTRICT, "expenditure", ""): PUBLIC - 1_666_666,
        (CITY, "cash", ""): -1_000_000,
        (CITY, "expenditure", ""): 1_000_000,
        (PROVINCE_MANAGED, "cash", ""): -666_666,
        (PROVINCE_MANAGED, "expenditure", ""): 666_666,
    }
    moved = await house.rows("""
        SELECT d.treasury AS debtor, c.treasury AS creditor, c.fen FROM transfer AS t
          JOIN LATERAL (SELECT a.treasury, e.fen FROM entry e JOIN account a ON a.id = e.account_id
                         WHERE e.transfer_id = t.id AND a.kind = 'cash' AND e.fen < 0) AS d ON true
          JOIN LATERAL (SELECT a.treasury, e.fen FROM entry e JOIN account a ON a.id = e.account_id
                         WHERE e.transfer_id = t.id AND a.kind = 'cash' AND e.fen > 0) AS c ON true
         WHERE t.kind = 'settlement' ORDER BY t.key
    """)
    assert [tuple(row) for row in moved] == [
        (PROVINCE_MANAGED, PROVINCE, 666_666),
        (PROVINCE, CITY, 666_666),
        (CITY, DISTRICT, 1_666_666),
    ]
    assert await house.differences() == []


async def test_each_debtor_sees_the_settlement_that_it_is_a_party_of(house: House) -> None:
    pack = await under(house, (DISTRICTS_PLAN, THREE_BEAR))
    await paid(house, policy=pack.identity)
    await house.close(this_month(), DISTRICT)
    for treasury in (DISTRICT, CITY, PROVINCE_MANAGED):
        (shown,) = (await house.treasurer(treasury).get("/settlements")).ok()["items"]
        assert {debtor: amount["fen"] for debtor, amount in shown["owed"].items()} == {
            CITY: 1_000_000,
            PROVINCE_MANAGED: 666_666,
        }
    assert (await house.treasurer(ZONE).get("/settlements")).ok()["items"] == []


async def test_a_return_after_the_close_is_owed_back_to_each_debtor(house: House) -> None:
    pack = await under(house, (DISTRICTS_PLAN, THREE_BEAR))
    order = await paid(house, policy=pack.identity)
    await house.close(this_month(), DISTRICT)
    await house.told(bounced(reference(order), PUBLIC))
    later = datetime.now(UTC) + timedelta(days=62)
    async with house.service.database.transaction() as tx:
        closing = await settlement.close(
            tx,
            pack,
            treasury=DISTRICT,
            month=ledger.next_month(this_month()),
            reason=None,
            actor="test",
            now=later,
        )
    assert closing.owed == {CITY: -1_000_000, PROVINCE_MANAGED: -666_666}
    assert await house.balances() == {}
    assert await house.differences() == []


async def test_where_the_city_pays_for_a_district_the_district_owes_it(house: House) -> None:
    pack = await under(
        house,
        (DISTRICTS_PLAN, THREE_BEAR),
        ("advanced_by: affiliated", 'advanced_by: "410500"'),
    )
    order = await paid(house, policy=pack.identity)
    assert order.treasury == CITY
    (of_the_district,) = await house.close(this_month(), DISTRICT)
    assert (of_the_district["fen"], of_the_district["owed"]) == (0, {})
    (result,) = await house.close(this_month(), CITY)
    assert (result["fen"], result["owed"]) == (2_333_334, {DISTRICT: 1_666_668, PROVINCE_MANAGED: 666_666})
    assert await house.balances() == {
        (CITY, "cash", ""): -1_000_000,
        (CITY, "expenditure", ""): 1_000_000,
        (DISTRICT, "cash", ""): -1_666_668,
        (DISTRICT, "expenditure", ""): 1_666_668,
        (PROVINCE_MANAGED, "cash", ""): -666_666,
        (PROVINCE_MANAGED, "expenditure", ""): 666_666,
    }
    assert await house.differences() == []


def test_a_debtor_that_ended_within_the_month_pays_by_its_last_route() -> None:
    zone = 'regions: [{region: "410571", valid_from: 2021-03-23}]\n    valid_from: 2021-03-23\n'
    pack = a_pack((zone, zone + "    valid_to: 2026-06-15\n"))
    (back, on) = settlement.transfers(
        pack, treasury=DISTRICT, month="2026-06", owed={ZONE: 7}, settlement=uuid4(), on=date(2026, 7, 1)
    )
    assert back.entries[ledger.Account(ZONE, "cash")] == -7
    assert on.entries[ledger.Account(DISTRICT, "due_from", ZONE)] == -7


async def test_a_city_month_that_was_closed_while_others_owe_it_is_found(house: House) -> None:
    pack = await under(house, (DISTRICTS_PLAN, THREE_BEAR), ("advanced_by: affiliated", 'advanced_by: "410500"'))
    await paid(house, policy=pack.identity)
    async with house.service.database.transaction() as tx:  # as a process of before would close it
        await tx.execute(text("UPDATE period SET closed_at = now(), closed_by = 'old' WHERE treasury = '410500'"))
    (found,) = await house.differences()
    assert found.name == "every closed month is settled to the fen"
    assert found.first == f"{CITY} {this_month()}"


AMOUNTS = st.integers(-(10**12), 10**12)


@given(
    treasury=st.sampled_from((CITY, DISTRICT, COUNTY, PROVINCE_MANAGED, ZONE)),
    amounts=st.dictionaries(st.sampled_from((CITY, DISTRICT, COUNTY, PROVINCE_MANAGED, ZONE)), AMOUNTS),
)
def test_whoever_owes_whom_a_settlement_pays_every_debt_and_leaves_nothing_on_the_way(
    treasury: str, amounts: dict[str, int]
) -> None:
    owed = {debtor: fen for debtor, fen in amounts.items() if debtor != treasury}
    moved = Counter[ledger.Account]()
    for transfer in settlement.transfers(
        anyang(), treasury=treasury, month="2026-06", owed=owed, settlement=uuid4(), on=date(2026, 7, 1)
    ):
        ledger.check_balanced(transfer)
        moved.update(transfer.entries)
    wanted = Counter[ledger.Account]()
    for debtor, fen in owed.items():
        wanted[ledger.Account(debtor, "due_to", treasury)] += fen
        wanted[ledger.Account(debtor, "cash")] -= fen
        wanted[ledger.Account(treasury, "due_from", debtor)] -= fen
        wanted[ledger.Account(treasury, "cash")] += fen
    assert {key: fen for key, fen in moved.items() if fen} == {key: fen for key, fen in wanted.items() if fen}
