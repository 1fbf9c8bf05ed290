"""The flats: what a treasury has to offer."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints
from sqlalchemy import case, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from libs.common.auth import Principal
from libs.common.errors import DomainError, FieldError, NotFound
from libs.common.field_errors import field_error
from libs.common.paging import PageRequest
from libs.common.policy.model import FlatKind
from libs.common.treasuries import TreasuryCode
from libs.common.wire import NOT_BLANK, WHOLE
from libs.common.words import ONE_LINE
from services.housing.domain import TAKING, FlatStatus
from services.housing.models import flat, hold
from services.housing.visibility import FLATS, page, visible

_ADD = text("""
    INSERT INTO flat (id, treasury, code, estate, building, room, area, kind, decoration, outside_style, furnishing,
                      property_management, offered, added_at, added_by)
    SELECT id, :treasury, code, estate, building, room, area, kind, decoration, outside_style, furnishing,
           property_management, true, :now, :by
      FROM unnest(CAST(:ids AS uuid[]), CAST(:codes AS text[]), CAST(:estates AS text[]), CAST(:buildings AS text[]),
                  CAST(:rooms AS text[]), CAST(:areas AS integer[]), CAST(:kinds AS text[]),
                  CAST(:decorations AS boolean[]), CAST(:styles AS boolean[]), CAST(:furnishings AS boolean[]),
                  CAST(:managements AS boolean[]))
           AS r (id, code, estate, building, room, area, kind, decoration, outside_style, furnishing,
                 property_management)
     ORDER BY code
    ON CONFLICT DO NOTHING
    RETURNING id
""")
_OFFER = text("UPDATE flat SET offered = :offered WHERE id = :id")
_TAKEN = text("SELECT 1 FROM hold WHERE flat = :id AND state IN ('held', 'leased')")


class FlatAlreadyListed(DomainError):
    """409: a flat of this code or address is in stock already. `errors` names each line."""

    status, code, title = 409, "flat-already-listed", "房源已登记"
    detail = "errors 所列房源的编号或坐落（小区、楼栋、房号）已在库，或在本次提交中重复；整批未登记，请删改后重新提交。"


class FlatTaken(DomainError):
    """409: a flat that is held or leased cannot be withdrawn."""

    status, code, title = 409, "flat-taken", "房源已被锁定或出租"
    detail = "请待锁定释放或租约终止后再停用该房源。"


def _spelled(value: str) -> str:
    """One spelling for full-width and half-width digits, so that one room is one room."""
    return unicodedata.normalize("NFKC", value)


# Two addresses that look alike are one, so nothing in them is invisible.
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=NOT_BLANK),
    ONE_LINE,
    AfterValidator(_spelled),
]


class Standards(BaseModel):
    """四个统一：装修、外观、家具、物业。"""

    model_config = ConfigDict(extra="forbid")

    decoration: StrictBool = Field(description="统一简装")
    outside_style: StrictBool = Field(description="统一外观")
    furnishing: StrictBool = Field(description="统一家具")
    property_management: StrictBool = Field(description="统一物业管理")


EXAMPLE: dict[str, Any] = {
    "code": "RC-01-0301",
    "estate": "洹园人才社区",
    "building": "3 号楼",
    "room": "301",
    "area": 8950,
    "kind": "transitional",
    "standards": {"decoration": True, "outside_style": True, "furnishing": True, "property_management": True},
}


class FlatIn(BaseModel):
    """一套待登记的房源；归属登记人所在的一级财政。"""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="房源编号，同一财政内唯一")]
    estate: Name = Field(description="小区")
    building: Name = Field(description="楼栋")
    room: Name = Field(description="房号")
    area: Annotated[int, Field(gt=0, le=10_000_000, description="建筑面积，单位 0.01 平方米"), WHOLE]
    kind: FlatKind = Field(description="人才周转房 transitional，人才公寓 apartment")
    standards: Standards


class FlatOut(FlatIn):
    """一套房源及其现状。"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                EXAMPLE | {"id": "0197c1b5-f005-7e50-8d65-7a9b1c3d4e6f", "treasury": "410522", "status": "available"}
            ]
        }
    )

    id: UUID
    treasury: TreasuryCode
    status: FlatStatus = Field(description="可选 available，已锁定 held，已出租 leased，停用 withdrawn")


