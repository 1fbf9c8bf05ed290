"""What the rules of 安人才〔2021〕4 号 give: splits, instalments, routes, platforms and tasks."""

from dataclasses import replace
from datetime import date
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.calendar import CALENDAR
from libs.common.money import MAX_FEN
from libs.common.policy import (
    Instalment,
    Leg,
    ManualDecision,
    NoRuleInForce,
    Pack,
    PackRefused,
    PolicyDates,
    Succession,
    UnknownCode,
    affiliated_treasury,
    amount_of,
    categories_of,
    certification_valid_to,
    certifies,
    describe_split,
    employer_share,
    exclusion,
    platform_for,
    platform_of,
    schedule,
    settlement_route,
    split,
    task_treasury,
    tasks_for,
    treasury_of_region,
)
from libs.common.policy.instalments import add_months
from libs.common.policy.model import CertificationTerm, Lights, RouteKind
from libs.common.treasuries import Affiliation, AffiliationKind, EmployerKind, TreasuryKind
from tests.common.packs import a_pack, anyang, reviewed

DAY = date(2026, 3, 2)
REVIEWED = a_pack(reviewed("living_allowance"))
MONEY = ("living_allowance", "purchase_subsidy")
DISTRICTS = ("410502", "410503", "410505", "410506")
COUNTIES = ("410522", "410523", "410526", "410527", "410581")
ZONE, CITY, PROVINCE = "410571", "410500", "410000"
DECIDED = tuple(kind for kind in EmployerKind if kind is not EmployerKind.CENTRAL_OR_PROVINCIAL)

# Of the public part, what the city bears for each kind of treasury: the two tables of 第五条.
CITY_SHARE = {
    "living_allowance": {TreasuryKind.DISTRICT: Fraction(4, 10), TreasuryKind.COUNTY: Fraction(3, 10)},
    "purchase_subsidy": {TreasuryKind.DISTRICT: Fraction(3, 10), TreasuryKind.COUNTY: Fraction(1, 10)},
}


