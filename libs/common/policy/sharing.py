"""Who bears what of a benefit: the employer's share, then the treasuries' shares of the public part (第五条).

Rounding: the employer's share is rounded down to the fen and the rest is the public part; the other treasuries'
shares of it are rounded down, and the bearer of the plan's remainder (in Anyang the affiliated treasury) bears
what remains. So every split sums to the whole, from 1 fen on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypedDict

from libs.common import money
from libs.common.policy.errors import ManualDecision, NoRuleInForce
from libs.common.policy.model import (
    AFFILIATED,
    BenefitForm,
    CashAdvance,
    EmployerShareRule,
    ManualDecisionRule,
    PackTreasury,
    SharingPlan,
    VersionBy,
)
from libs.common.policy.pack import Pack, PolicyDates, Rulebook, Succession, When, day_due
from libs.common.policy.routes import affiliated_treasury
from libs.common.treasuries import Affiliation, EmployerKind


@dataclass(frozen=True, slots=True)
class Split:
    """A whole in fen, and who bears it.

    `employer + public` is the whole; `shares` (treasury code to fen, zeros kept) sum to `public`, which
    `advanced_by` pays at once. `rules` are the ids of the rules that decided, in the order used.
    """

    employer: int
    public: int
    shares: Mapping[str, int]
    advanced_by: str
    rules: tuple[str, ...]

    @property
    def receivables(self) -> dict[str, int]:
        """What each other treasury owes the one that advanced the cash, in fen; nothing owed is left out."""
        return {code: fen for code, fen in self.shares.items() if fen and code != self.advanced_by}


class RuleDescription(TypedDict):
    """A rule that decided, with its source."""

    id: str
    document: str
    article: str | None
    version_by: str
    assumption: bool
    note: str


class SplitDescription(TypedDict):
    """A split as plain data for JSON: amounts in fen, treasuries by code; `policy` is the pack's identity."""

    total: int
    employer: int
    public: int
    shares: dict[str, int]
    advanced_by: str
    rules: list[RuleDescription]
    policy: dict[str, str]


def split(
    pack: Rulebook,
    *,
    benefit: str,
    treasury: str,
    on: When,
    total_fen: int,
    employer_kind: EmployerKind = EmployerKind.ENTERPRISE,
) -> Split:
    """Split a money benefit, or one instalment of it, of `total_fen` (0 to 10^15, the employer's part included).

    `treasury` is the code of the employer's affiliated treasury. Raises ManualDecision for a central or
    provincial unit, UnknownCode, NoRuleInForce, and ValueError for an amount out of bounds.
    """
    if not 0 <= total_fen <= money.MAX_FEN:
        raise ValueError(f"an amount is 0 to {money.MAX_FEN} fen")
    employers = _employer_rule(pack, benefit, employer_kind, on)
    affiliated = _affiliated(pack, treasury, on)
    plan = _sharing_plan(pack, benefit, affiliated, on)
    advance = pack.rule(CashAdvance, affiliated.kind, on=on)

    share = money.parse_share(employers.share)
    public, employer = money.split(total_fen, [1 - share, share], remainder_to=0)
    bearers = [_code(born.bearer, treasury) for born in plan.shares]
    parts = money.split(
        public,
        [money.parse_share(born.share) for born in plan.shares],
        remainder_to=[born.bearer for born in plan.shares].index(plan.remainder_to),
    )
    shares: dict[str, int] = {}
    for code, part in zip(bearers, parts, strict=True):
        shares[code] = shares.get(code, 0) + part  # a treasury may be named by its code and be the affiliated one
    rules = (employers.id, plan.id, advance.id)
    return Split(employer, public, shares, _code(advance.advanced_by, treasury), rules)


