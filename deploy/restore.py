"""Restoring a backup: into a new home, up to the last commit received; or into the data directory of a server."""

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.archive import Archive, Chain, Cluster, Copy
from deploy.backup import KEYS, copy_keys
from deploy.engine import EmbeddedPostgres
from deploy.local import Local
from deploy.refusals import NotStarted, Refusal
from libs.common.crypto import Vault
from libs.common.db import connect
from libs.common.settings import Settings

READY_SECONDS = 24 * 3600.0  # however much WAL there is to read
SETTINGS = (
    *("restore_command", "recovery_target_action", "recovery_target_time", "recovery_target"),
    *("hot_standby", "synchronous_standby_names"),
)
OF_THE_OTHER = (".handle_pids.json", ".s.PGSQL.5432.lock", "log", "postmaster.pid")  # of the engine that was copied

_LAST = "SELECT pg_last_xact_replay_timestamp()"


@dataclass(frozen=True)
class Restored:
    """What was restored: from which copy, and the UTC instant of the last commit (None where none followed it)."""

    copy: Copy
    last_commit: datetime | None
    compare: bool
    """Whether the bus lies outside: it may know more, or less, than the databases do now."""


async def restore_home(
    archive: Archive, local: Local, *, name: str | None, until: datetime | None, keys: Path | None
) -> Restored:
    """Restore into an empty home, up to `until` or the last commit received; it is stopped afterwards. Raises Refusal
    and leaves nothing where it cannot."""
    _check_empty(local.home)
    copy = archive.copy(name, until=until)
    if copy.note.form is None:
        raise Refusal(f"{copy.name} is of a deployment: restore each cluster into a data directory, --data")
    copy.check()
    _check_keys(copy, keys)
    (cluster,) = copy.note.clusters
    local.home.mkdir(parents=True, exist_ok=True)
    try:
        local.claim(copy.note.form)
        _lay(archive, copy, cluster, local.home / "pg", until=until)
        if (copy.folder / "anchors").is_dir():
            shutil.copytree(copy.folder / "anchors", local.home / "anchors")
        for source in filter(None, (copy.keys, keys)):
            copy_keys(source, local.home)
        last = await _recover(local.home / "pg")
    except BaseException:
        local.remove()
        raise
    compare = "bus" not in cluster.databases
    if compare:
        local.restored.write_text(copy.name + "\n")
    local.release()
    return Restored(copy, last, compare)


def restore_data(
    archive: Archive, data: Path, *, name: str | None, until: datetime | None, database: str | None
) -> tuple[Copy, Cluster]:
    """Lay the cluster that holds a database into an empty data directory; its server recovers it when it starts.
    Raises Refusal."""
    _check_empty(data)
    copy = archive.copy(name, until=until)
    cluster = _of(copy, database)
    if until and copy.note.drained:
        raise Refusal(
            f"{copy.name} is of several clusters at rest; at another moment they do not fit together: no --to"
        )
    copy.check()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    _lay(archive, copy, cluster, data, until=until)
    return copy, cluster


def _of(copy: Copy, database: str | None) -> Cluster:
    if database is None and len(copy.note.clusters) > 1:
        held = "; ".join(", ".join(cluster.databases) for cluster in copy.note.clusters)
        raise Refusal(f"{copy.name} is of several clusters ({held}): name a database of one, --database")
    for cluster in copy.note.clusters:
        if database in (None, *cluster.databases):
            return cluster
    raise Refusal(f"{copy.name} holds no database {database!r}")


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refusal(f"{folder} is not empty: a backup is restored into an empty folder, or a new one")


def _check_keys(copy: Copy, given: Path | None) -> None:
    """The secrets in the databases can be opened afterwards. Raises Refusal."""
    held: set[str] = set()
    for folder in filter(None, (copy.keys, given)):
        if not any((folder / name).exists() for name in KEYS):
            raise Refusal(f"{folder} holds no keys: neither {' nor '.join(KEYS)}")
        with suppress(FileNotFoundError):
            held |= Vault((folder / "vault.key").read_text().strip()).key_ids
    settings = Settings()
    if settings.vault_key:
        current, retired = settings.vault()
        held |= Vault(current, retired).key_ids
    if missing := set(copy.note.vault_keys) - held:
        which = ", ".join(sorted(missing))
        raise Refusal(
            f"{copy.name} is sealed with key {which}, which is not in it: name the folder of vault.key with --keys, or "
            "set HUANQUAN_VAULT_KEY"
        )


def _lay(archive: Archive, copy: Copy, cluster: Cluster, data: Path, *, until: datetime | None) -> None:
    """A copy of the cluster that will recover by itself when it is started: all the WAL is put beside it."""
    chain = archive.chain(copy, cluster)
    if until and not chain.joined:
        raise Refusal(
            f"no WAL that goes on from {copy.name} was received: it can only be restored as it is, without --to"
        )
    shutil.copytree(copy.of(cluster), data, dirs_exist_ok=True)
    data.chmod(0o700)
    for name in OF_THE_OTHER:
        (data / name).unlink(missing_ok=True)
    for name in list(chain.segments):
        (data / "pg_wal" / name).unlink(missing_ok=True)
    chain.lay(data / "pg_wal")
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.writelines(f"{name} = '{value}'\n" for name, value in recovery(chain, until, copy).items())
    (data / "recovery.signal").touch()


def recovery(chain: Chain, until: datetime | None, copy: Copy) -> Mapping[str, str]:
    """The settings that a restored cluster recovers by, and those of the old one that it must not keep."""
    made = {
        "restore_command": "false",  # everything is in pg_wal already
        "recovery_target_action": "promote",
        "hot_standby": "off",  # it is up when it has recovered, and not before
        "synchronous_standby_names": "",  # nobody receives from it yet: no commit may wait
    }
    if until:
        return {**made, "recovery_target_time": until.astimezone(UTC).isoformat()}
    if copy.note.drained or not chain.joined:  # several clusters fit together as they were at rest, and not later
        return {**made, "recovery_target": "immediate"}
    return made


async def _recover(data: Path) -> datetime | None:
    """Start the engine, let it recover, and stop it; returns the instant of the last commit. Raises Refusal."""
    engine = EmbeddedPostgres(data, ready_seconds=READY_SECONDS)
    await asyncio.to_thread(engine.adopt)
    try:
        await asyncio.to_thread(engine.start)
        connection = await connect(engine.url("postgres"))
        try:
            last: datetime | None = await connection.fetchval(_LAST)
            for name in SETTINGS:
                await connection.execute(f"ALTER SYSTEM RESET {name}")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()
    except NotStarted as error:
        raise Refusal(f"the backup was not recovered: {error}") from error
    finally:
        await asyncio.to_thread(engine.stop)
    return last
