"""people:resolve: who stands behind references, at the moment of use, with one audit entry a call.

The entry is a row that nobody can change and an event that audit chains; neither holds what was answered.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from typing import Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.crypto import Vault
from libs.common.events import PeopleResolved
from libs.common.identity import DocumentType, mask_name, read_resident_number
from libs.common.outbox import emit
from libs.common.policy import PackIdentity
from services.intake.people import context

MOST_REFS = 500
ResolveField = Literal["name", "latin_name", "former_names", "documents", "birth_date", "phone", "payee_account"]

_PEOPLE = text("""
    SELECT asked.ref, p.ref AS person, p.sealed
      FROM person AS asked JOIN person AS p ON p.ref = COALESCE(asked.merged_into, asked.ref)
     WHERE asked.ref = ANY(CAST(:refs AS uuid[]))
""")
_LEADING = text("""
    SELECT ref, COALESCE(merged_into, ref) AS person FROM person WHERE ref = ANY(CAST(:refs AS uuid[]))
""")
# Those of the records that lead to a person too: what was filed for a record is kept under it. The newest legal name
# of the leading record counts.
_NAMES = text("""
    SELECT COALESCE(p.merged_into, p.ref) AS person, n.person AS kept_under, n.kind, n.sealed
      FROM person AS p JOIN person_name AS n ON n.person = p.ref
     WHERE p.ref = ANY(CAST(:people AS uuid[])) OR p.merged_into = ANY(CAST(:people AS uuid[]))
     ORDER BY p.merged_into IS NOT NULL, n.id DESC
""")
_DOCUMENTS = text("""
    SELECT COALESCE(p.merged_into, p.ref) AS person, d.person AS kept_under, d.type, d.sealed, d.valid_from, d.valid_to,
           d.claimed
      FROM person AS p JOIN person_document AS d ON d.person = p.ref
     WHERE p.ref = ANY(CAST(:people AS uuid[])) OR p.merged_into = ANY(CAST(:people AS uuid[]))
     ORDER BY d.id
""")
_ACCOUNTS = text("""
    SELECT a.ref, a.sealed, COALESCE(p.merged_into, p.ref) AS person
      FROM payee_account AS a JOIN person AS p ON p.ref = a.person
     WHERE a.ref = ANY(CAST(:refs AS uuid[]))
""")
_LOG = text("""
    INSERT INTO people_resolved (call, caller, subject, purpose, fields, refs)
    VALUES (:call, :caller, :subject, :purpose, CAST(:fields AS text[]), CAST(:refs AS uuid[]))
