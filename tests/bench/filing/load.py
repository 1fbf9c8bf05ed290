"""A portal's clients: connections kept alive, requests made ready beforehand, each sent when the last was answered."""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator

import uvloop

from tests.bench.worker import ready, serve
from tests.intake.builders import a_filing, a_handler, an_employer

MOST_PER_SECOND = 2_500
EMPLOYERS = 50


def requests(token: str, count: int) -> Iterator[bytes]:
    """Filings of as many people, of fifty employers, each by its handler."""
    employers = [{"employer": an_employer(), "handler": a_handler()} for _ in range(EMPLOYERS)]
    for number in range(count):
        body = json.dumps(a_filing(**employers[number % EMPLOYERS]), ensure_ascii=False).encode()
        head = (
            "POST /intake/v1/applications HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nIdempotency-Key: {uuid.uuid4().hex}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


async def client(port: int, made: Iterator[bytes], until: float) -> list[float]:
    """File one after another; gives the seconds that each took. Raises RuntimeError for any answer but 201."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    while time.perf_counter() < until:
        request = next(made, None)
        if request is None:
            raise RuntimeError("more was answered than was made ready: raise MOST_PER_SECOND")
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        took.append(time.perf_counter() - began)
        if not head.startswith("http/1.1 201"):
            raise RuntimeError(f"{head.splitlines()[0]}: {body.decode()[:500]}")
    writer.close()
    return took


async def load(*, port: int, token: str, clients: int, seconds: float) -> dict[str, float]:
    """Let so many clients file for so long."""
    made = iter(list(requests(token, int(seconds * MOST_PER_SECOND))))
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


def work(*, port: int, token: str, clients: int, seconds: float) -> dict[str, float]:
    """The process."""
    return uvloop.run(load(port=port, token=token, clients=clients, seconds=seconds))


if __name__ == "__main__":
    serve(work)
