"""`policy interpret`: a ruling of the talent office becomes a new version; what it cannot be is refused."""

from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import app
from libs.common.policy import load_pack, split
from tests.common.packs import ANYANG, anyang

RULING = (
    "--number",
    "安人才办〔2026〕3 号",
    "--on",
    "2026-12-01",
    "--text",
    "经研究，按此执行。",
    "--version",
    "2026-1",
)
COUNTY = "sharing.living-allowance.county.2022"


def interpret(out: Path, about: str, *more: str) -> Result:
    return CliRunner().invoke(app, ["policy", "interpret", "--rule", about, "--out", str(out), *RULING, *more])


@pytest.mark.article("第十条")
def test_an_assumption_that_is_confirmed_rests_on_the_ruling_and_nothing_else_moves(tmp_path: Path) -> None:
    out = tmp_path / "2026-1.yaml"
    told = interpret(out, COUNTY)
    assert told.exit_code == 0, told.output
    assert "安人才办〔2026〕3 号" in told.stdout
    before, after = anyang(), load_pack(out)
    assert after.version == "2026-1"
    assert after.documents[-1].kind == "interpretation"
    rule = next(rule for rule in after.rules() if rule.id == COUNTY)
    assert (rule.assumption, after.citation(rule), rule.note) == (
        False,
        "安人才办〔2026〕3 号全文",
        "经研究，按此执行。",
    )
    others = [[rule for rule in pack.rules() if rule.id != COUNTY] for pack in (before, after)]
    assert others[0] == others[1]
    comments = [line for line in ANYANG.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert [line for line in out.read_text(encoding="utf-8").splitlines() if line.startswith("#")] == comments


@pytest.mark.article("第十条")
def test_a_ruling_that_changes_a_ratio_from_a_day_binds_what_falls_due_from_then_on(tmp_path: Path) -> None:
    out = tmp_path / "2026-1.yaml"
    shares = "shares=[{bearer: '410500', share: 1/2}, {bearer: affiliated, share: 1/2}]"
    told = interpret(out, COUNTY, "--set", shares, "--from", "2027-01-01")
    assert told.exit_code == 0, told.output
    assert "2027-01-01 起应付的各期" in told.stdout
    after = load_pack(out)
    for on, city in ((date(2026, 12, 31), 60), (date(2027, 1, 1), 100)):
        found = split(after, benefit="living_allowance", treasury="410522", on=on, total_fen=300)
        assert (found.shares["410500"], found.public) == (city, 200)


def test_what_has_no_days_is_confirmed_by_its_name(tmp_path: Path) -> None:
    out = tmp_path / "2026-1.yaml"
    told = interpret(out, "facts.employer.good_standing")
    assert told.exit_code == 0, told.output
    assert not load_pack(out).facts_by_name["employer.good_standing"].assumption


@pytest.mark.parametrize(
    ("about", "more", "told"),
    [
        ("sharing.none", (), "政策包中没有 sharing.none"),
        ("sharing.living-allowance.county", (), "依据的是安人才〔2021〕4 号第五条，不是假定"),
        (COUNTY, ("--version", "2021-4"), "新版本号 2021-4 不在 2021-4.4 之后"),
        (COUNTY, ("--set", "shares"), "应写成 FIELD=VALUE"),
        (COUNTY, ("--set", "shares=["), "不能作为政策包中的值"),
        (COUNTY, ("--set", "remainder_to=nobody"), "remainder_to：格式不正确，应为 affiliated"),
        (COUNTY, ("--set", "remainder_to=2027-02-30"), "不能作为政策包中的值"),
        (COUNTY, ("--set", "note=mine"), "note 由解释本身写入"),
        (COUNTY, ("--set", "remainder_to=affiliated", "--set", "remainder_to=affiliated"), "把同一项写了两次"),
        (COUNTY, ("--from", "2022-01-01"), "且晚于首日"),
        ("facts.employer.good_standing", ("--from", "2027-01-01"), "请删去 --from"),
        (COUNTY, ("--pack", "nowhere.yaml"), "无法读取"),
    ],
)
def test_a_ruling_that_does_not_fit_is_refused_and_nothing_written(
    tmp_path: Path, about: str, more: tuple[str, ...], told: str
) -> None:
    out = tmp_path / "2026-1.yaml"
    refused = interpret(out, about, *more)
    assert refused.exit_code == 2, refused.output
    assert told in refused.stderr
    assert not out.exists()


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "kept.yaml"
    out.write_text("mine")
    refused = interpret(out, COUNTY)
    assert refused.exit_code == 2
    assert "无法写入，请检查路径，且不能是已有的文件（File exists）" in refused.stderr
    assert out.read_text() == "mine"
