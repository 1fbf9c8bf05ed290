"""Public notice and objection over HTTP: what the policy puts between the proposal of a certification and its
confirmation."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from libs.common.dated import Day
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.paging import IfMatch
from libs.common.web import Caller, Tx, guarded_router, requires
from libs.common.words import WITHOUT_NUMBERS, Reason
from services.workflow.api.common import PacksHeld, ReasonTold
from services.workflow.api.decisions import Nothing, answer
from services.workflow.dossiers import Choice, DecisionView
from services.workflow.publication import conclude, publish, receive

router = guarded_router("workflow", tags=["公示与异议"])

Matter = Annotated[Reason, WITHOUT_NUMBERS, Field(description="异议内容，不得含号码；仅供办理人员查阅")]


class ObjectionBody(BaseModel):
    """An objection that came in."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"received_on": "2026-06-12", "matter": "反映其学历与申报材料不一致。"}]},
    )
    received_on: Day = Field(description="收到异议之日，应在公示期内")
    matter: Matter


class FindingBody(BaseModel):
    """What was found of an objection."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"upheld": False, "finding": "经向发证学校核实，学历属实。"}]},
    )
    upheld: StrictBool = Field(description="异议是否成立")
    finding: Annotated[ReasonTold, Field(description="核查结论（中文），不得含号码")]


@router.post(
    "/items/{item}:publish", summary="公示", dependencies=[requires("workflow:decide")], response_model=DecisionView
)
async def publish_item(
    *, item: UUID, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey, if_match: IfMatch = None
) -> Response:
    """将已提出的认定公示，公示期按政策规定的工作日计算，当日不计入；政策规定须公示的，提出时即公示，不需另行办理。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        await publish(tx, packs, Choice(item, if_match), caller=caller, now=now)
        return await answer(tx, packs, item, caller)

    return await once(tx, caller=caller, operation="item:publish", key=key, body=Nothing(), do=do, target=str(item))


@router.post(
    "/items/{item}/objections",
    summary="登记异议",
    dependencies=[requires("workflow:decide")],
    response_model=DecisionView,
    status_code=201,
)
async def add_objection(
    *, item: UUID, body: ObjectionBody, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey
) -> Response:
    """登记公示期内收到的异议；核查作出结论之前，不能复核该决定。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        await receive(tx, packs, item, received_on=body.received_on, matter=body.matter, caller=caller, now=now)
        return await answer(tx, packs, item, caller, status=201)

    return await once(tx, caller=caller, operation="item:object", key=key, body=body, do=do, target=str(item))


@router.post(
    "/objections/{objection}:conclude",
    summary="作出异议核查结论",
    dependencies=[requires("workflow:decide")],
    response_model=DecisionView,
)
async def conclude_objection(
    *, objection: UUID, body: FindingBody, tx: Tx, caller: Caller, packs: PacksHeld, key: IdempotencyKey
) -> Response:
    """作出异议核查结论，由提出决定以外的工作人员办理，结论不再更改；异议成立的，该事项只能不予认定。"""
    now = datetime.now(UTC)

    async def do() -> Reply:
        item = await conclude(tx, packs, objection, upheld=body.upheld, finding=body.finding, caller=caller, now=now)
        return await answer(tx, packs, item, caller)

    return await once(
        tx, caller=caller, operation="objection:conclude", key=key, body=body, do=do, target=str(objection)
    )
