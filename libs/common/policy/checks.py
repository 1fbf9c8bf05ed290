"""What must hold between the parts of a pack: a list of checks, each giving the places and reasons it finds.

Everything within one record is checked by its model; here stands what no record can see by itself.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from datetime import date, timedelta
from itertools import pairwise
from typing import TypeAlias

from libs.common.dated import Dated
from libs.common.policy.conditions import ConditionWrong, compile_condition
from libs.common.policy.model import (
    AFFILIATED,
    AffiliationOrder,
    BenefitAmount,
    BenefitForm,
    CertificationTerm,
    Cited,
    Contents,
    CorrectionTerms,
    EmployerShareRule,
    InstalmentPlan,
    ItemKind,
    Lights,
    OrderTerms,
    PackTreasury,
    PayoutTerms,
    Rule,
    SharingPlan,
)
from libs.common.policy.source import Path
from libs.common.treasuries import EmployerKind, TreasuryKind

Finding: TypeAlias = tuple[Path, str]
Check: TypeAlias = Callable[[Contents], Iterator[Finding]]
Placed: TypeAlias = tuple[Path, Dated]

_ALWAYS_NEEDED: tuple[type[Rule], ...] = (
    AffiliationOrder,
    PayoutTerms,
    OrderTerms,
    Lights,
    CorrectionTerms,
    CertificationTerm,
)


def identifiers_are_unique(pack: Contents) -> Iterator[Finding]:
    """Rule ids are unique in the pack; codes of documents, regions and departments in their list."""
    yield from _twice(((path, rule.id) for path, rule in _rules(pack)), "the rule id")
    for section, field in (("documents", "id"), ("regions", "code"), ("departments", "code"), ("facts", "name")):
        records = enumerate(getattr(pack, section))
        yield from _twice((((section, i), getattr(record, field)) for i, record in records), f"the {field}")


def citations_exist(pack: Contents) -> Iterator[Finding]:
    """Every rule cites a document of the stack, and an article that the document has."""
    articles = {document.id: document.articles for document in pack.documents}
    for path, record in _records(pack):
        if not isinstance(record, Cited):
            continue
        if record.document not in articles:
            yield (*path, "document"), f"no document {record.document} is in the stack"
        elif record.article is not None and record.article not in articles[record.document]:
            yield (*path, "article"), f"{record.document} has no article {record.article}"


def references_exist(pack: Contents) -> Iterator[Finding]:
    """Every code that a rule refers to is in the pack."""
    known = _known_codes(pack)
    for path, kind, code in _references(pack):
        if code not in known[kind]:
            yield path, f"no {kind} {code} is in the pack"


def benefits_have_items(pack: Contents) -> Iterator[Finding]:
    """An item of kind `benefit` and its benefit share one code, and neither is without the other."""
    items = {item.code for item in pack.items if item.kind is ItemKind.BENEFIT}
    benefits = {benefit.code for benefit in pack.benefits}
    for i, item in enumerate(pack.items):
        if item.kind is ItemKind.BENEFIT and item.code not in benefits:
            yield ("items", i, "code"), f"no benefit {item.code} is in the pack"
    for i, benefit in enumerate(pack.benefits):
        if benefit.code not in items:
            yield ("benefits", i, "code"), f"no item of kind benefit has the code {benefit.code}"


def versions_do_not_overlap(pack: Contents) -> Iterator[Finding]:
    """On every day one version at most is in force on a subject, and all versions go by the same date."""
    versions: dict[Hashable, list[Placed]] = defaultdict(list)
    for path, rule in _rules(pack):
        for subject in rule.subjects:
            versions[type(rule).__name__, subject].append((path, rule))
    for i, treasury in enumerate(pack.treasuries):
        versions["treasury", treasury.code].append((("treasuries", i), treasury))
        if treasury.kind is TreasuryKind.CITY_LEVEL:
            versions["city-level treasury"].append((("treasuries", i), treasury))
        for j, served in enumerate(treasury.regions):
            versions["region", served.region].append((("treasuries", i, "regions", j), served))
    seen = set()
    for placed in versions.values():
        for finding in (*_overlaps(placed), *_mixed_dates(placed)):
            if finding not in seen:
                seen.add(finding)
                yield finding


def needed_rules_are_there(pack: Contents) -> Iterator[Finding]:
    """From the pack's first day on, no day is without a city level, terms, lights and an affiliation order."""
    rules = [rule for _, rule in _rules(pack)]
    for needed in _ALWAYS_NEEDED:
        gap = _first_gap([rule for rule in rules if isinstance(rule, needed)], pack.in_force_from, None)
        if gap:
            yield ("in_force_from",), f"no {needed.__name__} is in force on {gap}"
    city = [treasury for treasury in pack.treasuries if treasury.kind is TreasuryKind.CITY_LEVEL]
    gap = _first_gap(city, pack.in_force_from, None)
    if gap:
        yield ("treasuries",), f"no treasury of kind city_level exists on {gap}"


