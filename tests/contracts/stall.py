"""A database that can be made to hang: a relay before its Unix socket that stops to pass anything on."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url


class Stall:
    """While it lasts, neither question nor answer passes, and connections stay open: as when a host is paused."""

    def __init__(self, url: str) -> None:
        parts = make_url(url)
        self._target = f"{parts.query['host']}/.s.PGSQL.{parts.port or 5432}"
        self._goes = asyncio.Event()
        self._goes.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._folder = tempfile.TemporaryDirectory()

    def begin(self) -> None:
        self._goes.clear()

    def end(self) -> None:
        self._goes.set()

    def url(self, url: str) -> str:
        """The same address through here."""
        parts = make_url(url)
        through = parts.set(query={"host": self._folder.name}, port=5432)
        return through.render_as_string(hide_password=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Stall"]:
        server = await asyncio.start_unix_server(self._connected, Path(self._folder.name) / ".s.PGSQL.5432")
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._folder.cleanup()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._goes.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # either side is gone
        finally:
            sink.close()
