"""The service standard and the guides: everything that the pack says of an item, as text, page and document."""

import re
from datetime import date
from pathlib import Path

import pytest
from docx import Document
from typer.testing import CliRunner, Result

from deploy.cli import app
from deploy.policy_guide import as_page
from libs.common.policy.guide import guide
from tests.common.packs import ANYANG, a_pack, anyang, one_of, reviewed

DAY = date(2026, 3, 2)


def run(*line: str) -> Result:
    return CliRunner().invoke(app, ["policy", "guide", *line])


@pytest.mark.article("第三条")
def test_every_item_has_a_guide_with_its_materials_its_flow_and_its_limit() -> None:
    made, offices = guide(anyang(), DAY), {each.code: each.title for each in anyang().departments}
    assert [item.code for item in made.items] == [item.code for item in anyang().items]
    for told, item in zip(made.items, anyang().items, strict=True):
        entries = {entry.name: entry for entry in told.entries}
        assert len(entries) == len(told.entries)
        assert len(entries["申请材料"].lines) == max(1, len(item.materials))
        flow = entries["办理流程"]
        tasks = [task for stage in item.stages for task in stage]
        assert [row[2] for row in flow.table[1:]] == [task.title for task in tasks]
        assert [row[1].removeprefix("市") for row in flow.table[1:]] == [offices[task.department] for task in tasks]
        if item.stages:
            assert f"全程至多 {item.promised_working_days} 个工作日" in flow.lines[0]
        assert entries["到办事现场次数"].lines == (f"{item.visits} 次。",)
        assert entries["办理时限"].lines[1] == "法定时限：无规定。"
        assert (entries["办理结果"].lines[0], entries["救济途径"].lines[0]) == (
            f"{item.result}，由受理平台集中反馈。",
            f"{item.remedy}。",
        )
        assert entries["依据"].lines[0].startswith("安人才〔2021〕4 号")


@pytest.mark.article("第三条")
def test_the_standard_lists_items_flow_and_limits_and_what_is_assumed_says_so() -> None:
    told = run(str(ANYANG), "--on", "2026-03-02")
    assert told.exit_code == 0, told.output
    assert (
        "人才认定｜认定｜3 份｜公安局、教育局、人力资源和社会保障局、人才工作领导小组办公室｜5 个工作日｜无规定｜0 次"
        in told.stdout
    )
    assert "2 个工作日内到达受益人账户。\n" in told.stdout
    assert "科技类柔性引进人才\n" in told.stdout
    assert "定向选调生｜清华大学、北京大学定向类硕士以上学位选调生｜" in told.stdout
    assert "36,000.00 元（文件未写明，为假定）" in told.stdout
    assert str(anyang().identity) in told.stdout


def test_a_guide_says_whom_a_benefit_is_given_to_once_and_what_cannot_be_had_beside_it() -> None:
    made = guide(a_pack(one_of("talent_flat", "talent_apartment")), DAY)
    told = {item.code: {entry.name: entry.lines for entry in item.entries} for item in made.items}
    assert told["living_allowance"]["申领"] == ("已取得人才认定的，每人申领一份。（文件未写明，为假定）",)
    once, beside = told["talent_flat"]["申领"]
    assert once == "已取得人才认定的，每户申领一份，夫妻双方不能各领一份。（文件未写明，为假定）"
    assert beside == "与“人才公寓”只能享受其一（安人才〔2021〕4 号第四条）。"


def test_a_guide_says_what_is_reviewed_before_each_later_instalment() -> None:
    made = guide(a_pack(reviewed("living_allowance")), DAY)
    told = {item.code: {entry.name: entry.lines for entry in item.entries} for item in made.items}
    how, *what = told["living_allowance"]["发放前复核"]
    assert how.startswith("自第 2 期起，每期发放前复核以下各项，符合的按期发放；")
    assert what == ["仍在我市参保", "用人单位经营仍良好"]
    assert "发放前复核" not in told["purchase_subsidy"]


def test_a_page_and_a_document_say_the_same(tmp_path: Path) -> None:
    page, document = tmp_path / "guide.html", tmp_path / "guide.docx"
    told = run(str(ANYANG), "--on", "2026-03-02", "--page", str(page), "--document", str(document))
    assert (told.exit_code, told.stdout) == (0, ""), told.output
    html = page.read_text(encoding="utf-8")
    assert "http" not in html
    written = Document(str(document))
    cells = {cell.text for table in written.tables for row in table.rows for cell in row.cells}
    assert cells == set(re.findall(r"<t[dh]>([^<]*)</t[dh]>", html))
    lines = {paragraph.text for paragraph in written.paragraphs}
    assert set(re.findall(r"<p>([^<]*)</p>", html)) <= lines
    for item in anyang().items:
        assert f"办事指南：{item.title}" in lines


def test_what_a_pack_says_cannot_become_markup() -> None:
    pack = a_pack(("title: 子女入学", "title: <script>alert(1)</script>"))
    html = as_page(guide(pack, DAY))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["--on", "2021-03-22"], "没有在 2021-03-22 有效的规定，请换一个日期"),
        (["--page", "/nowhere/guide.html"], "/nowhere/guide.html 无法写入"),
    ],
)
def test_what_cannot_be_written_is_refused(line: list[str], told: str) -> None:
    refused = run(str(ANYANG), *line)
    assert refused.exit_code == 2
    assert told in refused.stderr
