"""A policy pack: one immutable file of rules, known by city, version and the SHA-256 of its bytes."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path as FilePath
from typing import Protocol, Self, TypeAlias, TypeVar, cast

from pydantic import PrivateAttr, ValidationError

from libs.common.policy.checks import findings
from libs.common.policy.conditions import Compiled, compile_condition
from libs.common.policy.defects import sentence
from libs.common.policy.errors import NoRuleInForce, PackRefused, UnknownCode
from libs.common.policy.identity import PackIdentity
from libs.common.policy.model import (
    Benefit,
    Category,
    Cited,
    CodedRule,
    Contents,
    Document,
    Fact,
    Item,
    PackTreasury,
    Rule,
    Subject,
    VersionBy,
)
from libs.common.policy.source import Source, read_source
from libs.common.policy.stack import in_force, overridings
from libs.common.treasuries import TreasuryKind

R = TypeVar("R", bound=Rule)
C = TypeVar("C", bound=CodedRule)


@dataclass(frozen=True, slots=True)
class PolicyDates:
    """The two dates of a payment that pick versions of rules; each rule names the one that counts for it."""

    accepted_on: date
    due_on: date


When: TypeAlias = date | PolicyDates
"""A plain date stands for both dates."""


def day_due(on: When) -> date:
    """The day due."""
    return on.due_on if isinstance(on, PolicyDates) else on


class Pack(Contents):
    """A policy pack that was checked. `Pack.parse` makes one, and `Pack.stored` makes it again."""

    _source: bytes = PrivateAttr()
    _overridings: tuple[tuple[Rule, Rule], ...] = PrivateAttr()

    @classmethod
    def parse(cls, raw: bytes, name: str = "政策包") -> Self:
        """Read and check a pack's bytes. Of rules that others override it holds what is left (`stack`). Raises
        PackRefused with every defect found and its line."""
        source = read_source(raw, name)
        written = cls._validated(source)
        pack = cls._left_of(written, raw)
        if defects := [source.defect(path, reason) for path, reason in findings(written, pack)]:
            raise PackRefused(name, defects)
        return pack

    @classmethod
    def stored(cls, raw: bytes) -> Self:
        """Read a pack that was checked before it was stored, maybe by an earlier version of the checks: what they ask
        since refuses nothing that money rests on. Raises PackRefused where it is of another form."""
        return cls._left_of(cls._validated(read_source(raw, "政策包")), raw)

    @staticmethod
    def begins(raw: bytes) -> date | None:
        """The day from which a pack is in force, whatever its form; None where that cannot be seen."""
        try:
            told = read_source(raw, "政策包").data
            return date.fromisoformat(str(told["in_force_from"])) if isinstance(told, dict) else None
        except (PackRefused, KeyError, ValueError):
            return None

    @classmethod
    def _left_of(cls, written: Self, raw: bytes) -> Self:
        pack = written.model_copy(update=in_force(written))
        pack._source = raw  # noqa: SLF001 (its own class)
        pack._overridings = tuple(overridings(written))  # noqa: SLF001
        return pack

    @classmethod
    def _validated(cls, source: Source) -> Self:
        try:
            return cls.model_validate_json(json.dumps(source.data), strict=True)
        except ValidationError as error:
            defects = [source.defect(each["loc"], sentence(each)) for each in error.errors()]
            raise PackRefused(source.name, defects) from error

    @property
    def source(self) -> bytes:
        """The file's bytes, as they are stored and hashed."""
        return self._source

    @property
    def overridings(self) -> Sequence[tuple[Rule, Rule]]:
        """Each rule that overrides another, and that other, as the file has them."""
        return self._overridings

    @cached_property
    def identity(self) -> PackIdentity:
        """City, version, and the SHA-256 of the file's bytes as they are (`sha256sum` shows the same)."""
        digest = hashlib.sha256(self._source).hexdigest()
        return PackIdentity(city=self.city, version=self.version, sha256=digest)

    def rule(self, rule_type: type[R], *subject: str, on: When) -> R:
        """Give the rule in force on a subject (see `subjects` of the rule types). Raises NoRuleInForce."""
        return self.first_rule(rule_type, subject, on=on)

    def first_rule(self, rule_type: type[R], *subjects: Subject, on: When) -> R:
        """Give the rule in force on the first of these subjects that has one. Raises NoRuleInForce."""
        found = _first_found(self, rule_type, subjects, on)
        if found is None:
            raise _none_in_force(self, rule_type, subjects[-1], on)
        return found

    def find_rule(self, rule_type: type[R], *subject: str, on: When) -> R | None:
        """Give the rule in force on a subject, or None."""
        for candidate in self._index.get((rule_type, subject), ()):
            if candidate.covers(_day(candidate.version_by, on)):
                return cast("R", candidate)
        return None

    def benefit(self, code: str, on: When) -> Benefit:
        """Give a benefit. Raises UnknownCode, or NoRuleInForce where it is not in force then."""
        return self._coded(Benefit, code, on)

    def category(self, code: str, on: When) -> Category:
        """Give a category of talent. Raises UnknownCode, or NoRuleInForce where it is not in force then."""
        return self._coded(Category, code, on)

    def item(self, code: str, on: When) -> Item:
        """Give a service item. Raises UnknownCode, or NoRuleInForce where it is not in force then."""
        return self._coded(Item, code, on)

    def document(self, code: str) -> Document:
        """Give a document of the stack."""
        return next(document for document in self.documents if document.id == code)

    def citation(self, record: Cited) -> str:
        """The number of a record's document and its article, as 安人才〔2021〕4 号第五条."""
        return f"{self.document(record.document).number}{record.article or ''}"

    def treasury(self, code: str, on: date) -> PackTreasury:
        """Give a treasury as it is on a day. Raises UnknownCode, or NoRuleInForce before or after its days."""
        versions = [treasury for treasury in self.treasuries if treasury.code == code]
        if not versions:
            known = "、".join(sorted({treasury.code for treasury in self.treasuries}))
            raise UnknownCode(
                f"{self.city}/{self.version} knows no treasury {code}",
                f"{self.identity} 没有财政 {code}，可用：{known}。",
            )
        for treasury in versions:
            if treasury.covers(on):
                return treasury
        raise NoRuleInForce(
            f"the treasury {code} {versions[0].title} does not exist on {on}",
            f"财政 {code}（{versions[0].title}）在 {on} 不存在，请换一个日期。",
        )

    def city_treasury(self, on: date) -> PackTreasury:
        """Give the treasury of the city level. Raises NoRuleInForce outside its days."""
        for treasury in self.treasuries:
            if treasury.kind is TreasuryKind.CITY_LEVEL and treasury.covers(on):
                return treasury
        raise NoRuleInForce(
            f"{self.city}/{self.version} has no city-level treasury on {on}",
            f"{self.identity} 在 {on} 没有市本级财政，请换一个日期。",
        )

    def by_subject(self, rule_type: type[R]) -> Iterator[tuple[Subject, Sequence[R]]]:
        """Go through what rules of a type are about, each with all its versions."""
        for (found, subject), rules in self._index.items():
            if found is rule_type:
                yield subject, cast("list[R]", rules)

    def cited(self) -> Iterator[tuple[str, Cited]]:
        """Go through everything that names its source, rules or not, in the order of the file's sections: each with its
        rule id, or its section and code."""
        for section in type(self).model_fields:
            value = getattr(self, section)
            if isinstance(value, tuple):
                named = (record for record in value if isinstance(record, Cited))
                yield from ((_name(section, record), record) for record in named)

    @cached_property
    def facts_by_name(self) -> Mapping[str, Fact]:
        """The declared facts."""
        return {fact.name: fact for fact in self.facts}

    @cached_property
    def compiled(self) -> Mapping[str, Compiled]:
        """The conditions, compiled, by rule id."""
        return {rule.id: compile_condition(rule.when, self.facts) for rule in self.conditions}

    @cached_property
    def facts_of_decisions(self) -> frozenset[str]:
        """The names of the facts that a decision on an application looks at; the others are of reviews before later
        instalments alone."""
        on_filing = [rule for rule in self.conditions if rule.coverages or rule.categories or rule.items]
        return frozenset(name for rule in on_filing for name in self.compiled[rule.id].uses)

    @cached_property
    def _index(self) -> Mapping[tuple[type[Rule], Subject], list[Rule]]:
        index: dict[tuple[type[Rule], Subject], list[Rule]] = {}
        for rule in self.rules():
            for subject in rule.subjects:
                index.setdefault((type(rule), subject), []).append(rule)
        return index

    def _coded(self, rule_type: type[C], code: str, on: When) -> C:
        if (rule_type, (code,)) not in self._index:
            known = "、".join(subject[0] for subject, _ in self.by_subject(rule_type))
            raise UnknownCode(
                f"{self.city}/{self.version} knows no {rule_type.__name__.lower()} {code}",
                f"{self.identity} 没有 {code}，可用：{known}。",
            )
        return self.rule(rule_type, code, on=on)


