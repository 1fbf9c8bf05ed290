"""Conditions in CEL: compiled against the declared facts, evaluated on those that are known.

The one module that knows the library (cel-expr-python over Google's C++ runtime: no loops, no side effects). By CEL's
rules `false && unknown` is false and `true || unknown` is true; whatever else meets a fact that is not known has no
value, so what is missing never turns into a no. https://github.com/cel-expr/cel-spec
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from random import Random
from typing import Any, NamedTuple, TypeAlias

from cel_expr_python import cel

from libs.common.policy.model import Fact, FactType

FactValueType: TypeAlias = bool | int | str
Facts: TypeAlias = Mapping[str, FactValueType]
"""What is known, by the names of facts; what is not known is left out."""

_TYPES = {FactType.BOOL: cel.Type.BOOL, FactType.INT: cel.Type.INT, FactType.STRING: cel.Type.STRING}
_ANY: Mapping[FactType, FactValueType] = {FactType.BOOL: False, FactType.INT: 0, FactType.STRING: ""}
_TYPE_WORDS = {
    "bool": "是否值",
    "int": "整数",
    "string": "文本",
    "double": "小数",
    "list": "列表",
    "null": "空值",
    "null_type": "空值",
}
_UNDECLARED = re.compile(r"undeclared reference to '(.*?)' \(in container ''\)")
_NO_OVERLOAD = re.compile(r"found no matching overload for '[_@]?(.*?)_?' applied to '(.*?)'")
_SYNTAX = re.compile(r"Syntax error: .*?(?:at:|at|input) '(.+?)'(?= expecting|$)")
_PLACE = re.compile(r"<input>:(\d+):(\d+): (.*)")
_TOKEN = re.compile(r"""'[^'\n]*'|"[^"\n]*"|[A-Za-z_][\w.]*|&&|\|\||[!=<>]=|[!<>]""")
_WORDS = {
    "&&": "，且",
    "||": "，或",
    "!": "非",
    "==": "为",
    "!=": "不为",
    "in": "属于",
    "true": "是",
    "false": "否",
    "<": "小于",
    "<=": "不大于",
    ">": "大于",
    ">=": "不小于",
}
_NUMBER = re.compile(r"(?<![\w.])\d{1,15}(?![\w.])")
_LARGE = 10**12
_MOST_TRIED = 256
_MOST_TOLD = 40
_LITERAL = re.compile(r"""(?<![rRbB])(?:'([^'\\\n]*)'|"([^"\\\n]*)")""")


class ConditionWrong(Exception):
    """A condition that cannot be compiled; the message names line and column and says what to mend."""


class Compiled(NamedTuple):
    """A condition that can be evaluated, and the facts that it uses, as they are declared."""

    expression: Any
    uses: tuple[str, ...]

    def holds(self, facts: Facts) -> bool | None:
        """Whether it is met; None where a fact that counts is not known."""
        try:
            found = self.expression.eval(data=facts)
        except RuntimeError:  # the library's own limit on work
            return None
        return found.value() if found.type() == cel.Type.BOOL else None


@lru_cache(maxsize=1024)  # a pack is checked at load with what it is asked by later
def compile_condition(source: str, facts: tuple[Fact, ...]) -> Compiled:
    """Compile a condition against the declared facts. Raises ConditionWrong."""
    declared = {fact.name: fact.type for fact in facts}
    expression = _compile(source, declared)
    if expression.return_type() != cel.Type.BOOL:
        kind = _typed(expression.return_type().name().lower())
        raise ConditionWrong(f"条件的结果是{kind}，应为是或否，请写成比较，如 person.degree == 'master'。")
    uses = tuple(name for name in declared if not _compiles(source, declared.keys() - {name}, declared))
    _check_literals(source, [fact for fact in facts if fact.name in uses])
    try:
        expression.eval(data={name: _ANY[declared[name]] for name in uses})
    except RuntimeError as error:
        raise ConditionWrong("条件的运算量过大，请不要对列表逐项循环。") from error
    return Compiled(expression, uses)


