"""The sample population of any city, made from its pack alone: every treasury, kind of employer, category and item, and
each way in which a filing may go. Some sixty lines for a city of five treasuries.

The same pack gives the same lines, also on a later day: whoever is certified by an age has it long enough.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from deploy.sample import filings, people
from deploy.sample.filings import Draft, item
from deploy.sample.generate import CITY
from deploy.sample.identities import with_wrong_check_digit
from deploy.sample.lines import Book, Line
from deploy.sample.people import Person
from deploy.sample.policy import Facts, Json, Policy
from deploy.sample.portal import read_population
from libs.common.policy.model import BenefitForm, Changed, ItemKind
from libs.common.treasuries import EmployerKind

ENTERPRISE = EmployerKind.ENTERPRISE
ABOVE = EmployerKind.CENTRAL_OR_PROVINCIAL
TRIES = 500
YEARS_ON = 5
"""How many years after the policy's first day the people of the sample still are what they are certified as."""


def population_of(policy: Policy) -> Sequence[Line]:
    """The lines of the city that is served: Anyang's are fixed, any other city's are made."""
    return read_population() if policy.pack.city == CITY else AnyCity(policy).fill()


def _asked(line: Line, benefits: Sequence[str]) -> Sequence[str]:
    """Those of the benefits that a line asks for together with the certification."""
    codes = [each["code"] for each in line.body["items"]]
    return [each for each in benefits if each in codes and line.certification_of is None]


