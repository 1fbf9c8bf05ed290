"""Where things go: an employer to its treasury and platform, a task to a department, a debt along its route."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from libs.common.policy.errors import ManualDecision, NoRuleInForce
from libs.common.policy.model import (
    AffiliationOrder,
    ManualDecisionRule,
    PackTreasury,
    Platform,
    RouteKind,
    SettlementRoute,
    Task,
    TaskLevel,
)
from libs.common.policy.pack import Pack, Rulebook, When, day_due
from libs.common.treasuries import Affiliation


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg of a fiscal settlement, as treasury codes: what `debtor` owes, `creditor` receives."""

    debtor: str
    creditor: str


@dataclass(frozen=True, slots=True)
class Route:
    """How a treasury's receivable on the city reaches it: one leg, or two through the clearing treasury.

    `legs` are in the order of the money; there is none for the city level itself. `rule` is the rule's id.
    """

    kind: RouteKind
    legs: tuple[Leg, ...]
    rule: str | None

    @property
    def back(self) -> tuple[Leg, ...]:
        """The same way from the treasury to the city."""
        return tuple(Leg(leg.creditor, leg.debtor) for leg in reversed(self.legs))


def settlement_route(pack: Pack, *, treasury: str, on: When) -> Route:
    """Give the route by which the city settles what it owes `treasury`, the one that advanced the cash.

    What the treasury owes the city goes the same way back. Raises UnknownCode, NoRuleInForce.
    """
    due_on = day_due(on)
    city = pack.city_treasury(due_on).code
    if pack.treasury(treasury, due_on).code == city:
        return Route(RouteKind.DIRECT, (), None)
    rule = pack.rule(SettlementRoute, treasury, on=on)
    if rule.through is None:
        return Route(rule.route, (Leg(city, treasury),), rule.id)
    return Route(rule.route, (Leg(city, rule.through), Leg(rule.through, treasury)), rule.id)


def affiliated_treasury(pack: Rulebook, affiliations: Iterable[Affiliation], on: When) -> PackTreasury:
    """Give the treasury that an employer belongs to: by the first kind of affiliation that it has on the day, of a
    payment on the day due.

    Raises ManualDecision for a central or provincial unit, and where two affiliations of that kind disagree;
    NoRuleInForce where there is none; UnknownCode.
    """
    day = day_due(on)
    held = [affiliation for affiliation in affiliations if affiliation.covers(day)]
    for kind in pack.rule(AffiliationOrder, on=on).kinds:
        codes = sorted({affiliation.treasury for affiliation in held if affiliation.kind is kind})
        if len(codes) > 1:
            raise ManualDecision(
                f"manual decision: two {kind} affiliations on {day}: {', '.join(codes)}",
                f"须人工决定：{day} 有两个同类（{kind}）隶属关系：{'、'.join(codes)}。",
            )
        if codes:
            return _below_province(pack, codes[0], on)
    raise NoRuleInForce(f"the employer has no affiliation on {day}", f"用人单位在 {day} 没有有效的隶属关系。")


def platform_for(pack: Pack, affiliations: Iterable[Affiliation], on: date) -> Platform:
    """Give the platform that takes an employer's applications (第二条). Errors as for `affiliated_treasury`."""
    return platform_of(pack, affiliated_treasury(pack, affiliations, on).code, on)


def platform_of(pack: Pack, treasury: str, on: date) -> Platform:
    """Give the platform that serves a treasury. Raises UnknownCode, NoRuleInForce."""
    return pack.rule(Platform, "treasury", pack.treasury(treasury, on).code, on=on)


def treasury_of_region(pack: Pack, region: str, on: date) -> PackTreasury:
    """Give the treasury that serves a region on a day: for people who file with no employer.

    Raises NoRuleInForce where none serves it.
    """
    for treasury in pack.treasuries:
        if treasury.covers(on) and any(s.region == region and s.covers(on) for s in treasury.regions):
            return treasury
    raise NoRuleInForce(f"no treasury serves the region {region} on {on}", f"{on} 没有财政服务行政区划 {region}。")


def tasks_for(pack: Pack, item: str, on: date) -> tuple[tuple[Task, ...], ...]:
    """Give an item's stages in order, each with the tasks worked in parallel. `on` is the day of acceptance.

    Empty for a change that needs no department. Raises UnknownCode, NoRuleInForce.
    """
    return pack.item(item, on).stages


def task_treasury(pack: Pack, task: Task, affiliated: str, on: date) -> str:
    """Give the code of the treasury level whose department works a task: the affiliated one or the city's."""
    return pack.city_treasury(on).code if task.level is TaskLevel.CITY else affiliated


def _below_province(pack: Rulebook, code: str, on: When) -> PackTreasury:
    treasury = pack.treasury(code, day_due(on))
    if pack.find_rule(ManualDecisionRule, treasury.kind, on=on) is not None:
        raise ManualDecision(
            f"manual decision: {treasury.title} ({code}) is above the city",
            f"须人工决定：{treasury.title}（{code}）不属本市财政。",
        )
    return treasury
