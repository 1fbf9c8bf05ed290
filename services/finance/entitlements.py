"""Entitlements: an approved money benefit, its instalments, and when each gets its order.

Every rule is read at the date that it names: amount and plan by the day of acceptance, in the version of the grant; a
ratio or payer that goes by the day due, in the version in force on that day, with the treasury that the employer
belongs to then. An entitlement is made once for an item, and once for a person and benefit. The days of an instalment
without an order are not stored: they follow from the entitlement and the calendar in force, whose notice may be still
to come.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.calendar import CALENDAR, Calendar, local_date
from libs.common.events import BenefitApproved
from libs.common.inbox import Early
from libs.common.packs import PackNotHere, Packs
from libs.common.policy import (
    Instalment,
    ManualDecision,
    NoRuleInForce,
    Pack,
    PackIdentity,
    PolicyDates,
    PolicyError,
    Split,
    Succession,
    UnknownCode,
    payout_due_on,
    schedule,
    settlement_route,
    split,
    treasury_of_payment,
)
from libs.common.policy.model import BenefitForm
from libs.common.ticker import Due
from libs.common.ticker import schedule as schedule_due
from libs.common.treasuries import Affiliation, EmployerKind
from services.finance import accounts, affiliations, quotas
from services.finance.payouts import Draft, make_orders, open_applications, policy_of, start_of_day
from services.finance.quotas import Line, Quota

INSTALMENT = "instalment.order"
LOOK_AHEAD = timedelta(days=31)
"""How long before its order an instalment of provisional days is looked at: more than any notice moves a day."""

_ENTITLEMENTS = text("""
    INSERT INTO entitlement (id, application, item, benefit, number, certification, category, beneficiary,
                             payee_account, employer, employer_kind, treasury, accepted_on, decided_on, total_fen,
                             policy_city, policy_version, policy_sha256)
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:items AS uuid[]),
                         CAST(:benefits AS text[]), CAST(:numbers AS text[]), CAST(:certifications AS text[]),
                         CAST(:categories AS text[]), CAST(:beneficiaries AS uuid[]), CAST(:accounts AS uuid[]),
                         CAST(:employers AS uuid[]), CAST(:employer_kinds AS text[]), CAST(:treasuries AS text[]),
                         CAST(:accepted AS date[]), CAST(:decided AS date[]), CAST(:totals AS bigint[]),
                         CAST(:cities AS text[]), CAST(:versions AS text[]), CAST(:hashes AS text[]))
    ON CONFLICT DO NOTHING
    RETURNING id
""")
_KNOWN = text("""
    SELECT application, item FROM entitlement
      JOIN unnest(CAST(:applications AS uuid[]), CAST(:items AS uuid[])) AS r (application, item)
     USING (application, item)
""")
_INSTALMENTS = text("""
    INSERT INTO instalment (entitlement_id, number, amount_fen, review_from)
    SELECT * FROM unnest(CAST(:entitlements AS uuid[]), CAST(:numbers AS smallint[]), CAST(:fens AS bigint[]),
                         CAST(:reviews AS date[]))
""")
_TO_ORDER = text("""
    SELECT e.*, i.number AS instalment, i.amount_fen, last.recorded_at AS reviewed_at,
           i.review_from IS NULL OR last.verdict IS NOT DISTINCT FROM 'pass' AS released
      FROM unnest(CAST(:entitlements AS uuid[]), CAST(:numbers AS smallint[])) AS r (entitlement_id, number)
      JOIN instalment AS i USING (entitlement_id, number)
      JOIN entitlement AS e ON e.id = i.entitlement_id
      LEFT JOIN LATERAL (SELECT v.verdict, v.recorded_at FROM instalment_review AS v
                          WHERE (v.entitlement_id, v.number) = (i.entitlement_id, i.number)
                          ORDER BY v.serial DESC LIMIT 1) AS last ON true
