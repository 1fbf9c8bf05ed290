"""Anyang's sample population: 300 synthetic filings, the same from the same seed, one JSON object a line (`lines.py`).

`python -m deploy.sample.generate > deploy/sample/population.jsonl`. It is made for its edge cases, and fixed; any other
city's population is made from its pack (`any_city.py`).
"""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache
from itertools import cycle

from deploy.sample import filings, people
from deploy.sample.filings import Draft, item
from deploy.sample.identities import with_wrong_check_digit
from deploy.sample.lines import SEED, Book, Line
from deploy.sample.people import Person
from deploy.sample.policy import Json, Policy
from libs.common.identity import DocumentType
from libs.common.policy import load_pack
from libs.common.settings import POLICIES
from libs.common.treasuries import EmployerKind

CITY = "anyang"
POLICY_DAY = date(2026, 1, 1)
SIZE = 300
PLACES = {
    "410500": "安阳",
    "410502": "文峰",
    "410503": "北关",
    "410505": "殷都",
    "410506": "龙安",
    "410522": "安阳县",
    "410523": "汤阴",
    "410526": "滑县",
    "410527": "内黄",
    "410581": "林州",
    "410571": "高新",
}
"""The treasuries that talents belong to: the city level, nine districts and counties, one zone."""

CATEGORIES = {
    EmployerKind.ENTERPRISE: ("doctor", "master", "bachelor"),
    EmployerKind.INSTITUTION: ("doctor", "master"),
    EmployerKind.GOVERNMENT: ("targeted_graduate",),
    EmployerKind.SOCIAL_ORGANISATION: ("bachelor", "master"),
    EmployerKind.OWN_STARTUP: ("youth_reserve",),
}
EVERYTHING = ("living_allowance", "purchase_subsidy", "talent_apartment", "household_registration", "medical_care")
SERVICES = ("household_registration", "children_schooling", "medical_care", "spouse_employment")
ENTERPRISE = EmployerKind.ENTERPRISE
REFUSED_VALUE = {"status": 422, "code": "filing-wrong"}


@cache
def anyang() -> Policy:
    """The policy that this population is filed under."""
    return Policy(load_pack(POLICIES / CITY / "2021-4.4.yaml"), POLICY_DAY, PLACES)


def certification(category: str) -> Json:
    """The certification item of a category: the flexible one has an item of its own."""
    kind = "flexible" if category == "flexible" else "talent"
    return {"code": f"{kind}_certification", "category": category}


BACHELOR = [certification("bachelor"), item("living_allowance")]


