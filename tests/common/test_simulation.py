"""What a policy costs: every fen of every instalment is somebody's, and people who are alike are counted and not asked
again."""

from collections.abc import Iterable
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.policy import Facts, Pack, UnknownCode
from libs.common.policy.simulation import (
    EMPLOYER,
    MANUAL,
    Account,
    Cell,
    Outcome,
    People,
    Simulation,
    difference,
    drawn,
    sums,
    table,
)
from libs.common.treasuries import EmployerKind
from tests.common.packs import a_pack, anyang, one_of

COUNTY, CITY = "410522", "410500"
MASTER: Facts = {"person.degree": "master", "employer.good_standing": True, "employer.demand_declared": True}
SPAN = range(2026, 2036)
COUNTY_RULE = """    treasury_kinds: [county]
    shares: [{bearer: "410500", share: 3/10}, {bearer: affiliated, share: 7/10}]
    remainder_to: affiliated
    document: anyang-2021-4
    article: 第五条
    valid_from: 2022-01-01
    version_by: due_on
"""
RATIO_MOVED = (
    COUNTY_RULE,
    COUNTY_RULE.replace("2022-01-01\n", "2022-01-01\n    valid_to: 2027-12-31\n")
    + """    assumption: true
    note: 比例不变假定。
  - id: sharing.living-allowance.county.2028
    benefits: [living_allowance]
"""
    + COUNTY_RULE.replace("3/10", "1/2").replace("7/10", "1/2").replace("2022-01-01", "2028-01-01"),
)


def a_master(number: int = 1, kind: EmployerKind = EmployerKind.ENTERPRISE, treasury: str = COUNTY) -> People:
    return People(date(2026, 3, 2), treasury, kind, MASTER, number)


def cost(people: Iterable[People], pack: Pack | None = None) -> Account:
    simulation = Simulation(pack or anyang())
    for each in people:
        simulation.take(each)
    return simulation.account


def borne(account: Account, benefit: str) -> dict[str, int]:
    return {bearer: row.total for (code, bearer), row in table(account, SPAN).items() if code == benefit}


@pytest.mark.article("第五条")
def test_a_master_in_a_county_costs_what_the_articles_say() -> None:
    account = cost([a_master()])
    assert account.outcomes == {Outcome.ENTITLED: 1}
    assert account.granted == {("living_allowance", 2026): 1, ("purchase_subsidy", 2026): 1}
    assert borne(account, "living_allowance") == {EMPLOYER: 1_200_000, CITY: 720_000, COUNTY: 1_680_000}
    allowance = {cell.year: fen for cell, fen in account.fen.items() if cell[:2] == ("living_allowance", COUNTY)}
    assert allowance == {2026: 560_000, 2027: 560_000, 2028: 560_000}  # six instalments, one each half year
    assert borne(account, "purchase_subsidy") == {EMPLOYER: 1_666_666, CITY: 333_333, COUNTY: 3_000_001}


@pytest.mark.article("第五条")
def test_a_ratio_that_moves_binds_the_instalments_that_fall_due_after_it() -> None:
    account = cost([a_master()], a_pack(RATIO_MOVED))
    city = {cell.year: fen for cell, fen in account.fen.items() if cell[:2] == ("living_allowance", CITY)}
    assert city == {2026: 240_000, 2027: 240_000, 2028: 400_000}
    changed = difference(table(cost([a_master()]), SPAN), table(account, SPAN))
    assert changed["living_allowance", CITY].fen == (0, 0, 160_000, *[0] * 8)
    assert changed["living_allowance", COUNTY].total == -160_000
    assert sums(changed, SPAN) == [0] * 12


@pytest.mark.article("第五条")
def test_what_people_decide_is_counted_whole_and_said() -> None:
    account = cost([a_master(3, EmployerKind.CENTRAL_OR_PROVINCIAL)])
    assert borne(account, "living_allowance") == {MANUAL: 3 * 3_600_000}
    (why, number) = next(iter(account.manual.items()))
    assert "central_or_provincial" in why
    assert number == 3 * 7  # payments: six of the allowance and one of the subsidy


