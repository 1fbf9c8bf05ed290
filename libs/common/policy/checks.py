"""What must hold between the parts of a pack: a list of checks, each giving the places and reasons it finds.

A reason is a Chinese sentence for whoever writes the pack: what is wrong, and what to do.

Everything within one record is checked by its model; here stands what no record can see by itself.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Set
from datetime import date, timedelta
from typing import TypeAlias

from libs.common.dated import Dated
from libs.common.money import parse_share
from libs.common.policy.conditions import ConditionWrong, compile_condition, without_value
from libs.common.policy.model import (
    AFFILIATED,
    AffiliationOrder,
    AtMostOne,
    BenefitAmount,
    BenefitForm,
    CertificationTerm,
    Cited,
    Contents,
    CorrectionTerms,
    Document,
    DocumentKind,
    EligibilityRule,
    EmployerShareRule,
    InstalmentPlan,
    ItemKind,
    Lights,
    OrderTerms,
    PackTreasury,
    PayoutTerms,
    Rule,
    SharingPlan,
    VersionBy,
)
from libs.common.policy.source import Path
from libs.common.policy.stack import are_of_one_time, goes_before, is_narrower, prevails, takes_place
from libs.common.treasuries import EmployerKind, TreasuryKind

Finding: TypeAlias = tuple[Path, str]
Check: TypeAlias = Callable[[Contents], Iterator[Finding]]
Placed: TypeAlias = tuple[Path, Dated]

_ALWAYS_NEEDED: Mapping[type[Rule], str] = {
    AffiliationOrder: "隶属关系的认定次序（affiliation_order）",
    PayoutTerms: "兑现时限（payout_terms）",
    OrderTerms: "后续各期支付令时限（order_terms）",
    Lights: "预警规则（lights）",
    CorrectionTerms: "补正时限（correction_terms）",
    CertificationTerm: "认定有效期（certification_terms）",
}
_KINDS: Mapping[str, tuple[str, str]] = {
    "treasury": ("一级财政", "treasuries"),
    "clearing treasury": ("省级清算财政", "kind 为 province 的 treasuries"),
    "region": ("行政区划", "regions"),
    "department": ("部门", "departments"),
    "item": ("事项", "items"),
    "benefit": ("待遇", "benefits"),
    "category": ("人才类别", "categories"),
    "coverage": ("覆盖范围", "coverages"),
    "material": ("材料", "items 的 materials"),
    "directory": ("企业目录", "directories"),
}
"""What a rule may refer to: its name, and the section that holds it."""
_CODED = frozenset({"item", "benefit", "category", "coverage"})
"""Of these what holds from day to day, maybe in versions."""


def identifiers_are_unique(pack: Contents) -> Iterator[Finding]:
    """Rule ids are unique in the pack; codes of documents, regions and departments in their list."""
    yield from _twice(((path, rule.id) for path, rule in _rules(pack)), "规则编号 id")
    for section, field in (("documents", "id"), ("regions", "code"), ("departments", "code"), ("facts", "name")):
        records = enumerate(getattr(pack, section))
        yield from _twice((((section, i), getattr(record, field)) for i, record in records), f"{section} 的 {field}")


def citations_exist(pack: Contents) -> Iterator[Finding]:
    """Every rule cites a document of the stack, and an article that the document has."""
    articles = {document.id: document.articles for document in pack.documents}
    for path, record in _records(pack):
        if not isinstance(record, Cited):
            continue
        if record.document not in articles:
            yield (*path, "document"), f"文件清单 documents 中没有 {record.document}，请改正编号，或先补上这份文件。"
        elif record.article is not None and record.article not in articles[record.document]:
            yield (*path, "article"), f"{record.document} 没有“{record.article}”，请改正，或补入该文件的 articles。"


def references_exist(pack: Contents) -> Iterator[Finding]:
    """Every code that a rule refers to is in the pack."""
    known = _known_codes(pack)
    for path, kind, code in _references(pack):
        if code not in known[kind]:
            name, section = _KINDS[kind]
            yield path, f"政策包中没有{name} {code}，请改正代码，或先在 {section} 中补上。"


def what_is_named_is_there_in_time(pack: Contents) -> Iterator[Finding]:
    """Every item, benefit, category and coverage that a rule of acceptance refers to is in force on some day of the
    rule. What goes by the day on which an instalment falls due may outlive the benefit, as may the rule that who has it
    gets no other."""
    for path, kind, code in _references(pack):
        if kind in _CODED:
            rule = getattr(pack, str(path[0]))[path[1]]
            named = [each for each in getattr(pack, _KINDS[kind][1]) if each.code == code]
            outlives = isinstance(rule, AtMostOne) or not isinstance(rule, EligibilityRule)
            if named and not outlives and not any(_meet(each, rule) for each in named):
                told = f"{_KINDS[kind][0]} {code} 在本条有效期内的任何一天都不存在"
                yield path, f"{told}，请删去，或改正两者的 valid_from、valid_to。"


def benefits_have_items(pack: Contents) -> Iterator[Finding]:
    """An item of kind `benefit` and its benefit share one code, and neither is without the other."""
    items = {item.code for item in pack.items if item.kind is ItemKind.BENEFIT}
    benefits = {benefit.code for benefit in pack.benefits}
    for i, item in enumerate(pack.items):
        if item.kind is ItemKind.BENEFIT and item.code not in benefits:
            yield ("items", i, "code"), f"benefits 中没有待遇 {item.code}，请补上，或改正事项的 code、kind。"
    for i, benefit in enumerate(pack.benefits):
        if benefit.code not in items:
            yield ("benefits", i, "code"), f"没有 kind 为 benefit 的事项 {benefit.code}，请在 items 中补上。"


def benefits_last_as_long_as_their_items(pack: Contents) -> Iterator[Finding]:
    """On every day on which a benefit can be asked for it is there."""
    for i, item in enumerate(pack.items):
        versions = [benefit for benefit in pack.benefits if benefit.code == item.code]
        gap = versions and _first_gap(versions, max(item.valid_from, pack.in_force_from), item.valid_to)
        if gap:
            told = f"事项 {item.code} 在 {gap} 没有有效的待遇（benefits），无从办理"
            yield ("items", i), f"{told}，请补上，或改正两者的 valid_from、valid_to。"


def benefits_in_kind_are_flats(pack: Contents) -> Iterator[Finding]:
    """A benefit in kind is a flat, which housing keeps; whatever else is done for somebody is a service item, which has
    departments, limits and a result."""
    for i, benefit in enumerate(pack.benefits):
        if benefit.form is BenefitForm.IN_KIND and benefit.flat is None:
            told = "实物待遇须用 flat 写明给予哪类住房；体检等其他服务请在 items 中设为 kind: service 的事项"
            yield ("benefits", i), f"{told}。"


def notices_are_of_certifications(pack: Contents) -> Iterator[Finding]:
    """Only a certification is put on public notice: nothing else is proposed that somebody could object to."""
    others = {item.code for item in pack.items if item.kind is not ItemKind.CERTIFICATION}
    for path, _, code in _lists(pack, "public_notices", "items", "item"):
        if code in others:
            yield path, f"事项 {code} 不是认定事项，公示只在认定之前进行，请删去，或改为 kind 为 certification 的事项。"


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


def overrides_are_sound(pack: Contents) -> Iterator[Finding]:
    """What a rule overrides is a rule of an older or broader document, about no more than it is itself or broader, and
    not, by way of others, the rule itself."""
    placed = {rule.id: (path, rule) for path, rule in _rules(pack)}
    documents = {document.id: document for document in pack.documents}
    kinds = {treasury.code: treasury.kind for treasury in pack.treasuries}
    for path, rule in placed.values():
        for n, target in enumerate(rule.overrides):
            where = (*path, "overrides", n)
            if target not in placed:
                yield where, f"政策包中没有规则 {target}，请改正 overrides 中的编号。"
                continue
            under = placed[target][1]
            if not {rule.document, under.document} <= documents.keys():
                continue  # told of its citation
            over, older = documents[rule.document], documents[under.document]
            assumed = under.assumption and not rule.assumption  # no document says it
            if not (assumed or prevails(over, older)):
                yield where, _may_not(over, older)
            elif not (takes_place(rule, under) or is_narrower(rule, under, kinds)):
                yield (
                    where,
                    f"{rule.id} 与 {target} 的对象不一致，不能取代其一部分，请写全对象，或先把 {target} 拆成两条。",
                )
            elif rule.id in _overridden_by(target, placed):
                yield where, f"{rule.id} 与 {target} 互相取代，请只保留一个方向。"


def _may_not(over: Document, under: Document) -> str:
    """Why a document may not override another, and what to do."""
    told = f"{over.number}不能取代{under.number}的规定："
    cited_only = {DocumentKind.LAW, DocumentKind.STANDARD} & {over.kind, under.kind}
    if not cited_only and over.id != under.id and are_of_one_time(over, under):
        return (
            f"{told}两份文件同日印发，又不是同一机关同一年度的发文字号，分不出先后。"
            f"请由较晚印发的文件另行规定，或给不再适用的一条写明 valid_to。"
        )
    return f"{told}只能由较新或较具体的文件取代（同日印发的，同一发文字号中号数大的为新），且不能取代法律和标准。"


def _overridden_by(rule: str, placed: Mapping[str, tuple[Path, Rule]]) -> Set[str]:
    """Every rule that one overrides, itself or by way of others."""
    found: set[str] = set()
    waiting = [rule]
    while waiting:
        _, each = placed.get(waiting.pop(), (None, None))
        fresh = {*(each.overrides if each else ())} - found
        found |= fresh
        waiting += fresh
    return found


def narrower_plans_say_so(pack: Contents) -> Iterator[Finding]:
    """A plan for single treasuries that another document has otherwise for their kind says that it overrides it. An
    interpretation stands where what it rules on stood, and so sets nothing at odds."""
    kinds = {treasury.code: treasury.kind for treasury in pack.treasuries}
    documents = {each.id: each for each in pack.documents if each.kind is not DocumentKind.INTERPRETATION}
    for i, plan in enumerate(pack.sharing_plans):
        for other in pack.sharing_plans:
            silent = other.id not in plan.overrides and plan.document != other.document
            if not silent or not {plan.document, other.document} <= documents.keys():
                continue
            if _meet(plan, other) and goes_before(plan, other, kinds) and _otherwise(plan, other):
                may = prevails(documents[plan.document], documents[other.document])
                told = "请用 overrides 写明取代它" if may else "后者的文件较新或较具体，请给本条写明 valid_to"
                yield ("sharing_plans", i), f"与 {other.id} 对同一财政规定了不同的分担比例，{told}，或改为一致。"


def _otherwise(plan: SharingPlan, other: SharingPlan) -> bool:
    shares = [{born.bearer: parse_share(born.share) for born in each.shares} for each in (plan, other)]
    return shares[0] != shares[1] or plan.remainder_to != other.remainder_to


def needed_rules_are_there(pack: Contents) -> Iterator[Finding]:
    """From the pack's first day on, no day is without a city level, terms, lights and an affiliation order."""
    rules = [rule for _, rule in _rules(pack)]
    for needed, name in _ALWAYS_NEEDED.items():
        gap = _first_gap([rule for rule in rules if isinstance(rule, needed)], pack.in_force_from, None)
        if gap:
            yield ("in_force_from",), f"{gap} 没有有效的{name}，请补上，或调整 valid_from、valid_to。"
    city = [treasury for treasury in pack.treasuries if treasury.kind is TreasuryKind.CITY_LEVEL]
    gap = _first_gap(city, pack.in_force_from, None)
    if gap:
        yield ("treasuries",), f"{gap} 没有 kind 为 city_level 的市本级财政，请补上，或调整其有效期。"


