"""The text of a pack: its canonical form, and the plain data in it with the line of every value.

Only what a policy needs is YAML here: mappings, lists, text, whole numbers, `true`, `false`, `null`. A plain
`2021-03-23`, `010`, `yes` or `1:30` is text, never a date, an octal, a truth value or a number to base sixty.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import yaml
from yaml.reader import ReaderError

from libs.common.policy.errors import Defect, PackRefused

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | bool | None"
Path: TypeAlias = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(_[0-9]{3})*")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "": None}


_IN_WORDS: Mapping[str, str] = {
    "mapping values are not allowed in this context": "此处不应有冒号，请检查缩进和上一行，含冒号的文字加引号。",
    "found character that cannot start any token": "值不能以这个字符开头，请给文字加引号，缩进只用空格。",
    "could not find expected ':'": "此处或上一行缺少英文冒号，请写成“名称: 值”，冒号后空一格。",
    "did not find expected key": "此处的层次不对，请与同级各行对齐，并检查引号和括号是否成对。",
    "did not find expected '-' indicator": "此处应是列表的下一项，请以“- ”开头并与其他各项对齐。",
    "did not find expected ',' or ']'": "方括号内没有写完，请用英文逗号隔开各项，并补上 ]。",
    "did not find expected ',' or '}'": "花括号内没有写完，请用英文逗号隔开各项，并补上 }。",
    "did not find expected node content": "此处缺少内容，请检查是否多了逗号或括号。",
    "did not find expected <document start>": "此处的内容多余，请检查缩进，删去多余的括号或文字。",
    "but found another document": "一个文件只能有一份文档，请删去 --- 一行。",
    "found unexpected end of stream": "引号不成对，请补上右引号。",
    "found unknown escape character": "双引号内不能这样用反斜杠，请改用单引号。",
    "found invalid Unicode character escape code": "双引号内的 \\u 不代表任何字符，请直接写出文字。",
    "found a tab character where an indentation space is expected": "缩进用了制表符，请改用空格。",
    "found undefined tag handle": "此处不能用感叹号开头，请删去感叹号，或给文字加引号。",
    "found duplicate %YAML directive": "%YAML 一行重复，请删去。",
}
"""What libyaml says most often, for people who never heard of it."""


class _OutsideSubset(yaml.MarkedYAMLError):
    """YAML that no policy needs; the problem is told in Chinese."""


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
        last = text.count("\n")  # the end of a file without a line end is one line further to libyaml
        raise PackRefused(name, [Defect(min(mark.line, last) + 1 if mark else 0, "", _in_words(error))]) from error
    except ReaderError as error:
        line = raw.count(b"\n", 0, error.position) + 1
        raise PackRefused(name, [Defect(line, "", "含有看不见的控制字符，请删去后重新输入。")]) from error
    return Source(name, data, lines)


def _in_words(error: yaml.MarkedYAMLError) -> str:
    told = str(error.problem or error.context)
    return told if isinstance(error, _OutsideSubset) else _IN_WORDS.get(told, f"不是有效的 YAML（{told}），请改正。")


def _check_shape(text: str) -> None:
    """Refuse aliases, so that no value stands in two places, and what is nested deeper than any policy is. Raises
    _OutsideSubset, MarkedYAMLError."""
    depth = 0
    for event in yaml.parse(text, _PackLoader):
        mark = cast("yaml.Mark", event.start_mark)  # libyaml's has the same fields
        if isinstance(event, yaml.AliasEvent):
            raise _OutsideSubset(problem="不能用 * 引用别处的值，请把值写出来。", problem_mark=mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _OutsideSubset(problem=f"嵌套超过 {MAX_DEPTH} 层，请检查括号和缩进。", problem_mark=mark)


def _canonical_text(raw: bytes, name: str) -> str:
    if len(raw) > MAX_BYTES:
        raise PackRefused(name, [Defect(0, "", f"文件超过 {MAX_BYTES // 1024} KB，请精简。")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PackRefused(name, [Defect(line, "", "文件不是 UTF-8 编码，请另存为 UTF-8。")]) from error
    if text.startswith("\ufeff"):
        raise PackRefused(name, [Defect(1, "", "文件开头有字节顺序标记（BOM），请另存为不带 BOM 的 UTF-8。")])
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        raise PackRefused(name, [Defect(line, "", "换行方式是 CR 或 CRLF，请另存为 LF 换行。")])
    return text


def _plain(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Plain:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        return _mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_plain(child, (*path, index), lines) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}str":
        return _scalar(node)
    raise _OutsideSubset(problem=f"不能用标签 {node.tag.replace(_TAG, '!!')}，请删去。", problem_mark=node.start_mark)


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, Plain]:
    result: dict[str, Plain] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key, str):
            raise _OutsideSubset(problem="名称只能是一段文字，请改正冒号前的部分。", problem_mark=key_node.start_mark)
        if key in result:
            raise _OutsideSubset(problem=f"{key} 在此处重复，请删去一个。", problem_mark=key_node.start_mark)
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
