"""The policy packs that a service keeps: loaded from the deployment's folder or published to its database, stored by
hash, never changed.

A stored pack stays readable for good, so what was decided under it can be explained later. The same version with other
content refuses to start (DESIGN §6). A running process looks for packs that were published (`follow`).
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Column, DateTime, LargeBinary, MetaData, Row, Table, Text, UniqueConstraint, func, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import Database
from libs.common.events import Event
from libs.common.inbox import Early, cause, wake
from libs.common.migration import APPEND_ONLY
from libs.common.policy import Pack, PackIdentity, PackRefused, load_pack
from libs.common.tasks import being_stopped
from libs.common.ticker import Awaited

log = structlog.get_logger()

LOOK_SECONDS = 2.0

_PARTS = re.compile(r"[0-9]+|[A-Za-z]+")

_STORE = text("""
    INSERT INTO policy_pack (sha256, city, version, body) VALUES (:sha256, :city, :version, :body)
    ON CONFLICT DO NOTHING
""")
_STORED = text("SELECT sha256 FROM policy_pack WHERE city = :city AND version = :version")
_OTHER_CITIES = text("SELECT DISTINCT city FROM policy_pack WHERE city <> :city ORDER BY city")
_NEW = text("""
    SELECT sha256, city, version, body FROM policy_pack WHERE sha256 <> ALL(CAST(:known AS text[]))
     ORDER BY stored_at, sha256
""")


class PackNotHere(Awaited):
    """A pack has not come to this process yet, or it is too old to read it: an error of the moment, which due work
    waits out (`keys` names it where the handler does)."""

    def __init__(self, identity: PackIdentity, keys: Collection[str] = ()) -> None:
        super().__init__(f"the pack {identity} is not here", cause("pack", identity.sha256), keys)


class PackChanged(Exception):
    """A version that is stored already has other content now. Publish a new version instead."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A stored pack that this process is too old to read: what it may know is when another must be asked."""

    identity: PackIdentity
    in_force_from: date

    @property
    def city(self) -> str:
        """As a pack has it."""
        return self.identity.city

    @property
    def version(self) -> str:
        """As a pack has it."""
        return self.identity.version


