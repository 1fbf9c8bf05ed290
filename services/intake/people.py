"""People: the one place that knows who stands behind a reference. Sealed at rest, found by keyed hash.

A person has many documents. Whoever files one that is known is that person, with one exception: a document that was
only stated beside another one is `claimed` and identifies nobody until a clerk has seen it. So nobody who writes
another's passport beside their own card is taken for its owner, nor the owner for them.

Names are kept for good: the newest legal one counts. A payee account is a version of its own and never changed. Two
records found to be one person are merged: references to the first stay good and lead to the second.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.auth import Principal
from libs.common.crypto import Vault
from libs.common.db import columns
from libs.common.errors import DomainError, NotFound
from libs.common.identity import DocumentType
from libs.common.policy import Pack
from services.intake import claims
from services.intake.filing import FiledAccount, FiledDocument, FiledLink, FiledPerson
from services.intake.models import application
from services.intake.sight import may_rename
from services.intake.views import visible

_BY_DOCUMENTS = text("""
    SELECT d.id, d.type, d.number_index, d.claimed, COALESCE(p.merged_into, p.ref) AS person
      FROM person_document AS d JOIN person AS p ON p.ref = d.person
     WHERE d.number_index = ANY(CAST(:indexes AS bytea[]))
""")
_LOCK_DOCUMENTS = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS r (key)")
# Of all records that are one with the person: each reference is asked for the names of every one of them.
_NAMES = text("""
    SELECT asked.ref AS person, n.name_index
      FROM (SELECT ref, COALESCE(merged_into, ref) AS leading FROM person WHERE ref = ANY(CAST(:people AS uuid[])))
           AS asked
      JOIN person AS p ON p.ref = asked.leading OR p.merged_into = asked.leading
      JOIN person_name AS n ON n.person = p.ref
""")
_ADD_PEOPLE = text("""
    INSERT INTO person (ref, sealed)
    SELECT ref, sealed FROM unnest(CAST(:refs AS uuid[]), CAST(:sealed AS bytea[])) AS r (ref, sealed)
""")
_ADD_DOCUMENTS = text("""
    INSERT INTO person_document (person, type, number_index, sealed, valid_from, valid_to, claimed)
    SELECT person, type, number_index, sealed, valid_from, valid_to, claimed
      FROM unnest(CAST(:people AS uuid[]), CAST(:types AS text[]), CAST(:indexes AS bytea[]), CAST(:sealed AS bytea[]),
                  CAST(:froms AS date[]), CAST(:tos AS date[]), CAST(:claimed AS boolean[]))
           AS r (person, type, number_index, sealed, valid_from, valid_to, claimed)
    ON CONFLICT DO NOTHING
""")
_SEEN = text("""
    UPDATE person_document AS d SET person = r.person, sealed = r.sealed, claimed = false
      FROM unnest(CAST(:ids AS bigint[]), CAST(:people AS uuid[]), CAST(:sealed AS bytea[])) AS r (id, person, sealed)
     WHERE d.id = r.id
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
    SELECT person, relation, other
      FROM unnest(CAST(:people AS uuid[]), CAST(:relations AS text[]), CAST(:others AS uuid[]))
           AS r (person, relation, other)
    ON CONFLICT DO NOTHING
""")
# NO KEY: whoever only refers to the person (as another's handler) must not wait, let alone in a ring.
_LOCK_PEOPLE = text("""
    SELECT ref FROM person WHERE ref = ANY(CAST(:people AS uuid[])) ORDER BY ref FOR NO KEY UPDATE
""")
_LATEST_ACCOUNTS = text("""
    SELECT DISTINCT ON (person) person, ref, version, account_index
      FROM payee_account WHERE person = ANY(CAST(:people AS uuid[])) ORDER BY person, version DESC
