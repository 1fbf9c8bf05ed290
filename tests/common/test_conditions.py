"""Conditions: what is refused at load, and that what is missing never turns into a no."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.policy.conditions import ConditionWrong, FactValueType, compile_condition, in_words, without_value
from libs.common.policy.model import Fact, FactFrom, FactType, FactValue
from tests.common.packs import anyang

DEGREES = ("doctor", "master", "none")


def a_fact(name: str, kind: FactType) -> Fact:
    values = tuple(FactValue(code=code, title=code) for code in DEGREES) if kind is FactType.STRING else ()
    stated_by = FactFrom.PLATFORM if name == "person.age" else FactFrom.APPLICANT
    return Fact(name=name, title=name, type=kind, stated_by=stated_by, values=values, document="d", article="第一条")


FACTS = (
    a_fact("person.degree", FactType.STRING),
    a_fact("person.age", FactType.INT),
    a_fact("person.settled", FactType.BOOL),
    a_fact("employer.sound", FactType.BOOL),
)
VALUES: Mapping[str, st.SearchStrategy[FactValueType]] = {
    "person.degree": st.sampled_from(DEGREES),
    "person.age": st.integers(0, 120),
    "person.settled": st.booleans(),
    "employer.sound": st.booleans(),
}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("person.degre == 'master'", "条件第 1 行第 7 列：facts 中没有声明 person.degre，"),
        ("person.age == 'master'", "条件第 1 行第 12 列：== 不能用于（整数、文本）"),
        ("person.settled &&\n  person.age", "条件第 1 行第 16 列：&& 不能用于（是否值、整数）"),
        ("person.age in 3", "条件第 1 行第 12 列：in 不能用于（整数、整数）"),
        ("person.degree == 'master' ||", "条件第 1 行第 29 列：条件没有写完"),
        ("person.settled and true", "条件第 1 行第 16 列：and 在此处不合写法"),
        ("person.degree == “master”", "条件第 1 行第 18 列：“ 在此处不合写法"),
        ("person.degree.code == 'master'", "条件第 1 行第 14 列：这样写不能识别，请改正（expression of type"),
        ("person.degree", "条件的结果是文本，应为是或否"),
        ("person.settled || person.degree == 'mastr'", "条件第 1 行第 36 列：所用的情况都没有值 'mastr'"),
        (
            'person.degree in ["master",\n  "docter"]',
            "条件第 2 行第 3 列：所用的情况都没有值 'docter'，请改正，可用：doctor、master、none。",
        ),
        ("(" * 900 + "true" + ")" * 900, "请拆成几个条件"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_place(source: str, told: str) -> None:
    with pytest.raises(ConditionWrong) as refused:
        compile_condition(source, FACTS)
    assert told in str(refused.value)


def test_a_condition_that_never_ends_its_work_is_refused() -> None:
    ones = f"[{','.join('1' * 20)}]"
    source = "true"
    for n in range(12):
        source = f"{ones}.all(x{n}, {source})"
    with pytest.raises(ConditionWrong, match="不要对列表逐项循环"):
        compile_condition(source, FACTS)


@pytest.mark.parametrize(
    ("facts", "holds"),
    [
        ({"person.degree": "master", "person.age": 39}, True),
        ({"person.degree": "master", "person.age": 40}, None),
        ({"person.degree": "master"}, None),
        ({"person.degree": "none", "person.settled": False}, False),
        ({"person.degree": "none"}, None),
        ({"person.settled": True}, True),
        ({}, None),
    ],
)
def test_what_is_missing_counts_only_where_it_could_matter(
    facts: Mapping[str, FactValueType], holds: bool | None
) -> None:
    compiled = compile_condition("person.degree == 'master' && person.age < 40 || person.settled", FACTS)
    assert compiled.uses == ("person.degree", "person.age", "person.settled")
    assert compiled.holds(facts) is holds


@pytest.mark.parametrize(
    ("source", "undecided"),
    [
        ("person.degree == 'master' && person.age < 40 || person.settled", None),
        ("person.age > 0 && 100 / person.age > 2", None),
        ("person.settled && 100 / person.age > 2", {"person.age": 0, "person.settled": True}),
        ("100 % (person.age - 18) == 0", {"person.age": 18}),
        ("person.age * 100000000 > 1", {"person.age": 10**12}),
        ("[1][5] == 1", {}),
    ],
)
def test_a_condition_that_says_neither_yes_nor_no_of_what_is_known_is_found(
    source: str, undecided: Mapping[str, FactValueType] | None
) -> None:
    assert without_value(source, FACTS) == undecided


ATOMS = st.sampled_from(
    [
        "person.settled",
        "employer.sound",
        "person.age < 40",
        "person.age >= 18",
        "person.degree == 'doctor'",
        "person.degree in ['master', 'doctor']",
        "(person.settled ? employer.sound : person.age > 30)",
        "100 / person.age > 2",
    ]
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} && {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} || {two[1]})"),
    ),
    max_leaves=6,
)


@given(source=EXPRESSIONS, whole=st.fixed_dictionaries(dict(VALUES)), known=st.sets(st.sampled_from(sorted(VALUES))))
def test_a_verdict_on_part_of_the_facts_is_the_verdict_on_all_of_them(
    source: str, whole: Mapping[str, FactValueType], known: set[str]
) -> None:
    compiled = compile_condition(source, FACTS)
    on_part = compiled.holds({name: value for name, value in whole.items() if name in known})
    assert on_part in {None, compiled.holds(whole)}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("person.targeted_selection", "定向类选调生"),
        ("person.degree in ['master', 'doctor']", "最高学位属于[硕士,博士]"),
        (
            "person.startup_here\n && !(person.household_here || person.insured_here)",
            "在我市创业，且非(在我市落户，或在我市参保)",
        ),
        ('person.degree != "none"', "最高学位不为无学位"),
    ],
)
def test_a_condition_is_told_in_words(source: str, words: str) -> None:
    assert in_words(source, anyang().facts) == words
