"""A pack is one file with one identity, and a wrong one is refused with the line and the reason, in Chinese."""

import hashlib
import re
from contextlib import suppress
from datetime import date
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common.policy import Pack, PackRefused, PolicyError, amount_of, load_pack, schedule, split
from libs.common.policy.guide import guide
from libs.common.policy.model import BenefitForm
from libs.common.policy.source import MAX_BYTES
from tests.common.packs import ANYANG, anyang, anyang_text, edited, one_of, reviewed

DAY = date(2026, 3, 2)
HAN = re.compile(r"[一-鿿]")


def test_the_identity_is_the_hash_of_the_bytes() -> None:
    identity = anyang().identity
    assert (identity.city, identity.version) == ("anyang", "2021-4.4")
    assert identity.sha256 == hashlib.sha256(ANYANG.read_bytes()).hexdigest()
    assert anyang().source == ANYANG.read_bytes()


def test_a_changed_comment_is_another_pack() -> None:
    other = Pack.parse(anyang_text().encode() + b"# read on 1 April\n")
    assert other.identity.sha256 != anyang().identity.sha256


def test_a_pack_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        anyang().version = "2021-5"  # type: ignore[misc]


def test_every_rule_cites_its_article_or_says_what_it_assumes() -> None:
    for rule in anyang().rules():
        assert rule.article or rule.assumption, rule.id
        assert rule.note or not rule.assumption, rule.id


@pytest.mark.article("第一条")
@pytest.mark.article("第十条")
def test_the_older_policy_goes_on_below_the_newer_one_and_what_rests_on_it_alone_is_an_assumption() -> None:
    older, newer, *_ = anyang().documents
    assert [(each.number, each.kind) for each in (older, newer)] == [
        ("安办文〔2020〕2 号", "base"),
        ("安人才〔2021〕4 号", "amendment"),
    ]
    resting = [rule for rule in anyang().rules() if rule.document == older.id]
    assert resting
    assert all(rule.assumption for rule in resting)


def test_every_amount_is_labelled_a_sample() -> None:
    assert all(amount.assumption and amount.note.startswith("示例") for amount in anyang().amounts)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_pack(tmp_path / "none.yaml")