@pytest.mark.article("第五条")
@given(
    st.sampled_from(MONEY),
    st.sampled_from((*DISTRICTS, *COUNTIES, ZONE, CITY)),
    st.sampled_from(DECIDED),
    st.integers(1, 10**12),
)
def test_every_split_sums_to_the_whole(benefit: str, treasury: str, kind: EmployerKind, total: int) -> None:
    result = split(anyang(), benefit=benefit, treasury=treasury, on=DAY, total_fen=total, employer_kind=kind)
    assert result.employer == (total // 3 if kind is EmployerKind.ENTERPRISE else 0)
    assert result.employer + result.public == total
    assert sum(result.shares.values()) == result.public
    assert result.advanced_by == treasury
    if treasury == CITY:
        assert result.shares == {CITY: result.public}
        assert result.receivables == {}
        return
    of_kind = TreasuryKind.COUNTY if treasury in COUNTIES else TreasuryKind.DISTRICT
    city = int(result.public * CITY_SHARE[benefit][of_kind])
    assert result.shares == {CITY: city, treasury: result.public - city}
    assert result.receivables == ({CITY: city} if city else {})


@pytest.mark.article("第五条")
@pytest.mark.parametrize(
    ("benefit", "treasury", "total", "employer", "shares"),
    [
        # 30,000 yuan: 10,000 from the enterprise; of 20,000 city and district 4:6, city and county 3:7.
        ("living_allowance", "410502", 3_000_000, 1_000_000, {"410500": 800_000, "410502": 1_200_000}),
        ("living_allowance", "410522", 3_000_000, 1_000_000, {"410500": 600_000, "410522": 1_400_000}),
        # Of the purchase subsidy 3:7 and 1:9.
        ("purchase_subsidy", "410502", 3_000_000, 1_000_000, {"410500": 600_000, "410502": 1_400_000}),
        ("purchase_subsidy", "410522", 3_000_000, 1_000_000, {"410500": 200_000, "410522": 1_800_000}),
        ("purchase_subsidy", "410581", 3_000_000, 1_000_000, {"410500": 200_000, "410581": 1_800_000}),
        ("living_allowance", "410571", 3_000_000, 1_000_000, {"410500": 800_000, "410571": 1_200_000}),
        ("living_allowance", "410500", 3_000_000, 1_000_000, {"410500": 2_000_000}),
        ("living_allowance", "410502", 1, 0, {"410500": 0, "410502": 1}),
        ("purchase_subsidy", "410526", 1, 0, {"410500": 0, "410526": 1}),
        ("living_allowance", "410500", 1, 0, {"410500": 1}),
        # 100 fen: 33 from the enterprise, 67 public; 4/10 of 67 is 26.8, rounded down.
        ("living_allowance", "410503", 100, 33, {"410500": 26, "410503": 41}),
        ("purchase_subsidy", "410527", 100, 33, {"410500": 6, "410527": 61}),
    ],
)
def test_the_ratios_are_those_of_the_document(
    benefit: str, treasury: str, total: int, employer: int, shares: dict[str, int]
) -> None:
    result = split(anyang(), benefit=benefit, treasury=treasury, on=DAY, total_fen=total)
    assert (result.employer, result.shares) == (employer, shares)


@pytest.mark.article("第五条")
@pytest.mark.parametrize("kind", DECIDED)
def test_only_an_enterprise_bears_a_third(kind: EmployerKind) -> None:
    share = employer_share(anyang(), benefit="living_allowance", employer_kind=kind, on=DAY)
    assert share == (Fraction(1, 3) if kind is EmployerKind.ENTERPRISE else 0)


@pytest.mark.article("第五条")
def test_a_central_or_provincial_unit_is_decided_by_people() -> None:
    kind = EmployerKind.CENTRAL_OR_PROVINCIAL
    with pytest.raises(ManualDecision, match="manual decision"):
        split(anyang(), benefit=MONEY[0], treasury=CITY, on=DAY, total_fen=1, employer_kind=kind)
    with pytest.raises(ManualDecision, match="manual decision"):
        split(anyang(), benefit=MONEY[0], treasury=PROVINCE, on=DAY, total_fen=1)
    with pytest.raises(ManualDecision, match="manual decision"):
        employer_share(anyang(), benefit=MONEY[0], employer_kind=kind, on=DAY)


@pytest.mark.article("第五条")
@pytest.mark.parametrize("total", [-1, MAX_FEN + 1])
def test_an_amount_out_of_bounds_is_refused(total: int) -> None:
    with pytest.raises(ValueError, match="an amount is"):
        split(anyang(), benefit=MONEY[0], treasury=CITY, on=DAY, total_fen=total)


@pytest.mark.article("第四条")
def test_a_flat_is_no_money_to_share() -> None:
    with pytest.raises(NoRuleInForce, match="in kind"):
        split(anyang(), benefit="talent_flat", treasury=CITY, on=DAY, total_fen=1)


def test_unknown_codes_are_named() -> None:
    with pytest.raises(UnknownCode, match="benefit rent"):
        split(anyang(), benefit="rent", treasury=CITY, on=DAY, total_fen=1)
    with pytest.raises(UnknownCode, match="treasury 410599"):
        split(anyang(), benefit=MONEY[0], treasury="410599", on=DAY, total_fen=1)


@pytest.mark.article("第十条")
def test_no_rule_is_in_force_before_the_day_of_issue() -> None:
    before, first = date(2021, 3, 22), date(2021, 3, 23)
    assert split(anyang(), benefit=MONEY[0], treasury=CITY, on=first, total_fen=3).employer == 1
    with pytest.raises(NoRuleInForce):
        split(anyang(), benefit=MONEY[0], treasury=CITY, on=before, total_fen=3)


@pytest.mark.article("第五条")
def test_after_2021_the_same_county_ratio_is_an_assumption() -> None:
    def decided(on: date) -> list[tuple[bool, str | None]]:
        described = describe_split(anyang(), benefit=MONEY[0], treasury="410522", on=on, total_fen=3)
        return [(rule["assumption"], rule["article"]) for rule in described["rules"]][:2]

    assert decided(date(2021, 12, 31)) == [(False, "第五条"), (False, "第五条")]
    assert decided(date(2022, 1, 1)) == [(False, "第五条"), (True, "第五条")]


@pytest.mark.article("第五条")
def test_a_described_split_is_plain_and_names_the_pack() -> None:
    described = describe_split(anyang(), benefit=MONEY[0], treasury="410522", on=DAY, total_fen=100)
    assert (described["total"], described["employer"], described["public"]) == (100, 33, 67)
    assert described["shares"] == {"410500": 20, "410522": 47}
    assert described["advanced_by"] == "410522"
    assert described["policy"] == anyang().identity.model_dump()


LATER_RATIO = """\
  - id: sharing.living-allowance.district
    benefits: [living_allowance]
    treasury_kinds: [district]
    shares: [{{bearer: "410500", share: 4/10}}, {{bearer: affiliated, share: 6/10}}]
    remainder_to: affiliated
    document: anyang-2021-4
    article: 第五条
    valid_from: 2021-03-23
    valid_to: 2026-06-30
    version_by: {by}
  - id: sharing.living-allowance.district.2026
    benefits: [living_allowance]
    treasury_kinds: [district]
    shares: [{{bearer: "410500", share: 5/10}}, {{bearer: affiliated, share: 5/10}}]
    remainder_to: affiliated
    document: anyang-2021-4
    article: 第五条
    valid_from: 2026-07-01
    version_by: {by}
"""
PRESENT_RATIO = (
    LATER_RATIO.split("  - id: sharing.living-allowance.district.2026", maxsplit=1)[0]
    .replace("    valid_to: 2026-06-30\n", "")
    .format(by="due_on")
)


@pytest.mark.article("第五条")
@pytest.mark.parametrize(("by", "city"), [("due_on", 50), ("accepted_on", 40)])
def test_a_changed_ratio_follows_the_date_that_its_rule_names(by: str, city: int) -> None:
    pack = a_pack((PRESENT_RATIO, LATER_RATIO.format(by=by)))
    later = PolicyDates(accepted_on=date(2026, 3, 2), due_on=date(2026, 9, 2))
    result = split(pack, benefit=MONEY[0], treasury="410502", on=later, total_fen=150)
    assert result.shares == {"410500": city, "410502": 100 - city}


def test_a_plan_of_a_single_treasury_goes_before_that_of_its_kind() -> None:
    own = LATER_RATIO.split("  - id: sharing.living-allowance.district.2026", maxsplit=1)[0].format(by="due_on")
    own = own.replace("    valid_to: 2026-06-30\n", "").replace("living-allowance.district", "wenfeng")
    own = own.replace("treasury_kinds: [district]", 'treasuries: ["410502"]').replace("4/10", "1/10")
    own = own.replace("6/10", "9/10")
    pack = a_pack((PRESENT_RATIO, PRESENT_RATIO + own))
    assert split(pack, benefit=MONEY[0], treasury="410502", on=DAY, total_fen=150).shares["410500"] == 10
    assert split(pack, benefit=MONEY[0], treasury="410503", on=DAY, total_fen=150).shares["410500"] == 40


@pytest.mark.article("第五条")
@given(
    st.sampled_from(["doctor", "master", "bachelor", "targeted_graduate", "youth_reserve"]),
    st.sampled_from(MONEY),
    st.dates(date(2021, 3, 23), date(2090, 1, 1)),
)
def test_instalments_sum_to_the_whole_and_fall_due_on_working_days(category: str, benefit: str, decided: date) -> None:
    parts = schedule(anyang(), benefit=benefit, category=category, decided_on=decided, accepted_on=date(2021, 3, 23))
    whole = amount_of(anyang(), benefit=benefit, category=category, on=date(2021, 3, 23))
    assert sum(part.amount_fen for part in parts) == whole
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert parts[0].order_on == decided
    assert parts[0].due_on == CALENDAR.add_working_days(decided, 2)
    for part in parts:
        assert CALENDAR.is_working_day(part.due_on)
        assert decided <= part.order_on <= part.due_on
        assert part.provisional == CALENDAR.is_provisional(part.due_on)
    for earlier, later in pairwise(parts):
        assert earlier.due_on < later.due_on
        assert later.order_on == CALENDAR.add_working_days(later.due_on, -10)


@given(st.dates(date(2021, 3, 23), date(2090, 1, 1)))
def test_each_later_instalment_is_reviewed_in_the_time_since_the_one_before_it(decided: date) -> None:
    def parts(pack: Pack) -> list[Instalment]:
        return schedule(
            pack,
            benefit="living_allowance",
            category="doctor",
            decided_on=decided,
            accepted_on=date(2021, 3, 23),
        )

    first, *later = parts(REVIEWED)
    assert (first.review_from, later[0].review_from) == (None, decided)
    for earlier, part in pairwise(later):
        assert part.review_from == add_months(decided, (part.number - 2) * 6)
        assert part.review_from is not None
        assert earlier.order_on < part.review_from < part.order_on
    assert [replace(part, review_from=None) for part in (first, *later)] == parts(anyang())


@pytest.mark.article("第五条")
def test_the_first_payment_is_due_two_working_days_after_the_decision() -> None:
    [only] = schedule(
        anyang(),
        benefit="purchase_subsidy",
        category="doctor",
        decided_on=date(2026, 2, 13),
        accepted_on=date(2026, 2, 2),
    )
    assert (only.due_on, only.order_on, only.amount_fen) == (
        date(2026, 2, 24),
        date(2026, 2, 13),
        10_000_000,
    )


def test_an_amount_that_does_not_divide_leaves_its_remainder_to_the_last_instalment() -> None:
    pack = a_pack(("fen: 5_400_000", "fen: 5_400_005"))
    parts = schedule(pack, benefit="living_allowance", category="doctor", decided_on=DAY, accepted_on=DAY)
    assert [part.amount_fen for part in parts] == [900_000] * 5 + [900_005]


def test_a_plan_may_count_from_the_first_due_day_and_roll_back() -> None:
    pack = a_pack(
        (
            "    anchor: decided_on\n    roll: next_working_day",
            "    anchor: first_due_on\n    roll: previous_working_day",
        )
    )
    # Decided on a Thursday, first due on Monday 6 April... Tomb-sweeping Day 2026 is off: due on Tuesday 7.
    parts = schedule(
        pack,
        benefit="living_allowance",
        category="doctor",
        decided_on=date(2026, 4, 2),
        accepted_on=date(2026, 4, 2),
    )
    assert parts[0].due_on == date(2026, 4, 7)
    assert parts[1].due_on == date(2026, 9, 30)  # 7 October is still a holiday


@pytest.mark.parametrize(
    ("day", "months", "later"),
    [
        (date(2026, 8, 31), 6, date(2027, 2, 28)),
        (date(2023, 8, 31), 6, date(2024, 2, 29)),
        (date(2026, 12, 15), 1, date(2027, 1, 15)),
        (date(2026, 1, 31), 0, date(2026, 1, 31)),
    ],
)
def test_months_are_counted_to_the_same_day_or_the_last(day: date, months: int, later: date) -> None:
    assert add_months(day, months) == later


@pytest.mark.article("第二条")
@pytest.mark.parametrize("benefit", MONEY)
def test_flexible_talent_gets_neither_subsidy(benefit: str) -> None:
    rule = exclusion(anyang(), benefit=benefit, category="flexible", on=DAY)
    assert rule is not None
    assert rule.article == "第二条"
    with pytest.raises(NoRuleInForce, match="excluded"):
        schedule(anyang(), benefit=benefit, category="flexible", decided_on=DAY, accepted_on=DAY)


@pytest.mark.article("第二条")
def test_a_category_is_certified_only_by_an_item_for_its_coverage() -> None:
    certified = {
        item: {category.code for category in categories_of(anyang(), item=item, on=DAY)}
        for item in ("talent_certification", "flexible_certification", "living_allowance")
    }
    assert certified == {
        "talent_certification": {"doctor", "master", "bachelor", "targeted_graduate", "youth_reserve"},
        "flexible_certification": {"flexible"},
        "living_allowance": set(),
    }
    assert not certifies(anyang(), item="flexible_certification", category="doctor", on=DAY)
    with pytest.raises(UnknownCode, match="category professor"):
        certifies(anyang(), item="talent_certification", category="professor", on=DAY)


@pytest.mark.article("第二条")
def test_flexible_talent_gets_every_other_benefit() -> None:
    assert exclusion(anyang(), benefit="talent_flat", category="flexible", on=DAY) is None


@pytest.mark.article("第二条")
@pytest.mark.parametrize("category", ["targeted_graduate", "youth_reserve"])
def test_targeted_graduates_and_youth_reserve_talent_are_covered(category: str) -> None:
    for benefit in MONEY:
        assert exclusion(anyang(), benefit=benefit, category=category, on=DAY) is None
        assert amount_of(anyang(), benefit=benefit, category=category, on=DAY) > 0


def test_an_unknown_category_is_named() -> None:
    with pytest.raises(UnknownCode, match="category professor"):
        amount_of(anyang(), benefit=MONEY[0], category="professor", on=DAY)


def test_a_certification_is_valid_for_the_months_of_the_pack() -> None:
    assert anyang().rule(CertificationTerm, on=DAY).validity_months == 60
    assert certification_valid_to(anyang(), decided_on=DAY, accepted_on=DAY) == date(2031, 3, 2)


OWN_PLAN = """  - id: sharing.huaxian
    benefits: [purchase_subsidy]
    treasuries: ["410526"]
    shares: [{bearer: affiliated, share: "1"}]
    remainder_to: affiliated
    document: anyang-2021-4
    article: 第五条
    valid_from: 2021-03-23
    version_by: due_on
cash_advances:
"""


def city_part(granted: Pack, paying: Pack) -> int:
    """What the city bears of 30,000 yuan in 滑县 that no employer shares, in fen."""
    on = PolicyDates(accepted_on=DAY, due_on=date(2027, 5, 5))
    policy = Succession(granted, paying)
    kind = EmployerKind.INSTITUTION
    parts = split(policy, benefit="purchase_subsidy", treasury="410526", on=on, total_fen=3_000_000, employer_kind=kind)
    return parts.shares.get(CITY, 0)


@pytest.mark.article("第五条")
def test_a_plan_of_its_own_that_the_later_version_drops_binds_no_payment_due_under_it() -> None:
    with_own = a_pack(("cash_advances:\n", OWN_PLAN))
    assert city_part(with_own, with_own) == 0
    assert city_part(with_own, anyang()) == city_part(anyang(), anyang()) == 300_000
    assert city_part(anyang(), with_own) == 0


@pytest.mark.article("第五条")
def test_a_new_plan_for_new_acceptances_reaches_nobody_who_was_granted_before() -> None:
    of_new_ones = a_pack(("cash_advances:\n", OWN_PLAN.replace("due_on", "accepted_on")))
    assert city_part(of_new_ones, of_new_ones) == 0
    assert city_part(anyang(), of_new_ones) == 300_000


@pytest.mark.article("第五条")
def test_a_county_settles_directly_until_its_own_date_and_through_the_province_after() -> None:
    last, first = date(2021, 12, 31), date(2022, 1, 1)
    direct = settlement_route(anyang(), treasury="410522", on=last)
    assert (direct.kind, direct.legs) == (RouteKind.DIRECT, (Leg(CITY, "410522"),))
    via = settlement_route(anyang(), treasury="410522", on=first)
    assert (via.kind, via.legs) == (RouteKind.VIA_PROVINCE, (Leg(CITY, PROVINCE), Leg(PROVINCE, "410522")))


@pytest.mark.article("第五条")
def test_the_route_goes_by_the_day_due() -> None:
    on = PolicyDates(accepted_on=date(2021, 11, 1), due_on=date(2022, 5, 5))
    assert settlement_route(anyang(), treasury="410527", on=on).kind is RouteKind.VIA_PROVINCE


@pytest.mark.article("第五条")
def test_huaxian_settled_through_the_province_from_the_first_day() -> None:
    assert settlement_route(anyang(), treasury="410526", on=date(2021, 3, 23)).kind is RouteKind.VIA_PROVINCE


@pytest.mark.article("第五条")
@pytest.mark.parametrize("treasury", [*DISTRICTS, ZONE])
def test_districts_and_the_zone_settle_directly(treasury: str) -> None:
    assert settlement_route(anyang(), treasury=treasury, on=DAY).legs == (Leg(CITY, treasury),)


@pytest.mark.article("第五条")
def test_the_city_level_has_nothing_to_settle() -> None:
    assert settlement_route(anyang(), treasury=CITY, on=DAY).legs == ()


def affiliated(kind: str, treasury: str, first: date = date(2020, 1, 1), last: date | None = None) -> Affiliation:
    return Affiliation(kind=AffiliationKind(kind), treasury=treasury, valid_from=first, valid_to=last)


@pytest.mark.article("第二条")
def test_fiscal_affiliation_decides_before_all_others() -> None:
    ties = [affiliated("registration", "410505"), affiliated("tax", "410506"), affiliated("fiscal", "410522")]
    assert platform_for(anyang(), ties, DAY).code == "410522"
    assert platform_for(anyang(), ties[:2], DAY).code == "410506"


@pytest.mark.article("第二条")
def test_an_employer_that_moved_belongs_to_each_treasury_in_its_time() -> None:
    ties = [
        affiliated("fiscal", "410522", date(2020, 1, 1), date(2026, 6, 30)),
        affiliated("fiscal", "410505", date(2026, 7, 1)),
    ]
    assert affiliated_treasury(anyang(), ties, date(2026, 6, 30)).code == "410522"
    assert affiliated_treasury(anyang(), ties, date(2026, 7, 1)).code == "410505"


@pytest.mark.article("第二条")
def test_two_fiscal_affiliations_at_once_are_decided_by_people() -> None:
    with pytest.raises(ManualDecision, match="410502, 410522"):
        affiliated_treasury(anyang(), [affiliated("fiscal", "410522"), affiliated("fiscal", "410502")], DAY)


@pytest.mark.article("第二条")
def test_a_unit_of_the_province_is_decided_by_people() -> None:
    with pytest.raises(ManualDecision, match="manual decision"):
        platform_for(anyang(), [affiliated("fiscal", PROVINCE)], DAY)


def test_an_employer_without_affiliation_belongs_nowhere() -> None:
    with pytest.raises(NoRuleInForce, match="no affiliation"):
        affiliated_treasury(anyang(), [], DAY)


@pytest.mark.article("第三条")
@pytest.mark.parametrize("treasury", [CITY, *DISTRICTS, *COUNTIES, ZONE])
def test_every_treasury_has_its_platform_and_region(treasury: str) -> None:
    assert platform_of(anyang(), treasury, DAY).code == treasury
    assert treasury_of_region(anyang(), treasury, DAY).code == treasury


def test_a_region_that_nobody_serves_is_named() -> None:
    with pytest.raises(NoRuleInForce, match="410102"):
        treasury_of_region(anyang(), "410102", DAY)


@pytest.mark.article("第三条")
def test_a_certification_goes_to_departments_in_parallel_and_then_in_order() -> None:
    first, second = tasks_for(anyang(), "talent_certification", DAY)
    assert [task.department for task in first] == ["public_security", "education", "human_resources"]
    assert [task.department for task in second] == ["talent_office"]
    assert {task_treasury(anyang(), task, "410522", DAY) for task in first} == {"410522"}


@pytest.mark.article("第二条")
def test_flexible_engagement_is_certified_by_the_city() -> None:
    [(_, science), _] = tasks_for(anyang(), "flexible_certification", DAY)
    assert science.department == "science_technology"
    assert task_treasury(anyang(), science, "410522", DAY) == CITY


def test_a_changed_account_is_confirmed_by_the_talent_office() -> None:
    [[task]] = tasks_for(anyang(), "payee_account_change", DAY)
    assert task.department == "talent_office"
    assert anyang().item("payee_account_change", DAY).changes == "payee_account"


def test_only_a_change_makes_something_otherwise() -> None:
    with pytest.raises(PackRefused, match="只有变更类事项可以写 changes"):
        a_pack(("    title: 配偶就业\n", "    title: 配偶就业\n    changes: payee_account\n"))


def test_an_unknown_item_is_named() -> None:
    with pytest.raises(UnknownCode, match="item passport"):
        tasks_for(anyang(), "passport", DAY)


def test_single_rules_are_found_by_their_type() -> None:
    assert anyang().rule(Lights, on=DAY).yellow_working_days_left == 1
    assert anyang().find_rule(Lights, on=date(2020, 1, 1)) is None
