"""Per treasury, what its officer would ask: what is due, late, bounced and doubted, and what the books say."""

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.finance.builders import DISTRICT, bounced, credited, today
from tests.finance.conftest import House, reference


async def test_the_metrics_tell_per_treasury_what_is_under_way_late_doubted_and_owed(house: House) -> None:
    paid, returned, late = [await house.due_order() for _ in range(3)]
    await house.send(paid, returned)
    await house.told(
        credited(reference(paid), paid.public_fen),
        bounced(reference(returned), returned.public_fen),
        credited("nobody" * 5, 100),
    )
    owner = create_async_engine(house.service.database.url.set(username="finance_owner"))
    async with owner.begin() as connection:
        yesterday = {"id": late.id, "day": today() - timedelta(days=1)}
        await connection.execute(text("UPDATE payout_order SET due_on = :day WHERE id = :id"), yesterday)
    await owner.dispose()
    answer = await house._client.get("/finance/metrics")
    told = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in answer.text.splitlines() if line[0] != "#"
    }
    where = f'service="finance",state="{{}}",treasury="{DISTRICT}"'
    assert told[f"huanquan_payouts{{{where.format('due')}}}"] == 1
    assert told[f"huanquan_payouts_late{{{where.format('due')}}}"] == 1
    assert told[f"huanquan_payouts_fen{{{where.format('due')}}}"] == late.public_fen
    assert told[f"huanquan_payouts{{{where.format('bounced')}}}"] == 1
    assert told[f'huanquan_bank_exceptions{{kind="unknown_reference",service="finance",treasury="{DISTRICT}"}}'] == 1
    cash = f'huanquan_ledger_fen{{account="cash",counterparty="",service="finance",treasury="{DISTRICT}"}}'
    assert told[cash] == -paid.public_fen
    assert not any(str(order.id) in answer.text or str(order.beneficiary) in answer.text for order in (paid, late))