# Each case: what stands in the good pack, what replaces it, the text on the line that is named, the reason.
TALL = "{name: person.tall, title: 高, type: bool, stated_by: applicant, document: gb-2260, article: 代码表}"
WRONG = {
    "shares that do not sum to one": (
        (
            "id: sharing.living-allowance.zone\n    benefits: [living_allowance]\n    treasury_kinds: [zone]\n"
            '    shares: [{bearer: "410500", share: 4/10}'
        ),
        (
            "id: sharing.living-allowance.zone\n    benefits: [living_allowance]\n    treasury_kinds: [zone]\n"
            '    shares: [{bearer: "410500", share: 3/10}'
        ),
        "id: sharing.living-allowance.zone",
        "合计为 9/10，应为 1",
    ),
    "a share that is no fraction": (
        "employer_kinds: [enterprise]\n    share: 1/3",
        "employer_kinds: [enterprise]\n    share: 0.333",
        "share: 0.333",
        "不是比例",
    ),
    "overlapping versions": (
        'id: route.linzhou.via-province\n    treasuries: ["410581"]',
        'id: route.linzhou.via-province\n    treasuries: ["410581", "410522"]',
        "",
        "有效的版本重叠",
    ),
    "a gap between versions": (
        (
            'id: route.linzhou.direct\n    treasuries: ["410581"]\n    route: direct\n    document: anyang-2021-4\n'
            "    article: 第五条\n    valid_from: 2021-03-23\n    valid_to: 2021-12-31"
        ),
        (
            'id: route.linzhou.direct\n    treasuries: ["410581"]\n    route: direct\n    document: anyang-2021-4\n'
            "    article: 第五条\n    valid_from: 2021-03-23\n    valid_to: 2021-11-30"
        ),
        'code: "410581"',
        "在 2021-12-01 没有结算路径",
    ),
    "an unknown department": (
        "{department: health,",
        "{department: hospital,",
        "department: hospital",
        "没有部门 hospital",
    ),
    "an unknown treasury": (
        'treasuries: ["410502", "410503", "410505", "410506"]',
        'treasuries: ["410502", "410503", "410505", "410506", "410599"]',
        "410599",
        "没有一级财政 410599",
    ),
    "an unknown item": (
        "items: [talent_certification, flexible_certification]",
        "items: [talent_certification, rent]",
        "items: [talent_certification, rent]",
        "没有事项 rent",
    ),
    "a coverage that nobody knows": (
        "certifies: [flexible]",
        "certifies: [flexible, guest]",
        "certifies: [flexible, guest]",
        "没有覆盖范围 guest",
    ),
    "a category that no item certifies": (
        "certifies: [introduced, targeted_graduate, youth_reserve]",
        "certifies: [introduced, targeted_graduate]",
        "coverage: youth_reserve",
        "没有事项认定覆盖范围 youth_reserve",
    ),
    "a certification of nobody": (
        "    certifies: [flexible]\n",
        "",
        "id: item.flexible-certification",
        "认定类事项须写明 certifies",
    ),
    "an unknown benefit": (
        "coverage: flexible\n    benefits: [living_allowance, purchase_subsidy]",
        "coverage: flexible\n    benefits: [living_allowance, rent]",
        "benefits: [living_allowance, rent]",
        "没有待遇 rent",
    ),
    "one of benefits that nobody knows": (
        *one_of("talent_flat", "rent"),
        "benefits: [talent_flat, rent]",
        "没有待遇 rent",
    ),
    "one of one benefit": (*one_of("talent_flat"), "benefits: [talent_flat]", "至少 2 项"),
    "one of a benefit named twice": (*one_of("talent_flat", "talent_flat"), "id: one-of-two", "重复的值"),
    "a benefit of which two rules give one": (
        one_of("talent_flat", "talent_apartment")[0],
        one_of("talent_flat", "talent_apartment")[1].replace("exclusions:\n", "")
        + one_of("talent_flat", "talent_apartment", rule="one-of-two.again")[1].replace("at_most_one:\n", ""),
        "id: one-of-two.again",
        "与 2021-03-23 起长期有效的版本重叠",
    ),
    "one of what a person and what a household is given": (
        *one_of("talent_flat", "purchase_subsidy"),
        "benefits: [talent_flat, purchase_subsidy]",
        "现有 household、person",
    ),
    "a benefit without an item": (
        "code: talent_apartment\n    kind: benefit",
        "code: talent_apartment\n    kind: service",
        "code: talent_apartment",
        "没有 kind 为 benefit 的事项",
    ),
    "a benefit in kind that is no flat": (
        "    form: in_kind\n    flat: transitional\n",
        "    form: in_kind\n",
        "id: benefit.talent-flat",
        "实物待遇须用 flat 写明给予哪类住房",
    ),
    "a public notice of what is no certification": (
        "items: [talent_certification, flexible_certification]",
        "items: [talent_certification, living_allowance]",
        "items: [talent_certification, living_allowance]",
        "事项 living_allowance 不是认定事项",
    ),
    "a promise beyond what the law allows": (
        "    visits: 1\n    result: 落户登记\n",
        "    visits: 1\n    result: 落户登记\n    statutory_working_days: 1\n",
        "id: item.household-registration",
        "超过法定的 1 个工作日",
    ),
    "a clearing treasury that is no province": (
        'id: route.huaxian.via-province\n    treasuries: ["410526"]\n    route: via_province\n    through: "410000"',
        'id: route.huaxian.via-province\n    treasuries: ["410526"]\n    route: via_province\n    through: "410500"',
        'through: "410500"',
        "没有省级清算财政 410500",
    ),
    "a money benefit with no plan for a kind of treasury": (
        "benefits: [living_allowance, purchase_subsidy]\n    treasury_kinds: [city_level]",
        "benefits: [living_allowance]\n    treasury_kinds: [city_level]",
        "id: benefit.purchase-subsidy",
        "没有财政 410500（kind 为 city_level）的分担方案",
    ),
    "a kind of employer with no share": (
        "employer_kinds: [institution, government, social_organisation, own_startup]",
        "employer_kinds: [institution, government, social_organisation]",
        "id: benefit.living-allowance",
        "没有单位性质为 own_startup 的用人单位承担比例",
    ),
    "an article that the document does not have": (
        "id: lights\n    yellow_working_days_left: 1\n    document: anyang-2021-4\n    article: 第三条",
        "id: lights\n    yellow_working_days_left: 1\n    document: anyang-2021-4\n    article: 第十一条",
        "article: 第十一条",
        "没有“第十一条”",
    ),
    "an unknown document": (
        "id: lights\n    yellow_working_days_left: 1\n    document: anyang-2021-4",
        "id: lights\n    yellow_working_days_left: 1\n    document: anyang-2022-1",
        "document: anyang-2022-1",
        "没有 anyang-2022-1",
    ),
    "a rule that rests on nothing": (
        (
            "id: certification.term\n    validity_months: 60\n    document: anyang-2020-2\n    valid_from: 2021-03-23\n"
            "    version_by: accepted_on\n    assumption: true"
        ),
        (
            "id: certification.term\n    validity_months: 60\n    document: anyang-2020-2\n    valid_from: 2021-03-23\n"
            "    version_by: accepted_on\n    assumption: false"
        ),
        "id: certification.term",
        "没有写明依据的条款",
    ),
    "an id used twice": ("id: order.terms", "id: payout.terms", "id: payout.terms", "重复"),
    "an amount for the excluded": (
        "benefit: purchase_subsidy\n    category: youth_reserve",
        "benefit: purchase_subsidy\n    category: flexible",
        "id: amount.purchase-subsidy.youth-reserve",
        "flexible 按 exclusions 不享受 purchase_subsidy",
    ),
    "an amount in kind": (
        "benefit: purchase_subsidy\n    category: youth_reserve",
        "benefit: talent_flat\n    category: youth_reserve",
        "id: amount.purchase-subsidy.youth-reserve",
        "实物或服务类待遇",
    ),
    "an amount that leaves empty instalments": (
        "fen: 5_400_000",
        "fen: 5",
        "fen: 5",
        "不足 1 分",
    ),
    "an amount that is text": ("fen: 5_400_000", 'fen: "5400000"', "fen:", "应为整数"),
    "an unknown field": (
        "  - id: lights\n",
        "  - id: lights\n    colour: red\n",
        "colour: red",
        "此处没有这一项",
    ),
    "a missing field": (
        "  - id: lights\n    yellow_working_days_left: 1\n",
        "  - id: lights\n",
        "id: lights",
        "缺少必填项",
    ),
    "a date that is none": ("issued_on: 2021-03-23", "issued_on: 2021-02-30", "issued_on:", "不是有效日期"),
    "validity that ends before it begins": (
        "id: lights\n    yellow_working_days_left: 1\n",
        "id: lights\n    valid_to: 2020-01-01\n    yellow_working_days_left: 1\n",
        "id: lights",
        "早于 valid_from",
    ),
    "a category by the day due": (
        (
            "id: category.flexible\n    code: flexible\n    title: 柔性引进人才\n    coverage: flexible\n"
            "    document: anyang-2021-4\n    article: 第二条\n    valid_from: 2021-03-23\n    version_by: accepted_on"
        ),
        (
            "id: category.flexible\n    code: flexible\n    title: 柔性引进人才\n    coverage: flexible\n"
            "    document: anyang-2021-4\n    article: 第二条\n    valid_from: 2021-03-23\n    version_by: due_on"
        ),
        "version_by: due_on",
        "可填：accepted_on。",
    ),
    "a department twice in an item": (
        "{department: tax, title: 契税缴纳情况核验,",
        "{department: housing_construction, title: 契税缴纳情况核验,",
        "id: item.purchase-subsidy",
        "只能有一项任务",
    ),
    "a service that nobody works": (
        "    stages:\n      - - {department: health, title: 开通就医绿色通道, limit_working_days: 3}\n",
        "    stages: []\n",
        "id: item.medical-care",
        "只有变更类事项",
    ),
    "months between a single instalment": (
        "count: 1\n    months_between: 0",
        "count: 1\n    months_between: 6",
        "id: instalments.purchase-subsidy",
        "months_between 应大于 0",
    ),
    "a remainder that nobody bears": (
        'shares: [{bearer: affiliated, share: "1"}]\n    remainder_to: affiliated',
        'shares: [{bearer: affiliated, share: "1"}]\n    remainder_to: "410502"',
        "id: sharing.city-level",
        "承担尾差的 410502 不在 shares 之列",
    ),
    "a bearer that nobody settles with": (
        'shares: [{bearer: affiliated, share: "1"}]',
        'shares: [{bearer: affiliated, share: 9/10}, {bearer: "410000", share: 1/10}]',
        'bearer: "410000"',
        "承担份额或先行支付的财政 410000 在 2021-03-23 没有结算路径",
    ),
    "a route through itself": (
        'id: route.huaxian.via-province\n    treasuries: ["410526"]',
        'id: route.huaxian.via-province\n    treasuries: ["410526", "410000"]',
        "id: route.huaxian.via-province",
        "410000 不能经自身结算",
    ),
    "a clearing treasury that pays": (
        "advanced_by: affiliated",
        'advanced_by: "410000"',
        "advanced_by",
        "410000 是只作清算的省级财政，不能先行支付",
    ),
    "a case prefix that no case number takes": (
        "case_prefix: AY",
        "case_prefix: Ay",
        "case_prefix",
        "应为两个大写英文字母",
    ),
    "no case prefix": ("case_prefix: AY", "# none", "", "缺少必填项"),
    "a key twice": ("city: anyang\n", "city: anyang\ncity: anyang\n", "city: anyang", "重复"),
    "a condition with an undeclared name": (
        "when: person.science_technology",
        "when: person.science",
        "when: person.science",
        "条件第 1 行第 7 列：facts 中没有声明 person.science，",
    ),
    "a condition of a wrong type": (
        "when: person.degree == 'doctor'",
        "when: person.degree == 3",
        "when: person.degree == 3",
        "第 15 列：== 不能用于（文本、整数）",
    ),
    "a condition that divides by zero": (
        "when: person.degree == 'doctor'",
        "when: person.degree == 'doctor' && 1 / 0 == 1",
        "when: person.degree == 'doctor'",
        'person.degree 为 "doctor" 时，此条件得不出是或否',
    ),
    "an item that outlives its benefit": (
        "assumption: true\n    note: 补贴出自第五条；按人申领为假定。",
        "valid_to: 2025-12-31\n    assumption: true\n    note: 补贴出自第五条；按人申领为假定。",
        "- id: item.living-allowance",
        "事项 living_allowance 在 2026-01-01 没有有效的待遇（benefits）",
    ),
    "a condition on a value that no fact has": (
        "when: person.degree == 'doctor'",
        "when: person.degree == 'docter'",
        "when: person.degree == 'docter'",
        "所用的情况都没有值 'docter'",
    ),
    "a condition of an unknown coverage": (
        "coverages: [youth_reserve]\n    when",
        "coverages: [youth]\n    when",
        "coverages: [youth]",
        "没有覆盖范围 youth",
    ),
    "a review of a benefit that is paid once": (
        *reviewed("purchase_subsidy"),
        "instalments: [purchase_subsidy]",
        "待遇 purchase_subsidy 不分期发放，无从逐期复核，请删去，或改正 instalment_plans 的期数和有效期。",
    ),
    "a review of a benefit that nobody knows": (*reviewed("rent"), "instalments: [rent]", "没有待遇 rent"),
    "a review before the benefit is paid in several": (
        reviewed("living_allowance")[0],
        reviewed("living_allowance")[1].replace(
            "    valid_from: 2021-03-23", "    valid_from: 2020-01-01\n    valid_to: 2021-03-22", 1
        ),
        "instalments: [living_allowance]",
        "不分期发放",
    ),
    "a condition on nothing": (
        reviewed()[0],
        reviewed()[1],
        "id: still.insured",
        "请至少填写 coverages、categories、items、instalments 之一。",
    ),
    "a review of an undeclared fact": (
        reviewed("living_allowance")[0],
        reviewed("living_allowance")[1].replace("person.insured_here", "person.insured"),
        "when: person.insured",
        "facts 中没有声明 person.insured，",
    ),
    "a fact with an unknown material": (
        "stated_by: applicant\n    material: degree_certificate\n    values:\n      - {code: doctor",
        "stated_by: applicant\n    material: diploma\n    values:\n      - {code: doctor",
        "material: diploma",
        "没有材料 diploma",
    ),
    "a fact that no condition uses": (
        "facts:\n",
        f"facts:\n  - {TALL}\n",
        "person.tall",
        "没有条件用到情况 person.tall",
    ),
    "a fact stated by the platform that it does not know": (
        "    stated_by: department\n    department: science_technology",
        "    stated_by: platform",
        "",
        "由平台提供的情况只有 person.age（int）",
    ),
    "an alias": ("city: anyang\n", "city: &c anyang\ntitle: *c\n", "title: *c", "把值写出来"),
    "a tag": ("city: anyang\n", "city: !!python/name:os.system anyang\n", "python", "不能用标签 !!python"),
    "broken YAML": ("documents:\n", "documents: [\n", "", "缺少内容"),
    "a second document": ("\nregions:\n", "\n---\nregions:\n", "---", "只能有一份文档"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_wrong_pack_is_refused_with_its_place_and_reason(case: tuple[str, str, str, str]) -> None:
    old, new, on_line, reason = case
    text = edited((old, new))
    with pytest.raises(PackRefused) as refused:
        Pack.parse(text.encode(), "wrong.yaml")
    lines = text.split("\n")
    found = [defect for defect in refused.value.defects if reason in defect.reason]
    assert found, str(refused.value)
    assert any(on_line in lines[defect.line - 1] for defect in found), str(refused.value)
    assert all(HAN.search(defect.reason) for defect in refused.value.defects), str(refused.value)
    assert str(refused.value).startswith("wrong.yaml 未通过检查：\n  第 ")


ZONE_ENDS = (
    'regions: [{region: "410571", valid_from: 2021-03-23}]\n    valid_from: 2021-03-23',
    'regions: [{region: "410571", valid_from: 2021-03-23}]\n    valid_from: 2021-03-23\n    valid_to: 2027-12-31',
)
PLAN_OF_A_CITY = 'shares: [{bearer: affiliated, share: "1"}]\n    remainder_to: affiliated\n'


@pytest.mark.parametrize("version_by", ["due_on", "accepted_on"])
def test_a_named_bearer_is_there_as_long_as_its_plan_decides(version_by: str) -> None:
    """A plan by the day of acceptance decides instalments that fall due long after its last day."""
    rest = "    document: anyang-2021-4\n    article: 第五条\n    valid_from: 2021-03-23\n    version_by: due_on\n"
    born = 'shares: [{bearer: "410571", share: 1/4}, {bearer: affiliated, share: 3/4}]\n    remainder_to: affiliated\n'
    until = rest.replace("    version_by: due_on", f"    valid_to: 2027-12-31\n    version_by: {version_by}")
    after = rest.replace("2021-03-23", "2028-01-01").replace("due_on", version_by)
    later = (
        "  - id: sharing.city-level.later\n    benefits: [living_allowance, purchase_subsidy]\n"
        f"    treasury_kinds: [city_level]\n    {PLAN_OF_A_CITY}{after}    assumption: true\n    note: 示例\n"
    )
    note = "    assumption: true\n    note: 文件未写市直单位；除企业承担部分外由市级财政全部承担。\n"
    raw = edited(ZONE_ENDS, (PLAN_OF_A_CITY + rest + note, born + until + note + later)).encode()
    if version_by == "due_on":
        assert Pack.parse(raw)
        return
    with pytest.raises(PackRefused, match="先行支付的财政 410571 在 2028-01-01 没有有效的记录"):
        Pack.parse(raw)


def test_a_named_payer_is_there_as_long_as_its_rule_decides() -> None:
    pays = ("advanced_by: affiliated", 'advanced_by: "410571"')
    assert Pack.parse(edited(pays).encode())
    with pytest.raises(PackRefused, match="先行支付的财政 410571 在 2028-01-01 没有有效的记录"):
        Pack.parse(edited(pays, ZONE_ENDS).encode())


def test_all_defects_are_told_at_once() -> None:
    text = edited(("{department: health,", "{department: hospital,"), ("id: order.terms", "id: payout.terms"))
    with pytest.raises(PackRefused) as refused:
        Pack.parse(text.encode())
    assert [defect.line for defect in refused.value.defects] == sorted(d.line for d in refused.value.defects)
    assert len(refused.value.defects) == 2


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "整个文件：应为一组“名称: 值”"),
        (b"- a list", "第 1 行：应为一组“名称: 值”"),
        (b"\xef\xbb\xbfcity: anyang\n", "字节顺序标记"),
        (b"city: anyang\r\nversion: x\r\n", "换行方式是 CR"),
        (b"city: \xff\n", "不是 UTF-8"),
        (b"city: \x00\n", "控制字符"),
        (b"#" * (MAX_BYTES + 1), "文件超过 1024 KB"),
        (b"[" * 5000, "嵌套超过 50 层"),
        (b"? [a]\n: b\n", "一段文字"),
        (b'city: "\\ud800"\n', "不代表任何字符"),
        (b"city: " + b"9" * 5000, "代码以小写字母开头"),
    ],
)
def test_bytes_that_are_no_pack_are_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(PackRefused, match=reason):
        Pack.parse(raw)


