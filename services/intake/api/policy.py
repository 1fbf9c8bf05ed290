"""The policy: what may be filed under it, on any day and under any version, its file as it is, and what it says of a
person before anything is filed."""

from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, Field

from libs.common.calendar import local_date
from libs.common.dated import Day
from libs.common.errors import NotFound
from libs.common.facts import FactView, fact_view
from libs.common.policy import Pack, PackIdentity, categories_of
from libs.common.policy.identity import Sha256
from libs.common.policy.model import AtMostOne, Benefit, ClaimSubject, Directory, GreenChannel, Item
from libs.common.policy.wording import keeper_of
from libs.common.web import guarded_router, public
from services.intake.api.desk import AtDesk
from services.intake.directories import Asked, looked_up
from services.intake.eligibility import Eligibility, EligibilityQuestion, answer

MEDIA_TYPE = "application/yaml"  # RFC 9512

router = guarded_router("intake", tags=["政策"])


class Titled(BaseModel):
    """A code with its Chinese name."""

    code: str
    title: str


class PolicyChannel(BaseModel):
    """Whose filings of an item go through the green channel, and how fast."""

    categories: list[str] = Field(description="人才类别的代码：同一申请中申报的，或者所填认定编号的类别")
    limit_working_days: int | None = Field(description="各部门的时限至多多少个工作日；不另缩短的为空")


class PolicyItem(Titled):
    """A service item with the materials that it asks for, and the categories that it certifies; of a benefit whom it is
    given to once, and what cannot be had beside it."""

    kind: str
    materials: list[Titled]
    categories: list[str] = Field(description="认定事项所认定的人才类别的代码；其他事项为空")
    claim_subject: ClaimSubject | None = Field(
        description="待遇每份给予：person 个人，household 家庭（夫妻双方不能各领一份），property 房产；其他事项为空"
    )
    alternatives: list[str] = Field(description="与本待遇只能享受其一的其他待遇的代码")
    promised_working_days: int = Field(description="承诺时限（工作日）；0 为即时办结")
    green_channels: list[PolicyChannel] = Field(description="绿色通道：为哪些人才优先办理本事项；没有的为空")
    statutory_working_days: int | None = Field(description="法定时限（工作日）；没有规定的为空")
    visits: int = Field(description="须到办事现场的次数")
    result: str = Field(description="办理结果")
    remedy: str = Field(description="救济途径")


class PolicyDirectory(Titled):
    """A directory of employers, and who keeps it."""

    keeper: str = Field(description="登记部门的代码；为市级部门")
    keeper_title: str


class Policy(BaseModel):
    """The pack in force: its identity, and every code that a filing may name."""

    identity: PackIdentity
    city: str
    title: str
    on: date
    items: list[PolicyItem]
    categories: list[Titled]
    platforms: list[Titled]
    treasuries: list[Titled]
    regions: list[Titled]
    directories: list[PolicyDirectory]
    facts: list[FactView]


def _titled(records: Any, on: date) -> list[Titled]:
    return [Titled(code=it.code, title=it.title) for it in records if not hasattr(it, "covers") or it.covers(on)]


def _directory(pack: Pack, rule: Directory) -> PolicyDirectory:
    return PolicyDirectory(code=rule.code, title=rule.title, keeper=rule.keeper, keeper_title=keeper_of(pack, rule))


def _channel(rule: GreenChannel) -> PolicyChannel:
    return PolicyChannel(categories=list(rule.categories), limit_working_days=rule.limit_working_days)


def _item(pack: Pack, item: Item, on: date) -> PolicyItem:
    benefit = pack.find_rule(Benefit, item.code, on=on)
    rule = pack.find_rule(AtMostOne, item.code, on=on)
    return PolicyItem(
        code=item.code,
        title=item.title,
        kind=item.kind.value,
        materials=[Titled(code=material.code, title=material.title) for material in item.materials],
        categories=[category.code for category in categories_of(pack, item=item.code, on=on)],
        claim_subject=benefit.claim_subject if benefit else None,
        alternatives=[code for code in rule.benefits if code != item.code] if rule else [],
        promised_working_days=item.promised_working_days,
        green_channels=[_channel(it) for it in pack.green_channels if item.code in it.items and it.covers(on)],
        statutory_working_days=item.statutory_working_days,
        visits=item.visits,
        result=item.result,
        remedy=item.remedy,
    )


@router.get("/policy", summary="现行政策", dependencies=[public()])
async def show_policy(
    desk: AtDesk,
    on: Annotated[Day | None, Query(description="某日的政策；不填为今日")] = None,
    sha256: Annotated[
        Sha256 | None, Query(description="某一版本的政策（标识中的 sha256）；不填为该日生效的版本")
    ] = None,
) -> Policy:
    """现行政策的标识，以及可申请的事项、所需材料和各类代码；可指定日期和版本。"""
    on = on or local_date(datetime.now(UTC))
    pack = desk.packs.find(sha256) if sha256 else desk.packs.find_on(on)
    if pack is None:
        raise NotFound
    return Policy(
        identity=pack.identity,
        city=pack.city,
        title=pack.title,
        on=on,
        items=[_item(pack, item, on) for item in pack.items if item.covers(on)],
        categories=_titled(pack.categories, on),
        platforms=_titled(pack.platforms, on),
        treasuries=_titled(pack.treasuries, on),
        regions=_titled(pack.regions, on),
        directories=[_directory(pack, rule) for rule in pack.directories if rule.covers(on)],
        facts=[fact_view(fact) for fact in pack.facts],
    )


@router.post("/eligibility", summary="资格自测", dependencies=[public()])
async def check_eligibility(question: EligibilityQuestion, request: Request, desk: AtDesk) -> Eligibility:
    """按所填情况逐条对照政策，不提交、不留存：每一条看到了什么、结论如何、出自哪一条，还缺什么或者须改变什么。

    不清楚的不填：缺少的情况只会使结论“尚不能确定”，不会变成“不符合”。填写 employer 的，是否列入企业目录由平台查明。
    已经享受什么在此不得而知，只能享受其一的待遇分别作答。
    """
    on = question.on or local_date(datetime.now(UTC))
    pack = desk.packs.find_on(on)
    if pack is None:
        raise NotFound
    [listed] = await looked_up(request.app.state.service.database, [Asked(pack, question.employer, on)])
    return answer(pack, question, on, listed=listed)


@router.get(
    "/policy/{sha256}",
    summary="政策文件",
    dependencies=[public()],
    response_class=Response,
    responses={200: {"description": "政策文件", "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}},
)
async def download_policy(sha256: Annotated[Sha256, Path()], desk: AtDesk) -> Response:
    """某一版本的政策文件原文，其 SHA-256 即该版本的标识；一经保存永不改变。"""
    pack = desk.packs.find(sha256)
    if pack is None:
        raise NotFound
    named = f'attachment; filename="{pack.city}-{pack.version}.yaml"'
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Disposition": named}
    return Response(pack.source, media_type=MEDIA_TYPE, headers=headers)
