"""A later version of the policy and the instalments of what was granted under the one before."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pytest

from libs.common.calendar import end_of_day
from libs.common.events import BenefitApproved
from libs.common.packs import Sealed
from libs.common.policy import ManualDecision, Pack, Succession
from libs.common.treasuries import EmployerKind
from services.finance.entitlements import share
from tests.common.packs import a_pack, anyang, edited
from tests.finance.builders import CITY, DISTRICT, ZONE, an_approval, today
from tests.finance.conftest import House

PLAN = """  - id: sharing.living-allowance.district
    benefits: [living_allowance]
    treasury_kinds: [district]
    shares: [{bearer: "410500", share: 4/10}, {bearer: affiliated, share: 6/10}]
    remainder_to: affiliated
    document: anyang-2021-4
    article: 第五条
    valid_from: 2021-03-23
    version_by: due_on
"""
CHANGES_ON = date(today().year + 1, 1, 1)
BY_DUE_ON, BY_ACCEPTED_ON = "due_on", "accepted_on"


def as_it_was(version_by: str) -> tuple[str, str]:
    return PLAN, PLAN.replace("version_by: due_on", f"version_by: {version_by}")


def from_a_day_on(version_by: str) -> tuple[str, str]:
    """The district's part falls to a half from the day on."""
    first = PLAN.replace("version_by: due_on", f"valid_to: {CHANGES_ON - timedelta(1)}\n    version_by: {version_by}")
    second = (
        PLAN.replace("district\n    benefits", "district.later\n    benefits")
        .replace("4/10", "1/2")
        .replace("6/10", "1/2")
        .replace("2021-03-23", CHANGES_ON.isoformat())
        .replace("version_by: due_on", f"version_by: {version_by}")
    )
    return PLAN, first + second


async def two_versions(house: House, version_by: str) -> tuple[Pack, Pack]:
    """The version of the grant, and the one that is published after it."""
    before = await house.publish(a_pack(('version: "2021-4.4"', 'version: "2021-4.5"'), as_it_was(version_by)))
    after = Pack.parse(
        edited(('version: "2021-4.4"', 'version: "2021-4.6"'), from_a_day_on(version_by)).encode(), "later"
    )
    return before, after


async def granted(house: House, under: Pack) -> BenefitApproved:
    """A district's allowance, in six instalments, of which no employer bears a part."""
    event = an_approval(policy=under.identity, benefit="living_allowance", employer_kind="institution")
    await house.hear(event)
    return event


async def ordered(house: House, application: Any) -> Sequence[Any]:
    """Every instalment's order, made on its day."""
    (first, *_) = await house.orders(application=application)
    for part in await house.planned(first):
        await house.tick(end_of_day(part.order_on))
        await house.tick(end_of_day(part.order_on))  # one of provisional days was only looked at
    return await house.orders(application=application)


def of_the_city(order: Any) -> float:
    shares: Mapping[str, int] = order.shares
    public: int = order.public_fen
    return round(shares[CITY] / public, 4)


@pytest.mark.article("第五条")
async def test_where_the_ratio_goes_by_the_day_due_instalments_after_the_change_follow_it(house: House) -> None:
    before, after = await two_versions(house, BY_DUE_ON)
    event = await granted(house, before)
    await house.publish(after)
    orders = await ordered(house, event.application)
    assert len(orders) == 6
    assert {of_the_city(order) for order in orders if order.due_on < CHANGES_ON} <= {0.4}
    later = [order for order in orders if order.due_on >= CHANGES_ON]
    assert {of_the_city(order) for order in later} == {0.5}
    assert {(order.policy_version, order.rules[1]) for order in later} == {
        ("2021-4.6", "sharing.living-allowance.district.later")
    }
    assert await house.differences() == []


@pytest.mark.article("第五条")
async def test_where_it_goes_by_the_day_of_acceptance_what_was_granted_before_keeps_its_ratio(house: House) -> None:
    before, after = await two_versions(house, BY_ACCEPTED_ON)
    event = await granted(house, before)
    await house.publish(after)
    orders = await ordered(house, event.application)
    assert len(orders) == 6
    assert {of_the_city(order) for order in orders} == {0.4}
    assert await house.differences() == []


