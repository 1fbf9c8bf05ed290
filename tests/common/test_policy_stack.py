"""A stack of documents: where a later or narrower one says otherwise it says so, and on its days it is what holds."""

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.interpretation import Ruling, interpreted
from libs.common.policy import Pack, PackRefused, decide, split
from libs.common.policy.difference import differences
from libs.common.policy.model import ClaimSubject, CorrectionTerms, PayoutTerms
from libs.common.policy.stack import in_force
from libs.common.treasuries import EmployerKind
from tests.common.packs import a_pack, anyang
from tests.conftest import ROOT

LANTING = ROOT / "deploy" / "cities" / "lanting" / "2025-1.yaml"
LAW = "  - id: licensing-law\n"
TERMS = "payout_terms:\n"
PLANS = "sharing_plans:\n"
COUNTIES = ("sharing.living-allowance.county", "sharing.living-allowance.county.2022")
FIRST_DAY, LAST_DAY = date(2021, 3, 23), date(2030, 12, 31)


def a_document(name: str, kind: str, number: str, issued_on: str) -> str:
    return (
        f"  - id: {name}\n    kind: {kind}\n    number: {number}\n    title: 测试文件\n    issued_by: 测试机关\n"
        f"    issued_on: {issued_on}\n    articles: [第二条]\n"
    )


DOCUMENTS = (
    LAW,
    a_document("older", "amendment", "安旧〔2019〕1 号", "2019-01-01")
    + a_document("county-measure", "county_measure", "汤县人才〔2020〕3 号", "2020-01-01")
    + a_document("later", "amendment", "安人才〔2024〕1 号", "2024-01-01")
    + LAW,
)


def a_term(
    document: str, *overrides: str, name: str = "payout.other", since: str = "2024-01-01", until: str = "2050-12-31"
) -> str:
    """A rule that what is granted be paid within seven working days."""
    return (
        f"  - id: {name}\n    due_within_working_days: 7\n    scope: public_part\n    document: {document}\n"
        f"    article: 第二条\n    valid_from: {since}\n    valid_to: {until}\n    version_by: accepted_on\n"
        f"{_saying(overrides)}"
    )


def tangyin(share: str, rest: str, *overrides: str, document: str = "county-measure", article: str = "第二条") -> str:
    """A plan by which 汤阴县 bears a share of the living allowance that need not be that of the counties."""
    return (
        '  - id: sharing.tangyin\n    benefits: [living_allowance]\n    treasuries: ["410523"]\n'
        f'    shares: [{{bearer: "410500", share: {rest}}}, {{bearer: affiliated, share: {share}}}]\n'
        f"    document: {document}\n    article: {article}\n    valid_from: 2021-03-23\n    version_by: due_on\n"
        f"{_saying(overrides)}"
    )


def _saying(overrides: tuple[str, ...]) -> str:
    return f"    overrides: [{', '.join(overrides)}]\n" if overrides else ""


def with_terms(*terms: str) -> Pack:
    return a_pack(DOCUMENTS, (TERMS, TERMS + "".join(terms)))


def with_plan(plan: str) -> Pack:
    return a_pack(DOCUMENTS, (PLANS, PLANS + plan))


def days_to_pay(pack: Pack, day: date) -> int:
    return pack.rule(PayoutTerms, on=day).due_within_working_days


def county_bears(pack: Pack, treasury: str) -> int:
    """What a county bears of 900 yuan of living allowance, in fen."""
    day = date(2025, 6, 2)
    parts = split(
        pack,
        benefit="living_allowance",
        treasury=treasury,
        on=day,
        total_fen=90_000,
        employer_kind=EmployerKind.ENTERPRISE,
    )
    return parts.shares[treasury]


def test_a_later_rule_takes_the_place_of_an_older_one_on_its_own_days_and_the_older_one_lives_on() -> None:
    pack = with_terms(a_term("later", "payout.terms", until="2024-12-31"))
    days = [date(2023, 12, 31), date(2024, 1, 1), date(2024, 12, 31), date(2025, 1, 1)]
    assert [days_to_pay(pack, day) for day in days] == [2, 7, 7, 2]
    ((over, under),) = pack.overridings
    assert (over.id, under.id, under.valid_to) == ("payout.other", "payout.terms", None)


