"""The generated documents name every code that a caller may meet."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy import docs
from libs.common import identity
from services.finance.domain import Verdict
from services.intake.domain import REASON_ADVICE, REASONS

ROOT = Path(docs.__file__).parents[1]
OF_FIELDS = {"PydanticCustomError": 0, "FieldError": 1, "field_error": 1, "_wrong": 0, "_fault": 0}
DEFECTS, OBSTACLES = {"_defect": 0}, {"_obstacle": 0, "Obstacle": 0}


def raised(by: Mapping[str, int]) -> Iterator[str]:
    """Every code that stands as a literal where it is raised; `by` are functions, with the place of their code."""
    for folder in ("libs", "services"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in by:
                    code = node.args[by[node.func.id]] if node.args else None
                    if isinstance(code, ast.Constant):
                        yield str(code.value)


@pytest.mark.parametrize(
    ("heading", "codes"),
    [
        ("字段错误", {*raised(OF_FIELDS), *identity.TITLES}),
        ("补正事项", set(raised(DEFECTS))),
        ("不予受理原因", set(REASONS)),
        ("决定障碍", set(raised(OBSTACLES))),
        ("回盘异常", {kind.value for kind in Verdict if kind.is_exception}),
    ],
)
def test_every_code_within_a_body_is_documented_where_it_is_looked_for(heading: str, codes: set[str]) -> None:
    section = docs.errors().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    assert codes
    assert {code for code in codes if f"| `{code}` |" not in section} == set()


def test_every_code_has_words_for_what_to_do() -> None:
    assert identity.TITLES.keys() == identity.ADVICE.keys()
    assert REASONS.keys() == REASON_ADVICE.keys()
