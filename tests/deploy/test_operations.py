"""Alerts and their document: each alert says what to do, and looks at what the services really tell."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "huanquan.rules.yml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_every_alert_has_a_section_that_says_what_to_do_and_no_section_is_left_over() -> None:
    told = re.findall(r"^### (\w+)\n(.+)", DOCUMENT, re.MULTILINE)
    assert [name for name, words in told if words.strip()] == [alert["alert"] for alert in alerts()]


def test_every_gauge_that_an_alert_looks_at_stands_in_the_code() -> None:
    code = "\n".join(
        file.read_text() for room in ("libs", "services", "deploy") for file in (ROOT / room).rglob("*.py")
    )
    looked_at = {name for alert in alerts() for name in re.findall(r"huanquan_(\w+)", alert["expr"])}
    assert looked_at
    assert {name for name in looked_at if f'"{name}"' not in code and f'"huanquan_{name}"' not in code} == set()
