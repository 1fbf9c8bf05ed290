"""The generated documents name every code that a caller may meet."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import docs
from libs.common import identity
from services.finance.domain import Verdict
from services.intake.domain import REASON_ADVICE, REASONS

ROOT = Path(docs.__file__).parents[1]
RAISED = {"PydanticCustomError": 0, "FieldError": 1, "_wrong": 0, "_defect": 0, "_obstacle": 0, "Obstacle": 0}


def raised() -> Iterator[str]:
    """Every code that stands as a literal where it is raised."""
    for folder in ("libs", "services"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED:
                    code = node.args[RAISED[node.func.id]] if node.args else None
                    if isinstance(code, ast.Constant):
                        yield str(code.value)


@pytest.mark.parametrize(
    "codes",
    [set(raised()), set(identity.TITLES), set(REASONS), {kind.value for kind in Verdict if kind.is_exception}],
    ids=["raised", "identity", "reasons", "exceptions"],
)
def test_every_code_within_a_body_is_documented(codes: set[str]) -> None:
    text = docs.errors()
    assert codes
    assert {code for code in codes if f"| `{code}` |" not in text} == set()


def test_every_code_has_words_for_what_to_do() -> None:
    assert identity.TITLES.keys() == identity.ADVICE.keys()
    assert REASONS.keys() == REASON_ADVICE.keys()
