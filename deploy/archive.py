"""The folder that backups are kept in: copies of clusters, the WAL received of them since, and whether both are whole.

    <folder>/clusters.json                         which clusters it is of: {system identifier: timeline}
    <folder>/base/<UTC instant>/note.json          what the copy is of (`Note`)
    <folder>/base/<UTC instant>/<system>/…         a copy of each cluster, whole in itself, as pg_basebackup makes it
    <folder>/base/<UTC instant>/anchors/…          the trail's anchors as they were before it (a home only)
    <folder>/base/<UTC instant>/keys/…             keys, only where they were asked for
    <folder>/wal/<system>/…                        what pg_receivewal received of a cluster

Only files are read here; nothing runs.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from deploy.engine import programs
from deploy.refusals import Refusal

STAMP = "%Y%m%dT%H%M%SZ"
PARTIAL = ".partial"  # the segment that is being received
BLOCK = 1024 * 1024
NOT_LISTED = ("backup_manifest", "pg_wal")  # what a manifest does not speak of
_SEGMENT_NAME = 24  # hexadecimal digits: timeline, log, segment


class Damaged(Refusal):
    """A backup is not what was written."""


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL cluster: identifier, timeline, major version, bytes of a WAL segment, databases of ours in it."""

    system: str
    timeline: int
    major: int
    segment_bytes: int
    databases: tuple[str, ...]

    def segment(self, number: int) -> str:
        """The name of a WAL segment."""
        high, low = divmod(number, (1 << 32) // self.segment_bytes)
        return f"{self.timeline:08X}{high:08X}{low:08X}"


@dataclass(frozen=True)
class Note:
    """What a copy is of. `form` is None where it is of a deployment and not of a home; `drained` says that nothing was
    under way between the services meanwhile; `vault_keys` are the ids of the keys that its secrets are sealed with."""

    clusters: tuple[Cluster, ...]
    form: str | None
    drained: bool
    vault_keys: tuple[str, ...]

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises Damaged."""
        try:
            told = json.loads(file.read_text())
            clusters = [Cluster(**each | {"databases": tuple(each["databases"])}) for each in told.pop("clusters")]
            return cls(**told | {"clusters": tuple(clusters), "vault_keys": tuple(told["vault_keys"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Damaged(f"{file} is not the note of a backup: {error}") from error


@dataclass(frozen=True)
class Chain:
    """The WAL from a copy's beginning on: name and file of each segment, without a gap. `joined` says that what was
    received goes on from the copy's own."""

    cluster: Cluster
    start: str
    segments: Mapping[str, Path]
    joined: bool

    def lay(self, folder: Path) -> None:
        """Copy every segment into a folder, under its name."""
        for name, file in self.segments.items():
            shutil.copyfile(file, folder / name)


class Copy:
    """One base backup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.note = Note.read(folder / "note.json")

    @property
    def name(self) -> str:
        """The instant at which it was taken, as its folder is called."""
        return self.folder.name

    @property
    def taken_at(self) -> datetime:
        """The UTC instant at which it was begun."""
        return datetime.strptime(self.name, STAMP).replace(tzinfo=UTC)

    @property
    def keys(self) -> Path | None:
        """Where its keys lie, if it has any."""
        found = self.folder / "keys"
        return found if found.is_dir() else None

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def of(self, cluster: Cluster) -> Path:
        """The copy of one cluster."""
        return self.folder / cluster.system

    def wal_range(self, cluster: Cluster) -> tuple[str, str]:
        """First and last place of the WAL that it cannot be restored without, as PostgreSQL writes them."""
        (found,) = _manifest(self.of(cluster))["WAL-Ranges"]
        return found["Start-LSN"], found["End-LSN"]

    def check(self) -> int:
        """Compare every file with the manifest; returns how many there are. Raises Damaged.

        The same as pg_verifybackup does, whose program the embedded engine ships broken.
        """
        return sum(_check_files(self.of(cluster)) for cluster in self.note.clusters)


class Archive:
    """The folder of the backups of one deployment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def wal(self, cluster: Cluster) -> Path:
        """Where the WAL of a cluster is received."""
        return self.folder / "wal" / cluster.system

    def copies(self) -> list[Copy]:
        """Every copy, the oldest first."""
        return [Copy(each.parent) for each in sorted(self.folder.glob("base/*/note.json"))]

    def copy(self, name: str | None, *, until: datetime | None = None) -> Copy:
        """The copy of this name, else the newest that was taken before an instant. Raises Refusal."""
        found = [each for each in self.copies() if name in (None, each.name)]
        if not found:
            named = f"no backup {name!r}" if name else "no backup"
            raise Refusal(f"{self.folder} holds {named}; `huanquan backup list {self.folder}` shows what it holds")
        early = [each for each in found if until is None or each.taken_at < until]
        if not early:
            raise Refusal(
                f"{found[0].name} is the oldest backup of {self.folder}: nothing leads to {until:%Y-%m-%d %H:%M:%SZ}"
            )
        return early[-1]

    def claim(self, clusters: Sequence[Cluster]) -> None:
        """Note whose backups are kept here. Raises Refusal where they are another's: of another cluster, or of this
        one before it was restored, from which the WAL of now does not go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ours = {cluster.system: cluster.timeline for cluster in clusters}
        file = self.folder / "clusters.json"
        if not file.exists():
            if any(self.folder.iterdir()):
                raise Refusal(f"{self.folder} is not empty and holds no backups: name another folder")
            file.write_text(json.dumps(ours) + "\n")
        if json.loads(file.read_text()) != ours:
            what = "backups of another system, or of this one before it was restored"
            raise Refusal(f"{self.folder} holds {what}: name another folder")

    def keep(self, most: int) -> list[str]:
        """Remove all copies but the newest, and the WAL that none of these needs; returns their names."""
        copies = self.copies()
        gone, kept = copies[:-most], copies[-most:]
        for copy in gone:
            (copy.folder / "note.json").unlink()  # first: what is left of it is no copy
            shutil.rmtree(copy.folder)
        for cluster in kept[0].note.clusters:
            first = cluster.segment(_number(kept[0].wal_range(cluster)[0], cluster))
            for file in self.wal(cluster).glob("*"):
                if file.name < first:
                    file.unlink()
        return [copy.name for copy in gone]

    def chain(self, copy: Copy, cluster: Cluster) -> Chain:
        """The WAL from a copy's beginning on, as far as it was received without a gap."""
        own, received = copy.of(cluster) / "pg_wal", self.wal(cluster)
        start, end = copy.wal_range(cluster)
        segments: dict[str, Path] = {}
        number, last = _number(start, cluster), _number(end, cluster)
        joined = True
        while True:
            name = cluster.segment(number)
            file = _fullest(received / name, received / f"{name}{PARTIAL}", own / name)
            if number >= last:
                joined = joined and (number > last or file not in (None, own / name))
            if file is None or (number > last and not joined):
                return Chain(cluster, start, segments, joined)
            segments[name] = file
            number += 1


def last_commit(chain: Chain) -> datetime | None:
    """Read a chain to its end; returns the UTC instant of the last commit in it. Raises Damaged where it ends within
    a segment that is not the last, and Refusal where the WAL is of another version than the embedded engine's."""
    tools, major = programs()
    if chain.cluster.major != major:
        raise Refusal(
            f"the WAL is of PostgreSQL {chain.cluster.major}: its own pg_waldump reads it, ours ({major}) not"
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, file in chain.segments.items():
            (Path(folder) / name).symlink_to(file)
        line = [str(tools / "pg_waldump"), "--path", folder, "--start", chain.start, "--rmgr", "Transaction"]
        line += ["--timeline", str(chain.cluster.timeline)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reading:  # noqa: S603 - a program of the engine
            assert reading.stdout  # noqa: S101 - it has pipes, here and below
            assert reading.stderr  # noqa: S101
            latest = max((commit for text in reading.stdout if (commit := _commit(text))), default=None)
            ended = reading.stderr.read()
    _check_end(chain, ended)
    return latest


def _commit(line: str) -> datetime | None:
    """The instant of `… desc: COMMIT 2026-01-02 03:04:05.678901 UTC; …`, None for another record."""
    _, found, rest = line.partition("desc: COMMIT ")
    return datetime.fromisoformat(rest.split(" UTC")[0]).replace(tzinfo=UTC) if found else None


def _check_end(chain: Chain, said: str) -> None:
    # pg_waldump ends with an error where no record follows: `… error in WAL record at 0/30000A8: invalid record …`,
    # or with a segment that it does not find.
    last = list(chain.segments)[-1]
    if f'could not find file "{chain.cluster.segment(int(last[8:16], 16))}"' in said:
        return
    place = said.partition("WAL record at ")[2].partition(":")[0]
    if place and chain.cluster.segment(_number(place, chain.cluster)) < last:
        raise Damaged(f"the WAL received ends at {place}, before its last segment {last}: {said.strip()}")


def _number(place: str, cluster: Cluster) -> int:
    """The number of the segment that a place (`1/A0000028`) lies in."""
    high, _, low = place.partition("/")
    return ((int(high, 16) << 32) + int(low, 16)) // cluster.segment_bytes


def _fullest(*files: Path) -> Path | None:
    """Of the files of one segment, the one in which most is written: each begins alike and ends in zeros."""
    return max((file for file in files if file.exists()), key=_written, default=None)


def _written(file: Path) -> int:
    """The place of the last byte that is not zero."""
    size = file.stat().st_size
    with file.open("rb") as open_file:
        for start in range((size - 1) // BLOCK * BLOCK if size else 0, -1, -BLOCK):
            open_file.seek(start)
            if block := open_file.read(BLOCK).rstrip(b"\0"):
                return start + len(block)
    return 0


def _manifest(folder: Path) -> Any:
    file = folder / "backup_manifest"
    try:
        raw = file.read_bytes()
        made = json.loads(raw)
        if hashlib.sha256(raw[: raw.rindex(b'"Manifest-Checksum"')]).hexdigest() != made["Manifest-Checksum"]:
            raise Damaged(f"{file} is not what was written")
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{file} cannot be read: {error}") from error
    return made


def _check_files(folder: Path) -> int:
    listed = {each["Path"]: each for each in _manifest(folder)["Files"]}
    for path, each in listed.items():
        file = folder / path
        if not file.is_file():
            raise Damaged(f"{file} is missing")
        if file.stat().st_size != each["Size"] or _digest(file) != each["Checksum"]:
            raise Damaged(f"{file} is not what was written")
    for found in _found(folder):
        if found not in listed:
            raise Damaged(f"{folder / found} does not belong to the backup")
    return len(listed)


def _found(folder: Path) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name not in NOT_LISTED:
            files = entry.rglob("*") if entry.is_dir() else [entry]
            yield from (str(file.relative_to(folder)) for file in files if file.is_file())


def _digest(file: Path) -> str:
    with file.open("rb") as open_file:
        return hashlib.file_digest(open_file, "sha256").hexdigest()
