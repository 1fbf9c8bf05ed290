"""Each invariant finds its own kind of damage, done behind the service's back by the database's owner."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from services.finance import reconcile
from services.finance.reconcile import INVARIANTS
from tests.finance.builders import DISTRICT, PROVINCE_MANAGED, bounced, credited, this_month
from tests.finance.conftest import House, reference

BELIEVED = "every line of the bank that is believed moved its order once"
POSTED = "every posting is of the day that the bank told, or its month was closed"
DAMAGE = {
    "every transfer balances in every book": "UPDATE entry SET fen = fen + 1 WHERE id = (SELECT min(id) FROM entry)",
    "every balance is the sum of its entries": "UPDATE account SET balance = balance + 1 WHERE kind = 'expenditure'",
    "what is owed stands alike in both books": "UPDATE account SET balance = balance - 1 WHERE kind = 'due_to'",
    "every order is posted once where settled, else not at all": """
        UPDATE payout_order SET state = 'due', settled_on = NULL WHERE state = 'settled'""",
    "every posting has the amounts of its order": "UPDATE payout_order SET public_fen = public_fen + 1",
    POSTED: "UPDATE transfer SET posted_on = posted_on - 1 WHERE kind = 'settlement'",
    "every order pays its entitlement, to whom that is due": "UPDATE payout_order SET beneficiary = gen_random_uuid()",
    "the shares of every order sum to what is paid": "UPDATE payout_order SET employer_fen = employer_fen + 1",
    "no entitlement is paid more than once": "UPDATE instalment SET amount_fen = amount_fen + 1",
    "nothing that needs a review is ordered without one that passes": """
        UPDATE instalment SET review_from = DATE '2026-01-01'""",
    "every bank file has the amounts of its orders": "UPDATE batch_line SET fen = fen + 1",
    "an order is sent again only after the bank bounced it": "UPDATE payout_order SET attempt = attempt + 1",
    "every line of a bank file is one sending of its order": """
        UPDATE order_history SET attempt = attempt + 1 WHERE action = 'send'""",
    BELIEVED: """
        UPDATE bank_result_line SET verdict = 'repeated' WHERE verdict = 'bounce'""",
    "every state is the one that history came to": """
        UPDATE payout_order SET state = 'cancelled' WHERE state = 'bounced'""",
    "every quota holds what its orders commit": "UPDATE quota SET committed_fen = committed_fen + 1",
    "every closed month is settled to the fen": "UPDATE settlement SET fen = fen + 1",
    "both legs through the province are alike": """
        UPDATE entry SET fen = fen + 1 WHERE account_id = (SELECT id FROM account WHERE treasury = '410000' LIMIT 1)""",
}
MORE = (
    (BELIEVED, "UPDATE bank_result_line SET fen = fen - 1 WHERE verdict = 'settle'"),
    (POSTED, "UPDATE transfer SET posted_on = posted_on - 1 WHERE kind = 'payout'"),
    (POSTED, "UPDATE bank_result_line SET on_day = on_day - 1 WHERE verdict = 'settle'"),
)


def test_every_invariant_is_tried() -> None:
    assert set(DAMAGE) == {name for name, _ in INVARIANTS}


async def test_each_invariant_finds_its_damage(house: House) -> None:
    settled = [await house.due_order(treasury=treasury) for treasury in (DISTRICT, PROVINCE_MANAGED)]
    for order in settled:
        await house.send(order, treasury=order.treasury)
        await house.told(credited(reference(order), order.public_fen), treasury=order.treasury)
    open_order = await house.due_order()
    await house.send(open_order)
    await house.told(bounced(reference(open_order), open_order.public_fen))
    await house.close(this_month())
    assert await house.differences() == []
    database = house.service.database.url
    owner = create_async_engine(database.set(username="finance_owner"))
    for name, damage in (*DAMAGE.items(), *MORE):
        async with owner.connect() as connection, connection.begin() as transaction:
            await connection.execute(text(damage))
            found = await _violated(connection)
            await transaction.rollback()
        assert name in found, (name, found)
        assert found[name]
    await owner.dispose()


async def _violated(connection: AsyncConnection) -> dict[str, str | None]:
    checks = await reconcile.check(connection)
    return {check.name: check.first for check in checks if check.violations}


@pytest.mark.parametrize("month", ["2026-00", "26-01", "2026-1"])
async def test_a_month_is_a_month(house: House, month: str) -> None:
    (await house.a("auditor").get("/reconciliation", month=month)).problem(422, "invalid-request")
