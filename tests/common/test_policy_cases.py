"""Cases beside a pack: decided by the production rules, and told where they are wrong or missing."""

from pathlib import Path

import pytest

from libs.common.policy import PackRefused, Verdict
from libs.common.policy.cases import Run, run_cases, untested
from tests.common.packs import ANYANG, a_pack, anyang, reviewed

CASES = sorted((ANYANG.parent / "cases").glob("*.yaml"))
MASTER = """
- 案例: 一例
  日期: 2026-03-02
  事项: 人才认定
  类别: 硕士研究生（示例）
  情况: {最高学位: 硕士, 用人单位经营状况良好: 是, 用人单位已申报引才需求: 是}
  结论: 符合
"""
ALLOWANCE = MASTER.replace("人才认定", "生活补贴")
REVIEW = """
- 案例: 仍参保，单位良好
  日期: 2026-03-02
  事项: 生活补贴
  类别: 硕士研究生（示例）
  发放前复核: 是
  情况: {在我市参保: 是, 用人单位经营状况良好: 是}
  结论: 符合
"""


def ran(text: str) -> list[Run]:
    return run_cases(anyang(), text.encode(), "cases.yaml")


@pytest.mark.article("第二条")
@pytest.mark.article("第五条")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_every_case_of_anyang_comes_out_as_it_says(path: Path) -> None:
    for run in run_cases(anyang(), path.read_bytes(), path.name):
        assert run.differs == (), f"{path.name} line {run.line}"


def test_every_condition_and_exclusion_of_anyang_has_a_case_either_way() -> None:
    runs = [run for path in CASES for run in run_cases(anyang(), path.read_bytes(), path.name)]
    assert untested(anyang(), runs) == []
    bare = {(rule.id, verdict) for rule, verdict in untested(anyang(), ran(MASTER))}
    assert ("condition.master", Verdict.FAILED) in bare
    assert ("condition.master", Verdict.PASSED) not in bare
    assert ("exclusion.flexible", Verdict.PASSED) in bare


def test_a_review_has_cases_of_its_own_and_wants_one_either_way() -> None:
    pack = a_pack(reviewed("living_allowance"))
    lapsed = REVIEW.replace("参保: 是", "参保: 否").replace("结论: 符合", "结论: 不符合")
    runs = run_cases(pack, (REVIEW + lapsed + "  决定条款: [仍在我市参保]\n").encode(), "cases.yaml")
    assert [run.differs for run in runs] == [(), ()]
    bare = {(rule.id, verdict) for rule, verdict in untested(pack, runs)}
    assert ("still.in-good-standing", Verdict.FAILED) in bare
    assert {rule for rule, _ in bare}.isdisjoint({"still.insured"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MASTER.replace("结论: 符合", "结论: 不符合"), "结论应为“不符合”，实为“符合”：各条均符合"),
        (MASTER.replace("最高学位: 硕士", "最高学位: 学士"), "实为“不符合”：condition.master 没有硕士以上学位"),
        (MASTER + "  决定条款: [硕士学位]\n", "决定条款应有“硕士学位”"),
        (MASTER.replace("人才认定", "人才鉴定"), "没有事项“人才鉴定”"),
        (MASTER.replace("2026-03-02", "2021-03-22"), "2021-03-22 没有事项“人才认定”"),
        (MASTER.replace("硕士研究生（示例）", "硕士"), "没有类别“硕士”"),
        (MASTER.replace("最高学位: 硕士", "学位: 硕士"), "没有“学位”这一情况"),
        (MASTER.replace("最高学位: 硕士", "最高学位: 研究生"), "可写：博士、硕士、学士、无学位"),
        (MASTER.replace("状况良好: 是", "状况良好: 好"), "可写：是、否"),
        (MASTER + "  金额: 1.00\n", "金额应为 1.00，实为 没有标准"),
        (REVIEW, "2026-03-02 “生活补贴”没有发放前须复核的条件"),
        (ALLOWANCE + "  金额: 36000.01\n", "金额应为 36000.01，实为 36,000.00 元"),
        (ALLOWANCE + "  分担: {用人单位: 12000.00}\n", "写分担须写明隶属财政"),
        (
            ALLOWANCE + "  隶属财政: 滑县财政\n  分担: {用人单位: 12000.00}\n",
            "滑县财政分担应为 0.00，实为 16,800.00 元",
        ),
        (ALLOWANCE + "  隶属财政: 滑县财政\n  单位性质: 公司\n  分担: {用人单位: 1.00}\n", "没有单位性质“公司”"),
        (
            ALLOWANCE + "  隶属财政: 滑县财政\n  单位性质: 中央、省驻市单位\n  分担: {用人单位: 1.00}\n",
            "须人工决定",
        ),
    ],
)
def test_a_case_that_comes_out_otherwise_says_in_what(text: str, told: str) -> None:
    [run] = ran(text)
    assert any(told in each for each in run.differs), run.differs
    assert run.line == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            MASTER.replace("结论: 符合", "结论: 可以"),
            "第 7 行：[1].结论：取值不在范围内，可填：符合、不符合、尚不能确定。",
        ),
        (MASTER.replace("  事项: 人才认定\n", ""), "第 2 行：[1].事项：缺少必填项"),
        (MASTER.replace("情况: {", "情况: ["), "第 6 行：方括号内没有写完"),
        (REVIEW + "  金额: 1.00\n", "第 2 行：[1]：发放前复核的案例只看条件，请删去金额和分担"),
        ("城市: 安阳\n", "第 1 行：应为列表"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_line(text: str, told: str) -> None:
    with pytest.raises(PackRefused) as refused:
        ran(text)
    assert told in str(refused.value)
