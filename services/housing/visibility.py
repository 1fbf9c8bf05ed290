"""Who may see what of housing: an officer what belongs to their treasury, a talent what is theirs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, false, select

from libs.common.auth import Principal
from libs.common.paging import PageRequest, read_after
from services.housing.models import eligibility, flat


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a caller sees: by the treasury of the caller's org unit, or as the talent that a record is about."""

    of_treasury: Callable[[Principal], ColumnElement[bool]]
    of_talent: Callable[[UUID], ColumnElement[bool]]


def visible(query: Select[Any], caller: Principal, bounds: Bounds) -> Select[Any]:
    """Narrow a query to what the caller may see: the only way to select for one."""
    if caller.sees_everything:
        return query
    if caller.role == "talent":
        person = _person(caller)
        return query.where(false() if person is None else bounds.of_talent(person))
    return query.where(false() if caller.treasury is None else bounds.of_treasury(caller))


def _person(caller: Principal) -> UUID | None:
    try:
        return UUID(caller.person or "")
    except ValueError:
        return None  # no person_ref of ours


def _suits(person: UUID) -> ColumnElement[bool]:
    mine = select(eligibility.c.id).where(
        eligibility.c.beneficiary == person,
        eligibility.c.kind == flat.c.kind,
        flat.c.treasury.in_([eligibility.c.treasury, eligibility.c.city_treasury]),
    )
    return mine.correlate(flat).exists()


def _treasury_of_hold(caller: Principal) -> ColumnElement[bool]:
    # The talent office follows its talents, the housing officer their flats.
    table = eligibility if caller.role == "talent_office" else flat
    return table.c.treasury == caller.treasury


FLATS = Bounds(of_treasury=lambda caller: flat.c.treasury == caller.treasury, of_talent=_suits)
ELIGIBILITIES = Bounds(
    of_treasury=lambda caller: eligibility.c.treasury == caller.treasury,
    of_talent=lambda person: eligibility.c.beneficiary == person,
)
HOLDS = Bounds(of_treasury=_treasury_of_hold, of_talent=lambda person: eligibility.c.beneficiary == person)


def page(query: Select[Any], key: ColumnElement[UUID], asked: PageRequest) -> Select[Any]:
    """The rows of one page, and one more, in order of `key`. Raises ContentWrong for a cursor that is not ours."""
    if after := read_after(asked, UUID):
        query = query.where(key > after[0])
    return query.order_by(key).limit(asked.limit + 1)
