"""Every event that passes between services: the map of the system.

A topic is a stream, not a class: facts that undo or follow one another share one and are told apart by the
CloudEvents `type`, which is the class name. The key is the application's id unless the class says otherwise. No event
carries a name, an identity number or a bank number; `beneficiary`, `employer` and `payee_account` are random references
that intake alone can resolve. What a directory says of an employer, which need not be on record, names it by its credit
code. Compatible means both ways: only optional fields are added, and readers ignore unknown
ones.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from uuid_utils.compat import uuid7

from libs.common.policy.identity import PackIdentity

FenAmount = Annotated[int, Field(ge=0, le=10**15, description="an amount in fen (1/100 yuan)")]
Treasury = Annotated[str, Field(pattern=r"^\d{6}$", description="code of a treasury (一级财政)")]
Code = Annotated[str, Field(min_length=1, max_length=64, description="a code of the policy pack")]
CreditCode = Annotated[str, Field(pattern=r"^[0-9A-Z]{18}$", description="unified social credit code of an employer")]
ItemKind = Literal["certification", "benefit", "service", "change"]
EmployerKind = Literal[
    "enterprise", "institution", "government", "social_organisation", "own_startup", "central_or_provincial"
]
AffiliationKind = Literal["fiscal", "administrative", "tax", "registration"]


class Stamp(NamedTuple):
    """What an event's headers say of it: its identity, the UTC instant of its recording, its `traceparent`."""

    id: UUID
    time: datetime
    trace: str | None = None


class Event(BaseModel):
    """A fact, in the past tense. `id`, `time` (UTC) and `trace` travel in the CloudEvents headers, the rest is JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    topic: ClassVar[str]

    policy: PackIdentity

    _stamp: Stamp = PrivateAttr(default_factory=lambda: Stamp(uuid7(), datetime.now(UTC)))

    @property
    def id(self) -> UUID:
        """The event's identity: the same at every redelivery."""
        return self.stamp.id

    @property
    def time(self) -> datetime:
        """The UTC instant at which it was recorded."""
        return self.stamp.time

    @property
    def trace(self) -> str | None:
        """The W3C `traceparent` it was published under."""
        return self.stamp.trace

    @property
    def key(self) -> str:
        """What orders it: events of one key keep their order."""
        raise NotImplementedError

    def stamped(self, *, event_id: UUID, time: datetime, trace: str | None) -> Self:
        """The same fact with the identity that its headers gave it."""
        self._stamp = Stamp(event_id, time, trace)
        return self

    @property
    def stamp(self) -> Stamp:
        """All three: `self._stamp`, in a tenth of the time that pydantic takes to find a private attribute."""
        stamp: Stamp = self.__pydantic_private__["_stamp"]  # type: ignore[index]  # it is always there
        return stamp


class ApplicationEvent(Event):
    """A fact about one application, which is its key."""

    application: UUID

    @property
    def key(self) -> str:
        """The application's id."""
        return str(self.application)


