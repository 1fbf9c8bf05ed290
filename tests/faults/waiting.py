"""Waiting with a bound."""

import asyncio
from collections.abc import Awaitable, Callable

LOOK_SECONDS = 0.3


async def until(true: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    """Wait until it is true. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            if await true():
                return
            await asyncio.sleep(LOOK_SECONDS)
