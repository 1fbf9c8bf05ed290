"""Decisions over HTTP: one officer of the talent office proposes, another confirms."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.bulk import BULK_BYTES, MAX_LINES, BulkReply, bulk_reply, read_lines
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.paging import IfMatch, Page, Paging
from libs.common.web import Caller, Tx, body_limit, guarded_router, requires
from services.workflow.api.common import CodeText, PacksHeld, ReasonTold
from services.workflow.decisions import Proposal, confirm, propose, reject
from services.workflow.domain import ItemState
from services.workflow.dossiers import Choice, DecisionView, decision, list_decisions

router = guarded_router("workflow", tags=["认定与批准"])

Etag = Annotated[str, Field(max_length=50, description="待决定事项所列的 etag")]


_ITEM = "0197c1b5-c002-7b20-9e32-4d6e8f0a1b3c"
_CERTIFY: dict[str, Any] = {"verdict": "certify", "category": "master"}
_LINE: dict[str, Any] = {"item": _ITEM, "etag": '"3"', **_CERTIFY}
_CHOICE: dict[str, Any] = {"item": _ITEM, "etag": '"4"'}


class ProposalBody(BaseModel):
    """What an officer proposes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_CERTIFY]})
    verdict: Literal["certify", "approve", "refuse"]
    category: CodeText | None = Field(default=None, description="人才类别；不填则用申报的类别，兑现事项不填")
    reason: ReasonTold | None = Field(default=None, description="结论为 refuse 时必填")


class ProposalLine(ProposalBody):
    """What an officer proposes for one item of a bulk request."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LINE]})
    item: UUID
    etag: Etag


class Proposals(BaseModel):
    """Proposals for many items; a bad line harms no other."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"items": [_LINE]}]})
    items: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=MAX_LINES,
            json_schema_extra={"items": ProposalLine.model_json_schema()},
        ),
    ]


class ChoiceLine(BaseModel):
    """One proposed item that is confirmed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_CHOICE]})
    item: UUID
    etag: Etag


class Choices(BaseModel):
    """Many proposed items that are confirmed; a bad line harms no other."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"items": [_CHOICE]}]})
    items: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=MAX_LINES,
            json_schema_extra={"items": ChoiceLine.model_json_schema()},
        ),
    ]


class Rejection(BaseModel):
    """Why a proposal is sent back."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "学历与申报类别不符，请重新提出。"}]}
    )
    reason: ReasonTold


class Nothing(BaseModel):
    """An empty body."""

    model_config = ConfigDict(extra="forbid")


@router.get("/decisions", summary="待决定事项", dependencies=[requires("workflow:decide")])
async def get_decisions(
    tx: Tx,
    caller: Caller,
    packs: PacksHeld,
    page: Paging,
    state: Literal["awaiting_decision", "proposed"] | None = None,
) -> Page[DecisionView]:
    """待提出、待复核的事项，附各部门办理结果和妨碍批准的事实。"""
    return await list_decisions(tx, packs, caller, page, state=ItemState(state) if state else None)


@router.get("/items/{item}", summary="事项及其决定依据", dependencies=[requires("workflow:read")])
async def get_item(item: UUID, tx: Tx, caller: Caller, packs: PacksHeld, response: Response) -> DecisionView:
    """一个事项及其决定依据；响应头 ETag 供提出、复核时填入 If-Match。"""
    view = await decision(tx, packs, item, caller)
    response.headers["ETag"] = view.etag
    return view


@router.post(
    "/items/{item}:propose", summary="提出决定", dependencies=[requires("workflow:decide")], response_model=DecisionView
)
async def propose_item(
    *,
    item: UUID,
    body: ProposalBody,
    tx: Tx,
    caller: Caller,
    packs: PacksHeld,
    key: IdempotencyKey,
    if_match: IfMatch = None,
) -> Response:
    """提出决定：认定（certify）、批准兑现（approve）或不予认定、批准（refuse，应写明原因）。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        line = Proposal(item, if_match, body.verdict, body.category, body.reason)
        refused = await propose(tx, packs, [line], caller=caller, now=now)
        if refused:
            raise refused[item]
        return await answer(tx, packs, item, caller)

    return await once(tx, caller=caller, operation="item:propose", key=key, body=body, do=do, target=str(item))


@router.post(
    "/items/{item}:confirm", summary="复核同意", dependencies=[requires("workflow:decide")], response_model=DecisionView
)
async def confirm_item(
    *, item: UUID, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey, if_match: IfMatch = None
) -> Response:
    """复核同意，由提出人以外的另一名工作人员办理；认定、批准自此生效。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        refused = await confirm(tx, packs, [Choice(item, if_match)], caller=caller, now=now)
        if refused:
            raise refused[item]
        return await answer(tx, packs, item, caller)

    return await once(tx, caller=caller, operation="item:confirm", key=key, body=Nothing(), do=do, target=str(item))


@router.post(
    "/items/{item}:reject", summary="复核退回", dependencies=[requires("workflow:decide")], response_model=DecisionView
)
async def reject_item(
    *,
    item: UUID,
    body: Rejection,
    tx: Tx,
    caller: Caller,
    packs: PacksHeld,
    key: IdempotencyKey,
    if_match: IfMatch = None,
) -> Response:
    """复核退回，由提出人以外的另一名工作人员办理；事项回到待提出。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        await reject(tx, packs, Choice(item, if_match), reason=body.reason, caller=caller, now=now)
        return await answer(tx, packs, item, caller)

    return await once(tx, caller=caller, operation="item:reject", key=key, body=body, do=do, target=str(item))


@router.post(
    "/items:propose",
    summary="批量提出决定",
    dependencies=[requires("workflow:decide"), body_limit(BULK_BYTES)],
    response_model=BulkReply,
)
async def propose_items(body: Proposals, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey) -> Response:
    """批量提出决定，逐行答复：一行有误不影响其他行。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        lines, malformed = read_lines(ProposalLine, "item", body.items)
        proposals = [Proposal(each.item, each.etag, each.verdict, each.category, each.reason) for each in lines]
        refused = await propose(tx, packs, proposals, caller=caller, now=now)
        return Reply(200, bulk_reply("item", body.items, malformed, refused))

    return await once(tx, caller=caller, operation="items:propose", key=key, body=body, do=do)


@router.post(
    "/items:confirm",
    summary="批量复核同意",
    dependencies=[requires("workflow:decide"), body_limit(BULK_BYTES)],
    response_model=BulkReply,
)
async def confirm_items(body: Choices, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey) -> Response:
    """批量复核同意，逐行答复：一行有误不影响其他行。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        lines, malformed = read_lines(ChoiceLine, "item", body.items)
        choices = [Choice(each.item, each.etag) for each in lines]
        refused = await confirm(tx, packs, choices, caller=caller, now=now)
        return Reply(200, bulk_reply("item", body.items, malformed, refused))

    return await once(tx, caller=caller, operation="items:confirm", key=key, body=body, do=do)


async def answer(tx: Tx, packs: PacksHeld, item: UUID, caller: Caller, *, status: int = 200) -> Reply:
    """The item as it is now, with its etag."""
    view = await decision(tx, packs, item, caller)
    return Reply(status, view, headers={"ETag": view.etag})
