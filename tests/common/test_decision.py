"""Decisions: every clause that bears is told, and verdict and explanation are one."""

from collections.abc import Mapping
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.policy import Decision, NoRuleInForce, Screening, UnknownCode, Verdict, decide, fact_faults, review
from libs.common.policy.conditions import FactValueType
from libs.common.policy.model import FactType
from tests.common.packs import a_pack, anyang, reviewed

DAY = date(2026, 3, 2)
SOUND: Mapping[str, FactValueType] = {
    "person.degree": "master",
    "employer.good_standing": True,
    "employer.demand_declared": True,
}
REVIEWED = a_pack(reviewed("living_allowance"))
OF_TYPE: Mapping[FactType, st.SearchStrategy[FactValueType]] = {
    FactType.BOOL: st.booleans(),
    FactType.INT: st.integers(-1000, 1000),
}
FACTS = st.fixed_dictionaries(
    {},
    optional={
        fact.name: OF_TYPE[fact.type] if fact.type in OF_TYPE else st.sampled_from([v.code for v in fact.values])
        for fact in anyang().facts
    },
)


@pytest.mark.article("第二条")
def test_each_clause_is_told_with_what_was_seen_and_where_it_stands() -> None:
    decision = decide(anyang(), item="talent_certification", category="master", facts=SOUND, on=DAY)
    assert decision.verdict is Verdict.PASSED
    told = {clause.rule.id: clause for clause in decision.clauses}
    assert set(told) == {
        "item.talent-certification",
        "condition.employer-in-good-standing",
        "condition.demand-declared",
        "condition.master",
    }
    degree = told["condition.master"]
    assert [(seen.fact.title, seen.words) for seen in degree.seen] == [("最高学位", "硕士")]
    assert told["condition.demand-declared"].rule.article == "第二条"


@pytest.mark.article("第二条")
def test_what_is_not_known_is_named_with_the_material_that_shows_it() -> None:
    decision = decide(anyang(), item="talent_certification", category="master", facts={}, on=DAY)
    assert decision.verdict is Verdict.UNDETERMINED
    [degree] = [clause for clause in decision.clauses if clause.rule.id == "condition.master"]
    assert [(fact.name, fact.material) for fact in degree.missing] == [("person.degree", "degree_certificate")]


@pytest.mark.article("第二条")
@pytest.mark.parametrize("benefit", ["living_allowance", "purchase_subsidy"])
def test_flexible_talent_gets_every_benefit_but_the_two_subsidies(benefit: str) -> None:
    facts: Mapping[str, FactValueType] = {"person.science_technology": True}
    refused = decide(anyang(), item=benefit, category="flexible", facts=facts, on=DAY)
    assert [clause.rule.id for clause in refused.clauses if clause.verdict is Verdict.FAILED] == ["exclusion.flexible"]
    for other in ("talent_flat", "talent_apartment"):
        assert decide(anyang(), item=other, category="flexible", facts=facts, on=DAY).verdict is Verdict.PASSED


@given(facts=FACTS, known=st.sets(st.sampled_from(sorted(fact.name for fact in anyang().facts))))
def test_a_review_fails_only_by_what_is_known_and_its_explanation_is_its_verdict(
    facts: Mapping[str, FactValueType], known: set[str]
) -> None:
    def reviewed_by(facts: Mapping[str, FactValueType]) -> Decision:
        return review(REVIEWED, benefit="living_allowance", category="master", facts=facts, on=DAY)

    whole = reviewed_by(facts)
    partial = reviewed_by({name: value for name, value in facts.items() if name in known})
    assert [clause.rule.id for clause in whole.clauses] == ["still.insured", "still.in-good-standing"]
    for decision in (whole, partial):
        verdicts = [clause.verdict for clause in decision.clauses]
        assert decision.verdict is max(verdicts, key=[Verdict.PASSED, Verdict.UNDETERMINED, Verdict.FAILED].index)
        assert {clause.verdict for clause in decision.deciding} <= {decision.verdict}
        assert bool(decision.deciding) == (decision.verdict is not Verdict.PASSED)
        for clause in decision.clauses:
            (seen,) = clause.seen
            assert (clause.verdict is Verdict.UNDETERMINED) == (seen.value is None)
            assert [fact.name for fact in clause.missing] == ([seen.fact.name] if seen.value is None else [])
    for before, after in zip(partial.clauses, whole.clauses, strict=True):
        assert before.verdict in {after.verdict, Verdict.UNDETERMINED}


