"""A home belongs to one running system and to one form: another would take its engine away, or lose its place."""

from pathlib import Path

import pytest

from deploy.local import Local
from deploy.refusals import NotStarted


def test_a_second_system_on_the_same_home_is_refused(tmp_path: Path) -> None:
    first, second = Local(tmp_path), Local(tmp_path)
    first.claim("together")
    with pytest.raises(NotStarted, match="another system runs on"):
        second.claim("together")
    first.release()


def test_the_other_form_needs_a_home_of_its_own(tmp_path: Path) -> None:
    first = Local(tmp_path)
    first.claim("together")
    first.release()
    with pytest.raises(NotStarted, match="holds data of the other form"):
        Local(tmp_path).claim("apart")
    first.claim("together")
    first.release()
