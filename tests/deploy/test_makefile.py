"""Setting up: what a link leads to stays as it is, for it is somebody else's environment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A `venv` that fails, as it does where Debian's python3-venv is missing, but for `--clear`, which empties the folder.
PYTHON = """#!/bin/sh
[ "$3" = --clear ] || exit 1
rm -rf "$4"/*
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to set up in, where `make` finds that python, and an `apt-get` that does nothing."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    for name, text in {"python": PYTHON, "apt-get": "#!/bin/sh\n", "sudo": '#!/bin/sh\n"$@"\n'}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def set_up(folder: Path) -> "subprocess.CompletedProcess[str]":
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    command = ["make", f"PYTHON={folder / 'bin' / 'python'}", ".venv/.ready"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )


def test_an_environment_behind_a_link_is_refused_and_kept(folder: Path) -> None:
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / "kept").touch()
    (folder / ".venv").symlink_to(theirs)
    done = set_up(folder)
    assert done.returncode
    assert f".venv is a link to {theirs}" in done.stderr
    assert (theirs / "kept").exists()


def test_an_environment_of_our_own_that_is_half_made_is_cleared(folder: Path) -> None:
    (folder / ".venv").mkdir()
    (folder / ".venv" / "half").touch()
    set_up(folder)
    assert not (folder / ".venv" / "half").exists()