@given(st.dates(FIRST_DAY, LAST_DAY), st.dates(FIRST_DAY, LAST_DAY), st.dates(FIRST_DAY, LAST_DAY))
def test_on_every_day_one_of_the_two_holds(one: date, other: date, day: date) -> None:
    since, until = sorted((one, other))
    (under,) = anyang().payout_terms
    days = {"valid_from": since, "valid_to": until}
    over = under.model_copy(update={**days, "id": "payout.other", "overrides": ("payout.terms",)})
    left = in_force(anyang().model_copy(update={"payout_terms": (over, under)}))["payout_terms"]
    assert [rule.id for rule in left if rule.covers(day)] == [over.id if over.covers(day) else under.id]


def test_the_difference_is_told_for_the_days_on_which_the_other_rule_holds() -> None:
    (found,) = differences(anyang(), with_terms(a_term("later", "payout.terms", until="2024-12-31")))
    assert (found.since, found.until) == (date(2024, 1, 1), date(2024, 12, 31))
    assert found.source["依据"] == "安人才〔2024〕1 号第二条"


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ([a_term("later")], "用 overrides 写明取代 payout.terms 或 payout.other"),
        ([a_term("older", "payout.terms")], "安旧〔2019〕1 号不能取代安人才〔2021〕4 号的规定：只能由较新或较具体的"),
        ([a_term("later", "payout.terms", "lamps")], "overrides[2]：政策包中没有规则 lamps，请改正 overrides 中的编号"),
        ([a_term("later", "payout.terms", "lights")], "payout.other 与 lights 的对象不一致，不能取代其一部分"),
        (
            [
                a_term("later", "payout.terms", "payout.third"),
                a_term("county-measure", "payout.other", name="payout.third"),
            ],
            "payout.other 与 payout.third 互相取代，请只保留一个方向",
        ),
    ],
)
def test_what_does_not_say_so_or_may_not_is_refused_with_what_to_do(terms: list[str], told: str) -> None:
    with pytest.raises(PackRefused) as refused:
        with_terms(*terms)
    assert told in str(refused.value)


SAME_DAY = "2026-03-02"


def of_one_day(over: str, under: str, *, by: str = "测试机关", kind: str = "interpretation") -> Pack:
    """Two documents of one day that contradict each other, of which one says that it takes the other's place."""
    documents = (
        a_document("one", "interpretation", under, SAME_DAY)
        + a_document("other", kind, over, SAME_DAY).replace("测试机关", by)
        + LAW
    )
    first = a_term("one", "payout.terms", name="payout.one", since="2026-03-02")
    second = a_term("other", "payout.one", name="payout.again", since="2026-03-02").replace("days: 7", "days: 4")
    return a_pack((LAW, documents), (TERMS, TERMS + first + second))


@pytest.mark.parametrize(
    ("over", "under"),
    [("安人才办〔2026〕10 号", "安人才办〔2026〕9 号"), ("安人才办[2026]10号", "安人才办[2026] 第9号")],
)
def test_of_two_interpretations_of_one_day_the_one_with_the_higher_number_is_the_later(over: str, under: str) -> None:
    pack = of_one_day(over, under)
    assert [days_to_pay(pack, date(2026, 3, day)) for day in (1, 2)] == [2, 4]
    with pytest.raises(PackRefused, match="同一发文字号中号数大的为新"):
        of_one_day(under, over)


@pytest.mark.parametrize(
    "more",
    [
        {"over": "安人社办〔2026〕10 号"},
        {"over": "安人才办〔2025〕10 号"},
        {"over": "关于支付期限的答复"},
        {"over": "安人才办〔2026〕9 号"},
        {"over": "安人才办〔2026〕10 号", "by": "另一机关"},
    ],
)
def test_two_of_one_day_that_nothing_puts_in_order_are_refused_with_what_to_do(more: dict[str, str]) -> None:
    with pytest.raises(
        PackRefused, match="同日印发，又不是同一机关同一年度的发文字号，分不出先后。请由较晚印发的文件另行规定"
    ):
        of_one_day(**{"under": "安人才办〔2026〕9 号"} | more)


def test_a_document_overrides_nothing_of_itself_and_nothing_of_a_law_but_what_no_document_says() -> None:
    own = a_term("anyang-2021-4", "payout.terms").replace("第二条", "第五条")
    with pytest.raises(PackRefused, match="安人才〔2021〕4 号不能取代安人才〔2021〕4 号的规定"):
        with_terms(own)
    section = "correction_terms:\n"
    rule = (
        "  - id: correction.later\n    tell_defects_within_working_days: 9\n"
        "    correct_within_working_days: 9\n    document: later\n    article: 第二条\n    valid_from: 2024-01-01\n"
        "    version_by: accepted_on\n    overrides: [correction.terms]\n"
    )
    correction = (section, section + rule)
    a_pack(DOCUMENTS, correction)  # the pack assumes what the law does not say
    assumed = "    assumption: true\n    note: 五日内一次告知全部补正内容"
    stated = (assumed, "    note: 五日内一次告知全部补正内容")
    with pytest.raises(PackRefused, match="且不能取代法律和标准"):
        a_pack(DOCUMENTS, correction, stated)


