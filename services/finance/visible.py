"""Who sees what of finance: one function to select for a caller. Outside it, unknown and not yours look the same."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, false, or_

from libs.common.auth import Principal

TREASURY_ROLES = frozenset({"treasury", "talent_office"})
FINANCE = "finance"  # the department of treasury officers


def treasury_of(principal: Principal) -> str | None:
    """The treasury that the caller works for: None for a role without one, or an officer posted outside its finance."""
    posted = principal.role != "treasury" or principal.department == FINANCE
    return principal.treasury if principal.role in TREASURY_ROLES and posted else None


def visible(
    query: Select[Any],
    principal: Principal,
    *,
    treasury: ColumnElement[str],
    beneficiary: ColumnElement[UUID] | None = None,
    party: Callable[[str], ColumnElement[bool]] | None = None,
) -> Select[Any]:
    """The rows of a query that the caller may see.

    Supervisor and auditor see all, treasury and talent office those of their own `treasury` (or where theirs is
    another `party`; an officer posted outside finance: nothing), everybody else what is about themselves as
    `beneficiary`.
    """
    if principal.sees_everything:
        return query
    if principal.role in TREASURY_ROLES:
        own = treasury_of(principal)
        if own is None:
            return query.where(false())
        return query.where(treasury == own if party is None else or_(treasury == own, party(own)))
    person = _uuid(principal.person)
    if beneficiary is None or person is None:
        return query.where(false())
    return query.where(beneficiary == person)


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
