"""Cases: opened by an acceptance, ended by results, a withdrawal or a missed promise that still counts, shown to
whoever may see them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Row, exists, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.calendar import Light
from libs.common.errors import NotFound
from libs.common.events import (
    AcceptedItem,
    ApplicationAccepted,
    ApplicationWithdrawn,
    Event,
    PromiseMissed,
    WithdrawalIgnored,
)
from libs.common.outbox import emit
from libs.common.packs import Packs
from libs.common.paging import Page, PageRequest, page_of, read_after
from libs.common.policy import Pack, PackIdentity, tasks_for
from services.workflow.access import among, locked, pack_of, policy_of, visible
from services.workflow.archive import open_records
from services.workflow.assignment import NewStage, assign, cancel_tasks
from services.workflow.changes import Done, settle_changes
from services.workflow.closing import close_finished, end_cases
from services.workflow.domain import TITLES, CaseState, ItemState, Step, TaskState, next_step
from services.workflow.history import Entry, EntryView, entries_of, record
from services.workflow.models import approval, cases, certification, item, task
from services.workflow.notices import on_notice
from services.workflow.worklist import TaskView, task_rows, views

_OPEN = text("""
    INSERT INTO cases (application, case_no, city, version, sha256, treasury, accepted_on, beneficiary, applicant,
                       handler, employer, employer_kind, payee_account, state, opened_at)
    SELECT r.*, 'in_progress', :now
      FROM unnest(CAST(:applications AS uuid[]), CAST(:case_nos AS text[]), CAST(:cities AS text[]),
                  CAST(:versions AS text[]), CAST(:hashes AS text[]), CAST(:treasuries AS text[]),
                  CAST(:accepted AS date[]), CAST(:beneficiaries AS uuid[]), CAST(:applicants AS uuid[]),
                  CAST(:handlers AS uuid[]), CAST(:employers AS uuid[]), CAST(:employer_kinds AS text[]),
                  CAST(:accounts AS uuid[])) AS r
     ORDER BY 1
    ON CONFLICT (application) DO NOTHING
    RETURNING *
""")
_ITEMS = text("""
    INSERT INTO item (id, application, position, code, kind, category, benefit, certification, state, stage)
    SELECT *
      FROM unnest(CAST(:ids AS uuid[]), CAST(:applications AS uuid[]), CAST(:positions AS smallint[]),
                  CAST(:codes AS text[]), CAST(:kinds AS text[]), CAST(:categories AS text[]),
                  CAST(:benefits AS text[]), CAST(:certifications AS text[]), CAST(:states AS text[]),
                  CAST(:stages AS smallint[])) AS r
""")
_DECIDED = text("""
    SELECT DISTINCT application FROM item
     WHERE application = ANY(CAST(:applications AS uuid[])) AND decided_on IS NOT NULL
""")
_END_ITEMS = text("""
    UPDATE item SET state = :state, reason = r.reason, version = version + 1
      FROM unnest(CAST(:applications AS uuid[]), CAST(:reasons AS text[])) AS r (application, reason)
     WHERE item.application = r.application AND item.state IN ('in_progress', 'awaiting_decision', 'proposed')
    RETURNING item.id