def treasuries_are_served(pack: Contents) -> Iterator[Finding]:
    """Every treasury that employers belong to has a platform, who advances its cash, and a settlement route."""
    for path, treasury in _employers_treasuries(pack):
        parts: dict[str, list[Dated]] = {
            "受理平台（platforms）": [each for each in pack.platforms if treasury.code in each.treasuries],
            "先行支付规则（cash_advances）": _advances(pack, treasury.kind),
        }
        if treasury.kind is not TreasuryKind.CITY_LEVEL:
            routes = pack.settlement_routes
            parts["结算路径（settlement_routes）"] = [each for each in routes if treasury.code in each.treasuries]
        for what, rules in parts.items():
            gap = _first_gap(rules, max(treasury.valid_from, pack.in_force_from), treasury.valid_to)
            if gap:
                yield path, f"财政 {treasury.code} 在 {gap} 没有{what}，请补上，或调整有效期。"


def named_treasuries_can_be_settled_with(pack: Contents) -> Iterator[Finding]:
    """A treasury that a rule names as a bearer or as the payer exists as long as the rule decides, and what it owes, or
    is owed, has a way to or from the city. A rule by `accepted_on` decides instalments long after its last day."""
    kinds = {treasury.code: treasury.kind for treasury in pack.treasuries}
    for path, code, rule in _named_treasuries(pack):
        if code not in kinds:
            continue
        treasuries: list[Dated] = [each for each in pack.treasuries if each.code == code]
        parts = {"有效的记录（treasuries）": treasuries}
        if kinds[code] is not TreasuryKind.CITY_LEVEL:
            routes = pack.settlement_routes
            parts["结算路径（settlement_routes）"] = [each for each in routes if code in each.treasuries]
        last = rule.valid_to if rule.version_by is VersionBy.DUE_ON else None
        for what, spans in parts.items():
            gap = _first_gap(spans, max(rule.valid_from, pack.in_force_from), last)
            if gap:
                yield path, f"承担份额或先行支付的财政 {code} 在 {gap} 没有{what}，请补上，或调整有效期。"


