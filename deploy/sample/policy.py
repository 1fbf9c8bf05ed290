"""What the sample takes from a policy pack: places, offices, items, materials, and who may ask for what. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from itertools import islice, product
from typing import Any

from libs.common.policy import Pack, Verdict, certifies, decide, review
from libs.common.policy.model import (
    AffiliationOrder,
    AtMostOne,
    BenefitForm,
    Condition,
    Fact,
    FactType,
    FlatKind,
    Item,
    ItemKind,
    ManualDecisionRule,
    Platform,
    TaskLevel,
)
from libs.common.treasuries import AffiliationKind, EmployerKind

Json = dict[str, Any]
Facts = Mapping[str, bool | int | str]
PAYEE_ACCOUNT = "payee_account"
"""The material that the account stated in the filing itself fulfils."""

TRIES = 1000
"""How many answers to what a review asks are tried, until one passes."""

_FISCAL = frozenset({EmployerKind.INSTITUTION, EmployerKind.GOVERNMENT})


@dataclass(frozen=True)
class Policy:
    """A pack on a day of acceptance. `words` name places shortly where the treasuries' own titles would not do."""

    pack: Pack
    on: date
    words: Mapping[str, str] | None = None

    # -- where

    @cached_property
    def places(self) -> Mapping[str, str]:
        """The treasuries that employers and people belong to, by code, each with a short name of its place."""
        return self.words or {
            treasury.code: treasury.title.removesuffix("财政").removesuffix("本级")
            for treasury in self.pack.treasuries
            if treasury.covers(self.on) and self.pack.find_rule(ManualDecisionRule, treasury.kind, on=self.on) is None
        }

    @property
    def city(self) -> str:
        """The treasury of the city level."""
        return self.pack.city_treasury(self.on).code

    @property
    def example(self) -> str:
        """The treasury that examples are of."""
        codes = list(self.places)
        return codes[len(codes) // 2]

    @property
    def regions(self) -> Mapping[str, str]:
        """The first region that each treasury serves."""
        served = {code: self.pack.treasury(code, self.on).regions for code in self.places}
        found = {code: [each.region for each in regions if each.covers(self.on)] for code, regions in served.items()}
        return {code: regions[0] for code, regions in found.items() if regions}

    @property
    def platforms(self) -> Sequence[Platform]:
        """The platforms with a window."""
        return [platform for platform in self.pack.platforms if platform.covers(self.on)]

    @property
    def banks(self) -> Sequence[str]:
        """Invented banks of these places."""
        words = list(self.places.values())
        near, further = words[1 % len(words)], words[2 * len(words) // 3]
        return (
            f"示例银行{words[0]}分行",
            "示例农村商业银行",
            f"示例城市银行{near}支行",
            f"示例邮政储蓄银行{further}支行",
        )

    @property
    def departments(self) -> Sequence[str]:
        """The departments of a treasury that tasks go to, those of the pack's first items first."""
        return list(dict.fromkeys(code for code, level in self._tasks if level is not TaskLevel.CITY))

    @property
    def org_units(self) -> Sequence[tuple[str, str]]:
        """Every treasury and department that tasks go to."""
        central = {code for code, level in self._tasks if level is TaskLevel.CITY}
        local = {(treasury, department) for treasury in self.places for department in self.departments}
        return sorted(local | {(self.city, department) for department in central})

    @property
    def _tasks(self) -> list[tuple[str, TaskLevel]]:
        items = [item for item in self.pack.items if item.covers(self.on)]
        return [(task.department, task.level) for item in items for stage in item.stages for task in stage]

    # -- who

    @property
    def employer_kinds(self) -> Sequence[EmployerKind]:
        """The kinds of employers that the rules decide on."""
        return [kind for kind in EmployerKind if self.pack.find_rule(ManualDecisionRule, kind, on=self.on) is None]

    def affiliation(self, kind: EmployerKind) -> AffiliationKind:
        """How an employer of this kind belongs to its treasury: by budget or tax, where that is what counts."""
        wanted = AffiliationKind.FISCAL if kind in _FISCAL else AffiliationKind.TAX
        counting = self.pack.rule(AffiliationOrder, on=self.on).kinds
        return wanted if wanted in counting else counting[0]

    # -- what

    def items(self, kind: ItemKind) -> Sequence[Item]:
        """The items of a kind."""
        return [item for item in self.pack.items if item.kind is kind and item.covers(self.on)]

    def benefits(self, form: BenefitForm) -> Sequence[str]:
        """The benefits of a form."""
        return [each.code for each in self.pack.benefits if each.form is form and each.covers(self.on)]

    def instead_of(self, benefit: str) -> set[str]:
        """The benefits that cannot be had beside this one."""
        rule = self.pack.find_rule(AtMostOne, benefit, on=self.on)
        return set(rule.benefits) - {benefit} if rule else set()

    def flat_of(self, benefit: str) -> FlatKind | None:
        """The kind of flat that a benefit gives, if any. Raises UnknownCode, NoRuleInForce."""
        return self.pack.benefit(benefit, self.on).gives_flat

    @property
    def flat_kinds(self) -> Sequence[FlatKind]:
        """The kinds of flats that some benefit gives."""
        given = {self.flat_of(benefit) for benefit in self.benefits(BenefitForm.IN_KIND)}
        return [kind for kind in FlatKind if kind in given]

    @property
    def categories(self) -> Sequence[str]:
        """The categories of talent."""
        return [category.code for category in self.pack.categories if category.covers(self.on)]

    def certification(self, category: str) -> Json:
        """The certification of a category, as filed: the first item that is for it. Raises LookupError."""
        for item in self.items(ItemKind.CERTIFICATION):
            if certifies(self.pack, item=item.code, category=category, on=self.on):
                return {"code": item.code, "category": category}
        raise LookupError(f"no item certifies {category} on {self.on}")

    def open_to(self, category: str, items: Iterable[str], facts: Facts) -> bool:
        """Whether no rule says no to any of these items for a category, as far as the facts tell."""
        known = {name: value for name, value in facts.items() if name in self.pack.facts_by_name}
        return not any(
            decide(self.pack, item=item, category=category, facts=known, on=self.on).says_no for item in items
        )

    def still_holding(self, benefit: str, category: str) -> Facts:
        """Facts by which a review before a later instalment passes. Raises LookupError where none are found."""
        tries = partial(review, self.pack, benefit=benefit, category=category, on=self.on)
        clauses = tries(facts={}).clauses
        asked = dict.fromkeys(seen.fact for clause in clauses for seen in clause.seen)
        numbers = _numbers(clause.rule.when for clause in clauses if isinstance(clause.rule, Condition))
        answers = product(*([(fact.name, value) for value in _values(fact, numbers)] for fact in asked))
        for facts in map(dict, islice(answers, TRIES)):
            if tries(facts=facts).verdict is Verdict.PASSED:
                return facts
        raise LookupError(f"of {TRIES} answers none passes the review of {benefit} for {category}")

    def material_codes(self, item: str) -> Sequence[str]:
        """The materials that an item asks for."""
        return [material.code for material in self.pack.item(item, self.on).materials]

    def materials_of(self, items: Iterable[Json]) -> list[str]:
        """The materials that filed items ask for, each once; the account is told in the filing itself."""
        codes = dict.fromkeys(code for each in items for code in self.material_codes(each["code"]))
        return [code for code in codes if code != PAYEE_ACCOUNT]


def _values(fact: Fact, numbers: Sequence[int]) -> Sequence[bool | int | str]:
    match fact.type:
        case FactType.BOOL:
            return (True, False)
        case FactType.INT:
            return numbers
    return list(fact.titles)


def _numbers(conditions: Iterable[str]) -> Sequence[int]:
    """Nothing, and each number that a condition names with its neighbours: whatever a comparison tells apart."""
    named = {int(number) for condition in conditions for number in re.findall(r"\b[0-9]+\b", condition)}
    return sorted({0, *(number + step for number in named for step in (-1, 0, 1))} - {-1})
