"""Which people a caller has to do with: those who appear in an application that the caller may see (`views.visible`).

Records that were merged are one person: who appears under one of them is in sight under each.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from services.intake.models import application, payee_account, person
from services.intake.views import visible

_IN_DOUBT = ("name-differs", "documents-of-different-people", "document-in-doubt")
_NAMED_BY = (application.c.beneficiary, application.c.applicant, application.c.handler)


async def myself(tx: AsyncConnection, caller: Principal) -> UUID | None:
    """The record that the person of the caller's token leads to; None where there is none."""
    try:
        ref = UUID(caller.person or "")
    except ValueError:
        return None
    leading = select(func.coalesce(person.c.merged_into, person.c.ref)).where(person.c.ref == ref)
    found: UUID | None = (await tx.execute(leading)).scalar()
    return found


async def in_sight(tx: AsyncConnection, refs: Collection[UUID], caller: Principal) -> set[UUID]:
    """Those of these references of people and payee accounts whose person appears before the caller."""
    asked = person.alias("asked")
    people = _appearing(select(asked.c.ref), asked.c.ref, asked.c.merged_into).where(asked.c.ref.in_(refs))
    joined = payee_account.join(asked, asked.c.ref == payee_account.c.person)
    accounts = select(payee_account.c.ref).select_from(joined).where(payee_account.c.ref.in_(refs))
    accounts = _appearing(accounts, asked.c.ref, asked.c.merged_into)
    found = [await tx.execute(visible(query, caller)) for query in (people, accounts)]
    return {ref for rows in found for ref in rows.scalars()}


async def may_rename(tx: AsyncConnection, refs: Collection[UUID], caller: Principal) -> set[UUID]:
    """Those of these people whom a clerk may give a new name: they appeared at the clerk's own platform before, and not
    just by somebody filing there under their number with another name, or with other documents."""  # fmt: skip
    asked = person.alias("asked")
    query = _appearing(select(asked.c.ref), asked.c.ref, asked.c.merged_into).where(asked.c.ref.in_(refs))
    in_doubt = or_(*(application.c.defects.contains([{"code": code}]) for code in _IN_DOUBT))
    query = query.where(application.c.state.in_(("accepted", "correction")), ~in_doubt)
    return set((await tx.execute(visible(query, caller))).scalars())


def _appearing(query: Select[tuple[UUID]], ref: object, merged_into: object) -> Select[tuple[UUID]]:
    leading = func.coalesce(merged_into, ref)
    same = or_(person.c.ref == leading, person.c.merged_into == leading)
    return query.join(person, same).join(application, or_(*(name == person.c.ref for name in _NAMED_BY))).distinct()
