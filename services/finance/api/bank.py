"""Batches for the bank, its result files, and the lines of these that a person must look at."""

from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, select
from starlette.responses import Response

from libs.common.dated import Day
from libs.common.errors import DomainError, NotFound
from libs.common.idempotency import IdempotencyKey, Reply, known_keys, once
from libs.common.money import Amount
from libs.common.packs import Packs
from libs.common.paging import Page, Paging, page_of, read_after
from libs.common.web import Caller, Tx, body_limit, guarded_router, requires
from libs.common.wire import WHOLE
from libs.common.words import Reason
from services.finance import batches, results
from services.finance.api.shapes import (
    Body,
    OwnTreasury,
    Running,
    ThePacks,
    ThePayees,
    TheVault,
    TreasuryCode,
    actor_of,
    one_or_404,
)
from services.finance.batches import MOST_ORDERS, Chosen, LeftOut
from services.finance.models import bank_exception, payout_batch
from services.finance.payouts import policy_of
from services.finance.visible import visible

router = guarded_router("finance", tags=["银行"])

MAX_RESULT_BYTES = 8 * 1024 * 1024
_ANY_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_FILE_BODY = {"requestBody": {"required": True, "description": "docs/bank-file.md", "content": _ANY_BYTES}}


class ExceptionResolved(DomainError):
    """409: somebody resolved it before."""

    status, code, title = 409, "bank-exception-resolved", "该异常已处理"
    detail = "该回盘异常已由他人处理完毕。请刷新后查看处理结果。"


class MakeBatch(Body):
    """Which orders: those listed, or all that are due, up to a day. At most 1000, the earliest due first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"treasury": "410522", "due_by": "2026-06-12"}]})

    treasury: TreasuryCode
    orders: list[UUID] | None = Field(default=None, min_length=1, max_length=MOST_ORDERS)
    due_by: Day | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_ORDERS), WHOLE] = MOST_ORDERS


class BatchOut(BaseModel):
    """A batch. `sha256` is that of the file as the bank gets it; `file` is its address."""

    id: UUID
    number: str
    treasury: str
    lines: int
    total: Amount
    made_on: date
    sha256: str
    file: str


class BatchMade(BatchOut):
    """A batch just made, and the orders asked for that stayed behind."""

    left_out: list[LeftOut]


class ResultOut(BaseModel):
    """What became of a result file: lines by verdict, how many are exceptions, how many orders became unknown."""

    id: UUID
    number: str
    lines: int
    verdicts: dict[str, int]
    exceptions: int
    unknown: int


class ExceptionOut(BaseModel):
    """A line of a result file that could not be believed. `order` is absent where nobody knows the reference."""

    id: UUID
    treasury: str
    kind: str
    file: UUID
    line: int
    reference: str
    order: UUID | None
    expected: Amount | None
    told: Amount | None
    recorded_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    resolution: str | None


class Resolve(Body):
    """What was found out and done."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"resolution": "经与银行核实，该行属于其他系统的付款。"}]}
    )

    resolution: Reason


def _address(batch: UUID) -> str:
    return f"/finance/v1/batches/{batch}/file"


def _title_of(packs: Packs) -> Any:
    def title_of(order: Any) -> str:
        pack = packs.get(policy_of(order))
        return next((benefit.title for benefit in pack.benefits if benefit.code == order.benefit), order.benefit)

    return title_of


@router.post(
    "/batches",
    response_model=BatchMade,
    status_code=201,
    dependencies=[requires("finance:pay")],
    summary="生成银行批量支付文件",
)
async def make_batch(
    *,
    body: MakeBatch,
    service: Running,
    vault: TheVault,
    payees: ThePayees,
    packs: ThePacks,
    caller: Caller,
    treasury: OwnTreasury,
    key: IdempotencyKey,
) -> Response:
    """将本级财政待支付的支付令汇成一份银行文件提交；不能支付的留下并说明原因。"""
    # Two transactions, and intake asked between them: no lock and no connection waits for another service.
    operation, now = "batch.make", datetime.now(UTC)
    if body.treasury != treasury:
        raise NotFound
    async with service.database.transaction() as tx:
        replayed = bool(await known_keys(tx, caller.client, operation, [key]))
        chosen = (
            []
            if replayed
            else await batches.choose(tx, treasury=treasury, orders=body.orders, due_by=body.due_by, limit=body.limit)
        )
    found = await payees.resolve(ref for one in chosen for ref in (one.payee_account, one.beneficiary))

    async with service.database.transaction() as tx:

        async def do() -> Reply:
            made = await batches.send(
                tx,
                treasury=treasury,
                chosen=chosen,
                payees=found,
                title_of=_title_of(packs),
                vault=vault,
                actor=actor_of(caller),
                now=now,
            )
            left = [*made.left_out, *_never_chosen(body.orders, chosen)]
            return Reply(201, BatchMade(**_made(made).model_dump(), left_out=left))

        return await once(tx, caller=caller, operation=operation, key=key, body=body, do=do, target=treasury)


def _never_chosen(asked: list[UUID] | None, chosen: list[Chosen]) -> list[LeftOut]:
    known = {one.order for one in chosen}
    return [LeftOut(order, "不是本级财政待支付的支付令") for order in asked or () if order not in known]