""")
_AT_OPENING: Final = {
    Step.ASSIGN: (ItemState.IN_PROGRESS, 0),
    Step.FINISH: (ItemState.AWAITING_DECISION, -1),
    Step.COMPLETE: (ItemState.DONE, -1),
}


class DecisionSummary(BaseModel):
    """The decision of an item as far as it has come."""

    verdict: str = Field(description="certify | approve | refuse")
    category: str | None
    reason: str | None
    proposed_by: str | None
    proposed_at: datetime | None
    confirmed_by: str | None
    decided_on: date | None
    number: str | None = Field(description="认定编号或批准编号")


class ItemView(BaseModel):
    """One item of a case with its tasks."""

    id: UUID
    code: str
    title: str
    kind: str
    category: str | None
    benefit: str | None
    certification: str | None
    state: str
    stage: int
    stages: int
    reason: str | None
    decision: DecisionSummary | None
    tasks: list[TaskView]


class CaseSummary(BaseModel):
    """One case in a list."""

    application: UUID
    case_no: str
    treasury: str
    state: str
    state_title: str
    accepted_on: date
    closed_on: date | None
    beneficiary: UUID
    light: Light | None = Field(description="未办结任务中最急的一盏；没有在办任务时为空")
    items: list[dict[str, Any]] = Field(description="{id, code, kind, state}")


class CaseView(BaseModel):
    """One case, whole."""

    application: UUID
    case_no: str
    policy: PackIdentity
    treasury: str
    state: str
    state_title: str
    accepted_on: date
    opened_at: datetime
    closed_on: date | None
    beneficiary: UUID
    payee_account: UUID | None = Field(description="申请所填收款账户的引用")
    employer: UUID | None
    employer_kind: str | None
    light: Light | None
    items: list[ItemView]
    history: list[EntryView]


# -- what moves a case


async def open_cases(
    tx: AsyncConnection, packs: Mapping[PackIdentity, Pack], events: Sequence[ApplicationAccepted], *, now: datetime
) -> None:
    """Open the case of each accepted application once, with its items and the tasks of their first stages.

    Raises UnknownCode, NoRuleInForce for an item that the pack does not hold on the day of acceptance.
    """
    latest = {event.application: event for event in events}
    held = {row.application: row for row in await tx.execute(_OPEN, _case_rows(latest.values()) | {"now": now})}
    filed = [(event, place, each) for a, event in latest.items() if a in held for place, each in enumerate(event.items)]
    if not filed:
        return
    begun = [_begin(packs[event.policy], held[event.application], each) for event, _, each in filed]
    await tx.execute(_ITEMS, _item_rows(filed, begun))
    await open_records(tx, [case.beneficiary for case in held.values()], now=now)
    await record(tx, [Entry(application, "case_opened") for application in held], at=now)
    placed = [
        (held[event.application], packs[event.policy], each, *state)
        for (event, _, each), state in zip(filed, begun, strict=True)
    ]
    stages = [
        NewStage(pack, case, each.item, each.code, stage, start_on=case.accepted_on)
        for case, pack, each, state, stage in placed
        if state is ItemState.IN_PROGRESS
    ]
    events_out: list[Event] = [*await assign(tx, stages, now=now)]
    done = [Done(case, pack, each.item, each.code) for case, pack, each, state, _ in placed if state is ItemState.DONE]
    events_out += await settle_changes(tx, done, now=now)
    events_out += await close_finished(tx, held, now=now)
    await emit(tx, *events_out)


def _begin(pack: Pack, case: Row[Any], filed: AcceptedItem) -> tuple[ItemState, int]:
    stages = len(tasks_for(pack, filed.code, case.accepted_on))
    return _AT_OPENING[next_step(filed.kind, stage=-1, stages=stages, results=())]


def _case_rows(events: Any) -> dict[str, Any]:
    accepted: list[ApplicationAccepted] = list(events)
    return {
        "applications": [event.application for event in accepted],
        "case_nos": [event.case_no for event in accepted],
        "cities": [event.policy.city for event in accepted],
        "versions": [event.policy.version for event in accepted],
        "hashes": [event.policy.sha256 for event in accepted],
        "treasuries": [event.treasury for event in accepted],
        "accepted": [event.accepted_on for event in accepted],
        "beneficiaries": [event.beneficiary for event in accepted],
        "applicants": [event.applicant for event in accepted],
        "handlers": [event.handler for event in accepted],
        "employers": [event.employer for event in accepted],
        "employer_kinds": [event.employer_kind for event in accepted],
        "accounts": [event.payee_account for event in accepted],
    }


def _item_rows(
    filed: Sequence[tuple[ApplicationAccepted, int, AcceptedItem]], begun: Sequence[tuple[ItemState, int]]
) -> dict[str, Any]:
    items = [each for _, _, each in filed]
    return {
        "ids": [each.item for each in items],
        "applications": [event.application for event, _, _ in filed],
        "positions": [place for _, place, _ in filed],
        "codes": [each.code for each in items],
        "kinds": [each.kind for each in items],
        "categories": [each.category for each in items],
        "benefits": [(each.benefit or each.code) if each.kind == "benefit" else None for each in items],
        "certifications": [each.certification for each in items],
        "states": [state.value for state, _ in begun],
        "stages": [stage for _, stage in begun],
    }


async def withdraw(tx: AsyncConnection, events: Sequence[ApplicationWithdrawn], *, now: datetime) -> None:
    """End the cases of withdrawn applications, unless a decision is confirmed already or the case has ended.

    An application without a case was withdrawn before its acceptance: intake's own matter.
    """
    held, counting = await _undecided(tx, [event.application for event in events])
    too_late = [a for a in held if a not in counting]
    await record(
        tx, [*(Entry(a, "withdrawal_ignored") for a in too_late), *(Entry(a, "withdrawn") for a in counting)], at=now
    )
    await _end_items(tx, ItemState.WITHDRAWN, dict.fromkeys(counting))
    ignored = [
        WithdrawalIgnored(
            policy=policy_of(held[a]),
            application=a,
            reason="decided" if held[a].state == CaseState.IN_PROGRESS else "ended",
        )
        for a in too_late
    ]
    await emit(tx, *ignored, *await end_cases(tx, held, dict.fromkeys(counting, "withdraw"), now=now))


async def lapse(
    tx: AsyncConnection, packs: Mapping[PackIdentity, Pack], events: Sequence[PromiseMissed], *, now: datetime
) -> None:
    """End the cases whose promised materials did not come (逾期终止), unless a decision is confirmed already or the
    case has ended: what was examined and decided without them did not need them."""
    missed = {event.application: event for event in events}
    held, counting = await _undecided(tx, list(missed))
    actions = {a: "promise_missed" if a in counting else "promise_missed_ignored" for a in held}
    told = {a: {"materials": list(missed[a].materials), "promised_by": missed[a].promised_by} for a in held}
    await record(tx, [Entry(a, action, detail=told[a]) for a, action in actions.items()], at=now)
    reasons = {a: _missed_words(packs[missed[a].policy], held[a], missed[a]) for a in counting}
    await _end_items(tx, ItemState.REFUSED, reasons)
    await emit(tx, *await end_cases(tx, held, dict.fromkeys(counting, "lapse"), now=now))


async def _undecided(tx: AsyncConnection, applications: Sequence[UUID]) -> tuple[Mapping[UUID, Row[Any]], list[UUID]]:
    """The locked cases of these applications, and those in progress of which nothing was decided yet."""
    held = await locked(tx, applications)
    decided = set((await tx.execute(_DECIDED, {"applications": list(held)})).scalars())
    return held, [a for a, case in held.items() if case.state == CaseState.IN_PROGRESS and a not in decided]


async def _end_items(tx: AsyncConnection, state: ItemState, reasons: Mapping[UUID, str | None]) -> None:
    """End what is open of these applications (application → why, where applicants are to read it), tasks too."""
    ended = {"state": state.value, "applications": list(reasons), "reasons": list(reasons.values())}
    await cancel_tasks(tx, (await tx.execute(_END_ITEMS, ended)).scalars().all())


def _missed_words(pack: Pack, case: Row[Any], event: PromiseMissed) -> str:
    titles = {each.code: each.title for item in pack.items for each in item.materials if item.covers(case.accepted_on)}
    named = "、".join(titles.get(code, code) for code in event.materials)
    return f"承诺于 {event.promised_by} 前补交的材料逾期未交：{named}"


# -- what is shown of it


async def case_view(
    tx: AsyncConnection, packs: Packs, application: UUID, caller: Principal, *, today: date
) -> CaseView:
    """One case, whole. Raises NotFound."""
    query = visible(select(cases, on_notice(today).label("noticed")).where(cases.c.application == application), caller)
    case = (await tx.execute(query)).first()
    if case is None:
        raise NotFound
    pack = pack_of(packs, case)
    tasks = await views(tx, packs, await task_rows(tx, [application]), today=today)
    state = _shown_state(case, tasks)
    return CaseView(
        application=application,
        case_no=case.case_no,
        policy=policy_of(case),
        treasury=case.treasury,
        state=state,
        state_title=TITLES[state],
        accepted_on=case.accepted_on,
        opened_at=case.opened_at,
        closed_on=case.closed_on,
        beneficiary=case.beneficiary,
        payee_account=case.payee_account,
        employer=case.employer,
        employer_kind=case.employer_kind,
        light=_most_urgent(tasks),
        items=[_item_view(row, pack, case.accepted_on, tasks) for row in await _item_details(tx, application)],
        history=await entries_of(tx, application),
    )


async def list_cases(
    tx: AsyncConnection,
    packs: Packs,
    caller: Principal,
    page: PageRequest,
    *,
    state: CaseState | None,
    today: date,
) -> Page[CaseSummary]:
    """The caller's cases in order of application, optionally those in one state (also `suspended`)."""
    noticed = on_notice(today)
    query = visible(select(cases, noticed.label("noticed")), caller).order_by(cases.c.application).limit(page.limit + 1)
    still = exists(select(1).where(task.c.application == cases.c.application, task.c.state == TaskState.SUSPENDED))
    stopped = or_(still, noticed)
    if state is CaseState.SUSPENDED:
        query = query.where(cases.c.state == CaseState.IN_PROGRESS, stopped)
    elif state is not None:
        query = query.where(cases.c.state == state)
        query = query.where(~stopped) if state is CaseState.IN_PROGRESS else query
    if after := read_after(page, UUID):
        query = query.where(cases.c.application > after[0])
    found = (await tx.execute(query)).all()
    return page_of(await _summaries(tx, packs, found, today), page, lambda case: (str(case.application),))


