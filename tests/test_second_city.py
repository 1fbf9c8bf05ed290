"""A second city from filing to settled ledger: the five services on its policy file alone, over HTTP.

What each treasury paid, and what others owed it, follows from the population and the pack's own splits.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.local import Local
from deploy.operations import remove_home
from deploy.sample.any_city import population_of
from deploy.sample.lines import Line, expected_states
from deploy.sample.policy import Policy
from deploy.served import served_policy
from libs.common.calendar import local_date
from libs.common.db import connect
from libs.common.policy import Split, schedule, split
from libs.common.policy.model import BenefitForm
from libs.common.treasuries import EmployerKind
from tests.conftest import ROOT, environment, free_port

Json = dict[str, Any]
CITIES = ROOT / "deploy" / "cities"
DISTRICT, NEW_AREA, CITY = "990102", "990171", "990100"
BOUND_SECONDS = 300


class Ran(NamedTuple):
    """One `huanquan demo` in the second city: its home, and what it told."""

    home: Path
    told: Json


@pytest.fixture(scope="module")
def policy() -> Policy:
    return served_policy(CITIES)


@pytest.fixture(scope="module")
def lines(policy: Policy) -> Sequence[Line]:
    return population_of(policy)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("second") / "home"
    file = home.with_suffix(".json")
    huanquan(home, "demo", "--port", str(free_port()), "--json", str(file))  # 1 where an invariant is violated
    yield Ran(home, json.loads(file.read_text()))
    remove_home(home)


def huanquan(home: Path, *arguments: str) -> str:
    """A command in the second city that ends well."""
    line = [sys.executable, "-m", "deploy.entry", *arguments]
    given = environment(home) | {"HUANQUAN_POLICIES": str(CITIES)}
    done = subprocess.run(line, cwd=ROOT, env=given, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_population_comes_to_rest(ran: Ran, lines: Sequence[Line], policy: Policy) -> None:
    assert ran.told["applications"] == expected_states(lines)
    assert set(ran.told["paid_fen"]) == set(policy.places)
    assert ran.told["reconciliation_differences"] == 0
    assert ran.told["trail"]["verified"] is True


def test_every_treasury_paid_and_was_settled_what_the_pack_says(
    ran: Ran, lines: Sequence[Line], policy: Policy
) -> None:
    paid: Counter[str] = Counter()
    owed: Counter[str] = Counter()
    for treasury, one in first_payments(lines, policy):
        paid[treasury] += one.public
        owed[treasury] += sum(one.receivables.values())
    assert ran.told["paid_fen"] == dict(paid)
    assert ran.told["fiscal_settlement_fen"] == {treasury: fen for treasury, fen in owed.items() if fen}


def test_three_treasuries_bear_one_payment_of_a_district(lines: Sequence[Line], policy: Policy) -> None:
    bearers = [set(one.shares) for treasury, one in first_payments(lines, policy) if treasury == DISTRICT]
    assert {DISTRICT, NEW_AREA, CITY} in bearers


def test_the_second_quarter_of_every_allowance_is_reviewed_and_ordered_only_on_its_day(ran: Ran) -> None:
    """Of a benefit that is paid at once there is nothing to review."""
    found = asyncio.run(rows_of("finance", ran.home, _REVIEWS))
    of_allowances = [row for row in found if row["benefit"] == "settling_allowance"]
    assert len(of_allowances) >= len(set(EmployerKind)) - 1
    assert {(row["reviewed"], row["ordered"]) for row in of_allowances} == {("2 pass", "1")}
    assert {(row["reviewed"], row["ordered"]) for row in found if row not in of_allowances} == {(None, "1")}


def test_each_category_is_graded_as_fast_as_its_green_channel_says(ran: Ran) -> None:
    found = asyncio.run(rows_of("workflow", ran.home, _GRADINGS))
    limits = {(row["category"], row["green_channel"]): set(row["limits"]) for row in found}
    whole = {1, 4, 6}
    assert limits == {
        ("leading", True): {1, 3},
        ("founding", True): {1, 4},
        ("skilled", False): whole,
        ("young", False): whole,
    }


def test_its_invariants_hold_at_rest(ran: Ran) -> None:
    huanquan(ran.home, "verify", "--at-rest")


_REVIEWS = """
    SELECT e.benefit,
           (SELECT string_agg(concat_ws(' ', r.number, r.verdict), ', ') FROM instalment_review AS r
             WHERE r.entitlement_id = e.id) AS reviewed,
           (SELECT string_agg(o.instalment::text, ', ') FROM payout_order AS o
             WHERE o.entitlement_id = e.id) AS ordered
      FROM entitlement AS e
"""
_GRADINGS = """
    SELECT i.category, t.green_channel, array_agg(DISTINCT t.limit_working_days) AS limits
      FROM item AS i JOIN task AS t ON t.item = i.id WHERE i.code = 'grading' GROUP BY 1, 2
"""


async def rows_of(service: str, home: Path, query: str) -> Sequence[Any]:
    """What the database of a service holds after the run."""
    postgres = Local(home).postgres
    await asyncio.to_thread(postgres.start)
    try:
        connection = await connect(postgres.app_url(service))
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()
    finally:
        await asyncio.to_thread(postgres.stop)


# -- what must have been paid


def first_payments(lines: Sequence[Line], policy: Policy) -> Iterator[tuple[str, Split]]:
    """The affiliated treasury and the split of the first instalment of each money benefit that is granted."""
    by_key = {line.key: line for line in lines if line.wave == 1}
    for line in lines:
        if "closed" in line.expect.values():
            certified = by_key[line.certification_of] if line.certification_of else line
            yield from _of_one(line.body["items"], certified.body, policy)


def _of_one(items: Sequence[Mapping[str, str]], certified: Json, policy: Policy) -> Iterator[tuple[str, Split]]:
    today = local_date(datetime.now(UTC))
    category = next((item["category"] for item in certified["items"] if "category" in item), None)
    for benefit in {item["code"] for item in items} & set(policy.benefits(BenefitForm.MONEY)):
        assert category is not None
        [tie] = certified["employer"]["affiliations"]
        plan = schedule(policy.pack, benefit=benefit, category=category, decided_on=today, accepted_on=today)
        yield (
            tie["treasury"],
            split(
                policy.pack,
                benefit=benefit,
                treasury=tie["treasury"],
                on=today,
                total_fen=plan[0].amount_fen,
                employer_kind=EmployerKind(certified["employer"]["kind"]),
            ),
        )
