"""The rules on the command line: what people read, what programs read, and how it refuses."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from deploy.rules_cli import due_date, policy
from tests.common.packs import ANYANG, anyang, anyang_text, edited

app = typer.Typer()
app.add_typer(policy, name="policy")
app.command("due-date")(due_date)


def run(line: str) -> Result:
    return CliRunner().invoke(app, line.split())


def split(line: str) -> Result:
    return run(f"policy split {line}")


def said(result: Result) -> str:
    """What stands on standard error, without the frame that is drawn around it."""
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.article("第五条")
@pytest.mark.parametrize(
    ("line", "employer", "shares"),
    [
        ("--benefit living_allowance --treasury 410522 --fen 100", 33, {"410500": 20, "410522": 47}),
        ("--benefit purchase_subsidy --treasury 410502 --fen 1", 0, {"410500": 0, "410502": 1}),
        ("--benefit living_allowance --treasury 410500 --fen 300", 100, {"410500": 200}),
        (
            "--benefit purchase_subsidy --treasury 410526 --fen 100 --employer-kind institution",
            0,
            {"410500": 10, "410526": 90},
        ),
    ],
)
def test_a_split_as_json(line: str, employer: int, shares: dict[str, int]) -> None:
    result = split(f"{line} --on 2026-03-02 --json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["employer"], answer["shares"]) == (employer, shares)


@pytest.mark.article("第五条")
def test_a_split_for_people_names_treasuries_articles_and_assumptions() -> None:
    result = split("--benefit living_allowance --treasury 410571 --on 2026-03-02 --fen 3000000")
    assert result.exit_code == 0, result.output
    assert "用人单位承担：10,000.00 元" in result.stdout
    assert "410571 安阳高新区财政：12,000.00 元" in result.stdout
    assert "安人才〔2021〕4 号第五条" in result.stdout
    assert "（假定：" in result.stdout


@pytest.mark.article("第五条")
@pytest.mark.parametrize(
    "line",
    ["--treasury 410500 --employer-kind central_or_provincial", "--treasury 410000"],
)
@pytest.mark.parametrize("form", ["", "--json"])
def test_a_central_or_provincial_unit_is_a_manual_decision(line: str, form: str) -> None:
    result = split(f"--benefit living_allowance --on 2026-03-02 --fen 100 {line} {form}")
    assert result.exit_code == 2
    assert "须人工决定" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--benefit rent --treasury 410500 --on 2026-03-02 --fen 1", "没有 rent，可用："),
        ("--benefit talent_flat --treasury 410500 --on 2026-03-02 --fen 1", "没有资金分担"),
        ("--benefit living_allowance --treasury 999999 --on 2026-03-02 --fen 1", "没有财政 999999"),
        ("--benefit living_allowance --treasury 410500 --on 2020-03-02 --fen 1", "2020-03-02"),
        ("--benefit living_allowance --treasury 410500 --on 2026-02-30 --fen 1", "--on"),
        ("--benefit living_allowance --treasury 410500 --on 2026-03-02 --fen 0", "--fen"),
        ("--benefit living_allowance --treasury 410500 --on 2026-03-02 --fen 1000000000000001", "--fen"),
        ("--benefit living_allowance --treasury 410500 --on 2026-03-02 --fen 1.5", "--fen"),
        (
            "--benefit living_allowance --treasury 410500 --on 2026-03-02 --fen 1 --employer-kind shop",
            "--employer-kind",
        ),
        (
            "--benefit living_allowance --treasury 410500 --on 2026-03-02 --fen 1 --pack none.yaml",
            "无法读取",
        ),
    ],
)
def test_a_split_that_cannot_be_given_says_why(line: str, reason: str) -> None:
    result = split(line)
    assert result.exit_code == 2
    assert reason in said(result)


def test_a_wrong_pack_is_refused_with_its_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("city: anyang\ncity: anyang\n", encoding="utf-8")
    result = split(f"--benefit living_allowance --treasury 410500 --on 2026-03-02 --fen 1 --pack {wrong}")
    assert result.exit_code == 2
    assert "第 2 行：city 在此处重复" in result.stderr


@pytest.mark.article("第十条")
def test_check_lists_what_a_pack_assumes_by_document_and_article() -> None:
    result = run(f"policy check {ANYANG}")
    assert result.exit_code == 0, result.output
    assert f"{ANYANG}：通过" in result.stdout
    assert anyang().identity.sha256 in result.stdout
    under = result.stdout.split("  安人才〔2021〕4 号第四条\n")[1].split("  安人才〔2021〕4 号第五条\n")[0]
    assert "benefit.talent-flat：房源出自第四条；按家庭申领为假定。" in under
    assert "sharing" not in under


@pytest.mark.article("第十条")
def test_check_names_every_assumption_of_the_file_once() -> None:
    result = run(f"policy check {ANYANG} --json")
    (found,) = json.loads(result.stdout)
    named = [each["id"] for each in found["assumptions"]]
    assert len(set(named)) == len(named) == anyang_text().count("\n    assumption: true")
    assert all(each["note"] for each in found["assumptions"])
    assert found["defects"] == []
    assert found["policy"] == anyang().identity.model_dump()


def test_check_lists_what_takes_the_place_of_what(tmp_path: Path) -> None:
    stated = (
        "lights:\n  - id: lights.stated\n    yellow_working_days_left: 3\n    document: licensing-law\n"
        "    article: 第三十二条\n    valid_from: 2024-01-01\n    version_by: accepted_on\n    overrides: [lights]\n"
    )
    pack = tmp_path / "pack.yaml"
    pack.write_text(edited(("\nlights:\n", f"\n{stated}")), encoding="utf-8")
    told = run(f"policy check {pack}").stdout
    law, own = "中华人民共和国主席令第七号第三十二条", "安人才〔2021〕4 号第三条"
    assert f"lights.stated（{law}）自 2024-01-01 起取代 lights（{own}）" in told
    (found,) = json.loads(run(f"policy check {pack} --json").stdout)
    over = {"id": "lights.stated", "source": law, "overrides": "lights", "overridden_source": own}
    assert found["overridings"] == [{**over, "since": "2024-01-01"}]


def test_check_lists_every_defect_of_every_file_with_its_line(tmp_path: Path) -> None:
    shares, department = '{bearer: "410500", share: 4/10}', "{code: talent_office"
    wrong = tmp_path / "wrong.yaml"
    text = anyang_text().replace(shares, shares.replace("4/10", "5/10"), 1)
    wrong.write_text(text, encoding="utf-8")
    dangling = tmp_path / "dangling.yaml"
    dangling.write_text(edited((department, department + "s")), encoding="utf-8")
    result = run(f"policy check {wrong} {ANYANG} {dangling}")
    assert result.exit_code == 1
    line = 1 + text[: text.index(shares.replace("4/10", "5/10"))].count("\n")
    assert f"{wrong}：未通过，共 1 处\n  第 {line - 3} 行：sharing_plans[1]：" in result.stdout
    assert "各承担比例合计为 11/10，应为 1" in result.stdout
    assert f"{ANYANG}：通过" in result.stdout
    assert "政策包中没有部门 talent_office" in result.stdout.split(f"{dangling}：未通过")[1]
    told = json.loads(run(f"policy check {wrong} --json").stdout)
    assert [(each["line"], each["place"]) for each in told[0]["defects"]] == [(line - 3, "sharing_plans[1]")]


def later_version(folder: Path) -> Path:
    amount = "category: doctor\n    fen: 5_400_000"
    text = edited(('version: "2021-4.4"', 'version: "2024-1"'), (amount, amount.replace("5_4", "6_0")))
    file = folder / "2024-1.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_diff_says_what_moved_from_when_and_for_whom(tmp_path: Path) -> None:
    result = run(f"policy diff {ANYANG} {later_version(tmp_path)}")
    assert result.exit_code == 0, result.output
    assert "1 处不同" in result.stdout
    assert "1. 待遇标准：生活补贴、博士研究生" in result.stdout
    assert (
        "   2021-03-23 起受理的申请（此前受理的不变）\n   金额：54,000.00 元 → 60,000.00 元\n   受益：人才本人"
        in result.stdout
    )
    assert "   依据：安办文〔2020〕2 号，假定（" in result.stdout


def test_diff_as_json_and_of_a_pack_and_itself(tmp_path: Path) -> None:
    (told,) = json.loads(run(f"policy diff {ANYANG} {later_version(tmp_path)} --json").stdout)
    assert (told["kind"], told["since"], told["until"], told["gains"]) == ("待遇标准", "2021-03-23", None, ["人才本人"])
    assert (told["was"], told["becomes"]) == ({"金额": "54,000.00 元"}, {"金额": "60,000.00 元"})
    same = run(f"policy diff {ANYANG} {ANYANG}")
    assert same.exit_code == 0
    assert "没有不同" in same.stdout


def test_diff_refuses_packs_of_two_cities(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(edited(("city: anyang", "city: luoyang")), encoding="utf-8")
    result = run(f"policy diff {ANYANG} {other}")
    assert result.exit_code == 2
    assert "不属同一城市" in result.stderr


def test_a_file_that_cannot_be_read_is_refused_and_hides_no_other(tmp_path: Path) -> None:
    result = run(f"policy check {tmp_path / 'none.yaml'} {ANYANG}")
    assert result.exit_code == 1
    assert "整个文件：无法读取" in result.stdout
    assert f"{ANYANG}：通过" in result.stdout


@pytest.mark.parametrize(
    ("line", "due", "provisional"),
    [
        ("--accepted 2026-02-13 --days 2", "2026-02-24", False),
        ("--accepted 2026-09-30 --days 2", "2026-10-09", False),
        ("--accepted 2026-02-13 --days 3 --suspended 2026-02-24/2026-02-26", "2026-02-27", False),
        (
            "--accepted 2026-03-02 --days 5 --suspended 2026-03-04/2026-03-05 --suspended 2026-03-09/2026-03-11",
            "2026-03-12",
            False,
        ),
        (  # a day is taken away once
            "--accepted 2026-11-03 --days 2 --suspended 2026-11-04/2026-11-09 --suspended 2026-11-05/2026-11-06",
            "2026-11-10",
            False,
        ),
        ("--accepted 2040-03-01 --days 1", "2040-03-02", True),
    ],
)
def test_a_due_date_as_json(line: str, due: str, provisional: bool) -> None:
    result = run(f"due-date {line} --json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["due"], answer["provisional"]) == (due, provisional)
    assert answer["working"][-1]["day"] == due


def test_a_due_date_for_people_shows_every_day() -> None:
    result = run("due-date --accepted 2026-02-13 --days 2")
    assert result.exit_code == 0, result.output
    assert "2026-02-14 +1 调休工作日" in result.stdout
    assert "截止日 2026-02-24" in result.stdout
    assert "暂定" not in result.stdout
    assert "暂定" in run("due-date --accepted 2040-03-01 --days 1").stdout


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--accepted 2026-02-30 --days 2", "--accepted"),
        ("--accepted 2026-03-02 --days 0", "--days"),
        ("--accepted 2026-03-02 --days 99999", "--days"),
        ("--accepted 20261103 --days 2", "YYYY-MM-DD"),
        ("--accepted 2026-3-2 --days 2", "YYYY-MM-DD"),
        ("--accepted 2026-03-02 --days 2 --suspended 20261103/20261104", "YYYY-MM-DD"),
        ("--accepted 1990-03-02 --days 2", "calendar"),
        ("--accepted 2026-03-02 --days 2 --suspended 2026-03-04", "FROM/TO"),
        (
            "--accepted 2026-03-02 --days 2 --suspended 2026-03-05/2026-03-04",
            "首日 2026-03-05 晚于恢复计时之日 2026-03-04",
        ),
    ],
)
def test_a_due_date_that_cannot_be_given_says_why(line: str, reason: str) -> None:
    result = run(f"due-date {line}")
    assert result.exit_code == 2
    assert reason in said(result)
