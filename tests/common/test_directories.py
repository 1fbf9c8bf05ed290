"""Directories of employers in a pack: what is refused, what a decision makes of them, and how people read them."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import app
from libs.common.policy import Pack, PackRefused, Verdict, decide, differences
from libs.common.policy.conditions import FactValueType
from libs.common.policy.guide import Entry, guide
from tests.common.packs import ANYANG, a_pack, anyang, edited

DAY = date(2026, 3, 2)
LISTED = "employer.leading_enterprise"
FACT = "  - name: employer.leading_enterprise\n    title: 用人单位列入领军型企业目录\n    type: bool\n"
STATED = "    stated_by: platform\n    directory: leading_enterprise\n"
KEEPER = "    title: 领军型企业目录\n    keeper: talent_office\n"
WRONG_FACT = "写有 directory 的情况说明用人单位是否列入该目录"
ANOTHER = """directories:
  - id: directory.another
    code: another
    title: 另一目录
    keeper: finance
    document: anyang-2021-4
    article: 第二条
    valid_from: 2021-03-23
    version_by: accepted_on
"""


def verdicts(facts: Mapping[str, FactValueType], pack: Pack | None = None) -> dict[str, Verdict]:
    """The verdict of each of the two conditions of coverage on a master."""
    decision = decide(pack or anyang(), item="talent_certification", category="master", facts=facts, on=DAY)
    told = {clause.rule.id: clause.verdict for clause in decision.clauses}
    return {name: told[f"condition.{name}"] for name in ("employer-in-good-standing", "demand-declared")}


# -- what is refused


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            (STATED, STATED.replace("leading_enterprise", "leading")),
            "facts[3].directory：政策包中没有企业目录 leading，请改正代码，或先在 directories 中补上。",
        ),
        ((KEEPER, KEEPER.replace("talent_office", "industry")), "directories[1].keeper：政策包中没有部门 industry"),
        ((FACT + STATED, FACT.replace("bool", "int") + STATED), WRONG_FACT),
        ((STATED, STATED.replace("platform", "applicant")), WRONG_FACT),
        ((STATED, STATED.replace("platform", "department") + "    department: finance\n"), WRONG_FACT),
        ((FACT, FACT.replace("employer.leading_enterprise", "person.leading_enterprise")), WRONG_FACT),
        ((FACT, FACT.replace("employer.leading_enterprise", "employer.kind")), WRONG_FACT),
        ((STATED, "    stated_by: platform\n"), "以及写有 directory 的，且只能由平台提供"),
        (("  - id: directory.leading-enterprise\n", "  - id: affiliation.order\n"), "重复，请改成不同的值"),
        (
            ("directories:\n", ANOTHER.replace("code: another", "code: leading_enterprise")),
            "directories[2]：与 2021-03-23 起长期有效的版本重叠",
        ),
    ],
)
def test_a_directory_that_does_not_fit_is_refused_with_its_line(change: tuple[str, str], told: str) -> None:
    text = edited(change)
    with pytest.raises(PackRefused) as refused:
        Pack.parse(text.encode())
    assert told in str(refused.value)
    assert all(defect.line for defect in refused.value.defects)


def test_a_directory_that_no_fact_asks_is_no_defect() -> None:
    pack = a_pack(("directories:\n", ANOTHER))
    assert [each.code for each in pack.directories] == ["another", "leading_enterprise"]


def test_a_pack_without_directories_is_one_too() -> None:
    lanting = ANYANG.parents[2] / "cities" / "lanting" / "2025-1.yaml"
    assert Pack.parse(lanting.read_bytes()).directories == ()


# -- what a decision makes of it


@pytest.mark.article("第二条")
def test_an_employer_in_the_directory_is_covered_whatever_is_known_of_its_standing_and_demand() -> None:
    passed = {"employer-in-good-standing": Verdict.PASSED, "demand-declared": Verdict.PASSED}
    assert verdicts({LISTED: True}) == passed
    assert verdicts({LISTED: True, "employer.good_standing": False, "employer.demand_declared": False}) == passed


@pytest.mark.article("第二条")
def test_any_other_must_be_in_good_standing_and_have_declared_its_demand() -> None:
    assert set(verdicts({LISTED: False}).values()) == {Verdict.UNDETERMINED}
    assert verdicts({LISTED: False, "employer.good_standing": True, "employer.demand_declared": False}) == {
        "employer-in-good-standing": Verdict.PASSED,
        "demand-declared": Verdict.FAILED,
    }


def test_where_nobody_says_whether_it_stands_there_a_bad_standing_is_no_no() -> None:
    assert set(verdicts({"employer.good_standing": False, "employer.demand_declared": False}).values()) == {
        Verdict.UNDETERMINED
    }


@pytest.mark.article("第二条")
def test_who_keeps_it_and_whom_it_covers_are_assumptions_until_the_talent_office_rules_on_them() -> None:
    (directory,) = anyang().directories
    conditions = [rule for rule in anyang().conditions if "introduced" in rule.coverages]
    assert [(each.article, each.assumption, bool(each.note)) for each in (directory, *conditions)] == [
        ("第二条", True, True)
    ] * 3


# -- how people read it


def told_of(entries: tuple[Entry, ...]) -> Entry | None:
    return next((entry for entry in entries if entry.name == "企业目录"), None)


def test_the_guide_names_each_directory_with_its_keeper() -> None:
    entry = told_of(guide(anyang(), DAY).standard)
    assert entry is not None
    assert entry.table[1:] == (
        ("领军型企业目录", "市人才工作领导小组办公室", "安人才〔2021〕4 号第二条（文件未写明，为假定）"),
    )
    ended = anyang().model_copy(
        update={
            "directories": tuple(it.model_copy(update={"valid_to": date(2025, 12, 31)}) for it in anyang().directories)
        }
    )
    assert told_of(guide(ended, DAY).standard) is None


def test_diff_says_who_keeps_a_directory_and_which_conditions_look_at_it() -> None:
    asks = "    when: employer.leading_enterprise || employer.good_standing\n"
    version = ('version: "2021-4.4"', 'version: "2027-1"')
    after = a_pack(
        version, (KEEPER, KEEPER.replace("talent_office", "finance")), (asks, "    when: employer.good_standing\n")
    )
    kept, condition = sorted(differences(anyang(), after), key=lambda each: each.kind)
    assert (kept.kind, kept.about) == ("企业目录", ("领军型企业目录",))
    assert (kept.was, kept.becomes) == ({"登记部门": "市人才工作领导小组办公室"}, {"登记部门": "市财政局"})
    assert condition.kind == "条件"
    assert (condition.was["条件"], condition.becomes["条件"]) == (
        "用人单位列入领军型企业目录，或用人单位经营状况良好",
        "用人单位经营状况良好",
    )
    (entered, *_) = [each for each in differences(after, a_pack(("directories:\n", ANOTHER))) if not each.was]
    assert entered.becomes == {"名称": "另一目录", "登记部门": "市财政局", "对照的情况": "无"}


def run(line: str) -> Result:
    return CliRunner().invoke(app, line.split())


def test_explain_says_who_would_know_and_check_what_is_assumed(tmp_path: Path) -> None:
    question = "policy explain --item talent_certification --category master --on 2026-03-02"
    assert "尚缺：用人单位列入领军型企业目录（由平台按领军型企业目录说明）" in run(question).stdout
    told = run(f"{question} --fact {LISTED}=true --fact person.degree=master").stdout
    assert "受理：符合" in told
    assert "用人单位列入领军型企业目录：是" in told
    assert "directory.leading-enterprise" in run(f"policy check {ANYANG}").stdout
    text, wrong = edited((KEEPER, KEEPER.replace("talent_office", "industry"))), tmp_path / "wrong.yaml"
    wrong.write_text(text, encoding="utf-8")
    refused = run(f"policy check {wrong}")
    line = 1 + text[: text.index("    keeper: industry")].count("\n")
    assert (refused.exit_code, f"第 {line} 行：directories[1].keeper：" in refused.stdout) == (1, True)
