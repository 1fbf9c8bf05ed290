"""How a filing is put together: the body of `POST /intake/v1/applications` from people, employers and items."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from random import Random
from typing import Any

from deploy.sample.people import Employer, Person
from libs.common.identity import DocumentType
from libs.common.policy import Pack, load_pack
from libs.common.settings import POLICIES
from libs.common.treasuries import AffiliationKind, EmployerKind

Json = dict[str, Any]
POLICY_DAY = date(2026, 1, 1)
VOID = "作废-"
"""How the number of a licence begins that no register holds: the departments of the sample fail such a material."""

BANKS = ("示例银行安阳分行", "示例农村商业银行", "示例城市银行文峰支行", "示例邮政储蓄银行滑县支行")
_MANDATE = {"kind": "employer_mandate", "from": "2025-01-01", "to": "2035-12-31"}
_POWER = {"kind": "power_of_attorney", "from": "2025-01-01", "to": "2035-12-31"}
_FISCAL = frozenset({EmployerKind.INSTITUTION, EmployerKind.GOVERNMENT})
_WITHOUT_BIRTH = frozenset({DocumentType.PASSPORT, DocumentType.HM_TRAVEL_PERMIT, DocumentType.TAIWAN_TRAVEL_PERMIT})


@cache
def pack() -> Pack:
    """The policy that the sample is filed under."""
    return load_pack(POLICIES / "anyang" / "2021-4.2.yaml")


@dataclass
class Draft:
    """A filing being put together; `body()` gives what is sent."""

    rng: Random
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
            "employer": employer(self.employer, affiliations=self.affiliations_told) if self.employer else None,
            "payee_account": account(self.rng, self.beneficiary) if self._needs_account() else None,
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
        return [self.material(code) for code in materials_of(self.items) if code not in self.without]

    def _needs_account(self) -> bool:
        return self.account_needed and any("payee_account" in _material_codes(item["code"]) for item in self.items)

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


def employer(one: Employer, *, affiliations: bool = True) -> Json:
    """An employer as filed, with the affiliation that ties it to its treasury."""
    filed: Json = {"name": one.name, "credit_code": one.credit_code, "kind": one.kind.value}
    if affiliations:
        kind = AffiliationKind.FISCAL if one.kind in _FISCAL else AffiliationKind.TAX
        tie = {"kind": kind.value, "treasury": one.treasury, "evidence": "示例隶属证明", "from": "2021-03-23"}
        filed["affiliations"] = [tie]
    return filed


def account(rng: Random, holder: Person) -> Json:
    """A payee account of nobody: the number begins with 00, which no card issuer uses."""
    return {
        "holder": holder.name,
        "bank": rng.choice(BANKS),
        "branch_no": f"{rng.randrange(100, 999)}496{rng.randrange(10**6):06}",
        "number": f"00{rng.randrange(10**14):014}",
    }


def mandate(rng: Random) -> Json:
    """The employer's mandate for a handler."""
    return {**_MANDATE, "evidence": f"单位授权书 示例〔2025〕{rng.randrange(1, 400)} 号"}


def power_of_attorney(rng: Random) -> Json:
    """The applicant's power of attorney for a handler."""
    return {**_POWER, "evidence": f"授权委托书 SL-{rng.randrange(10**6):06}"}


def certification(category: str) -> Json:
    """The certification item of a category: the flexible one has an item of its own."""
    kind = "flexible" if category == "flexible" else "talent"
    return {"code": f"{kind}_certification", "category": category}


def item(code: str) -> Json:
    """An item that names nothing but itself."""
    return {"code": code}


def materials_of(items: Iterable[Json]) -> list[str]:
    """The codes of the materials that items ask for, each once; the account is told in the filing itself."""
    codes = dict.fromkeys(code for each in items for code in _material_codes(each["code"]))
    return [code for code in codes if code != "payee_account"]


def _material_codes(item_code: str) -> list[str]:
    return [material.code for material in pack().item(item_code, POLICY_DAY).materials]
