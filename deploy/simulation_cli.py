"""`policy simulate`: what a policy costs over years, of one pack or of two side by side."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.rules_cli import AsJson, ServedPack, load, refuse
from libs.common.calendar import local_date
from libs.common.dated import Day
from libs.common.policy import Pack, PolicyError, fact_faults
from libs.common.policy.defects import sentence
from libs.common.policy.simulation import (
    KIND,
    Outcome,
    People,
    Rows,
    Simulation,
    bearer_title,
    benefit_title,
    difference,
    drawn,
    sums,
    table,
)
from libs.common.treasuries import EmployerKind, TreasuryCode

MAX_LINE_BYTES = 1 << 16
WIDE = 240  # characters, where the table goes into a file
FEN_OF_TEN_THOUSAND_YUAN = 1_000_000


class _Line(BaseModel):
    """A line of a population: so many people who are alike."""

    model_config = ConfigDict(extra="forbid")

    accepted_on: Day
    treasury: TreasuryCode
    employer_kind: EmployerKind = EmployerKind.ENTERPRISE
    facts: dict[str, StrictBool | StrictInt | StrictStr] = {}
    number: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] = 1


def simulate(
    *,
    people: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who files: JSON lines, as docs/policy-simulation.md describes them."),
    ] = None,
    draw: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, metavar="N", help="Instead: N people by chance.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the chance: the same seed draws the same people.")] = 1,
    from_year: Annotated[
        int | None, typer.Option(min=2005, max=2080, help="The first year; this year if left out.")
    ] = None,
    years: Annotated[int, typer.Option(min=1, max=15, help="How many years, in each of which people file.")] = 10,
    pack: ServedPack,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of a second pack, for the same people.")
    ] = None,
    book: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a workbook (.xlsx) with charts.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a policy costs over years: each treasury and employer, each benefit, each year of payment.

    The production rules decide who is entitled, when it is paid and who bears it. Every item takes its whole promised
    time. Of two packs the same people are asked, and the difference is shown.
    """
    first = from_year or local_date(datetime.now(UTC)).year
    span = range(first, first + years)
    packs = [load(path) for path in (pack, against) if path is not None]
    if len({each.city for each in packs}) > 1:
        refuse(f"{against} 属于另一城市 {packs[1].city}，请换用同一城市的政策包。")
    if book is not None and not book.parent.is_dir():  # before minutes of work
        refuse(f"{book} 无法写入，请先建立文件夹 {book.parent}。")
    match people, draw:
        case None, int(number):
            crowd = drawn(packs[0], number, first_year=first, years=years, seed=seed)
            simulations = _run(packs, enumerate(crowd, 1), number)
        case Path() as file, None:
            simulations = _run_file(packs, file, span)
        case _:
            refuse("请写明申报人群：--people FILE 或 --draw N 二选一。")
    if book is not None:
        from deploy.simulation_book import written_book

        try:
            book.write_bytes(written_book(simulations, span))
        except OSError as error:
            refuse(f"{book} 无法写入，请检查路径和权限（{error.strerror}）。")
    if as_json:
        typer.echo(json.dumps([_as_json(each, span) for each in simulations], ensure_ascii=False))
    else:
        _show(simulations, span)


# -- running


def _run_file(packs: Sequence[Pack], path: Path, span: range) -> list[Simulation]:
    try:
        with path.open("rb") as file:
            return _run(packs, _read(packs, file, path, span), path.stat().st_size)
    except OSError as error:
        refuse(f"{path} 无法读取，请检查路径和权限（{error.strerror}）。")


def _run(packs: Sequence[Pack], crowd: Iterator[tuple[int, People]], whole: int) -> list[Simulation]:
    """Every pack is asked of everybody; with each comes how far that is of `whole`."""
    simulations = [Simulation(pack) for pack in packs]
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("simulating", total=whole)
        try:
            for n, (done, people) in enumerate(crowd):
                for simulation in simulations:
                    simulation.take(people)
                if n % 1000 == 0:
                    progress.update(bar, completed=done)
        except PolicyError as error:
            refuse(error.told)
    return simulations