@pytest.mark.article("第二条")
def test_what_is_not_known_costs_nothing_and_is_no_refusal() -> None:
    unknown = {name: value for name, value in MASTER.items() if name != "person.degree"}
    certain: Facts = {"person.degree": "none", "employer.good_standing": False, "employer.demand_declared": False}
    flags: Facts = {fact.name: False for fact in anyang().facts if fact.type == "bool"}
    account = cost(
        [
            a_master()._replace(facts=unknown),
            a_master()._replace(facts={**flags, **certain, "person.university": "other"}),
        ]
    )
    assert account.outcomes == {Outcome.UNDETERMINED: 1, Outcome.NOTHING: 1}
    assert not account.fen


def test_a_treasury_that_the_pack_does_not_know_is_refused_and_nothing_counted() -> None:
    simulation = Simulation(anyang())
    with pytest.raises(UnknownCode, match="999999"):
        simulation.take(a_master(treasury="999999"))
    assert simulation.account == Account()


def test_what_falls_due_after_the_years_is_shown_as_later() -> None:
    account = cost([a_master()])
    row = table(account, range(2026, 2028))["living_allowance", COUNTY]
    assert row.fen == (560_000, 560_000, 560_000)
    assert sums(table(Account(), range(2026, 2028)), range(2026, 2028)) == [0, 0, 0, 0]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_every_fen_is_somebodys_and_a_number_stands_for_so_many(seed: int, number: int) -> None:
    people = list(drawn(anyang(), 30, first_year=2024, years=6, seed=seed))
    once, many = cost(people), cost(each._replace(number=number) for each in people)
    assert sum(once.outcomes.values()) == 30
    assert many.fen == {cell: fen * number for cell, fen in once.fen.items()}
    amounts = {(each.benefit, each.category): each.fen for each in anyang().amounts}
    for benefit in ("living_allowance", "purchase_subsidy"):
        whole = sum(borne(once, benefit).values())
        granted = sum(n for (code, _), n in once.granted.items() if code == benefit)
        of_one = [fen for (code, _), fen in amounts.items() if code == benefit]
        assert granted * min(of_one) <= whole <= granted * max(of_one)
    assert all(isinstance(cell, Cell) and fen > 0 for cell, fen in once.fen.items())


def test_the_same_seed_draws_the_same_people_spread_over_the_years() -> None:
    people = list(drawn(anyang(), 1000, first_year=2026, years=10, seed=5))
    assert people == list(drawn(anyang(), 1000, first_year=2026, years=10, seed=5))
    assert people != list(drawn(anyang(), 1000, first_year=2026, years=10, seed=6))
    assert {each.accepted_on.year for each in people} == set(SPAN)
    assert EmployerKind.CENTRAL_OR_PROVINCIAL not in {each.employer_kind for each in people}


def test_the_kind_of_employer_is_the_fact_that_the_platform_would_see() -> None:
    facts = "facts:\n"
    kinds = "".join(f"      - {{code: {kind.value}, title: {kind.value}}}\n" for kind in EmployerKind)
    declared = f"""facts:
  - name: employer.kind
    title: 单位性质
    type: string
    stated_by: platform
    values:
{kinds}    document: anyang-2021-4
    article: 第二条
"""
    condition = "    when: employer.leading_enterprise || employer.demand_declared\n"
    pack = a_pack(
        (facts, declared), (condition, "    when: employer.demand_declared && employer.kind == 'enterprise'\n")
    )
    assert cost([a_master()], pack).outcomes == {Outcome.ENTITLED: 1}
    assert Outcome.ENTITLED not in cost([a_master(1, EmployerKind.INSTITUTION)], pack).outcomes


def test_what_falls_due_behind_the_calendar_is_left_to_people() -> None:
    account = cost([a_master()._replace(accepted_on=date(2099, 12, 30))])
    assert account.outcomes == {Outcome.ENTITLED: 1}
    assert borne(account, "purchase_subsidy") == {MANUAL: 5_000_000}


def test_of_benefits_of_which_one_may_be_had_the_greatest_is_counted() -> None:
    account = cost([a_master(2)], a_pack(one_of("living_allowance", "purchase_subsidy")))
    assert account.outcomes == {Outcome.ENTITLED: 2}
    assert account.granted == {("purchase_subsidy", 2026): 2}
    assert borne(account, "living_allowance") == {}
    assert borne(account, "purchase_subsidy") == {EMPLOYER: 3_333_332, CITY: 666_666, COUNTY: 6_000_002}
