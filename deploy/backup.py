"""Taking backups: a copy of every cluster of a deployment, and the WAL of each received from then on.

Of one cluster a copy may be taken at any time: all databases in it, the bus among them, are restored to one moment. Of
several there is no such moment, so the edges of all services are closed and what is under way drains first
(`deploy/drain.py`); what moved nevertheless makes the backup fail.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from deploy.archive import STAMP, Archive, Cluster, Copy, Note
from deploy.drain import drained
from deploy.engine import DATABASES, SERVICES, programs
from deploy.forms import Stop, stopped_by_signal
from deploy.local import Local, deployed_settings, home_of_environment
from deploy.operations import opened
from deploy.refusals import Refusal
from libs.common.crypto import Vault
from libs.common.db import connect, connect_arguments
from libs.common.settings import Settings, SettingsMissing

BACKUP_URL = "HUANQUAN_BACKUP_URL"
"""Addresses of the clusters, comma between, for a role with REPLICATION that may connect to `postgres`."""

RECEIVER = "huanquan_backup"  # the name of the replication slot, and of the receiver where commits wait for it
KEYS = ("vault.key", "issuer")
LOOK_SECONDS = 0.2
STREAMING_SECONDS = 30.0
END_SECONDS = 10.0

_IDENTITY = """
    SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system,
           ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int AS timeline,
           current_setting('server_version_num')::int / 10000 AS major,
           (SELECT bytes_per_wal_segment FROM pg_control_init()) AS segment_bytes
"""
_STREAMS = """
    SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming')
"""
_WAITS = "SELECT $1 = ANY(regexp_split_to_array(current_setting('synchronous_standby_names'), '[^A-Za-z0-9_]+'))"
_DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1"


@dataclass(frozen=True)
class Source:
    """A cluster and where it is reached."""

    url: str
    cluster: Cluster

    def environment(self) -> dict[str, str]:
        """What PostgreSQL's programs connect by. Not their arguments, which every user of the machine may read."""
        told = connect_arguments(self.url)
        made = {"PGHOST": told["host"], "PGPORT": told["port"], "PGUSER": told["user"], "PGPASSWORD": told["password"]}
        return {**os.environ, **{k: str(v) for k, v in made.items() if v is not None}, "PGAPPNAME": RECEIVER}


@dataclass(frozen=True)
class Deployment:
    """What is backed up. `home` is None where the environment names the databases."""

    settings: Settings
    home: Local | None
    sources: Sequence[Source]

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """Its clusters."""
        return tuple(source.cluster for source in self.sources)


@asynccontextmanager
async def deployment() -> AsyncIterator[Deployment]:
    """The deployment of the environment, its engines running. Raises Refusal, SettingsMissing."""
    home = None if deployed_settings() else Local(home_of_environment())
    async with opened(*SERVICES) as settings:
        urls = [home.postgres.url("postgres")] if home else _named_urls()
        identities = {url: await _identity(url) for url in urls}
        lives_on = await _places(settings)
        for database, system in lives_on.items():
            if system not in {identity["system"] for identity in identities.values()}:
                raise Refusal(f"the database of {database} is on a cluster that {BACKUP_URL} does not name")
        sources = [
            Source(url, Cluster(**identity, databases=_on(lives_on, identity["system"])))
            for url, identity in identities.items()
        ]
        yield Deployment(settings, home, sources)


def _named_urls() -> list[str]:
    named = [url.strip() for url in os.environ.get(BACKUP_URL, "").split(",") if url.strip()]
    if not named:
        raise SettingsMissing([BACKUP_URL])
    return named


async def _identity(url: str) -> asyncpg.Record:
    try:
        connection = await connect(url)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        why = str(error) or type(error).__name__
        raise Refusal(f"a cluster of {BACKUP_URL} does not answer: {why}") from error
    try:
        (found,) = await connection.fetch(_IDENTITY)
        return found
    finally:
        await connection.close()


async def _places(settings: Settings) -> Mapping[str, str]:
    """On which cluster each database is."""
    urls = {service: settings.database_url(service) for service in SERVICES}
    if settings.bus == "postgres":
        urls["bus"] = settings.bus_address()
    return {name: (await _identity(url))["system"] for name, url in urls.items()}


def _on(places: Mapping[str, str], system: str) -> tuple[str, ...]:
    return tuple(name for name in DATABASES if places.get(name) == system)


# -- a copy


async def take(archive: Archive, *, keep: int, with_keys: bool) -> tuple[Copy, list[str]]:
    """Take a base backup; returns it, and the names of the older ones that were removed. Raises Refusal."""
    async with deployment() as found, AsyncExitStack() as stack:
        if with_keys and found.home is None:
            raise Refusal(
                "keys of a deployment are not in its home: keep them where they are, or where you keep others"
            )
        archive.claim(found.clusters)
        several = len(found.clusters) > 1
        if several:
            await stack.enter_async_context(drained(found.settings))
        folder = archive.folder / "base" / datetime.now(UTC).strftime(STAMP)
        try:
            await _copy(found, folder, with_keys=with_keys, drained=several)
            await stack.aclose()  # says what moved nevertheless
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return Copy(folder), archive.keep(keep)


