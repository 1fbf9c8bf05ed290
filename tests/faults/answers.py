"""What commands were answered: that is a promise. It is done, once, and the same again is answered alike."""

from collections import defaultdict

import httpx

from tests.faults.system import System

_KEPT = "SELECT key FROM idempotency WHERE status IS NOT NULL AND key = ANY($1)"


class Answers:
    """Every answer to a command under an Idempotency-Key. `violations` are answers that contradict an earlier one."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._bodies: dict[tuple[str, str], bytes] = {}
        self._done: set[tuple[str, str]] = set()

    async def hear(self, response: httpx.Response) -> None:
        """Keep an answer; a hook of httpx."""
        key = response.request.headers.get("Idempotency-Key")
        if key is None or not response.is_success:
            return
        command, body = (response.request.url.path, key), await response.aread()
        if self._bodies.setdefault(command, body) != body:
            self.violations.append(f"{command[0]} under key {key} was answered otherwise the second time")
        if "Idempotency-Replayed" not in response.headers:
            if command in self._done:
                self.violations.append(f"{command[0]} under key {key} was done twice")
            self._done.add(command)

    async def forgotten(self, system: System) -> list[str]:
        """Commands that were answered and of which the service knows nothing."""
        keys: dict[str, list[str]] = defaultdict(list)
        for path, key in self._bodies:
            keys[path.split("/", 2)[1]].append(key)
        found = []
        for service, answered in keys.items():
            connection = await system.postgres.connect(service)
            try:
                kept = {row["key"] for row in await connection.fetch(_KEPT, answered)}
            finally:
                await connection.close()
            found += [f"{service} answered key {key} and has forgotten it" for key in answered if key not in kept]
        return found
