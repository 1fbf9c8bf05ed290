"""What a caller may see of applications, and the shapes in which it is shown."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, false, func, or_, select, true

from libs.common.auth import Principal
from libs.common.money import Amount
from libs.common.policy import Pack, PackIdentity
from services.intake.domain import REASONS, TITLES, Defect
from services.intake.models import application, case_end, person, task_holder


def visible(query: Select[Any], caller: Principal) -> Select[Any]:
    """The query on `application`, with only the rows that a caller may see: the one way to select for a caller.

    A portal sees what its client filed, a talent what names them, a handler what names them as handler, a clerk and a
    talent office what belongs to their treasury or was filed at its platform, a department and a specialist what they
    hold a task of; supervisor and auditor everything.
    """
    return query.where(_in_view(caller))


def _in_view(caller: Principal) -> ColumnElement[bool]:
    if caller.sees_everything:
        return true()
    match caller.role:
        case "portal":
            return application.c.client == caller.client
        case "talent":
            return _named(caller, "beneficiary", "applicant", "handler")
        case "handler":
            return _named(caller, "handler")
        case "window_clerk" | "talent_office":
            return or_(application.c.platform == caller.treasury, application.c.treasury == caller.treasury)
        case "department" | "specialist":
            held = task_holder.c
            holds = (
                select(held.task)
                .where(held.application == application.c.id, held.completed_on.is_(None))
                .where(held.treasury == caller.treasury, held.department == caller.department)
            )
            # A case withdrawn in the middle leaves tasks that nobody completes.
            ended = select(case_end.c.state).where(case_end.c.application == application.c.id)
            return holds.correlate(application).exists() & ~ended.correlate(application).exists()
        case _:
            return false()


def _named(caller: Principal, *columns: str) -> ColumnElement[bool]:
    try:
        ref = UUID(caller.person or "")
    except ValueError:
        return false()
    # Records that were merged are one person: their references lead to the same one.
    one = func.coalesce(person.c.merged_into, person.c.ref)
    leading = select(one).where(person.c.ref == ref).scalar_subquery()
    same = select(person.c.ref).where(or_(person.c.ref == leading, person.c.merged_into == leading))
    return or_(*(application.c[column].in_(same) for column in columns))


class Shown(BaseModel):
    """Base of what is answered."""


class DefectView(Shown):
    """One thing incomplete or not in order, with what to do and where."""

    code: str
    title: str
    detail: str
    field: str = Field(description="所指填报项（JSON pointer）")
    item: str | None = None
    material: str | None = None


class ReasonView(Shown):
    """Why an application was not accepted."""

    code: str
    title: str


class ItemView(Shown):
    """One item as it was filed, and its result once there is one."""

    id: UUID
    code: str
    kind: Literal["certification", "benefit", "service", "change"]
    title: str
    category: str | None = None
    certification: str | None = Field(default=None, description="所依据的认定编号")
    result: Literal["done", "refused", "withdrawn"] | None = None
    reason: str | None = None
    number: str | None = Field(default=None, description="认定编号或批准编号")
    decided_on: date | None = None
    valid_to: date | None = None


class SuccessorView(Shown):
    """Where a transferred application lives on."""

    id: UUID
    case_no: str
    platform: str
    state: str


class Summary(Shown):
    """An application in a list."""

    id: UUID
    case_no: str
    state: str
    state_title: str
    channel: Literal["online", "on_site"]
    platform: str
    platform_title: str
    treasury: str | None = Field(default=None, description="隶属的一级财政")
    received_at: datetime
    accepted_on: date | None = None
    decided_on: date | None = None
    answer_by: date | None = Field(default=None, description="补正截止日期")
    reason: ReasonView | None = None
    beneficiary: UUID = Field(description="受益人的引用（随机编号，不含个人信息）")
    applicant: UUID | None = None
    handler: UUID | None = None
    policy: PackIdentity


class Receipt(Summary):
    """The receipt (收件回执): what became of a filing."""

    defects: list[DefectView] = []
    items: list[ItemView]
    successor: SuccessorView | None = None


class MaterialView(Shown):
    """One material: as stated, or with the file that was uploaded, at `href`."""

    id: UUID
    code: str
    title: str
    evidence: Literal["electronic_licence", "promised", "upload"]
    reference: str | None = None
    promised_by: date | None = None
    media_type: str | None = None
    size: int | None = None
    sha256: str | None = None
    href: str | None = None


class TaskView(Shown):
    """A department's task, as far as applicants need to know."""

    department: str | None
    department_title: str | None
    treasury: str | None
    item: UUID | None
    due_on: date | None
    completed_on: date | None
    result: Literal["passed", "failed"] | None
    suspended: bool


