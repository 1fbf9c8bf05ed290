"""How a filing is put together: the body of `POST /intake/v1/applications` from people, employers and items."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from deploy.sample.people import Employer, Person
from deploy.sample.policy import PAYEE_ACCOUNT, Json, Policy
from libs.common.identity import DocumentType

VOID = "作废-"
"""How the number of a licence begins that no register holds: the departments of the sample fail such a material."""

_MANDATE = {"kind": "employer_mandate", "from": "2025-01-01", "to": "2035-12-31"}
_POWER = {"kind": "power_of_attorney", "from": "2025-01-01", "to": "2035-12-31"}
_WITHOUT_BIRTH = frozenset({DocumentType.PASSPORT, DocumentType.HM_TRAVEL_PERMIT, DocumentType.TAIWAN_TRAVEL_PERMIT})


@dataclass
class Draft:
    """A filing being put together; `body()` gives what is sent."""

    rng: Random
    policy: Policy
    beneficiary: Person
    items: list[Json]
    employer: Employer | None = None
    region: str | None = None
    handler: Person | None = None
    handler_mandated: bool = True
    channel: str = "online"
    platform: str | None = None
    account_needed: bool = True
    affiliations_told: bool = True
    without: Sequence[str] = ()
    uploads: Sequence[str] = ()
    void: Sequence[str] = ()
    links: Sequence[tuple[str, Person]] = ()
    extra: Json = field(default_factory=dict)

    def body(self) -> Json:
        """The filing; `extra` has the last word."""
        employer_applies = self.employer is not None and self.handler is not None
        made: Json = {
            "channel": self.channel,
            "platform": self.platform,
            "region": self.region,
            "applicant": {"kind": "employer" if employer_applies else "person"},
            "beneficiary": person(self.beneficiary)
            | ({"links": [{"relation": how, "person": person(who)} for how, who in self.links]} if self.links else {}),
            "handler": self._handler(employer_applies),
            "employer": employer(self.policy, self.employer, affiliations=self.affiliations_told)
            if self.employer
            else None,
            "payee_account": account(self.rng, self.policy, self.beneficiary) if self._needs_account() else None,
            "items": self.items,
            "materials": self._materials(),
        }
        return {key: value for key, value in (made | self.extra).items() if value is not None}

    def material(self, code: str) -> Json:
        """One material: an electronic licence, or an upload that is still to come."""
        if code in self.uploads:
            return {"code": code, "evidence": "upload"}
        number = f"{VOID if code in self.void else ''}SL-{self.rng.randrange(10**8):08}"
        return {"code": code, "evidence": "electronic_licence", "reference": number}

    def _materials(self) -> list[Json]:
        return [self.material(code) for code in self.policy.materials_of(self.items) if code not in self.without]

    def _needs_account(self) -> bool:
        return self.account_needed and any(
            PAYEE_ACCOUNT in self.policy.material_codes(item["code"]) for item in self.items
        )

    def _handler(self, employer_applies: bool) -> Json | None:
        if self.handler is None:
            return None
        filed: Json = {"person": person(self.handler)}
        if self.handler_mandated:
            filed["authority"] = mandate(self.rng) if employer_applies else power_of_attorney(self.rng)
        return filed


def person(one: Person) -> Json:
    """A person as filed; the birth date is told where the number does not."""
    filed: Json = {"name": one.name, "documents": [{"type": one.document_type.value, "number": one.number}]}
    if one.document_type in _WITHOUT_BIRTH:
        filed["birth_date"] = one.birth.isoformat()
    return filed


def employer(policy: Policy, one: Employer, *, affiliations: bool = True) -> Json:
    """An employer as filed, with the affiliation that ties it to its treasury."""
    filed: Json = {"name": one.name, "credit_code": one.credit_code, "kind": one.kind.value}
    if affiliations:
        tie = {"kind": policy.affiliation(one.kind).value, "treasury": one.treasury, "evidence": "示例隶属证明"}
        filed["affiliations"] = [tie | {"from": policy.pack.in_force_from.isoformat()}]
    return filed


def account(rng: Random, policy: Policy, holder: Person) -> Json:
    """A payee account of nobody: the number begins with 00, which no card issuer uses."""
    return {
        "holder": holder.name,
        "bank": rng.choice(policy.banks),
        "branch_no": f"{rng.randrange(100, 999)}496{rng.randrange(10**6):06}",
        "number": f"00{rng.randrange(10**14):014}",
    }


def mandate(rng: Random) -> Json:
    """The employer's mandate for a handler."""
    return {**_MANDATE, "evidence": f"单位授权书 示例〔2025〕{rng.randrange(1, 400)} 号"}


def power_of_attorney(rng: Random) -> Json:
    """The applicant's power of attorney for a handler."""
    return {**_POWER, "evidence": f"授权委托书 SL-{rng.randrange(10**6):06}"}


def item(code: str) -> Json:
    """An item that names nothing but itself."""
    return {"code": code}
