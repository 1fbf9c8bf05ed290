"""`policy explain` and `policy test`: what a policy office reads, and how they refuse."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import app
from tests.common.packs import ANYANG, anyang, edited

MASTER = "--item talent_certification --category master --on 2026-03-02"
SOUND = "--fact person.degree=master --fact employer.good_standing=true --fact employer.demand_declared=true"


def run(line: str) -> Result:
    return CliRunner().invoke(app, line.split())


@pytest.mark.article("第二条")
def test_a_decision_is_explained_clause_by_clause() -> None:
    told = run(f"policy explain {MASTER} {SOUND}")
    assert told.exit_code == 0, told.output
    assert "人才认定（硕士研究生（示例）），2026-03-02 受理：符合" in told.stdout
    assert "最高学位：硕士" in told.stdout
    assert "依据：安人才〔2021〕4 号第二条 condition.demand-declared" in told.stdout
    missing = run(f"policy explain {MASTER}").stdout
    assert "尚缺：最高学位（由申请人说明，材料：学历学位证书）" in missing
    assert "尚缺：用人单位经营状况良好（由人力资源和社会保障局说明）" in missing


def test_a_decision_as_json() -> None:
    told = json.loads(run(f"policy explain {MASTER} {SOUND} --json").stdout)
    assert (told["verdict"], told["policy"]) == ("pass", anyang().identity.model_dump())
    clauses = {clause["rule"]: clause for clause in told["clauses"]}
    assert clauses["condition.master"]["seen"] == {"person.degree": "master"}


LANTING = ANYANG.parents[2] / "cities" / "lanting" / "2025-1.yaml"
QUARTER = f"--item settling_allowance --category skilled --on 2025-01-03 --review --pack {LANTING}"


def test_what_must_still_hold_before_a_later_instalment_is_explained_alike() -> None:
    told = run(f"policy explain {QUARTER} --fact person.working_here=false")
    assert told.exit_code == 0, told.output
    assert "2025-01-03 受理，后续各期发放前复核：不符合" in told.stdout
    assert "已不在岚工作或者经营企业；重新在岚工作后，请告知人才办再行复核" in told.stdout
    assert "尚缺：" in told.stdout
    assert "condition.allowance.working" in told.stdout
    sound = "--fact person.working_here=true --fact person.insured_here=true"
    described = json.loads(run(f"policy explain {QUARTER} {sound} --json").stdout)
    assert (described["review"], described["verdict"]) == (True, "pass")
    assert [clause["rule"] for clause in described["clauses"]] == [
        "condition.allowance.working",
        "condition.allowance.insured",
    ]


def test_a_benefit_whose_instalments_nobody_reviews_says_so() -> None:
    refused = run("policy explain --item living_allowance --category master --on 2026-03-02 --review")
    assert refused.exit_code == 2
    assert "没有发放前须复核的条件" in refused.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"{MASTER} --fact person.degree=phd", "可填：doctor（博士）"),
        (f"{MASTER} --fact employer.good_standing=yes", "请填 true 或 false"),
        (f"{MASTER} --fact person.beauty=true", "person.beauty"),
        (f"{MASTER} --fact person.degree", "NAME=VALUE"),
        ("--item none --category master --on 2026-03-02", "没有 none，可用："),
        ("--item living_allowance --category master --on 2021-03-22", "没有在 2021-03-22 有效的规定"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(line: str, told: str) -> None:
    refused = run(f"policy explain {line}")
    assert refused.exit_code == 2
    assert told in refused.stderr


@pytest.mark.article("第二条")
def test_the_cases_of_anyang_pass_and_name_the_rule_that_decided() -> None:
    told = run("policy test")
    assert told.exit_code == 0, told.output
    assert "✓" in told.stdout
    assert "✗" not in told.stdout
    assert "exclusion.flexible “科技类柔性引进人才”不享受“生活补贴”" in told.stdout
    described = json.loads(run("policy test --json").stdout)
    assert described["untested"] == []
    assert {case["differs"] == [] for case in described["cases"]} == {True}


def beside(folder: Path, text: str) -> Path:
    """A pack with this text, and Anyang's cases beside it."""
    pack = folder / "pack.yaml"
    pack.write_text(text, encoding="utf-8")
    shutil.copytree(ANYANG.parent / "cases", folder / "cases")
    return pack


def test_a_changed_rule_is_caught_by_a_case_and_an_untested_one_is_told(tmp_path: Path) -> None:
    old = "when: person.degree in ['master', 'doctor']\n    passed: 具有硕士"
    pack = beside(tmp_path, edited((old, old.replace("'master', ", "'bachelor', 'master', "))))
    told = run(f"policy test {pack}")
    assert told.exit_code == 1
    assert "✗" in told.stdout
    assert "结论应为“不符合”，实为“符合”" in told.stdout
    assert "condition.master：没有一例“不符合”，请补一例" in told.stdout


def test_without_cases_or_with_a_broken_file_it_refuses(tmp_path: Path) -> None:
    without = run(f"policy test --cases {tmp_path}")
    assert (without.exit_code, "没有案例" in without.stderr) == (2, True)
    nowhere = run(f"policy test --cases {tmp_path / 'none'}")
    assert (nowhere.exit_code, "不是文件夹" in nowhere.stderr) == (2, True)
    (tmp_path / "one.yaml").write_text("- 案例: 一例\n", encoding="utf-8")
    broken = run(f"policy test --cases {tmp_path}")
    assert broken.exit_code == 2
    assert "第 1 行：[1].日期：缺少必填项" in broken.stderr