async def _copy(found: Deployment, folder: Path, *, with_keys: bool, drained: bool) -> None:
    vault_keys = await asyncio.to_thread(_begin, found, folder, with_keys=with_keys)
    await asyncio.gather(*(_base(source, folder / source.cluster.system) for source in found.sources))
    form = (found.home.home / "form").read_text() if found.home else None
    Note(found.clusters, form, drained, vault_keys).write(folder / "note.json")  # last: now it is one


def _begin(found: Deployment, folder: Path, *, with_keys: bool) -> tuple[str, ...]:
    """Make a copy's folder with what a home holds beside its databases; returns the ids of its vault's keys."""
    folder.mkdir(parents=True, mode=0o700)
    if found.home is None:
        return ()
    home = found.home.home
    if (home / "anchors").is_dir():  # before the databases: anchors may tell of nothing that these do not hold
        shutil.copytree(home / "anchors", folder / "anchors")
    if with_keys:
        copy_keys(home, folder / "keys")
    current, retired = found.settings.vault()
    return tuple(sorted(Vault(current, retired).key_ids))


async def _base(source: Source, folder: Path) -> None:
    line = ["pg_basebackup", "--pgdata", str(folder), "--checkpoint", "fast", "--wal-method", "stream"]
    await _run(source, *line, "--manifest-checksums", "SHA256", "--label", RECEIVER)


def copy_keys(source: Path, target: Path) -> None:
    """Copy what keys there are in a folder into another, readable for this user alone."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in KEYS:
        found = source / name
        if found.is_dir():
            shutil.copytree(found, target / name, dirs_exist_ok=True)
        elif found.is_file():
            shutil.copy2(found, target / name)


async def _run(source: Source, program: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        programs()[0] / program, *arguments, env=source.environment(), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        raise Refusal(f"{program}: {' '.join(said.decode(errors='replace').split())}")


# -- what is committed from then on


async def follow(archive: Archive, *, synchronous: bool) -> None:
    """Receive the WAL of every cluster until stopped. With `synchronous`, a commit is confirmed only when it was
    received too. Raises Refusal."""
    stop = stopped_by_signal()
    async with deployment() as found:
        if found.home and not found.home.is_held():
            raise Refusal(f"nothing runs on {found.home.home}: start it with `huanquan up`, then follow it")
        archive.claim(found.clusters)
        receivers = [await _receiver(archive, source) for source in found.sources]
        try:
            for source in found.sources if synchronous else ():
                await _make_commits_wait(source, superuser=found.home is not None)
            await _until_one_ends(receivers, stop)
            if synchronous and found.home:
                await _release_commits(found.sources[0])  # first: nobody shall wait for a receiver that has gone
        finally:
            await asyncio.gather(*map(_end, receivers))


async def _receiver(archive: Archive, source: Source) -> asyncio.subprocess.Process:
    folder = archive.wal(source.cluster)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    where = ["--directory", str(folder), "--slot", RECEIVER]
    await _run(source, "pg_receivewal", *where, "--create-slot", "--if-not-exists")
    # A session of its own: Ctrl-C is ours to pass on, after the commits were released.
    return await asyncio.create_subprocess_exec(
        programs()[0] / "pg_receivewal", *where, "--synchronous", env=source.environment(), start_new_session=True
    )


async def _make_commits_wait(source: Source, *, superuser: bool) -> None:
    connection = await connect(source.url)
    try:
        async with asyncio.timeout(STREAMING_SECONDS):
            while not await connection.fetchval(_STREAMS, RECEIVER):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(LOOK_SECONDS)
        if superuser:
            await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{RECEIVER}'")
            await connection.execute("SELECT pg_reload_conf()")
        elif not await connection.fetchval(_WAITS, RECEIVER):
            setting = f"synchronous_standby_names = '{RECEIVER}'"
            raise Refusal(f"commits do not wait: set {setting} on the server of {source.cluster.databases[0]}")
    except TimeoutError:
        raise Refusal(
            f"the receiver did not begin within {STREAMING_SECONDS:.0f} s; what it said stands above"
        ) from None
    finally:
        await connection.close()


async def _release_commits(source: Source) -> None:
    try:
        connection = await connect(source.url)
    except (OSError, asyncpg.PostgresError) as error:
        why = "its commits wait for a receiver still: follow it again, or `huanquan backup forget`"
        raise Refusal(f"PostgreSQL is away ({type(error).__name__}); {why}") from error
    try:
        await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


async def _until_one_ends(receivers: Sequence[asyncio.subprocess.Process], stop: Stop) -> None:
    waits = [asyncio.create_task(each) for each in (stop.wait(), *(receiver.wait() for receiver in receivers))]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if not stop.is_set():
        raise Refusal("pg_receivewal ended by itself; what it said stands above")


async def _end(receiver: asyncio.subprocess.Process) -> None:
    if receiver.returncode is None:
        receiver.terminate()  # it writes down what it has, and ends
        try:
            await asyncio.wait_for(receiver.wait(), END_SECONDS)
        except TimeoutError:
            receiver.kill()
            await receiver.wait()


async def forget() -> None:
    """Stop keeping WAL for a receiver, and stop waiting for it: nobody follows any more. What was received stays."""
    async with deployment() as found:
        for source in found.sources:
            if found.home:
                await _release_commits(source)
            connection = await connect(source.url)
            try:
                await connection.execute("SELECT 1")
                await connection.fetch(_DROP_SLOT, RECEIVER)
            except asyncpg.ObjectInUseError:
                raise Refusal("somebody follows it now: stop `huanquan backup follow` first") from None
            finally:
                await connection.close()
