"""The ledger: every transfer balances, every balance is the sum of its entries, nothing is edited."""

import asyncio
from collections import defaultdict
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from deploy.engine import EmbeddedPostgres
from libs.common.db import connect
from libs.common.migration import upgrade
from libs.common.policy import PolicyDates, split
from libs.common.treasuries import EmployerKind
from services.finance import ledger
from services.finance.ledger import Account, Transfer, Unbalanced
from services.finance.models import BALANCE_FUNCTIONS, metadata
from services.finance.settlement import last_day
from tests.common.packs import anyang
from tests.conftest import create_database
from tests.finance.builders import CITY, COUNTY, DISTRICT, PROVINCE, PROVINCE_MANAGED, ZONE, today
from tests.finance.conftest import House

TREASURIES = (CITY, DISTRICT, COUNTY, PROVINCE_MANAGED, ZONE)
fens = st.integers(min_value=0, max_value=10**13)
kinds = st.sampled_from([kind for kind in EmployerKind if kind is not EmployerKind.CENTRAL_OR_PROVINCIAL])


def by_book(entries: dict[Account, int]) -> dict[str, int]:
    books: dict[str, int] = defaultdict(int)
    for account, fen in entries.items():
        books[account.treasury] += fen
    return dict(books)


@given(fen=st.integers(min_value=1, max_value=10**13), treasury=st.sampled_from(TREASURIES), kind=kinds)
@settings(max_examples=200)
@pytest.mark.parametrize("benefit", ["living_allowance", "purchase_subsidy"])
def test_a_split_is_whole_and_its_posting_balances_and_mirrors(
    benefit: str, fen: int, treasury: str, kind: EmployerKind
) -> None:
    when = PolicyDates(accepted_on=today(), due_on=today())
    parts = split(anyang(), benefit=benefit, treasury=treasury, on=when, total_fen=fen, employer_kind=kind)
    assert parts.employer + parts.public == fen
    assert sum(parts.shares.values()) == parts.public
    if not parts.public:
        return
    entries = ledger.payout_entries(payer=treasury, shares=parts.shares)
    assert set(by_book(entries).values()) == {0}
    assert entries[Account(treasury, "cash")] == -parts.public
    owed = entries.get(Account(treasury, "due_from", CITY), 0)
    assert owed == parts.receivables.get(CITY, 0) == -entries.get(Account(CITY, "due_to", treasury), 0)


@given(fen=st.integers(min_value=-(10**13), max_value=10**13).filter(bool))
def test_a_leg_balances_in_both_books_whichever_way_it_goes(fen: int) -> None:
    legs = [
        ledger.leg_entries(debtor=CITY, creditor=PROVINCE, treasury=COUNTY, owed={CITY: fen}),
        ledger.leg_entries(debtor=PROVINCE, creditor=COUNTY, treasury=COUNTY, owed={CITY: fen}),
    ]
    total: dict[Account, int] = defaultdict(int)
    for leg in legs:
        assert set(by_book(leg).values()) == {0}
        for account, amount in leg.items():
            total[account] += amount
    assert {account: amount for account, amount in total.items() if amount} == {
        Account(CITY, "due_to", COUNTY): fen,
        Account(CITY, "cash"): -fen,
        Account(COUNTY, "cash"): fen,
        Account(COUNTY, "due_from", CITY): -fen,
    }


@given(
    entries=st.dictionaries(st.sampled_from([Account(CITY, "cash"), Account(CITY, "expenditure")]), fens, max_size=2)
)
def test_what_does_not_balance_is_stopped_before_it_is_written(entries: dict[Account, int]) -> None:
    with pytest.raises(Unbalanced):  # none of these is negative, so none balances
        ledger.check_balanced(a_transfer(uuid4(), entries))


@pytest.mark.parametrize(("month", "after", "last"), [("2026-12", "2027-01", 31), ("2024-02", "2024-03", 29)])
def test_months_follow_one_another(month: str, after: str, last: int) -> None:
    assert ledger.next_month(month) == after
    assert last_day(month).day == last


def a_transfer(order: Any, entries: dict[Account, int], attempt: int = 1) -> Transfer:
    return Transfer(
        key=f"payout:{order}:{attempt}",
        kind="payout",
        treasury=DISTRICT,
        month=f"{today():%Y-%m}",
        posted_on=today(),
        entries=entries,
        order=order,
        attempt=attempt,
    )


async def post(house: House, *transfers: Transfer) -> None:
    async with house.service.database.transaction() as tx:
        await ledger.hold_periods(tx, DISTRICT, [transfers[0].month])
        await ledger.post(tx, transfers)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shares=st.lists(
        st.fixed_dictionaries({CITY: fens, DISTRICT: st.integers(min_value=1, max_value=10**13)}),
        min_size=1,
        max_size=8,
    )
)
async def test_whatever_is_posted_balances_are_the_sums_of_entries(house: House, shares: list[dict[str, int]]) -> None:
    rows = await house.orders()
    order = rows[0] if rows else await house.due_order()
    before = len(await house.rows("SELECT id FROM transfer"))
    await post(
        house,
        *(
            a_transfer(order.id, ledger.payout_entries(payer=DISTRICT, shares=share), attempt=before + n + 1)
            for n, share in enumerate(shares)
        ),
    )
    wrong = {difference.name for difference in await house.differences()}
    assert "every balance is the sum of its entries" not in wrong
    assert "every transfer balances in every book" not in wrong
    assert "what is owed stands alike in both books" not in wrong
    # Each was posted for one order, and with other amounts than its own: that must be seen.
    assert "every order is posted once where settled, else not at all" in wrong


