"""What a new version of a policy makes otherwise, in words: what, from when, by which date, for whom."""

import re
from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.policy import Difference, NotOfOneCity, Pack, VersionBy, differences, split
from libs.common.policy.model import Contents, Rule
from libs.common.policy.wording import WORDINGS, Effect
from tests.common.packs import a_pack, anyang, one_of, reviewed

VERSION = ('version: "2021-4.4"', 'version: "2024-1"')
COUNTY = """    shares: [{bearer: "410500", share: 3/10}, {bearer: affiliated, share: 7/10}]
    remainder_to: affiliated
    document: anyang-2021-4
    article: 第五条
    valid_from: 2022-01-01
"""


def county_share(city: Fraction, since: date) -> Pack:
    """Anyang's pack where the city bears another share of a county's living allowance from a day on."""
    until = since - timedelta(days=1)
    new = f"""    valid_to: {until}
    version_by: due_on
    assumption: true
    note: 比例不变假定。
  - id: sharing.living-allowance.county.next
    benefits: [living_allowance]
    treasury_kinds: [county]
    shares: [{{bearer: "410500", share: {_share(city)}}}, {{bearer: affiliated, share: {_share(1 - city)}}}]
    remainder_to: affiliated
    document: anyang-2021-4
    article: 第五条
    valid_from: {since}
"""
    return a_pack(VERSION, (COUNTY, COUNTY + new))


def _share(share: Fraction) -> str:
    return f'"{share}"' if share.denominator == 1 else str(share)


def money(found: list[Difference]) -> list[Difference]:
    return [each for each in found if each.kind == "财政分担" and set(each.becomes) - {"依据", "性质"}]


@pytest.mark.article("第五条")
def test_a_ratio_that_moves_says_from_when_by_which_date_and_for_whom() -> None:
    (found,) = money(differences(anyang(), county_share(Fraction(4, 10), date(2024, 1, 1))))
    assert found.about == ("生活补贴、县（市）",)
    assert (found.since, found.until, found.version_by) == (date(2024, 1, 1), None, VersionBy.DUE_ON)
    assert found.was["安阳市本级财政承担"] == "3/10"
    assert found.becomes["安阳市本级财政承担"] == "2/5"
    assert found.effect == Effect(gains=("隶属财政",), loses=("安阳市本级财政",))
    assert found.source["依据"] == "安人才〔2021〕4 号第五条"


@pytest.mark.article("第五条")
@settings(max_examples=20)  # each reads a pack
@given(
    tenths=st.integers(0, 10),
    since=st.dates(date(2022, 1, 2), date(2060, 1, 1)),
    total=st.integers(1, 10**12),
)
def test_days_on_which_a_split_is_otherwise_are_exactly_those_told(tenths: int, since: date, total: int) -> None:
    after = county_share(Fraction(tenths, 10), since)
    told = money(differences(anyang(), after))
    assert [each.since for each in told] == ([] if tenths == 3 else [since])
    for day in (since - timedelta(days=1), since):
        one, other = (
            split(pack, benefit="living_allowance", treasury="410522", on=day, total_fen=total * 30)
            for pack in (anyang(), after)
        )
        assert (dict(one.shares) != dict(other.shares)) == any(each.since <= day for each in told)


@pytest.mark.article("第十条")
def test_an_assumption_that_is_confirmed_is_told_without_any_number_that_moves() -> None:
    note = "    version_by: accepted_on\n    note: 起算日为正式认定次日"
    assumed = a_pack(VERSION, (note, note.replace("    note:", "    assumption: true\n    note:")))
    (found,) = differences(assumed, anyang())
    assert found.kind == "兑现时限"
    assert set(found.becomes) == {"性质"}
    assert found.was["性质"].startswith("假定（起算日为正式认定次日")
    assert found.becomes["性质"] == "文件规定"
    assert found.effect == Effect()


@pytest.mark.article("第二条")
def test_a_benefit_that_is_no_longer_shut_out_helps_the_people_of_the_coverage() -> None:
    both = "    benefits: [living_allowance, purchase_subsidy]\n    document: anyang-2021-4\n    article: 第二条"
    after = a_pack(VERSION, (both, both.replace(", purchase_subsidy", "")))
    (found,) = differences(anyang(), after)
    assert found.about == ("柔性引进人才、购房补贴",)
    assert (found.was, found.becomes) == ({"待遇": "不享受"}, {})
    assert found.effect == Effect(gains=("该类人才",))
    (back,) = differences(after, anyang())
    assert back.effect == Effect(loses=("该类人才",))


@pytest.mark.article("第三条")
def test_a_shorter_limit_and_a_material_more_help_and_cost_the_applicant() -> None:
    marriage = (
        "      - {code: marriage_certificate, title: 结婚证}\n    stages:\n      - - {department: human_resources"
    )
    more = "      - {code: payee_account, title: 本人银行账户信息}\n" + marriage
    limit = "title: 推荐配偶就业, limit_working_days: 10}"
    (found,) = differences(anyang(), a_pack(VERSION, (marriage, more), (limit, limit.replace("10", "8"))))
    assert found.about == ("配偶就业",)
    assert set(found.becomes) == {"材料", "流程", "承诺时限"}
    assert (found.was["承诺时限"], found.becomes["承诺时限"]) == ("10 个工作日", "8 个工作日")
    assert found.effect == Effect(gains=("申请人",), loses=("申请人",))


