"""The generated documents name every code that a caller may meet."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy import docs
from libs.common import identity
from services.finance.domain import Verdict
from services.intake.domain import REASON_ADVICE, REASONS
from services.intake.refs import ExternalRefTaken

ROOT = Path(docs.__file__).parents[1]
OF_FIELDS = {"PydanticCustomError": 0, "FieldError": 1, "_wrong": 0}
OF_BODIES = {"_defect": 0, "_obstacle": 0, "Obstacle": 0}


def raised(by: Mapping[str, int]) -> Iterator[str]:
    """Every code that stands as a literal where it is raised, at its place among the arguments."""
    for folder in ("libs", "services"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in by:
                    code = node.args[by[node.func.id]] if node.args else None
                    if isinstance(code, ast.Constant):
                        yield str(code.value)


@pytest.mark.parametrize(
    "codes",
    [set(raised(OF_BODIES)), set(identity.TITLES), set(REASONS), {kind.value for kind in Verdict if kind.is_exception}],
    ids=["raised", "identity", "reasons", "exceptions"],
)
def test_every_code_within_a_body_is_documented(codes: set[str]) -> None:
    text = docs.errors()
    assert codes
    assert {code for code in codes if f"| `{code}` |" not in text} == set()


def test_every_code_of_a_field_stands_in_the_table_of_fields() -> None:
    [table] = [words for heading, _, words in docs.sections() if heading == "字段错误"]
    codes = {*raised(OF_FIELDS), ExternalRefTaken.code}
    assert len(codes) > 10
    assert codes - set(table) == set()


def test_every_code_has_words_for_what_to_do() -> None:
    assert identity.TITLES.keys() == identity.ADVICE.keys()
    assert REASONS.keys() == REASON_ADVICE.keys()
