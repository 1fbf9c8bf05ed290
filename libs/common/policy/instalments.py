"""When a benefit is paid, and how much each time: amounts per category, instalment plans, payout terms."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import date

from libs.common.calendar import CALENDAR, Calendar
from libs.common.money import split_evenly
from libs.common.policy.coverage import exclusion
from libs.common.policy.errors import NoRuleInForce
from libs.common.policy.model import (
    Anchor,
    BenefitAmount,
    CertificationTerm,
    Condition,
    InstalmentPlan,
    OrderTerms,
    PayoutTerms,
    Roll,
)
from libs.common.policy.pack import Pack


@dataclass(frozen=True, slots=True)
class Instalment:
    """One payment of a benefit: `amount_fen` with the employer's part, the last day for the credit, and when
    its order is made. `provisional` says that no official calendar covers `due_on` yet. `review_from` is the first day
    of the review without which it is not ordered; None where it needs none."""

    number: int
    amount_fen: int
    due_on: date
    order_on: date
    provisional: bool
    review_from: date | None = None


def schedule(
    pack: Pack,
    *,
    benefit: str,
    category: str,
    decided_on: date,
    accepted_on: date,
    calendar: Calendar = CALENDAR,
) -> list[Instalment]:
    """Give every instalment of a money benefit for a category, in order; they sum to the whole amount.

    The first is due by the payout terms (two working days after `decided_on`) and ordered on `decided_on`; a
    later one on the day that the plan names, rolled to a working day, and ordered so many working days before.
    Equal parts are rounded down to the fen and the last bears the remainder. A review is of one instalment, from the
    day on which the time since the one before it begins, by months after `decided_on`. Every version is that of
    `accepted_on`. Raises UnknownCode, NoRuleInForce (also for an excluded category), and ValueError for days
    outside the calendar.
    """
    amount = amount_of(pack, benefit=benefit, category=category, on=accepted_on)
    plan = pack.rule(InstalmentPlan, benefit, on=accepted_on)
    first_due = payout_due_on(pack, decided_on=decided_on, accepted_on=accepted_on, calendar=calendar)
    ahead = pack.rule(OrderTerms, on=accepted_on).working_days_before_due
    anchor = decided_on if plan.anchor is Anchor.DECIDED_ON else first_due
    reviewed = bool(review_conditions(pack, benefit=benefit, on=accepted_on))
    first, *later = split_evenly(amount, plan.count)
    result = [Instalment(1, first, first_due, decided_on, calendar.is_provisional(first_due))]
    for index, part in enumerate(later, 1):
        due = _rolled(add_months(anchor, index * plan.months_between), plan.roll, calendar)
        order = max(calendar.add_working_days(due, -ahead), decided_on)
        review_from = add_months(decided_on, (index - 1) * plan.months_between) if reviewed else None
        result.append(Instalment(index + 1, part, due, order, calendar.is_provisional(due), review_from))
    return result


def review_conditions(pack: Pack, *, benefit: str, on: date) -> list[Condition]:
    """Give what must still hold before each later instalment of a benefit. `on` is the day of acceptance."""
    return [rule for rule in pack.conditions if benefit in rule.instalments and rule.covers(on)]


def amount_of(pack: Pack, *, benefit: str, category: str, on: date) -> int:
    """Give the whole of a money benefit for a category in fen, as of the day of acceptance.

    Raises UnknownCode, and NoRuleInForce where the category is excluded or has no amount.
    """
    excluded = exclusion(pack, benefit=benefit, category=category, on=on)
    if excluded is not None:
        raise NoRuleInForce(
            f"{category} is excluded from {benefit} ({excluded.id}, {excluded.article})",
            f"类别 {category} 不享受待遇 {benefit}（{pack.citation(excluded)}）。",
        )
    return pack.rule(BenefitAmount, benefit, category, on=on).fen


def payout_due_on(pack: Pack, *, decided_on: date, accepted_on: date, calendar: Calendar = CALENDAR) -> date:
    """Give the last day by which the first payment is in the payee's account (第五条). Raises NoRuleInForce."""
    terms = pack.rule(PayoutTerms, on=accepted_on)
    return calendar.add_working_days(decided_on, terms.due_within_working_days)


def certification_valid_to(pack: Pack, *, decided_on: date, accepted_on: date) -> date:
    """Give the day through which a certification decided on `decided_on` is valid. Raises NoRuleInForce."""
    return add_months(decided_on, pack.rule(CertificationTerm, on=accepted_on).validity_months)


def add_months(day: date, months: int) -> date:
    """Give the same day of a later month, or its last day where the month is shorter (31 August + 6)."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _rolled(day: date, roll: Roll, calendar: Calendar) -> date:
    if calendar.is_working_day(day):
        return day
    return calendar.add_working_days(day, 1 if roll is Roll.NEXT else -1)
