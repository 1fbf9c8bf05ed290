"""Public notices over HTTP: who is about to be certified, de-identified, for everybody to read."""

from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import Query, Request, Response
from starlette.responses import HTMLResponse

from libs.common.calendar import local_date
from libs.common.paging import Page, Paging, page_of
from libs.common.web import Tx, guarded_router, public
from libs.common.wire import NO_NUL
from services.intake import notices
from services.intake.api.desk import AtDesk
from services.intake.notice_page import as_page
from services.intake.notices import PublishedView

KEEP = {"Cache-Control": "public, max-age=60"}  # a proxy answers most of those who read it

router = guarded_router("intake", tags=["公示"])

OfTreasury = Annotated[str | None, Query(max_length=64, pattern=NO_NUL, description="所属财政的代码；不填为全部")]


@router.get("/public-notices", summary="公示名单", dependencies=[public()])
async def list_notices(
    *, tx: Tx, desk: AtDesk, wanted: Paging, response: Response, treasury: OfTreasury = None
) -> Page[PublishedView]:
    """今日公示中的拟认定名单，先公示的在前；姓名已去标识化。"""
    response.headers.update(KEEP)
    return await _listed(tx, desk, wanted, treasury, local_date(datetime.now(UTC)))


@router.get("/public-notices/page", summary="公示页", dependencies=[public()], response_class=HTMLResponse)
async def notices_page(
    *, tx: Tx, desk: AtDesk, wanted: Paging, request: Request, treasury: OfTreasury = None
) -> HTMLResponse:
    """公示名单的网页，可打印张贴或在门户中显示。"""
    today = local_date(datetime.now(UTC))
    shown = await _listed(tx, desk, wanted, treasury, today)
    return HTMLResponse(as_page(shown, today, request.query_params), headers=KEEP)


async def _listed(tx: Tx, desk: AtDesk, wanted: Paging, treasury: str | None, today: date) -> Page[PublishedView]:
    found = await notices.published(tx, desk.packs, desk.vault, wanted, treasury=treasury, today=today)
    return page_of(found, wanted, lambda one: (str(one.notice),))