@pytest.mark.article("第五条")
async def test_a_later_version_that_says_nothing_of_old_acceptances_leaves_them_their_rules(house: House) -> None:
    """Its plan by the day of acceptance begins later: for an earlier one the version of the grant answers."""
    before, _ = await two_versions(house, BY_ACCEPTED_ON)
    event = await granted(house, before)
    begins = ("in_force_from: 2021-03-23", f"in_force_from: {CHANGES_ON}")
    only_later = PLAN.replace("2021-03-23", CHANGES_ON.isoformat()).replace("due_on", "accepted_on")
    await house.publish(
        Pack.parse(
            edited(('version: "2021-4.4"', 'version: "2021-4.6"'), begins, (PLAN, only_later)).encode(), "later"
        ),
    )
    orders = await ordered(house, event.application)
    assert len(orders) == 6
    assert {of_the_city(order) for order in orders} == {0.4}
    assert {order.treasury for order in orders} == {DISTRICT}


ZONE_HAS = 'regions: [{region: "410571", valid_from: 2021-03-23}]\n    valid_from: 2021-03-23\n'


@pytest.mark.article("第五条")
def test_a_bearer_that_is_no_more_is_for_people_before_any_money_moves() -> None:
    zone_bears = PLAN.replace("due_on", "accepted_on").replace(
        "{bearer: affiliated, share: 6/10}", '{bearer: "410571", share: 1/10}, {bearer: affiliated, share: 5/10}'
    )
    before = a_pack(('version: "2021-4.4"', 'version: "2021-4.5"'), (PLAN, zone_bears))
    ended = ZONE_HAS + f"    valid_to: {today()}\n"
    after = a_pack(('version: "2021-4.4"', 'version: "2021-4.6"'), as_it_was(BY_ACCEPTED_ON), (ZONE_HAS, ended))
    event = an_approval(benefit="living_allowance")

    def borne(on: date) -> Mapping[str, int]:
        policy = Succession(before, after)
        return share(policy, event, due_on=on, fen=100, employer_kind=EmployerKind.INSTITUTION).shares

    assert borne(today()) == {CITY: 40, ZONE: 10, DISTRICT: 50}
    with pytest.raises(ManualDecision, match="410571 has no settlement"):
        borne(today() + timedelta(days=1))


# -- a process that is older than a version


async def test_an_instalment_under_a_version_that_this_process_cannot_read_holds_up_no_other(house: House) -> None:
    before, _ = await two_versions(house, BY_DUE_ON)
    held, other = await granted(house, before), await granted(house, anyang())
    (first, *_) = await house.orders(application=other.application)
    (_, second, *_) = await house.planned(first)
    unread = house.service.packs._by_hash.pop(before.identity.sha256)  # as if it were an older process
    on = end_of_day(second.order_on)
    await house.tick(on)
    (row,) = await house.rows("SELECT topic, waiting_for FROM parked_key")
    assert tuple(row) == ("due:instalment.order", f"pack:{unread.identity.sha256}")
    await house.tick(on)
    assert [order.instalment for order in await house.orders(application=other.application)] == [1, 2]
    assert await house.orders(application=held.application, instalment=2) == []

    await house.service.packs.refresh()  # a process that can read it
    for _ in range(4):
        await house.tick(on)
    assert [order.instalment for order in await house.orders(application=held.application)] == [1, 2]
    assert await house.rows("SELECT key FROM parked_key") == []
    assert await house.differences() == []


async def test_nothing_is_paid_by_an_earlier_version_where_the_one_in_force_cannot_be_read(house: House) -> None:
    earlier = await granted(house, anyang())
    (first,) = await house.orders(application=earlier.application)
    (_, second, *_) = await house.planned(first)
    begins = ("in_force_from: 2021-03-23", f"in_force_from: {today()}")
    after = await house.publish(a_pack(('version: "2021-4.4"', 'version: "2021-4.5"'), begins))
    packs, unread = house.service.packs, after.identity.sha256
    packs._sealed[unread] = Sealed(packs._by_hash.pop(unread).identity, today())  # as if it were an older process
    on = end_of_day(second.order_on)
    await house.tick(on)
    await house.tick(on)  # one of provisional days was only looked at
    later = await granted(house, anyang())
    parked = {tuple(row) for row in await house.rows("SELECT topic, waiting_for FROM parked_key")}
    assert parked == {("due:instalment.order", f"pack:{unread}"), ("talent.certified", f"pack:{unread}")}
    assert await house.orders(application=later.application) == []

    packs._sealed.clear()
    await packs.refresh()  # a process that can read it
    for _ in range(4):
        await house.tick(on)
    assert [order.instalment for order in await house.orders(application=earlier.application)] == [1, 2]
    assert [order.policy_version for order in await house.orders(application=later.application)][:1] == ["2021-4.5"]
    assert await house.rows("SELECT key FROM parked_key") == []
