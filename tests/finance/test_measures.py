"""Per treasury, what its officer would ask: what is due, late, bounced and doubted, and what the books say."""

import json
from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common.auth import Principal
from services.finance.api.reviews import _pending
from tests.finance.builders import COUNTY, DISTRICT, bounced, credited, today
from tests.finance.conftest import House, reference
from tests.finance.test_reviews import LAPSED, LONG_AGO, SOUND, granted, moved, tied, work


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


async def test_reviews_that_wait_are_counted_for_the_treasury_that_makes_them(house: House) -> None:
    unreviewed, failed, passed, gone = [await granted(house, ago=LONG_AGO) for _ in range(4)]
    await moved(house, unreviewed, tied(DISTRICT))
    await moved(house, gone, tied(DISTRICT, last=today() - LONG_AGO), tied(COUNTY, today() - LONG_AGO + timedelta(1)))
    await work(house)  # the day of the second instalment has come, that of the third has not
    (await failed.review(2, LAPSED)).ok(201)
    (await passed.review(2, SOUND)).ok(201)
    answer = await house._client.get("/finance/metrics")
    assert told(answer.text, "pending_reviews") == {
        (DISTRICT, "none"): 4,  # two of the one, and a third instalment of each other
        (DISTRICT, "fail"): 1,
        (COUNTY, "none"): 2,
    }
    assert told(answer.text, "pending_reviews_withheld") == {
        (DISTRICT, "none"): 1,
        (DISTRICT, "fail"): 1,
        (COUNTY, "none"): 1,
    }
    ages = told(answer.text, "pending_reviews_oldest_seconds")
    assert LONG_AGO.total_seconds() <= ages[DISTRICT, "none"] <= (LONG_AGO + timedelta(days=1)).total_seconds()


def told(page: str, name: str) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["treasury"], sample.labels["last"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"huanquan_{name}"
    }


async def test_the_list_of_pending_reviews_is_read_by_its_index(house: House) -> None:
    query = _pending(Principal("supervisor-1", "supervision", "supervisor", frozenset()), today()).limit(51)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    async with house.service.database.transaction() as tx:
        for other in ("seqscan", "sort", "hashjoin", "mergejoin"):  # an empty table is read in any way
            await tx.execute(text(f"SET LOCAL enable_{other} = off"))
        plan = json.dumps((await tx.execute(text(f"EXPLAIN (FORMAT JSON) {sql}"))).scalar_one())
    assert "ix_instalment_review_from" in plan
    assert '"Node Type": "Sort"' not in plan
