"""The trail's hash chain: what is hashed and how, and the proof that a trail is whole.

Needs the standard library and `cryptography` alone, so that an outside auditor checks an export without trusting
this system. Fetch `GET /audit/v1/trail:export` into a file, and run

    python -m services.audit.verifier export.ndjson --anchor anchors.txt

Exit 0: whole; 1: broken, with the first broken entry and the reason; 2: the files cannot be read. The file by itself
(`python verifier.py …`) does the same.

**Entry.** One JSON object a line: `seq` (1, 2, 3 … without a gap), `event_id`, `topic`, `partition`, `offset`, `key`,
`type`, `time` (as the publisher stated it, empty where it did not), `recorded_at` (UTC, microseconds, `Z`),
`headers` (texts by name), `payload` (text) or `payload_base64` (bytes that are no UTF-8), `payload_digest`,
`previous`, `hash` (64 lower-case hexadecimal digits each). A line is exactly this: a name more, less or twice, or a
value of another type or form, and it is `unreadable`.

**Chain.** `payload_digest` is the SM3 (GB/T 32905) of the payload's bytes. `hash` is the SM3 of the canonical form:
the text `huanquan-trail-1`, then seq, event_id, topic, partition, offset, key, type, time, recorded_at, headers,
payload_digest, previous, in this order, each as UTF-8 behind its length in four bytes, big-endian; numbers in
decimal, headers as JSON with sorted names, `,` and `:` without spaces and everything beyond ASCII escaped.
`previous` is the hash of the entry before, 64 zeros for the first.

**Anchors.** Whoever can write the table could compute a new chain. So heads of the chain are kept outside the
database: a line `seq hash at` each. A trail is proved as far as the newest anchor that somebody else keeps; entries
after it are proved by the next one.
"""

import argparse
import base64
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from cryptography.hazmat.primitives.hashes import SM3, Hash

FORM = b"huanquan-trail-1"
GENESIS = "0" * 64

# What a line may raise that somebody made up: no text, wrong types, absurd numbers and dates, endless nesting.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