""")
_ADD_ACCOUNTS = text("""
    INSERT INTO payee_account (ref, person, version, account_index, sealed)
    SELECT ref, person, version, account_index, sealed
      FROM unnest(CAST(:refs AS uuid[]), CAST(:people AS uuid[]), CAST(:versions AS integer[]),
                  CAST(:indexes AS bytea[]), CAST(:sealed AS bytea[]))
           AS r (ref, person, version, account_index, sealed)
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
    """409: both records, or a spouse's filing, hold the same certification or benefit, or two of which one may be had:
    one person would have it twice."""

    status, code, title = 409, "claims-collide", "两份档案有同一事项的申请"
    detail = (
        "两份档案（包括配偶按家庭申领的）均已申请或者享受同一事项，或者只能享受其一的待遇，合并将重复享受，涉及办件：{cases}。"
        "请先将其中一件撤回，或者作出不予认定（批准）的决定，再合并档案。"
    )


CARDS = frozenset(
    {DocumentType.RESIDENT_IDENTITY_CARD, DocumentType.FOREIGN_PERMANENT_RESIDENCE, DocumentType.HMT_RESIDENCE_PERMIT}
)
"""What a person is known by first: issued here, for good, with a check digit."""


class Appearing(NamedTuple):
    """Somebody whom a filing names; `seen`: with their documents, by a clerk."""

    person: FiledPerson
    seen: bool