class AnyCity(Book):
    """Everybody who files, and what; `lines` once `fill` has run."""

    def fill(self) -> Sequence[Line]:
        """All lines, in waves. Raises ValueError where the pack leaves nobody to be certified."""
        self.everybody_at_every_employer()
        certified = self.certifications_alone()
        self.benefits_later(certified)
        self.changes(certified)
        self.flats()
        self.one_of_several()
        self.other_categories()
        self.services()
        self.at_every_window()
        self.corrections()
        self.withdrawals()
        self.refused_by_a_department()
        self.not_accepted()
        self.wrong_value()
        self.repeats()
        self.lines.sort(key=lambda line: line.wave)
        return self.lines

    # -- what goes well

    def everybody_at_every_employer(self) -> None:
        """Each treasury and kind of employer: a certification with every money benefit that its category may have."""
        for kind in self.policy.employer_kinds:
            himself: Json = {"handler": None} if kind is EmployerKind.OWN_STARTUP else {}
            for number, (treasury, category) in enumerate(
                zip(self.policy.places, cycle(self._with_money(kind)), strict=False)
            ):
                draft = self._certified(treasury, category, self._money(category, kind), kind, **himself)
                self.add(draft, batch=number % 2 == 0)

    def certifications_alone(self) -> Sequence[Line]:
        """A certification a treasury, for whatever is filed later."""
        return [
            self.add(self._certified(treasury, category, ()))
            for treasury, category in zip(self.policy.places, cycle(self._with_money()), strict=False)
        ]

    def benefits_later(self, certified: Sequence[Line]) -> None:
        """By turns a benefit in money and a flat on each earlier certification, whose number is filled in; the
        employer's affiliation is on record."""
        for number, line in enumerate(certified):
            category = line.body["items"][0]["category"]
            may_have = [*self._money(category)[:1], *self._flats(category)[:1]]
            benefit = may_have[number % len(may_have)]
            self.add(self.later(line, [item(benefit)]), wave=3, certification_of=line.key)

    def changes(self, certified: Sequence[Line]) -> None:
        """Every change, by people who are on record."""
        for line, change in zip(cycle(certified), self.policy.items(ItemKind.CHANGE), strict=False):
            body = self.later(line, [item(change.code)])
            if change.changes is not Changed.PAYEE_ACCOUNT:
                [tie] = line.body["employer"]["affiliations"]
                body["employer"] = filings.employer(self.policy, self.employer(tie["treasury"]))
            self.add(body, wave=2)

    def flats(self) -> None:
        """Every benefit that gives a flat, with the certification it rests on, at the first and the last treasury."""
        places = list(self.policy.places)
        for treasury in (places[0], places[-1]):
            for benefit in self.policy.benefits(BenefitForm.IN_KIND):
                may_have = [each for each in self._categories() if benefit in self._flats(each)]
                for category in may_have[:1]:
                    self.add(self._certified(treasury, category, [benefit]))

    def one_of_several(self) -> None:
        """Whoever was given one of several benefits asks for another of them in vain."""
        for rule in self.policy.pack.at_most_one:
            having = ((line, each) for line in self.lines for each in _asked(line, rule.benefits))
            for line, given in islice(having, 1):
                [other, *_] = [each for each in rule.benefits if each != given]
                self.add(self.later(line, [item(other)]), "not_accepted", wave=3, certification_of=line.key)

    def other_categories(self) -> None:
        """A certification of each category that nobody has filed for yet."""
        filed = {each.get("category") for line in self.lines for each in line.body["items"]}
        left = [category for category in self.policy.categories if category not in filed]
        for treasury, category in zip(cycle(self.policy.places), left, strict=False):
            for kind in self._kinds_of(category)[:1]:
                self.add(self._certified(treasury, category, self._flats(category, kind)[:1], kind))

    def services(self) -> None:
        """Every service, by turns of somebody employed and of somebody by their region; the family is named."""
        regions = cycle(self.policy.regions.items())
        for number, service in enumerate(self.policy.items(ItemKind.SERVICE)):
            treasury, region = next(regions)
            wanted, links = [item(service.code)], [("spouse", self.somebody()), ("child", people.make_child(self.rng))]
            by_region = self.own(self.somebody(), wanted, region=region, links=links)
            self.add(by_region if number % 2 else self.draft(treasury, wanted, links=links))

    def at_every_window(self) -> None:
        """An on-site filing at each platform, of the last treasury that it serves; one comes to the wrong platform."""
        windows = self.policy.platforms
        for platform in windows:
            self.at_window(self._on_site(platform.treasuries[-1], platform.code), platform.code, {"state": "closed"})
        if len(windows) > 1:
            moves = {"state": "transferred", "successor": "closed"}
            self.at_window(self._on_site(windows[0].treasuries[0], windows[-1].code), windows[-1].code, moves)

    def _on_site(self, treasury: str, platform: str) -> Draft:
        return self.usual(treasury, handler=None, channel="on_site", platform=platform)

    # -- what has defects

    def corrections(self) -> None:
        """A material that is missing and told afterwards, and one that is uploaded afterwards."""
        one, other = islice(cycle(self.policy.places), 2)
        for code in self._materials():
            draft = self.usual(one, without=[code])
            self.add(draft, then={"correct": {"materials": [draft.material(code)]}})
            self.add(self.usual(other, uploads=[code]), then={"upload": [code]})

    def withdrawals(self) -> None:
        """Withdrawn after acceptance before any decision, and while in correction."""
        for more in ({}, {"handler_mandated": False}):
            self.add(self.usual(self.policy.example, **more), "withdrawn", then={"withdraw": True})

    # -- what is refused

    def refused_by_a_department(self) -> None:
        """A licence that no register holds: the department fails it, and two officers refuse what rests on it."""
        for code in self._materials():
            self.add(self.usual(self.policy.example, void=[code]), "refused")

    def not_accepted(self) -> None:
        """What the policy shuts out, and what it leaves to people."""
        for rule in self.policy.pack.exclusions:
            shut_out = [each.code for each in self.policy.pack.categories if each.coverage == rule.coverage]
            for category in shut_out[:1]:
                for kind in self._kinds_of(category)[:1]:
                    wanted = [self.policy.certification(category), item(rule.benefits[0])]
                    self.add(self.draft(self.policy.example, wanted, kind), "not_accepted")
        if ABOVE not in self.policy.employer_kinds:
            [category, *_] = self._with_money()
            wanted = [self.policy.certification(category), *map(item, self._money(category))]
            self.add(self.draft(self.policy.city, wanted, ABOVE), "not_accepted")

    def wrong_value(self) -> None:
        """A number that cannot be: refused whole, nothing is stored."""
        body = self.usual(self.policy.example).body()
        body["employer"]["credit_code"] = with_wrong_check_digit(body["employer"]["credit_code"])
        self.add(body, expect={"status": 422, "code": "filing-wrong", "errors": ["credit-code-check-digit"]})

    def repeats(self) -> None:
        """The same again: the same person and benefit, the same key, the same key for something else."""
        first = self.lines[0]
        again = copy.deepcopy(first.body)
        del again["external_refs"]
        self.add(again, "not_accepted", wave=2)
        self.lines.append(replace(first, wave=2, expect={"same": True}))
        other = copy.deepcopy(first.body)
        other["beneficiary"]["name"] = "另有其人"
        refusal = {"status": 409, "code": "idempotency-key-reused"}
        self.lines.append(replace(first, wave=2, body=other, expect=refusal))

    # -- who may have what

    def usual(self, treasury: str, **more: Any) -> Draft:
        """The plainest filing: a certification at an enterprise, with its money."""
        [category, *_] = self._with_money()
        return self._certified(treasury, category, self._money(category), **more)

    def _materials(self) -> Sequence[str]:
        """The first material that a certification at an enterprise asks for, if it asks for any."""
        [category, *_] = self._with_money()
        return self.policy.materials_of([self.policy.certification(category)])[:1]

    def _certified(
        self,
        treasury: str,
        category: str,
        benefits: Sequence[str],
        kind: EmployerKind = ENTERPRISE,
        **more: Any,
    ) -> Draft:
        """A certification with benefits, for somebody whom no rule shuts out."""
        certification = self.policy.certification(category)
        who = self._whom(
            category, [certification["code"], *self._money(category, kind), *self._flats(category, kind)], kind
        )
        return self.draft(treasury, [certification, *map(item, benefits)], kind, beneficiary=who, **more)

    def _whom(self, category: str, items: Sequence[str], kind: EmployerKind) -> Person:
        """Somebody whom no rule shuts out, now or after YEARS_ON. Raises ValueError."""
        for _ in range(TRIES):
            one = self.somebody()
            age = one.age_on(self.policy.pack.in_force_from)
            known: Sequence[Facts] = [{"employer.kind": kind.value, "person.age": age + more} for more in (0, YEARS_ON)]
            if all(self.policy.open_to(category, items, facts) for facts in known):
                return one
        raise ValueError(f"of {TRIES} people nobody may be {category} at an employer of kind {kind}")

    def _categories(self, kind: EmployerKind = ENTERPRISE) -> Sequence[str]:
        """The categories in which somebody of this kind of employer may be certified."""
        return [
            category
            for category in self.policy.categories
            if self._allowed(category, [self.policy.certification(category)["code"]], kind)
        ]

    def _with_money(self, kind: EmployerKind = ENTERPRISE) -> Sequence[str]:
        """Those of them that may have a benefit in money."""
        return [category for category in self._categories(kind) if self._money(category, kind)]

    def _kinds_of(self, category: str) -> Sequence[EmployerKind]:
        return [kind for kind in self.policy.employer_kinds if category in self._categories(kind)]

    def _money(self, category: str, kind: EmployerKind = ENTERPRISE) -> Sequence[str]:
        return self._one_of_each(self._allowed(category, self.policy.benefits(BenefitForm.MONEY), kind))

    def _flats(self, category: str, kind: EmployerKind = ENTERPRISE) -> Sequence[str]:
        in_kind = self.policy.benefits(BenefitForm.IN_KIND)
        return self._allowed(category, [each for each in in_kind if self.policy.flat_of(each)], kind)

    def _allowed(self, category: str, items: Iterable[str], kind: EmployerKind) -> Sequence[str]:
        """Those of the items that no rule refuses to a category at an employer of this kind."""
        facts = {"employer.kind": kind.value}
        return [each for each in items if self.policy.open_to(category, [each], facts)]

    def _one_of_each(self, items: Sequence[str]) -> Sequence[str]:
        """The items without those of which one is had by an item before them."""
        return [each for place, each in enumerate(items) if not self.policy.instead_of(each) & set(items[:place])]