class Population(Book):
    """Everybody who files, and what; `lines` once `fill` has run."""

    portal = "henan_portal"

    def __init__(self, seed: int = SEED) -> None:
        super().__init__(anyang(), seed)
        self._documents = cycle(DocumentType)
        self._rare = cycle(people.RARE)
        self._minority = cycle((False, False, False, False, False, False, False, False, True))

    def fill(self) -> list[Line]:
        """All lines, in waves; raises ValueError where they are not SIZE."""
        self.everybody_at_every_employer()
        certified = self.certifications_alone()
        self.benefits_later(certified)
        self.services_alone()
        self.many_items()
        self.changes(certified)
        self.every_document()
        self.flexible_talents()
        self.housing()
        self.at_the_window()
        self.corrections()
        self.withdrawals()
        self.refused_by_departments()
        self.not_accepted()
        self.wrong_values()
        self.repeats()
        self.lines.sort(key=lambda line: line.wave)
        if len(self.lines) != SIZE:
            raise ValueError(f"{len(self.lines)} lines, not {SIZE}")
        return self.lines

    # -- who

    def somebody(self, kind: DocumentType = DocumentType.RESIDENT_IDENTITY_CARD, *, rare: bool = False) -> Person:
        """One more person; every ninth with a name of two parts, `rare` with a character beyond the common plane."""
        one = people.make_person(self.rng, kind, next(self._rare) if rare else None)
        if kind is DocumentType.RESIDENT_IDENTITY_CARD and not rare and next(self._minority):
            return replace(one, name=people.make_minority_name(self.rng))
        return one

    # -- what goes well

    def everybody_at_every_employer(self) -> None:
        """Each treasury and kind of employer: certification, living allowance and often the purchase subsidy."""
        categories = {kind: cycle(codes) for kind, codes in CATEGORIES.items()}
        for number, (treasury, kind) in enumerate((t, k) for t in PLACES for k in CATEGORIES):
            items = [certification(next(categories[kind])), item("living_allowance")]
            items += [item("purchase_subsidy")] if number % 3 == 0 else []
            other = number % 4 == 1
            who = self.somebody(next(self._documents) if other else DocumentType.RESIDENT_IDENTITY_CARD, rare=not other)
            himself = kind is EmployerKind.OWN_STARTUP
            draft = self.draft(treasury, items, kind, beneficiary=who, handler=None if himself else self.somebody())
            self.add(draft, batch=number % 2 == 0)

    def certifications_alone(self) -> dict[str, list[Line]]:
        """Three certifications a treasury, for whatever is filed later."""
        made: dict[str, list[Line]] = {}
        for treasury in PLACES:
            kinds = (EmployerKind.INSTITUTION, ENTERPRISE, EmployerKind.SOCIAL_ORGANISATION)
            made[treasury] = [
                self.add(self.draft(treasury, [certification(category)], kind), batch=True)
                for category, kind in zip(("doctor", "master", "bachelor"), kinds, strict=True)
            ]
        return made

    def benefits_later(self, certified: Mapping[str, Sequence[Line]]) -> None:
        """Benefits on an earlier certification: its number is filled in, the employer's affiliation is on record."""
        for number, treasury in enumerate(PLACES):
            home = "talent_flat" if number % 2 else "talent_apartment"
            for line, code in zip(certified[treasury], ("living_allowance", "purchase_subsidy", home), strict=True):
                self.add(self.later(line, [item(code)]), wave=3, certification_of=line.key)

    def services_alone(self) -> None:
        """Service items, half of them for people without an employer, by their region; families are named."""
        for treasury in PLACES:
            for place, code in enumerate(SERVICES if treasury not in {"410502", "410581"} else SERVICES[:2]):
                links = self._family(code)
                if place % 2:
                    draft = self.own(self.somebody(), [item(code)], region=treasury, links=links)
                else:
                    draft = self.draft(treasury, [item(code)], beneficiary=self.somebody(), links=links)
                self.add(draft, batch=place < 2)

    def _family(self, code: str) -> list[tuple[str, Person]]:
        match code:
            case "spouse_employment":
                return [("spouse", self.somebody())]
            case "children_schooling":
                return [("child", people.make_child(self.rng))]
        return []

    def many_items(self) -> None:
        """Everything at once: certification, both money benefits, a flat or apartment, and services."""
        for number, treasury in enumerate(PLACES):
            items = [certification(("doctor", "master")[number % 2]), *map(item, EVERYTHING[number % 2 :])]
            self.add(self.draft(treasury, items, EmployerKind.INSTITUTION))

    def changes(self, certified: Mapping[str, Sequence[Line]]) -> None:
        """Changes by people who are on record: another account, another employer."""
        for number, treasury in enumerate(PLACES):
            line = certified[treasury][2]
            if number % 2:
                self.add(self.later(line, [item("payee_account_change")]), wave=2)
            else:
                body = self.later(line, [item("employer_change")])
                self.add(body | {"employer": filings.employer(self.policy, self.employer(treasury))}, wave=2)

    def every_document(self) -> None:
        """Holders of each kind of document: certified and paid, founding a firm, and asking for a service."""
        treasuries = cycle(PLACES)
        for kind in DocumentType:
            items = [certification("doctor"), item("living_allowance")]
            self.add(self.draft(next(treasuries), items, beneficiary=self.somebody(kind)), batch=True)
            own = EmployerKind.OWN_STARTUP
            items = [certification("youth_reserve"), item("purchase_subsidy")]
            self.add(self.draft(next(treasuries), items, own, beneficiary=self.somebody(kind), handler=None))
            self.add(self.own(self.somebody(kind), [item("medical_care")], region=next(treasuries)), batch=True)

    def flexible_talents(self) -> None:
        """Flexibly engaged talents of science: every benefit but the two in money."""
        for number, treasury in enumerate(PLACES):
            items = [certification("flexible"), *([item("talent_flat")] if number % 2 else [])]
            who = self.somebody(next(self._documents))
            self.add(self.draft(treasury, items, beneficiary=who))

    def housing(self) -> None:
        """Certification together with a flat or an apartment."""
        for number, treasury in enumerate(PLACES):
            items = [certification("bachelor"), item(("talent_flat", "talent_apartment")[number % 2])]
            self.add(self.draft(treasury, items, EmployerKind.SOCIAL_ORGANISATION))

    def at_the_window(self) -> None:
        """On-site filings at every platform, and two that belong elsewhere and are transferred."""
        platforms = list(PLACES)
        for number, treasury in enumerate(platforms):
            items = [certification("master"), item("living_allowance")]
            draft = self.draft(treasury, items, handler=None, channel="on_site", platform=treasury)
            self.at_window(draft, treasury, {"state": "closed"})
            if number < 2:
                elsewhere = platforms[number + 5]
                draft = self.draft(treasury, items, handler=None, channel="on_site", platform=elsewhere)
                self.at_window(draft, elsewhere, {"state": "transferred", "successor": "closed"})

    # -- what has defects

    def corrections(self) -> None:
        """Every kind of defect, and its correction by the portal: all at once, then accepted."""
        treasuries = cycle(PLACES)
        defects = (self._want_material, self._want_account, self._want_value, self._want_authority)
        for defective, correct in (each for kind in defects for each in kind(treasuries)):
            # A region shows that it was filed at the wrong platform: corrected, it moves on.
            moves = {"state": "transferred", "successor": "closed"} if "region" in correct else {"state": "closed"}
            self.add(defective, expect=moves, then={"correct": correct})
        for codes in (("degree_certificate",), ("labour_contract",), ("identity_document", "labour_contract")):
            items = [certification("master"), item("living_allowance")]
            self.add(self.draft(next(treasuries), items, uploads=codes), then={"upload": list(codes)})

    def _want_material(self, treasuries: Iterator[str]) -> Iterator[tuple[Draft, Json]]:
        for codes in (["degree_certificate"], ["labour_contract"], ["identity_document", "degree_certificate"]):
            draft = self.draft(next(treasuries), BACHELOR, without=codes)
            yield draft, {"materials": [draft.material(code) for code in codes]}
        draft = self.draft(next(treasuries), BACHELOR)
        promised = {"code": "labour_contract", "evidence": "promised", "by": "2025-01-10"}  # long past
        draft.extra = {"materials": [*map(draft.material, ("identity_document", "degree_certificate")), promised]}
        yield draft, {"materials": [draft.material("labour_contract")]}

    def _want_account(self, treasuries: Iterator[str]) -> Iterator[tuple[Draft, Json]]:
        draft = self.draft(next(treasuries), BACHELOR, account_needed=False)
        yield draft, {"payee_account": filings.account(self.rng, self.policy, draft.beneficiary)}
        draft = self.draft(next(treasuries), BACHELOR)
        draft.extra = {"payee_account": filings.account(self.rng, self.policy, self.somebody())}
        yield draft, {"payee_account": filings.account(self.rng, self.policy, draft.beneficiary)}

    def _want_value(self, treasuries: Iterator[str]) -> Iterator[tuple[Draft, Json]]:
        items = [item("talent_certification"), item("living_allowance")]
        yield self.draft(next(treasuries), items), {"items": BACHELOR}
        yield self.own(self.somebody(), [item("medical_care")]), {"region": next(treasuries)}

    def _want_authority(self, treasuries: Iterator[str]) -> Iterator[tuple[Draft, Json]]:
        for number in range(6):
            draft = self.draft(next(treasuries), BACHELOR, handler_mandated=False)
            handler = filings.person(self._handler(draft))
            if number == 0:
                expired = filings.mandate(self.rng) | {"from": "2023-01-01", "to": "2024-12-31"}
                draft.extra = {"handler": {"person": handler, "authority": expired}}
            yield draft, {"handler": {"person": handler, "authority": filings.mandate(self.rng)}}

    @staticmethod
    def _handler(draft: Draft) -> Person:
        if draft.handler is None:
            raise ValueError("the draft has no handler")
        return draft.handler

    def withdrawals(self) -> None:
        """Withdrawn while in correction (four for want of authority), and after acceptance before any decision."""
        treasuries = cycle(PLACES)
        items = [certification("master"), item("living_allowance"), item("purchase_subsidy")]
        gone: Json = {"then": {"withdraw": True}}
        for _ in range(4):
            self.add(self.draft(next(treasuries), items, handler_mandated=False), "withdrawn", **gone)
        for _ in range(3):
            self.add(self.draft(next(treasuries), items, without=["purchase_contract"]), "withdrawn", **gone)
        for _ in range(6):
            self.add(self.draft(next(treasuries), items), "withdrawn", **gone)

    # -- what is refused

    def refused_by_departments(self) -> None:
        """A licence that no register holds: the department fails it, and two officers refuse what rests on it."""
        treasuries = cycle(PLACES)
        for code in ("degree_certificate", "labour_contract", "identity_document"):
            items = [certification("master"), item("living_allowance"), item("purchase_subsidy")]
            self.add(self.draft(next(treasuries), items, void=[code]), "refused")
        items = [certification("doctor"), item("living_allowance"), item("purchase_subsidy")]
        for code in ("purchase_contract", "purchase_invoice"):
            self.add(self.draft(next(treasuries), items, void=[code]))  # the rest is granted: the case is closed
        one, two = [item("household_registration")], [item("household_registration"), item("medical_care")]
        for items, state in ((one, "refused"), (two, "closed")):
            draft = self.own(self.somebody(), items, region=next(treasuries), void=["household_register"])
            self.add(draft, state)

    def not_accepted(self) -> None:
        """What the policy shuts out, and what it leaves to people."""
        for treasury in ("410500", "410505", "410581"):
            self.add(self.draft(treasury, [certification("flexible"), item("living_allowance")]), "not_accepted")
        self.add(self.draft("410523", [certification("flexible"), item("purchase_subsidy")]), "not_accepted")
        kind = EmployerKind.CENTRAL_OR_PROVINCIAL
        self.add(self.draft("410500", [certification("doctor"), item("living_allowance")], kind), "not_accepted")
        self.add(self.draft("410500", [certification("doctor"), item("household_registration")], kind))

    def wrong_values(self) -> None:
        """Numbers that cannot be: refused whole, nothing is stored."""
        items = [certification("master"), item("living_allowance")]
        for place, treasury in enumerate(("410502", "410522", "410526", "410581", "410571")):
            body = self.draft(treasury, items).body()
            whose = (body["beneficiary"], body["handler"]["person"])[place % 2]
            whose["documents"][0]["number"] = with_wrong_check_digit(whose["documents"][0]["number"])
            self.add(body, expect=REFUSED_VALUE | {"errors": ["document-check-digit"]}, batch=place % 2 == 0)
        body = self.draft("410523", items).body()
        body["employer"]["credit_code"] = with_wrong_check_digit(body["employer"]["credit_code"])
        self.add(body, expect=REFUSED_VALUE | {"errors": ["credit-code-check-digit"]})
        body = self.draft("410527", items, beneficiary=self.somebody(DocumentType.HMT_RESIDENCE_PERMIT)).body()
        number = body["beneficiary"]["documents"][0]["number"]
        body["beneficiary"]["documents"][0]["number"] = with_wrong_check_digit(number)
        self.add(body, expect=REFUSED_VALUE | {"errors": ["document-check-digit"]})

    def repeats(self) -> None:
        """The same again: the same person and benefit, the same number of the portal, the same key."""
        first = self.lines
        for number in (0, 6, 12, 18, 24, 30):
            again = copy.deepcopy(first[number].body)
            del again["external_refs"]
            self.add(again, "not_accepted", wave=2)
        for number in (1, 7, 13):
            body = self.draft("410502", [item("medical_care")]).body()
            body["external_refs"] = first[number].body["external_refs"]
            self.add(body, expect={"status": 409, "code": "external-ref-taken"}, wave=2)
        for number in (3, 9, 15):
            self.lines.append(replace(first[number], wave=2, expect={"same": True}))
        for number in (5, 11):
            other = copy.deepcopy(first[number].body)
            other["beneficiary"]["name"] = "另有其人"
            expect = {"status": 409, "code": "idempotency-key-reused"}
            self.lines.append(replace(first[number], wave=2, body=other, expect=expect))


def population(seed: int = SEED) -> list[Line]:
    """The lines of the file."""
    return Population(seed).fill()


def main() -> None:
    """Write the population to standard output."""
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.writelines(line.to_json() + "\n" for line in population())


if __name__ == "__main__":
    main()