def treasuries_are_served(pack: Contents) -> Iterator[Finding]:
    """Every treasury that employers belong to has a platform, who advances its cash, and a settlement route."""
    for path, treasury in _employers_treasuries(pack):
        parts: dict[str, list[Dated]] = {
            "platform": [each for each in pack.platforms if treasury.code in each.treasuries],
            "cash advance": _advances(pack, treasury.kind),
        }
        if treasury.kind is not TreasuryKind.CITY_LEVEL:
            routes = pack.settlement_routes
            parts["settlement route"] = [each for each in routes if treasury.code in each.treasuries]
        for what, rules in parts.items():
            gap = _first_gap(rules, max(treasury.valid_from, pack.in_force_from), treasury.valid_to)
            if gap:
                yield path, f"the treasury {treasury.code} has no {what} on {gap}"


def bearers_can_be_settled_with(pack: Contents) -> Iterator[Finding]:
    """A treasury that a sharing plan names exists as long as the plan holds, and what it owes has a way to the city."""
    kinds = {treasury.code: treasury.kind for treasury in pack.treasuries}
    for i, plan in enumerate(pack.sharing_plans):
        for j, born in enumerate(plan.shares):
            if born.bearer not in kinds:
                continue
            parts: dict[str, list[Dated]] = {"day": [each for each in pack.treasuries if each.code == born.bearer]}
            if kinds[born.bearer] is not TreasuryKind.CITY_LEVEL:
                parts["settlement route"] = [each for each in pack.settlement_routes if born.bearer in each.treasuries]
            for what, spans in parts.items():
                gap = _first_gap(spans, max(plan.valid_from, pack.in_force_from), plan.valid_to)
                if gap:
                    where = ("sharing_plans", i, "shares", j, "bearer")
                    yield where, f"the treasury {born.bearer}, which bears a share, has no {what} on {gap}"


def clearing_treasuries_pay_nobody(pack: Contents) -> Iterator[Finding]:
    """Who advances the cash closes its months: a treasury that only clears has none."""
    clearing = {each.code for each in pack.treasuries if each.kind is TreasuryKind.PROVINCE}
    for i, advance in enumerate(pack.cash_advances):
        if advance.advanced_by in clearing:
            yield ("cash_advances", i, "advanced_by"), f"{advance.advanced_by} only clears settlements: it pays nobody"


def money_benefits_are_complete(pack: Contents) -> Iterator[Finding]:
    """A money benefit has amounts, instalments, an employer's share and a sharing plan on every day."""
    for i, benefit in enumerate(pack.benefits):
        if benefit.form is not BenefitForm.MONEY:
            continue
        first = max(benefit.valid_from, pack.in_force_from)
        if not any(amount.benefit == benefit.code for amount in pack.amounts):
            yield ("benefits", i), f"the money benefit {benefit.code} has no amount"
        for what, rules in _rules_of_money(pack, benefit.code):
            gap = _first_gap(rules, first, benefit.valid_to)
            if gap:
                yield ("benefits", i), f"the money benefit {benefit.code} has no {what} on {gap}"


def money_rules_are_of_money(pack: Contents) -> Iterator[Finding]:
    """Amounts, instalments and shares are of money benefits, and no amount is below one fen an instalment."""
    in_kind = {benefit.code for benefit in pack.benefits if benefit.form is BenefitForm.IN_KIND}
    for path, rule in _rules(pack):
        named: tuple[str, ...] = ()
        if isinstance(rule, EmployerShareRule | SharingPlan):
            named = rule.benefits
        elif isinstance(rule, BenefitAmount | InstalmentPlan):
            named = (rule.benefit,)
        for code in in_kind.intersection(named):
            yield path, f"{code} is a benefit in kind and has no money rules"
    most = {plan.benefit: plan.count for plan in sorted(pack.instalment_plans, key=lambda plan: plan.count)}
    for i, amount in enumerate(pack.amounts):
        if amount.fen < most.get(amount.benefit, 1):
            yield ("amounts", i, "fen"), "the amount leaves instalments of nothing"


