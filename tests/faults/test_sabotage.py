"""What the drill promises of itself before it runs: its schedule repeats, and its sabotage still breaks the code."""

from itertools import islice
from pathlib import Path

import pytest

from tests.faults.filing import People
from tests.faults.plan import KINDS, plan
from tests.faults.sabotage import PATCHES, SABOTAGE, copy
from tests.faults.strikes import STRIKES


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    assert plan(7, 100) == plan(7, 100)
    assert plan(7, 100) != plan(8, 100)


def test_a_hundred_faults_hold_every_kind() -> None:
    assert {fault.kind for fault in plan(1, 100)} == set(KINDS) == set(STRIKES)


def test_every_patch_has_faults_that_bring_it_out() -> None:
    assert {patch.stem for patch in PATCHES.glob("*.patch")} == set(SABOTAGE)


@pytest.mark.parametrize("patch", SABOTAGE)
def test_a_sabotage_still_applies(patch: str) -> None:
    with copy(patch) as broken, copy(None) as whole:
        changed = [file.relative_to(whole) for file in whole.rglob("*.py") if differs(file, broken, whole)]
    assert changed


def differs(file: Path, broken: Path, whole: Path) -> bool:
    return file.read_bytes() != (broken / file.relative_to(whole)).read_bytes()


def test_nobody_files_in_two_populations() -> None:
    first, second = islice(People(1).populations(), 2)
    assert {line.key for line in first}.isdisjoint(line.key for line in second)
    assert first[0].body["beneficiary"] != second[0].body["beneficiary"]
