"""The text of a pack: its canonical form, and the plain data in it with the line of every value.

Only what a policy needs is YAML here: mappings, lists, text, whole numbers, `true`, `false`, `null`. A plain
`2021-03-23`, `010`, `yes` or `1:30` is text, never a date, an octal, a truth value or a number to base sixty.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import yaml

from libs.common.policy.errors import Defect, PackRefused

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | bool | None"
Path: TypeAlias = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(_[0-9]{3})*")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "": None}


class _PackLoader(yaml.CSafeLoader):
    """The YAML subset above."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML declares it so)


@dataclass(frozen=True, slots=True)
class Source:
    """A pack's plain data, and for each path in it the line (from 1) where it stands."""

    name: str
    data: Plain
    lines: dict[Path, int]

    def defect(self, path: Path, reason: str) -> Defect:
        """Name the place of a defect; a missing value stands where its nearest existing parent stands."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return Defect(self.lines.get(known, 0), _spelled(path), reason)


def _spelled(path: Path) -> str:
    text = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read_source(raw: bytes, name: str) -> Source:
    """Read a pack's bytes: UTF-8 without a byte order mark, lines ended by LF, at most 1 MiB.

    Bytes in another form are refused and not converted: the hash of a file is the hash of the policy, and
    `sha256sum` shows it. Raises PackRefused with the line of what is wrong.
    """
    text = _canonical_text(raw, name)
    try:
        _check_shape(text)
        node = yaml.compose(text, _PackLoader)
        lines: dict[Path, int] = {}
        data = _plain(node, (), lines) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "is not YAML"
        raise PackRefused(name, [Defect(mark.line + 1 if mark else 0, "", reason)]) from error
    except yaml.YAMLError as error:
        raise PackRefused(name, [Defect(0, "", f"is not YAML: {error}")]) from error
    return Source(name, data, lines)


def _check_shape(text: str) -> None:
    """Refuse aliases, so that no value stands in two places, and what is nested deeper than any policy is. Raises
    MarkedYAMLError."""
    depth = 0
    for event in yaml.parse(text, _PackLoader):
        mark = cast("yaml.Mark", event.start_mark)  # libyaml's has the same fields
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="write the value out; aliases are not read", problem_mark=mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="is nested too deeply", problem_mark=mark)


def _canonical_text(raw: bytes, name: str) -> str:
    if len(raw) > MAX_BYTES:
        raise PackRefused(name, [Defect(0, "", f"is larger than {MAX_BYTES} bytes")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PackRefused(name, [Defect(line, "", "is not UTF-8 text")]) from error
    if text.startswith("\ufeff"):
        raise PackRefused(name, [Defect(1, "", "begins with a byte order mark; save it without")])
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        raise PackRefused(name, [Defect(line, "", "ends a line with CR; save it with LF line ends")])
    return text


def _plain(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Plain:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_plain(child, (*path, index), lines) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}str":
        return _scalar(node)
    raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not read", problem_mark=node.start_mark)


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Plain]:
    result: dict[str, Plain] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(problem="a key is plain text", problem_mark=key_node.start_mark)
        if key in result:
            raise yaml.MarkedYAMLError(problem=f"{key} stands here twice", problem_mark=key_node.start_mark)
        lines[*path, key] = key_node.start_mark.line + 1
        result[key] = _plain(value_node, (*path, key), lines)
    return result


def _scalar(node: yaml.ScalarNode) -> str | int | bool | None:
    text: str = node.value
    if node.style:  # quoted or block text stays text
        return text
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _NUMBER.fullmatch(text) and len(text) < 24 else text
