"""A second city joins with a policy file: the pack of an invented one, and the population that is made from a pack."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deploy.refusals import Refusal
from deploy.rules_cli import policy as rules
from deploy.sample.any_city import AnyCity, population_of
from deploy.sample.flats import flats_of
from deploy.sample.generate import anyang as anyangs_policy
from deploy.sample.issuer import TOKEN_ROLES, token
from deploy.sample.lines import Line
from deploy.sample.pages import visitors
from deploy.sample.policy import Policy
from deploy.sample.portal import read_population
from deploy.served import served_file, served_policy
from libs.common.auth import ORG_UNIT_ROLES, Verifier
from libs.common.policy import Pack, PolicyDates, load_pack, split
from libs.common.policy.cases import run_cases, untested
from libs.common.policy.model import BenefitForm, ClaimSubject, Contents, FlatKind, ItemKind
from libs.common.settings import Settings
from services.intake.filing import FilingWrong, corrected
from tests.common.packs import ANYANG, anyang
from tests.conftest import ROOT
from tests.intake.builders import judgement

CITIES = ROOT / "deploy" / "cities"
LANTING = CITIES / "lanting" / "2025-1.yaml"
DAY = date(2026, 3, 2)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(load_pack(LANTING), DAY)


@pytest.fixture(scope="module")
def lines(policy: Policy) -> Sequence[Line]:
    return population_of(policy)


# -- the pack


def test_every_case_of_the_second_city_comes_out_as_it_says_and_no_rule_is_without_one(policy: Policy) -> None:
    files = sorted((LANTING.parent / "cases").glob("*.yaml"))
    runs = [run for path in files for run in run_cases(policy.pack, path.read_bytes(), path.name)]
    assert [(run.line, run.differs) for run in runs if run.differs] == []
    assert untested(policy.pack, runs) == []


def test_it_shares_no_code_of_items_categories_or_treasuries_with_the_first(policy: Policy) -> None:
    def codes(pack: Contents) -> set[str]:
        rules = {each.code for each in (*pack.items, *pack.categories, *pack.coverages)}
        return rules | {each.code for each in pack.treasuries}

    assert codes(policy.pack) & codes(anyang()) == set()


def test_three_treasuries_share_one_payment_by_the_ratio_of_the_day_of_acceptance(policy: Policy) -> None:
    def shares(accepted_on: date, due_on: date) -> dict[str, int]:
        when = PolicyDates(accepted_on=accepted_on, due_on=due_on)
        found = split(policy.pack, benefit="settling_allowance", treasury="990102", on=when, total_fen=1_000)
        return dict(found.shares)

    assert shares(date(2027, 12, 31), date(2028, 6, 1)) == {"990102": 320, "990100": 280, "990171": 200}
    assert shares(date(2028, 1, 1), date(2028, 6, 1)) == {"990102": 400, "990100": 240, "990171": 160}


WORKING = "    when: person.working_here\n"


@pytest.mark.parametrize(
    ("when", "facts"),
    [
        (WORKING, {"person.working_here": True, "person.insured_here": True}),
        ("    when: '!person.working_here'\n", {"person.working_here": False, "person.insured_here": True}),
        (
            "    when: person.years_of_practice == 3 && person.professional_grade != 'senior' || person.working_here\n",
            {
                "person.years_of_practice": 0,
                "person.professional_grade": "senior",
                "person.working_here": True,
                "person.insured_here": True,
            },
        ),
        (
            "    when: person.years_of_practice >= 5 && person.age > 1200 && person.working_here\n",
            {
                "person.years_of_practice": 5,
                "person.age": 1201,
                "person.working_here": True,
                "person.insured_here": True,
            },
        ),
    ],
)
def test_a_review_of_the_sample_states_facts_that_pass_whatever_the_pack_asks(
    when: str, facts: dict[str, bool | int | str]
) -> None:
    pack = Pack.parse(LANTING.read_text(encoding="utf-8").replace(WORKING, when).encode())
    assert Policy(pack, DAY).still_holding("settling_allowance", "skilled") == facts


def test_where_no_answer_passes_a_review_the_sample_says_so() -> None:
    never = WORKING.replace("person.working_here", "person.working_here && !person.working_here")
    pack = Pack.parse(LANTING.read_text(encoding="utf-8").replace(WORKING, never).encode())
    with pytest.raises(LookupError, match="passes the review of settling_allowance"):
        Policy(pack, DAY).still_holding("settling_allowance", "skilled")
    assert Policy(pack, DAY).still_holding("startup_award", "skilled") == {}


def test_its_benefits_are_a_households_and_its_flats_are_said_in_the_pack(policy: Policy) -> None:
    benefit = policy.pack.benefit("settling_allowance", DAY)
    assert (benefit.form, benefit.claim_subject) == (BenefitForm.MONEY, ClaimSubject.HOUSEHOLD)
    assert policy.flat_kinds == [FlatKind.TRANSITIONAL, FlatKind.APARTMENT]


# -- which city is served


def test_a_deployment_serves_the_city_of_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served_file() == ANYANG
    monkeypatch.setenv("HUANQUAN_POLICIES", str(CITIES))
    assert served_file() == LANTING
    assert served_policy(CITIES).city == "990100"


def test_a_folder_of_two_cities_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="holds no policy: put the packs of a city into a folder of its own"):
        served_policy(tmp_path)
    for path in (ANYANG, LANTING):
        (tmp_path / path.parent.name).mkdir()
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    with pytest.raises(Refusal, match="holds policies of anyang, lanting; a deployment serves one"):
        served_policy(tmp_path)


def test_a_folder_whose_policy_has_not_begun_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lanting").mkdir()
    text = LANTING.read_text(encoding="utf-8").replace("2025-01-01", "2999-01-01").replace("2027-12-31", "3000-12-31")
    later = text.replace("2028-01-01", "3001-01-01")
    (tmp_path / "lanting" / "2025-1.yaml").write_text(later, encoding="utf-8")
    with pytest.raises(Refusal, match="holds no policy that is in force on"):
        served_policy(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "split --benefit settling_allowance --treasury 990102 --on 2026-03-02 --fen 100 --json",
        f"check {LANTING} --json",
    ],
)
def test_the_commands_ask_the_policy_that_is_served(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUANQUAN_POLICIES", str(CITIES))
    told = CliRunner().invoke(rules, line.split())
    assert told.exit_code == 0, told.output
    assert '"city": "lanting"' in told.stdout


@pytest.mark.parametrize("role", TOKEN_ROLES)
async def test_a_token_without_an_org_unit_is_of_the_city_that_is_served(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUANQUAN_HOME", str(tmp_path))
    monkeypatch.setenv("HUANQUAN_POLICIES", str(CITIES))
    app = typer.Typer()
    app.command()(token)
    printed = CliRunner().invoke(app, ["--role", role])
    settings = Settings()
    verifier = Verifier(str(settings.jwks), issuer=str(settings.issuer), audience=settings.audience)
    caller = await verifier.verify(printed.output.strip())
    assert caller.treasury == ("990100" if role in ORG_UNIT_ROLES else None)


def test_the_first_page_shows_offices_of_the_city_that_is_served(policy: Policy) -> None:
    units = [visitor.unit.split("/") for visitor in visitors(policy) if visitor.unit]
    assert {treasury for treasury, _ in units} == {"990103"}
    assert {department for _, department in units} == {
        *("police", "personnel", "government_services", "talent_office", "finance", "housing")
    }


# -- the population made from a pack


def test_anyangs_population_and_flats_are_the_fixed_ones() -> None:
    assert population_of(anyangs_policy()) == read_population()
    assert len(flats_of(anyangs_policy())) == 72


def test_one_pack_gives_one_population_also_years_later(lines: Sequence[Line], policy: Policy) -> None:
    again = population_of(replace(policy, on=date(2029, 7, 1)))
    assert [line.to_json() for line in again] == [line.to_json() for line in lines]
    assert len(lines) <= 70


def test_it_is_of_every_treasury_kind_item_and_category(lines: Sequence[Line], policy: Policy) -> None:
    items = [item for line in lines for item in line.body["items"]]
    assert {item["code"] for item in items} == {item.code for item in policy.pack.items}
    assert {policy.pack.item(item["code"], DAY).kind for item in items} == set(ItemKind)
    assert {item["category"] for item in items if "category" in item} == set(policy.categories)
    seen = {
        (tie["treasury"], line.body["employer"]["kind"])
        for line in lines
        if line.expect == {"state": "closed"}
        and any(item["code"] == "settling_allowance" for item in line.body["items"])
        for tie in line.body["employer"].get("affiliations", ())
    }
    assert {(treasury, kind.value) for treasury in policy.places for kind in policy.employer_kinds} <= seen
    assert {line.org_unit for line in lines if line.org_unit} == {
        f"{platform.code}/government_services" for platform in policy.platforms
    }


def test_intake_judges_each_filing_as_the_population_says(lines: Sequence[Line], policy: Policy) -> None:
    for line in lines:
        if line.wave == 1:
            assert judged(policy, line.body) == foreseen(line), line.key
        if line.then and "correct" in line.then:
            assert judged(policy, corrected(line.body, line.then["correct"])) == "accepted", line.key


def test_a_population_can_be_made_from_anyangs_pack_too() -> None:
    policy = Policy(anyang(), DAY)
    lines = AnyCity(policy).fill()
    assert {item["code"] for line in lines for item in line.body["items"]} == {item.code for item in policy.pack.items}
    for line in lines:
        if line.wave == 1:
            assert judged(policy, line.body) == foreseen(line), line.key


def judged(policy: Policy, body: dict[str, object]) -> str:
    """What intake makes of a filing."""
    try:
        return judgement(policy.pack, body, DAY)
    except FilingWrong:
        return "refused with 422"


def foreseen(line: Line) -> str:
    if line.expect.get("status") == 422:
        return "refused with 422"
    if line.expect["state"] in {"not_accepted", "transferred"}:
        return str(line.expect["state"])
    handler = line.body.get("handler")
    wants = bool(line.then and {"correct", "upload"} & line.then.keys())
    return "correction" if wants or (handler and "authority" not in handler) else "accepted"


def test_whoever_was_given_one_home_asks_for_another_in_vain(lines: Sequence[Line], policy: Policy) -> None:
    [rule] = policy.pack.at_most_one
    asked = [{each["code"] for each in line.body["items"]} & set(rule.benefits) for line in lines]
    assert max(map(len, asked)) == 1
    [in_vain] = [
        line
        for line, codes in zip(lines, asked, strict=True)
        if codes and line.certification_of and line.expect.get("state") == "not_accepted"
    ]
    [first] = [line for line in lines if line.key == in_vain.certification_of and "same" not in line.expect][:1]
    assert first.body["beneficiary"] == in_vain.body["beneficiary"]
