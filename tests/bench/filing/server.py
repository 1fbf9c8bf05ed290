"""Intake alone under uvicorn, as the product serves it, but for relay, ticker and consumer, which are measured apart.

`python -m tests.bench.filing.server '{"port": …, "home": …, "url": …, "with_database": …}'`
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from deploy.host import host
from libs.common import telemetry
from libs.common.connection import Connection
from libs.common.settings import Settings
from services.intake.api.group import GroupCommit
from services.intake.app import create
from tests.bench.filing.no_database import NoDatabase

NO_LIMIT = 1_000_000


class Quiet:
    """A service without its background work."""

    name = "intake"

    def __init__(self, settings: Settings, *, with_database: bool) -> None:
        self._service = create(settings)
        self.app: FastAPI = self._service.app
        if not with_database:
            self.app.state.group = GroupCommit(NoDatabase(), self.app.state.desk)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The packs are read; nothing else runs."""
        await self._service.packs.load()
        yield
        await self._service.database.close()


def serve(*, port: int, home: str, url: str, with_database: bool) -> None:
    """Serve until told to stop."""
    telemetry.configure()
    limits: dict[str, Any] = {"requests_per_second": NO_LIMIT, "requests_burst": NO_LIMIT}
    settings = Settings(home=Path(home), intake_database_url=url, bus_url=url, **limits)
    app = host(Quiet(settings, with_database=with_database))
    uvicorn.run(app, host="127.0.0.1", port=port, http=Connection, log_config=None, access_log=False)


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
