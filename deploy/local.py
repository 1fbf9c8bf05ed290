"""The development deployment: engines, settings and keys of one machine, all below one home folder."""

import asyncio
import fcntl
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import MetaData

from deploy.engine import SERVICES, EmbeddedPostgres
from libs.common.bus.postgres import create_schema
from libs.common.events import TOPICS
from libs.common.migration import upgrade
from libs.common.settings import PREFIX, Settings

TOGETHER_PORT = 8000
PARTITIONS = 6


class Refusal(Exception):  # it says what is so, and the operator mends it
    """The command cannot do what it was asked: one line that says why, and what to do."""


class PortTaken(Refusal):
    """Something else listens on a port that is needed."""


class NotStarted(Refusal):
    """A service refused to start; the message says why."""


@dataclass(frozen=True)
class Addresses:
    """Where each service answers: all at one port, or each at its own."""

    port: int
    together: bool

    def of(self, service: str) -> str:
        """Base address of a service, without its `/<service>/v1`."""
        return f"http://127.0.0.1:{self.port_of(service)}"

    def port_of(self, service: str) -> int:
        """Its port: p together; alone p+1 … p+5 in the order of SERVICES. Raises LookupError."""
        if service not in SERVICES:
            raise LookupError(f"no service {service!r}: one of {', '.join(SERVICES)}")
        return self.port if self.together else self.port + 1 + SERVICES.index(service)


class Local:
    """One machine's deployment. `prepare` makes or finds everything; `close` stops what runs."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.postgres = EmbeddedPostgres(self.home / "pg")
        self._lock: IO[str] | None = None

    def claim(self, form: str) -> None:
        """Take the home for this process and one form. Its databases count what they have read of one bus, so the
        other form needs a home of its own. Raises NotStarted."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._lock = (self.home / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise NotStarted(f"another system runs on {self.home}; stop it, or choose another HUANQUAN_HOME") from error
        held = self.home / "form"
        if not held.exists():
            held.write_text(form)
        if held.read_text() != form:
            self.release()
            other = f"{self.home} holds data of the other form ({held.read_text()}, not {form})"
            raise NotStarted(f"{other}; choose another HUANQUAN_HOME, or remove it with `huanquan clean`")

    async def prepare(self) -> None:
        """Start the engine; make databases and roles; bring every schema up to date."""
        self.home.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.postgres.start)
        await self.postgres.provision()
        for service in SERVICES:
            await asyncio.to_thread(upgrade, service, self.postgres.owner_url(service), metadata_of(service))
        await create_schema(self.postgres.owner_url("bus"), topics=TOPICS, partitions=PARTITIONS, app_role="bus_app")

    def environment(self, addresses: Addresses, *, kafka: str | None = None) -> dict[str, str]:
        """The `HUANQUAN_…` variables of this deployment."""
        made = {
            "HOME": str(self.home),
            "BUS": "kafka" if kafka else "postgres",
            "BUS_URL": self.postgres.app_url("bus"),
            "INTAKE_URL": addresses.of("intake"),
            **({"KAFKA": kafka} if kafka else {}),
        }
        for service in SERVICES:
            made[f"{service.upper()}_DATABASE_URL"] = self.postgres.app_url(service)
            made[f"{service.upper()}_MIGRATION_URL"] = self.postgres.owner_url(service)
        return {PREFIX + name: value for name, value in made.items()}

    def settings(self, addresses: Addresses, *, kafka: str | None = None) -> Settings:
        """The same as settings, for services in this process."""
        os.environ.update(self.environment(addresses, kafka=kafka))
        return Settings()

    async def close(self) -> None:
        """Stop the engine; its data stays."""
        await asyncio.to_thread(self.postgres.stop)
        self.release()

    def release(self) -> None:
        """Let another process take the home."""
        if self._lock:
            self._lock.close()
            self._lock = None

    # -- what runs now

    @property
    def _note(self) -> Path:
        return self.home / "running.json"

    def announce(self, addresses: Addresses, *, kafka: str | None = None) -> None:
        """Leave word of what runs here, for the commands that talk to it."""
        self.home.mkdir(parents=True, exist_ok=True)
        note = {"pid": os.getpid(), "port": addresses.port, "together": addresses.together, "kafka": kafka}
        self._note.write_text(json.dumps(note))

    def announced(self) -> tuple[Addresses, str | None]:
        """Addresses and brokers of what was announced last; the defaults where nothing was."""
        try:
            note = json.loads(self._note.read_text())
        except FileNotFoundError:
            return Addresses(TOGETHER_PORT, together=True), None
        return Addresses(note["port"], note["together"]), note["kafka"]

    def announced_pid(self) -> int:
        """Process id of what was announced last; our own where nothing was."""
        try:
            return int(json.loads(self._note.read_text())["pid"])
        except FileNotFoundError:
            return os.getpid()


def metadata_of(service: str) -> MetaData:
    """The tables of a service."""
    found: MetaData = importlib.import_module(f"services.{service}.models").metadata
    return found


def home_of_environment() -> Path:
    """`HUANQUAN_HOME`, by default `.huanquan` here."""
    return Path(os.environ.get(f"{PREFIX}HOME", ".huanquan"))


def deployed_settings() -> Settings | None:
    """The settings of the environment where it names databases (a real deployment), else None."""
    settings = Settings()
    return settings if settings.intake_database_url else None