def _named_treasuries(pack: Contents) -> Iterator[tuple[Path, str, Rule]]:
    for i, plan in enumerate(pack.sharing_plans):
        for j, born in enumerate(plan.shares):
            yield ("sharing_plans", i, "shares", j, "bearer"), born.bearer, plan
    for i, advance in enumerate(pack.cash_advances):
        yield ("cash_advances", i, "advanced_by"), advance.advanced_by, advance


def clearing_treasuries_pay_nobody(pack: Contents) -> Iterator[Finding]:
    """Who advances the cash closes its months: a treasury that only clears has none."""
    clearing = {each.code for each in pack.treasuries if each.kind is TreasuryKind.PROVINCE}
    for i, advance in enumerate(pack.cash_advances):
        if advance.advanced_by in clearing:
            where = ("cash_advances", i, "advanced_by")
            yield where, f"{advance.advanced_by} 是只作清算的省级财政，不能先行支付，请改为其他财政。"


def money_benefits_are_complete(pack: Contents) -> Iterator[Finding]:
    """A money benefit has amounts, instalments, an employer's share and a sharing plan on every day."""
    for i, benefit in enumerate(pack.benefits):
        if benefit.form is not BenefitForm.MONEY:
            continue
        first = max(benefit.valid_from, pack.in_force_from)
        if not any(amount.benefit == benefit.code for amount in pack.amounts):
            yield ("benefits", i), f"资金类待遇 {benefit.code} 没有标准，请在 amounts 中补上金额。"
        for what, rules in _rules_of_money(pack, benefit.code):
            gap = _first_gap(rules, first, benefit.valid_to)
            if gap:
                yield ("benefits", i), f"资金类待遇 {benefit.code} 在 {gap} 没有{what}，请补上，或调整有效期。"


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
            yield path, f"{code} 是实物或服务类待遇，不能有资金规则，请删去，或改正待遇代码。"
    most = {plan.benefit: plan.count for plan in sorted(pack.instalment_plans, key=lambda plan: plan.count)}
    for i, amount in enumerate(pack.amounts):
        if amount.fen < most.get(amount.benefit, 1):
            yield ("amounts", i, "fen"), "金额过小，分期后有的一期不足 1 分，请加大金额，或减少期数。"