def test_plain_text_is_never_taken_for_another_type() -> None:
    text = edited(
        (
            "title: 身份信息核验, limit_working_days: 2}\n        - {department: education",
            "title: yes, limit_working_days: 2}\n        - {department: education",
        )
    )
    item = Pack.parse(text.encode()).item("talent_certification", date(2026, 1, 5))
    assert item.stages[0][0].title == "yes"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_mutated_pack_is_refused_or_sound_and_never_a_stack_trace(data: st.DataObject) -> None:
    lines = anyang_text().splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        other = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "swap", "value", "character"])):
            case "drop":
                lines[at] = ""
            case "repeat":
                lines[at] *= 2
            case "swap":
                lines[at], lines[other] = lines[other], lines[at]
            case "value":
                key, colon, _ = lines[at].partition(": ")
                lines[at] = f"{key}{colon}{data.draw(st.sampled_from(['null', '-1', '[]', '{}', '9999-12-31']))}\n"
            case _:
                position = data.draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:position] + data.draw(st.characters()) + lines[at][position:]
    raw = "".join(lines).encode("utf-8", "surrogatepass")
    try:
        pack = Pack.parse(raw)
    except PackRefused as refused:
        assert str(refused).startswith("政策包 未通过检查：\n  ")  # noqa: PT017 (either outcome is right)
    else:
        assert pack.identity.sha256 == hashlib.sha256(raw).hexdigest()
        says_what_it_means(pack)


