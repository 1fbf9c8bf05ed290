"""A decision: every clause that bears on an item for a category of talent, with what was seen and what comes of it.

Verdict and explanation are one thing: the verdict is made from the clauses that are told, and from nothing else. A
fact that is not known leaves a clause undetermined and never turns into a no.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from libs.common.money import format_yuan
from libs.common.policy.conditions import Facts, FactValueType
from libs.common.policy.coverage import categories_of, certifies
from libs.common.policy.instalments import review_conditions
from libs.common.policy.model import (
    BenefitAmount,
    BenefitForm,
    Category,
    Condition,
    Exclusion,
    Fact,
    FactType,
    Item,
    ItemKind,
    Rule,
)
from libs.common.policy.pack import Pack


class Verdict(StrEnum):
    """What comes of a clause, and of a decision: the worst of its clauses."""

    PASSED = "pass"
    UNDETERMINED = "undetermined"
    FAILED = "fail"

    @property
    def words(self) -> str:
        """What people read."""
        return {"pass": "符合", "undetermined": "尚不能确定", "fail": "不符合"}[self]


class Seen(NamedTuple):
    """A fact that a clause looks at, and its value; None where it is not known."""

    fact: Fact
    value: FactValueType | None

    @property
    def words(self) -> str:
        """The value in Chinese."""
        if self.value is None:
            return "未知"
        if self.fact.type is FactType.BOOL:
            return "是" if self.value else "否"
        return self.fact.titles.get(str(self.value), str(self.value))


class Clause(NamedTuple):
    """One clause that was tried: the rule that it stands in, its name, the verdict and its sentence in Chinese."""

    rule: Rule
    title: str
    verdict: Verdict
    sentence: str
    seen: tuple[Seen, ...] = ()

    @property
    def says_no(self) -> bool:
        """Whether this clause alone decides against it."""
        return self.verdict is Verdict.FAILED

    @property
    def missing(self) -> tuple[Fact, ...]:
        """The facts that would have to be known; empty where the clause is determined."""
        if self.verdict is not Verdict.UNDETERMINED:
            return ()
        return tuple(each.fact for each in self.seen if each.value is None)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says of an item for a category on a day. `fen` is the whole of a money benefit that is asked
    for."""

    item: Item
    category: Category
    on: date
    clauses: tuple[Clause, ...]
    fen: int | None

    @property
    def verdict(self) -> Verdict:
        """No where a clause says no; undetermined where one is; else yes."""
        found = {clause.verdict for clause in self.clauses}
        return next((verdict for verdict in (Verdict.FAILED, Verdict.UNDETERMINED) if verdict in found), Verdict.PASSED)

    @property
    def says_no(self) -> bool:
        """Whether a clause says no."""
        return self.verdict is Verdict.FAILED

    @property
    def deciding(self) -> tuple[Clause, ...]:
        """The clauses that decided; none where every clause passes."""
        if self.verdict is Verdict.PASSED:
            return ()
        return tuple(clause for clause in self.clauses if clause.verdict is self.verdict)


def decide(pack: Pack, *, item: str, category: str, facts: Facts, on: date) -> Decision:
    """Try every clause on an item for a category. `on` is the day of acceptance; `facts` have passed `fact_faults`.

    Raises UnknownCode, NoRuleInForce.
    """
    return _decided(pack, _trial(pack, pack.item(item, on), pack.category(category, on), on), facts, {})


def review(pack: Pack, *, benefit: str, category: str, facts: Facts, on: date) -> Decision:
    """Try what must still hold before a later instalment of a benefit, of a person of a category. `on` is the day of
    acceptance, whose version binds every instalment; `facts` are those of the day of the review and have passed
    `fact_faults`. Raises UnknownCode, NoRuleInForce."""
    clauses = tuple(_tried(pack, rule, facts) for rule in review_conditions(pack, benefit=benefit, on=on))
    return Decision(pack.item(benefit, on), pack.category(category, on), on, clauses, None)


class Screening:
    """Everything that people could ask for on a day: each certification and each benefit, by each category that is
    worth trying. What does not depend on a person is looked up once, a condition tried once for each person."""

    def __init__(self, pack: Pack, on: date) -> None:
        self._pack = pack
        self._trials = [
            _trial(pack, item, pack.category(category, on), on)
            for item in pack.items
            if item.kind in {ItemKind.CERTIFICATION, ItemKind.BENEFIT} and item.covers(on)
            for category in worth_trying(pack, item=item.code, on=on)
        ]

    def decisions(self, facts: Facts) -> list[Decision]:
        """What the policy says of a person."""
        tried: dict[str, Clause] = {}
        return [_decided(self._pack, trial, facts, tried) for trial in self._trials]

    def entitled(self, facts: Facts) -> list[Decision]:
        """The items that a person is entitled to, each by the category that gives most: of several that give alike,
        the first of the pack. Of benefits of which one may be had each is given: what to choose is the person's."""
        tried: dict[str, Clause] = {}
        found = (next((it for it in trials if self._passes(it, facts, tried)), None) for trials in self._most_first)
        return [_decided(self._pack, trial, facts, tried) for trial in found if trial is not None]

    @cached_property
    def _most_first(self) -> list[list["_Trial"]]:
        """The trials of each item that some people pass, by what they give."""
        by_item: dict[str, list[_Trial]] = {}
        for trial in self._trials:
            if not any(clause.says_no for clause in trial.fixed):
                by_item.setdefault(trial.item.code, []).append(trial)
        return [sorted(trials, key=lambda trial: -(trial.fen or 0)) for trials in by_item.values()]

    def _passes(self, trial: "_Trial", facts: Facts, tried: dict[str, Clause]) -> bool:
        clauses = (_tried_once(self._pack, rule, facts, tried) for rule in trial.conditions)
        return all(clause.verdict is Verdict.PASSED for clause in clauses)


