"""What a drill prints: the schedule before, the table after."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.faults.drill import Result, Struck
from tests.faults.plan import Fault
from tests.faults.sabotage import UNBROKEN


def print_plan(console: Console, seed: int, faults: Sequence[Fault]) -> None:
    """The schedule, a fault a line."""
    console.print(f"schedule of seed {seed}:", highlight=False)
    for fault in faults:
        console.print(f"  {fault.number:4}  after {fault.after:.1f} s  {fault}", highlight=False, soft_wrap=True)


def print_result(console: Console, result: Result) -> None:
    """How long each kind took to recover, and what is violated."""
    table = Table("kind", "faults", "held, s", "recovery, s: median", "worst", title=f"drill, seed {result.seed}")
    kinds: dict[str, list[Struck]] = defaultdict(list)
    for struck in result.faults:
        kinds[struck.kind].append(struck)
    for kind, all_of in sorted(kinds.items()):
        times = [struck.recovery for struck in all_of if struck.recovery is not None]
        held = f"{min(s.held for s in all_of):.0f}–{max(s.held for s in all_of):.0f}"
        told = (f"{median(times):.1f}", f"{max(times):.1f}") if times else ("never", "never")
        table.add_row(kind, str(len(all_of)), held, *told)
    console.print(table)
    console.print(
        f"{len(result.faults)} faults, {result.applications} applications, {result.payments} payments, "
        f"{result.seconds:.0f} s; without a fault a probe takes {result.calm_seconds:.1f} s",
        highlight=False,
    )
    for violation in result.violations:
        console.print(f"violated: {violation}", style="red", markup=False, soft_wrap=True, highlight=False)
    hold = sum(1 for finding in result.findings if not finding["violations"])
    console.print(f"{hold} of {len(result.findings)} invariants hold; {len(result.violations)} violations")


def print_sabotage(console: Console, results: Mapping[str, Sequence[str]]) -> None:
    """What caught each sabotage; the unbroken code must be found whole."""
    table = Table("code", "verdict", "by", title="sabotage")
    for name, found in results.items():
        unbroken = name == UNBROKEN
        verdict = "whole" if unbroken and not found else "FOUND BROKEN" if unbroken else "caught" if found else "MISSED"
        table.add_row(name, verdict, "\n".join(found[:3]))
    console.print(table)
