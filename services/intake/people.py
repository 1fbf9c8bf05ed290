"""People: the one place that knows who stands behind a reference. Sealed at rest, found by keyed hash.

A person has many documents; whoever files one that is known is that person. Names are kept for good: the newest legal
one counts. A payee account is a version of its own and never changed. Two records found to be one person are merged:
references to the first stay good and lead to the second.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.crypto import Vault
from libs.common.errors import DomainError, NotFound
from services.intake import claims
from services.intake.filing import FiledAccount, FiledDocument, FiledLink, FiledPerson
from services.intake.sight import may_rename

_BY_DOCUMENTS = text("""
    SELECT d.type, d.number_index, COALESCE(p.merged_into, p.ref) AS person
      FROM person_document AS d JOIN person AS p ON p.ref = d.person
     WHERE d.number_index = ANY(CAST(:indexes AS bytea[]))
""")
_LOCK_DOCUMENTS = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS r (key)")
_NAMES = text("SELECT person, name_index FROM person_name WHERE person = ANY(CAST(:people AS uuid[]))")
_ADD_PEOPLE = text("""
    INSERT INTO person (ref, sealed)
    SELECT ref, sealed FROM unnest(CAST(:refs AS uuid[]), CAST(:sealed AS bytea[])) AS r (ref, sealed)
""")
_ADD_DOCUMENTS = text("""
    INSERT INTO person_document (person, type, number_index, sealed, valid_from, valid_to)
    SELECT person, type, number_index, sealed, valid_from, valid_to
      FROM unnest(CAST(:people AS uuid[]), CAST(:types AS text[]), CAST(:indexes AS bytea[]), CAST(:sealed AS bytea[]),
                  CAST(:froms AS date[]), CAST(:tos AS date[]))
           AS r (person, type, number_index, sealed, valid_from, valid_to)
    ON CONFLICT DO NOTHING
""")
_ADD_NAMES = text("""
    INSERT INTO person_name (person, kind, name_index, sealed)
    SELECT person, kind, name_index, sealed
      FROM unnest(CAST(:people AS uuid[]), CAST(:kinds AS text[]), CAST(:indexes AS bytea[]), CAST(:sealed AS bytea[]))
           WITH ORDINALITY AS r (person, kind, name_index, sealed, n)
     ORDER BY n
    ON CONFLICT DO NOTHING
""")
_ADD_LINKS = text("""
    INSERT INTO person_link (person, relation, other)
    SELECT :person, relation, other
      FROM unnest(CAST(:relations AS text[]), CAST(:others AS uuid[])) AS r (relation, other)
    ON CONFLICT DO NOTHING
""")
# NO KEY: whoever only refers to the person (as another's handler) must not wait, let alone in a ring.
_LOCK_PERSON = text("SELECT merged_into FROM person WHERE ref = :ref FOR NO KEY UPDATE")
_LATEST_ACCOUNT = text("""
    SELECT ref, version, account_index FROM payee_account WHERE person = :person ORDER BY version DESC LIMIT 1
""")
_ADD_ACCOUNT = text("""
    INSERT INTO payee_account (ref, person, version, account_index, sealed)
    VALUES (:ref, :person, :version, :account_index, :sealed)
""")
_MERGE = text("""
    UPDATE person SET merged_into = CAST(:into AS uuid)
     WHERE ref = CAST(:merged AS uuid) OR merged_into = CAST(:merged AS uuid)
""")
# A filing in flight refers to the person already: the merge waits for its claims, and it for the merge (claims.py).
_LOCK_TO_MERGE = text("SELECT merged_into FROM person WHERE ref = :ref FOR UPDATE")
_RECORD_MERGE = text('INSERT INTO person_merge (merged, "into", "by", reason) VALUES (:merged, :into, :by, :reason)')


class CannotMerge(DomainError):
    """409: the two records are one already, or one of them was merged elsewhere before."""

    status, code, title = 409, "cannot-merge", "两份档案不能合并"
    detail = "两份档案相同，或者其中一份已并入其他档案。请核对后以仍在使用的档案合并。"


class ClaimsCollide(DomainError):
    """409: both records hold the same certification or benefit, so one person would get it twice."""

    status, code, title = 409, "claims-collide", "两份档案有同一事项的申请"
    detail = (
        "两份档案均已申请或者享受同一事项，合并将重复享受，涉及办件：{case_nos}。"
        "请先将其中一件撤回，或者作出不予认定（批准）的决定，再合并档案。"
    )


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Who a filed person is. `misnamed`: on record under another name; `mixed`: documents of different people."""

    ref: UUID
    misnamed: bool = False
    mixed: bool = False