def policy_pack_table(metadata: MetaData) -> Table:
    """The table of stored packs; called once in a service's `models.py`."""
    return Table(
        "policy_pack",
        metadata,
        Column("sha256", Text, primary_key=True),
        Column("city", Text, nullable=False),
        Column("version", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("stored_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        UniqueConstraint("city", "version"),
        info=APPEND_ONLY,
    )


class Packs:
    """A service's packs, kept parsed. `load` runs before the service takes its first request or event."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._by_hash: dict[str, Pack] = {}
        self._sealed: dict[str, Sealed] = {}

    async def load(self) -> None:
        """Store the folder's packs and read every stored one. Raises PackRefused, PackChanged."""
        found = [load_pack(path) for path in sorted(self._folder.glob("*/*.yaml"))]
        async with self._database.transaction() as tx:
            for pack in found:
                await check_city(tx, pack)
                await store(tx, pack)
                self._by_hash[pack.identity.sha256] = pack
            for row in (await tx.execute(_NEW, {"known": list(self._by_hash)})).all():
                await self._keep(row)

    async def follow(self) -> None:
        """Take in what is published, until cancelled."""
        while not being_stopped():
            await asyncio.sleep(LOOK_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Take in the packs that were published since, and wake what waits for them."""
        known = [*self._by_hash, *self._sealed]
        async with self._database.transaction() as tx:
            for row in (await tx.execute(_NEW, {"known": known})).all():
                if await self._keep(row):
                    # Whoever published it woke what waits too, maybe before this process had the pack.
                    await wake(tx, [cause("pack", row.sha256)])

    async def _keep(self, row: Row[Any]) -> bool:
        """Hold a stored pack. One that this process cannot read, being older than the pack, is told of once: what rests
        on it waits."""
        try:
            self._by_hash[row.sha256] = await asyncio.to_thread(Pack.stored, row.body)
        except PackRefused as error:
            identity = PackIdentity(city=row.city, version=row.version, sha256=row.sha256)
            self._sealed[row.sha256] = Sealed(identity, Pack.begins(row.body) or date.max)
            await log.aerror("a stored pack cannot be read here", pack=row.sha256, error=str(error))
            return False
        return True

    def get(self, identity: PackIdentity) -> Pack:
        """The pack that something was decided under. Raises PackNotHere."""
        found = self.find(identity.sha256)
        if found is None:
            raise PackNotHere(identity)
        return found

    def need(self, by_key: Mapping[str, PackIdentity]) -> None:
        """Raises PackNotHere, with the keys of all due work that rests on a pack that is not here."""
        for missing in by_key.values():
            if missing.sha256 not in self._by_hash:
                raise PackNotHere(missing, [key for key, identity in by_key.items() if identity == missing])

    def find(self, sha256: str) -> Pack | None:
        """The pack of this hash, or None."""
        return self._by_hash.get(sha256)

    def for_events(self, events: Sequence[Event]) -> dict[PackIdentity, Pack]:
        """The packs of a batch. Raises Early for events whose pack has not arrived yet: its arrival releases them."""
        unknown = {e.id: cause("pack", e.policy.sha256) for e in events if e.policy.sha256 not in self._by_hash}
        if unknown:
            raise Early(unknown)
        return {event.policy: self.get(event.policy) for event in events}

    def on(self, day: date, city: str | None = None) -> Pack:
        """The pack of a city in force on a day (`in_force`). The city may be left out where there is one. Raises
        LookupError, PackNotHere."""
        found = self.find_on(day, city)
        if found is None:
            raise LookupError(f"no pack is in force on {day}")
        return found

    def find_on(self, day: date, city: str | None = None) -> Pack | None:
        """As `on`, or None before the first pack's day. Raises LookupError where the city has to be named, PackNotHere
        where this process cannot read the pack of that day: by an earlier one it would decide wrongly."""
        stored: list[Pack | Sealed] = [*self._by_hash.values(), *self._sealed.values()]
        cities = {pack.city for pack in stored}
        if city is None and len(cities) != 1:
            raise LookupError(f"name the city: this deployment serves {', '.join(sorted(cities)) or 'none'}")
        found = in_force((pack for pack in stored if city in {None, pack.city}), day)
        if isinstance(found, Sealed):
            raise PackNotHere(found.identity)
        return found

    def all(self) -> Iterable[Pack]:
        """Every pack held."""
        return tuple(self._by_hash.values())


P = TypeVar("P", bound=Pack | Sealed)


def in_force(packs: Iterable[P], day: date) -> P | None:
    """Of a city's packs that begin on a day or before, the one that begins last, and of several that begin on one day
    the highest version (2021-10 is above 2021-4); None before the first."""
    begun = [pack for pack in packs if pack.in_force_from <= day]
    return max(begun, key=lambda pack: (pack.in_force_from, version_order(pack.version)), default=None)


def version_order(version: str) -> list[tuple[int, str]]:
    """Versions in the order in which people count: numbers by their value, whoever stored which of them first."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in _PARTS.findall(version)]


async def check_city(tx: AsyncConnection, pack: Pack) -> None:
    """Raises PackChanged where the database serves another city: a pack is never taken back."""
    others = (await tx.execute(_OTHER_CITIES, {"city": pack.city})).scalars().all()
    if others:
        raise PackChanged(f"this deployment serves {', '.join(others)}, the pack is of {pack.city}")


async def check_version(tx: AsyncConnection, pack: Pack) -> None:
    """Raises PackChanged where the pack's version is stored with other content."""
    identity = pack.identity
    held = (await tx.execute(_STORED, {"city": identity.city, "version": identity.version})).scalar()
    if held not in {None, identity.sha256}:
        stored = f"{identity.city}/{identity.version} is stored as {held[:12]}"
        raise PackChanged(f"{stored}, the file is {identity}: a changed policy is a new version")


async def store(tx: AsyncConnection, pack: Pack) -> None:
    """Store a pack and wake what waits for it. Raises PackChanged."""
    identity = pack.identity
    await tx.execute(_STORE, {**identity.model_dump(), "body": pack.source})
    await check_version(tx, pack)
    await wake(tx, [cause("pack", identity.sha256)])