class ItemRef(BaseModel):
    """One item of an application, as it was filed."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    item: UUID
    code: Code
    kind: ItemKind


class AcceptedItem(ItemRef):
    """One item of an accepted application, with what the decision needs."""

    category: Code | None = None
    benefit: Code | None = None
    certification: str | None = Field(default=None, description="number of an earlier certification it relies on")


# -- application.received: intake


class ApplicationReceived(ApplicationEvent):
    """A filing was taken in (已收件), with or without defects."""

    topic = "application.received"
    case_no: str
    channel: Literal["online", "on_site"]
    platform: Treasury
    received_at: datetime
    items: tuple[ItemRef, ...]


class CorrectionRequested(ApplicationEvent):
    """All defects were told at once (一次性告知)."""

    topic = "application.received"
    defects: tuple[Code, ...]
    answer_by: date


class ApplicationAccepted(ApplicationEvent):
    """The application was accepted (已受理); time limits run from `accepted_on`, which itself does not count."""

    topic = "application.received"
    case_no: str
    accepted_on: date
    treasury: Treasury
    employer: UUID | None = None
    employer_kind: EmployerKind | None = None
    beneficiary: UUID
    applicant: UUID | None = None
    handler: UUID | None = None
    payee_account: UUID | None = None
    items: tuple[AcceptedItem, ...]


class ApplicationNotAccepted(ApplicationEvent):
    """The application was not accepted (不予受理)."""

    topic = "application.received"
    reason: Code
    decided_on: date


class ApplicationTransferred(ApplicationEvent):
    """The application went to the platform it belongs to (已转办), where it lives on as `successor`."""

    topic = "application.received"
    to_treasury: Treasury
    successor: UUID


class ApplicationWithdrawn(ApplicationEvent):
    """The applicant withdrew. Workflow alone decides whether that still counts once a case is open."""

    topic = "application.received"
    withdrawn_at: datetime


class PromiseMissed(ApplicationEvent):
    """Promised materials (容缺受理) had not come by the end of `promised_by`. Workflow alone decides what that ends."""

    topic = "application.received"
    materials: tuple[Code, ...]
    promised_by: date


class StatedAffiliation(BaseModel):
    """A tie of an employer to a treasury, from a first day to a last one, both included; no last day means open."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: AffiliationKind
    treasury: Treasury
    valid_from: date
    valid_to: date | None = None


class EmployerAffiliated(Event):
    """Where an employer belongs (隶属关系), all of it as it now stands: what was told before counts no more.

    Key: the employer. Of two of one employer the greater `revision` is the newer; one may be told again.
    """

    topic = "employer.affiliated"
    employer: UUID
    revision: int = Field(ge=1, description="grows with every statement of the employer")
    affiliations: tuple[StatedAffiliation, ...]

    @property
    def key(self) -> str:
        """The employer's reference."""
        return str(self.employer)


class DirectoryEvent(Event):
    """A statement on one employer in a directory (企业目录) of `policy.city`, by the number of a document. None is ever
    changed: on a day that of the greatest `statement` counts, of those that cover it.

    Key: the credit code, for the employer need not be on record.
    """

    statement: int = Field(ge=1, description="running number of the statement, over all directories")
    directory: Code
    credit_code: CreditCode
    valid_from: date
    document: str

    @property
    def key(self) -> str:
        """The employer's credit code."""
        return self.credit_code


class EmployerListed(DirectoryEvent):
    """An employer was entered in a directory (列入), from a first day to a last one; no last day means open."""

    topic = "employer.listed"
    valid_to: date | None = None


class EmployerStruck(DirectoryEvent):
    """An employer was struck from a directory (移出), from `valid_from` on."""

    topic = "employer.listed"


# -- workflow


class DeptAssigned(ApplicationEvent):
    """A department got a task; the rest is behind `GET /workflow/v1/tasks/{id}`."""

    topic = "dept.assigned"
    task: UUID
    department: Code
    treasury: Treasury
    item: UUID
    due_on: date


class DeptCompleted(ApplicationEvent):
    """A department returned the result of one task."""

    topic = "dept.completed"
    task: UUID
    department: Code
    treasury: Treasury
    item: UUID
    result: Literal["passed", "failed"]
    completed_on: date
    facts: Mapping[str, bool | int | str] = Field(
        default={}, description="what it found of the facts that the policy declares, by their names"
    )


class CaseSuspended(ApplicationEvent):
    """The clock of a task stopped (特别程序); `from_day` is the first day without the clock."""

    topic = "case.suspended"
    task: UUID
    reason: Code
    from_day: date


class CaseResumed(ApplicationEvent):
    """The clock of a task runs again from `to_day`, which moves its due date to `due_on`."""

    topic = "case.suspended"
    task: UUID
    to_day: date
    due_on: date


class PublicNoticeOpened(ApplicationEvent):
    """A proposed certification was put on public notice (公示). The day it was opened on does not count, its last day
    does: a decision comes later than that."""

    topic = "notice.opened"
    notice: UUID
    item: UUID
    category: Code
    treasury: Treasury
    opened_on: date
    last_day: date