def test_a_county_s_own_share_is_refused_until_it_says_whose_place_it_takes() -> None:
    with pytest.raises(PackRefused, match=r"sharing\.living-allowance\.county 对同一财政规定了不同的分担比例"):
        with_plan(tangyin("5/10", "5/10"))
    among_others = tangyin("5/10", "5/10").replace("    treasuries:", "    treasury_kinds: [province]\n    treasuries:")
    with pytest.raises(PackRefused, match=r"sharing\.living-allowance\.county 对同一财政规定了不同的分担比例"):
        with_plan(among_others)
    pack = with_plan(tangyin("5/10", "5/10", *COUNTIES))
    assert county_bears(pack, "410523") == 30_000
    assert county_bears(pack, "410527") == county_bears(anyang(), "410527") == 42_000


def test_a_county_that_says_the_same_and_a_document_that_provides_for_one_of_its_own_treasuries_need_say_nothing() -> (
    None
):
    assert county_bears(with_plan(tangyin("7/10", "3/10")), "410523") == 42_000
    assert (
        county_bears(with_plan(tangyin("5/10", "5/10", document="anyang-2021-4", article="第五条")), "410523") == 30_000
    )


def test_an_overridden_condition_is_no_longer_tried() -> None:
    other = (
        "  - id: condition.demand.later\n    code: demand_declared\n    title: 用人单位有引才计划\n"
        "    coverages: [introduced]\n    when: employer.demand_declared || person.degree == 'doctor'\n"
        "    passed: 已有计划\n    failed: 没有计划\n    undetermined: 未说明\n    document: later\n"
        "    article: 第二条\n    valid_from: 2024-01-01\n    version_by: accepted_on\n"
        "    overrides: [condition.demand-declared]\n"
    )
    pack = a_pack(DOCUMENTS, ("\nconditions:\n", "\nconditions:\n" + other))
    facts: dict[str, bool | int | str] = {"employer.demand_declared": False, "person.degree": "doctor"}
    for day, tried in ((date(2023, 12, 31), "condition.demand-declared"), (date(2024, 1, 1), "condition.demand.later")):
        decision = decide(pack, item="talent_certification", category="doctor", facts=facts, on=day)
        ids = [clause.rule.id for clause in decision.clauses]
        assert [each for each in ids if "demand" in each] == [tried]


def test_a_ruling_finds_its_rule_though_others_before_it_are_overridden() -> None:
    pack = with_terms(a_term("later", "payout.terms", since="2021-03-23"))  # nothing is left of the older one
    ruling = Ruling(
        "lights",
        "安人才办〔2026〕1 号",
        date(2026, 1, 1),
        "市人才办",
        "剩余两个工作日亮黄灯。",
        {"yellow_working_days_left": 2},
    )
    after = Pack.parse(interpreted(pack, ruling, version="2026-1"))
    (lights,) = after.lights
    assert (lights.yellow_working_days_left, lights.assumption) == (2, False)


def test_a_ruling_from_a_day_on_leaves_a_county_its_own_share() -> None:
    pack = with_plan(tangyin("5/10", "5/10", *COUNTIES))
    shares = [{"bearer": "410500", "share": "2/10"}, {"bearer": "affiliated", "share": "8/10"}]
    ruling = Ruling(
        COUNTIES[-1],
        "安人才办〔2026〕1 号",
        date(2023, 6, 1),
        "市人才办",
        "改按二八。",
        {"shares": shares},
        date(2023, 7, 1),
    )
    after = Pack.parse(interpreted(pack, ruling, version="2026-1"))
    assert (county_bears(after, "410523"), county_bears(after, "410527")) == (30_000, 48_000)


def ruled(pack: Pack, about: str, since: date | None = None) -> Pack:
    """The talent office confirms what was assumed."""
    ruling = Ruling(about, "安人才办〔2026〕1 号", date(2026, 1, 1), "市人才办", "照此执行。", since=since)
    return Pack.parse(interpreted(pack, ruling, version="2026-1"))


CORRECTION = "correction_terms:\n"
CORRECTION_IN_2024 = (
    "  - id: correction.later\n    tell_defects_within_working_days: 9\n    correct_within_working_days: 9\n"
    "    document: later\n    article: 第二条\n    valid_from: 2024-01-01\n    valid_to: 2024-12-31\n"
    "    version_by: accepted_on\n    overrides: [correction.terms]\n"
)


