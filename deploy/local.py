"""The development deployment: engines, settings and keys of one machine, all below one home folder."""

import asyncio
import fcntl
import importlib
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import psutil
from sqlalchemy import MetaData

from deploy.engine import SERVICES, EmbeddedPostgres, check_service
from deploy.refusals import NotStarted, Refusal
from libs.common.bus.postgres import create_schema
from libs.common.events import TOPICS
from libs.common.migration import upgrade
from libs.common.settings import PREFIX, Settings

TOGETHER_PORT = 8000
PARTITIONS = 6
FORMS = ("together", "apart")
OURS = (
    *("form", "lock", "running.json", "huanquan.log", *(f"{service}.log" for service in SERVICES)),
    *("pg", "kafka", "issuer", "vault.key", "anchors", "sample-people.json", "restored"),
)
"""All that is ever written into a home."""

STOP_SECONDS = 90.0
LOCK_TRIES, LOCK_PAUSE = 3, 0.1


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
        check_service(service)
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
        self._take_lock()
        held = self.home / "form"
        if not held.exists():
            held.write_text(form)
        if held.read_text() != form:
            self.release()
            other = f"{self.home} holds data of the other form ({held.read_text()}, not {form})"
            raise NotStarted(f"{other}; choose another HUANQUAN_HOME, or remove it with `huanquan clean`")

    def _take_lock(self) -> None:
        self._lock = (self.home / "lock").open("a+")
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(LOCK_PAUSE)  # somebody only looks who holds it
            else:
                self._lock.truncate(0)
                self._lock.write(str(os.getpid()))
                self._lock.flush()
                return
        self.release()
        raise NotStarted(f"another system runs on {self.home}; stop it, or choose another HUANQUAN_HOME")

    def is_held(self) -> bool:
        """Whether a process holds the home, this one included."""
        with suppress(FileNotFoundError), (self.home / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def holder(self) -> psutil.Process | None:
        """The process that holds the home: it wrote its id into the lock, and has the lock open."""
        lock = self.home / "lock"
        with suppress(FileNotFoundError, ValueError, psutil.Error):
            process = psutil.Process(int(lock.read_text()))
            if self.is_held() and str(lock) in {file.path for file in process.open_files()}:
                return process
        return None

    async def prepare(self, stop: asyncio.Event | None = None) -> None:
        """Start the engine; make databases and roles; bring every schema up to date. Breaks off where `stop` is set."""
        steps: list[Callable[[], Awaitable[None]]] = [
            partial(asyncio.to_thread, self.postgres.start),
            self.postgres.provision,
            *(partial(asyncio.to_thread, self._upgrade, service) for service in SERVICES),
            self._make_bus,
        ]
        for step in steps:
            if stop is None or not stop.is_set():
                await step()

    def _upgrade(self, service: str) -> None:
        upgrade(service, self.postgres.owner_url(service), metadata_of(service))

    async def _make_bus(self) -> None:
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

    # -- restored from a backup

    @property
    def restored(self) -> Path:
        """Stands in a restored home whose bus lies elsewhere until the two were compared: the bus may know more than
        the databases do now, or less."""
        return self.home / "restored"

    # -- removing it

    def stop_holder(self) -> None:
        """Ask whoever runs on the home to stop, wait until it has, and hold the home. Raises Refusal."""
        holder, until = self.holder(), time.monotonic() + STOP_SECONDS
        if holder:
            with suppress(psutil.NoSuchProcess):
                holder.terminate()
            while self.is_held() and time.monotonic() < until:
                time.sleep(LOCK_PAUSE)
        self._take_lock()

    def check_removable(self) -> None:
        """Refuse a folder that is not a home: it holds neither a cluster nor the name of a form, but something else.
        Raises Refusal."""
        form = self.home / "form"
        ours = (self.home / "pg" / "PG_VERSION").is_file() or (form.is_file() and form.read_text() in FORMS)
        if not self.home.is_dir() or not (ours or not self.strangers()):
            raise Refusal(f"{self.home} is not a home of Huanquan: nothing was removed; see HUANQUAN_HOME")

    def strangers(self) -> list[str]:
        """What lies in the home that nobody here wrote."""
        return sorted(entry.name for entry in self.home.iterdir() if entry.name not in OURS)

    def remove(self) -> None:
        """Remove what we wrote, and the folder where nothing else is in it. Raises Refusal."""
        self.postgres.forget()
        try:
            for entry in [entry for entry in self.home.iterdir() if entry.name in OURS]:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            if not self.strangers():
                self.home.rmdir()
        except OSError as error:
            raise Refusal(f"{error.filename} cannot be removed: {error.strerror}") from error
        finally:
            self.release()

    # -- what runs now

    @property
    def log(self) -> Path:
        """Where the processes of the home write what happens."""
        return self.home / "huanquan.log"

    @property
    def _note(self) -> Path:
        return self.home / "running.json"

    def announce(self, addresses: Addresses, *, kafka: str | None = None) -> None:
        """Leave word of what runs here, for the commands that talk to it."""
        self.home.mkdir(parents=True, exist_ok=True)
        note = {"port": addresses.port, "together": addresses.together, "kafka": kafka}
        self._note.write_text(json.dumps(note))

    def announced(self) -> tuple[Addresses, str | None]:
        """Addresses and brokers of what was announced last; the defaults where nothing was."""
        try:
            note = json.loads(self._note.read_text())
        except FileNotFoundError:
            return Addresses(TOGETHER_PORT, together=True), None
        return Addresses(note["port"], note["together"]), note["kafka"]


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
