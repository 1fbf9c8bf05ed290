"""The harness proves itself: copies of the code that are broken on purpose must each be caught, an unbroken one not.

Each sabotage is a patch in `patches/` with the faults that bring it out. A patch that no longer applies is a failure.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.drill import Patience, Result, Say, drill
from tests.faults.plan import Fault
from tests.faults.system import ROOT

PATCHES = Path(__file__).with_name("patches")
CODE = ("deploy", "libs", "services")
PATIENCE = Patience(rest=90.0)
RATE = 1.0
UNBROKEN = "unbroken"


class DoesNotApply(Exception):
    """A patch does not apply to the code as it is: mend the patch."""


def _fault(number: int, kind: str, target: str, *, seconds: float = 0.0, size: int = 0) -> Fault:
    return Fault(number, kind, target, after=1.0, seconds=seconds, size=size)


IN_FLIGHT = (
    _fault(1, "kill postgres in flight", "postgres", seconds=3, size=150),
    _fault(2, "kill postgres in flight", "postgres", seconds=3, size=150),
)
ANSWERED = tuple(_fault(n, "kill postgres in flight", "postgres", seconds=4, size=400) for n in range(1, 6))
UNPUBLISHED = (
    _fault(1, "kill leader in flight", "workflow", seconds=3),
    _fault(2, "kill leader in flight", "intake", seconds=3),
)
TWICE = (_fault(1, "duplicates", "every topic", size=100),)
TAKEN_OVER = (_fault(1, "kill leader", "workflow"),)
SESSIONS_LOST = (_fault(1, "kill backend", "workflow"),)
POISON = (_fault(1, "poison", "dept.completed"),)
PAID = (_fault(1, "bank never", "bank", seconds=10),)
SABOTAGE: Mapping[str, Sequence[Fault]] = {
    "answered-before-commit": ANSWERED,
    "command-done-again": TAKEN_OVER,
    "offset-before-effects": IN_FLIGHT,
    "inbox-skipped": TWICE,
    "marked-before-publish": UNPUBLISHED,
    "no-leader-lock": TAKEN_OVER,
    "relays-without-session": SESSIONS_LOST,
    "due-work-not-done": TAKEN_OVER,
    "parked-key-overtaken": POISON,
    "balance-not-updated": PAID,
    "unknown-paid-again": PAID,
    "early-dropped": POISON,
    "poison-dropped": POISON,
    "backwards": UNPUBLISHED,
}
"""Each patch with the faults that bring it out."""

EVERY_FAULT = (*IN_FLIGHT[:1], *ANSWERED[:1], *UNPUBLISHED[:1], *TWICE, *TAKEN_OVER, *SESSIONS_LOST, *POISON, *PAID)


@contextmanager
def copy(patch: str | None) -> Iterator[Path]:
    """A copy of the code, broken by a patch. Raises DoesNotApply."""
    with tempfile.TemporaryDirectory(prefix="huanquan-sabotage-") as made:
        tree = Path(made)
        for name in CODE:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        if patch:
            _apply(PATCHES / f"{patch}.patch", tree)
        yield tree


def _apply(patch: Path, tree: Path) -> None:
    done = subprocess.run(["git", "apply", str(patch)], cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DoesNotApply(f"{patch.name}: {done.stderr.strip()}")


async def sabotaged(name: str, *, base: int, say: Say) -> Result:
    """The drill on a copy that is broken (or not: UNBROKEN). Raises DoesNotApply, Refusal."""
    faults = EVERY_FAULT if name == UNBROKEN else SABOTAGE[name]
    with copy(None if name == UNBROKEN else name) as tree:
        return await drill(0, faults, base=base, rate=RATE, say=say, tree=tree, patience=PATIENCE)