def excluded_people_have_no_amounts(pack: Contents) -> Iterator[Finding]:
    """No amount is set for a category whose coverage is excluded from the benefit."""
    excluded = {(rule.coverage, benefit) for rule in pack.exclusions for benefit in rule.benefits}
    coverage = {category.code: category.coverage for category in pack.categories}
    for i, amount in enumerate(pack.amounts):
        if (coverage.get(amount.category), amount.benefit) in excluded:
            yield ("amounts", i), f"{amount.category} 按 exclusions 不享受 {amount.benefit}，请删去此标准，或改正代码。"


def alternatives_are_given_alike(pack: Contents) -> Iterator[Finding]:
    """The benefits of which one may be had are all given to a person, or all to a household."""
    for i, rule in enumerate(pack.at_most_one):
        named = [each for each in pack.benefits if each.code in rule.benefits and _meet(each, rule)]
        if len(subjects := {each.claim_subject.value for each in named}) > 1:
            given = "、".join(sorted(subjects))
            yield (
                ("at_most_one", i, "benefits"),
                f"只能享受其一的待遇须同按人或同按户申领，现有 {given}，请改为一致。",
            )


def green_channels_have_an_effect(pack: Contents) -> Iterator[Finding]:
    """A department works on each item of a green channel, and the channel's limit is shorter than one of theirs."""
    for i, rule in enumerate(pack.green_channels):
        named = [item for item in pack.items if item.code in rule.items and _meet(item, rule)]
        idle = {item.code for item in named if not item.stages}
        for j, code in enumerate(rule.items):
            if code in idle:
                where = ("green_channels", i, "items", j)
                yield where, f"事项 {code} 没有部门办理，无从走绿色通道，请删去，或在 items 中写明由哪个部门办理。"
        limit = rule.limit_working_days
        limits = [task.limit_working_days for item in named for stage in item.stages for task in stage]
        if limit is not None and limits and limit >= max(limits):
            told = f"所列事项的部门时限最长 {max(limits)} 个工作日，{limit} 个工作日没有缩短任何时限"
            yield ("green_channels", i, "limit_working_days"), f"{told}，请改短，或删去 limit_working_days。"


