"""The green channel (绿色通道, 第六条) in a pack: what is refused, which limit a task has, and how people read it."""

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from deploy.cli import app
from libs.common.policy import (
    Difference,
    Facts,
    Pack,
    PackRefused,
    differences,
    green_channel,
    limit_of,
    promised_working_days,
)
from libs.common.policy.guide import Entry, guide
from libs.common.policy.model import GreenChannel, Item, Task
from libs.common.policy.simulation import Cell, People, Simulation
from libs.common.policy.wording import Effect
from libs.common.treasuries import EmployerKind
from tests.common.packs import ANYANG, a_pack, anyang, anyang_text, edited, green

DAY = date(2026, 3, 2)
VERSION = ('version: "2021-4.4"', 'version: "2027-1"')
CATEGORIES = "    categories: [doctor, master, bachelor, targeted_graduate, youth_reserve, flexible]\n"
ITEMS = "    items: [household_registration, children_schooling, medical_care, spouse_employment]\n"
LIMIT = "    limit_working_days: 5\n    document: anyang-2021-4\n    article: 第六条\n"
NOBODY_WORKS = """    stages:
      - - {department: talent_office, title: 向受益人本人核实账户变更, limit_working_days: 2}
"""


def ended(title: str) -> tuple[str, str]:
    """The change by which what has this title is in force in 2021 only."""
    return f"    title: {title}\n", f"    title: {title}\n    valid_to: 2021-12-31\n"


