"""Where money goes once a beneficiary has changed the account: what is not at the bank yet, and everything later."""

import asyncio
from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from libs.common.calendar import end_of_day
from libs.common.events import PayeeAccountChanged
from services.finance import accounts, entitlements
from tests.common.packs import anyang
from tests.finance.builders import an_approval, bounced, credited, today
from tests.finance.conftest import House, reference


def a_change(beneficiary: UUID, account: UUID | None = None, **changes: Any) -> PayeeAccountChanged:
    given: dict[str, Any] = {
        "policy": anyang().identity,
        "application": uuid7(),  # as intake makes them: they grow with time
        "item": uuid4(),
        "beneficiary": beneficiary,
        "payee_account": account or uuid4(),
        "accepted_on": today(),
        "decided_on": today(),
    }
    return PayeeAccountChanged(**given | changes)


async def later_orders(house: House, order: Any, number: int = 2) -> list[Any]:
    """The order of a later instalment, once its day has come."""
    part = (await house.planned(order))[number - 1]
    for _ in range(2):  # looked at first, then ordered
        await house.tick(end_of_day(part.order_on))
    return list(await house.orders(entitlement_id=order.entitlement_id, instalment=number))


async def test_what_is_not_at_the_bank_goes_to_the_new_account_and_so_does_everything_later(house: House) -> None:
    order = await house.due_order(benefit="living_allowance", category="doctor")
    change = a_change(order.beneficiary, house.intake.account_of(order.beneficiary))
    await house.hear(change)
    assert (await house.order(order)).payee_account == change.payee_account
    shown = (await house.treasurer().get(f"/entitlements/{order.entitlement_id}")).ok()
    assert shown["payee_account"] == str(change.payee_account)
    history = (await house.treasurer().get(f"/orders/{order.id}")).ok()["history"]
    kept = [(step["action"], step["payee_account"]) for step in history if step["payee_account"]]
    assert kept == [("order", str(order.payee_account)), ("redirect", str(change.payee_account))]
    assert history[-1]["record"] == str(change.application)
    batch = await house.send()
    file = (await house.treasurer().get(f"/batches/{batch['id']}/file")).raw.decode("gb18030")
    assert f"|6222{change.payee_account.int % 10**15:015}|" in file
    await house.told(credited(reference(order), order.public_fen))
    (second,) = await later_orders(house, order)
    assert second.payee_account == change.payee_account
    assert await house.differences() == []


async def test_an_order_that_waits_for_quota_goes_to_the_new_account_too(house: House) -> None:
    event = an_approval()
    await house.hear(event)
    change = a_change(event.beneficiary)
    await house.hear(change)
    (order,) = await house.orders()
    assert (order.state, order.payee_account) == ("unfunded", change.payee_account)


@pytest.mark.parametrize("unknown", [False, True])
async def test_what_is_at_the_bank_stays_and_the_next_instalment_goes_to_the_new_account(
    house: House, *, unknown: bool
) -> None:
    order = await house.due_order(benefit="living_allowance", category="doctor")
    batch = await house.send()
    if unknown:
        await house.told(finals=[batch["number"]])
    change = a_change(order.beneficiary)
    await house.hear(change)
    assert (await house.order(order)).payee_account == order.payee_account
    await house.told(credited(reference(order), order.public_fen))
    (second,) = await later_orders(house, order)
    assert second.payee_account == change.payee_account


async def test_a_change_heard_again_changes_nothing(house: House) -> None:
    order = await house.due_order()
    change = a_change(order.beneficiary)
    await house.hear(change)
    again = change.model_copy()
    again.stamped(event_id=uuid4(), time=change.time, trace=None)
    await house.hear(again)
    history = await house.rows("SELECT action FROM order_history ORDER BY id")
    assert [row.action for row in history].count("redirect") == 1


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
async def test_the_latest_statement_counts_in_whatever_order_they_are_heard(house: House, order: list[int]) -> None:
    approval = an_approval(accepted_on=today() - timedelta(days=7))
    older = a_change(approval.beneficiary, accepted_on=today() - timedelta(days=2))
    newer = a_change(approval.beneficiary, accepted_on=today() - timedelta(days=1))
    for n in order:
        await house.hear([approval, older, newer][n])
    (made,) = await house.orders()
    assert made.payee_account == newer.payee_account


async def test_of_one_day_the_later_application_counts(house: House) -> None:
    first, second = uuid7(), uuid7()
    approval = an_approval(application=second, accepted_on=today())
    change = a_change(approval.beneficiary, application=first)
    await house.hear(change, approval)
    (made,) = await house.orders()
    assert made.payee_account == approval.payee_account


async def test_a_benefit_filed_after_the_change_is_paid_to_the_account_that_it_names(house: House) -> None:
    approval = an_approval(accepted_on=today())
    change = a_change(approval.beneficiary, accepted_on=today() - timedelta(days=30))
    await house.hear(approval, change)
    (made,) = await house.orders()
    assert made.payee_account == approval.payee_account


async def test_an_account_corrected_after_a_bounce_counts_until_the_next_change(house: House) -> None:
    order = await house.due_order(benefit="living_allowance", category="doctor")
    change = a_change(order.beneficiary, house.intake.account_of(order.beneficiary))
    await house.hear(change)
    await house.send()
    await house.told(bounced(reference(order), order.public_fen))
    corrected = house.intake.account_of(order.beneficiary)
    (await house.treasurer().post(f"/orders/{order.id}:reissue", {"payee_account": str(corrected)})).ok()
    await house.send()
    await house.told(credited(reference(await house.order(order)), order.public_fen))
    (second,) = await later_orders(house, order)
    assert second.payee_account == corrected
    last = a_change(order.beneficiary)
    await house.hear(last)
    assert (await house.order(second)).payee_account == last.payee_account


async def test_an_older_change_that_comes_late_does_not_undo_an_officers_correction(house: House) -> None:
    order = await house.due_order()
    newer = a_change(order.beneficiary, house.intake.account_of(order.beneficiary))
    await house.hear(newer)
    await house.send()
    await house.told(bounced(reference(order), order.public_fen))
    corrected = house.intake.account_of(order.beneficiary)
    (await house.treasurer().post(f"/orders/{order.id}:reissue", {"payee_account": str(corrected)})).ok()
    await house.hear(a_change(order.beneficiary, accepted_on=today() - timedelta(days=1)))
    assert (await house.order(order)).payee_account == corrected


async def test_a_change_and_an_approval_at_the_same_moment_miss_each_other_never(house: House) -> None:
    for _ in range(10):
        approval = an_approval()
        change = a_change(approval.beneficiary)

        async def approve(event: Any = approval) -> None:
            async with house.service.database.transaction() as tx:
                await entitlements.grant(tx, house.service.packs, [event])

        async def take(event: Any = change) -> None:
            async with house.service.database.transaction() as tx:
                await accounts.change(tx, [event])

        await asyncio.gather(approve(), take())
        (made,) = await house.orders(application=approval.application)
        assert made.payee_account == change.payee_account
