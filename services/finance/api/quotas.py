"""Budget quotas: what a treasury gives for a benefit in a fiscal year, and increases."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, select
from starlette.responses import Response

from libs.common.errors import ContentWrong, FieldError
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.money import MAX_FEN, Amount
from libs.common.packs import Packs
from libs.common.paging import Page, Paging, page_of, read_after
from libs.common.policy.model import BenefitForm
from libs.common.web import Caller, Tx, guarded_router, requires
from libs.common.wire import WHOLE
from libs.common.words import Reason
from services.finance import payouts, quotas
from services.finance.api.shapes import Body, Code, OwnTreasury, ThePacks, TreasuryCode, actor_of, one_or_404
from services.finance.models import quota
from services.finance.quotas import Dimensions, Line
from services.finance.visible import visible

router = guarded_router("finance", tags=["预算指标"])


class QuotaOut(BaseModel):
    """A quota line. `number` is absent where orders wait for a quota that was not given yet."""

    id: UUID
    treasury: str
    benefit: str
    fiscal_year: int
    number: str | None
    budget_unit: str | None
    project: str | None
    functional: str | None
    economic_department: str | None
    economic_government: str | None
    amount: Amount
    committed: Amount


class QuotaChanged(QuotaOut):
    """A quota after a change, and the orders that fell due by it."""

    funded: list[UUID]


class GiveQuota(Body):
    """A quota for the caller's treasury. Number, unit, project and classifications are codes as its budget has them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "benefit": "living_allowance",
                    "fiscal_year": 2026,
                    "fen": 50000000,
                    "number": "ZB2026-0001",
                    "budget_unit": "101001",
                    "project": "P2026-01",
                    "functional": "2080799",
                    "economic_department": "30399",
                    "economic_government": "50999",
                    "reason": "年初预算",
                }
            ]
        }
    )

    benefit: Code
    fiscal_year: Annotated[int, Field(ge=2021, le=2099), WHOLE]
    fen: Annotated[int, Field(ge=0, le=MAX_FEN), WHOLE]
    number: Code
    budget_unit: Code
    project: Code
    functional: Code
    economic_department: Code
    economic_government: Code
    reason: Reason = "年初预算"


class IncreaseQuota(Body):
    """By how many fen; negative lowers it (调减)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"fen": 10000000, "reason": "年中追加"}]})

    fen: Annotated[int, Field(ge=-MAX_FEN, le=MAX_FEN), WHOLE]
    reason: Reason


def _known(packs: Packs, benefit: str) -> None:
    """Refuse a benefit that no policy ever held pays in money: its line would never be used."""
    codes = {each.code for pack in packs.all() for each in pack.benefits if each.form is BenefitForm.MONEY}
    if benefit not in codes:
        detail = f"请填写政策包中货币化待遇的编码：{'、'.join(sorted(codes))}。"
        raise ContentWrong(errors=[FieldError("/benefit", "unknown-benefit", "没有此项货币化待遇", detail)])


def _quotas_for(caller: Caller) -> Select[Any]:
    return visible(select(quota), caller, treasury=quota.c.treasury)


def _out(row: Any) -> QuotaOut:
    own = {"amount", "committed"}
    return QuotaOut(
        amount=Amount(fen=row.amount_fen),
        committed=Amount(fen=row.committed_fen),
        **{name: getattr(row, name) for name in QuotaOut.model_fields if name not in own},
    )


@router.get("/quotas", dependencies=[requires("finance:read")], summary="预算指标及占用")
async def list_quotas(
    tx: Tx, caller: Caller, page: Paging, treasury: Annotated[TreasuryCode | None, Query()] = None
) -> Page[QuotaOut]:
    """预算指标及其占用。"""
    query = _quotas_for(caller).order_by(quota.c.id).limit(page.limit + 1)
    if treasury:
        query = query.where(quota.c.treasury == treasury)
    if after := read_after(page, UUID):
        query = query.where(quota.c.id > after[0])
    rows = (await tx.execute(query)).all()
    return page_of([_out(row) for row in rows], page, lambda line: (str(line.id),))


@router.post(
    "/quotas", response_model=QuotaChanged, status_code=201, dependencies=[requires("finance:pay")], summary="下达指标"
)
async def give_quota(
    *, body: GiveQuota, tx: Tx, caller: Caller, packs: ThePacks, treasury: OwnTreasury, key: IdempotencyKey
) -> Response:
    """为本级财政下达一项待遇一个年度的指标；待落实指标的支付令随即转为待支付。"""
    _known(packs, body.benefit)

    async def do() -> Reply:
        line = Line(treasury, body.benefit, body.fiscal_year)
        dimensions = Dimensions(**body.model_dump(include=set(Dimensions.__slots__)))
        quota_id = await quotas.give(tx, line, dimensions, fen=body.fen, reason=body.reason, actor=actor_of(caller))
        return Reply(201, await _changed(tx, caller, quota_id))

    return await once(tx, caller=caller, operation="quota.give", key=key, body=body, do=do, target=treasury)


@router.post(
    "/quotas/{quota_id}:increase",
    response_model=QuotaChanged,
    dependencies=[requires("finance:pay")],
    summary="追加、调减指标",
)
async def increase_quota(quota_id: UUID, body: IncreaseQuota, tx: Tx, caller: Caller, key: IdempotencyKey) -> Response:
    """追加指标，负数为调减；待落实指标的支付令按应付日先后转为待支付。"""

    async def do() -> Reply:
        await one_or_404(tx, _quotas_for(caller).where(quota.c.id == quota_id))
        await quotas.increase(tx, quota_id, fen=body.fen, reason=body.reason, actor=actor_of(caller))
        return Reply(200, await _changed(tx, caller, quota_id))

    return await once(tx, caller=caller, operation="quota.increase", key=key, body=body, do=do, target=str(quota_id))


async def _changed(tx: Tx, caller: Caller, quota_id: UUID) -> QuotaChanged:
    funded = await payouts.fund(tx, quota_id, actor=actor_of(caller))
    row = await one_or_404(tx, _quotas_for(caller).where(quota.c.id == quota_id))
    return QuotaChanged(**_out(row).model_dump(), funded=funded)