# -- what is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            [(CATEGORIES, CATEGORIES.replace("flexible", "hero"))],
            "green_channels[1].categories[6]：政策包中没有人才类别 hero，请改正代码，或先在 categories 中补上。",
        ),
        (
            [(ITEMS, ITEMS.replace("medical_care", "rent"))],
            "green_channels[1].items[3]：政策包中没有事项 rent，请改正代码，或先在 items 中补上。",
        ),
        ([(CATEGORIES, "    categories: []\n")], "green_channels[1].categories：条目过少，至少 1 项。"),
        ([(ITEMS, "    items: []\n")], "green_channels[1].items：条目过少，至少 1 项。"),
        ([(ITEMS, ITEMS.replace("medical_care", "spouse_employment"))], "列表中有重复的值"),
        ([(CATEGORIES, CATEGORIES.replace("flexible", "doctor"))], "列表中有重复的值"),
        (
            [(NOBODY_WORKS, "    stages: []\n"), (ITEMS, ITEMS.replace("medical_care", "payee_account_change"))],
            "green_channels[1].items[3]：事项 payee_account_change 没有部门办理，无从走绿色通道，请删去，",
        ),
        (
            [(LIMIT, LIMIT.replace("5", "10"))],
            "green_channels[1].limit_working_days：所列事项的部门时限最长 10 个工作日，10 个工作日没有缩短任何时限",
        ),
        (
            [ended("就医绿色通道"), green("medical_care", categories="doctor", limit=None, since="2022-01-01")],
            "green_channels[1].items[1]：事项 medical_care 在本条有效期内的任何一天都不存在，请删去，或改正两者的",
        ),
        (
            [
                ended("柔性引进人才"),
                green("talent_certification", categories="flexible", limit=None, since="2022-01-01"),
            ],
            "green_channels[1].categories[1]：人才类别 flexible 在本条有效期内的任何一天都不存在，请删去，",
        ),
        ([(LIMIT, LIMIT.replace("5", "0"))], "green_channels[1].limit_working_days：数值过小，应不小于 1。"),
        (
            [green("medical_care", categories="doctor", limit=1)],
            "与 2021-03-23 起长期有效的版本重叠，请给前一版本写明 valid_to，或推后 valid_from",
        ),
        (
            [
                (
                    f"{LIMIT}    valid_from: 2021-03-23\n    version_by: accepted_on\n",
                    f"{LIMIT}    valid_from: 2021-03-23\n    version_by: due_on\n",
                )
            ],
            "green_channels[1].version_by：取值不在范围内，可填：accepted_on。",
        ),
    ],
)
def test_a_green_channel_that_does_not_fit_is_refused_with_its_line(changes: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(PackRefused) as refused:
        Pack.parse(edited(*changes).encode())
    assert told in str(refused.value)
    assert all(defect.line for defect in refused.value.defects)


def test_one_item_may_have_a_limit_for_each_category() -> None:
    pack = a_pack(green("talent_certification", categories="doctor", limit=1))
    assert green_channel(pack, item="talent_certification", category="doctor", on=DAY) == pack.green_channels[0]
    assert green_channel(pack, item="talent_certification", category="master", on=DAY) is None


def test_a_pack_of_before_there_were_green_channels_stays_readable() -> None:
    before, rest = anyang_text().split("green_channels:\n")
    after = rest[rest.index("# Facts are") :]
    assert Pack.stored(f"{before}{after}".encode()).green_channels == ()


# -- which limit a task has


LIMITS = st.integers(1, 1000)


def a_channel(limit: int | None) -> GreenChannel:
    (rule,) = anyang().green_channels
    return rule.model_copy(update={"limit_working_days": limit})


@pytest.mark.article("第六条")
@given(own=LIMITS, channel=st.none() | LIMITS)
def test_of_two_limits_the_shorter_one_counts_and_none_is_lengthened(own: int, channel: int | None) -> None:
    task = Task(department="health", title="办理", limit_working_days=own)
    assert limit_of(task, None) == own
    assert limit_of(task, a_channel(channel)) == (own if channel is None else min(own, channel))


@given(channel=st.none() | LIMITS, item=st.sampled_from(anyang().items))
def test_no_item_is_promised_later_for_it(channel: int | None, item: Item) -> None:
    promised = promised_working_days(item, a_channel(channel))
    assert promised <= item.promised_working_days == promised_working_days(item, None)
    if channel is None:
        assert promised == item.promised_working_days


@pytest.mark.article("第六条")
def test_the_version_of_the_day_of_acceptance_counts() -> None:
    pack = a_pack(green("talent_certification", categories="doctor", limit=1, since="2026-03-02"))
    found = [
        green_channel(pack, item="talent_certification", category="doctor", on=day) for day in (date(2026, 3, 1), DAY)
    ]
    assert [rule and rule.id for rule in found] == [None, "green.more"]


def test_where_no_category_is_known_or_the_policy_does_not_know_it_there_is_no_channel() -> None:
    for category in (None, "of_another_policy"):
        assert green_channel(anyang(), item="medical_care", category=category, on=DAY) is None


def test_a_simulation_takes_the_shorter_time() -> None:
    master: Facts = {"person.degree": "master", "employer.good_standing": True, "employer.demand_declared": True}
    late = People(date(2026, 12, 23), "410500", EmployerKind.ENTERPRISE, master)  # due two days after the decision

    def year(pack: Pack) -> int:
        simulation = Simulation(pack)
        simulation.take(late)
        (cell,) = [cell for cell in simulation.account.fen if cell[:2] == ("purchase_subsidy", "410500")]
        assert isinstance(cell, Cell)
        return cell.year

    channel = green("talent_certification", "living_allowance", "purchase_subsidy", categories="master", limit=1)
    assert (year(anyang()), year(a_pack(channel))) == (2027, 2026)


# -- how people read it


@pytest.mark.article("第六条")
def test_whom_it_is_for_and_how_fast_it_is_are_assumptions() -> None:
    (rule,) = anyang().green_channels
    assert (rule.article, rule.assumption) == ("第六条", True)
    assert "市人社局" in rule.note


def told_of(entries: tuple[Entry, ...]) -> Entry | None:
    return next((entry for entry in entries if entry.name == "绿色通道"), None)


@pytest.mark.article("第六条")
def test_the_guides_say_for_whom_and_how_long_at_most() -> None:
    made = guide(anyang(), DAY)
    standard = told_of(made.standard)
    assert standard is not None
    (row,) = standard.table[1:]
    assert row[0] == "人才落户、子女入学、就医绿色通道、配偶就业"
    assert row[1].startswith("博士研究生（示例）、")
    assert row[2:] == ("至多 5 个工作日", "安人才〔2021〕4 号第六条（文件未写明，为假定）")
    of_items = {item.code: told_of(item.entries) for item in made.items}
    assert of_items["talent_certification"] is None
    schooling, care = of_items["children_schooling"], of_items["medical_care"]
    assert schooling is not None
    assert care is not None
    assert schooling.lines[0].endswith("柔性引进人才：优先办理，全程至多 5 个工作日。（文件未写明，为假定）")
    assert "全程至多 3 个工作日" in care.lines[0]
    marked = guide(a_pack((LIMIT, LIMIT.replace("    limit_working_days: 5\n", ""))), DAY).items
    (told,) = [told_of(item.entries) for item in marked if item.code == "children_schooling"]
    assert told is not None
    assert "优先办理，全程至多 10 个工作日" in told.lines[0]


def changed(found: list[Difference]) -> tuple[object, ...]:
    (one,) = found
    return one.kind, one.was, one.becomes, one.effect


def test_diff_says_whom_a_change_helps_or_costs() -> None:
    helped, harmed = Effect(gains=("该类人才",)), Effect(loses=("该类人才",))
    faster = a_pack(VERSION, (LIMIT, LIMIT.replace("5", "3")))
    was, becomes = {"各部门时限": "至多 5 个工作日"}, {"各部门时限": "至多 3 个工作日"}
    assert changed(differences(anyang(), faster)) == ("绿色通道", was, becomes, helped)
    assert changed(differences(faster, anyang())) == ("绿色通道", becomes, was, harmed)
    unlimited = a_pack(VERSION, (LIMIT, LIMIT.replace("    limit_working_days: 5\n", "")))
    assert changed(differences(anyang(), unlimited)) == ("绿色通道", was, {"各部门时限": "不另缩短"}, harmed)
    fewer = a_pack(VERSION, (CATEGORIES, CATEGORIES.replace(", flexible", "")))
    (found,) = differences(anyang(), fewer)
    assert found.about[0] == "人才落户、柔性引进人才"
    assert (found.was, found.becomes) == ({"绿色通道": "适用", "各部门时限": "至多 5 个工作日"}, {})
    assert found.effect == harmed


def run(line: str) -> Result:
    return CliRunner().invoke(app, line.split())


def test_explain_says_whether_an_item_goes_through_it_and_check_what_is_assumed(tmp_path: Path) -> None:
    question = "policy explain --category master --on 2026-03-02 --item"
    told = run(f"{question} children_schooling").stdout
    assert "绿色通道：优先办理，各部门时限至多 5 个工作日\n   依据：安人才〔2021〕4 号第六条 green-channel" in told
    assert "绿色通道" not in run(f"{question} talent_certification").stdout
    as_json = [json.loads(run(f"{question} {item} --json").stdout) for item in ("medical_care", "living_allowance")]
    assert [each["green_channel"] for each in as_json] == [
        {
            "rule": "green-channel.introduced",
            "limit_working_days": 5,
            "source": "安人才〔2021〕4 号第六条",
            "assumption": True,
        },
        None,
    ]
    assert "green-channel.introduced：文件只要求建立引进人才绿色通道" in run(f"policy check {ANYANG}").stdout
    text, wrong = edited((LIMIT, LIMIT.replace("5", "10"))), tmp_path / "wrong.yaml"
    wrong.write_text(text, encoding="utf-8")
    refused = run(f"policy check {wrong}")
    line = 1 + text[: text.index("    limit_working_days: 10\n    document")].count("\n")
    assert (refused.exit_code, f"第 {line} 行：green_channels[1].limit_" in refused.stdout) == (1, True)
