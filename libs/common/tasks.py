"""Background tasks: how they wait and how they know that they are being stopped."""

import asyncio


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