@pytest.mark.parametrize("since", [None, date(2022, 6, 1), date(2025, 1, 1), date(2025, 6, 1)])
def test_a_ruling_on_what_another_document_overrides_for_a_year_leaves_it_that_year(since: date | None) -> None:
    pack = ruled(a_pack(DOCUMENTS, (CORRECTION, CORRECTION + CORRECTION_IN_2024)), "correction.terms", since)
    told = {
        day.year: pack.rule(CorrectionTerms, on=day).tell_defects_within_working_days
        for day in (date(2023, 6, 1), date(2024, 6, 1), date(2025, 6, 1))
    }
    assert told == {2023: 5, 2024: 9, 2025: 5}


def test_a_ruling_on_the_counties_leaves_the_document_s_own_treasury_its_share() -> None:
    own = with_plan(tangyin("5/10", "5/10", document="anyang-2021-4", article="第五条"))
    after = ruled(own, COUNTIES[-1])
    assert (county_bears(after, "410523"), county_bears(after, "410527")) == (30_000, 42_000)


def test_an_older_treasury_s_own_share_is_told_to_end_where_a_later_document_has_another_for_its_kind() -> None:
    later = (
        "  - id: sharing.later\n    benefits: [living_allowance]\n    treasury_kinds: [county]\n"
        '    shares: [{bearer: "410500", share: 4/10}, {bearer: affiliated, share: 6/10}]\n    document: later\n'
        "    article: 第二条\n    valid_from: 2024-01-01\n    version_by: due_on\n"
        f"    overrides: [{COUNTIES[-1]}]\n"
    )
    own = tangyin("5/10", "5/10", document="anyang-2021-4", article="第五条")
    with pytest.raises(PackRefused, match="后者的文件较新或较具体，请给本条写明 valid_to") as refused:
        with_plan(own + later)
    assert len(refused.value.defects) == 1
    ended = own.replace("version_by", "valid_to: 2023-12-31\n    version_by")
    assert county_bears(with_plan(ended + later), "410523") == 36_000


def test_what_is_narrower_in_one_part_and_the_same_in_another_is_refused() -> None:
    """Else the order of the file would decide who bears what falls due in 殷都区."""
    older = tangyin("7/10", "3/10", document="anyang-2021-4", article="第五条").replace(
        "    treasuries: [", '    treasury_kinds: [province]\n    treasuries: ["410505", '
    )
    later = (
        tangyin("1/10", "9/10", "sharing.tangyin", "sharing.living-allowance.district", document="later")
        .replace("id: sharing.tangyin", "id: sharing.later")
        .replace('treasuries: ["410523"]', 'treasuries: ["410505", "410000"]')
        .replace("2021-03-23", "2024-01-01")
    )
    for plans in (older + later, later + older):
        with pytest.raises(PackRefused, match="有效的版本重叠"):
            with_plan(plans)


def again(cities: str, rule: str) -> str:
    """A rule of the second city once more, by a later document that overrides it."""
    found = re.search(rf"  - id: {re.escape(rule)}\n(?:    .*\n)+", cities)
    assert found
    cited = re.sub(r"document: .*\n    article: .*", "document: later\n    article: 第二条", found[0])
    return cited.replace(rule, f"{rule}.later") + f"    overrides: [{rule}]\n"


def test_what_is_left_of_the_stack_is_what_must_be_sound() -> None:
    """Two documents either of which would do, and would not beside the other; then one that leaves something out."""
    later = a_document("later", "amendment", "岚汀人才〔2026〕2 号", "2026-01-01")
    cities = LANTING.read_text(encoding="utf-8").replace("\ndocuments:\n", f"\ndocuments:\n{later}")
    homes = [again(cities, f"benefit.{code}") for code in ("settling-allowance", "guest-house", "transit-flat")]
    by_person = "".join(homes).replace("household", "person")
    pack = Pack.parse(cities.replace("\nbenefits:\n", f"\nbenefits:\n{by_person}").encode())
    assert {each.claim_subject for each in pack.benefits} == {ClaimSubject.PERSON}
    grading = again(cities, "item.grading").replace("[resident, founder]", "[resident]")
    with pytest.raises(PackRefused, match="没有事项认定覆盖范围 founder") as refused:
        Pack.parse(cities.replace("\nitems:\n", f"\nitems:\n{grading}").encode())
    assert [defect.place for defect in refused.value.defects] == ["categories[4].coverage"]
