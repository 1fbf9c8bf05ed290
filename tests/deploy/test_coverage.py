"""The coverage document: what carries out each article, and what it says where something is wanting."""

from pathlib import Path

import pytest

from deploy.coverage import OPERATIONS, Row, coverage, marked, written
from tests.common.packs import a_pack, anyang, reviewed

TESTS = {"第五条": ["tests/a.py::test_five"]}


def test_each_article_of_the_source_has_a_row_with_its_rules_and_operations() -> None:
    rows = {row.article: row for row in coverage(anyang(), TESTS)}
    assert list(rows) == [f"第{n}条" for n in "一二三四五六七八九十"]
    assert "sharing.living-allowance.county" in rows["第五条"].rules
    assert "GET /finance/v1/settlements" in rows["第五条"].operations
    assert rows["第五条"].tests == ("tests/a.py::test_five",)
    assert "| `tests/a.py::test_five` |" in written(anyang(), list(rows.values()))


def test_what_is_reviewed_before_instalments_is_carried_out_by_finance() -> None:
    rows = {row.article: row for row in coverage(a_pack(reviewed("living_allowance")), TESTS)}
    assert "still.insured" in rows["第四条"].rules
    assert "GET /finance/v1/pending-reviews" in rows["第四条"].operations
    assert "GET /finance/v1/pending-reviews" not in {
        each for row in coverage(anyang(), TESTS) for each in row.operations
    }


def test_every_kind_of_record_that_cites_is_carried_out_by_something() -> None:
    assert {type(record) for _, record in anyang().cited()} <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("row", "wanting"),
    [
        (Row("第二条", ("a",), ("GET /here",), ()), "第二条: no test is marked with it"),
        (Row("第二条", (), (), ("t",)), "第二条: neither a rule nor an operation carries it out"),
        (Row("第二条", ("a",), ("GET /gone",), ("t",)), "第二条: no service has GET /gone"),
        (Row("第二条", ("a",), ("GET /here",), ("t",)), None),
    ],
)
def test_what_is_wanting_is_named(row: Row, wanting: str | None) -> None:
    assert row.gap({"GET /here"}) == wanting


def test_tests_are_found_by_their_markers(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(
        '@pytest.mark.article("第一条")\n@pytest.mark.article("第二条")\nasync def test_a(): ...\n\n'
        '@pytest.mark.article("第二条")\ndef test_b(): ...\n\ndef test_c(): ...\n'
    )
    assert marked(tmp_path / "tests") == {
        "第一条": ["tests/test_x.py::test_a"],
        "第二条": ["tests/test_x.py::test_a", "tests/test_x.py::test_b"],
    }
