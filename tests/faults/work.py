"""Where work waits, looked up in the databases: officers who ask for it over REST would be most of the load."""

from contextlib import suppress

import asyncpg

from tests.faults.engines import AWAY, DrillPostgres


class Waiting:
    """One query of one service's database."""

    def __init__(self, postgres: DrillPostgres, service: str, sql: str) -> None:
        self._postgres = postgres
        self._service = service
        self._sql = sql
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def rows(self) -> list[asyncpg.Record]:
        """What waits; nothing while the database is away."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._postgres.connect(self._service)
            return await self._connection.fetch(self._sql)
        except AWAY:
            await self.close()
            return []

    async def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection:
            with suppress(*AWAY):
                await connection.close(timeout=1)
