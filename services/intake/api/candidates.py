"""Candidates (免申即享): a file of people in, those who are entitled and to what out. Nobody is named, nothing kept."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, NamedTuple

from fastapi import Query, Request
from starlette.responses import Response

from libs.common.calendar import local_date
from libs.common.dated import Day
from libs.common.errors import DomainError, NotFound, TooLarge
from libs.common.policy import Facts, Pack, Screening
from libs.common.problems import problem_response
from libs.common.web import body_limit, guarded_router, requires
from services.intake.api.desk import AtDesk
from services.intake.api.lines import (
    MAX_FILE_BYTES,
    answered,
    check_media_type,
    documented,
    lines_of,
    loaded,
    validated,
    written,
)
from services.intake.directories import Asked, looked_up
from services.intake.eligibility import Candidate, check_facts, entitlement_view

MAX_LINES = 10_000
TURN = 50  # people whose employers are looked up together, and who are screened before other requests have their turn

_DOCUMENTED = documented(
    "每行一个 JSON 对象：ref（调用方自编的编号，勿用证件号码）、facts 和 employer（同“资格自测”）；"
    f"至多 {MAX_LINES} 行。",
    {"ref": "ry-000001", "facts": {"person.degree": "master", "employer.demand_declared": True}},
)
_ANSWER = (
    "每行一个 JSON 对象，次序同请求：可享受的为 line、ref 和 entitled（每个事项取金额最高的类别），"
    "读不懂的为 line 和 problem；不能确定可享受的不列。末行为合计：lines、entitled、refused。"
)

router = guarded_router("intake", tags=["政策"])


class TooManyCandidates(DomainError):
    """413: the file has more lines than one call takes. Nothing was kept: send it in parts."""

    status, code, title = 413, "too-many-candidates", "文件行数过多"
    detail = "一次至多 {lines} 行，请分次提交。"


@router.post(
    "/eligibility:candidates",
    summary="比对免申即享的候选人",
    dependencies=[requires("intake:screen"), body_limit(MAX_FILE_BYTES)],
    openapi_extra=_DOCUMENTED,
    response_class=Response,
    responses=answered(_ANSWER),
)
async def find_candidates(
    request: Request,
    desk: AtDesk,
    on: Annotated[Day | None, Query(description="按某日受理计；不填为今日")] = None,
) -> Response:
    """逐行对照政策，列出可享受认定和待遇的人员及其待遇；不提交、不留存。缺少的情况不会使人落选为“不符合”，只是不能列入。

    已经享受什么在此不得而知；只能享受其一的待遇，符合的均列出，由本人选择。"""
    check_media_type(request)
    day = on or local_date(datetime.now(UTC))
    pack = desk.packs.find_on(day)
    if pack is None:
        raise NotFound
    return written(await _screened(request, pack, day))


class _Line(NamedTuple):
    """A line with its number: a candidate, or why it is none."""

    number: int
    read: Candidate | DomainError


async def _screened(request: Request, pack: Pack, day: date) -> list[dict[str, Any]]:
    screening, told, lines = Screening(pack, day), list[dict[str, Any]](), 0
    async for turn in _turns(request, pack):
        lines += len(turn)
        asked = [Asked(pack, it.read.employer if isinstance(it.read, Candidate) else None, day) for it in turn]
        for line, listed in zip(turn, await looked_up(request.app.state.service.database, asked), strict=True):
            told += _told(screening, line, listed)
        await asyncio.sleep(0)
    refused = sum("problem" in each for each in told)
    return [*told, {"lines": lines, "entitled": len(told) - refused, "refused": refused}]


async def _turns(request: Request, pack: Pack) -> AsyncIterator[Sequence[_Line]]:
    """The lines, so many at a time. Raises TooManyCandidates."""
    turn, lines = list[_Line](), 0
    async for number, raw in lines_of(request):
        lines += 1
        if lines > MAX_LINES:
            raise TooManyCandidates(lines=MAX_LINES)
        turn.append(_Line(number, _read(pack, raw)))
        if len(turn) == TURN:
            yield turn
            turn = []
    if turn:
        yield turn


def _read(pack: Pack, raw: bytes | None) -> Candidate | DomainError:
    try:
        if raw is None:
            raise TooLarge
        candidate = validated(Candidate, loaded(raw))
        check_facts(pack, candidate.facts)
    except DomainError as refused:
        return refused
    return candidate


def _told(screening: Screening, line: _Line, listed: Facts) -> list[dict[str, Any]]:
    """What is told of a line: what the candidate is entitled to, or why it could not be read; of others nothing."""
    if isinstance(line.read, DomainError):
        return [{"line": line.number, "problem": json.loads(bytes(problem_response(line.read).body))}]
    found = screening.entitled({**line.read.facts, **listed})
    views = [entitlement_view(each).model_dump(mode="json") for each in found]
    return [{"line": line.number, "ref": line.read.ref, "entitled": views}] if found else []
