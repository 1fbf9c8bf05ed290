"""The policy in force, so that a portal knows what may be filed."""

from datetime import UTC, date, datetime
from typing import Any

from pydantic import BaseModel, Field

from libs.common.calendar import local_date
from libs.common.policy import PackIdentity, categories_of
from libs.common.web import guarded_router, public
from services.intake.api.desk import AtDesk

router = guarded_router(tags=["政策"])


class Titled(BaseModel):
    """A code with its Chinese name."""

    code: str
    title: str


class PolicyItem(Titled):
    """A service item with the materials that it asks for, and the categories that it certifies."""

    kind: str
    materials: list[Titled]
    categories: list[str] = Field(description="认定事项所认定的人才类别的代码；其他事项为空")


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


def _titled(records: Any, on: date) -> list[Titled]:
    return [Titled(code=it.code, title=it.title) for it in records if not hasattr(it, "covers") or it.covers(on)]


@router.get("/policy", summary="现行政策", dependencies=[public()])
async def show_policy(desk: AtDesk) -> Policy:
    """现行政策的标识，以及可申请的事项、所需材料和各类代码。"""
    pack, on = desk.packs.current(), local_date(datetime.now(UTC))
    return Policy(
        identity=pack.identity,
        city=pack.city,
        title=pack.title,
        on=on,
        items=[
            PolicyItem(
                code=item.code,
                title=item.title,
                kind=item.kind.value,
                materials=[Titled(code=material.code, title=material.title) for material in item.materials],
                categories=[category.code for category in categories_of(pack, item=item.code, on=on)],
            )
            for item in pack.items
            if item.covers(on)
        ],
        categories=_titled(pack.categories, on),
        platforms=_titled(pack.platforms, on),
        treasuries=_titled(pack.treasuries, on),
        regions=_titled(pack.regions, on),
    )
