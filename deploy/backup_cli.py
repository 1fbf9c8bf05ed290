"""`huanquan backup`, `restore` and `bus-diff` on the command line."""

import asyncio
import getpass
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy.archive import Archive, Copy, Damaged, last_commit
from deploy.local import Local, deployed_settings, home_of_environment
from deploy.refusals import Refusal

backup = typer.Typer(
    no_args_is_help=True,
    help="Copies of every database, and what is committed from then on: take, follow, list, verify, forget.",
)
BATCH = 500
COMPARED = "bus-diff --mend"
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the backups of this system are kept.")]


def _instant(text: str) -> datetime:
    """An ISO 8601 instant with its offset. Raises BadParameter."""
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None:
        raise typer.BadParameter(f"{text!r}: write an instant with its offset, as 2026-02-13T09:30:00+08:00")
    return made.astimezone(UTC)


@backup.command()
def take(
    folder: Folder,
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many copies to keep; older ones are removed.")] = 7,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Put vault.key and issuer/ into it too: whoever has it, reads it.")
    ] = False,
) -> None:
    """Take a copy of every database now.

    Of one cluster at any time, while everything goes on. Where the databases are
    on several clusters, all edges are closed meanwhile (503) and what is under
    way drains first. No keys are in a copy unless asked for: without the vault's
    key nobody reads a name, a number or a document in it, so keep that elsewhere.
    Reads HUANQUAN_BACKUP_URL (one address for each cluster, comma between) where
    the environment names the databases.
    """
    from deploy.backup import take as take_copy

    copy, gone = asyncio.run(take_copy(Archive(folder), keep=keep, with_keys=with_keys))
    typer.echo(f"{copy.name}: {_mib(copy.size)}, {_databases(copy)}, {'with' if copy.keys else 'without'} keys")
    for name in gone:
        typer.echo(f"{name}: removed, {keep} are kept")


@backup.command()
def follow(
    folder: Folder,
    *,
    synchronous: Annotated[
        bool,
        typer.Option("--synchronous", help="Confirm no commit before it was received; nothing goes on without this."),
    ] = False,
) -> None:
    """Receive what is committed, at once and continuously, until stopped (Ctrl-C).

    It waits for a system that is away, and goes on where it was: the system keeps
    what was not received. Run it from before the first `take` on. With
    --synchronous nothing that was answered is ever lost with the databases' disk,
    and the system stands still while nobody receives.
    """
    from deploy.backup import follow as receive

    asyncio.run(receive(Archive(folder), synchronous=synchronous))


@backup.command()
def forget() -> None:
    """Keep nothing for a receiver any more, and do not wait for it. What was received stays."""
    from deploy.backup import forget as stop_keeping

    asyncio.run(stop_keeping())


@backup.command("list")
def list_copies(folder: Folder) -> None:
    """List the copies, the oldest first, and up to when each can be restored. Instants are UTC."""

    archive = Archive(folder)
    for copy in archive.copies():
        chains = [archive.chain(copy, cluster) for cluster in copy.note.clusters]
        received = [max(file.stat().st_mtime for file in chain.segments.values()) for chain in chains if chain.joined]
        until = f"to {datetime.fromtimestamp(min(received), UTC):%Y-%m-%d %H:%M:%SZ}" if received else "as it is"
        keys = "with" if copy.keys else "without"
        typer.echo(f"{copy.name}: {_mib(copy.size)}, {_databases(copy)}, {keys} keys, can be restored {until}")


@backup.command()
def verify(folder: Folder) -> None:
    """Compare every file of every copy with what was written, and read what was received since to its end. Exit 1
    where something is damaged."""

    archive, damaged = Archive(folder), 0
    for copy in archive.copies():
        try:
            files = copy.check()
            ends = [last_commit(archive.chain(copy, cluster)) for cluster in copy.note.clusters]
        except Damaged as why:
            damaged += 1
            typer.echo(f"{copy.name}: DAMAGED: {why}")
        else:
            commits = [f"{end:%Y-%m-%d %H:%M:%S.%fZ}" if end else "the copy itself" for end in ends]
            typer.echo(f"{copy.name}: whole, {files} files, last commit {', '.join(commits)}")
    raise typer.Exit(1 if damaged else 0)