""")


class AlreadyEntitled(Exception):
    """The person has this benefit already, from another item: two approvals, of which people must withdraw one."""


@dataclass(frozen=True, slots=True)
class Award:
    """A benefit approved, with its instalments and the split of the first."""

    id: UUID
    event: BenefitApproved
    employer_kind: EmployerKind
    instalments: tuple[Instalment, ...]
    first: Split
    policy: PackIdentity

    @property
    def draft(self) -> Draft:
        """The order of the first instalment."""
        event, first = self.event, self.instalments[0]
        return Draft(
            application=event.application,
            item=event.item,
            entitlement=self.id,
            instalment=first.number,
            benefit=event.benefit,
            beneficiary=event.beneficiary,
            payee_account=event.payee_account,
            split=self.first,
            due_on=first.due_on,
            policy=self.policy,
        )


class Planned(Protocol):
    """What decides when a benefit is paid, and how much: of an approval, or of a stored entitlement."""

    @property
    def benefit(self) -> str: ...  # noqa: D102
    @property
    def category(self) -> str: ...  # noqa: D102
    @property
    def accepted_on(self) -> date: ...  # noqa: D102
    @property
    def decided_on(self) -> date: ...  # noqa: D102


def plan(pack: Pack, benefit: Planned, calendar: Calendar = CALENDAR) -> list[Instalment]:
    """The instalments, with their days by a calendar. Pure. Raises the errors of `schedule`."""
    return schedule(
        pack,
        benefit=benefit.benefit,
        category=benefit.category,
        decided_on=benefit.decided_on,
        accepted_on=benefit.accepted_on,
        calendar=calendar,
    )


def award(packs: Packs, event: BenefitApproved, ties: Sequence[Affiliation] | None) -> Award:
    """What an approval gives; `ties` as for `share`. Raises the errors of `schedule` and `share`."""
    kind = _employer_kind(event)
    parts = plan(packs.get(event.policy), event)
    policy = payable_under(packs, event.policy, parts[0].due_on)
    first = share(policy, event, due_on=parts[0].due_on, fen=parts[0].amount_fen, employer_kind=kind, ties=ties)
    return Award(uuid7(), event, kind, tuple(parts), first, policy.paying.identity)


def payable_under(packs: Packs, granted: PackIdentity, due_on: date) -> Succession:
    """The policy of a payment: the version of the grant, and the one in force on the day due."""
    pack = packs.get(granted)
    return Succession(pack, packs.find_on(due_on, granted.city) or pack)


class Shared(Protocol):
    """What decides who bears a benefit, beside the day due: of an approval, or of a stored entitlement."""

    @property
    def benefit(self) -> str: ...  # noqa: D102
    @property
    def treasury(self) -> str: ...  # noqa: D102 - the affiliated one on the day of acceptance
    @property
    def accepted_on(self) -> date: ...  # noqa: D102


def share(
    policy: Succession,
    benefit: Shared,
    *,
    due_on: date,
    fen: int,
    employer_kind: EmployerKind,
    ties: Sequence[Affiliation] | None = None,
) -> Split:
    """The split of one instalment of `fen`, the employer's part included. Pure.

    `ties` are the employer's affiliations; where none were told (None), the treasury of the approval stays. Raises the
    errors of `split` and `treasury_of_payment`, and ManualDecision where a bearer or the payer has no way to settle on
    the day due: no money moves before people decide.
    """
    when = PolicyDates(accepted_on=benefit.accepted_on, due_on=due_on)
    treasury = borne_by(policy, benefit, due_on=due_on, ties=ties)
    parts = split(
        policy, benefit=benefit.benefit, treasury=treasury, on=when, total_fen=fen, employer_kind=employer_kind
    )
    for treasury in sorted({*parts.shares, parts.advanced_by}):
        try:
            settlement_route(policy.paying, treasury=treasury, on=due_on)
        except (NoRuleInForce, UnknownCode) as none:
            raise ManualDecision(
                f"manual decision: {treasury} has no settlement on {due_on} ({none})",
                f"须人工决定：财政 {treasury} 在 {due_on} 没有结算路径。",
            ) from none
    return parts


def borne_by(policy: Succession, benefit: Shared, *, due_on: date, ties: Sequence[Affiliation] | None) -> str:
    """The affiliated treasury that one instalment is split for; `ties` as for `share`. Pure. Raises the errors of
    `treasury_of_payment`."""
    if ties is None:
        return benefit.treasury
    when = PolicyDates(accepted_on=benefit.accepted_on, due_on=due_on)
    return treasury_of_payment(policy, benefit=benefit.benefit, granted=benefit.treasury, affiliations=ties, on=when)


async def reviewers(tx: AsyncConnection, packs: Packs, instalments: Sequence[Any]) -> list[str]:
    """Whose talent office reviews each instalment (rows with their entitlements): that of the affiliated treasury that
    it is to be split for, as far as is known now; where that is for people to decide, or the pack is not here, that of
    the grant."""
    ties = await affiliations.known(tx, [row.employer for row in instalments])
    return [_reviewer(packs, row, ties.get(row.employer)) for row in instalments]


def _reviewer(packs: Packs, row: Any, ties: Sequence[Affiliation] | None) -> str:
    granted: str = row.treasury
    if ties is None:
        return granted
    try:
        due_on = _planned(packs, row, CALENDAR).due_on
        return borne_by(payable_under(packs, policy_of(row), due_on), row, due_on=due_on, ties=ties)
    except (PolicyError, PackNotHere):  # no order is made of it either, before more is stated
        return granted


def _employer_kind(event: BenefitApproved) -> EmployerKind:
    if event.employer_kind is not None:
        return EmployerKind(event.employer_kind)
    if event.employer is not None:
        raise ManualDecision(
            f"the approval of item {event.item} does not say what kind its employer is",
            f"须人工决定：事项 {event.item} 的批准没有写明单位性质。",
        )
    return EmployerKind.OWN_STARTUP  # nobody employs the person, so there is no employer's third


def _awards(
    packs: Packs, approvals: Sequence[BenefitApproved], ties: Mapping[UUID | None, Sequence[Affiliation]]
) -> list[Award]:
    """What each approval gives. Raises Early for those that are to be paid under a pack that is not here."""
    awards: list[Award] = []
    waiting: dict[UUID, str] = {}
    for event in approvals:
        try:
            awards.append(award(packs, event, ties.get(event.employer)))
        except PackNotHere as missing:
            waiting[event.id] = missing.cause
    if waiting:
        raise Early(waiting)
    return awards


async def grant(tx: AsyncConnection, packs: Packs, events: Sequence[BenefitApproved]) -> None:
    """Make entitlements of approved money benefits, their instalments, and the order of each first one.

    Benefits in kind are housing's. Raises Early for a pack not known yet, PolicyError, AlreadyEntitled.
    """
    by_policy = packs.for_events(events)
    money = [event for event in events if _is_money(by_policy[event.policy], event)]
    if not money:
        return
    ties = await affiliations.known(tx, [event.employer for event in money])
    awards = _awards(packs, money, ties)
    lines = await quotas.lock_lines(tx, [each.draft.line for each in awards])
    await accounts.hold(tx, [each.event.beneficiary for each in awards])
    await open_applications(tx, [each.event.application for each in awards])
    fresh = await _store(tx, awards)
    await _store_instalments(tx, fresh)
    await _make_orders(tx, [each.draft for each in fresh], lines)


def _is_money(pack: Pack, event: BenefitApproved) -> bool:
    return pack.benefit(event.benefit, event.accepted_on).form is BenefitForm.MONEY


async def _store(tx: AsyncConnection, awards: Sequence[Award]) -> list[Award]:
    events = [each.event for each in awards]
    places = {"applications": [e.application for e in events], "items": [e.item for e in events]}
    inserted = await tx.execute(
        _ENTITLEMENTS,
        {
            **places,
            "ids": [each.id for each in awards],
            "benefits": [e.benefit for e in events],
            "numbers": [e.number for e in events],
            "certifications": [e.certification for e in events],
            "categories": [e.category for e in events],
            "beneficiaries": [e.beneficiary for e in events],
            "accounts": [e.payee_account for e in events],
            "employers": [e.employer for e in events],
            "employer_kinds": [each.employer_kind.value for each in awards],
            "treasuries": [e.treasury for e in events],
            "accepted": [e.accepted_on for e in events],
            "decided": [e.decided_on for e in events],
            "totals": [sum(i.amount_fen for i in each.instalments) for each in awards],
            "cities": [e.policy.city for e in events],
            "versions": [e.policy.version for e in events],
            "hashes": [e.policy.sha256 for e in events],
        },
    )
    new = set(inserted.scalars())
    known = {(row.application, row.item) for row in await tx.execute(_KNOWN, places)}
    for event in events:
        if (event.application, event.item) not in known:
            raise AlreadyEntitled(f"{event.beneficiary} has {event.benefit} already, not by item {event.item}")
    return [each for each in awards if each.id in new]


async def _store_instalments(tx: AsyncConnection, awards: Sequence[Award]) -> None:
    rows = [(each.id, instalment) for each in awards for instalment in each.instalments]
    await tx.execute(
        _INSTALMENTS,
        {
            "entitlements": [key for key, _ in rows],
            "numbers": [i.number for _, i in rows],
            "fens": [i.amount_fen for _, i in rows],
            "reviews": [i.review_from for _, i in rows],
        },
    )
    await schedule_due(tx, [_due(key, i, _looked_at(i)) for key, i in rows if i.number > 1])


def _looked_at(instalment: Instalment) -> date:
    """The day on which an instalment is looked at first: early enough for a notice that moves its days."""
    return instalment.order_on - LOOK_AHEAD if instalment.provisional else instalment.order_on


def _due(entitlement: UUID, instalment: Instalment, on: date) -> Due:
    place = {"entitlement": str(entitlement), "number": instalment.number}
    return Due(INSTALMENT, _key(entitlement, instalment.number), start_of_day(on), place)


def _key(entitlement: UUID, number: int) -> str:
    return f"{entitlement}/{number}"


async def order_instalments(
    tx: AsyncConnection, packs: Packs, dues: Sequence[Due], *, calendar: Calendar = CALENDAR
) -> None:
    """Due work: make the orders of later instalments, split by the rules of their day. Raises PolicyError.

    An instalment whose order is not to be made yet, by the calendar in force now, waits for its day. One whose last
    review did not pass, or that nobody reviewed, is withheld: the review that passes lets it go (`order_in_time`).
    Raises PackNotHere, with all of them whose pack is not here.
    """
    at = {(due.payload["entitlement"], due.payload["number"]): due.at for due in dues}
    ready: list[tuple[str, int]] = []
    waiting: list[Due] = []
    rows = (await tx.execute(_TO_ORDER, _places(at))).all()
    packs.need({_key(row.id, row.instalment): policy_of(row) for row in rows})
    for row in rows:
        part = _planned(packs, row, calendar)
        if start_of_day(part.order_on) > at[str(row.id), row.instalment]:
            waiting.append(_due(row.id, part, part.order_on))
        else:
            ready.append((str(row.id), row.instalment))
    await schedule_due(tx, waiting)
    await _order(tx, packs, ready, calendar)


async def order_in_time(tx: AsyncConnection, packs: Packs, instalment: Any, *, calendar: Calendar = CALENDAR) -> None:
    """Have a later instalment (a row with its entitlement) ordered on its day, or at once where that has come."""
    part = _planned(packs, instalment, calendar)
    await schedule_due(tx, [_due(instalment.id, part, _looked_at(part))])


async def _order(tx: AsyncConnection, packs: Packs, ready: Sequence[tuple[str, int]], calendar: Calendar) -> None:
    # What waits for a review waits for nothing else: it takes no quota line, and where nobody could bear it now it is
    # not set aside either. The review that passes meanwhile puts it back into the due work.
    rows = await _released(tx, ready)
    ties = await affiliations.known(tx, [row.employer for row in rows])
    drafts = [_later(packs, row, calendar, ties.get(row.employer)) for row in rows]
    lines = await quotas.lock_lines(tx, [draft.line for draft in drafts])
    await accounts.hold(tx, [draft.beneficiary for draft in drafts])
    await open_applications(tx, [draft.application for draft in drafts])
    # Once more, under the locks: a review may have been taken a moment ago.
    still = {(row.id, row.instalment) for row in await _released(tx, ready)}
    await _make_orders(tx, [draft for draft in drafts if (draft.entitlement, draft.instalment) in still], lines)


async def _released(tx: AsyncConnection, ready: Sequence[tuple[str, int]]) -> list[Any]:
    """Those that need no review, or whose last one passes."""
    return [row for row in await tx.execute(_TO_ORDER, _places(ready)) if row.released]


async def _make_orders(tx: AsyncConnection, drafts: Sequence[Draft], lines: Mapping[Line, Quota]) -> None:
    # Under the locks: the account may have been changed, or another one really paid, a moment ago.
    paid_to = await accounts.accounts_of(tx, [draft.entitlement for draft in drafts])
    await make_orders(tx, [replace(draft, payee_account=paid_to[draft.entitlement]) for draft in drafts], lines)


def _places(wanted: Collection[tuple[str, int]]) -> dict[str, Any]:
    return {"entitlements": [key for key, _ in wanted], "numbers": [number for _, number in wanted]}


def _planned(packs: Packs, row: Any, calendar: Calendar) -> Instalment:
    number: int = row.instalment
    return plan(packs.get(policy_of(row)), row, calendar)[number - 1]


def _later(packs: Packs, row: Any, calendar: Calendar, ties: Sequence[Affiliation] | None) -> Draft:
    kind = EmployerKind(row.employer_kind)
    due_on = _planned(packs, row, calendar).due_on
    policy = payable_under(packs, policy_of(row), due_on)
    return Draft(
        application=row.application,
        item=row.item,
        entitlement=row.id,
        instalment=row.instalment,
        benefit=row.benefit,
        beneficiary=row.beneficiary,
        payee_account=row.payee_account,
        split=share(policy, row, due_on=due_on, fen=row.amount_fen, employer_kind=kind, ties=ties),
        due_on=_payable_by(policy.granted, row, due_on, calendar),
        policy=policy.paying.identity,
    )


def _payable_by(pack: Pack, row: Any, due_on: date, calendar: Calendar) -> date:
    """Until when an order is to be paid: the day due, or where a review passed too late for that, as long after it as a
    first payment after its decision. Whoever reviewed late, the treasury is not late."""
    if row.reviewed_at is None:
        return due_on
    reviewed_on = local_date(row.reviewed_at)
    return max(due_on, payout_due_on(pack, decided_on=reviewed_on, accepted_on=row.accepted_on, calendar=calendar))
