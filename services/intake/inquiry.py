"""What callers ask of applications: one with everything, lists, and the feed of changes. Always through `visible`."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Select, Text, case, cast, func, literal_column, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.errors import NotFound
from libs.common.money import Amount, format_yuan
from libs.common.packs import Packs
from libs.common.paging import PageRequest, encode_cursor, read_after
from libs.common.policy import Pack
from services.intake.eligibility import DecidedView, DecisionView
from services.intake.models import (
    EPOCH,
    application,
    application_item,
    case_end,
    external_ref,
    item_result,
    material,
    material_content,
    payment,
    task_holder,
    timeline,
)
from services.intake.notices import notices_of, on_notice
from services.intake.outcome import identity_of
from services.intake.views import (
    ApplicationView,
    Changes,
    ChangeView,
    ExternalRefView,
    ItemView,
    MaterialView,
    PaymentView,
    StepView,
    SuccessorView,
    Summary,
    TaskView,
    benefit_title,
    category_title,
    department_title,
    item_title,
    material_title,
    platform_title,
    reason_view,
    state_title,
    visible,
)

LONGEST_TIMELINE = 1_000

Place = tuple[int, int, int]
"""Where a step stands in the feed: epoch of the cluster, transaction that wrote it, number."""

_OPEN = ("correction", "accepted", "in_progress", "suspended")
_PAYMENT_TITLES = {
    "unfunded": "待落实指标",
    "due": "待支付",
    "sent": "已提交",
    "bounced": "已退票",
    "settled": "已到账",
    "cancelled": "已取消",
}
_RESULT_TITLES = {"done": "已办结", "refused": "未通过", "withdrawn": "已撤回"}


def _shown_state() -> ColumnElement[str]:
    """The case state of now: what workflow ended, else what its tasks and notices say, else intake's own."""
    tasks = select(task_holder.c.task).where(task_holder.c.application == application.c.id)
    still = task_holder.c.suspended_at > func.coalesce(task_holder.c.resumed_at, literal_column("'-infinity'"))
    stands = tasks.where(task_holder.c.completed_on.is_(None), still)
    own = application.c.state
    return case(
        (case_end.c.state.is_not(None), case_end.c.state),
        (own != "accepted", own),
        (or_(stands.exists(), on_notice()), "suspended"),
        (tasks.exists(), "in_progress"),
        else_=own,
    )


def _applications(*columns: ColumnElement[Any]) -> Select[Any]:
    joined = application.outerjoin(case_end, case_end.c.application == application.c.id)
    return select(application, _shown_state().label("shown"), case_end.c.closed_on, *columns).select_from(joined)


async def find(tx: AsyncConnection, caller: Principal, ref: UUID, *, lock: bool = False) -> Any:
    """The application's row (with `shown`, its state of now), locked where it is to change. Raises NotFound."""
    query = visible(_applications().where(application.c.id == ref), caller)
    row = (await tx.execute(query.with_for_update(of=application, key_share=True) if lock else query)).first()
    if row is None:
        raise NotFound
    return row


def is_open(row: Any) -> bool:
    """Whether materials may still come for a row of `find`."""
    return row.shown in _OPEN


async def version(tx: AsyncConnection, ref: UUID) -> int:
    """The application's version: the number of its last step. Every change is a step."""
    query = select(func.coalesce(func.max(timeline.c.seq), 0)).where(timeline.c.application == ref)
    return int((await tx.execute(query)).scalar_one())


async def show(tx: AsyncConnection, packs: Packs, caller: Principal, ref: UUID) -> tuple[ApplicationView, int]:
    """One application with everything, and its version. Raises NotFound."""
    row = await find(tx, caller, ref)
    pack = packs.get(identity_of(row))
    steps = (await tx.execute(_steps(ref))).all()
    view = ApplicationView(
        **_summary(row, pack),
        defects=row.defects,
        closed_on=row.closed_on,
        withdrawal_asked_at=row.withdrawal_asked_at,
        predecessor=row.predecessor,
        successor=await _successor(tx, row),
        items=(await _items(tx, {ref: pack}))[ref],
        materials=await materials_of(tx, pack, ref),
        tasks=await _tasks(tx, pack, ref),
        notices=await notices_of(tx, ref),
        payments=(await _payments(tx, {ref: pack}))[ref],
        external_refs=await _external_refs(tx, ref),
        timeline=[StepView(at=s.at, code=s.code, title=s.title, detail=s.detail, item=s.item) for s in steps],
    )
    if row.closed_on is not None:
        view.feedback = feedback_text(view.case_no, view.state_title, pack, view.items, view.payments)
    return view, max((step.seq for step in steps), default=0)


async def decisions(tx: AsyncConnection, caller: Principal, ref: UUID) -> DecidedView:
    """What the policy said of an application when it was last examined. Raises NotFound."""
    row = await find(tx, caller, ref)
    query = select(application_item.c.decision).where(application_item.c.application == ref)
    found = (await tx.execute(query.order_by(application_item.c.position))).scalars()
    told = [DecisionView.model_validate(one) for one in found if one is not None]
    return DecidedView(application=ref, case_no=row.case_no, policy=identity_of(row), decisions=told)