def categories_can_be_certified(pack: Contents) -> Iterator[Finding]:
    """The coverage of every category is certified by an item."""
    certified = {coverage for item in pack.items for coverage in item.certifies}
    for i, category in enumerate(pack.categories):
        if category.coverage not in certified:
            where = ("categories", i, "coverage")
            yield where, f"没有事项认定覆盖范围 {category.coverage}，请写入某个认定事项的 certifies。"


def conditions_are_sound(pack: Contents) -> Iterator[Finding]:
    """Every condition compiles against the declared facts, says yes or no of whoever they are known of, and every fact
    is used by one."""
    used: set[str] = set()
    for i, rule in enumerate(pack.conditions):
        try:
            used.update(compile_condition(rule.when, pack.facts).uses)
            undecided = without_value(rule.when, pack.facts)
        except ConditionWrong as error:
            yield ("conditions", i, "when"), str(error)
            continue
        if undecided is not None:
            known = "、".join(f"{name} 为 {json.dumps(value)}" for name, value in undecided.items())
            told = f"{known} 时，此条件" if known else "此条件"
            yield ("conditions", i, "when"), f"{told}得不出是或否（除以零、数值过大等），请改写，或先排除这种情况。"
    for i, fact in enumerate(pack.facts):
        if fact.name not in used:
            yield ("facts", i), f"没有条件用到情况 {fact.name}，请删去，或写入某个条件。"


def reviewed_instalments_are_there(pack: Contents) -> Iterator[Finding]:
    """A condition of instalments is of a benefit that is paid in several on some day of the condition's own."""
    for i, rule in enumerate(pack.conditions):
        several = {plan.benefit for plan in pack.instalment_plans if plan.count > 1 and _meet(plan, rule)}
        for j, code in enumerate(rule.instalments):
            if code not in several:
                where = ("conditions", i, "instalments", j)
                yield where, f"待遇 {code} 不分期发放，无从逐期复核，请删去，或改正 instalment_plans 的期数和有效期。"


AS_WRITTEN: tuple[Check, ...] = (
    identifiers_are_unique,
    citations_exist,
    references_exist,
    overrides_are_sound,
    conditions_are_sound,
    reviewed_instalments_are_there,
)
IN_FORCE: tuple[Check, ...] = (
    benefits_have_items,
    benefits_last_as_long_as_their_items,
    benefits_in_kind_are_flats,
    notices_are_of_certifications,
    narrower_plans_say_so,
    versions_do_not_overlap,
    needed_rules_are_there,
    treasuries_are_served,
    named_treasuries_can_be_settled_with,
    clearing_treasuries_pay_nobody,
    money_benefits_are_complete,
    money_rules_are_of_money,
    excluded_people_have_no_amounts,
    alternatives_are_given_alike,
    green_channels_have_an_effect,
    categories_can_be_certified,
    what_is_named_is_there_in_time,
)


