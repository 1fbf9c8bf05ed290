"""Reviews before later instalments: those that wait for one, and the review itself."""

from datetime import UTC, date, datetime
from itertools import compress
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import FromClause, Select, exists, select, true, tuple_
from starlette.responses import Response

from libs.common.calendar import local_date
from libs.common.facts import ClauseView, StatedFacts, clause_view
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.money import Amount
from libs.common.packs import Packs
from libs.common.paging import Page, Paging, page_of, read_after
from libs.common.policy import Verdict
from libs.common.web import Caller, Tx, guarded_router, requires
from services.finance import affiliations, reviews
from services.finance.api.shapes import Body, ThePacks, actor_of, one_or_404
from services.finance.entitlements import plan, reviewers
from services.finance.models import entitlement, instalment, instalment_review, payout_order
from services.finance.payouts import policy_of
from services.finance.visible import treasury_of, visible

router = guarded_router("finance", tags=["发放前复核"])

_ORDER = (instalment.c.review_from, instalment.c.entitlement_id, instalment.c.number)  # that of the index


class Review(Body):
    """What is known of the person and the employer today; nobody is named. What is left out is not known."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"facts": {"person.working_here": True, "person.insured_here": True}}]}
    )

    facts: StatedFacts = Field(description="今日已核实的事实，名称和取值见 GET /intake/v1/policy；不清楚的不填")


class ReviewOut(BaseModel):
    """A review as it was judged and kept."""

    id: UUID
    verdict: Verdict
    verdict_title: str
    facts: dict[str, bool | int | str]
    clauses: list[ClauseView] = Field(description="逐条复核的条件：依据、所见、结论和说明")
    by: str
    at: datetime


class PendingOut(BaseModel):
    """A later instalment that may be reviewed and has no review that passes."""

    entitlement: UUID
    instalment: int
    application: UUID
    item: UUID
    benefit: str
    category: str
    beneficiary: UUID
    treasury: str = Field(description="由哪一级财政的人才办复核：应付日的隶属财政，尚不能确定的为受理时的隶属财政")
    amount: Amount = Field(description="含用人单位承担部分")
    due_on: date = Field(description="应付日")
    order_on: date = Field(description="生成支付令之日；复核晚于此日的，复核符合即生成")
    review_from: date = Field(description="自此日起可以复核")
    withheld: bool = Field(description="生成支付令之日已到，暂缓发放")
    conditions: list[ClauseView] = Field(description="须复核的条件，以及各须查明的事实")
    review: ReviewOut | None = Field(description="最近一次复核")


def review_columns(table: FromClause) -> list[Any]:
    """What `review_out` reads, of the table of reviews or of a part of it."""
    return [
        table.c.id.label("review"),
        table.c.verdict,
        table.c.facts,
        table.c.clauses,
        table.c.actor,
        table.c.recorded_at.label("reviewed_at"),
    ]


def review_out(row: Any) -> ReviewOut:
    """A review as the API shows it."""
    verdict = Verdict(row.verdict)
    return ReviewOut(
        id=row.review,
        verdict=verdict,
        verdict_title=verdict.words,
        facts=row.facts,
        clauses=row.clauses,
        by=row.actor,
        at=row.reviewed_at,
    )


def _instalments_for(caller: Caller, *more: Any) -> Select[Any]:
    """The instalments that the caller may see, each with its entitlement; a treasury also those of employers that were
    told to belong to it, of which `concerned` says the rest."""
    query = select(
        entitlement, instalment.c.number.label("instalment"), instalment.c.amount_fen, instalment.c.review_from, *more
    ).join(instalment, instalment.c.entitlement_id == entitlement.c.id)
    return visible(
        query,
        caller,
        treasury=entitlement.c.treasury,
        beneficiary=entitlement.c.beneficiary,
        party=affiliations.names,
    )


def _pending(caller: Caller, today: date) -> Select[Any]:
    its_own = instalment_review.c.entitlement_id == instalment.c.entitlement_id
    last = (
        select(instalment_review)
        .where(its_own, instalment_review.c.number == instalment.c.number)
        .order_by(instalment_review.c.serial.desc())
        .limit(1)
        .lateral("last")
    )
    ordered = exists().where(
        payout_order.c.entitlement_id == instalment.c.entitlement_id, payout_order.c.instalment == instalment.c.number
    )
    return (
        _instalments_for(caller, *review_columns(last))
        .outerjoin(last, true())
        .where(instalment.c.review_from <= today, last.c.verdict.is_distinct_from(Verdict.PASSED.value), ~ordered)
        .order_by(*_ORDER)
    )


def _pending_out(packs: Packs, row: Any, reviewer: str, today: date) -> PendingOut:
    pack = packs.get(policy_of(row))
    part = plan(pack, row)[row.instalment - 1]
    own = {"entitlement", "treasury", "amount", "due_on", "order_on", "withheld", "conditions", "review"}
    return PendingOut(
        entitlement=row.id,
        treasury=reviewer,
        amount=Amount(fen=row.amount_fen),
        due_on=part.due_on,
        order_on=part.order_on,
        withheld=part.order_on <= today,
        conditions=[clause_view(pack, clause) for clause in reviews.judged(pack, row, {}).clauses],
        review=review_out(row) if row.review else None,
        **{name: getattr(row, name) for name in PendingOut.model_fields if name not in own},
    )


@router.get("/pending-reviews", dependencies=[requires("finance:read")], summary="待复核的各期")
async def list_pending(tx: Tx, caller: Caller, packs: ThePacks, page: Paging) -> Page[PendingOut]:
    """已可复核而没有复核符合的各期，可复核之日早的在前；复核未符合的一直在列，直至复核符合。

    用人单位已迁移的，受理时的财政也可看到，由 treasury 所列财政的人才办复核。
    一页可以不满 limit 条，是否还有以 next 为准。"""
    today = local_date(datetime.now(UTC))
    query = _pending(caller, today).limit(page.limit + 1)
    if after := read_after(page, date.fromisoformat, UUID, int):
        query = query.where(tuple_(*_ORDER) > tuple_(*after))
    rows = (await tx.execute(query)).all()
    by = await reviewers(tx, packs, rows)
    shown = page_of(
        [_pending_out(packs, row, reviewer, today) for row, reviewer in zip(rows, by, strict=True)],
        page,
        lambda one: (one.review_from.isoformat(), str(one.entitlement), one.instalment),
    )
    own = treasury_of(caller)
    seen = [reviews.concerned(own, row, reviewer) for row, reviewer in zip(rows, by, strict=True)]
    shown.items = list(compress(shown.items, seen))
    return shown


@router.post(
    "/entitlements/{entitlement_id}/instalments/{instalment}:review",
    response_model=ReviewOut,
    status_code=201,
    dependencies=[requires("finance:review")],
    summary="发放前复核",
)
async def review_instalment(
    *,
    entitlement_id: UUID,
    number: Annotated[int, Path(alias="instalment", ge=1, le=240, description="期次")],
    body: Review,
    tx: Tx,
    caller: Caller,
    packs: ThePacks,
    key: IdempotencyKey,
) -> Response:
    """按政策复核一期的发放条件，留存结论和所据事实；符合的按期生成支付令（已到期的随即生成），否则暂缓，可再次复核。

    由应付日的隶属财政的人才办复核；用人单位已迁移的，受理时的财政可以查看，不办理复核。"""

    async def do() -> Reply:
        part = await one_or_404(
            tx, _instalments_for(caller).where(entitlement.c.id == entitlement_id, instalment.c.number == number)
        )
        today = local_date(datetime.now(UTC))
        made = await reviews.review(
            tx, packs, part, by=treasury_of(caller), facts=body.facts, actor=actor_of(caller), today=today
        )
        kept = select(*review_columns(instalment_review)).where(instalment_review.c.id == made)
        return Reply(201, review_out((await tx.execute(kept)).one()))

    target = f"{entitlement_id}/{number}"
    return await once(tx, caller=caller, operation="instalment.review", key=key, body=body, do=do, target=target)