""")


class ResolvedDocument(BaseModel):
    """A document of a person."""

    type: str
    type_title: str
    number: str
    claimed: bool = Field(description="仅为填报，尚未核验，不能据以确认身份")
    valid_from: date | None = None
    valid_to: date | None = None


class ResolvedAccount(BaseModel):
    """A payee account, as the bank knows it."""

    holder: str
    bank: str
    branch_number: str
    account_number: str


class Resolved(BaseModel):
    """What was asked of one reference; what was not asked, or is not known, is absent. `person` is always there."""

    ref: UUID
    kind: Literal["person", "payee_account"]
    person: UUID = Field(description="本人或账户所有人的现行档案引用（合并后的引用）")
    name: str | None = None
    latin_name: str | None = None
    former_names: list[str] | None = None
    documents: list[ResolvedDocument] | None = None
    birth_date: date | None = None
    phone: str | None = None
    payee_account: ResolvedAccount | None = None


class Resolution(BaseModel):
    """The answer to one call: `call` is its entry in the audit trail; `unknown` are references of nobody."""

    call: UUID
    items: list[Resolved]
    unknown: list[UUID] = Field(description="不存在的引用")


async def resolve(
    tx: AsyncConnection,
    vault: Vault,
    *,
    refs: Sequence[UUID],
    fields: Sequence[ResolveField],
    purpose: str,
    caller: Principal,
    policy: PackIdentity,
) -> Resolution:
    """Answer chosen fields of at most 500 people and payee accounts, and record the call."""
    wanted, asked = frozenset(fields), list(dict.fromkeys(refs))
    people = (await tx.execute(_PEOPLE, {"refs": asked})).all()
    ids = {"people": list({row.person for row in people})}
    named = bool(wanted & {"name", "latin_name", "former_names"})
    names = (await tx.execute(_NAMES, ids)).all() if named and people else []
    documents = (await tx.execute(_DOCUMENTS, ids)).all() if wanted & {"documents", "birth_date"} and people else []
    accounts = (await tx.execute(_ACCOUNTS, {"refs": asked})).all()
    call = uuid4()
    entry = {"call": call, "caller": caller.client, "subject": caller.subject, "purpose": purpose}
    await tx.execute(_LOG, {**entry, "fields": sorted(wanted), "refs": asked})
    event = {"call": call, "caller": caller.client, "purpose": purpose, "fields": tuple(sorted(wanted))}
    await emit(tx, PeopleResolved(policy=policy, refs=tuple(asked), **event))
    opened = await asyncio.to_thread(_open_all, vault, wanted, (people, names, documents, accounts))
    return Resolution(
        call=call,
        items=[opened[ref] for ref in asked if ref in opened],
        unknown=[ref for ref in asked if ref not in opened],
    )


async def masked_names(tx: AsyncConnection, vault: Vault, refs: Sequence[UUID]) -> dict[UUID, str]:
    """The names of people as a notice shows them (张*), by reference: two statements, and one name opened for each."""
    people = (await tx.execute(_LEADING, {"refs": list(set(refs))})).all()
    names = (await tx.execute(_NAMES, {"people": list({row.person for row in people})})).all() if people else []
    newest: dict[UUID, Any] = {}
    for row in sorted(names, key=lambda row: row.kind != "legal"):  # the sort keeps the order within a kind
        newest.setdefault(row.person, row)
    shown = await asyncio.to_thread(_masked, vault, list(newest.values()))
    return {row.ref: shown.get(row.person, "*") for row in people}


def _masked(vault: Vault, rows: Sequence[Any]) -> dict[UUID, str]:
    return {
        row.person: mask_name(vault.open(row.sealed, context("person_name", row.kept_under)).decode()) for row in rows
    }


_Rows = tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]


def _open_all(vault: Vault, wanted: frozenset[str], rows: _Rows) -> dict[UUID, Resolved]:
    people, names, documents, accounts = rows
    told: dict[UUID, dict[str, Any]] = {row.person: _profile(vault, row, wanted) for row in people}
    for row in names:
        name = vault.open(row.sealed, context("person_name", row.kept_under)).decode()
        _tell_name(told[row.person], row.kind, name)
    for row in documents:
        number = vault.open(row.sealed, context("person_document", row.kept_under)).decode()
        _tell_document(told[row.person], row, number, wanted)
    for one in told.values():
        one["former_names"] = [it for it in one.get("former_names", ()) if it != one.get("name")] or None
    chosen = {ref: {field: value for field, value in one.items() if field in wanted} for ref, one in told.items()}
    found = {row.ref: Resolved(ref=row.ref, kind="person", person=row.person, **chosen[row.person]) for row in people}
    for row in accounts:
        found[row.ref] = Resolved(
            ref=row.ref, kind="payee_account", person=row.person, payee_account=_account(vault, row, wanted)
        )
    return found


def _profile(vault: Vault, row: Any, wanted: frozenset[str]) -> dict[str, Any]:
    kept = json.loads(vault.open(row.sealed, context("person", row.person)))
    return {name: value for name, value in kept.items() if name in wanted and value is not None}


def _tell_name(told: dict[str, Any], kind: str, name: str) -> None:
    """The first Latin and legal name count, whatever else the person was called is a former name."""
    if kind == "latin":
        told.setdefault("latin_name", name)
    elif kind == "legal" and "name" not in told:
        told["name"] = name
    elif name not in (former := told.setdefault("former_names", [])):
        former.append(name)


def _tell_document(told: dict[str, Any], row: Any, number: str, wanted: frozenset[str]) -> None:
    if "documents" in wanted:
        document = ResolvedDocument(
            type=row.type,
            type_title=DocumentType(row.type).label,
            number=number,
            claimed=row.claimed,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
        )
        told.setdefault("documents", []).append(document)
    if "birth_date" in wanted and "birth_date" not in told:
        with suppress(ValueError):  # the number of a passport states no birth date
            told["birth_date"] = read_resident_number(number).birth


def _account(vault: Vault, row: Any, wanted: frozenset[str]) -> ResolvedAccount | None:
    if "payee_account" not in wanted:
        return None
    kept = json.loads(vault.open(row.sealed, context("payee_account", row.ref)))
    return ResolvedAccount(
        holder=kept["holder"], bank=kept["bank"], branch_number=kept["branch_no"], account_number=kept["number"]
    )
