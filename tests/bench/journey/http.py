"""HTTP as a system speaks it that calls us all day: connections kept open, nothing around the bytes."""

import asyncio
import json
import time
from typing import Any

IDLE_SECONDS = 2.0
"""A connection idle for longer is not used again: the server closes it after five."""


class Refused(Exception):
    """The platform's answer was a refusal: its status and its problem's code."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body.decode()[:500]}")
        self.status = status
        self.code = json.loads(body).get("code")


def request(
    method: str,
    path: str,
    token: str,
    *,
    body: bytes = b"",
    key: str | None = None,
    kind: str = "application/json",
) -> bytes:
    """A request, ready to be sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {token}"]
    lines += [f"Idempotency-Key: {key}"] if key else []
    lines += [f"Content-Type: {kind}"] if body else []
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Line:
    """One connection to a service, opened when it is first used and anew after an idle while."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._used = 0.0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, made: bytes) -> bytes:
        """The body of the answer. Raises Refused."""
        if self._writer is None or time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        assert self._reader is not None  # opened with the writer
        self._writer.write(made)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = await self._reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
        self._used = time.monotonic()
        status = int(head.split(" ", 2)[1])
        if status >= 300:  # whatever is no success
            raise Refused(status, body)
        return body

    async def get(self, path: str, token: str) -> Any:
        """The JSON at a path."""
        return json.loads(await self.send(request("GET", path, token)))

    async def post(self, path: str, token: str, body: Any, *, key: str) -> Any:
        """What is answered to JSON."""
        made = request("POST", path, token, body=json.dumps(body).encode(), key=key)
        return json.loads(await self.send(made))

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