def without_value(source: str, facts: tuple[Fact, ...]) -> Facts | None:
    """Values of all facts that a condition uses for which it says neither yes nor no, as it divides by zero: what is
    told then would ask for what is known. None where none of those that are tried is such. Raises ConditionWrong."""
    compiled = compile_condition(source, facts)
    numbers = sorted({n + near for n in (0, *map(int, _NUMBER.findall(source))) for near in (-1, 0, 1)} | {_LARGE})
    ranges = [_values(fact, numbers) for fact in facts if fact.name in compiled.uses]
    tried = (dict(zip(compiled.uses, values, strict=True)) for values in _combinations(source, ranges))
    return next((known for known in tried if compiled.holds(known) is None), None)


def _values(fact: Fact, numbers: Sequence[int]) -> Sequence[FactValueType]:
    match fact.type:
        case FactType.BOOL:
            return (False, True)
        case FactType.INT:
            return numbers
        case FactType.STRING:
            return [value.code for value in fact.values]


def _combinations(seed: str, ranges: Sequence[Sequence[FactValueType]]) -> Iterator[tuple[FactValueType, ...]]:
    """All, or some by chance where there are many."""
    if prod(map(len, ranges)) <= _MOST_TRIED:
        return product(*ranges)
    chance = Random(seed)
    return (tuple(map(chance.choice, ranges)) for _ in range(_MOST_TRIED))


def in_words(source: str, facts: Collection[Fact]) -> str:
    """A condition in Chinese: facts and values by their titles. What has no word stays as it is written."""
    titles = {fact.name: fact.title for fact in facts}
    values = {value.code: value.title for fact in facts if fact.name in source for value in fact.values}

    def word(found: re.Match[str]) -> str:
        token = found[0]
        if token[0] in "'\"":
            return values.get(token[1:-1], token[1:-1])
        return titles.get(token, _WORDS.get(token, token))

    return "".join(_TOKEN.sub(word, source).split())


def _compile(source: str, declared: Mapping[str, FactType]) -> Any:
    try:
        return _environment(frozenset(declared.items())).compile(source)
    except RuntimeError as error:
        raise ConditionWrong(_reason(str(error))) from error


def _compiles(source: str, names: Collection[str], declared: Mapping[str, FactType]) -> bool:
    try:
        _compile(source, {name: declared[name] for name in names})
    except ConditionWrong:
        return False
    return True


@lru_cache(maxsize=256)
def _environment(declared: frozenset[tuple[str, FactType]]) -> Any:
    return cel.NewEnv(variables={name: _TYPES[kind] for name, kind in declared})


def _reason(told: str) -> str:
    """The first thing that the library found wrong."""
    place = _PLACE.search(told)
    if place is None:
        return "条件过长或括号层数过多，请拆成几个条件。"
    line, column, what = place[1], place[2], place[3].removesuffix(" [INVALID_ARGUMENT]")
    return f"条件第 {line} 行第 {column} 列：{_mended(what)}"


def _mended(what: str) -> str:
    if found := _UNDECLARED.match(what):
        return f"facts 中没有声明 {found[1]}，请改正名称，或在 facts 中补上。"
    if found := _NO_OVERLOAD.match(what):
        return f"{found[1]} 不能用于（{_typed(found[2])}），请改成同类的值，文本加引号，数字不加。"
    if found := _SYNTAX.match(what):
        if found[1] == "<EOF>":
            return "条件没有写完，请补全，并检查引号和括号是否成对。"
        return f"{found[1].strip()} 在此处不合写法，请检查引号、括号和运算符（&&、||、==），只用英文标点。"
    return f"这样写不能识别，请改正（{what}）。"


def _typed(types: str) -> str:
    """The names of CEL's types, as `(int, string)`, in Chinese."""
    return re.sub(r"\w+", lambda found: _TYPE_WORDS.get(found[0], found[0]), types.strip("()")).replace(", ", "、")


def _check_literals(source: str, used: Collection[Fact]) -> None:
    """A text that no fact of the condition can ever equal is a slip of the pen."""
    values = {value.code for fact in used for value in fact.values}
    for found in _LITERAL.finditer(source):
        literal = found[1] if found[1] is not None else found[2]
        if literal not in values:
            line, column = (
                source.count("\n", 0, found.start()) + 1,
                found.start() - source.rfind("\n", 0, found.start()),
            )
            known = "、".join(sorted(values)) or "无"
            told = literal if len(literal) <= _MOST_TOLD else f"{literal[:_MOST_TOLD]}…"
            raise ConditionWrong(
                f"条件第 {line} 行第 {column} 列：所用的情况都没有值 '{told}'，请改正，可用：{known}。"
            )
