"""How far the sample run is: a bar for each phase on a terminal, else a line when one begins and when it is done."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Phases:
    """Told by each call what is under way, how much of it is done, of how much."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._told: set[tuple[str, int]] = set()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it."""
        begins = what not in self._tasks
        if begins:
            self._tasks[what] = self._bars.add_task(what)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if self._console.is_terminal:
            return
        if begins:
            self._console.print(f"{what} …", soft_wrap=True)
        if done == total and (what, total) not in self._told:
            self._told.add((what, total))
            self._console.print(f"{what}: {done} of {total}", soft_wrap=True)