@pytest.mark.article("第三条")
def test_a_visit_less_helps_and_a_remedy_in_other_words_costs_nobody() -> None:
    visit, remedy = "    visits: 1\n    result: 落户登记\n", "result: 落户登记\n    remedy: 对办理结果"
    (found,) = differences(anyang(), a_pack(VERSION, (visit, visit.replace("1", "0"))))
    assert (found.was, found.becomes) == ({"到办事现场": "1 次"}, {"到办事现场": "0 次"})
    assert found.effect == Effect(gains=("申请人",))
    (found,) = differences(anyang(), a_pack(VERSION, (remedy, remedy.replace("对办理结果", "对结果"))))
    assert set(found.becomes) == {"救济途径"}
    assert found.effect == Effect()


def test_the_same_for_several_things_is_told_once() -> None:
    district = """    treasury_kinds: [city_level, district, county, zone]
    advanced_by: affiliated
"""
    after = a_pack(VERSION, (district, district.replace("advanced_by: affiliated", 'advanced_by: "410500"')))
    (found,) = differences(anyang(), after)
    assert found.about == ("市直单位", "区", "县（市）", "功能区")
    assert (found.was, found.becomes) == ({"先行支付": "隶属财政"}, {"先行支付": "安阳市本级财政"})
    assert found.effect == Effect(gains=("隶属财政",), loses=("安阳市本级财政",))


def test_a_rule_told_anew_in_two_parts_is_no_difference() -> None:
    rule = """  - id: payout.terms
    due_within_working_days: 2
    scope: public_part
    document: anyang-2021-4
    article: 第五条
    valid_from: 2021-03-23
"""
    first = rule.replace("2021-03-23\n", "2021-03-23\n    valid_to: 2023-06-30\n")
    rest = "    version_by: accepted_on\n"
    second = rule.replace("payout.terms", "payout.terms.2023").replace("2021-03-23", "2023-07-01")
    after = a_pack(VERSION, (rule + rest, first + rest + second + rest))
    assert differences(anyang(), after) == []
    assert differences(after, anyang()) == []


def test_a_region_that_moves_is_told_with_its_day() -> None:
    yindu = '    regions: [{region: "410505", valid_from: 2021-03-23}]\n'
    county = '    regions: [{region: "410522", valid_from: 2021-03-23}]\n'
    after = a_pack(
        VERSION,
        (county, county.replace("2021-03-23}", "2021-03-23, valid_to: 2025-06-30}")),
        (yindu, yindu.replace("}]", '}, {region: "410522", valid_from: 2025-07-01}]')),
    )
    (found,) = differences(anyang(), after)
    assert (found.kind, found.about, found.since) == ("行政区划", ("410522 安阳县",), date(2025, 7, 1))
    assert found.becomes["所属财政"] == "殷都区财政"
    assert found.version_by is None


def test_packs_of_two_cities_are_not_compared() -> None:
    with pytest.raises(NotOfOneCity, match="anyang/2021-4"):
        differences(anyang(), a_pack(("city: anyang", "city: luoyang")))


def test_every_kind_of_rule_and_every_code_of_the_model_has_words() -> None:
    kinds = set()
    for field in Contents.model_fields.values():
        (kind, *_) = getattr(field.annotation, "__args__", (None,))
        if isinstance(kind, type) and issubclass(kind, Rule):
            kinds.add(kind)
    assert kinds == set(WORDINGS)
    for kind in WORDINGS:
        for _, rules in anyang().by_subject(kind):
            for rule in rules:
                said = WORDINGS[kind].facets(anyang(), rule)
                assert said
                assert not re.search("[a-z_]{3,}", " ".join([*said, *said.values()])), said


def test_a_review_before_later_instalments_is_told_as_such() -> None:
    insured, _ = differences(anyang(), a_pack(VERSION, reviewed("living_allowance")))
    assert (insured.kind, insured.about, insured.was) == ("条件", ("仍在我市参保",), {})
    assert insured.becomes["适用"] == "生活补贴以后各期（发放前复核）"
    assert insured.becomes["条件"] == "在我市参保"


def test_benefits_of_which_one_may_be_had_cost_whoever_might_have_had_both() -> None:
    after = a_pack(VERSION, one_of("talent_flat", "talent_apartment"))
    (found,) = differences(anyang(), after)
    assert (found.kind, found.about) == ("只能享受其一的待遇", ("人才周转房", "人才公寓"))
    assert found.becomes == {"名称": "同类待遇择一享受", "只能享受其一": "人才周转房、人才公寓"}
    assert (found.was, found.effect) == ({}, Effect(loses=("人才本人",)))
    assert found.source["依据"] == "安人才〔2021〕4 号第四条"
    (lifted,) = differences(after, anyang())
    assert lifted.effect == Effect(gains=("人才本人",))