async def _summaries(tx: AsyncConnection, packs: Packs, found: Sequence[Row[Any]], today: date) -> list[CaseSummary]:
    applications = [case.application for case in found]
    tasks: dict[UUID, list[TaskView]] = defaultdict(list)
    for view in await views(tx, packs, await task_rows(tx, applications), today=today):
        tasks[view.application].append(view)
    items: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    query = select(item).where(among(item.c.application, applications)).order_by(item.c.application, item.c.position)
    for row in await tx.execute(query):
        items[row.application].append({"id": row.id, "code": row.code, "kind": row.kind, "state": row.state})
    summaries = []
    for case in found:
        state = _shown_state(case, tasks[case.application])
        summaries.append(
            CaseSummary(
                application=case.application,
                case_no=case.case_no,
                treasury=case.treasury,
                state=state,
                state_title=TITLES[state],
                accepted_on=case.accepted_on,
                closed_on=case.closed_on,
                beneficiary=case.beneficiary,
                light=_most_urgent(tasks[case.application]),
                items=items[case.application],
            )
        )
    return summaries


async def _item_details(tx: AsyncConnection, application: UUID) -> Sequence[Row[Any]]:
    query = (
        select(item, certification.c.number.label("certified_as"), approval.c.number.label("approved_as"))
        .outerjoin(certification, certification.c.item == item.c.id)
        .outerjoin(approval, approval.c.item == item.c.id)
        .where(item.c.application == application)
        .order_by(item.c.position)
    )
    return (await tx.execute(query)).all()


