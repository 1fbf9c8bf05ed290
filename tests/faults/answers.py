"""What commands were answered: that is a promise. It is done, once, and the same again is answered alike."""

import re
from collections import defaultdict, deque

import httpx

from tests.faults.system import System

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
LAST = 40
"""So many commands of a kind are asked again at the end."""

_KEPT = "SELECT key FROM idempotency WHERE status IS NOT NULL AND key = ANY($1)"


class Answers:
    """Every answer to a command under an Idempotency-Key. `violations` are answers that contradict an earlier one."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._bodies: dict[tuple[str, str], bytes] = {}
        self._done: set[tuple[str, str]] = set()
        self._asked: dict[str, deque[httpx.Request]] = defaultdict(lambda: deque(maxlen=LAST))

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
        self._asked[_ID.sub("{id}", command[0])].append(response.request)

    async def again(self, http: httpx.AsyncClient) -> list[str]:
        """Ask the last commands of each kind again, as somebody does who lost the answers; `http` tells what it hears
        to `hear`. Gives what is refused now: what became of the record since is no reason."""
        found = []
        for request in [request for asked in self._asked.values() for request in asked]:
            response = await http.send(request)
            if not response.is_success:
                key = request.headers["Idempotency-Key"]
                found.append(f"{request.url.path} under key {key} was done and is refused now: {response.text}")
        return found

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
