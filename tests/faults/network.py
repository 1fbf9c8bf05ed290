"""The network between: Toxiproxy in front of the database of each process and in front of each broker, and a balancer
in front of the two processes of each service."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from deploy.refusals import NotStarted

VERSION = "v2.8.0"  # the last that Debian 12's Go compiles
PACKAGE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
CHUNK = 65536


def toxiproxy_binary() -> Path:
    """Toxiproxy's server, compiled at its first use. Raises NotStarted."""
    cache = Path(os.environ.get("HUANQUAN_CACHE") or Path.home() / ".cache" / "huanquan")
    folder = (cache / f"toxiproxy-{VERSION}").absolute()
    binary = folder / "server"
    if not binary.exists():
        if shutil.which("go") is None:
            raise NotStarted("'go' is missing, to compile Toxiproxy with; on Debian: apt-get install -y golang-go")
        done = subprocess.run(
            ["go", "install", PACKAGE],
            env={**os.environ, "GOBIN": str(folder)},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotStarted(f"Toxiproxy could not be compiled:\n{done.stderr}")
    return binary


class Toxiproxy:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5)

    async def answers(self) -> bool:
        """Whether it is there."""
        try:
            return (await self._http.get("/version")).is_success
        except httpx.TransportError:
            return False

    async def add(self, name: str, listen: int, upstream: int) -> None:
        """A way from one port of loopback to another."""
        await self._post("/proxies", name=name, listen=f"127.0.0.1:{listen}", upstream=f"127.0.0.1:{upstream}")

    @asynccontextmanager
    async def cut(self, name: str) -> AsyncIterator[None]:
        """Nothing comes through, either way, and nobody is told."""
        async with self._toxic(name, "timeout", timeout=0):
            yield

    @asynccontextmanager
    async def reset(self, name: str) -> AsyncIterator[None]:
        """Every connection is reset."""
        async with self._toxic(name, "reset_peer", timeout=0):
            yield

    @asynccontextmanager
    async def slow(self, name: str, milliseconds: int) -> AsyncIterator[None]:
        """Everything takes longer, either way, some of it twice as long."""
        async with self._toxic(name, "latency", latency=milliseconds, jitter=milliseconds):
            yield

    @asynccontextmanager
    async def _toxic(self, name: str, kind: str, **attributes: int) -> AsyncIterator[None]:
        streams = ("upstream", "downstream")
        for stream in streams:
            await self._post(f"/proxies/{name}/toxics", name=stream, type=kind, stream=stream, attributes=attributes)
        try:
            yield
        finally:
            for stream in streams:
                (await self._http.delete(f"/proxies/{name}/toxics/{stream}")).raise_for_status()

    async def _post(self, path: str, **body: Any) -> None:
        (await self._http.post(path, json=body)).raise_for_status()

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()


class Balancer:
    """One address for the processes of a service: each connection goes to the next process that takes it."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Balance for as long as this lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for port in self._in_turn():
                with suppress(OSError):
                    beyond = await asyncio.open_connection("127.0.0.1", port)
                    await _joined((reader, writer), beyond)
                    return
        finally:
            writer.close()

    def _in_turn(self) -> list[int]:
        self._ports.append(self._ports.pop(0))
        return list(self._ports)


async def _joined(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    there, back = (asyncio.create_task(_pump(one[0], other[1])), asyncio.create_task(_pump(other[0], one[1])))
    try:
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        there.cancel()
        back.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        other[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
