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
from tests.faults.drill import Patience, Result, drill
from tests.faults.plan import KINDS, plan
from tests.faults.report import print_plan, print_result, print_sabotage
from tests.faults.sabotage import SABOTAGE, UNBROKEN, DoesNotApply, sabotaged

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()

Port = Annotated[int, typer.Option(help="The first of a hundred free ports.")]
JsonFile = Annotated[Path, typer.Option("--json", metavar="FILE", help="Where the result goes as JSON.")]


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
    port: Port = 30000,
    rate: Annotated[float, typer.Option(help="Filings a second.")] = 1.0,
    patience: Annotated[float, typer.Option(help="Wait so many times longer: for a machine that does other work.")] = 1,
    json_file: JsonFile = Path("drill-results.json"),
    only: Annotated[list[str] | None, typer.Option(help=f"Only these kinds: {', '.join(KINDS)}.")] = None,
) -> None:
    """Run the faults that the seed gives. Exit 1 where anything is violated, 2 where the drill cannot be run."""
    telemetry.configure(level="CRITICAL")
    faults_planned = plan(seed, faults, tuple(only or KINDS))
    print_plan(console, seed, faults_planned)
    json_file.unlink(missing_ok=True)  # of an earlier run: whoever stops this one must not take it for its result
    result = _run(drill(seed, faults_planned, base=port, rate=rate, say=say, patience=Patience().times(patience)))
    json_file.write_text(json.dumps(result.to_json(), ensure_ascii=False, indent=2) + "\n")
    print_result(console, result)
    raise typer.Exit(1 if result.violations else 0)


@app.command("sabotage")
def run_sabotage(
    *,
    port: Port = 30000,
    json_file: JsonFile = Path("sabotage-results.json"),
    only: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(SABOTAGE)}.")] = None,
) -> None:
    """Run the drill on copies of the code that are broken on purpose. Exit 1 where one is not caught, where a patch no
    longer applies, or where the unbroken code is found broken; 2 where the drill cannot be run."""
    telemetry.configure(level="CRITICAL")
    json_file.unlink(missing_ok=True)
    results: dict[str, list[str]] = {}
    for name in (UNBROKEN, *(only or SABOTAGE)):
        say(f"--- {name}")
        try:
            results[name] = _run(sabotaged(name, base=port, say=say)).violations
        except DoesNotApply as error:
            say(f"the patch does not apply: {error}")
            results[name] = []
    json_file.write_text(json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    print_sabotage(console, results)
    raise typer.Exit(0 if all(bool(found) != (name == UNBROKEN) for name, found in results.items()) else 1)


class Stopped(Exception):
    """Somebody asked the drill to stop, and everything it started has stopped."""


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Its outcome; ends the command where it was stopped, or cannot be done."""
    try:
        return asyncio.run(_until_stopped(work))
    except Refusal as refusal:
        say(str(refusal))
        raise typer.Exit(2) from None
    except Stopped:
        say("stopped; everything that was started is stopped too")
        raise typer.Exit(130) from None


async def _until_stopped(work: Coroutine[Any, Any, Result]) -> Result:
    """The outcome of work, which is cancelled on SIGINT or SIGTERM; a second one changes nothing. Raises Stopped."""
    task = asyncio.ensure_future(work)
    asked = False

    def stop() -> None:
        nonlocal asked
        asked = asked or task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if asked:
            raise Stopped from None
        raise


if __name__ == "__main__":
    app()
