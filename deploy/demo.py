"""The sample run for people to watch: start, drive, summarise, verify."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from deploy.engine import SERVICES
from deploy.forms import Interrupted, Stop, apart, brokers, find_running, stopped_by_signal, together
from deploy.local import Addresses, Local
from deploy.memory import measured
from deploy.progress import Phases
from deploy.refusals import NotStarted, Refusal
from deploy.sample.client import Refused
from deploy.sample.pages import first_page, remember
from deploy.sample.run import Summary, run_sample
from deploy.served import served_policy
from deploy.verify import verify_all
from libs.common import telemetry
from libs.common.auth import TokenIssuer
from libs.common.money import format_yuan
from libs.common.settings import Settings

console = Console()


async def run_up(local: Local, port: int, *, kafka: bool, brokers: str, sample: bool) -> int:
    """Start a form, run the sample, print the summary, stay until stopped. Returns the exit code. Raises Refusal."""
    addresses = Addresses(port, together=not kafka)
    try:
        async with _form(local, addresses, brokers) as stop:
            if sample:
                run = asyncio.create_task(_sampled(local, addresses))
                await _either(run, stop)
                if stop.is_set():
                    return 0
                _print(run.result())
            _print_pages(addresses, local)
            await stop.wait()
    except Interrupted as interrupted:
        console.print(str(interrupted))
        return 130
    return 0


async def run_demo(local: Local, port: int, json_file: Path | None) -> int:
    """Run the sample on what answers at the port, else on a system of our own, then verify. 1 if an invariant fails,
    130 where it was interrupted. Raises Refusal."""
    found = await find_running(port)
    addresses = found or Addresses(port, together=True)
    try:
        async with _already_running(local, addresses) if found else _form(local, addresses, "") as stop:
            run = asyncio.create_task(_sampled(local, addresses))
            await _either(run, stop)
            if stop.is_set():
                return 130
            return await _judge(local, addresses, run.result(), json_file)
    except Interrupted as interrupted:
        console.print(str(interrupted))
        return 130


async def _judge(local: Local, addresses: Addresses, summary: Summary, json_file: Path | None) -> int:
    _print(summary)
    if summary.others:
        console.print(f"{summary.others} applications that others filed are under way: judged as a system that works")
    report = await verify_all(_settings(local, addresses), at_rest=not summary.others)
    violated = report.violated
    for finding in violated:
        console.print(f"[red]violated[/]: {finding.name}: {finding.violations}, first {finding.first}")
    console.print(f"{len(report.findings) - len(violated)} of {len(report.findings)} invariants hold")
    if json_file:
        text = json.dumps(summary.to_json(), ensure_ascii=False, indent=2) + "\n"
        await asyncio.to_thread(json_file.write_text, text)
    return 1 if violated or summary.reconciliation_differences or not summary.trail_verified else 0


def _form(local: Local, addresses: Addresses, given: str) -> AbstractAsyncContextManager[Stop]:
    first, last = addresses.port_of(SERVICES[0]), addresses.port_of(SERVICES[-1])
    if addresses.together:
        form = f"five services in one process on port {first}"
    else:
        form = f"five processes on ports {first} to {last} with Kafka ({given or 'a broker of our own'})"
    _say(f"starting {form}; home {local.home}")
    _log_to(local)
    if addresses.together:
        return together(local, addresses, extra=lambda: first_page(addresses, Settings()))
    return apart(local, addresses, kafka=given or None)


@asynccontextmanager
async def _already_running(local: Local, addresses: Addresses) -> AsyncIterator[Stop]:
    if local.announced()[0] != addresses or not local.is_held():
        where = f"what answers at port {addresses.port} does not run on {local.home}"
        raise NotStarted(f"{where}: name its home in HUANQUAN_HOME, or another port: PORT=n")
    _say(f"using the system that answers at port {addresses.port}; home {local.home}")
    _log_to(local)
    yield stopped_by_signal()


def _settings(local: Local, addresses: Addresses) -> Settings:
    _, kafka = local.announced()
    return local.settings(addresses, kafka=kafka)


async def _either(run: "asyncio.Task[Summary]", stop: asyncio.Event) -> None:
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([run, stopped], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, run):
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _sampled(local: Local, addresses: Addresses) -> Summary:
    settings = _settings(local, addresses)
    issuer, policy = TokenIssuer(settings), served_policy(settings.policies)
    began = time.monotonic()
    async with measured(lambda: _processes(local)) as meter:
        with Phases(console) as report:
            try:
                summary = await run_sample(addresses, issuer, report, policy, kafka=local.announced()[1])
            except Refusal as refusal:
                raise _with_where_to_look(refusal, local, addresses) from refusal
    remember(local.home, summary.people)
    summary.seconds = round(time.monotonic() - began, 1)
    summary.peak_rss_mb = round(meter.peak_mb)
    return summary


def _processes(local: Local) -> list[psutil.Process]:
    """Whoever holds the home (its services are its children), the engine, and brokers of our own."""
    return [each for each in (local.holder(), local.postgres.postmaster, *brokers(local)) if each]


def _with_where_to_look(refusal: Refusal, local: Local, addresses: Addresses) -> Refusal:
    if isinstance(refusal, Refused) and refusal.status == 401:
        where = f"what answers at port {addresses.port} does not know the tokens of {local.home}"
        return Refusal(f"{where}: name its home in HUANQUAN_HOME")
    return Refusal(f"the sample run failed: {refusal}; see {local.log} and `huanquan parked list`")


def _print(summary: Summary) -> None:
    made = summary.to_json()
    taken = summary.filings - summary.not_taken
    _say(
        f"{summary.filings} filings: {taken} taken in, {summary.not_taken} refused or repeated, as they are meant to be"
    )
    states = Table("state", "applications", title="applications")
    for state, count in sorted(made["applications"].items()):
        states.add_row(state, str(count))
    money = Table("treasury", "paid out", "owed by others, settled", title="money")
    for treasury in sorted({*made["paid_fen"], *made["fiscal_settlement_fen"]}):
        paid, settled = made["paid_fen"].get(treasury), made["fiscal_settlement_fen"].get(treasury)
        money.add_row(treasury, *("—" if fen is None else format_yuan(fen) for fen in (paid, settled)))
    console.print(states, money)
    console.print(f"reconciliation differences: {made['reconciliation_differences']}")
    console.print(f"trail: {made['trail']['entries']} entries, {'verified' if made['trail']['verified'] else 'BROKEN'}")
    console.print(f"{made['seconds']} s, {made['peak_rss_mb']} MiB at the peak")


def _print_pages(addresses: Addresses, local: Local) -> None:
    if addresses.together:
        console.print(f"\npages: {addresses.of('intake')}/  (Ctrl-C stops everything)")
    else:
        for service in SERVICES:
            console.print(f"{service}: {addresses.of(service)}/{service}/docs")
        console.print(f"Kafka: {local.announced()[1]}  (Ctrl-C stops everything)")


def _log_to(local: Local) -> None:
    """Log lines go to a file, so the screen stays readable."""
    local.home.mkdir(parents=True, exist_ok=True)
    telemetry.configure(level="INFO", messages_of_exceptions=True, stream=local.log.open("a"))
    _say(f"log: {local.log}")


def _say(line: str) -> None:
    """A line as it is: not broken at the terminal's edge, and at once where it is piped."""
    console.print(line, style="dim", soft_wrap=True, highlight=False, markup=False)
    console.file.flush()
