"""Directories of employers over HTTP: kept by the department that the policy names, read by everybody who may read."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from libs.common.bulk import BULK_BYTES, MAX_LINES, BulkReply, bulk_reply, read_lines
from libs.common.calendar import local_date
from libs.common.dated import Day
from libs.common.errors import ContentWrong
from libs.common.idempotency import IdempotencyKey, Reply, once
from libs.common.identity import normalise_number
from libs.common.paging import Page, Paging, page_of
from libs.common.web import Caller, Tx, body_limit, guarded_router, requires
from libs.common.wire import NO_NUL
from services.intake import directories
from services.intake.api.desk import AtDesk
from services.intake.directories import DirectoryEntry, Statement
from services.intake.filing import CreditCode, Text, read_credit_code, wrong_field

router = guarded_router("intake", tags=["企业目录"])

DirectoryCode = Annotated[str, Path(max_length=64, pattern=NO_NUL, description="目录代码，见 GET /intake/v1/policy")]


class ListedEmployer(BaseModel):
    """A line of a list of employers: one of them."""

    model_config = ConfigDict(extra="forbid")

    credit_code: CreditCode


class EnteredEmployer(ListedEmployer):
    """The same with its name, as the document has it."""

    name: Text


def _employers(line: type[BaseModel]) -> Any:
    return Field(min_length=1, max_length=MAX_LINES, json_schema_extra={"items": line.model_json_schema()})


class Entering(BaseModel):
    """Employers that a document enters, all from the same day; a bad line harms no other."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "document": "安人才办〔2026〕5 号",
                    "from": "2026-03-01",
                    "employers": [{"credit_code": "91410522MA0000001E", "name": "安阳示例制造有限公司"}],
                }
            ]
        },
    )

    document: Annotated[Text, Field(description="列入文件的文号")]
    valid_from: Annotated[Day, Field(alias="from", description="自此日起列入")]
    valid_to: Annotated[Day | None, Field(alias="to", description="最后一日；长期的不填")] = None
    employers: Annotated[list[Any], _employers(EnteredEmployer)]


class Striking(BaseModel):
    """Employers that a document strikes, all from the same day; a bad line harms no other."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "document": "安人才办〔2027〕2 号",
                    "from": "2027-01-01",
                    "employers": [{"credit_code": "91410522MA0000001E"}],
                }
            ]
        },
    )

    document: Annotated[Text, Field(description="移出文件的文号")]
    valid_from: Annotated[Day, Field(alias="from", description="自此日起不在目录中")]
    employers: Annotated[list[Any], _employers(ListedEmployer)]


@router.post(
    "/directories/{directory}:enter",
    response_model=BulkReply,
    summary="列入企业目录",
    dependencies=[requires("intake:directory"), body_limit(BULK_BYTES)],
)
async def enter_employers(
    *, directory: DirectoryCode, body: Entering, tx: Tx, caller: Caller, key: IdempotencyKey, desk: AtDesk
) -> Response:
    """按文件将企业列入目录，逐行答复：一行有误不影响其他行。由目录的登记部门（市级）办理；企业不必先有登记。

    同一企业可再次列入，以后登记的为准；此前的登记和已作的政策对照不变。"""
    pack, kept = directories.kept(desk.packs, directory, caller, local_date(datetime.now(UTC)))
    if body.valid_to is not None and body.valid_to < body.valid_from:
        raise ContentWrong(errors=[wrong_field("/to", "ends-before-it-begins")])
    stated = Statement(body.valid_from, body.valid_to, body.document, caller.subject)

    async def do() -> Reply:
        lines, malformed = read_lines(EnteredEmployer, "credit_code", body.employers)
        await directories.enter(tx, pack, kept, stated, [(line.credit_code, line.name) for line in lines])
        return Reply(200, bulk_reply("credit_code", body.employers, malformed, {}, read=read_credit_code))

    return await once(tx, caller=caller, operation="directories.enter", key=key, body=body, do=do, target=kept.code)


@router.post(
    "/directories/{directory}:strike",
    response_model=BulkReply,
    summary="移出企业目录",
    dependencies=[requires("intake:directory"), body_limit(BULK_BYTES)],
)
async def strike_employers(
    *, directory: DirectoryCode, body: Striking, tx: Tx, caller: Caller, key: IdempotencyKey, desk: AtDesk
) -> Response:
    """按文件将企业自某日起移出目录，逐行答复：一行有误不影响其他行。由目录的登记部门（市级）办理。

    此日以前受理的申请不受影响，列入的登记保留可查。"""
    pack, kept = directories.kept(desk.packs, directory, caller, local_date(datetime.now(UTC)))
    stated = Statement(body.valid_from, None, body.document, caller.subject)

    async def do() -> Reply:
        lines, malformed = read_lines(ListedEmployer, "credit_code", body.employers)
        refused = await directories.strike(tx, pack, kept, stated, [line.credit_code for line in lines])
        return Reply(200, bulk_reply("credit_code", body.employers, malformed, refused, read=read_credit_code))

    return await once(tx, caller=caller, operation="directories.strike", key=key, body=body, do=do, target=kept.code)


@router.get("/directories/{directory}/employers", summary="企业目录", dependencies=[requires("intake:read")])
async def list_employers(
    *,
    directory: DirectoryCode,
    tx: Tx,
    caller: Caller,
    desk: AtDesk,
    wanted: Paging,
    on: Annotated[Day | None, Query(description="某日在目录中的企业；不填为今日")] = None,
) -> Page[DirectoryEntry]:
    """某日在目录中的企业，按统一社会信用代码排列，各附列入的文号和起止日期。"""
    today = local_date(datetime.now(UTC))
    found = await directories.listed(tx, desk.packs, directory, on or today, wanted, caller=caller, today=today)
    return page_of(found, wanted, lambda one: (one.credit_code,))


@router.get(
    "/directories/{directory}/employers/{credit_code}",
    summary="一家企业的列入和移出",
    dependencies=[requires("intake:read")],
)
async def show_employer(
    *,
    directory: DirectoryCode,
    credit_code: Annotated[str, Path(max_length=64, pattern=NO_NUL, description="统一社会信用代码")],
    tx: Tx,
    caller: Caller,
    desk: AtDesk,
    wanted: Paging,
) -> Page[DirectoryEntry]:
    """一家企业在目录中的全部登记，后登记的在前：列入或移出、起止日期、文号和登记时间；登记人只对登记部门和督查、审计人员显示。

    从未登记的为空。"""
    number, today = normalise_number(credit_code), local_date(datetime.now(UTC))
    found = await directories.history(tx, desk.packs, directory, number, wanted, caller=caller, today=today)
    return page_of(found, wanted, lambda one: (one.id,))