def restore(
    folder: Folder,
    *,
    to: Annotated[
        datetime | None,
        typer.Option(
            parser=_instant, metavar="INSTANT", help="Up to then, as 2026-02-13T09:30:00+08:00; else to the end."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--copy", metavar="NAME", help="From this copy; else the newest.")] = None,
    keys: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of vault.key (and issuer/), kept elsewhere."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The empty data directory of a server, instead of a home.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --data: the cluster that holds this database.")
    ] = None,
) -> None:
    """Restore a backup into an empty HUANQUAN_HOME, up to the last commit that was received.

    Refuses where anything is in the home, where the copy is damaged, and where the
    key is missing that its secrets are sealed with. Where the bus was not in the
    same cluster (Kafka), compare the two before starting: `huanquan bus-diff`.
    With --data it only lays the files; the server recovers when it starts.
    """
    from deploy.restore import restore_data, restore_home

    archive = Archive(folder)
    if data:
        copy, cluster = restore_data(archive, data, name=name, until=to, database=database)
        typer.echo(
            f"{copy.name} lies in {data}: give it to the user of a PostgreSQL {cluster.major} server and start it"
        )
        return
    if deployed_settings():
        raise Refusal("the environment names the databases of a deployment: restore into a data directory, --data")
    local = Local(home_of_environment())
    done = asyncio.run(restore_home(archive, local, name=name, until=to, keys=keys))
    until = f"to the commit of {done.last_commit:%Y-%m-%d %H:%M:%S.%fZ}" if done.last_commit else "as it was taken"
    typer.echo(f"{done.copy.name} restored into {local.home}, {until}")
    if done.compare:
        typer.echo("its bus lies elsewhere: `huanquan bus-diff` says what either of them does not know of the other")
    else:
        typer.echo("start it with `huanquan up --no-sample`, then `huanquan verify`")


def bus_diff(
    *,
    mend: Annotated[bool, typer.Option("--mend", help="Set right what differs; see above.")] = False,
    kafka: Annotated[
        str | None,
        typer.Option(envvar="HUANQUAN_KAFKA", metavar="HOST:PORT,…", help="The brokers of a home that does not run."),
    ] = None,
    own_broker: Annotated[
        bool, typer.Option("--own-broker", help="A home that does not run: start the broker of its own for it.")
    ] = False,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who mends; by default the user of this system.")] = "",
) -> None:
    """Compare the bus with every outbox and offset, by key: after a restore, or a loss on the bus.

    unknown: on the bus, in no outbox; it was published after what was restored.
    lost: published says the outbox; not on the bus. ahead: a service has read
    further than the bus goes. One JSON object a line on standard output; exit 1
    where there is any.

    --mend, best before the services start: an unknown event is discarded by every
    reader that has not taken it (`parked list --discarded` keeps it: somebody has
    to do again what it told of); a lost one is published again under its id; a
    topic that lost something is read again from its start by all, and what was
    taken before is skipped. Exit 1 where a reader has taken an unknown event already.
    """
    from deploy.bus_diff import comparison

    counts: Counter[str] = Counter()

    async def run() -> int:
        async with comparison(kafka=kafka, own_broker=own_broker) as compared:
            taken, batch = 0, []
            async for difference in compared.differences():
                typer.echo(json.dumps(difference.to_json(), ensure_ascii=False))
                counts[difference.what] += 1
                taken += bool(difference.taken_by)
                batch.append(difference)
                if mend and len(batch) == BATCH:
                    await compared.mend(batch, by=by or user_of_this_system(), because=COMPARED)
                    batch.clear()
            if mend:
                await compared.mend(batch, by=by or user_of_this_system(), because=COMPARED)
        return taken

    taken = asyncio.run(run())
    if mend or not counts:
        Local(home_of_environment()).restored.unlink(missing_ok=True)
    told = ", ".join(f"{counts[what]} {what}" for what in ("unknown", "lost", "ahead"))
    typer.echo(f"{told}{', mended' if mend and counts else ''}", err=True)
    raise typer.Exit(1 if taken or (counts and not mend) else 0)


def user_of_this_system() -> str:
    """Who types. Raises BadParameter where the system has no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have
        raise typer.BadParameter("say who decided: this system has no name for its user", param_hint="--by") from None


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MiB"


def _databases(copy: Copy) -> str:
    return ", ".join(name for cluster in copy.note.clusters for name in cluster.databases)