REASONS: Mapping[str, str] = {
    "unreadable": "此条无法读取",
    "missing": "此条缺失：序号不连续",
    "out_of_order": "序号重复或倒序",
    "payload_altered": "事件内容与其摘要不符",
    "link_broken": "与上一条的哈希不衔接",
    "entry_altered": "此条内容与其哈希不符",
    "anchor_mismatch": "与库外留存的锚点不符：此条或其之前的记录被整体改写",
    "truncated": "链尾缺失：库外留存的锚点晚于最后一条",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the trail, as it is stored and exported."""

    seq: int
    event_id: str
    topic: str
    partition: int
    offset: int
    key: str
    type: str
    time: str
    recorded_at: datetime
    headers: str
    payload: bytes
    payload_digest: str
    previous: str
    hash: str

    def computed_hash(self) -> str:
        """The hash that the entry should have."""
        parts = (
            self.seq,
            self.event_id,
            self.topic,
            self.partition,
            self.offset,
            self.key,
            self.type,
            self.time,
            instant(self.recorded_at),
            self.headers,
            self.payload_digest,
            self.previous,
        )
        form = bytearray(FORM)
        for part in parts:
            raw = str(part).encode()
            form += len(raw).to_bytes(4, "big") + raw
        return sm3(bytes(form))

    def exported(self) -> dict[str, Any]:
        """The entry as one object of an export."""
        plain = asdict(self) | {"recorded_at": instant(self.recorded_at), "headers": _loaded(self.headers)}
        try:
            plain["payload"] = self.payload.decode()
        except UnicodeDecodeError:
            del plain["payload"]
            plain["payload_base64"] = base64.b64encode(self.payload).decode()
        return plain

    @classmethod
    def imported(cls, line: str) -> "Entry":
        """The entry on one line of an export. Raises one of UNREADABLE for anything else."""
        plain = json.loads(line, object_pairs_hook=_named_once)
        text = plain.get("payload")
        payload = base64.b64decode(plain["payload_base64"], validate=True) if text is None else text.encode()
        entry = cls(
            seq=plain["seq"],
            event_id=plain["event_id"],
            topic=plain["topic"],
            partition=plain["partition"],
            offset=plain["offset"],
            key=plain["key"],
            type=plain["type"],
            time=plain["time"],
            recorded_at=datetime.fromisoformat(plain["recorded_at"]).astimezone(UTC),
            headers=canonical_headers(plain["headers"]),
            payload=payload,
            payload_digest=plain["payload_digest"],
            previous=plain["previous"],
            hash=plain["hash"],
        )
        entry.require_types()
        # Whoever reads the line sees what the chain proves, and nothing beside it.
        if entry.exported() != plain:
            raise ValueError("a line is an entry as it is exported")
        return entry

    def require_types(self) -> None:
        """Raises TypeError where a number or a text is none: Python takes True for 1, and hashes "1" like 1."""
        numbers = (self.seq, self.partition, self.offset)
        texts = (self.event_id, self.topic, self.key, self.type, self.time, self.payload_digest)
        if {type(it) for it in numbers} != {int} or {type(it) for it in (*texts, self.previous, self.hash)} != {str}:
            raise TypeError("numbers and texts are what they are named")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head of the chain that is kept outside the database: the hash of entry `seq`, taken at `at` (UTC)."""

    seq: int
    hash: str
    at: datetime

    def line(self) -> str:
        """The anchor as a line of an anchors file."""
        return f"{self.seq} {self.hash} {instant(self.at)}"

    @classmethod
    def parsed(cls, line: str) -> "Anchor":
        """The anchor in a line. Raises ValueError."""
        seq, digest, at = line.split()
        return cls(int(seq), digest, datetime.fromisoformat(at))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found: how many entries were read, and the seq of the first broken one with the reason."""

    entries: int
    verified: bool
    first_broken: int | None = None
    reason: str | None = None

    @property
    def told(self) -> str | None:
        """The reason in Chinese."""
        return REASONS[self.reason] if self.reason else None


class Verification:
    """One walk along a chain. Memory does not grow with the trail, only with the anchors."""

    def __init__(self, anchors: Iterable[Anchor] = ()) -> None:
        self._anchors: dict[int, set[str]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.seq, set()).add(anchor.hash)
        self._entries = 0
        self._seq = 0
        self._hash = GENESIS
        self._broken: tuple[int, str] | None = None

    def add(self, entry: Entry) -> None:
        """Look at the next entry. After the first broken one the rest is only counted."""
        self._entries += 1
        if self._broken is None:
            reason = self._flaw(entry)
            if reason:
                self.breaks(reason)
            else:
                self._seq, self._hash = entry.seq, entry.hash

    def breaks(self, reason: str) -> None:
        """Note that the entry that should come next is broken; the first one noted stays."""
        self._broken = self._broken or (self._seq + 1, reason)

    def _flaw(self, entry: Entry) -> str | None:
        if entry.seq != self._seq + 1:
            return "missing" if entry.seq > self._seq else "out_of_order"
        if sm3(entry.payload) != entry.payload_digest:
            return "payload_altered"
        if entry.previous != self._hash:
            return "link_broken"
        if entry.computed_hash() != entry.hash:
            return "entry_altered"
        if self._anchors.get(entry.seq, {entry.hash}) != {entry.hash}:
            return "anchor_mismatch"
        return None

    def verdict(self) -> Verdict:
        """What was found, once every entry was added."""
        if self._broken is None and max(self._anchors, default=0) > self._seq:
            self.breaks("truncated")
        first, reason = self._broken or (None, None)
        return Verdict(self._entries, self._broken is None, first, reason)


def verify(entries: Iterable[Entry], anchors: Iterable[Anchor] = ()) -> Verdict:
    """Check a whole trail, entry by entry, from its first one."""
    walk = Verification(anchors)
    for entry in entries:
        walk.add(entry)
    return walk.verdict()


def verify_export(lines: Iterable[str], anchors: Iterable[Anchor] = ()) -> Verdict:
    """Check an export, line by line. A line that is no entry breaks the chain where it stands."""
    walk = Verification(anchors)
    for line in lines:
        try:
            walk.add(Entry.imported(line))
        except UNREADABLE:
            walk.breaks("unreadable")
    return walk.verdict()


def read_anchors(path: Path) -> Iterator[Anchor]:
    """The anchors of a file. Raises OSError; ValueError for a line that is none.

    A line that a crash cut off while it was written does not count: it has no line end yet, or ends in `#`.
    """
    with path.open(encoding="ascii") as file:
        yield from anchors_in(file)


def anchors_in(lines: Iterable[str]) -> Iterator[Anchor]:
    """The same of lines with their ends."""
    for line in lines:
        if line.endswith("\n") and line.strip() and not line.endswith("#\n"):
            yield Anchor.parsed(line)


def sm3(raw: bytes) -> str:
    """SM3 (GB/T 32905) in hexadecimal."""
    digest = Hash(SM3())
    digest.update(raw)
    return digest.finalize().hex()


def instant(at: datetime) -> str:
    """A UTC instant as the chain writes it: always with microseconds, and with `Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical_headers(headers: Mapping[str, str]) -> str:
    """Headers as the chain writes them. Raises TypeError where a name or a value is no text."""
    if not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise TypeError("headers are texts by name")
    return json.dumps(dict(headers), sort_keys=True, separators=(",", ":"))


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. A name that stands twice would show one reader what another does not see: ValueError."""
    plain = dict(pairs)
    if len(plain) < len(pairs):
        raise ValueError("a name stands twice")
    return plain


def _loaded(headers: str) -> Any:
    try:
        return json.loads(headers)
    except ValueError:
        return headers  # tampered with: the export shows it as it is, and the verifier says so


def main(arguments: list[str] | None = None, out: TextIO = sys.stdout) -> int:
    """Check an export from the command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="verifier", description="Check an export of the audit trail.")
    parser.add_argument("export", type=Path, help="the file from GET /audit/v1/trail:export")
    parser.add_argument("--anchor", type=Path, action="append", default=[], help="a file of anchors kept elsewhere")
    asked = parser.parse_args(arguments)
    try:
        anchors = [anchor for path in asked.anchor for anchor in read_anchors(path)]
        with asked.export.open(encoding="utf-8") as lines:
            verdict = verify_export(lines, anchors)
    except (OSError, ValueError) as error:
        out.write(json.dumps({"error": f"{type(error).__name__}: {error}"}, ensure_ascii=False) + "\n")
        return 2
    told = asdict(verdict) | {"anchors": len(anchors), "told": verdict.told}
    out.write(json.dumps(told, ensure_ascii=False) + "\n")
    return 0 if verdict.verified else 1


if __name__ == "__main__":
    sys.exit(main())
