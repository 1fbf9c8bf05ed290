"""What became of a filing, and how it is told: as events, as steps of the timeline, as a receipt."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from libs.common.calendar import local_date
from libs.common.events import (
    AcceptedItem,
    ApplicationAccepted,
    ApplicationEvent,
    ApplicationNotAccepted,
    ApplicationReceived,
    ApplicationTransferred,
    CorrectionRequested,
    ItemRef,
)
from libs.common.policy import Pack, PackIdentity
from libs.common.policy.model import AtMostOne, Item
from services.intake import employers
from services.intake.domain import REASONS, Defect, Known, State, Verdict
from services.intake.filing import Filing
from services.intake.timeline import Step
from services.intake.views import (
    ItemView,
    Receipt,
    SuccessorView,
    defect_views,
    item_title,
    platform_title,
    reason_view,
    state_title,
)


@dataclass(frozen=True, slots=True)
class Docket:
    """What of an application never changes."""

    id: UUID
    case_no: str
    channel: str
    platform: str
    client: str
    filed_by: str
    received_at: datetime
    predecessor: UUID | None = None


@dataclass(frozen=True, slots=True)
class Parties:
    """Whom and what a filing names, as references."""

    applicant: UUID | None
    beneficiary: UUID
    handler: UUID | None
    employer: UUID | None
    payee_account: UUID | None


@dataclass(frozen=True, slots=True)
class Case:
    """One filing under examination. `spouses`: those of the beneficiary whom it names and of whom nothing is in
    doubt."""

    pack: Pack
    filing: Filing
    items: Sequence[Item]
    parties: Parties
    spouses: Sequence[UUID]
    employer: employers.Enrolled | None
    known: Known
    verdict: Verdict
    now: datetime

    @property
    def today(self) -> date:
        """The day in Asia/Shanghai."""
        return local_date(self.now)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: the new state, and what goes with it."""

    state: State
    reason: str | None = None
    in_the_way: Collection[str] = ()  # items, of the beneficiary or a spouse, that cannot be had beside those asked for
    defects: tuple[Defect, ...] = ()
    answer_by: date | None = None
    successor: SuccessorView | None = None
    known: bool = False  # nothing in it that was not told before


Told = tuple[ApplicationEvent, Step]
"""An event, and the step of the timeline that it is for applicants."""


def received(docket: Docket, case: Case, items: Sequence[AcceptedItem]) -> Told:
    """The event of the receipt, with its step."""
    event = ApplicationReceived(
        policy=case.pack.identity,
        application=docket.id,
        case_no=docket.case_no,
        channel="online" if docket.channel == "online" else "on_site",
        platform=docket.platform,
        received_at=docket.received_at,
        items=tuple(ItemRef(item=item.item, code=item.code, kind=item.kind) for item in items),
    )
    words = f"{platform_title(case.pack, docket.platform)}已收件，办件编号 {docket.case_no}。"
    return event, step_of(event, case.now, "已收件", words)


def facts(docket: Docket, case: Case, outcome: Outcome, items: Sequence[AcceptedItem]) -> list[Told]:
    """The events of an outcome, each with the step that applicants read."""
    event: ApplicationEvent
    policy, filing = case.pack.identity, case.filing
    match outcome.state:
        case State.ACCEPTED:
            event = ApplicationAccepted(
                policy=policy,
                application=docket.id,
                case_no=docket.case_no,
                accepted_on=case.today,
                treasury=case.verdict.treasury or "",
                employer_kind=filing.employer.kind.value if filing.employer else None,
                items=tuple(items),
                **asdict(case.parties),
            )
            words = "办理时限自受理次日起按工作日计算。"
        case State.CORRECTION:
            codes = tuple(dict.fromkeys(defect.code for defect in outcome.defects))
            last = outcome.answer_by or case.today
            event = CorrectionRequested(policy=policy, application=docket.id, defects=codes, answer_by=last)
            words = f"请于 {last} 前一次补正以下事项：{'；'.join(defect.title for defect in outcome.defects)}。"
        case State.NOT_ACCEPTED:
            reason = outcome.reason or ""
            event = ApplicationNotAccepted(policy=policy, application=docket.id, reason=reason, decided_on=case.today)
            said = (REASONS[reason], *_against(case), *_instead(case, outcome.in_the_way))
            words = f"{'；'.join(said)}。"
        case _:
            onward = outcome.successor
            if onward is None:
                raise ValueError(f"nothing is told of the state {outcome.state}")
            event = ApplicationTransferred(
                policy=policy, application=docket.id, to_treasury=case.verdict.treasury or "", successor=onward.id
            )
            words = f"已转至{platform_title(case.pack, onward.platform)}，新的办件编号 {onward.case_no}，材料随转。"
    return [(event, step_of(event, case.now, state_title(outcome.state), words))]


def _against(case: Case) -> list[str]:
    """The clauses that say no, each once."""
    decided = [one for one in case.verdict.decisions if one is not None]
    said = [clause.sentence for one in decided for clause in one.clauses if clause.says_no]
    return list(dict.fromkeys(said))


def _instead(case: Case, in_the_way: Collection[str]) -> Iterator[str]:
    """Which of the items asked for cannot be had beside which, and where that stands."""
    for item in case.items:
        rule = case.pack.find_rule(AtMostOne, item.code, on=case.today)
        others = [code for code in rule.benefits if code in in_the_way and code != item.code] if rule else []
        if rule is not None and others:
            held = "、".join(f"“{item_title(case.pack, code)}”" for code in others)
            yield f"已有{held}，与“{item.title}”只能享受其一（{rule.title}，{case.pack.citation(rule)}）"


def step_of(event: ApplicationEvent, now: datetime, title: str, detail: str = "") -> Step:
    """The step of an event of intake's own."""
    return Step(event.application, event.id, type(event).__name__, now, title, detail)


def receipt_of(docket: Docket, case: Case, outcome: Outcome, items: Sequence[AcceptedItem]) -> Receipt:
    """The receipt that the filer gets."""
    pack = case.pack
    return Receipt(
        id=docket.id,
        case_no=docket.case_no,
        state=outcome.state.value,
        state_title=state_title(outcome.state),
        channel="online" if docket.channel == "online" else "on_site",
        platform=docket.platform,
        platform_title=platform_title(pack, docket.platform),
        treasury=case.verdict.treasury,
        received_at=docket.received_at,
        accepted_on=case.today if outcome.state is State.ACCEPTED else None,
        decided_on=case.today if outcome.state in {State.NOT_ACCEPTED, State.TRANSFERRED} else None,
        answer_by=outcome.answer_by,
        reason=reason_view(outcome.reason),
        defects=defect_views(outcome.defects),
        beneficiary=case.parties.beneficiary,
        applicant=case.parties.applicant,
        handler=case.parties.handler,
        items=[
            ItemView(
                id=it.item,
                code=it.code,
                kind=it.kind,
                title=item_title(pack, it.code),
                category=it.category,
                certification=it.certification,
            )
            for it in items
        ],
        successor=outcome.successor,
        policy=pack.identity,
    )


def identity_of(row: Any) -> PackIdentity:
    """The pack that an application was decided under."""
    return PackIdentity(city=row.policy_city, version=row.policy_version, sha256=row.policy_sha256)
