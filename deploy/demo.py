"""The sample run for people to watch: start, drive, summarise, verify."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.engine import SERVICES
from deploy.forms import apart, find_running, together
from deploy.local import Addresses, Local, NotStarted
from deploy.memory import measured
from deploy.sample.pages import first_page, remember
from deploy.sample.run import Summary, run_sample
from deploy.verify import verify_all
from libs.common import telemetry
from libs.common.auth import TokenIssuer
from libs.common.money import format_yuan
from libs.common.settings import Settings

console = Console()


async def run_up(local: Local, port: int, *, kafka: bool, brokers: str, sample: bool) -> int:
    """Start a form, run the sample, print the summary, and stay until stopped. Returns the exit code."""
    _log_to(local)
    addresses = Addresses(port, together=not kafka)
    async with _form(local, addresses, brokers) as stop:
        if sample:
            run = asyncio.create_task(_sampled(local, addresses))
            await _either(run, stop)
            if stop.is_set():
                return 0
            summary = run.result()
            _print(summary)
        _print_pages(addresses, local)
        await stop.wait()
    return 0


async def run_demo(local: Local, port: int, json_file: Path | None) -> int:
    """Run the sample on what answers at the port, else on a system of our own, then verify. 1 if an invariant fails."""
    _log_to(local)
    found = await find_running(port)
    addresses = found or Addresses(port, together=True)
    async with _already_running(local) if found else _form(local, addresses, "") as stop:
        run = asyncio.create_task(_sampled(local, addresses))
        await _either(run, stop)
        if stop.is_set():
            return 130
        summary = run.result()
        _print(summary)
        findings = await verify_all(_settings(local, addresses), at_rest=True)
    violated = [finding for finding in findings if finding["violations"]]
    for finding in violated:
        console.print(f"[red]violated[/]: {finding['name']}: {finding['violations']}, first {finding['first']}")
    console.print(f"{len(findings) - len(violated)} of {len(findings)} invariants hold")
    if json_file:
        text = json.dumps(summary.to_json(), ensure_ascii=False, indent=2) + "\n"
        await asyncio.to_thread(json_file.write_text, text)
    return 1 if violated or summary.reconciliation_differences or not summary.trail_verified else 0


def _form(local: Local, addresses: Addresses, brokers: str) -> AbstractAsyncContextManager[asyncio.Event]:
    console.print("starting …", style="dim")
    if addresses.together:
        return together(local, addresses, extra=lambda: first_page(addresses, Settings()))
    return apart(local, addresses, kafka=brokers or None)


@asynccontextmanager
async def _already_running(local: Local) -> AsyncIterator[asyncio.Event]:
    console.print("using the system that answers already", style="dim")
    if not local.postgres.is_up:
        raise NotStarted(f"what answers at the port does not run on {local.home}: name its home in HUANQUAN_HOME")
    await asyncio.to_thread(local.postgres.start)
    yield asyncio.Event()


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
    issuer = TokenIssuer(_settings(local, addresses))
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with measured([local.announced_pid(), local.postgres.pid]) as meter:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("sample population", total=None)

            def report(what: str, done: int, total: int) -> None:
                progress.update(bar, description=what, completed=done, total=total)

            summary = await run_sample(addresses, issuer, report, kafka=local.announced()[1])
    remember(local.home, summary.people)
    summary.seconds = round(time.monotonic() - began, 1)
    summary.peak_rss_mb = round(meter.peak_mb)
    return summary


def _print(summary: Summary) -> None:
    made = summary.to_json()
    states = Table("state", "applications", title="applications")
    for state, count in sorted(made["applications"].items()):
        states.add_row(state, str(count))
    money = Table("treasury", "paid out", "owed by the city, settled", title="money")
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
    telemetry.configure(level="INFO", messages_of_exceptions=True, stream=(local.home / "huanquan.log").open("a"))
    console.print(f"log: {local.home / 'huanquan.log'}", style="dim", soft_wrap=True)
    sys.stdout.flush()
