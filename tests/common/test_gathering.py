"""What is asked while an answer is under way is answered together next."""

import asyncio
from collections.abc import Sequence

import pytest

from libs.common.gathering import Gathering


class Oracle:
    """Answers with what was asked, once it is let; refuses 13, and fails as a whole where 0 is asked."""

    def __init__(self) -> None:
        self.heard: list[list[int]] = []
        self.speaks = asyncio.Event()

    async def answer(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.heard.append(list(numbers))
        await self.speaks.wait()
        if 0 in numbers:
            raise OSError("away")
        return [ValueError("13") if number == 13 else number for number in numbers]

    async def asked(self, gathering: Gathering[int, int], *numbers: int) -> "list[asyncio.Task[int]]":
        """The first of these under way, the others behind it."""
        tasks = [asyncio.create_task(gathering.ask(numbers[0]))]
        while not self.heard:  # noqa: ASYNC110 - a step of the loop at a time
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(gathering.ask(number)) for number in numbers[1:]]
        await asyncio.sleep(0)
        return tasks


async def test_what_gathers_is_answered_together_at_most_so_many_at_a_time() -> None:
    oracle = Oracle()
    tasks = await oracle.asked(Gathering(oracle.answer, most=3), 1, 2, 3, 4, 5)
    oracle.speaks.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]
    assert oracle.heard == [[1], [2, 3, 4], [5]]


async def test_an_error_of_one_is_its_own_and_a_failure_is_everybodys() -> None:
    oracle = Oracle()
    gathering = Gathering(oracle.answer, most=2)
    tasks = await oracle.asked(gathering, 1, 13, 2, 0, 3)
    oracle.speaks.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in told] == [int, ValueError, int, OSError, OSError]
    assert await gathering.ask(4) == 4


async def test_whoever_goes_while_it_waits_is_left_out() -> None:
    oracle = Oracle()
    tasks = await oracle.asked(Gathering(oracle.answer, most=3), 1, 2, 3)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.sleep(0)
    oracle.speaks.set()
    assert await tasks[2] == 3
    assert oracle.heard == [[1], [3]]


async def test_whoever_waits_for_what_is_broken_off_waits_no_longer() -> None:
    oracle = Oracle()
    gathering = Gathering(oracle.answer, most=3)
    tasks = await oracle.asked(gathering, 1, 2)
    await gathering.stop()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task