async def page(
    tx: AsyncConnection,
    packs: Packs,
    caller: Principal,
    wanted: PageRequest,
    *,
    state: str | None,
    case_no: str | None,
    external: tuple[str, str, str] | None,
) -> list[Summary]:
    """Up to one more than a page of applications, newest first; `external` is system, kind and value."""
    query = visible(_applications(), caller)
    if state is not None:
        query = query.where(_shown_state() == state)
    if case_no is not None:
        query = query.where(application.c.case_no == case_no)
    if external is not None:
        ref = external_ref.c
        holds = select(ref.application).where(tuple_(ref.system, ref.kind, ref.value) == external)
        query = query.where(application.c.id.in_(holds))
    if after := read_after(wanted, UUID):
        query = query.where(application.c.id < after[0])
    rows = await tx.execute(query.order_by(application.c.id.desc()).limit(wanted.limit + 1))
    return [Summary(**_summary(row, packs.get(identity_of(row)))) for row in rows]


async def changes(tx: AsyncConnection, packs: Packs, caller: Principal, after: Place, limit: int) -> Changes:
    """The steps of applications that the caller may see, after a place in the feed.

    Numbers follow the order of writing and not of commits: a row may appear behind one that was read already. So the
    feed is ordered by the transaction that wrote it, and shows only transactions below the oldest one still running:
    nothing can appear among them any more. A cluster restored to an earlier moment gives numbers of transactions again
    that portals have read past: so its epoch, which is then a later one, comes first.
    """
    oldest_running = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)
    place = tuple_(timeline.c.epoch, timeline.c.xid, timeline.c.seq)
    ended = tuple_(timeline.c.epoch, timeline.c.xid) < tuple_(literal_column(EPOCH), oldest_running)
    columns = [timeline.c[name] for name in ("seq", "epoch", "xid", "at", "code", "title", "detail", "item")]
    query = _applications(*columns).join(timeline, timeline.c.application == application.c.id)
    query = visible(query, caller).where(place > after, ended)
    in_order = query.order_by(timeline.c.epoch, timeline.c.xid, timeline.c.seq)
    rows = (await tx.execute(in_order.limit(limit))).all()
    told = await _feedbacks(tx, packs, [row for row in rows if row.code == "ApplicationClosed"])
    items = [
        ChangeView(
            application=row.id,
            case_no=row.case_no,
            state=row.shown,
            state_title=state_title(row.shown),
            at=row.at,
            code=row.code,
            title=row.title,
            detail=row.detail,
            item=row.item,
            feedback=told.get(row.id) if row.code == "ApplicationClosed" else None,
        )
        for row in rows
    ]
    last = (rows[-1].epoch, rows[-1].xid, rows[-1].seq) if rows else after
    return Changes(items=items, next=encode_cursor(*last))


async def materials_of(tx: AsyncConnection, pack: Pack, ref: UUID) -> list[MaterialView]:
    """The materials of an application, each file with its address."""
    joined = material.outerjoin(material_content, material_content.c.id == material.c.content)
    columns = [material_content.c[name] for name in ("media_type", "size", "sha256")]
    query = select(material, *columns).select_from(joined).where(material.c.application == ref)
    return [
        MaterialView(
            id=row.id,
            code=row.code,
            title=material_title(pack, row.code),
            evidence=row.evidence,
            reference=row.reference,
            promised_by=row.promised_by,
            media_type=row.media_type,
            size=row.size,
            sha256=bytes(row.sha256).hex() if row.sha256 else None,
            href=f"/intake/v1/applications/{ref}/materials/{row.id}" if row.content else None,
        )
        for row in await tx.execute(query.order_by(material.c.recorded_at, material.c.id))
    ]


def feedback_text(
    case_no: str, state: str, pack: Pack, items: Sequence[ItemView], payments: Sequence[PaymentView]
) -> str:
    """The joint feedback (集中反馈): every item's result, with what was paid, in one text."""
    lines = [f"您的申请（办件编号 {case_no}）{state}，各事项结果如下："]
    for place, item in enumerate(items, 1):
        parts = [_RESULT_TITLES.get(item.result or "", "办理中")]
        if item.result == "done" and item.category and item.kind == "certification":
            parts.append(f"认定为{category_title(pack, item.category)}")
        if item.number:
            parts.append(f"编号 {item.number}")
        if item.valid_to:
            parts.append(f"有效期至 {item.valid_to}")
        if item.reason:
            parts.append(f"原因：{item.reason}")
        credited = [one.amount.fen for one in payments if one.item == item.id and one.state == "settled" and one.amount]
        if credited:
            parts.append(f"已到账 {format_yuan(sum(credited))}")
        lines.append(f"{place}. {item.title}：{'，'.join(parts)}。")
    return "\n".join(lines)