def worth_trying(pack: Pack, *, item: str, on: date) -> list[str]:
    """The categories by which an item could be asked for: those that a certification certifies, else all. Raises
    UnknownCode, NoRuleInForce."""
    if pack.item(item, on).kind is ItemKind.CERTIFICATION:
        return [category.code for category in categories_of(pack, item=item, on=on)]
    return [category.code for category in pack.categories if category.covers(on)]


class FactFault(NamedTuple):
    """What is wrong with a stated fact: its name, a stable code, and what to do in Chinese."""

    name: str
    code: str
    detail: str


def fact_faults(pack: Pack, stated: Mapping[str, object]) -> list[FactFault]:
    """What is wrong with facts as they were stated: names the pack does not declare, values of another type."""
    return [fault for name, value in stated.items() if (fault := _fault(pack.facts_by_name.get(name), name, value))]


def _fault(fact: Fact | None, name: str, value: object) -> FactFault | None:
    if fact is None:
        return FactFault(name, "unknown-fact", "请按 GET /intake/v1/policy 列出的事实名称填写。")
    match fact.type:
        case FactType.BOOL if not isinstance(value, bool):
            return FactFault(name, "fact-wrong-type", f"“{fact.title}”请填 true 或 false；不清楚的不填。")
        case FactType.INT if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 53:
            return FactFault(name, "fact-wrong-type", f"“{fact.title}”请填整数；不清楚的不填。")
        case FactType.STRING if value not in [each.code for each in fact.values]:
            known = "、".join(f"{each.code}（{each.title}）" for each in fact.values)
            return FactFault(name, "unknown-fact-value", f"“{fact.title}”可填：{known}；不清楚的不填。")
    return None


# -- the clauses


class _Trial(NamedTuple):
    """An item by a category on a day: the clauses that hold for everybody, and the conditions to be tried."""

    item: Item
    category: Category
    on: date
    fixed: tuple[Clause, ...]
    conditions: tuple[Condition, ...]
    fen: int | None


def _trial(pack: Pack, item: Item, category: Category, on: date) -> _Trial:
    amount = pack.find_rule(BenefitAmount, item.code, category.code, on=on)
    fixed = (
        *_certified(pack, item, category, on),
        *_excluded(pack, item, category, on),
        *_paid(pack, item, category, amount, on),
    )
    return _Trial(
        item, category, on, fixed, tuple(_conditions(pack, item, category, on)), amount.fen if amount else None
    )


def _decided(pack: Pack, trial: _Trial, facts: Facts, tried: dict[str, Clause]) -> Decision:
    conditions = (_tried_once(pack, rule, facts, tried) for rule in trial.conditions)
    clauses = (*trial.fixed, *conditions)
    return Decision(trial.item, trial.category, trial.on, clauses, trial.fen)


def _certified(pack: Pack, item: Item, category: Category, on: date) -> Iterator[Clause]:
    if item.kind is not ItemKind.CERTIFICATION:
        return
    if certifies(pack, item=item.code, category=category.code, on=on):
        yield Clause(item, "认定的类别", Verdict.PASSED, f"“{item.title}”认定“{category.title}”")
    else:
        sentence = f"“{item.title}”不认定“{category.title}”，请改报认定此类别的事项"
        yield Clause(item, "认定的类别", Verdict.FAILED, sentence)


def _excluded(pack: Pack, item: Item, category: Category, on: date) -> Iterator[Clause]:
    titles = {coverage.code: coverage.title for coverage in pack.coverages}
    for rule in pack.exclusions:
        if item.kind is not ItemKind.BENEFIT or item.code not in rule.benefits or not rule.covers(on):
            continue
        says = f"“{titles[rule.coverage]}”不享受“{item.title}”"
        if rule.coverage == category.coverage:
            yield Clause(rule, "不享受的人员", Verdict.FAILED, says)
        else:
            yield Clause(rule, "不享受的人员", Verdict.PASSED, f"{says}；“{category.title}”不在其列")


def _paid(pack: Pack, item: Item, category: Category, amount: BenefitAmount | None, on: date) -> Iterator[Clause]:
    if item.kind is not ItemKind.BENEFIT or pack.benefit(item.code, on).form is not BenefitForm.MONEY:
        return
    if amount is not None:
        yield Clause(amount, "标准", Verdict.PASSED, f"“{category.title}”的{item.title}为 {format_yuan(amount.fen)}")
    elif pack.find_rule(Exclusion, category.coverage, item.code, on=on) is None:
        yield Clause(pack.benefit(item.code, on), "标准", Verdict.FAILED, f"“{category.title}”没有{item.title}的标准")


def _conditions(pack: Pack, item: Item, category: Category, on: date) -> Iterator[Condition]:
    for rule in pack.conditions:
        named = category.coverage in rule.coverages or category.code in rule.categories or item.code in rule.items
        if named and rule.covers(on):
            yield rule


def _tried_once(pack: Pack, rule: Condition, facts: Facts, tried: dict[str, Clause]) -> Clause:
    if rule.id not in tried:
        tried[rule.id] = _tried(pack, rule, facts)
    return tried[rule.id]


def _tried(pack: Pack, rule: Condition, facts: Facts) -> Clause:
    compiled = pack.compiled[rule.id]
    seen = tuple(Seen(pack.facts_by_name[name], facts.get(name)) for name in compiled.uses)
    match compiled.holds(facts):
        case True:
            return Clause(rule, rule.title, Verdict.PASSED, rule.passed, seen)
        case False:
            return Clause(rule, rule.title, Verdict.FAILED, rule.failed, seen)
        case _:
            return Clause(rule, rule.title, Verdict.UNDETERMINED, rule.undetermined, seen)
