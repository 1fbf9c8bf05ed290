"""`huanquan`: the one command line, for those who start, watch, replay and repair."""

import asyncio
import json
import logging
import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvloop
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from typer.exceptions import TyperException

from deploy import backup_cli, decision_cli, rules_cli, simulation_cli, version_cli
from deploy.backup_cli import user_of_this_system
from deploy.local import TOGETHER_PORT, Addresses, Local, home_of_environment
from deploy.refusals import Refusal
from deploy.sample.issuer import token
from libs.common import telemetry
from libs.common.db import passing
from libs.common.migration import TablesBusy
from libs.common.policy import PolicyError
from libs.common.settings import Settings, SettingsMissing, variable

if TYPE_CHECKING:
    from deploy.verify import Report

LAST_PORT = 65_535
WIDTH = 80  # of what is printed for people


def _of_settings() -> str:
    lines = [
        f"{variable(name)}: {field.description}" if field.description else variable(name)
        for name, field in Settings.model_fields.items()
    ]
    return "Variables: " + "; ".join(lines) + "."


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="洹泉 Huanquan: a talent-policy service platform. Commands for operators work on the deployment that the "
    "environment describes (HUANQUAN_…), else on the one below HUANQUAN_HOME (.huanquan). Exit codes: 0 done, 1 looked "
    "and found something wrong, 2 refused (one line says why), 130 interrupted.",
)
parked = typer.Typer(
    no_args_is_help=True, help="Events that could not be handled, kept with their key: list, show, release, discard."
)
app.add_typer(rules_cli.policy, name="policy")
rules_cli.policy.command()(decision_cli.explain)
rules_cli.policy.command("test")(decision_cli.decide_cases)
rules_cli.policy.command("guide")(decision_cli.write_guide)
rules_cli.policy.command()(simulation_cli.simulate)
rules_cli.policy.command()(version_cli.interpret)
rules_cli.policy.command()(version_cli.publish)
app.command("due-date")(rules_cli.due_date)
app.command("token")(token)
app.add_typer(parked, name="parked")
app.add_typer(backup_cli.backup, name="backup")
app.command("restore")(backup_cli.restore)
app.command("bus-diff")(backup_cli.bus_diff)


def _writable(file: Path | None) -> Path | None:
    """A file that can be written, looked at before any work is done for it; `-` is standard output."""
    if file is None or str(file) == "-":
        return file
    if file.is_dir():
        raise typer.BadParameter(f"{file} is a folder")
    if not file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise typer.BadParameter(f"{file} cannot be written")
    return file


def _not_stdout(file: Path | None) -> Path | None:
    if file and str(file) == "-":
        raise typer.BadParameter("standard output has something else to show: name a file")
    return _writable(file)


Port = Annotated[
    int,
    typer.Option(envvar="PORT", min=1, max=LAST_PORT - 5, help="Port p of all five together; each alone at p+1 … p+5."),
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", callback=_writable, help="Write the findings as JSON; - prints nothing but them."
    ),
]
SummaryFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=_not_stdout,
        help="Also write the summary as JSON (money in fen, RSS in MiB).",
    ),
]
ServiceName = Annotated[
    str, typer.Option("--service", metavar="NAME", help="intake, workflow, finance, housing or audit.")
]
OneService = Annotated[str, typer.Option("--service", metavar="NAME", help="Only this service.")]
ParkedTopic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, as `parked list` names it.")]
ParkedKey = Annotated[str, typer.Argument(metavar="KEY", help="The key, as `parked list` names it (quoted).")]
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
def demo(port: Port = TOGETHER_PORT, *, json_file: SummaryFile = None) -> None:
    """Run the sample population on the system that answers at the port, else on one of our own; then verify.

    Exit 1 if an invariant fails.
    """
    from deploy.demo import run_demo

    raise typer.Exit(uvloop.run(run_demo(Local(home_of_environment()), port, json_file)))


@app.command()
def status() -> None:
    """Say which home and form run, where, and whether each service is ready. Exit 1 where one is not."""
    from deploy.operations import status_of_home

    lines, ready = asyncio.run(status_of_home())
    typer.echo("\n".join(lines))
    raise typer.Exit(0 if ready else 1)