class PublicNoticeWithdrawn(ApplicationEvent):
    """A proposal was sent back, and its public notice with it."""

    topic = "notice.opened"
    notice: UUID
    item: UUID
    withdrawn_on: date


class ObjectionReceived(ApplicationEvent):
    """Somebody objected (异议) to what is on public notice; what was said is behind
    `GET /workflow/v1/items/{item}`."""

    topic = "notice.opened"
    notice: UUID
    objection: UUID
    item: UUID
    received_on: date


class ObjectionConcluded(ApplicationEvent):
    """An objection was looked into. One that is upheld stands against the certification."""

    topic = "notice.opened"
    notice: UUID
    objection: UUID
    item: UUID
    upheld: bool
    concluded_on: date


class TalentCertified(ApplicationEvent):
    """A second officer confirmed a certification (认定): a record of its own that later benefits refer to."""

    topic = "talent.certified"
    item: UUID
    certification: UUID
    number: str
    category: Code
    beneficiary: UUID
    employer: UUID | None = None
    employer_kind: EmployerKind | None = None
    treasury: Treasury
    decided_on: date
    valid_to: date


class BenefitApproved(ApplicationEvent):
    """A second officer approved one benefit; the two working days of its first payment run from `decided_on`."""

    topic = "talent.certified"
    item: UUID
    benefit: Code
    number: str
    certification: str
    category: Code
    beneficiary: UUID
    payee_account: UUID | None = None
    employer: UUID | None = None
    employer_kind: EmployerKind | None = None
    treasury: Treasury
    accepted_on: date
    decided_on: date


class PayeeAccountChanged(ApplicationEvent):
    """The beneficiary's money goes to another account from now on (收款账户变更); what is at the bank already does not.

    Of several statements of an account that of the latest acceptance counts, of one day that of the later application.
    """

    topic = "talent.certified"
    item: UUID
    beneficiary: UUID
    payee_account: UUID
    accepted_on: date
    decided_on: date


class ItemResult(BaseModel):
    """How one item ended."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    item: UUID
    result: Literal["done", "refused", "withdrawn"]
    reason: str | None = None
    decided_on: date | None = Field(default=None, description="the day on which officers decided, also a refusal")


class ApplicationClosed(ApplicationEvent):
    """Workflow came to the end of a case: closed, refused, withdrawn or lapsed (TERMS, case state)."""

    topic = "application.closed"
    state: Literal["closed", "refused", "withdrawn", "lapsed"]
    closed_on: date
    items: tuple[ItemResult, ...]


class WithdrawalIgnored(ApplicationEvent):
    """A withdrawal came too late (撤回未生效): an item was `decided` already, or the case had `ended`."""

    topic = "application.closed"
    reason: Literal["decided", "ended"]


# -- finance


class PayoutOrdered(ApplicationEvent):
    """A payout order was made for one instalment; `unfunded` where its budget quota does not reach."""

    topic = "payout.ordered"
    order: UUID
    item: UUID
    benefit: Code
    instalment: int
    treasury: Treasury
    fen: FenAmount
    due_on: date
    state: Literal["due", "unfunded"]


class PayoutSent(ApplicationEvent):
    """A payout order left for the bank in a batch file (已提交)."""

    topic = "payout.ordered"
    order: UUID
    batch: UUID


class PayoutSettled(ApplicationEvent):
    """The bank confirmed the credit (已到账): the clock stops at `settled_on`."""

    topic = "payout.settled"
    order: UUID
    item: UUID
    benefit: Code
    instalment: int
    treasury: Treasury
    fen: FenAmount
    shares: Mapping[Treasury, FenAmount]
    due_on: date
    settled_on: date


class PayoutBounced(ApplicationEvent):
    """The bank returned the payment (已退票); the same two-day clock runs on."""

    topic = "payout.settled"
    order: UUID
    item: UUID
    reason: Code
    bounced_on: date


class PayoutCancelled(ApplicationEvent):
    """An order was cancelled before any credit (已取消), for good. The officer's own words stay with finance."""

    topic = "payout.settled"
    order: UUID
    item: UUID
    reason: Code
    cancelled_on: date