@dataclass(slots=True)
class _Additions:
    people: list[tuple[UUID, bytes]] = field(default_factory=list)
    documents: list[tuple[UUID, str, bytes, bytes, Any, Any]] = field(default_factory=list)
    names: list[tuple[UUID, str, bytes, bytes]] = field(default_factory=list)


_DocumentKey = tuple[str, bytes]


class People:
    """The record of people, behind its vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def enrol(
        self, tx: AsyncConnection, people: Sequence[FiledPerson], *, seen_by: Principal | None
    ) -> list[Enrolled]:
        """Find or add people, in order. `seen_by`: the clerk who saw the documents, so that another name than on record
        is a new name, of whoever appeared at that clerk's platform before.

        Without that, whoever is on record under another name is `misnamed`, and nothing is added to their record.
        """
        keys = [[self._document_key(document) for document in one.documents] for one in people]
        known = await self._by_documents(tx, people)
        if any(key not in known for each in keys for key in each):
            # Two filings of one new person at the same moment must find one record: the second waits here.
            locks = sorted({_lock_key(key) for each in keys for key in each})
            await tx.execute(_LOCK_DOCUMENTS, {"keys": locks})
            known = await self._by_documents(tx, people)
        names = await self._names_of(tx, set(known.values()))
        seen = await may_rename(tx, set(known.values()), seen_by) if seen_by and known else set()
        additions, found = _Additions(), []
        for one, mine in zip(people, keys, strict=True):
            enrolled = self._enrolled(one, mine, known, names, seen)
            found.append(enrolled)
            if not enrolled.misnamed:
                additions.people += [] if enrolled.ref in names else [self._profile(one, enrolled.ref)]
                self._add_documents(additions, one, mine, enrolled.ref, known)
                self._add_names(additions, one, names.setdefault(enrolled.ref, set()), enrolled.ref)
        await self._store(tx, additions)
        return found

    def _enrolled(
        self,
        one: FiledPerson,
        keys: Sequence[_DocumentKey],
        known: Mapping[_DocumentKey, UUID],
        names: Mapping[UUID, set[bytes]],
        seen: set[UUID],
    ) -> Enrolled:
        refs = list(dict.fromkeys(known[key] for key in keys if key in known))
        if not refs:
            return Enrolled(uuid4())
        named = any(index in names.get(refs[0], ()) for index in self._vault.indexes(one.name, b"name"))
        return Enrolled(refs[0], misnamed=not named and refs[0] not in seen, mixed=len(refs) > 1)

    def _profile(self, one: FiledPerson, ref: UUID) -> tuple[UUID, bytes]:
        profile = {"birth_date": one.birth_date.isoformat() if one.birth_date else None, "phone": one.phone}
        return ref, self._vault.seal(json.dumps(profile).encode(), context("person", ref))

    def _add_documents(
        self,
        additions: _Additions,
        one: FiledPerson,
        keys: Sequence[_DocumentKey],
        ref: UUID,
        known: dict[_DocumentKey, UUID],
    ) -> None:
        for key, document in zip(keys, one.documents, strict=True):
            if key not in known:  # the same person may stand twice in one filing
                known[key] = ref
                sealed = self._vault.seal(document.number.encode(), context("person_document", ref))
                row = (ref, document.type.value, key[1], sealed, document.valid_from, document.valid_to)
                additions.documents.append(row)

    def _add_names(self, additions: _Additions, one: FiledPerson, mine: set[bytes], ref: UUID) -> None:
        wanted = [("legal", one.name), ("latin", one.latin_name), *(("former", former) for former in one.former_names)]
        for kind, name in wanted:
            index = self._vault.index(name, b"name") if name else b""
            if name and index not in mine:
                mine.add(index)
                sealed = self._vault.seal(name.encode(), context("person_name", ref))
                additions.names.append((ref, kind, index, sealed))

    async def _store(self, tx: AsyncConnection, additions: _Additions) -> None:
        if additions.people:
            refs, sealed = zip(*additions.people, strict=True)
            await tx.execute(_ADD_PEOPLE, {"refs": list(refs), "sealed": list(sealed)})
        if additions.documents:
            names = ("people", "types", "indexes", "sealed", "froms", "tos")
            await tx.execute(_ADD_DOCUMENTS, _columns(names, additions.documents))
        if additions.names:
            await tx.execute(_ADD_NAMES, _columns(("people", "kinds", "indexes", "sealed"), additions.names))

    async def link(self, tx: AsyncConnection, ref: UUID, links: Sequence[FiledLink], others: Sequence[UUID]) -> None:
        """Record members of a person's family; what is known is no error."""
        if links:
            relations = [link.relation for link in links]
            await tx.execute(_ADD_LINKS, {"person": ref, "relations": relations, "others": list(others)})

    async def add_account(self, tx: AsyncConnection, ref: UUID, account: FiledAccount) -> UUID:
        """The reference of a payee account: the newest version where it is the same, else a new one."""
        await tx.execute(_LOCK_PERSON, {"ref": ref})  # two versions at the same moment would share a number
        latest = (await tx.execute(_LATEST_ACCOUNT, {"person": ref})).first()
        stated = json.dumps(account.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        if latest is not None and bytes(latest.account_index) in self._vault.indexes(stated, b"payee_account"):
            known: UUID = latest.ref
            return known
        made = uuid4()
        row = {
            "ref": made,
            "person": ref,
            "version": (latest.version if latest else 0) + 1,
            "account_index": self._vault.index(stated, b"payee_account"),
            "sealed": self._vault.seal(stated.encode(), context("payee_account", made)),
        }
        await tx.execute(_ADD_ACCOUNT, row)
        return made

    async def is_named(self, tx: AsyncConnection, ref: UUID, name: str) -> bool:
        """Whether a person is on record under a name."""
        names = await self._names_of(tx, {ref})
        return any(index in names[ref] for index in self._vault.indexes(name, b"name"))

    async def merge(self, tx: AsyncConnection, *, merged: UUID, into: UUID, by: str, reason: str, today: date) -> None:
        """Make one person of two: `merged` leads to `into` from now on, and its claims are theirs. `today` tells
        which certifications have run out. Raises NotFound, CannotMerge, ClaimsCollide."""  # fmt: skip
        rows = {}
        for ref in sorted({merged, into}):  # in order, so that two merges cannot wait for each other
            rows[ref] = (await tx.execute(_LOCK_TO_MERGE, {"ref": ref})).first()
        if not all(rows.values()):
            raise NotFound
        if merged == into or any(row.merged_into is not None for row in rows.values() if row):
            raise CannotMerge
        collide = await claims.colliding(tx, merged, into, today)
        if collide:
            raise ClaimsCollide(case_nos="、".join(collide))
        await tx.execute(_MERGE, {"merged": merged, "into": into})
        await claims.move(tx, merged, into, today)
        await tx.execute(_RECORD_MERGE, {"merged": merged, "into": into, "by": by, "reason": reason})

    # -- inside

    async def _by_documents(self, tx: AsyncConnection, people: Iterable[FiledPerson]) -> dict[_DocumentKey, UUID]:
        """Who holds these documents; a document found under a retired key is given under the current one."""
        current: dict[_DocumentKey, _DocumentKey] = {}
        for one in people:
            for document in one.documents:
                for index in self._vault.indexes(document.number, b"document"):
                    current[document.type.value, index] = self._document_key(document)
        rows = await tx.execute(_BY_DOCUMENTS, {"indexes": list({index for _, index in current})})
        pairs = [((row.type, bytes(row.number_index)), row.person) for row in rows]
        return {current[key]: ref for key, ref in pairs if key in current}

    async def _names_of(self, tx: AsyncConnection, refs: set[UUID]) -> dict[UUID, set[bytes]]:
        names: dict[UUID, set[bytes]] = {ref: set() for ref in refs}
        if refs:
            for row in await tx.execute(_NAMES, {"people": list(refs)}):
                names[row.person].add(bytes(row.name_index))
        return names

    def _document_key(self, document: FiledDocument) -> _DocumentKey:
        return document.type.value, self._vault.index(document.number, b"document")


def context(table: str, ref: UUID) -> bytes:
    """What a sealed value is bound to: its table, and the reference that its row belongs to."""
    return f"{table}:{ref}".encode()


def _lock_key(key: _DocumentKey) -> int:
    return int.from_bytes(key[1][:8], "big", signed=True)


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