@app.command(epilog=_of_settings())
def serve(
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="SERVICE", help="intake, workflow, finance, housing, audit; all where none is named."),
    ] = None,
    *,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=LAST_PORT, help="Port to listen on; by default a service's own (8001 …), 8000 for several."
        ),
    ] = None,
    bind: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Serve services of a deployment that the environment describes (HUANQUAN_…, below), until stopped.

    In production mode (HUANQUAN_MODE=production) it names every variable that is missing; deploy/compose.yaml sets all.
    """
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
    """Bring every database up to date, as its owner; make the bus's tables or Kafka's topics.

    Reads HUANQUAN_<SERVICE>_MIGRATION_URL for each service, and
    HUANQUAN_BUS_MIGRATION_URL or HUANQUAN_KAFKA. Where the environment names no
    database, it brings those below HUANQUAN_HOME up to date.
    """
    from deploy.operations import migrate_deployed

    for line in migrate_deployed():
        typer.echo(line)


@app.command()
def verify(
    *,
    at_rest: Annotated[bool, typer.Option("--at-rest", help="Also demand that nothing is under way.")] = False,
    json_file: JsonFile = None,
    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=_not_stdout, help="Also write the findings for Prometheus' node_exporter."
        ),
    ] = None,
) -> None:
    """Check every invariant across the five databases and the bus, reading only. Exit 1 when one is violated.

    On a running system only what is older than a watermark is judged: a minute
    before the oldest event not yet published or read; what each service is
    behind with is listed first. With --at-rest everything is judged, and
    nothing may be behind. A look that takes longer than ten minutes is a
    violation; no transaction lasts longer than a look.
    """
    from deploy.engine import SERVICES
    from deploy.operations import opened
    from deploy.verify import Report, verify_all
    from deploy.verify.textfile import write_metrics

    async def run() -> Report:
        async with opened(*SERVICES) as settings:
            return await verify_all(settings, at_rest=at_rest)

    report = asyncio.run(run())
    if metrics:
        write_metrics(report, metrics)
    made = json.dumps([asdict(finding) for finding in report.findings], ensure_ascii=False, indent=2)
    if json_file and str(json_file) == "-":
        typer.echo(made)
    else:
        typer.echo(_for_people(report, at_rest=at_rest))
        if json_file:
            json_file.write_text(made + "\n")
    raise typer.Exit(1 if report.violated else 0)


def _for_people(report: "Report", *, at_rest: bool) -> str:
    lines = [] if at_rest else [f"judged: what is older than {report.until:%Y-%m-%d %H:%M:%SZ}"]
    lines.append("checked  violated  invariant")
    for finding in report.findings:
        lines.append(f"{finding.checked:>7}  {finding.violations:>8}  {finding.name}")
        if finding.first:
            lines.append(f"{'':17}  first: {finding.first}")
    held = len(report.findings) - len(report.violated)
    return "\n".join([*lines, f"{held} of {len(report.findings)} invariants hold"])


@app.command()
def trace(
    application: Annotated[str, typer.Argument(metavar="APPLICATION", help="Its id, or its case number.")],
    *,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=_writable, help="Draw it, as SVG; - prints the picture.")
    ] = None,
) -> None:
    """Follow one application through all five services.

    Every event, by trace: when it was told, when it was on the bus, and when
    each service took it.
    """
    from deploy.engine import SERVICES
    from deploy.follow import Step, as_svg, as_text, follow
    from deploy.operations import opened

    async def run() -> list[Step]:
        async with opened(*SERVICES) as settings:
            return await follow(settings, application)

    steps = asyncio.run(run())
    picture = as_svg(steps, application)
    if svg and str(svg) == "-":
        typer.echo(picture)
        return
    typer.echo(as_text(steps))
    if svg:
        svg.write_text(picture)


@parked.command("list")
def parked_list(
    service: OneService = "",
    *,
    discarded: Annotated[bool, typer.Option("--discarded", help="The events that were discarded instead.")] = False,
) -> None:
    """List parked keys: how many events each holds, since when, why, and what it waits for. Instants are UTC."""
    from deploy.operations import discarded_events, parked_keys

    if discarded:
        blocks = [_discarded_block(row) for row in asyncio.run(discarded_events(service or None))]
    else:
        blocks = [_parked_block(row) for row in asyncio.run(parked_keys(service or None))]
    nothing = "nothing was discarded" if discarded else "nothing is parked"
    typer.echo("\n\n".join(blocks) or nothing)


def _parked_block(row: Mapping[str, Any]) -> str:
    facts = {"events": row["events"], "since": f"{row['parked_at']:%Y-%m-%d %H:%M:%SZ}"}
    return _block(row, facts | {"waiting for": row["waiting_for"], "reason": row["reason"]})


def _discarded_block(row: Mapping[str, Any]) -> str:
    facts = {"discarded": f"{row['discarded_at']:%Y-%m-%d %H:%M:%SZ} by {row['discarded_by']}"}
    return _block(row, facts | {"because": row["because"], "parked for": row["reason"]})


def _block(row: Mapping[str, Any], facts: Mapping[str, object]) -> str:
    """One key for people: what names it as a command takes it, then a fact a line, no word broken."""
    lines = [f"--service {row['service']} {row['topic']} {shlex.quote(row['key'])}"]
    for name, value in facts.items():
        if value is not None:
            start, rest = f"  {name}: ", " " * 4
            lines += textwrap.wrap(
                str(value),
                WIDTH,
                initial_indent=start,
                subsequent_indent=rest,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [start]
    return "\n".join(lines)


@parked.command("show")
def parked_show(service: ServiceName, topic: ParkedTopic, key: ParkedKey) -> None:
    """Show the parked events of one key as JSON, oldest first."""
    from deploy.operations import parked_events

    for event in asyncio.run(parked_events(service, topic, key)):
        typer.echo(json.dumps(event, ensure_ascii=False, indent=2))


@parked.command("release")
def parked_release(service: ServiceName, topic: ParkedTopic, key: ParkedKey) -> None:
    """Try the parked events of one key again, in order. Exit 1 if any is refused again."""
    from deploy.operations import release_key

    outcome = asyncio.run(release_key(service, topic, key))
    typer.echo(f"handled {outcome.handled}, still parked {outcome.parked}")
    raise typer.Exit(1 if outcome.parked else 0)


@parked.command("discard")
def parked_discard(
    service: ServiceName,
    topic: ParkedTopic,
    key: ParkedKey,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why it will never be handled; kept for good.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who decided; by default the user of this system.")] = "",
) -> None:
    """Give up the OLDEST parked event of one key for good, then try the rest of the key again, in order.

    For what cannot be decoded or will never be handled. The event is kept as
    it was, with who, when and why; nobody can change that
    (`parked list --discarded`). It takes no effect later either: a replay skips
    it, a rebuild leaves it out. Later events of the key go on in their order,
    without it. Exit 1 if one of them is refused: the key stays parked.
    """
    from deploy.operations import discard_oldest

    if not reason.strip():
        raise typer.BadParameter("say why: it is kept for good", param_hint="--reason")
    outcome = asyncio.run(discard_oldest(service, topic, key, by=by or user_of_this_system(), because=reason))
    typer.echo(f"discarded 1, handled {outcome.handled}, still parked {outcome.parked}")
    raise typer.Exit(1 if outcome.parked else 0)


@app.command()
def replay(
    service: ServiceName,
    topic: Annotated[str, typer.Option(metavar="NAME", help="The topic to read again, of those the service hears.")],
    partition: Annotated[
        int | None, typer.Option(help="Only this partition (from 0); all where none is named.")
    ] = None,
    offset: Annotated[
        int, typer.Option(help="From this offset (from 0) of each partition on, up to where the service has read.")
    ] = 0,
) -> None:
    """Give a service a topic's events again; says, in events, what was handled and what was skipped."""
    from deploy.operations import replay_topic

    outcome = asyncio.run(replay_topic(service, topic, partition, offset))
    typer.echo(
        f"handled {outcome.handled}, skipped {outcome.known} taken before and {outcome.foreign} of no use to "
        f"{service}, parked {outcome.parked}"
    )


