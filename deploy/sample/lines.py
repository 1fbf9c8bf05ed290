"""A population as it is written down: one line a filing, with who files it and what it must come to.

A line holds

- `key`: the Idempotency-Key; `wave`: 1 first, 2 what needs wave 1 filed (repeats, duplicates), 3 what needs its
  certification (`certification_of` names the line whose number the driver fills in);
- `role` (and `org_unit`) of whoever files; `batch` where the portal sends it in a bulk file;
- `body`: what is posted; `then`: what follows (`correct`, `upload`, `withdraw`);
- `expect`: `status` and `code` of a refusal, or the `state` the application ends in (`successor` where it moves on).
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from deploy.sample import people
from deploy.sample.filings import Draft
from deploy.sample.people import Employer, Person
from deploy.sample.policy import Json, Policy
from libs.common.identity import DocumentType
from libs.common.treasuries import EmployerKind

SEED = 20210323


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file; see the module."""

    key: str
    wave: int
    role: str
    body: Json
    expect: Json
    org_unit: str | None = None
    batch: bool = False
    certification_of: str | None = None
    then: Json | None = None

    def to_json(self) -> str:
        """The line, without what it does not say."""
        told = {key: value for key, value in asdict(self).items() if value not in (None, False)}
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


class Book:
    """Where a population is put down: everybody who files under a policy, and what. `lines` are in order of filing."""

    portal = "provincial_portal"

    def __init__(self, policy: Policy, seed: int = SEED) -> None:
        self.policy = policy
        self.rng = Random(seed)
        self.lines: list[Line] = []
        self.beneficiaries: dict[str, Person] = {}
        made = people.make_employers(self.rng, list(policy.places.items()))
        self.employers = {(one.treasury, one.kind): one for one in made}

    def somebody(self, kind: DocumentType = DocumentType.RESIDENT_IDENTITY_CARD) -> Person:
        """One more person."""
        return people.make_person(self.rng, kind)

    def employer(self, treasury: str, kind: EmployerKind = EmployerKind.ENTERPRISE) -> Employer:
        """The employer of a kind at a treasury."""
        return self.employers[treasury, kind]

    def draft(
        self, treasury: str, items: list[Json], kind: EmployerKind = EmployerKind.ENTERPRISE, **more: Any
    ) -> Draft:
        """A filing of somebody at an employer, by the employer's handler."""
        given: Json = {"beneficiary": self.somebody(), "handler": self.somebody()} | more
        return Draft(self.rng, self.policy, items=items, employer=self.employer(treasury, kind), **given)

    def own(self, beneficiary: Person, items: list[Json], **more: Any) -> Draft:
        """A filing of somebody for himself."""
        return Draft(self.rng, self.policy, beneficiary, items, **more)

    def add(self, draft: Draft | Json, state: str = "closed", **more: Any) -> Line:
        """Add a line; `state` is what the application ends in."""
        body = draft.body() if isinstance(draft, Draft) else draft
        given: Json = {"wave": 1, "role": "portal", "expect": {"state": state}} | more
        line = Line(key=f"sample-{len(self.lines) + 1:04}", body=body, **given)
        if line.role == "portal" and "external_refs" not in body:
            ref = {"system": self.portal, "kind": "application", "value": line.key.upper()}
            body["external_refs"] = [ref]
        self.lines.append(line)
        if isinstance(draft, Draft):
            self.beneficiaries[line.key] = draft.beneficiary
        return line

    def later(self, line: Line, items: list[Json]) -> Json:
        """A filing for the beneficiary of an earlier line, at the same employer, by himself."""
        known = {key: value for key, value in line.body["employer"].items() if key != "affiliations"}
        return self.own(self.beneficiaries[line.key], items).body() | {"employer": known}

    def at_window(self, draft: Draft, platform: str, expect: Json) -> Line:
        """Add a line that is filed at a platform's window."""
        return self.add(draft, expect=expect, role="window_clerk", org_unit=f"{platform}/government_services")


def expected_states(lines: Sequence[Line]) -> dict[str, int]:
    """How many applications of these lines end in each state, successors of transferred ones among them."""
    ends = Counter(line.expect[key] for line in lines for key in ("state", "successor") if key in line.expect)
    return dict(sorted(ends.items()))