class Rulebook(Protocol):
    """Where a payment looks its rules up: one pack, or two in succession."""

    def rule(self, rule_type: type[R], *subject: str, on: When) -> R: ...  # noqa: D102
    def find_rule(self, rule_type: type[R], *subject: str, on: When) -> R | None: ...  # noqa: D102
    def first_rule(self, rule_type: type[R], *subjects: Subject, on: When) -> R: ...  # noqa: D102
    def benefit(self, code: str, on: When) -> Benefit: ...  # noqa: D102
    def treasury(self, code: str, on: date) -> PackTreasury: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Succession:
    """The policy of a payment that falls due under a later version than it was granted under.

    What the version of the grant decides by `accepted_on` stays as it was granted. All else is the later version's, and
    so is the paying treasury; but a rule by `accepted_on` of which the grant knew nothing is for new applications.
    """

    granted: Pack
    paying: Pack

    def find_rule(self, rule_type: type[R], *subject: str, on: When) -> R | None:
        """Give the rule in force on a subject, or None."""
        return self._first(rule_type, [subject], on)

    def rule(self, rule_type: type[R], *subject: str, on: When) -> R:
        """The same. Raises NoRuleInForce."""
        return self.first_rule(rule_type, subject, on=on)

    def first_rule(self, rule_type: type[R], *subjects: Subject, on: When) -> R:
        """Give the rule on the first of these subjects on which the version that decides has one. Raises
        NoRuleInForce."""
        found = self._first(rule_type, subjects, on)
        if found is None:
            raise _none_in_force(self.paying, rule_type, subjects[-1], on)
        return found

    def benefit(self, code: str, on: When) -> Benefit:
        """The benefit as it was granted. Raises UnknownCode, NoRuleInForce."""
        return self.granted.benefit(code, on)

    def treasury(self, code: str, on: date) -> PackTreasury:
        """A treasury as the later version has it. Raises UnknownCode, NoRuleInForce."""
        return self.paying.treasury(code, on)

    def _first(self, rule_type: type[R], subjects: Sequence[Subject], on: When) -> R | None:
        own = _first_found(self.granted, rule_type, subjects, on)
        if own is not None and own.version_by is VersionBy.ACCEPTED_ON:
            return own
        later = (self._later(rule_type, subject, on) for subject in subjects)
        return next((rule for rule in later if rule is not None), None)

    def _later(self, rule_type: type[R], subject: Subject, on: When) -> R | None:
        rule = self.paying.find_rule(rule_type, *subject, on=on)
        if rule is not None and rule.version_by is VersionBy.ACCEPTED_ON:
            return rule if self.granted.find_rule(rule_type, *subject, on=on) else None
        return rule