def test_a_condition_of_instalments_says_nothing_of_the_benefit_itself() -> None:
    facts = {**SOUND, "person.insured_here": False}
    decision = decide(REVIEWED, item="living_allowance", category="master", facts=facts, on=DAY)
    assert decision.verdict is Verdict.PASSED
    assert not review(anyang(), benefit="living_allowance", category="master", facts=facts, on=DAY).clauses
    assert not review(REVIEWED, benefit="purchase_subsidy", category="master", facts=facts, on=DAY).clauses


def test_everything_worth_asking_for_is_tried() -> None:
    found = {(each.item.code, each.category.code) for each in Screening(anyang(), DAY).decisions(SOUND)}
    assert ("talent_certification", "doctor") in found
    assert ("flexible_certification", "flexible") in found
    assert ("talent_certification", "flexible") not in found
    assert ("living_allowance", "flexible") in found


@pytest.mark.parametrize(
    ("item", "category", "error"),
    [("none", "master", UnknownCode), ("living_allowance", "none", UnknownCode)],
)
def test_a_code_that_the_pack_does_not_hold_is_no_verdict(item: str, category: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        decide(anyang(), item=item, category=category, facts={}, on=DAY)
    with pytest.raises(NoRuleInForce):
        decide(anyang(), item="living_allowance", category="master", facts={}, on=date(2021, 3, 22))


def test_facts_of_another_name_or_type_are_told_together() -> None:
    stated = {"person.degree": "magister", "person.beauty": True, "person.household_here": 1, "person.age": 30}
    assert [(fault.name, fault.code) for fault in fact_faults(anyang(), stated)] == [
        ("person.degree", "unknown-fact-value"),
        ("person.beauty", "unknown-fact"),
        ("person.household_here", "fact-wrong-type"),
        ("person.age", "unknown-fact"),
    ]
    assert fact_faults(anyang(), SOUND) == []


@given(facts=FACTS, known=st.sets(st.sampled_from(sorted(fact.name for fact in anyang().facts))))
def test_missing_facts_never_turn_into_a_no_and_the_explanation_is_the_verdict(
    facts: Mapping[str, FactValueType], known: set[str]
) -> None:
    part = {name: value for name, value in facts.items() if name in known}
    screening = Screening(anyang(), DAY)
    entitled = {each.item.code: each for each in screening.entitled(facts)}
    assert all(each.verdict is Verdict.PASSED for each in entitled.values())
    for whole, partial in zip(screening.decisions(facts), screening.decisions(part), strict=True):
        assert partial.verdict in {whole.verdict, Verdict.UNDETERMINED}
        assert (whole.verdict is Verdict.PASSED) <= (whole.item.code in entitled)
        verdicts = [clause.verdict for clause in whole.clauses]
        assert (whole.verdict is Verdict.FAILED) == (Verdict.FAILED in verdicts)
        assert (whole.verdict is Verdict.PASSED) == (set(verdicts) == {Verdict.PASSED})
        for clause in whole.clauses:
            assert clause.sentence
            assert bool(clause.missing) <= (clause.verdict is Verdict.UNDETERMINED)


def test_a_new_version_of_a_condition_counts_from_the_day_of_acceptance() -> None:
    stricter = """
  - id: condition.master.2027
    code: master_degree
    title: 硕士以上学位
    categories: [master]
    when: person.degree == 'master'
    passed: 具有硕士学位
    failed: 没有硕士学位
    undetermined: 未说明最高学位
    document: anyang-2021-4
    article: 第二条
    valid_from: 2027-01-01
    version_by: accepted_on
"""
    master = "    undetermined: 未说明最高学位，请填写并提交学历学位证书\n    document: anyang-2020-2\n"
    master += "    valid_from: 2021-03-23\n"
    old = f"    failed: 没有硕士以上学位；请按实际学位改报人才类别\n{master}"
    pack = a_pack(
        (old, old.replace("2021-03-23\n", "2021-03-23\n    valid_to: 2026-12-31\n")),
        ("\nconditions:\n", f"\nconditions:{stricter}"),
        ('version: "2021-4.4"', 'version: "2027-1"'),
    )
    facts = {**SOUND, "person.degree": "doctor"}

    def verdict(on: date) -> Verdict:
        return decide(pack, item="talent_certification", category="master", facts=facts, on=on).verdict

    assert (verdict(date(2026, 12, 31)), verdict(date(2027, 1, 1))) == (Verdict.PASSED, Verdict.FAILED)


def test_who_is_entitled_by_several_categories_gets_the_one_that_gives_most() -> None:
    found = {each.item.code: each for each in Screening(anyang(), DAY).entitled({**SOUND, "person.degree": "doctor"})}
    assert found["living_allowance"].category.code == "doctor"
    assert found["living_allowance"].fen == 5_400_000
    assert found["talent_certification"].category.code == "doctor"
    assert Screening(anyang(), DAY).entitled({}) == []
