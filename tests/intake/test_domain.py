"""The rules of a filing, without a database: whatever is missing is told, and told at once."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.treasuries import Affiliation, AffiliationKind
from services.intake.domain import REASONS, TITLES, TRANSITIONS, Certified, Known, NotPossibleNow, State, examine, move
from services.intake.filing import Filing, corrected, read_filing
from tests.common.packs import anyang
from tests.intake.builders import (
    CITY,
    COUNTY,
    DISTRICT,
    PAPERS,
    a_certification_number,
    a_filing,
    a_mandate,
    a_person,
    an_account,
    an_employer,
    licences,
)

TODAY = date(2026, 3, 2)
PACK = anyang()
NOTHING = Known()
NUMBER, OTHER = a_certification_number(1), a_certification_number(2)


def read(**changes: Any) -> Filing:
    return read_filing(a_filing(**changes), PACK, TODAY)


def told(filing: Filing, known: Known = NOTHING) -> set[str]:
    return {defect.code for defect in examine(PACK, filing, known, TODAY).defects}


# Each way to spoil a filing, with the one defect that it makes.
SPOILT: dict[str, dict[str, Any]] = {
    "payee-account-missing": {"payee_account": None},
    "material-missing": {"materials": licences(*PAPERS[1:])},
    "authority-missing": {"handler": {"person": a_person("李经办")}},
    "handler-missing": {"handler": None},
    "affiliation-missing": {"employer": an_employer(affiliations=[])},
    "document-expired": {
        "beneficiary": {
            "name": "王小明",
            "documents": [{"type": "passport", "number": "E12345678", "to": "2026-03-01"}],
        }
    },
}


@settings(max_examples=60)
@given(st.sets(st.sampled_from(sorted(SPOILT))))
def test_all_defects_are_told_at_once_and_no_others(codes: set[str]) -> None:
    codes -= {"handler-missing"} if "authority-missing" in codes else set()  # there is one, or there is none
    changes = {field: value for code in codes for field, value in SPOILT[code].items()}
    assert told(read(**changes)) == codes


@settings(max_examples=60)
@given(st.sets(st.sampled_from(PAPERS)), st.sets(st.sampled_from(PAPERS)))
def test_a_material_is_missing_exactly_where_neither_stated_nor_uploaded(stated: set[str], uploaded: set[str]) -> None:
    filing = read(materials=licences(*stated))
    defects = examine(PACK, filing, Known(uploaded=uploaded), TODAY).defects
    assert {defect.material for defect in defects} == set(PAPERS) - stated - uploaded


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.dates(date(2020, 1, 1), date(2030, 1, 1)))
def test_an_authority_holds_from_its_first_to_its_last_day(one: date, other: date) -> None:
    first, last = sorted((one, other))
    authority = a_mandate(first.isoformat(), last.isoformat())
    filing = read(handler={"person": a_person("李经办"), "authority": authority})
    assert told(filing) == (set() if first <= TODAY <= last else {"authority-expired"})


@pytest.mark.parametrize(
    ("authority", "code"),
    [
        ({"kind": "power_of_attorney", "evidence": "委托书"}, "authority-open"),
        ({"kind": "self"}, "authority-not-self"),
        ({**a_mandate(), "evidence": None}, "authority-evidence-missing"),
    ],
)
def test_an_authority_out_of_order_says_how(authority: dict[str, Any], code: str) -> None:
    assert told(read(handler={"person": a_person("李经办"), "authority": authority})) == {code}


def test_expired_documents_of_every_party_are_told_but_not_those_of_the_family() -> None:
    def expired(name: str) -> dict[str, Any]:
        last_day = {"type": "passport", "number": "E12345678", "to": "2026-03-02"}
        return {"name": name, "documents": [last_day, {"type": "passport", "number": "E87654321", "to": "2026-03-01"}]}

    filing = read(
        beneficiary=expired("王小明") | {"links": [{"relation": "spouse", "person": expired("赵大")}]},
        applicant={"kind": "person", "person": expired("王小明")},
        handler={"person": expired("李经办"), "authority": a_mandate()},
    )
    assert [(defect.code, defect.field) for defect in examine(PACK, filing, NOTHING, TODAY).defects] == [
        ("document-expired", f"/{party}/documents/1") for party in ("beneficiary", "applicant/person", "handler/person")
    ]


def test_who_applies_for_themselves_may_handle_it_themselves() -> None:
    me = a_person()
    filing = read(beneficiary=me, applicant={"kind": "person"}, handler={"person": me, "authority": {"kind": "self"}})
    assert told(filing) == set()


ME, OTHER_PERSON = a_person("王小明"), a_person("赵大")
POWER = {"kind": "power_of_attorney", "from": "2020-01-01", "to": "2099-12-31", "evidence": "委托书 1 号"}
FOR_ANOTHER = {"kind": "person", "person": OTHER_PERSON}


@pytest.mark.parametrize(
    ("applicant", "handler", "wrong"),
    [
        ({"kind": "person"}, None, None),
        ({"kind": "person", "person": ME}, None, None),
        ({"kind": "employer"}, None, ("handler-missing", "/handler")),
        (
            {"kind": "employer"},
            {"person": ME, "authority": {"kind": "self"}},
            ("authority-not-self", "/handler/authority"),
        ),
        ({"kind": "employer"}, {"person": OTHER_PERSON, "authority": a_mandate()}, None),
        (FOR_ANOTHER, None, ("authority-missing", "/handler")),
        (FOR_ANOTHER, {"person": OTHER_PERSON}, ("authority-missing", "/handler/authority")),
        (
            FOR_ANOTHER,
            {"person": OTHER_PERSON, "authority": {"kind": "self"}},
            ("authority-not-self", "/handler/authority"),
        ),
        (FOR_ANOTHER, {"person": OTHER_PERSON, "authority": POWER}, None),
        ({"kind": "person"}, {"person": OTHER_PERSON, "authority": POWER}, None),
    ],
)
def test_who_files_for_another_needs_an_authority_and_without_one_claims_nothing(
    applicant: dict[str, Any], handler: dict[str, Any] | None, wrong: tuple[str, str] | None
) -> None:
    verdict = examine(PACK, read(beneficiary=ME, applicant=applicant, handler=handler), NOTHING, TODAY)
    assert [(defect.code, defect.field) for defect in verdict.defects] == ([wrong] if wrong else [])
    assert verdict.unsure == bool(wrong)


def test_an_employers_mandate_needs_an_employer() -> None:
    handler = {"person": a_person("李经办"), "authority": a_mandate()}
    filing = read(employer=None, region=COUNTY, applicant={"kind": "person"}, handler=handler)
    assert told(filing) == {"authority-without-employer"}


def test_the_account_must_be_the_beneficiarys_own() -> None:
    assert told(read(payee_account=an_account("赵大"))) == {"payee-holder-differs"}


@pytest.mark.parametrize(
    ("items", "codes"),
    [
        ([{"code": "talent_certification"}], {"category-missing"}),
        ([{"code": "living_allowance"}], {"certification-missing"}),
        ([{"code": "living_allowance", "certification": NUMBER}], set()),
        ([{"code": "living_allowance", "certification": OTHER}], {"certification-unknown"}),
        (
            [{"code": "talent_flat", "certification": OTHER}, {"code": "talent_certification"}],
            {"certification-unknown", "category-missing"},
        ),
    ],
)
def test_a_benefit_needs_a_certification_and_that_a_category(items: list[dict[str, Any]], codes: set[str]) -> None:
    papers = licences(*PAPERS, "housing_statement")
    known = Known(certifications={NUMBER: Certified("master", TODAY)})
    assert told(read(items=items, materials=papers), known) == codes


def test_a_certification_counts_through_its_last_day() -> None:
    filing = read(items=[{"code": "living_allowance", "certification": NUMBER}])
    yesterday = Known(certifications={NUMBER: Certified("master", TODAY - timedelta(days=1))})
    [defect] = examine(PACK, filing, yesterday, TODAY).defects
    assert (defect.code, defect.field, defect.item) == (
        "certification-expired", "/items/0/certification", "living_allowance",
    )  # fmt: skip
    assert "2026-03-01" in defect.detail


@pytest.mark.parametrize("benefit", ["living_allowance", "purchase_subsidy"])
def test_a_category_that_a_benefit_names_itself_does_not_get_round_an_exclusion(benefit: str) -> None:
    certification = {"code": "flexible_certification", "category": "flexible"}
    filing = read(items=[certification, {"code": benefit, "category": "doctor"}])
    assert examine(PACK, filing, NOTHING, TODAY).reason == "not-covered"
    later = read(items=[{"code": benefit, "category": "doctor", "certification": NUMBER}])
    held = Known(certifications={NUMBER: Certified("flexible", TODAY)})
    assert examine(PACK, later, held, TODAY).reason == "not-covered"


def test_fiscal_affiliation_decides_before_the_others_and_the_record_where_none_is_given() -> None:
    both = [
        {"kind": "tax", "treasury": DISTRICT, "evidence": "税"},
        {"kind": "fiscal", "treasury": COUNTY, "evidence": "财政"},
    ]
    verdict = examine(PACK, read(employer=an_employer(affiliations=both)), NOTHING, TODAY)
    assert (verdict.treasury, verdict.platform) == (COUNTY, COUNTY)
    on_record = (Affiliation(kind=AffiliationKind.FISCAL, treasury=CITY, valid_from=date(2021, 3, 23)),)
    silent = read(employer=an_employer(affiliations=[]))
    assert examine(PACK, silent, Known(affiliations=on_record), TODAY).treasury == CITY


def test_two_affiliations_that_disagree_are_left_to_people() -> None:
    both = [{"kind": "fiscal", "treasury": code, "evidence": "财政"} for code in (COUNTY, DISTRICT)]
    assert examine(PACK, read(employer=an_employer(affiliations=both)), NOTHING, TODAY).reason == "manual-decision"


def test_a_central_units_certification_alone_needs_no_decision_of_people() -> None:
    employer = an_employer(kind="central_or_provincial")
    certification = {"code": "talent_certification", "category": "doctor"}
    assert examine(PACK, read(employer=employer, items=[certification]), NOTHING, TODAY).reason is None
    assert examine(PACK, read(employer=employer), NOTHING, TODAY).reason == "manual-decision"


@given(st.sampled_from(list(State)), st.sampled_from(sorted({command for _, command in TRANSITIONS})))
def test_a_state_allows_exactly_what_the_table_says(state: State, command: str) -> None:
    if (state, command) in TRANSITIONS:
        assert move(state, command) is TRANSITIONS[state, command]
    else:
        with pytest.raises(NotPossibleNow):
            move(state, command)


def test_every_state_and_reason_has_its_chinese_words() -> None:
    assert {state.value for state in State} <= set(TITLES)
    assert all(any("一" <= char <= "鿿" for char in words) for words in [*TITLES.values(), *REASONS.values()])


@given(st.sets(st.sampled_from(PAPERS)), st.sets(st.sampled_from(PAPERS)))
def test_materials_of_a_correction_join_those_filed(filed: set[str], added: set[str]) -> None:
    made = corrected({"materials": licences(*filed)}, {"materials": licences(*added)})
    assert {material["code"] for material in made["materials"]} == filed | added
    assert corrected(a_filing(), {"region": COUNTY})["region"] == COUNTY
