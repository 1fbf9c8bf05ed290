"""What no query can judge: whether a sealed file is the one whose digest stands beside it, whether an instalment waits
for the day that follows from its policy, whether whoever was certified was on public notice where the policy says so.
A row at a time, in flat memory."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row as SqlRow
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.verify.looks import PAGE, Connections, Look, Scope, Tally
from libs.common.crypto import Vault, VaultError
from libs.common.policy import Instalment, Pack, PackRefused, PolicyError
from libs.common.policy.model import PublicNotice
from services.finance import batches, results
from services.finance.entitlements import INSTALMENT, plan
from services.finance.payouts import start_of_day

_BATCHES = "SELECT number AS record, NULL AS about, id, file, sha256 FROM payout_batch"
_RESULT_FILES = "SELECT treasury || ' ' || number AS record, NULL AS about, id, file, sha256 FROM bank_result_file"
_WAITING = f"""
    SELECT d.key AS record, d.at, now() AS now, i.number, e.application::text AS about, e.benefit, e.category,
           e.accepted_on, e.decided_on, e.policy_sha256
      FROM due AS d JOIN instalment AS i ON d.key = i.entitlement_id || '/' || i.number
      JOIN entitlement AS e ON e.id = i.entitlement_id
     WHERE d.kind = '{INSTALMENT}'
"""  # noqa: S608 - a name of our own
_CERTIFIED = """
    SELECT c.item::text AS record, c.application::text AS about, i.code, k.accepted_on, k.sha256,
           EXISTS (SELECT FROM public_notice AS n WHERE n.item = c.item AND n.proposed_at = i.proposed_at) AS noticed
      FROM certification AS c JOIN item AS i ON i.id = c.item JOIN cases AS k ON k.application = c.application
"""
_PACKS = text("SELECT sha256, body FROM policy_pack")

Flaw = Callable[[SqlRow[Any]], str | None]
"""What is wrong with a row, in words, or None."""


@dataclass(frozen=True)
class SealedFiles:
    """Each sealed file of finance opens, and is the one whose SHA-256 stands beside it."""

    name: str
    sql: str
    sealed_as: Callable[[UUID], bytes]
    vault: Vault

    @property
    def services(self) -> frozenset[str]:
        """See the protocol."""
        return frozenset(["finance"])

    async def look(self, connections: Connections, scope: Scope) -> Tally:
        """Open every file, one at a time."""
        return await _judged(connections["finance"], self.sql, self._flaw, scope, page=1)

    def _flaw(self, row: SqlRow[Any]) -> str | None:
        try:
            raw = self.vault.open(row.file, self.sealed_as(row.id))
        except VaultError as error:
            return f"{row.record}: {error}"
        same = hashlib.sha256(raw).hexdigest() == row.sha256
        return None if same else f"{row.record}: the file is not that of {row.sha256}"


class _Benefit(NamedTuple):
    """What decides the days of an entitlement, beside its policy."""

    benefit: str
    category: str
    accepted_on: date
    decided_on: date


@dataclass(frozen=True)
class InstalmentDays:
    """No instalment waits longer for its order than until the day that follows from its policy. Sooner is no harm: it
    is looked at then, and waits on."""

    name: str = "no instalment waits longer than until the day of its order"

    @property
    def services(self) -> frozenset[str]:
        """See the protocol."""
        return frozenset(["finance"])

    async def look(self, connections: Connections, scope: Scope) -> Tally:
        """Work out the day of each instalment that waits."""
        packs = await _packs(connections["finance"])

        @lru_cache(maxsize=PAGE)
        def planned(sha256: str, benefit: _Benefit) -> list[Instalment]:
            return plan(packs[sha256], benefit)

        def flaw(row: SqlRow[Any]) -> str | None:
            benefit = _Benefit(row.benefit, row.category, row.accepted_on, row.decided_on)
            try:
                by = start_of_day(planned(row.policy_sha256, benefit)[row.number - 1].order_on)
            except (KeyError, IndexError, PolicyError) as error:
                return f"{row.record}: its policy {row.policy_sha256} names no day ({error!r})"
            late = row.at > max(by, row.now)  # what was parked and released waits from then on
            return f"{row.record} waits until {row.at}, not {by}" if late else None

        return await _judged(connections["finance"], _WAITING, flaw, scope)


@dataclass(frozen=True)
class RequiredNotices:
    """Whoever was certified was on public notice before, where the policy requires it."""

    name: str = "every certification was on public notice where its policy requires it"

    @property
    def services(self) -> frozenset[str]:
        """See the protocol."""
        return frozenset(["workflow"])

    async def look(self, connections: Connections, scope: Scope) -> Tally:
        """Ask the policy of each certification."""
        packs = await _packs(connections["workflow"])

        def flaw(row: SqlRow[Any]) -> str | None:
            pack = packs.get(row.sha256)
            if pack is None:
                return f"{row.record}: its policy {row.sha256} is not here"
            rule = pack.find_rule(PublicNotice, row.code, on=row.accepted_on)
            missing = rule is not None and rule.required and not row.noticed
            return f"{row.record} was certified without a public notice" if missing else None

        return await _judged(connections["workflow"], _CERTIFIED, flaw, scope)


async def _packs(connection: AsyncConnection) -> dict[str, Pack]:
    """The packs that a service holds and this version can read, by hash; what rests on another is named by its look."""
    packs: dict[str, Pack] = {}
    for row in await connection.execute(_PACKS):
        with suppress(PackRefused):
            packs[row.sha256] = await asyncio.to_thread(Pack.stored, row.body)
    return packs


async def _judged(connection: AsyncConnection, sql: str, flaw: Flaw, scope: Scope, *, page: int = PAGE) -> Tally:
    tally = Tally()
    async with connection.stream(text(sql), execution_options={"yield_per": page}) as rows:
        async for row in rows:
            if row.about not in scope.aside:
                tally.count(row.record, flaw(row))
    return tally


def worked_out(vault: Vault) -> tuple[Look, ...]:
    """The looks; `vault` is what finance seals with."""
    return (
        SealedFiles("every bank file is the one that was made", _BATCHES, batches.sealed_as, vault),
        SealedFiles("every result file is the one that the bank sent", _RESULT_FILES, results.sealed_as, vault),
        InstalmentDays(),
        RequiredNotices(),
    )
