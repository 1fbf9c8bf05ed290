"""`make bench`: every benchmark in turn on one PostgreSQL. Exit 0: every floor held; 1: one was missed on its worst
round, or could not be judged on this machine; 2: asked for a benchmark that there is not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from tests.bench import consumer, filing, growth, journey, ledger, relay, report
from tests.bench.ground import standing
from tests.bench.harness import Measured, Skipped, measure
from tests.bench.six_steps import benchmark as six_steps

_ALL = (
    filing.BENCHMARK,
    six_steps.BENCHMARK,
    *relay.BENCHMARKS,
    journey.BENCHMARK,
    consumer.BENCHMARK,
    ledger.BENCHMARK,
    *growth.BENCHMARKS,
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ALL}

console = Console(width=160 if not sys.stdout.isatty() else None)


async def run(names: list[str], rounds: int, home: Path) -> tuple[list[Measured], list[str]]:
    """Measure these benchmarks one after another; what this machine cannot run is said and left out: the second
    list."""
    done, skipped = [], []
    async with standing(home) as ground:
        for name in names:
            try:
                done.append(await measure(BENCHMARKS[name], ground, rounds, console.print))
            except Skipped as why:
                console.print(f"{name} SKIPPED: {why}", style="yellow")
                skipped.append(name)
    return done, skipped


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each benchmark; fewer than four prove nothing.")] = 4,
    only: Annotated[str, typer.Option(help="Benchmarks to run, comma between; all where empty.")] = "",
) -> None:
    """Measure, write and show the results."""
    names = [name for name in only.split(",") if name] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        console.print(f"no benchmark {', '.join(unknown)}: one of {', '.join(BENCHMARKS)}", style="red")
        raise typer.Exit(2)
    home = Path(os.environ.get("HUANQUAN_BENCH_HOME", ".huanquan-bench")).resolve()
    home.mkdir(parents=True, exist_ok=True)
    measured, skipped = uvloop.run(run(names, rounds, home))
    report.write(measured)
    report.show(measured, console)
    draw()
    missed = report.missed(measured)
    for word, found in (("floors missed", missed), ("not judged", skipped)):
        if found:
            console.print(f"{word}: {'; '.join(found)}", style="red")
    if missed or skipped:
        raise typer.Exit(1)


def draw() -> None:
    """Draw the chart, by the libraries that only benchmarks have."""
    subprocess.run([os.environ["BENCH_PYTHON"], "-m", "tests.bench.chart"], check=True)


if __name__ == "__main__":
    cli = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    cli.command()(main)
    cli()