def _first_found(pack: Pack, rule_type: type[R], subjects: Sequence[Subject], on: When) -> R | None:
    found = (pack.find_rule(rule_type, *subject, on=on) for subject in subjects)
    return next((rule for rule in found if rule is not None), None)


def _none_in_force(pack: Pack, rule_type: type[Rule], subject: Subject, on: When) -> NoRuleInForce:
    about, whose = (f" on {', '.join(subject)}", f"对 {'、'.join(subject)} ") if subject else ("", "")
    return NoRuleInForce(
        f"{pack.city}/{pack.version} holds no {rule_type.__name__}{about} for {on}",
        f"{pack.identity}（自 {pack.in_force_from} 起施行）{whose}没有在 {day_due(on)} 有效的规定，请换一个日期。",
    )


def load_pack(path: FilePath) -> Pack:
    """Read a pack from its file. Raises PackRefused with file, line and reason, or OSError."""
    return _parsed(path.read_bytes(), path.name)


@lru_cache(maxsize=8)  # five services in one process load the same files
def _parsed(raw: bytes, name: str) -> Pack:
    return Pack.parse(raw, name)


def _name(section: str, record: Cited) -> str:
    if isinstance(record, Fact):
        return f"{section}.{record.name}"
    return record.id if isinstance(record, Rule) else f"{section}.{getattr(record, 'code', '')}"


def _day(version_by: VersionBy, on: When) -> date:
    if isinstance(on, PolicyDates) and version_by is VersionBy.ACCEPTED_ON:
        return on.accepted_on
    return day_due(on)