def treasury_of_payment(
    policy: Succession, *, benefit: str, granted: str, affiliations: Iterable[Affiliation], on: PolicyDates
) -> str:
    """Give the code of the affiliated treasury that a payment is split for, at the date that the sharing plan names:
    by the day of acceptance that of the grant, by the day due the one that the employer belongs to then.

    `granted` is the affiliated treasury on the day of acceptance. Raises ManualDecision also where treasury and ratio
    would be of two dates, else the errors of `affiliated_treasury`.
    """
    before = policy.granted.treasury(granted, on.accepted_on)
    plans = (policy.granted.find_rule(SharingPlan, benefit, whose, on=on) for whose in (before.code, before.kind))
    plan = next(filter(None, plans), None)  # where none is left, a later version's decides
    if plan is not None and plan.version_by is VersionBy.ACCEPTED_ON:
        return granted
    treasury = affiliated_treasury(policy, affiliations, on)
    if treasury.code != granted and _sharing_plan(policy, benefit, treasury, on).version_by is VersionBy.ACCEPTED_ON:
        raise ManualDecision(
            f"manual decision: {treasury.code} by the day due, its ratio by the day of acceptance",
            f"须人工决定：应付日隶属 {treasury.code}，而其分担比例按受理日确定，两者不是同一日。",
        )
    return treasury.code


def employer_share(pack: Pack, *, benefit: str, employer_kind: EmployerKind, on: When) -> Fraction:
    """Give the employer's exact share of a money benefit.

    Raises ManualDecision for a central or provincial unit, UnknownCode, NoRuleInForce.
    """
    return money.parse_share(_employer_rule(pack, benefit, employer_kind, on).share)


def describe_split(
    pack: Pack,
    *,
    benefit: str,
    treasury: str,
    on: When,
    total_fen: int,
    employer_kind: EmployerKind = EmployerKind.ENTERPRISE,
) -> SplitDescription:
    """Give a split as plain data for JSON, with the rules that decided, their sources and assumptions.

    Arguments and errors as for `split`.
    """
    result = split(pack, benefit=benefit, treasury=treasury, on=on, total_fen=total_fen, employer_kind=employer_kind)
    by_id = {rule.id: rule for rule in pack.rules()}
    return {
        "total": total_fen,
        "employer": result.employer,
        "public": result.public,
        "shares": dict(result.shares),
        "advanced_by": result.advanced_by,
        "rules": [
            {
                "id": rule.id,
                "document": rule.document,
                "article": rule.article,
                "version_by": rule.version_by.value,
                "assumption": rule.assumption,
                "note": rule.note,
            }
            for rule in map(by_id.__getitem__, result.rules)
        ],
        "policy": pack.identity.model_dump(),
    }


def _affiliated(pack: Rulebook, code: str, on: When) -> PackTreasury:
    # The paying treasury is that of the day due: a treasury ends with its last day, whatever was accepted before.
    treasury = pack.treasury(code, day_due(on))
    manual = pack.find_rule(ManualDecisionRule, treasury.kind, on=on)
    if manual is not None:
        raise ManualDecision(
            f"manual decision: {treasury.title} ({code}) bears no shares by rule ({manual.id})",
            f"须人工决定：{treasury.title}（{code}）不按本政策分担（规则 {manual.id}）。",
        )
    return treasury


def _employer_rule(pack: Rulebook, benefit: str, kind: EmployerKind, on: When) -> EmployerShareRule:
    manual = pack.find_rule(ManualDecisionRule, kind, on=on)
    if manual is not None:
        raise ManualDecision(
            f"manual decision: an employer of kind {kind} is not decided by rule ({manual.id})",
            f"须人工决定：单位性质为 {kind} 的用人单位不按本政策分担（规则 {manual.id}）。",
        )
    if pack.benefit(benefit, on).form is not BenefitForm.MONEY:
        raise NoRuleInForce(
            f"{benefit} is a benefit in kind: there is no money to share", f"{benefit} 是实物待遇，没有资金分担。"
        )
    return pack.rule(EmployerShareRule, benefit, kind, on=on)


def _sharing_plan(pack: Rulebook, benefit: str, treasury: PackTreasury, on: When) -> SharingPlan:
    return pack.first_rule(SharingPlan, (benefit, treasury.code), (benefit, treasury.kind), on=on)


def _code(bearer: str, affiliated: str) -> str:
    return affiliated if bearer == AFFILIATED else bearer