_STATUS = case(
    (hold.c.state.is_not(None), hold.c.state),
    (flat.c.offered, FlatStatus.AVAILABLE.value),
    else_=FlatStatus.WITHDRAWN.value,
)
_FLATS = select(flat, _STATUS.label("status")).select_from(
    flat.outerjoin(hold, (hold.c.flat == flat.c.id) & hold.c.state.in_(TAKING))
)


@dataclass(frozen=True, slots=True)
class FlatFilter:
    """Which flats are asked for; None means any."""

    treasury: str | None = None
    kind: FlatKind | None = None
    estate: str | None = None
    status: FlatStatus | None = None


async def add_flats(tx: AsyncConnection, caller: Principal, flats: Sequence[FlatIn], now: datetime) -> list[FlatOut]:
    """Add flats to the stock of the caller's treasury, all or none. Raises FlatAlreadyListed with the lines."""
    ids = [uuid7() for _ in flats]
    rows = {
        "ids": ids,
        "codes": [each.code for each in flats],
        "estates": [each.estate for each in flats],
        "buildings": [each.building for each in flats],
        "rooms": [each.room for each in flats],
        "areas": [each.area for each in flats],
        "kinds": [each.kind.value for each in flats],
        "decorations": [each.standards.decoration for each in flats],
        "styles": [each.standards.outside_style for each in flats],
        "furnishings": [each.standards.furnishing for each in flats],
        "managements": [each.standards.property_management for each in flats],
    }
    of = {"treasury": caller.treasury, "now": now, "by": caller.subject}
    added = set((await tx.execute(_ADD, rows | of)).scalars())
    known = [n for n, id_ in enumerate(ids) if id_ not in added]
    if known:
        raise FlatAlreadyListed(errors=[_known_line(n, single=len(flats) == 1) for n in known[:100]])
    return [
        FlatOut(**each.model_dump(), id=id_, treasury=str(caller.treasury), status=FlatStatus.AVAILABLE)
        for id_, each in zip(ids, flats, strict=True)
    ]


def _known_line(number: int, *, single: bool) -> FieldError:
    place = "/code" if single else f"/flats/{number}/code"
    return field_error(place, "flat-already-listed")


async def list_flats(tx: AsyncConnection, caller: Principal, wanted: FlatFilter, asked: PageRequest) -> list[FlatOut]:
    """Flats in view, oldest first; one more than the page holds where there are more."""
    query = visible(_FLATS, caller, FLATS)
    if wanted.treasury is not None:
        query = query.where(flat.c.treasury == wanted.treasury)
    if wanted.kind is not None:
        query = query.where(flat.c.kind == wanted.kind.value)
    if wanted.estate is not None:
        query = query.where(flat.c.estate == _spelled(wanted.estate))
    if wanted.status is not None:
        query = query.where(_STATUS.in_([wanted.status.value]))
    rows = await tx.execute(page(query, flat.c.id, asked))
    return [_flat_out(row) for row in rows]


async def show_flat(tx: AsyncConnection, caller: Principal, flat_id: UUID) -> FlatOut:
    """One flat. Raises NotFound."""
    row = (await tx.execute(visible(_FLATS, caller, FLATS).where(flat.c.id == flat_id))).first()
    if row is None:
        raise NotFound
    return _flat_out(row)


async def offer_flat(tx: AsyncConnection, caller: Principal, flat_id: UUID, *, offered: bool) -> FlatOut:
    """Take a flat off the offer or put it back. Raises NotFound, FlatTaken."""
    await show_flat(tx, caller, flat_id)
    # Changed first: whoever holds the flat at this moment waits for us, or we for them.
    await tx.execute(_OFFER, {"id": flat_id, "offered": offered})
    if not offered and (await tx.execute(_TAKEN, {"id": flat_id})).first():
        raise FlatTaken
    return await show_flat(tx, caller, flat_id)


def _flat_out(row: Any) -> FlatOut:
    standards = Standards(
        decoration=row.decoration,
        outside_style=row.outside_style,
        furnishing=row.furnishing,
        property_management=row.property_management,
    )
    return FlatOut(
        id=row.id,
        treasury=row.treasury,
        code=row.code,
        estate=row.estate,
        building=row.building,
        room=row.room,
        area=row.area,
        kind=row.kind,
        standards=standards,
        status=row.status,
    )
