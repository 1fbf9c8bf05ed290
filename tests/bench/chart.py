"""The chart of a run: each judged ratio as a bar to its worst round, its rounds as dots, its floor and aim as marks.

Run in the benchmarks' own environment: `python -m tests.bench.chart` reads the two files of a run.
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

RESULTS, FIGURES, CHART = Path("bench-results.json"), Path("bench-figures.json"), Path("bench-chart.svg")
HELD, MISSED = "#2a6f97", "#c1121f"


def draw(chart: Path) -> None:
    """Draw what RESULTS holds; the scale is logarithmic, for ratios."""
    results = json.loads(RESULTS.read_text())
    aims = json.loads(FIGURES.read_text())["aims"]
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
    figure, axes = plt.subplots(figsize=(10, 0.5 * len(results) + 1.5), layout="constrained")
    for place, (name, result) in enumerate(reversed(results.items())):
        held = result["worst"] >= result["floor"]
        axes.barh(place, result["worst"], height=0.5, color=HELD if held else MISSED, alpha=0.6)
        axes.plot(result["rounds"], [place] * len(result["rounds"]), "o", color="black", markersize=3)
        axes.plot([result["floor"]] * 2, [place - 0.4, place + 0.4], color=MISSED, linewidth=2)
        axes.plot([aims[name]] * 2, [place - 0.4, place + 0.4], color="green", linewidth=2, linestyle=":")
    axes.set_yticks(range(len(results)), list(reversed(results)))
    axes.set_xscale("log")
    axes.set_xlabel("ratio: bar = worst round, dots = rounds, red = floor, dotted green = aim")
    figure.savefig(chart, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else CHART)