def excluded_people_have_no_amounts(pack: Contents) -> Iterator[Finding]:
    """No amount is set for a category whose coverage is excluded from the benefit."""
    excluded = {(rule.coverage, benefit) for rule in pack.exclusions for benefit in rule.benefits}
    coverage = {category.code: category.coverage for category in pack.categories}
    for i, amount in enumerate(pack.amounts):
        if (coverage.get(amount.category), amount.benefit) in excluded:
            yield ("amounts", i), f"{amount.category} is excluded from {amount.benefit}"


def alternatives_are_given_alike(pack: Contents) -> Iterator[Finding]:
    """The benefits of which one may be had are all given to a person, or all to a household."""
    for i, rule in enumerate(pack.at_most_one):
        named = [each for each in pack.benefits if each.code in rule.benefits and _meet(each, rule)]
        if len(subjects := {each.claim_subject.value for each in named}) > 1:
            given = ", ".join(sorted(subjects))
            yield ("at_most_one", i, "benefits"), f"the benefits have different claim subjects: {given}"


def categories_can_be_certified(pack: Contents) -> Iterator[Finding]:
    """The coverage of every category is certified by an item."""
    certified = {coverage for item in pack.items for coverage in item.certifies}
    for i, category in enumerate(pack.categories):
        if category.coverage not in certified:
            yield ("categories", i, "coverage"), f"no item certifies people of the coverage {category.coverage}"


def conditions_are_sound(pack: Contents) -> Iterator[Finding]:
    """Every condition compiles against the declared facts, and every fact is used by one."""
    used: set[str] = set()
    for i, rule in enumerate(pack.conditions):
        try:
            used.update(compile_condition(rule.when, pack.facts).uses)
        except ConditionWrong as error:
            yield ("conditions", i, "when"), str(error)
    for i, fact in enumerate(pack.facts):
        if fact.name not in used:
            yield ("facts", i), f"no condition uses {fact.name}"


CHECKS: tuple[Check, ...] = (
    identifiers_are_unique,
    citations_exist,
    references_exist,
    benefits_have_items,
    versions_do_not_overlap,
    needed_rules_are_there,
    treasuries_are_served,
    bearers_can_be_settled_with,
    clearing_treasuries_pay_nobody,
    money_benefits_are_complete,
    money_rules_are_of_money,
    excluded_people_have_no_amounts,
    alternatives_are_given_alike,
    categories_can_be_certified,
    conditions_are_sound,
)


def _records(pack: Contents) -> Iterator[tuple[Path, object]]:
    for section in type(pack).model_fields:
        value = getattr(pack, section)
        if isinstance(value, tuple):
            yield from (((section, i), record) for i, record in enumerate(value))


def _rules(pack: Contents) -> Iterator[tuple[Path, Rule]]:
    yield from ((path, record) for path, record in _records(pack) if isinstance(record, Rule))


