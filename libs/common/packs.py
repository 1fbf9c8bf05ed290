"""The policy packs that a service keeps: loaded from the deployment's folder, stored by hash, never changed.

A stored pack stays readable for good, so what was decided under it can be explained later. The same version with other
content refuses to start (DESIGN §6).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy import Column, DateTime, LargeBinary, MetaData, Table, Text, UniqueConstraint, func, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.db import Database
from libs.common.events import Event
from libs.common.inbox import Early, cause, wake
from libs.common.migration import APPEND_ONLY
from libs.common.policy import Pack, PackIdentity, load_pack

_STORE = text("""
    INSERT INTO policy_pack (sha256, city, version, body) VALUES (:sha256, :city, :version, :body)
    ON CONFLICT DO NOTHING
""")
_STORED = text("SELECT sha256 FROM policy_pack WHERE city = :city AND version = :version")
_ALL = text("SELECT body FROM policy_pack ORDER BY stored_at, sha256")


class PackChanged(Exception):
    """A version that is stored already has other content now. Publish a new version instead."""


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

    async def load(self) -> None:
        """Store the folder's packs and read every stored one. Raises PackRefused, PackChanged; LookupError where there
        is none: nothing could be decided."""
        found = [load_pack(path) for path in sorted(self._folder.glob("*/*.yaml"))]
        async with self._database.transaction() as tx:
            for pack in found:
                await store(tx, pack)
            for body in (await tx.execute(_ALL)).scalars():
                self._keep(Pack.parse(body))
        if not self._by_hash:
            raise LookupError(f"no policy pack: neither stored, nor as <city>/<version>.yaml below {self._folder}")

    def _keep(self, pack: Pack) -> None:
        self._by_hash[pack.identity.sha256] = pack

    def get(self, identity: PackIdentity) -> Pack:
        """The pack that something was decided under. Raises LookupError if this service does not hold it."""
        try:
            return self._by_hash[identity.sha256]
        except KeyError:
            raise LookupError(f"the pack {identity} is not stored here") from None

    def for_events(self, events: Sequence[Event]) -> dict[PackIdentity, Pack]:
        """The packs of a batch. Raises Early for events whose pack has not arrived yet: its arrival releases them."""
        unknown = {e.id: cause("pack", e.policy.sha256) for e in events if e.policy.sha256 not in self._by_hash}
        if unknown:
            raise Early(unknown)
        return {event.policy: self.get(event.policy) for event in events}

    def current(self, city: str | None = None) -> Pack:
        """The newest pack of a city; the city may be left out where there is one. Raises LookupError."""
        cities = {pack.city for pack in self._by_hash.values()}
        if city is None and len(cities) != 1:
            raise LookupError(f"name the city: this deployment serves {', '.join(sorted(cities)) or 'none'}")
        mine = [pack for pack in self._by_hash.values() if city is None or pack.city == city]
        if not mine:
            raise LookupError(f"no pack of the city {city!r}")
        return max(mine, key=lambda pack: (pack.in_force_from, pack.version))

    def all(self) -> Iterable[Pack]:
        """Every pack held."""
        return tuple(self._by_hash.values())


async def store(tx: AsyncConnection, pack: Pack) -> None:
    """Store a pack and wake what waits for it. Raises PackChanged."""
    identity = pack.identity
    await tx.execute(_STORE, {**identity.model_dump(), "body": pack.source})
    held = (await tx.execute(_STORED, {"city": identity.city, "version": identity.version})).scalar_one()
    if held != identity.sha256:
        raise PackChanged(f"{identity.city}/{identity.version} is stored as {held[:12]}, the file is {identity}")
    await wake(tx, [cause("pack", identity.sha256)])
