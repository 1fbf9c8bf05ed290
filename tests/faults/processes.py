"""Processes that are kept: one that dies is started again, as whoever supervises a deployment does."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

RESTART_SECONDS = 1.0
STOP_SECONDS = 20.0


class Kept:
    """A process under this name; `run` keeps it until cancelled, then stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path | None = None,
        stop_with: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._folder = folder
        self._stop_with = stop_with
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None while it is not there."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal. What is not there hears nothing."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def run(self) -> None:
        """Keep it."""
        while True:
            with suppress(OSError):  # its log lies on the disk that is full
                self._process = await self._started()
                try:
                    await self._process.wait()
                except asyncio.CancelledError:
                    await self._stop(self._process)
                    raise
            await asyncio.sleep(RESTART_SECONDS)

    async def _started(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *self._command,
                env=dict(self._environment),
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        for number, seconds in ((self._stop_with, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            self.send(number)
            self.send(signal.SIGCONT)  # a paused one would never hear the first
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), seconds)
                return