class InstalmentReviewed(ApplicationEvent):
    """What must still hold was reviewed before a later instalment (发放前复核), which is ordered only where it passes.
    `rules` names the conditions that decided against it, or that want a fact; the facts stay with finance."""

    topic = "payout.settled"
    review: UUID
    item: UUID
    benefit: Code
    instalment: int
    treasury: Treasury
    verdict: Literal["pass", "undetermined", "fail"]
    rules: tuple[str, ...]
    reviewed_on: date


class FiscalSettlementClosed(Event):
    """A month of a treasury was settled with those that owed it. Key: the treasury. Positive where it was owed."""

    topic = "fiscal_settlement.closed"
    settlement: UUID
    treasury: Treasury
    month: str = Field(pattern=r"^\d{4}-\d{2}$")
    fen: int
    route: Literal["direct", "via_province"]
    closed_at: datetime

    @property
    def key(self) -> str:
        """The treasury that paid."""
        return self.treasury


# -- housing


class FlatHeld(ApplicationEvent):
    """A flat is held for a beneficiary until `held_until`."""

    topic = "housing.leased"
    item: UUID
    flat: UUID
    held_until: datetime


class FlatReleased(ApplicationEvent):
    """A hold ended without a lease."""

    topic = "housing.leased"
    item: UUID
    flat: UUID
    reason: Literal["expired", "given_up"]


class FlatLeased(ApplicationEvent):
    """A lease was signed."""

    topic = "housing.leased"
    item: UUID
    flat: UUID
    lease: UUID
    from_day: date
    to_day: date


class LeaseEnded(ApplicationEvent):
    """A lease came to its end (租期已止): its term `expired`, or it was `ended_early`. `ended_on` is its last day."""

    topic = "housing.leased"
    item: UUID
    flat: UUID
    lease: UUID
    ended_on: date
    reason: Literal["expired", "ended_early"]


# -- supervision


class SlaBreached(ApplicationEvent):
    """A time limit passed with its work not done. A fact of one moment: whether it is overdue *now* is derived."""

    topic = "sla.breached"
    clock: Literal["task", "payout"]
    record: UUID
    treasury: Treasury
    department: Code
    due_on: date


class PeopleResolved(Event):
    """Somebody asked intake who stands behind references. Key: the call."""

    topic = "people.resolved"
    call: UUID
    caller: str
    purpose: str
    fields: tuple[str, ...]
    refs: tuple[UUID, ...]

    @property
    def key(self) -> str:
        """The call's own id."""
        return str(self.call)


EVENTS: tuple[type[Event], ...] = (
    ApplicationReceived,
    CorrectionRequested,
    ApplicationAccepted,
    ApplicationNotAccepted,
    ApplicationTransferred,
    ApplicationWithdrawn,
    PromiseMissed,
    EmployerAffiliated,
    EmployerListed,
    EmployerStruck,
    DeptAssigned,
    DeptCompleted,
    CaseSuspended,
    CaseResumed,
    PublicNoticeOpened,
    PublicNoticeWithdrawn,
    ObjectionReceived,
    ObjectionConcluded,
    TalentCertified,
    BenefitApproved,
    PayeeAccountChanged,
    ApplicationClosed,
    WithdrawalIgnored,
    PayoutOrdered,
    PayoutSent,
    PayoutSettled,
    PayoutBounced,
    PayoutCancelled,
    InstalmentReviewed,
    FiscalSettlementClosed,
    FlatHeld,
    FlatReleased,
    FlatLeased,
    LeaseEnded,
    SlaBreached,
    PeopleResolved,
)
BY_TYPE: Mapping[str, type[Event]] = {event.__name__: event for event in EVENTS}
TOPICS: tuple[str, ...] = tuple(dict.fromkeys(event.topic for event in EVENTS))


def columns_of(events: Iterable[Event], names: str) -> dict[str, list[Any]]:
    """Fields of events (their names with a space between) as the columns that a statement with `unnest` takes."""
    return {name: [getattr(event, name) for event in events] for name in names.split()}