def findings(written: Contents, pack: Contents) -> Iterator[Finding]:
    """What is wrong with a file as it is written, and with what is in force of it (`stack`); all places are in the
    file."""
    yield from (finding for check in AS_WRITTEN for finding in check(written))
    found = (finding for check in IN_FORCE for finding in check(pack))
    yield from dict.fromkeys((_in_the_file(path, written, pack), reason) for path, reason in found)


def _in_the_file(path: Path, written: Contents, pack: Contents) -> Path:
    section, *rest = path
    before, after = (getattr(each, str(section)) for each in (written, pack))
    if before is after or not rest:
        return path
    rule, *rest = rest
    return (section, [each.id for each in before].index(after[rule].id), *rest)


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
            yield path, f"{what} {value} 重复，请改成不同的值。"
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
        "directory": {directory.code for directory in pack.directories},
    }


def _references(pack: Contents) -> Iterator[tuple[Path, str, str]]:
    """Give each reference: where it stands, what it refers to, and the code."""
    yield from _lists(pack, "platforms", "treasuries", "treasury")
    yield from _lists(pack, "settlement_routes", "treasuries", "treasury")
    yield from _lists(pack, "sharing_plans", "treasuries", "treasury")
    for section in ("exclusions", "at_most_one", "employer_shares", "sharing_plans"):
        yield from _lists(pack, section, "benefits", "benefit")
    yield from _lists(pack, "public_notices", "items", "item")
    yield from _lists(pack, "green_channels", "items", "item")
    yield from _lists(pack, "green_channels", "categories", "category")
    yield from _lists(pack, "items", "certifies", "coverage")
    yield from _lists(pack, "conditions", "coverages", "coverage")
    yield from _lists(pack, "conditions", "categories", "category")
    yield from _lists(pack, "conditions", "items", "item")
    yield from _lists(pack, "conditions", "instalments", "benefit")
    yield from _fields(pack, "facts", "material", "material")
    yield from _fields(pack, "facts", "department", "department")
    yield from _fields(pack, "facts", "directory", "directory")
    yield from _fields(pack, "directories", "keeper", "department")
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
    for n, (path, later) in enumerate(ordered):
        earlier = next((each for _, each in reversed(ordered[:n]) if _meet(each, later)), None)
        if earlier is None:
            continue
        days = f"{earlier.valid_from} {f'至 {earlier.valid_to} ' if earlier.valid_to else '起长期'}"
        told = f"与 {days}有效的版本重叠，请给前一版本写明 valid_to，或推后 valid_from"
        if isinstance(earlier, Rule) and isinstance(later, Rule) and earlier.document != later.document:
            told += f"；如系不同文件的不同规定，请由较新或较具体的一条用 overrides 写明取代 {earlier.id} 或 {later.id}"
        yield path, f"{told}。"


def _meet(one: Dated, other: Dated) -> bool:
    """Whether both hold on some day."""
    return one.valid_from <= (other.valid_to or date.max) and other.valid_from <= (one.valid_to or date.max)


def _mixed_dates(placed: list[Placed]) -> Iterator[Finding]:
    named = {each.version_by for _, each in placed if isinstance(each, Rule)}
    if len(named) > 1:
        yield (*placed[-1][0], "version_by"), "同一规则各版本的 version_by 不一致，请改为相同。"


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
    yield "发放方式（instalment_plans）", [plan for plan in pack.instalment_plans if plan.benefit == benefit]
    manual = {kind for rule in pack.manual_decisions for kind in rule.employer_kinds}
    for kind in EmployerKind:
        if kind not in manual:
            rules = [each for each in pack.employer_shares if (benefit, kind) in each.subjects]
            yield f"单位性质为 {kind} 的用人单位承担比例（employer_shares）", list(rules)
    plans = [plan for plan in pack.sharing_plans if benefit in plan.benefits]
    for _, treasury in _employers_treasuries(pack):
        fitting = [p for p in plans if treasury.kind in p.treasury_kinds or treasury.code in p.treasuries]
        yield f"财政 {treasury.code}（kind 为 {treasury.kind}）的分担方案（sharing_plans）", list(fitting)