def _twice(values: Iterable[tuple[Path, str]], what: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, value in values:
        if value in seen:
            yield path, f"{what} {value} is used twice"
        seen.add(value)


def _known_codes(pack: Contents) -> dict[str, set[str]]:
    return {
        "treasury": {treasury.code for treasury in pack.treasuries},
        "clearing treasury": {each.code for each in pack.treasuries if each.kind is TreasuryKind.PROVINCE},
        "region": {region.code for region in pack.regions},
        "department": {department.code for department in pack.departments},
        "item": {item.code for item in pack.items},
        "benefit": {benefit.code for benefit in pack.benefits},
        "category": {category.code for category in pack.categories},
        "coverage": {coverage.code for coverage in pack.coverages},
        "material": {material.code for item in pack.items for material in item.materials},
    }


def _references(pack: Contents) -> Iterator[tuple[Path, str, str]]:
    """Give each reference: where it stands, what it refers to, and the code."""
    yield from _lists(pack, "platforms", "treasuries", "treasury")
    yield from _lists(pack, "settlement_routes", "treasuries", "treasury")
    yield from _lists(pack, "sharing_plans", "treasuries", "treasury")
    for section in ("exclusions", "at_most_one", "employer_shares", "sharing_plans"):
        yield from _lists(pack, section, "benefits", "benefit")
    yield from _lists(pack, "public_notices", "items", "item")
    yield from _lists(pack, "items", "certifies", "coverage")
    yield from _lists(pack, "conditions", "coverages", "coverage")
    yield from _lists(pack, "conditions", "categories", "category")
    yield from _lists(pack, "conditions", "items", "item")
    yield from _fields(pack, "facts", "material", "material")
    yield from _fields(pack, "facts", "department", "department")
    yield from _fields(pack, "amounts", "benefit", "benefit")
    yield from _fields(pack, "amounts", "category", "category")
    yield from _fields(pack, "instalment_plans", "benefit", "benefit")
    yield from _fields(pack, "categories", "coverage", "coverage")
    yield from _fields(pack, "exclusions", "coverage", "coverage")
    yield from _fields(pack, "settlement_routes", "through", "clearing treasury")
    yield from _fields(pack, "cash_advances", "advanced_by", "treasury")
    for i, treasury in enumerate(pack.treasuries):
        for j, served in enumerate(treasury.regions):
            yield ("treasuries", i, "regions", j, "region"), "region", served.region
    for i, plan in enumerate(pack.sharing_plans):
        for j, born in enumerate(plan.shares):
            if born.bearer != AFFILIATED:
                yield ("sharing_plans", i, "shares", j, "bearer"), "treasury", born.bearer
    for i, item in enumerate(pack.items):
        for j, stage in enumerate(item.stages):
            for k, task in enumerate(stage):
                yield ("items", i, "stages", j, k, "department"), "department", task.department


def _lists(pack: Contents, section: str, field: str, kind: str) -> Iterator[tuple[Path, str, str]]:
    for i, record in enumerate(getattr(pack, section)):
        for j, code in enumerate(getattr(record, field)):
            yield (section, i, field, j), kind, code


def _fields(pack: Contents, section: str, field: str, kind: str) -> Iterator[tuple[Path, str, str]]:
    for i, record in enumerate(getattr(pack, section)):
        code = getattr(record, field)
        if code is not None and code != AFFILIATED:
            yield (section, i, field), kind, code


def _overlaps(placed: list[Placed]) -> Iterator[Finding]:
    ordered = sorted(placed, key=lambda each: each[1].valid_from)
    for (_, earlier), (path, later) in pairwise(ordered):
        if earlier.valid_to is None or later.valid_from <= earlier.valid_to:
            end = earlier.valid_to or "further notice"
            yield path, f"overlaps the version that holds from {earlier.valid_from} to {end}"


def _meet(one: Dated, other: Dated) -> bool:
    """Whether both hold on some day."""
    return one.valid_from <= (other.valid_to or date.max) and other.valid_from <= (one.valid_to or date.max)


def _mixed_dates(placed: list[Placed]) -> Iterator[Finding]:
    named = {each.version_by for _, each in placed if isinstance(each, Rule)}
    if len(named) > 1:
        yield (*placed[-1][0], "version_by"), "differs between the versions of one rule"


def _first_gap(spans: Iterable[Dated], first: date, last: date | None) -> date | None:
    """Give the first day from `first` to `last` (None: for ever) that no span covers, or None."""
    end = last or date.max
    if first > end:
        return None
    day = first
    for span in sorted(spans, key=lambda each: each.valid_from):
        if span.valid_from > day:
            break
        reached = span.valid_to or date.max
        if reached >= end:
            return None
        day = max(day, reached + timedelta(days=1))
    return day


def _employers_treasuries(pack: Contents) -> Iterator[tuple[Path, PackTreasury]]:
    manual = {kind for rule in pack.manual_decisions for kind in rule.treasury_kinds}
    for i, treasury in enumerate(pack.treasuries):
        if treasury.kind not in manual:
            yield ("treasuries", i), treasury


def _advances(pack: Contents, kind: TreasuryKind) -> list[Dated]:
    return [rule for rule in pack.cash_advances if kind in rule.treasury_kinds]


def _rules_of_money(pack: Contents, benefit: str) -> Iterator[tuple[str, list[Dated]]]:
    """Give what a money benefit needs, with the rules that there are."""
    yield "instalment plan", [plan for plan in pack.instalment_plans if plan.benefit == benefit]
    manual = {kind for rule in pack.manual_decisions for kind in rule.employer_kinds}
    for kind in EmployerKind:
        if kind not in manual:
            rules = [each for each in pack.employer_shares if (benefit, kind) in each.subjects]
            yield f"employer's share for the employer kind {kind}", list(rules)
    plans = [plan for plan in pack.sharing_plans if benefit in plan.benefits]
    for _, treasury in _employers_treasuries(pack):
        fitting = [p for p in plans if treasury.kind in p.treasury_kinds or treasury.code in p.treasuries]
        yield f"sharing plan for treasuries of kind {treasury.kind} ({treasury.code})", list(fitting)
