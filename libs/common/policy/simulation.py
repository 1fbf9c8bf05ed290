"""What a policy costs: a population through the production rules, as fen per benefit, bearer and year of payment.

Nothing here is a rule. Who is entitled is asked of `Screening`, when it is paid of `schedule`, who bears it of `split`;
each is asked once for all who are alike, so that a million people take memory for their differences and not for their
number. Each item takes its whole promised time, everybody files once, and whoever is reviewed before a later instalment
(发放前复核) is taken to pass. Of benefits of which one may be had
(`AtMostOne`) a person is taken to choose that of the greatest amount, of several that give alike the first of the pack.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from functools import lru_cache
from random import Random
from typing import NamedTuple

from libs.common.calendar import CALENDAR, Calendar
from libs.common.dated import changes
from libs.common.policy.conditions import Facts, FactValueType
from libs.common.policy.decision import Decision, Screening, Verdict
from libs.common.policy.errors import NoRuleInForce, PolicyError
from libs.common.policy.green_channel import green_channel, promised_working_days
from libs.common.policy.instalments import Instalment, schedule
from libs.common.policy.model import AtMostOne, EmployerShareRule, Fact, FactType
from libs.common.policy.pack import Pack, PolicyDates
from libs.common.policy.sharing import Split, split
from libs.common.treasuries import EmployerKind, TreasuryKind

KIND = "employer.kind"
"""The fact that the platform knows of each filing; here it follows from the kind of employer."""

EMPLOYER = "employer"
MANUAL = "manual"
"""Bearers beside treasuries: the employer, and nobody yet, where the rules leave it to people."""

_KEPT = 20_000  # answers of each question: more than a year has of days and benefits together
_TRUE, _KNOWN, _AGES = 0.8, 0.95, (18, 60)


class People(NamedTuple):
    """So many people who are alike: the day of acceptance, the affiliated treasury, and what is known of each."""

    accepted_on: date
    treasury: str
    employer_kind: EmployerKind
    facts: Facts
    number: int = 1


class Outcome(StrEnum):
    """What came of a person."""

    ENTITLED = "entitled"
    UNDETERMINED = "undetermined"
    NOTHING = "nothing"

    @property
    def words(self) -> str:
        """What people read."""
        return {"entitled": "可享受", "undetermined": "尚不能确定", "nothing": "不能享受"}[self]


class Cell(NamedTuple):
    """Where an amount belongs; `year` is that of the last day for the credit."""

    benefit: str
    bearer: str
    year: int


@dataclass(slots=True)
class Account:
    """What it comes to: fen by cell, people by benefit and year of acceptance, people by outcome, and why so many
    payments are left to people."""

    fen: Counter[Cell] = field(default_factory=Counter)
    granted: Counter[tuple[str, int]] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    manual: Counter[str] = field(default_factory=Counter)


class _Grants(NamedTuple):
    outcome: Outcome
    working_days: int  # until all is decided
    money: tuple[tuple[str, str, int], ...]  # benefit, category, and the whole in fen


class _Payment(NamedTuple):
    """What decides who bears a payment; `accepted` and `due` are periods."""

    benefit: str
    treasury: str
    employer_kind: EmployerKind
    accepted: int
    due: int
    fen: int


class Simulation:
    """One pack, and what it has cost so far."""

    def __init__(self, pack: Pack, calendar: Calendar = CALENDAR) -> None:
        self.pack = pack
        self.account = Account()
        self._calendar = calendar
        self._starts = _starts(pack)
        self._screening = lru_cache(_KEPT)(self._screen)
        self._granted = lru_cache(_KEPT)(self._grant)
        self._paid = lru_cache(_KEPT)(self._pay)
        self._borne = lru_cache(_KEPT)(self._bear)

    def take(self, people: People) -> None:
        """Add what these people cost. Raises UnknownCode for a treasury that the pack does not know."""
        on = people.accepted_on
        self.pack.treasury(people.treasury, on)
        shown = {KIND: people.employer_kind.value} if KIND in self.pack.facts_by_name else {}
        grants = self._granted(self._period(on), frozenset({**people.facts, **shown}.items()))
        self.account.outcomes[grants.outcome] += people.number
        for benefit, category, fen in grants.money:
            self.account.granted[benefit, on.year] += people.number
            parts = self._paid(benefit, category, on, grants.working_days)
            if isinstance(parts, str):
                self._left_to_people(people, Cell(benefit, MANUAL, on.year), fen, parts)
                continue
            for part in parts:
                self._add(people, benefit, part)

    def _add(self, people: People, benefit: str, part: Instalment) -> None:
        year, accepted, due = part.due_on.year, self._period(people.accepted_on), self._period(part.due_on)
        result = self._borne(_Payment(benefit, people.treasury, people.employer_kind, accepted, due, part.amount_fen))
        if isinstance(result, str):
            self._left_to_people(people, Cell(benefit, MANUAL, year), part.amount_fen, result)
            return
        for bearer, fen in {EMPLOYER: result.employer, **result.shares}.items():
            if fen:
                self.account.fen[Cell(benefit, bearer, year)] += fen * people.number

    def _left_to_people(self, people: People, cell: Cell, fen: int, why: str) -> None:
        self.account.fen[cell] += fen * people.number
        self.account.manual[why] += people.number

    # -- each asked once for all who are alike; a period stands for its days, for no rule begins or ends within it

    def _period(self, day: date) -> int:
        return bisect_right(self._starts, day)

    def _first_day(self, period: int) -> date:
        return self._starts[period - 1] if period else self._starts[0] - timedelta(days=1)

    def _screen(self, period: int) -> Screening:
        return Screening(self.pack, self._first_day(period))

    def _grant(self, period: int, known: frozenset[tuple[str, FactValueType]]) -> _Grants:
        screening, facts = self._screening(period), dict(known)
        found = _chosen(self.pack, screening.entitled(facts))
        if not found:
            undetermined = any(each.verdict is Verdict.UNDETERMINED for each in screening.decisions(facts))
            return _Grants(Outcome.UNDETERMINED if undetermined else Outcome.NOTHING, 0, ())
        money = tuple((each.item.code, each.category.code, each.fen) for each in found if each.fen is not None)
        return _Grants(Outcome.ENTITLED, max(_promised(self.pack, each) for each in found), money)

    def _pay(self, benefit: str, category: str, accepted_on: date, working_days: int) -> Sequence[Instalment] | str:
        try:
            return schedule(
                self.pack,
                benefit=benefit,
                category=category,
                decided_on=self._calendar.add_working_days(accepted_on, working_days),
                accepted_on=accepted_on,
                calendar=self._calendar,
            )
        except (PolicyError, ValueError) as error:  # ValueError: behind the last day of the calendar
            return error.told if isinstance(error, PolicyError) else str(error)

    def _bear(self, payment: _Payment) -> Split | str:
        try:
            return split(
                self.pack,
                benefit=payment.benefit,
                treasury=payment.treasury,
                on=PolicyDates(self._first_day(payment.accepted), self._first_day(payment.due)),
                total_fen=payment.fen,
                employer_kind=payment.employer_kind,
            )
        except PolicyError as error:
            return error.told


def _promised(pack: Pack, decision: Decision) -> int:
    """How long the departments may take at most, through the green channel where there is one."""
    code, category = decision.item.code, decision.category.code
    return promised_working_days(decision.item, green_channel(pack, item=code, category=category, on=decision.on))


def _chosen(pack: Pack, entitled: Sequence[Decision]) -> list[Decision]:
    """What people file for: of benefits of which one may be had, that of the greatest amount."""
    chosen: dict[tuple[str, ...], Decision] = {}
    for each in sorted(entitled, key=lambda each: -(each.fen or 0)):
        rule = pack.find_rule(AtMostOne, each.item.code, on=each.on)
        chosen.setdefault(rule.benefits if rule else (each.item.code,), each)
    return list(chosen.values())


def _starts(pack: Pack) -> list[date]:
    """The days on which a rule begins, or no longer holds."""
    return sorted(changes([*pack.rules(), *pack.treasuries]))


# -- a population out of nothing


def drawn(pack: Pack, number: int, *, first_year: int, years: int, seed: int) -> Iterator[People]:
    """People by chance, spread evenly over the years: every treasury that bears shares, every kind of employer that the
    rules decide on, every declared fact. It says nothing of a real city: it measures, and it compares packs."""
    rng, first = Random(seed), date(first_year, 1, 1)
    days = (date(first_year + years, 1, 1) - first).days
    kinds = sorted({kind for subject, _ in pack.by_subject(EmployerShareRule) for kind in subject[1:]})
    facts = [(fact.name, _values(fact)) for fact in pack.facts if fact.name != KIND]
    for n in range(number):
        day = first + timedelta(days=n * days // number)
        bearing = [each.code for each in pack.treasuries if each.kind is not TreasuryKind.PROVINCE and each.covers(day)]
        known = {name: value(rng) for name, value in facts if rng.random() < _KNOWN}
        if not bearing:
            raise NoRuleInForce(
                f"{pack.city}/{pack.version} has no treasury on {day}: begin later",
                f"{pack.identity} 在 {day} 没有有效的财政，请把起始年推后。",
            )
        yield People(day, rng.choice(bearing), EmployerKind(rng.choice(kinds)), known)


def _values(fact: Fact) -> Callable[[Random], FactValueType]:
    match fact.type:
        case FactType.BOOL:
            return lambda rng: rng.random() < _TRUE
        case FactType.INT:
            return lambda rng: rng.randint(*_AGES)
    codes = [value.code for value in fact.values]
    return lambda rng: rng.choice(codes)


# -- the account as a table


class Row(NamedTuple):
    """A benefit and who bears it: fen of each year of the horizon, then of all later ones."""

    benefit: str
    bearer: str
    fen: tuple[int, ...]

    @property
    def total(self) -> int:
        """All years."""
        return sum(self.fen)


Rows = Mapping[tuple[str, str], Row]
"""By benefit and bearer, in their order."""


def table(account: Account, years: range) -> Rows:
    """The account by benefit and bearer."""
    found: dict[tuple[str, str], list[int]] = {}
    for cell, fen in account.fen.items():
        row = found.setdefault((cell.benefit, cell.bearer), [0] * (len(years) + 1))
        row[years.index(cell.year) if cell.year in years else len(years)] += fen
    return {key: Row(*key, tuple(row)) for key, row in sorted(found.items())}


def difference(before: Rows, after: Rows) -> Rows:
    """How much more each benefit costs each bearer, wherever either table has a row."""
    width = max((len(row.fen) for row in (*before.values(), *after.values())), default=0)
    none = (0,) * width
    return {
        key: Row(*key, tuple(b - a for a, b in zip(_fen(before, key, none), _fen(after, key, none), strict=True)))
        for key in sorted({*before, *after})
    }


def _fen(rows: Rows, key: tuple[str, str], none: tuple[int, ...]) -> tuple[int, ...]:
    return rows[key].fen if key in rows else none


def sums(rows: Rows, years: range) -> list[int]:
    """The fen of each year, of all later ones, and of all."""
    columns = zip(*((*row.fen, row.total) for row in rows.values()), strict=True)
    return [sum(column) for column in columns] or [0] * (len(years) + 2)


def bearer_title(pack: Pack, bearer: str) -> str:
    """Who bears it, as people read it; the code where the pack does not know it."""
    titles = {treasury.code: treasury.title for treasury in pack.treasuries}
    return {EMPLOYER: "用人单位", MANUAL: "须人工决定", **titles}.get(bearer, bearer)


def benefit_title(pack: Pack, benefit: str) -> str:
    """A benefit, as people read it; the code where the pack does not know it."""
    return {each.code: each.title for each in pack.benefits}.get(benefit, benefit)