class Family(NamedTuple):
    """Members of a person's family, as filed, with their references."""

    person: UUID
    links: Sequence[FiledLink]
    others: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Who a filed person is. `misnamed`: on record under another name; `mixed`: documents of different people;
    `doubtful`: which of the documents identify nobody yet; `leading`: which one a new person is known by."""

    ref: UUID
    misnamed: bool = False
    mixed: bool = False
    doubtful: tuple[int, ...] = ()
    leading: int | None = None

    @property
    def certain(self) -> bool:
        """Whether this may be added to, and act for, the person on record."""
        return not (self.misnamed or self.mixed or self.doubtful)


@dataclass(frozen=True, slots=True)
class _Held:
    person: UUID
    claimed: bool
    row: int | None = None  # None within the filing that states it


@dataclass(slots=True)
class _Additions:
    people: list[tuple[UUID, bytes]] = field(default_factory=list)
    documents: list[tuple[UUID, str, bytes, bytes, Any, Any, bool]] = field(default_factory=list)
    seen: list[tuple[int, UUID, bytes]] = field(default_factory=list)
    names: list[tuple[UUID, str, bytes, bytes]] = field(default_factory=list)


_DocumentKey = tuple[str, bytes]


class People:
    """The record of people, behind its vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def enrol(self, tx: AsyncConnection, appearing: Sequence[Appearing], caller: Principal) -> list[Enrolled]:
        """Find or add people, in order: who stands there twice is found the second time. Where the caller, a clerk, saw
        the documents none of them is in doubt, and another name than on record is a new name, of whoever appeared at
        that clerk's platform before.

        Nothing is added to the record of whoever is not certain to be that person.
        """
        people = [one.person for one in appearing]
        keys = [[self._document_key(document) for document in one.documents] for one in people]
        known = await self._by_documents(tx, people)
        if any(key not in known for each in keys for key in each):
            # Two filings of one new person at the same moment must find one record: the second waits here.
            locks = sorted({_lock_key(key) for each in keys for key in each})
            await tx.execute(_LOCK_DOCUMENTS, {"keys": locks})
            known = await self._by_documents(tx, people)
        holders = {held.person for held in known.values()}
        names = await self._names_of(tx, holders)
        renamed = await may_rename(tx, holders, caller) if known and any(one.seen for one in appearing) else set()
        additions, found = _Additions(), []
        for (one, seen), mine in zip(appearing, keys, strict=True):
            enrolled = self._enrolled(one, mine, known, names, renamed if seen else set(), seen=seen)
            found.append(enrolled)
            new = enrolled.ref not in names
            if new or enrolled.certain:
                additions.people += [self._profile(one, enrolled.ref)] if new else []
                self._add_documents(additions, one, mine, enrolled, known, seen=seen)
                self._add_names(additions, one, names.setdefault(enrolled.ref, set()), enrolled.ref)
        await self._store(tx, additions)
        return found

    def _enrolled(
        self,
        one: FiledPerson,
        keys: Sequence[_DocumentKey],
        known: Mapping[_DocumentKey, _Held],
        names: Mapping[UUID, set[bytes]],
        renamed: set[UUID],
        *,
        seen: bool,
    ) -> Enrolled:
        proven = list(dict.fromkeys(known[key].person for key in keys if key in known and not known[key].claimed))
        ref = proven[0] if proven else uuid4()
        unknown = [n for n, key in enumerate(keys) if key not in known]
        cards = [n for n in unknown if one.documents[n].type in CARDS]
        leading = None if proven else next(iter(cards + unknown), None)
        elsewhere = [
            n for n, key in enumerate(keys) if key in known and known[key].claimed and known[key].person != ref
        ]
        doubtful = () if seen else tuple(sorted({*elsewhere, *cards} - {leading}))
        named = any(index in names.get(ref, ()) for index in self._vault.indexes(one.name, b"name"))
        misnamed = bool(proven) and not named and ref not in renamed
        return Enrolled(ref, misnamed, mixed=len(proven) > 1, doubtful=doubtful, leading=leading)

    def _profile(self, one: FiledPerson, ref: UUID) -> tuple[UUID, bytes]:
        profile = {"birth_date": one.birth_date.isoformat() if one.birth_date else None, "phone": one.phone}
        return ref, self._vault.seal(json.dumps(profile).encode(), context("person", ref))

    def _add_documents(
        self,
        additions: _Additions,
        one: FiledPerson,
        keys: Sequence[_DocumentKey],
        enrolled: Enrolled,
        known: dict[_DocumentKey, _Held],
        *,
        seen: bool,
    ) -> None:
        ref = enrolled.ref
        for n, (key, document) in enumerate(zip(keys, one.documents, strict=True)):
            held = known.get(key)  # the same person may stand twice in one filing
            claimed = not seen and n != enrolled.leading
            if held is None and n not in enrolled.doubtful:
                row = (ref, document.type.value, key[1], self._seal_number(document, ref))
                additions.documents.append((*row, document.valid_from, document.valid_to, claimed))
                known[key] = _Held(ref, claimed)
            elif held is not None and held.claimed and seen and held.row is not None:
                additions.seen.append((held.row, ref, self._seal_number(document, ref)))
                known[key] = _Held(ref, claimed=False)

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
            names = ("people", "types", "indexes", "sealed", "froms", "tos", "claimed")
            await tx.execute(_ADD_DOCUMENTS, columns(names, additions.documents))
        if additions.seen:
            await tx.execute(_SEEN, columns(("ids", "people", "sealed"), additions.seen))
        if additions.names:
            await tx.execute(_ADD_NAMES, columns(("people", "kinds", "indexes", "sealed"), additions.names))

    async def link(self, tx: AsyncConnection, families: Sequence[Family]) -> None:
        """Record members of people's families; what is known is no error."""
        rows = [
            (family.person, link.relation, other)
            for family in families
            for link, other in zip(family.links, family.others, strict=True)
        ]
        if rows:
            await tx.execute(_ADD_LINKS, columns(("people", "relations", "others"), rows))

    async def add_accounts(self, tx: AsyncConnection, accounts: Sequence[tuple[UUID, FiledAccount]]) -> list[UUID]:
        """The references of people's payee accounts, in order: of the newest version where it is the same, else of a
        new one."""
        if not accounts:
            return []
        people = list({person for person, _ in accounts})
        await tx.execute(_LOCK_PEOPLE, {"people": people})  # two versions at the same moment would share a number
        rows = await tx.execute(_LATEST_ACCOUNTS, {"people": people})
        latest = {row.person: (row.version, bytes(row.account_index), row.ref) for row in rows}
        added, found = [], []
        for person, account in accounts:
            stated = json.dumps(account.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
            version, index, ref = latest.get(person, (0, b"", None))
            if ref is None or index not in self._vault.indexes(stated, b"payee_account"):
                ref, index = uuid4(), self._vault.index(stated, b"payee_account")
                latest[person] = version + 1, index, ref
                sealed = self._vault.seal(stated.encode(), context("payee_account", ref))
                added.append((ref, person, version + 1, index, sealed))
            found.append(ref)
        if added:
            await tx.execute(_ADD_ACCOUNTS, columns(("refs", "people", "versions", "indexes", "sealed"), added))
        return found

    async def is_named(self, tx: AsyncConnection, ref: UUID, name: str) -> bool:
        """Whether a person is on record under a name."""
        names = await self._names_of(tx, {ref})
        return any(index in names[ref] for index in self._vault.indexes(name, b"name"))

    async def merge(
        self, tx: AsyncConnection, pack: Pack, *, merged: UUID, into: UUID, caller: Principal, reason: str, today: date
    ) -> None:
        """Make one person of two: `merged` leads to `into` from now on, and its claims are theirs. `pack` tells of
        which benefits one may be had, `today` which certifications have run out. Raises NotFound, CannotMerge,
        ClaimsCollide."""
        rows = {}
        for ref in sorted({merged, into}):  # in order, so that two merges cannot wait for each other
            rows[ref] = (await tx.execute(_LOCK_TO_MERGE, {"ref": ref})).first()
        if not all(rows.values()):
            raise NotFound
        if merged == into or any(row.merged_into is not None for row in rows.values() if row):
            raise CannotMerge
        collide = await claims.colliding(tx, pack, merged, into, today)
        if collide:
            raise ClaimsCollide(cases=await _named_to(tx, collide, caller))
        await tx.execute(_MERGE, {"merged": merged, "into": into})
        await claims.move(tx, merged, into, today)
        entry = {"merged": merged, "into": into, "by": caller.subject, "reason": reason}
        await tx.execute(_RECORD_MERGE, entry)

    # -- inside

    async def _by_documents(self, tx: AsyncConnection, people: Iterable[FiledPerson]) -> dict[_DocumentKey, _Held]:
        """Who holds these documents; a document found under a retired key is given under the current one."""
        current: dict[_DocumentKey, _DocumentKey] = {}
        for one in people:
            for document in one.documents:
                for index in self._vault.indexes(document.number, b"document"):
                    current[document.type.value, index] = self._document_key(document)
        rows = await tx.execute(_BY_DOCUMENTS, {"indexes": list({index for _, index in current})})
        found = [((row.type, bytes(row.number_index)), _Held(row.person, row.claimed, row.id)) for row in rows]
        return {current[key]: held for key, held in found if key in current}

    async def _names_of(self, tx: AsyncConnection, refs: set[UUID]) -> dict[UUID, set[bytes]]:
        names: dict[UUID, set[bytes]] = {ref: set() for ref in refs}
        if refs:
            for row in await tx.execute(_NAMES, {"people": list(refs)}):
                names[row.person].add(bytes(row.name_index))
        return names

    def _seal_number(self, document: FiledDocument, ref: UUID) -> bytes:
        return self._vault.seal(document.number.encode(), context("person_document", ref))

    def _document_key(self, document: FiledDocument) -> _DocumentKey:
        return document.type.value, self._vault.index(document.number, b"document")


def context(table: str, ref: UUID) -> bytes:
    """What a sealed value is bound to: its table, and the reference that its row belongs to."""
    return f"{table}:{ref}".encode()


async def _named_to(tx: AsyncConnection, applications: Sequence[UUID], caller: Principal) -> str:
    """Applications by case number; those out of the caller's sight are only counted."""
    query = select(application.c.case_no).where(application.c.id.in_(applications)).order_by(application.c.case_no)
    seen = list((await tx.execute(visible(query, caller))).scalars())
    hidden = len(applications) - len(seen)
    return "、".join([*seen, f"其他平台 {hidden} 件"] if hidden else seen)


def _lock_key(key: _DocumentKey) -> int:
    return int.from_bytes(key[1][:8], "big", signed=True)