def _made(row: Any) -> BatchOut:
    return BatchOut(
        id=row.id,
        number=row.number,
        treasury=row.treasury,
        lines=row.lines,
        total=Amount(fen=row.total_fen),
        made_on=row.made_on,
        sha256=row.sha256,
        file=_address(row.id),
    )


def _batches_for(caller: Caller) -> Select[Any]:
    return visible(select(payout_batch), caller, treasury=payout_batch.c.treasury)


@router.get("/batches", dependencies=[requires("finance:read")], summary="批次列表")
async def list_batches(tx: Tx, caller: Caller, page: Paging) -> Page[BatchOut]:
    """批次，按生成先后。"""
    query = _batches_for(caller).order_by(payout_batch.c.id).limit(page.limit + 1)
    if after := read_after(page, UUID):
        query = query.where(payout_batch.c.id > after[0])
    rows = (await tx.execute(query)).all()
    return page_of([_made(row) for row in rows], page, lambda batch: (str(batch.id),))


@router.get(
    "/batches/{batch_id}/file",
    response_class=Response,
    responses={200: {"description": "银行文件（GB18030）", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=[requires("finance:pay")],
    summary="取出银行文件（逐次留痕）",
)
async def get_batch_file(batch_id: UUID, tx: Tx, caller: Caller, vault: TheVault) -> Response:
    """取出提交银行的文件；每次取出均留痕。"""
    await one_or_404(tx, _batches_for(caller).where(payout_batch.c.id == batch_id))
    number, raw = await batches.file_of(tx, batch_id, vault=vault, client=caller.client, actor=actor_of(caller))
    headers = {"Content-Disposition": f'attachment; filename="{number}.txt"', "Cache-Control": "no-store"}
    return Response(raw, media_type="text/plain; charset=gb18030", headers=headers)


@router.post(
    "/bank-results",
    dependencies=[requires("finance:pay"), body_limit(MAX_RESULT_BYTES)],
    summary="导入银行回盘文件",
    openapi_extra=_FILE_BODY,
    response_model=ResultOut,
)
async def import_results(
    *, request: Request, tx: Tx, caller: Caller, vault: TheVault, treasury: OwnTreasury, key: IdempotencyKey
) -> Response:
    """导入回盘文件：逐行入账、退票或列入异常，互不影响；同一文件重复导入不改变任何结果。"""
    raw = await request.body()

    async def do() -> Reply:
        imported = await results.import_file(
            tx, raw, treasury=treasury, vault=vault, actor=actor_of(caller), now=datetime.now(UTC)
        )
        told = ResultOut(
            id=imported.id,
            number=imported.number,
            lines=sum(imported.verdicts.values()),
            verdicts=dict(imported.verdicts),
            exceptions=results.exceptions_in(imported.verdicts),
            unknown=imported.unknown,
        )
        return Reply(200, told)

    return await once(tx, caller=caller, operation="bank-result.import", key=key, body=raw, do=do, target=treasury)


def _exceptions_for(caller: Caller) -> Select[Any]:
    return visible(select(bank_exception), caller, treasury=bank_exception.c.treasury)


def _exception_out(row: Any) -> ExceptionOut:
    return ExceptionOut(
        file=row.file_id,
        order=row.order_id,
        expected=None if row.expected_fen is None else Amount(fen=row.expected_fen),
        told=None if row.fen is None else Amount(fen=row.fen),
        **{
            name: getattr(row, name)
            for name in ExceptionOut.model_fields
            if name not in {"file", "order", "expected", "told"}
        },
    )


@router.get("/bank-exceptions", dependencies=[requires("finance:read")], summary="回盘异常")
async def list_exceptions(
    tx: Tx, caller: Caller, page: Paging, resolved: Annotated[bool | None, Query()] = None
) -> Page[ExceptionOut]:
    """回盘中不能采信的行，按到达先后；可只列未处理或已处理的。"""
    query = _exceptions_for(caller).order_by(bank_exception.c.id).limit(page.limit + 1)
    if resolved is not None:
        query = query.where(bank_exception.c.resolved_at.is_not(None) == resolved)
    if after := read_after(page, UUID):
        query = query.where(bank_exception.c.id > after[0])
    rows = (await tx.execute(query)).all()
    return page_of([_exception_out(row) for row in rows], page, lambda one: (str(one.id),))


@router.post(
    "/bank-exceptions/{exception_id}:resolve",
    response_model=ExceptionOut,
    dependencies=[requires("finance:pay")],
    summary="处理回盘异常",
)
async def resolve_exception(exception_id: UUID, body: Resolve, tx: Tx, caller: Caller, key: IdempotencyKey) -> Response:
    """记录查明的情况。不动资金：更正的回盘文件或重新支付才动。"""

    async def do() -> Reply:
        query = _exceptions_for(caller).where(bank_exception.c.id == exception_id)
        await one_or_404(tx, query)
        now = datetime.now(UTC)
        if not await results.resolve_exception(
            tx, exception_id, resolution=body.resolution, actor=actor_of(caller), now=now
        ):
            raise ExceptionResolved
        return Reply(200, _exception_out(await one_or_404(tx, query)))

    return await once(
        tx, caller=caller, operation="bank-exception.resolve", key=key, body=body, do=do, target=str(exception_id)
    )
