"""`python -m tests.faults`: the drill and the sabotage as commands; the Makefile calls them."""

import asyncio
import json
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deploy.refusals import Refusal
from libs.common import telemetry
from tests.faults.drill import Result, drill
from tests.faults.plan import KINDS, plan
from tests.faults.report import print_plan, print_result

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()


@app.callback()
def commands() -> None:
    """The fault drill."""


def say(line: str) -> None:
    """A line as it is, at once."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.file.flush()


@app.command("drill")
def run_drill(
    *,
    seed: Annotated[int, typer.Option(help="The schedule follows from it.")] = 1,
    faults: Annotated[int, typer.Option(min=1, help="How many faults.")] = 10,
    port: Annotated[int, typer.Option(help="First of a hundred ports.")] = 15000,
    rate: Annotated[float, typer.Option(help="Filings a second.")] = 1.0,
    json_file: Annotated[Path, typer.Option("--json", metavar="FILE")] = Path("drill-results.json"),
    only: Annotated[list[str] | None, typer.Option(help=f"Only these kinds: {', '.join(KINDS)}.")] = None,
) -> None:
    """Run the faults that the seed gives. Exit 1 where anything is violated, 2 where the drill cannot be run."""
    telemetry.configure(level="CRITICAL")
    faults_planned = plan(seed, faults, tuple(only or KINDS))
    print_plan(console, seed, faults_planned)
    try:
        result = asyncio.run(_until_stopped(drill(seed, faults_planned, base=port, rate=rate, say=say)))
    except Refusal as refusal:
        say(str(refusal))
        raise typer.Exit(2) from None
    except asyncio.CancelledError:
        say("stopped; everything that was started is stopped too")
        raise typer.Exit(130) from None
    json_file.write_text(json.dumps(result.to_json(), ensure_ascii=False, indent=2) + "\n")
    print_result(console, result)
    raise typer.Exit(1 if result.violations else 0)


async def _until_stopped(work: Coroutine[Any, Any, Result]) -> Result:
    """The outcome of work, which is cancelled on SIGINT or SIGTERM; a second one changes nothing."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


if __name__ == "__main__":
    app()