async def test_a_business_key_is_posted_once(house: House) -> None:
    order = await house.due_order()
    transfer = a_transfer(order.id, ledger.payout_entries(payer=DISTRICT, shares=order.shares))
    await post(house, transfer)
    before = await house.balances()
    with pytest.raises(IntegrityError, match="uq_transfer_key"):
        await post(house, transfer)
    assert await house.balances() == before


CASH, SPENT = Account(DISTRICT, "cash"), Account(DISTRICT, "expenditure")
CITYS_CASH, CITYS_SPENT = Account(CITY, "cash"), Account(CITY, "expenditure")
UNBALANCED = {
    "one entry": [{CASH: 1}],
    "an entry too much": [{CASH: -5, SPENT: 6}],
    "whole in all, but not in each book": [{CASH: -5, CITYS_SPENT: 5}],
    "whole in the end, but not by each statement": [{CASH: -5}, {SPENT: 5}],
    "whole at first, and then one more": [{CASH: -5, SPENT: 5}, {CITYS_CASH: 1}],
    "among others that are": [{CASH: -5, SPENT: 5, CITYS_CASH: -7, CITYS_SPENT: 6}],
}


@pytest.mark.parametrize("statements", UNBALANCED.values(), ids=list(UNBALANCED))
async def test_the_database_itself_refuses_a_transfer_that_does_not_balance(
    house: House, statements: list[dict[Account, int]]
) -> None:
    order = await house.due_order()
    await accounts_of(house, order)
    before = len(await house.rows("SELECT id FROM entry"))
    with pytest.raises(IntegrityError, match="does not balance in every book"):
        await write_past_the_code(house, order.id, statements)
    assert len(await house.rows("SELECT id FROM entry")) == before


async def test_the_database_itself_refuses_a_transfer_without_entries(house: House) -> None:
    order = await house.due_order()
    with pytest.raises(IntegrityError, match="has no entries"):
        await write_past_the_code(house, order.id, [])


async def test_what_balances_by_each_statement_is_taken_past_the_code_too(house: House) -> None:
    order = await house.due_order()
    await accounts_of(house, order)
    await write_past_the_code(house, order.id, [{CASH: -5, SPENT: 5}, {CITYS_CASH: -7, CITYS_SPENT: 7}])
    assert "every transfer balances in every book" not in {each.name for each in await house.differences()}


async def accounts_of(house: House, order: Any) -> None:
    """The accounts that the statements below name."""
    entries = {CASH: -1, SPENT: 1, CITYS_CASH: -1, CITYS_SPENT: 1}
    await post(house, a_transfer(order.id, entries, attempt=9))


async def write_past_the_code(house: House, order: UUID, statements: list[dict[Account, int]]) -> None:
    month, key = f"{today():%Y-%m}", uuid4()
    async with house.service.database.transaction() as tx:
        await ledger.hold_periods(tx, DISTRICT, [month])
        await tx.execute(
            text("""INSERT INTO transfer (id, key, kind, treasury, month, posted_on, order_id)
                    VALUES (:id, 'k', 'payout', :treasury, :month, :day, :order)"""),
            {"id": key, "treasury": DISTRICT, "month": month, "order": order, "day": today()},
        )
        for entries in statements:
            await tx.execute(
                text("""INSERT INTO entry (transfer_id, account_id, fen)
                        SELECT :id, a.id, r.fen
                          FROM unnest(CAST(:treasuries AS text[]), CAST(:kinds AS text[]), CAST(:fens AS bigint[]))
                               AS r (treasury, kind, fen)
                          JOIN account AS a ON (a.treasury, a.kind, a.counterparty) = (r.treasury, r.kind, '')"""),
                {
                    "id": key,
                    "treasuries": [each.treasury for each in entries],
                    "kinds": [each.kind for each in entries],
                    "fens": list(entries.values()),
                },
            )


def test_the_migrations_make_the_same_check_as_the_models(postgres: EmbeddedPostgres) -> None:
    name = f"m_{uuid4().hex}"
    asyncio.run(create_database(postgres, name, "finance"))
    upgrade("finance", postgres.url(name, "finance_owner"), metadata)

    async def made() -> tuple[dict[str, str], list[str]]:
        connection = await connect(postgres.url(name, "finance_owner"))
        functions = await connection.fetch("SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'refuse_unb%'")
        triggers = await connection.fetch("""
            SELECT concat_ws(' ', tgname, tgnewtable, tgdeferrable AND tginitdeferred) AS said
              FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1
        """)
        await connection.close()
        return dict(map(tuple, functions)), [row["said"] for row in triggers]

    functions, triggers = asyncio.run(made())
    assert triggers == ["entry_balances added f", "transfer_balances t"]
    assert {name: body.split() for name, body in functions.items()} == {
        name: body.split() for name, body in BALANCE_FUNCTIONS.items()
    }


APPEND_ONLY = sorted(table.name for table in metadata.sorted_tables if table.info.get("append_only"))


def test_what_is_history_is_marked_so() -> None:
    assert {"transfer", "entry", "order_history", "bank_result_line", "batch_line", "payout_batch"} <= set(APPEND_ONLY)


async def test_history_cannot_be_changed_deleted_or_emptied(house: House) -> None:
    for table in APPEND_ONLY:
        async with house.service.database.transaction() as tx:
            # Somebody who owns nothing is not refused by name: the grant is a warning and gives nothing.
            await tx.execute(text(f"GRANT UPDATE, DELETE, TRUNCATE ON {table} TO finance_app"))
        column = list(metadata.tables[table].c)[-1].name
        for attempt in (
            f"UPDATE {table} SET {column} = {column}",  # noqa: S608 - names from the models
            f"DELETE FROM {table}",  # noqa: S608
            f"TRUNCATE {table} CASCADE",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
        ):
            with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
                await house.rows(attempt)
