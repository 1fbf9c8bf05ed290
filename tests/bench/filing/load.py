"""A portal's clients: connections kept alive, requests made ready beforehand, each sent when the last was answered."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import Any

import uvloop

from tests.bench.journey.people import filings
from tests.bench.worker import ready, serve

ACCEPTED = b'"state":"accepted"'


def requests(token: str, first: int, count: int) -> Iterator[bytes]:
    """The filings of as many people, number `first` and those after it, whom no turn before this one filed."""
    for body in filings(first, count):
        head = (
            "POST /intake/v1/applications HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nIdempotency-Key: {uuid.uuid4().hex}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


async def client(port: int, made: Iterator[bytes], until: float) -> list[float]:
    """File one after another; gives the seconds that each took. Raises RuntimeError for any that is not accepted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    while time.perf_counter() < until:
        request = next(made, None)
        if request is None:
            raise RuntimeError("more was answered than was made ready")
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        took.append(time.perf_counter() - began)
        if not head.startswith("http/1.1 201") or ACCEPTED not in body:
            raise RuntimeError(f"{head.splitlines()[0]}: {body.decode()[:500]}")
    writer.close()
    return took


async def load(*, port: int, token: str, clients: int, seconds: float, first: int, most: int) -> dict[str, float]:
    """Let so many clients file for so long, at most so many."""
    made = iter(list(requests(token, first, most)))
    ready()
    began = time.perf_counter()
    done = await asyncio.gather(*(client(port, made, began + seconds) for _ in range(clients)))
    passed = time.perf_counter() - began
    took = sorted(second for each in done for second in each)
    return {
        "filings/s": len(took) / passed,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
    }


def work(**given: Any) -> dict[str, float]:
    """The process."""
    return uvloop.run(load(**given))


if __name__ == "__main__":
    serve(work)
