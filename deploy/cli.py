"""`huanquan`: the one command line, for those who start, watch, replay and repair."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from deploy import rules_cli
from deploy.local import TOGETHER_PORT, Addresses, Local, NotStarted, PortTaken, home_of_environment
from deploy.sample.issuer import token
from libs.common import telemetry
from libs.common.settings import Settings, SettingsMissing

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="洹泉 Huanquan: a talent-policy service platform.",
)
parked = typer.Typer(no_args_is_help=True, help="Events that could not be handled: list, show, release.")
app.add_typer(rules_cli.policy, name="policy")
app.command("due-date")(rules_cli.due_date)
app.command("token")(token)
app.add_typer(parked, name="parked")
console = Console()

Port = Annotated[int, typer.Option(envvar="PORT", help="Port p of all together; each alone at p+1 … p+5.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")]
ServiceName = Annotated[str, typer.Option("--service", help="intake, workflow, finance, housing or audit.")]
ExistingKafka = Annotated[
    str, typer.Option(envvar="HUANQUAN_KAFKA", metavar="HOST:PORT,…", help="Brokers to use instead of our own.")
]


@app.command()
def up(
    port: Port = TOGETHER_PORT,
    *,
    kafka: Annotated[bool, typer.Option("--kafka", help="Five processes with Kafka instead of one process.")] = False,
    brokers: ExistingKafka = "",
    sample: Annotated[bool, typer.Option(help="Run the sample population when up.")] = True,
) -> None:
    """Start the system, run the sample population to rest, and stay until stopped."""
    from deploy.demo import run_up

    raise typer.Exit(
        uvloop.run(run_up(Local(home_of_environment()), port, kafka=kafka, brokers=brokers, sample=sample))
    )


@app.command()
def demo(port: Port = TOGETHER_PORT, *, json_file: JsonFile = None) -> None:
    """Run the sample population on the system that answers at the port, else on one of our own; then verify."""
    from deploy.demo import run_demo

    raise typer.Exit(uvloop.run(run_demo(Local(home_of_environment()), port, json_file)))


@app.command()
def serve(
    services: Annotated[list[str] | None, typer.Argument(help="Which services; all five where none is named.")] = None,
    *,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; by default a service's own (8001 …), 8000 for several.")
    ] = None,
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Serve services of a deployment that the environment describes (HUANQUAN_…)."""
    from deploy.engine import SERVICES
    from deploy.forms import StoppedAtStart, die_with_parent, server

    if with_parent:
        die_with_parent()
    settings = Settings()
    telemetry.configure(level="INFO", messages_of_exceptions=settings.mode == "development")
    names = services or SERVICES
    own = Addresses(TOGETHER_PORT, together=len(names) > 1).port_of(names[0])
    running = server(names, settings, bind=bind, port=port or own)
    running.run()
    if not running.started:
        raise running.why_not(StoppedAtStart("it stopped while it was starting; its log says why"))


@app.command()
def migrate() -> None:
    """Bring every database up to date, as its owner; make the bus's tables or Kafka's topics."""
    from deploy.operations import migrate_deployed

    for line in migrate_deployed():
        typer.echo(line)


@app.command()
def verify(
    *,
    at_rest: Annotated[bool, typer.Option("--at-rest", help="Also demand that nothing is under way.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Check every invariant across all five databases, reading only. Exit 1 when one is violated."""
    from deploy.operations import opened
    from deploy.verify import verify_all

    async def run() -> list[dict[str, object]]:
        async with opened() as settings:
            return await verify_all(settings, at_rest=at_rest)

    findings = asyncio.run(run())
    table = Table("invariant", "checked", "violations", "first")
    for finding in findings:
        table.add_row(
            *(
                str(finding[name] if finding[name] is not None else "")
                for name in ("name", "checked", "violations", "first")
            )
        )
    console.print(table)
    if json_file:
        json_file.write_text(json.dumps(findings, ensure_ascii=False, indent=2) + "\n")
    raise typer.Exit(1 if any(finding["violations"] for finding in findings) else 0)


@parked.command("list")
def parked_list(service: Annotated[str, typer.Option(help="Only this service.")] = "") -> None:
    """List parked keys: how many events each holds, since when, why, and what it waits for."""
    from deploy.operations import parked_keys

    rows = asyncio.run(parked_keys(service or None))
    table = Table("service", "topic", "key", "events", "since", "waiting for", "reason")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console.print(table if rows else "nothing is parked")


@parked.command("show")
def parked_show(service: ServiceName, topic: str, key: str) -> None:
    """Show the parked events of one key, oldest first."""
    from deploy.operations import parked_events

    for event in asyncio.run(parked_events(service, topic, key)):
        console.print_json(json.dumps(event, ensure_ascii=False))


@parked.command("release")
def parked_release(service: ServiceName, topic: str, key: str) -> None:
    """Try the parked events of one key again, in order. Exit 1 if any is refused again."""
    from deploy.operations import release_key

    outcome = asyncio.run(release_key(service, topic, key))
    typer.echo(f"handled {outcome.handled}, still parked {outcome.parked}")
    raise typer.Exit(1 if outcome.parked else 0)


@app.command()
def replay(
    service: ServiceName,
    topic: Annotated[str, typer.Option(help="The topic to read again.")],
    partition: Annotated[int | None, typer.Option(help="Only this partition.")] = None,
    offset: Annotated[int, typer.Option(help="From this offset on.")] = 0,
) -> None:
    """Give a service a topic's events again; says what was handled and what was skipped."""
    from deploy.operations import replay_topic

    outcome = asyncio.run(replay_topic(service, topic, partition, offset))
    typer.echo(
        f"handled {outcome.handled}, skipped {outcome.known} taken before and {outcome.foreign} of no use to "
        f"{service}, parked {outcome.parked}"
    )


@app.command()
def rebuild(service: ServiceName) -> None:
    """Empty a service's projection and make it anew from the log."""
    from deploy.operations import rebuild_projection

    outcome = asyncio.run(rebuild_projection(service))
    typer.echo(f"applied {outcome.handled} events, skipped {outcome.known} repeated ones, parked {outcome.parked}")


@app.command()
def clean() -> None:
    """Stop what runs below HUANQUAN_HOME and remove it."""
    from deploy.operations import remove_home

    remove_home(home_of_environment())


def main() -> None:
    """Entry point of `huanquan`."""
    try:
        app()
    except (SettingsMissing, PortTaken, NotStarted, LookupError) as refusal:
        typer.echo(refusal.args[0], err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
