"""Gathering: what is asked while an answer is under way is answered together next, for the price of one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from libs.common.tasks import being_stopped, ended

A = TypeVar("A")
B = TypeVar("B")


class Gathering(Generic[A, B]):
    """`answer` takes what has gathered, `most` at a time, and gives to each its answer or its error, in order. Where
    it raises, that is everybody's error."""

    def __init__(self, answer: Callable[[Sequence[A]], Awaitable[Sequence[B | Exception]]], *, most: int) -> None:
        self._answer = answer
        self._most = most
        self._waiting: list[tuple[A, asyncio.Future[B]]] = []
        self._answering: asyncio.Task[None] | None = None

    async def ask(self, one: A) -> B:
        """The answer. Whoever is cancelled while it waits is left out; an answer that is under way goes on."""
        mine: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, mine))
        if self._answering is None:
            self._answering = asyncio.create_task(self._run(), name="gathering")
        return await mine

    async def stop(self) -> None:
        """Break off what is under way; whoever waits is cancelled."""
        for _, mine in self._waiting:
            mine.cancel()
        if self._answering is not None:
            await ended([self._answering])

    async def _run(self) -> None:
        group: list[tuple[A, asyncio.Future[B]]] = []
        try:
            while self._waiting:
                waiting = [each for each in self._waiting if not each[1].done()]
                group, self._waiting = waiting[: self._most], waiting[self._most :]
                if group:
                    _tell(group, await self._answered([one for one, _ in group]))
        finally:
            self._answering = None
            for _, mine in group:
                mine.cancel()  # no effect where it has been told

    async def _answered(self, group: Sequence[A]) -> Sequence[B | Exception | None]:
        try:
            return await self._answer(group)
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked
            return [error for _ in group]
        except asyncio.CancelledError:
            if being_stopped():
                raise
            return [None for _ in group]  # a library's own, which no future holds


def _tell(group: "Sequence[tuple[A, asyncio.Future[B]]]", answers: Sequence[B | Exception | None]) -> None:
    for (_, mine), answer in zip(group, answers, strict=True):
        if mine.done():  # whoever asked has gone
            continue
        if answer is None:
            mine.cancel()
        elif isinstance(answer, Exception):
            mine.set_exception(answer)
        else:
            mine.set_result(answer)