def _read(packs: Sequence[Pack], file: BinaryIO, path: Path, span: range) -> Iterator[tuple[int, People]]:
    done, found = 0, False
    for number, raw in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
        done += len(raw)
        if len(raw) <= MAX_LINE_BYTES and not raw.strip():
            continue
        found = True
        try:
            yield done, _people(packs, raw, span)
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, each['loc'])) or '整行'}：{sentence(each)}" for each in error.errors())
            refuse("\n".join(f"{path}：第 {number} 行：{each}" for each in wrong))
        except (PolicyError, ValueError) as error:
            told = error.told if isinstance(error, PolicyError) else error
            refuse(f"{path}：第 {number} 行：{told}")
    if not found:
        refuse(f"{path} 中没有人，请检查文件：每行写一个人。")


def _people(packs: Sequence[Pack], raw: bytes, span: range) -> People:
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"一行超过 {MAX_LINE_BYTES} 字节，请检查换行。")
    line = _Line.model_validate_json(raw)
    if line.accepted_on.year not in span:
        raise ValueError(
            f"accepted_on {line.accepted_on} 不在 {span[0]} 至 {span[-1]} 年，请改正日期，或调整起始年和年数。"
        )
    if KIND in line.facts:
        raise ValueError(f"facts.{KIND} 由 employer_kind 得出，请删去。")
    for pack in packs:
        pack.treasury(line.treasury, line.accepted_on)
        for fault in fact_faults(pack, line.facts):
            raise ValueError(f"facts.{fault.name}：{fault.detail}")
    return People(line.accepted_on, line.treasury, line.employer_kind, line.facts, line.number)


# -- telling


def _as_json(simulation: Simulation, span: range) -> dict[str, object]:
    account = simulation.account
    return {
        "policy": simulation.pack.identity.model_dump(),
        "people": {outcome.value: account.outcomes[outcome] for outcome in Outcome},
        "granted": [
            {"benefit": benefit, "year": year, "people": number}
            for (benefit, year), number in sorted(account.granted.items())
        ],
        "manual": dict(account.manual),
        "rows": [
            {
                "benefit": row.benefit,
                "bearer": row.bearer,
                "fen": {str(year): fen for year, fen in zip(span, row.fen, strict=False)},
                "later": row.fen[-1],
                "total": row.total,
            }
            for row in table(account, span).values()
        ],
    }


def _show(simulations: Sequence[Simulation], span: range) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    tables = [table(simulation.account, span) for simulation in simulations]
    for simulation, rows in zip(simulations, tables, strict=True):
        account = simulation.account
        told = "，".join(f"{outcome.words} {account.outcomes[outcome]:,} 人" for outcome in Outcome)
        console.print(f"政策包：{simulation.pack.identity}\n{told}", soft_wrap=True)
        console.print(_table("费用（万元）", simulation.pack, rows, span))
        for why, number in account.manual.most_common():
            console.print(f"须人工决定 {number:,} 笔：{why}", soft_wrap=True)
    if len(simulations) > 1:
        console.print(_table("差额（万元）：后者减前者", simulations[1].pack, difference(*tables), span))


def _table(title: str, pack: Pack, rows: Rows, span: range) -> Table:
    made = Table("待遇", "承担", title=title, title_justify="left", show_footer=True)
    made.columns[0].footer = "合计"
    for heading, total in zip((*map(str, span), "以后", "合计"), sums(rows, span), strict=True):
        made.add_column(heading, _ten_thousands(total), justify="right")
    for row in rows.values():
        amounts = [_ten_thousands(fen) for fen in (*row.fen, row.total)]
        made.add_row(benefit_title(pack, row.benefit), bearer_title(pack, row.bearer), *amounts)
    return made


def _ten_thousands(fen: int) -> str:
    return f"{Decimal(fen) / FEN_OF_TEN_THOUSAND_YUAN:,.2f}"