def says_what_it_means(pack: Pack) -> None:
    """Every split and plan of payments sums to the whole, or says that there is none; the guide can be written."""
    money = [benefit.code for benefit in pack.benefits if benefit.form is BenefitForm.MONEY]
    for benefit, treasury in product(money, pack.treasuries):
        with suppress(PolicyError):
            parts = split(pack, benefit=benefit, treasury=treasury.code, on=DAY, total_fen=1_000_003)
            assert parts.employer + sum(parts.shares.values()) == 1_000_003
    for benefit, category in product(money, pack.categories):
        with suppress(PolicyError):
            dues = schedule(pack, benefit=benefit, category=category.code, decided_on=DAY, accepted_on=DAY)
            whole = amount_of(pack, benefit=benefit, category=category.code, on=DAY)
            assert sum(due.amount_fen for due in dues) == whole
    assert guide(pack, DAY)


def test_a_pack_of_before_visits_results_and_remedies_were_told_stays_readable() -> None:
    told = ("    visits: ", "    result: ", "    remedy: ")
    before = "".join(line for line in anyang_text().splitlines(keepends=True) if not line.startswith(told))
    item = Pack.parse(before.encode()).items[0]
    assert (item.visits, item.result) == (0, "办理结果")


def test_who_has_a_benefit_that_is_given_no_more_gets_no_other_beside_it() -> None:
    old, new = one_of("talent_flat", "talent_apartment")
    later = (old, new.replace("valid_from: 2021-03-23", "valid_from: 2022-01-01"))
    text = edited(later).replace("    title: 人才公寓\n", "    title: 人才公寓\n    valid_to: 2021-12-31\n")
    (rule,) = Pack.parse(text.encode()).at_most_one
    assert rule.benefits == ("talent_flat", "talent_apartment")