class ObjectionView(Shown):
    """An objection to what is on public notice, and whether it was upheld."""

    received_on: date
    upheld: bool | None = Field(description="异议是否成立；尚未核查的为空")
    concluded_on: date | None


class NoticeView(Shown):
    """A public notice of an item: time that no limit counts, with its reason."""

    item: UUID
    opened_on: date = Field(description="公示之日，当日不计入")
    last_day: date = Field(description="公示期最后一日")
    withdrawn_on: date | None = Field(description="撤销公示之日；未撤销的为空")
    objections: list[ObjectionView]


class PaymentView(Shown):
    """One payment, as far as intake has heard of it."""

    order: UUID
    item: UUID | None
    benefit: str | None
    benefit_title: str | None
    instalment: int | None
    amount: Amount | None
    due_on: date | None
    state: Literal["unfunded", "due", "sent", "bounced", "settled", "cancelled"]
    state_title: str
    settled_on: date | None
    cancelled_on: date | None


class StepView(Shown):
    """One step of the timeline."""

    at: datetime
    code: str
    title: str
    detail: str
    item: UUID | None = None


class ExternalRefView(Shown):
    """The application's number in another system."""

    system: str
    kind: str
    value: str


class ApplicationView(Receipt):
    """An application with all that its applicant may know."""

    closed_on: date | None = None
    withdrawal_asked_at: datetime | None = None
    predecessor: UUID | None = None
    materials: list[MaterialView]
    tasks: list[TaskView]
    notices: list[NoticeView] = Field(description="公示和异议")
    payments: list[PaymentView]
    external_refs: list[ExternalRefView]
    timeline: list[StepView]
    feedback: str | None = Field(default=None, description="集中反馈")


class ChangeView(StepView):
    """One change: a step of an application, with its state of now."""

    application: UUID
    case_no: str
    state: str
    state_title: str
    feedback: str | None = Field(default=None, description="集中反馈，随办结一并给出")


class Changes(Shown):
    """Changes after a cursor, in order; `next` goes into `after`, also where nothing was new."""

    items: list[ChangeView]
    next: str


def reason_view(reason: str | None) -> ReasonView | None:
    """A reason with its Chinese words."""
    return ReasonView(code=reason, title=REASONS.get(reason, reason)) if reason else None


def defect_views(defects: Sequence[Defect]) -> list[DefectView]:
    """Defects as they are told and stored."""
    return [
        DefectView(code=d.code, title=d.title, detail=d.detail, field=d.field, item=d.item, material=d.material)
        for d in defects
    ]


def state_title(state: str) -> str:
    """The Chinese word of a case state."""
    return TITLES[state]


class _Titled(Protocol):
    @property
    def code(self) -> str: ...
    @property
    def title(self) -> str: ...


def _title(among: Iterable[_Titled], code: str) -> str:
    """The Chinese name of a code; the code itself where the pack does not hold it."""
    return next((each.title for each in among if each.code == code), code)


def platform_title(pack: Pack, code: str) -> str:
    """The Chinese name of a platform."""
    return _title(pack.platforms, code)


def item_title(pack: Pack, code: str) -> str:
    """The Chinese name of an item."""
    return _title(pack.items, code)


def benefit_title(pack: Pack, code: str) -> str:
    """The Chinese name of a benefit."""
    return _title(pack.benefits, code)


def category_title(pack: Pack, code: str) -> str:
    """The Chinese name of a category of talent."""
    return _title(pack.categories, code)


def treasury_title(pack: Pack, code: str) -> str:
    """The Chinese name of a treasury."""
    return _title(pack.treasuries, code)


def department_title(pack: Pack, code: str) -> str:
    """The Chinese name of a department."""
    return _title(pack.departments, code)


def material_title(pack: Pack, code: str) -> str:
    """The Chinese name of a material."""
    return _title((material for item in pack.items for material in item.materials), code)


def as_json(models: Sequence[BaseModel]) -> list[dict[str, Any]]:
    """Models as plain JSON."""
    return [model.model_dump(mode="json", exclude_none=True) for model in models]
