"""Keeps an engine that everything rests on: one that dies is started again on its data, but not for ever."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from deploy.refusals import NotStarted

log = structlog.get_logger()

DEATHS = 5
WITHIN_SECONDS = 300.0
LOOK_SECONDS = 0.5


async def keep(what: str, *, alive: Callable[[], bool], start: Callable[[], Awaitable[object]]) -> None:
    """Start it again whenever it is not alive, until cancelled. Raises NotStarted at the fifth death in five minutes,
    a start that failed among them."""
    deaths: deque[float] = deque(maxlen=DEATHS)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if alive():
            continue
        deaths.append(time.monotonic())
        if len(deaths) == DEATHS and deaths[-1] - deaths[0] < WITHIN_SECONDS:
            raise NotStarted(f"{what} died {DEATHS} times in {deaths[-1] - deaths[0]:.0f} s; everything is stopped")
        await log.aerror("engine died and is started again", engine=what)
        try:
            await start()
        except NotStarted as error:
            await log.aerror("engine did not start", engine=what, said=str(error))