def _item_view(row: Row[Any], pack: Pack, on: date, tasks: Sequence[TaskView]) -> ItemView:
    decision = None
    if row.verdict is not None:
        decision = DecisionSummary(
            verdict=row.verdict,
            category=row.verdict_category,
            reason=row.verdict_reason,
            proposed_by=row.proposed_by,
            proposed_at=row.proposed_at,
            confirmed_by=row.confirmed_by,
            decided_on=row.decided_on,
            number=row.certified_as or row.approved_as,
        )
    definition = pack.item(row.code, on)
    return ItemView(
        id=row.id,
        code=row.code,
        title=definition.title,
        kind=row.kind,
        category=row.category,
        benefit=row.benefit,
        certification=row.certification,
        state=row.state,
        stage=row.stage,
        stages=len(definition.stages),
        reason=row.reason,
        decision=decision,
        tasks=[each for each in tasks if each.item.id == row.id],
    )


def _shown_state(case: Row[Any], tasks: Sequence[TaskView]) -> CaseState:
    stopped = case.noticed or any(each.state == TaskState.SUSPENDED for each in tasks)
    return CaseState.SUSPENDED if stopped and case.state == CaseState.IN_PROGRESS else CaseState(case.state)


def _most_urgent(tasks: Sequence[TaskView]) -> Light | None:
    order = (Light.RED, Light.YELLOW, Light.GREEN)
    going = {each.light for each in tasks if each.state in {TaskState.OPEN, TaskState.SUSPENDED}}
    return next((light for light in order if light in going), None)
