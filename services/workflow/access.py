"""Who may see what of workflow, and the lock that every change of a case takes first."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    and_,
    any_,
    exists,
    false,
    literal,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.packs import Packs
from libs.common.policy import Pack, PackIdentity
from services.workflow.models import cases, task

TALENT_OFFICE = "talent_office"
DEPARTMENTAL = frozenset({"department", "specialist"})

_LOCK = text("SELECT * FROM cases WHERE application = ANY(CAST(:ids AS uuid[])) ORDER BY application FOR UPDATE")


def visible(query: Select[Any], caller: Principal, *, of: Table = cases) -> Select[Any]:
    """Restrict a query over `cases` (joined with `of`) to what the caller may see: the only way to select for one.

    A department sees its own tasks, and the cases in which it has one.
    """
    return query.where(_in_view(caller, of))


def _in_view(caller: Principal, of: Table) -> ColumnElement[bool]:
    if caller.sees_everything:
        return true()
    if caller.role in DEPARTMENTAL:
        mine = and_(task.c.treasury == caller.treasury, task.c.department == caller.department)
        return mine if of is task else exists(select(1).where(task.c.application == cases.c.application, mine))
    if caller.role == "window_clerk" or (caller.role, caller.department) == (TALENT_OFFICE, TALENT_OFFICE):
        return cases.c.treasury == caller.treasury
    person = _person(caller)
    if person is None:
        return false()
    if caller.role == "talent":
        return or_(cases.c.beneficiary == person, cases.c.applicant == person)
    return cases.c.handler == person if caller.role == "handler" else false()


def _person(caller: Principal) -> UUID | None:
    try:
        return UUID(caller.person) if caller.person else None
    except ValueError:
        return None


def among(column: ColumnElement[Any], ids: Collection[UUID]) -> ColumnElement[bool]:
    """`column = ANY(ids)`: one parameter however many ids, so one prepared statement."""
    return column == any_(literal(list(ids), ARRAY(UUID_TYPE)))


async def locked(tx: AsyncConnection, applications: Iterable[UUID]) -> Mapping[UUID, Row[Any]]:
    """Lock the rows of these cases in one order and read them. What is read afterwards cannot change under us."""
    rows = await tx.execute(_LOCK, {"ids": list(set(applications))})
    return {row.application: row for row in rows}


def policy_of(case: Row[Any]) -> PackIdentity:
    """The policy that a case is worked under."""
    return PackIdentity(city=case.city, version=case.version, sha256=case.sha256)


def pack_of(packs: Packs, case: Row[Any]) -> Pack:
    """The pack that a case is worked under. Raises PackNotHere."""
    return packs.get(policy_of(case))
