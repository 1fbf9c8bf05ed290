"""People over HTTP: resolved by services, kept right by the talent office."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from libs.common.auth import Principal
from libs.common.calendar import local_date
from libs.common.errors import NotFound
from libs.common.field_errors import field_error
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.paging import MAX_LIMIT, Page, PageRequest, Paging, page_of
from libs.common.web import Caller, Tx, guarded_router, requires
from libs.common.wire import NOT_BLANK
from libs.common.words import ONE_LINE, WITHOUT_NUMBERS, Reason
from services.intake.api.desk import AtDesk
from services.intake.applications import Desk
from services.intake.filing import FiledAccount, FilingWrong
from services.intake.findings import DoubleGrant, double_grants
from services.intake.models import application
from services.intake.resolve import MOST_REFS, Resolution, ResolveField, resolve
from services.intake.sight import in_sight
from services.intake.views import visible

router = guarded_router("intake", tags=["人员"])

MAX_PURPOSE = 50


# The purpose goes into the trail, which holds no personal data.
Purpose = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PURPOSE, pattern=NOT_BLANK),
    ONE_LINE,
    WITHOUT_NUMBERS,
]


class Question(BaseModel):
    """Who stands behind references, what is asked of them, and what for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "refs": ["0197c1b5-e004-7d40-9c54-6f8a0b2c3d5e"],
                    "fields": ["name", "documents"],
                    "purpose": "认定复核",
                }
            ]
        },
    )

    refs: Annotated[list[UUID], Field(min_length=1, max_length=MOST_REFS, description="人员或收款账户的引用")]
    fields: Annotated[list[ResolveField], Field(min_length=1, max_length=7)]
    purpose: Annotated[Purpose, Field(description="用途，逐次留痕")]


class Merge(BaseModel):
    """Two records that are one person: `merged` leads to `into` from now on."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "merged": "0197c1b5-b001-7a10-8f21-3c5d7e9f1a2b",
                    "into": "0197c1b5-e004-7d40-9c54-6f8a0b2c3d5e",
                    "reason": "同一人先后以护照和永久居留证申请",
                }
            ]
        },
    )

    merged: UUID
    into: UUID
    reason: Annotated[Reason, WITHOUT_NUMBERS]


class Merged(BaseModel):
    """The reference that both lead to."""

    ref: UUID
    double_grants: list[DoubleGrant] = Field(description="合并后发现的重复认定或重复待遇（含夫妻之间的），须逐项处理")


class Account(BaseModel):
    """A payee account's reference."""

    payee_account: UUID


@router.post("/people:resolve", summary="解析引用", dependencies=[requires("people:resolve")])
async def resolve_people(question: Question, tx: Tx, caller: Caller, desk: AtDesk) -> Resolution:
    """在使用时按引用取得所选信息（一次至多 500 个）。每次调用留痕一条；答复不得另行保存。

    人才办只能解析本单位可查阅的申请所涉人员，其余列入 unknown。"""
    told = await resolve(
        tx,
        desk.vault,
        refs=question.refs,
        fields=question.fields,
        purpose=question.purpose,
        caller=caller,
        policy=desk.packs.on(local_date(datetime.now(UTC))).identity,
    )
    if caller.role == "service":  # it holds only references that events gave it
        return told
    mine = await in_sight(tx, question.refs, caller)
    items = [item for item in told.items if item.ref in mine]
    known = {item.ref for item in items}
    unknown = [ref for ref in dict.fromkeys(question.refs) if ref not in known]
    return Resolution(call=told.call, items=items, unknown=unknown)


@router.post("/people:merge", response_model=Merged, summary="合并档案", dependencies=[requires("people:manage")])
async def merge_people(merge: Merge, tx: Tx, caller: Caller, key: IdempotencyKey, desk: AtDesk) -> Response:
    """将同一人的两份档案合并，历史保留，原引用继续有效。同一事项均已办结的，合并后列出，须逐项处理。"""

    async def do() -> Reply:
        both = {merge.merged, merge.into}
        if await in_sight(tx, both, caller) != both:
            raise NotFound
        today = local_date(datetime.now(UTC))
        pack = desk.packs.on(today)
        await desk.people.merge(
            tx, pack, merged=merge.merged, into=merge.into, caller=caller, reason=merge.reason, today=today
        )
        all_of_them = PageRequest(limit=MAX_LIMIT, after=None)
        found = await double_grants(tx, pack, caller, all_of_them, today=today, person=merge.into)
        return Reply(200, Merged(ref=merge.into, double_grants=found))

    return await once(tx, caller=caller, operation="people.merge", key=key, body=merge, do=do)


@router.get("/people/double-grants", summary="重复享受清单", dependencies=[requires("people:manage")])
async def list_double_grants(tx: Tx, caller: Caller, desk: AtDesk, wanted: Paging) -> Page[DoubleGrant]:
    """档案合并后发现的同一人重复认定、重复待遇或者两项只能享受其一的待遇，以及夫妻双方各有一份的按家庭享受的待遇。

    含以往合并的；事实消除后不再列出。"""
    today = local_date(datetime.now(UTC))
    found = await double_grants(tx, desk.packs.on(today), caller, wanted, today=today)
    return page_of(found, wanted, lambda one: one.place)


@router.post(
    "/people/{ref}/payee-accounts",
    status_code=201,
    response_model=Account,
    summary="登记新收款账户",
    dependencies=[requires("intake:file")],
)
async def add_payee_account(
    *, ref: UUID, account: FiledAccount, tx: Tx, caller: Caller, key: IdempotencyKey, desk: AtDesk
) -> Response:
    """退票后为受益人登记新的收款账户（原账户保留）。只能为自己提交或本人名下申请的受益人登记。"""
    return await _add_account(tx, desk, caller, key, (ref, account))


@router.post(
    "/people/{ref}/payee-accounts:manage",
    status_code=201,
    response_model=Account,
    summary="代为登记收款账户",
    dependencies=[requires("people:manage")],
)
async def manage_payee_account(
    *, ref: UUID, account: FiledAccount, tx: Tx, caller: Caller, key: IdempotencyKey, desk: AtDesk
) -> Response:
    """人才办为本地受益人登记新的收款账户（原账户保留）。"""
    return await _add_account(tx, desk, caller, key, (ref, account))


async def _add_account(
    tx: AsyncConnection, desk: Desk, caller: Principal, key: str, asked: tuple[UUID, FiledAccount]
) -> Response:
    ref, account = asked

    async def do() -> Reply:
        # Only an accepted application shows that its filer knows the beneficiary: another's number is soon filed.
        theirs = select(application.c.id).where(application.c.beneficiary == ref, application.c.state == "accepted")
        if (await tx.execute(visible(theirs, caller).limit(1))).first() is None:
            raise NotFound
        if not await desk.people.is_named(tx, ref, account.holder):
            raise FilingWrong(errors=[field_error("/holder", "payee-holder-differs")])
        [made] = await desk.people.add_accounts(tx, [(ref, account)])
        return Reply(201, Account(payee_account=made))

    operation, target = "payee-accounts.add", str(ref)
    return await once(tx, caller=caller, operation=operation, key=key, body=account, do=do, target=target)
