"""`policy simulate`: what a policy office sees, and how it refuses."""

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import app
from tests.common.packs import ANYANG, edited
from tests.common.test_simulation import MASTER, RATIO_MOVED

LINE = {"accepted_on": "2026-03-02", "treasury": "410522", "facts": MASTER}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", "simulate", "--from-year", "2026", *arguments])


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    file = tmp_path / "moved.yaml"
    file.write_text(edited(RATIO_MOVED), encoding="utf-8")
    return file


@pytest.fixture
def people(tmp_path: Path) -> Path:
    file = tmp_path / "people.ndjson"
    lines = [LINE, LINE | {"number": 9}, LINE | {"employer_kind": "central_or_provincial"}]
    file.write_text("\n".join([*map(json.dumps, lines), ""]), encoding="utf-8")
    return file


@pytest.mark.article("第五条")
def test_a_file_of_people_is_costed_by_benefit_bearer_and_year(people: Path) -> None:
    told = run("--people", str(people), "--years", "2")
    assert told.exit_code == 0, told.output
    assert "可享受 11 人，尚不能确定 0 人，不能享受 0 人" in told.stdout
    row = next(line for line in told.stdout.splitlines() if "生活补贴" in line and "安阳县财政" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "生活补贴",
        "安阳县财政",
        "5.60",
        "5.60",
        "5.60",
        "16.80",
    ]
    assert "须人工决定" in told.stdout


def test_as_json_the_same_seed_gives_the_same_to_the_fen() -> None:
    first, again = (run("--draw", "300", "--seed", "3", "--json") for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == again.stdout
    [told] = json.loads(first.stdout)
    assert sum(told["people"].values()) == 300
    for row in told["rows"]:
        assert row["total"] == sum(row["fen"].values()) + row["later"]


def test_two_packs_side_by_side_and_their_difference_also_as_a_workbook(
    people: Path, moved: Path, tmp_path: Path
) -> None:
    book = tmp_path / "cost.xlsx"
    told = run("--people", str(people), "--against", str(moved), "--book", str(book))
    assert told.exit_code == 0, told.output
    difference = told.stdout[told.stdout.index("差额") :]
    assert any("安阳市本级财政" in line and "1.60" in line for line in difference.splitlines())
    with zipfile.ZipFile(book) as file:
        names = file.read("xl/workbook.xml").decode()
        assert all(f'name="{name}"' in names for name in ("费用", "费用（对照）", "差额", "图表"))
        assert sum(name.startswith("xl/charts/chart") for name in file.namelist()) == 3
        assert "安阳县财政" in file.read("xl/sharedStrings.xml").decode()
        assert (
            "<v>16800</v>" in file.read("xl/worksheets/sheet1.xml").decode()
            or "<v>168000</v>" in file.read("xl/worksheets/sheet1.xml").decode()
        )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "第 1 行：整行：不是有效的 JSON"),
        (json.dumps(LINE | {"accepted_on": "2026-02-30"}), "第 1 行：accepted_on：应为日期"),
        (json.dumps(LINE | {"accepted_on": "2025-12-31"}), "不在 2026 至 2035 年"),
        (json.dumps(LINE | {"treasury": "999999"}), "没有财政 999999，可用："),
        (json.dumps(LINE | {"number": 0}), "第 1 行：number：数值过小，应不小于 1。"),
        (json.dumps(LINE | {"number": "5"}), "第 1 行：number：应为整数"),
        (json.dumps(LINE | {"facts": {"employer.kind": "enterprise"}}), "由 employer_kind 得出"),
        (" " * 70_000 + "{}", "一行超过 65536 字节"),
        (json.dumps(LINE | {"name": "张三"}), "第 1 行：name：此处没有这一项"),
        (json.dumps(LINE | {"facts": {"person.degree": "phd"}}), "第 1 行：facts.person.degree：“最高学位”可填"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "people.ndjson"
    file.write_text(line, encoding="utf-8")
    refused = run("--people", str(file))
    assert refused.exit_code == 2
    assert f"{file}：" in refused.stderr
    assert told in refused.stderr
    assert refused.stdout == ""


def test_who_files_must_be_said_once_and_readable(people: Path, tmp_path: Path) -> None:
    for arguments in ((), ("--people", str(people), "--draw", "1")):
        refused = run(*arguments)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "--people FILE 或 --draw N" in refused.stderr
    assert "无法读取" in run("--people", str(tmp_path / "none")).stderr
    (tmp_path / "nobody").write_text("\n", encoding="utf-8")
    assert "中没有人" in run("--people", str(tmp_path / "nobody")).stderr
    assert "无法写入" in run("--draw", "1", "--book", str(tmp_path / "none" / "x.xlsx")).stderr
    assert "在 2020-01-01 没有有效的财政，请把起始年推后" in run("--draw", "50", "--from-year", "2020").stderr
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(edited(("city: anyang\n", "city: elsewhere\n")), encoding="utf-8")
    assert "属于另一城市" in run("--draw", "1", "--against", str(elsewhere)).stderr
    assert "无法读取" in run("--draw", "1", "--against", str(ANYANG.parent / "none.yaml")).stderr