@app.command()
def rebuild(service: ServiceName) -> None:
    """Empty a service's projection (intake and audit have one) and make it anew from the log."""
    from deploy.operations import rebuild_projection

    outcome = asyncio.run(rebuild_projection(service))
    left = f"left out {outcome.parked} that are parked, discarded or refused"
    typer.echo(f"applied {outcome.handled} events, skipped {outcome.known} repeated ones, {left}")


@app.command("tell-affiliations")
def tell_affiliations() -> None:
    """Tell finance anew where every employer belongs, as it stands on record; what it knows already changes nothing.

    Once after an upgrade from a version that did not tell, when its last process
    of intake has stopped: `verify` names who was not told.
    """
    from deploy import operations

    typer.echo(f"told where {asyncio.run(operations.tell_affiliations())} employers belong")


@app.command()
def clean() -> None:
    """Stop what runs below HUANQUAN_HOME and remove its data."""
    from deploy.operations import remove_home

    remove_home(home_of_environment())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `huanquan`. What a command refuses is one line on standard error, and exit code 2."""
    telemetry.configure(level="ERROR", messages_of_exceptions=True)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # whoever calls it says what is away
    try:
        sys.exit(app(args=arguments, standalone_mode=False))
    except TyperException as wrong:
        _refuse(_of_usage(wrong))
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        _refuse("; ".join(f"{variable(str(one['loc'][0]))}: {one['msg']}" for one in error.errors()))
    except (Refusal, SettingsMissing, PolicyError, TablesBusy) as refusal:
        _refuse(str(refusal))
    except LookupError as refusal:
        if isinstance(refusal, KeyError | IndexError):
            raise
        _refuse(str(refusal))
    except DBAPIError as error:
        if not passing(error):
            raise
        _refuse(f"a database went away while the command ran, nothing of it was kept: {error.orig}")
    except OSError as error:  # a file, a port, an engine that went away
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else f"{type(error).__name__}: {error}")


def _of_usage(wrong: TyperException) -> str:
    message, context = wrong.format_message(), getattr(wrong, "ctx", None)
    return f"{message} (see `{context.command_path} --help`)" if message and context else message


def _refuse(line: str) -> None:
    typer.echo(line, err=True)
    sys.exit(2)
