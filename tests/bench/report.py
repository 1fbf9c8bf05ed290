"""What a run found: the ratios with their floors as JSON, every other figure beside them, and both as a table."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.harness import Judged, Measured
from tests.bench.machine import described, spread

RESULTS = Path("bench-results.json")
FIGURES = Path("bench-figures.json")


def write(measured: Sequence[Measured]) -> None:
    """Write both files: RESULTS holds what is judged and nothing else, FIGURES the rest of the run."""
    RESULTS.write_text(json.dumps(results(measured), indent=2, ensure_ascii=False) + "\n")
    FIGURES.write_text(json.dumps(figures(measured), indent=2, ensure_ascii=False) + "\n")


def results(measured: Sequence[Measured]) -> dict[str, Any]:
    """`{name: {rounds, worst, floor, unit}}`; a floor is missed where `worst` is below it."""
    return {
        judged.name: {"rounds": values, "worst": min(values), "floor": judged.floor, "unit": "ratio"}
        for judged, values in _judged(measured)
    }


def figures(measured: Sequence[Measured]) -> dict[str, Any]:
    """The machine, its noise, the aims, and each contender's figures round by round."""
    return {
        "machine": described(),
        "noise": noise(measured),
        "aims": {judged.name: judged.aim for judged, _ in _judged(measured)},
        "figures": {
            one.benchmark.name: {
                name: {figure: [done[name][figure] for done in one.rounds] for figure in one.rounds[0][name]}
                for name in one.rounds[0]
            }
            for one in measured
        },
    }


def noise(measured: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """How long fixed work took before each turn: on a machine at rest lowest and highest are alike."""
    probes = [each for one in measured for each in one.probes]
    return {
        "cpu_ms": spread([each.cpu_ms for each in probes]),
        "fsync_ms": spread([each.fsync_ms for each in probes]),
    }


def missed(measured: Sequence[Measured]) -> list[str]:
    """The names of the floors that were missed."""
    return [judged.name for judged, values in _judged(measured) if not _held(judged, values)]


def show(measured: Sequence[Measured], console: Console) -> None:
    """Print the ratios, the figures behind them, and the machine's noise."""
    table = Table(title="judged on the worst round", title_justify="left")
    for column in ("ratio", "rounds", "worst", "floor", "aim", ""):
        table.add_column(column, justify="left" if column in {"ratio", ""} else "right")
    for judged, values in _judged(measured):
        told = " ".join(f"{value:.3g}" for value in values)
        table.add_row(
            judged.name, told, f"{min(values):.3g}", f"{judged.floor:.3g}", f"{judged.aim:.3g}", _word(judged, values)
        )
    console.print(table)
    beside = Table(title="figures, round by round", title_justify="left")
    for column in ("benchmark", "contender", "figure"):
        beside.add_column(column)
    beside.add_column("rounds", justify="right")
    for one in measured:
        for name, first in one.rounds[0].items():
            for figure in first:
                told = "  ".join(f"{done[name][figure]:,.4g}" for done in one.rounds)
                beside.add_row(one.benchmark.name, name, figure, told)
    console.print(beside)
    for name, value in noise(measured).items():
        console.print(f"noise: {name} " + ", ".join(f"{word} {number:.2f}" for word, number in value.items()))


def _judged(measured: Sequence[Measured]) -> Iterator[tuple[Judged, list[float]]]:
    for one in measured:
        for judged in one.benchmark.judged:
            yield judged, [judged.value(done) for done in one.rounds]


def _held(judged: Judged, values: Sequence[float]) -> bool:
    return all(value >= judged.floor for value in values)  # what is no number holds nothing


def _word(judged: Judged, values: Sequence[float]) -> str:
    if not _held(judged, values):
        return "[red]missed[/red]"
    return "[green]aim[/green]" if min(values) >= judged.aim else "held"
