"""A stack of documents as the rules in force: where a rule overrides another, which of them holds on which days.

Source: 第十条. Where an earlier policy disagrees the later one prevails; where they agree the earlier one lives on.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import TypeVar

from libs.common.policy.model import Contents, Document, DocumentKind, Rule, SharingPlan
from libs.common.treasuries import TreasuryKind

R = TypeVar("R", bound=Rule)

_NUMBERED = re.compile(r"(?P<series>.*[〔\[［（(【]\d{4}[〕\]］）)】])\s*第?\s*(?P<n>\d{1,9})\s*号\s*")

_ONE_DAY = timedelta(days=1)
_BREADTHS = {
    DocumentKind.INTERPRETATION: -1,
    DocumentKind.BASE: 0,
    DocumentKind.AMENDMENT: 0,
    DocumentKind.DEPARTMENT_MEASURE: 1,
    DocumentKind.COUNTY_MEASURE: 2,
}
"""How narrow a document of the stack is, by its kind: least of all an interpretation, which rules on what the others
leave open. A law or a standard stands outside: it is only cited."""


def overridings(pack: Contents) -> Iterator[tuple[Rule, Rule]]:
    """Each rule that overrides another, and that other, as the file has them."""
    by_id = {rule.id: rule for rule in pack.rules()}
    for rule in pack.rules():
        yield from ((rule, by_id[each]) for each in rule.overrides if each in by_id)


def prevails(over: Document, under: Document) -> bool:
    """Whether a document may override another: one of the stack that it is narrower or later than."""
    narrow, broad = _BREADTHS.get(over.kind), _BREADTHS.get(under.kind)
    if broad is None or over.id == under.id:
        return False
    return narrow is None or narrow > broad or is_later(over, under)


def is_later(one: Document, other: Document) -> bool:
    """Whether a document came after another: by its day, and of two of one day by number, as an office counts, where
    both are of one series (安人才办〔2026〕3 号 before 安人才办〔2026〕4 号)."""
    if _age(one) != _age(other):
        return _age(one) > _age(other)
    return in_series(one, other) and _number(one) > _number(other)


def in_series(one: Document, other: Document) -> bool:
    """Whether two documents have different numbers of one issuer, office code and year."""
    series = _series(one), _series(other)
    return None not in series and series[0] == series[1] and _number(one) != _number(other)


def are_of_one_time(one: Document, other: Document) -> bool:
    """Whether neither day nor number says which of two documents came first."""
    return _age(one) == _age(other) and not in_series(one, other)


def takes_place(over: Rule, under: Rule) -> bool:
    """Whether a rule is about all that another is about, and so takes its place as a whole."""
    return type(over) is type(under) and set(under.subjects) <= set(over.subjects)


def is_narrower(over: Rule, under: Rule, kinds: Mapping[str, TreasuryKind]) -> bool:
    """Whether a rule is for single treasuries alone where the other is for their kind: for those the first goes before
    the second, which loses none of its days (`SharingPlan`). `kinds` are those of treasuries by code."""
    return isinstance(over, SharingPlan) and not over.treasury_kinds and goes_before(over, under, kinds)


def goes_before(over: Rule, under: Rule, kinds: Mapping[str, TreasuryKind]) -> bool:
    """Whether a plan names a treasury that another has by its kind."""
    if not (isinstance(over, SharingPlan) and isinstance(under, SharingPlan)):
        return False
    broader = set(under.subjects)
    return any((benefit, kinds.get(code)) in broader for benefit in over.benefits for code in over.treasuries)


def in_force(pack: Contents) -> dict[str, tuple[Rule, ...]]:
    """The sections in which a rule is overridden, with what is left of it: nothing, or the days on which no other takes
    its place, each stretch a rule of the same id."""
    displacing: dict[str, list[Rule]] = {}
    for over, under in overridings(pack):
        if takes_place(over, under):
            displacing.setdefault(under.id, []).append(over)
    found = {}
    for section, rules in _sections(pack):
        if any(rule.id in displacing for rule in rules):
            found[section] = tuple(part for rule in rules for part in _left(rule, displacing.get(rule.id, ())))
    return found


def _left(rule: R, displacing: Iterable[Rule]) -> Sequence[R]:
    parts = [rule]
    for over in displacing:
        parts = [left for part in parts for left in _without(part, over)]
    return parts


def _without(rule: R, over: Rule) -> Iterator[R]:
    last, end = rule.valid_to or date.max, over.valid_to or date.max
    if end < rule.valid_from or over.valid_from > last:
        yield rule
        return
    if rule.valid_from < over.valid_from:
        yield rule.model_copy(update={"valid_to": over.valid_from - _ONE_DAY})
    if end < last:
        yield rule.model_copy(update={"valid_from": end + _ONE_DAY})


def _series(document: Document) -> tuple[str, str] | None:
    found = _NUMBERED.fullmatch(document.number)
    return (document.issued_by, "".join(found["series"].split())) if found else None


def _number(document: Document) -> int:
    found = _NUMBERED.fullmatch(document.number)
    return int(found["n"]) if found else 0


def _age(document: Document) -> tuple[bool, date]:
    return document.kind is not DocumentKind.BASE, document.issued_on or date.min


def _sections(pack: Contents) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    for section in type(pack).model_fields:
        value = getattr(pack, section)
        if isinstance(value, tuple) and value and isinstance(value[0], Rule):
            yield section, value