async def _feedbacks(tx: AsyncConnection, packs: Packs, rows: Sequence[Any]) -> dict[UUID, str]:
    if not rows:
        return {}
    by_id = {row.id: packs.get(identity_of(row)) for row in rows}
    items, payments = await _items(tx, by_id), await _payments(tx, by_id)
    return {
        row.id: feedback_text(row.case_no, state_title(row.shown), by_id[row.id], items[row.id], payments[row.id])
        for row in rows
    }


# -- parts


def _summary(row: Any, pack: Pack) -> dict[str, Any]:
    names = (
        "id", "case_no", "channel", "platform", "treasury", "received_at", "accepted_on", "decided_on", "answer_by",
        "beneficiary", "applicant", "handler",
    )  # fmt: skip
    return {
        **{name: getattr(row, name) for name in names},
        "state": row.shown,
        "state_title": state_title(row.shown),
        "platform_title": platform_title(pack, row.platform),
        "reason": reason_view(row.reason),
        "policy": identity_of(row),
    }


def _steps(ref: UUID) -> Select[Any]:
    query = select(timeline).where(timeline.c.application == ref)
    return query.order_by(timeline.c.at, timeline.c.seq).limit(LONGEST_TIMELINE)


async def _successor(tx: AsyncConnection, row: Any) -> SuccessorView | None:
    if row.successor is None:
        return None
    # Whoever may see an application may know where it went, though the other platform's record is not theirs.
    onward = (await tx.execute(_applications().where(application.c.id == row.successor))).one()
    return SuccessorView(id=onward.id, case_no=onward.case_no, platform=onward.platform, state=onward.shown)


async def _items(tx: AsyncConnection, packs: Mapping[UUID, Pack]) -> dict[UUID, list[ItemView]]:
    joined = application_item.outerjoin(item_result, item_result.c.item == application_item.c.id)
    result = item_result.c
    columns = [result.result, result.reason, result.number, result.decided_on, result.valid_to]
    query = select(application_item, *columns, result.category.label("decided_category")).select_from(joined)
    query = query.where(application_item.c.application.in_(list(packs)))
    found: dict[UUID, list[ItemView]] = {ref: [] for ref in packs}
    for row in await tx.execute(query.order_by(application_item.c.application, application_item.c.position)):
        found[row.application].append(
            ItemView(
                id=row.id,
                code=row.code,
                kind=row.kind,
                title=item_title(packs[row.application], row.code),
                category=row.decided_category or row.category,
                certification=row.certification,
                result=row.result,
                reason=row.reason,
                number=row.number,
                decided_on=row.decided_on,
                valid_to=row.valid_to,
            )
        )
    return found


async def _tasks(tx: AsyncConnection, pack: Pack, ref: UUID) -> list[TaskView]:
    query = (
        select(task_holder).where(task_holder.c.application == ref).order_by(task_holder.c.due_on, task_holder.c.task)
    )
    return [
        TaskView(
            department=row.department,
            department_title=department_title(pack, row.department) if row.department else None,
            treasury=row.treasury,
            item=row.item,
            due_on=row.due_on,
            completed_on=row.completed_on,
            result=row.result,
            suspended=row.completed_on is None
            and row.suspended_at is not None
            and (row.resumed_at is None or row.suspended_at > row.resumed_at),
        )
        for row in await tx.execute(query)
    ]


async def _payments(tx: AsyncConnection, packs: Mapping[UUID, Pack]) -> dict[UUID, list[PaymentView]]:
    query = select(payment).where(payment.c.application.in_(list(packs)))
    found: dict[UUID, list[PaymentView]] = {ref: [] for ref in packs}
    for row in await tx.execute(query.order_by(payment.c.due_on, payment.c.instalment, payment.c.order)):
        state: Any = _payment_state(row)
        found[row.application].append(
            PaymentView(
                order=row.order,
                item=row.item,
                benefit=row.benefit,
                benefit_title=benefit_title(packs[row.application], row.benefit) if row.benefit else None,
                instalment=row.instalment,
                amount=Amount(fen=row.fen) if row.fen is not None else None,
                due_on=row.due_on,
                state=state,
                state_title=_PAYMENT_TITLES[state],
                settled_on=row.settled_on,
                cancelled_on=row.cancelled_on,
            )
        )
    return found


def _payment_state(row: Any) -> str:
    """Cancelled is final; a credit stands until it is returned; else the newest of ordered, sent and bounced."""
    if row.cancelled_on is not None:
        return "cancelled"
    if row.settled_on is not None:
        return "settled"
    told = [(row.ordered_at, row.funded), (row.sent_at, "sent"), (row.bounced_at, "bounced")]
    return str(max((at, state) for at, state in told if at is not None)[1])


async def _external_refs(tx: AsyncConnection, ref: UUID) -> list[ExternalRefView]:
    query = select(external_ref).where(external_ref.c.application == ref)
    rows = await tx.execute(query.order_by(external_ref.c.system, external_ref.c.kind))
    return [ExternalRefView(system=row.system, kind=row.kind, value=row.value) for row in rows]
