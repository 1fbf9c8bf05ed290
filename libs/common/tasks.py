"""Background tasks: how they wait, how they know that they are being stopped, and how one that stands still shows."""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any

# Longer than a long poll, than a publish waits for a lost broker, and than a batch waits for its turn in a backlog.
SILENT_SECONDS = 60.0


class Pulse:
    """When a job last went on. A job that hangs, fails for ever or has died shows by its age, whichever it is."""

    def __init__(self) -> None:
        self._at: float | None = None

    def begin(self) -> None:
        """Count from now on, unless it is counted already: beginning again after a failure is no progress."""
        if self._at is None:
            self.beat()

    def beat(self) -> None:
        """The job went on: a turn of its loop did what it is for."""
        self._at = monotonic()

    def stop(self) -> None:
        """The job is not this process's at present."""
        self._at = None

    @property
    def began(self) -> bool:
        """Whether it is counted."""
        return self._at is not None

    @property
    def age(self) -> float:
        """Seconds since it last went on; 0 while it is not counted."""
        return 0.0 if self._at is None else monotonic() - self._at

    @property
    def silent(self) -> bool:
        """Whether it has stood still for longer than any turn takes."""
        return self.age > SILENT_SECONDS


def being_stopped() -> bool:
    """Whether a CancelledError in hand is meant for this task; a library's own, surfacing here, is a failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; False when the time is over. Before Python 3.12 `wait_for` swallows a cancellation that comes
    in the moment in which the event is set, and the task that was to stop goes on for ever."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def ended(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    """Cancel tasks and wait until none of them goes on, however each ends."""
    going = list(tasks)
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
