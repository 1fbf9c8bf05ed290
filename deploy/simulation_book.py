"""What a simulation came to, as a workbook (.xlsx): a sheet for each pack, the difference, and charts."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import xlsxwriter

from libs.common.policy import Pack
from libs.common.policy.simulation import (
    Outcome,
    Rows,
    Simulation,
    bearer_title,
    benefit_title,
    difference,
    sums,
    table,
)

NAMES = ("费用", "费用（对照）")
DIFFERENCE, CHARTS = "差额", "图表"
HEADINGS = ("待遇", "承担者代码", "承担者")
CHART_SIZE = {"width": 900, "height": 440}
CHART_ROWS = 24  # of the sheet, that a chart covers


def written_book(simulations: Sequence[Simulation], years: range) -> bytes:
    """One simulation, or two of the same people. Amounts are in yuan, to the fen."""
    file = BytesIO()
    with xlsxwriter.Workbook(file) as book:
        writer = _Writer(book, years)
        tables = [table(simulation.account, years) for simulation in simulations]
        for name, simulation, rows in zip(NAMES, simulations, tables, strict=False):
            writer.costs(name, simulation, rows)
        if len(tables) > 1:
            writer.rows(DIFFERENCE, simulations[1].pack, difference(*tables))
        writer.charts(simulations, tables)
    return file.getvalue()


class _Writer:
    def __init__(self, book: Any, years: range) -> None:
        self._book = book
        self._years = years
        self._headings = [str(year) for year in years]
        self._money = book.add_format({"num_format": "#,##0.00"})
        self._bold = book.add_format({"bold": True})
        self._bold_money = book.add_format({"bold": True, "num_format": "#,##0.00"})

    def costs(self, name: str, simulation: Simulation, rows: Rows) -> None:
        """A pack's sheet: its costs, what came of the people, and what is left to people."""
        account, pack = simulation.account, simulation.pack
        sheet, at = self.rows(name, pack, rows)
        notes = [f"政策包：{pack.identity}", "单位：元；按最后到账日所在年度计，“以后”为末年之后应付的各期。"]
        notes += [f"{outcome.words}：{account.outcomes[outcome]} 人" for outcome in Outcome]
        notes += [f"须人工决定 {number} 笔：{why}" for why, number in account.manual.most_common()]
        for row, note in enumerate(notes, at + 1):
            sheet.write_string(row, 0, note)

    def rows(self, name: str, pack: Pack, rows: Rows) -> tuple[Any, int]:
        """A sheet of rows with their sums; gives it and the first row below."""
        sheet, first = self._book.add_worksheet(name), len(HEADINGS)
        sheet.write_row(0, 0, [*HEADINGS, *self._headings, "以后", "合计"], self._bold)
        sheet.freeze_panes(1, first)
        sheet.set_column(0, first + len(self._years) + 1, 16)
        for at, row in enumerate(rows.values(), 1):
            sheet.write_row(at, 0, [benefit_title(pack, row.benefit), row.bearer, bearer_title(pack, row.bearer)])
            sheet.write_row(at, first, _yuan((*row.fen, row.total)), self._money)
        last = len(rows) + 1
        sheet.write_string(last, 0, "合计", self._bold)
        sheet.write_row(last, first, _yuan(sums(rows, self._years)), self._bold_money)
        return sheet, last + 1

    def charts(self, simulations: Sequence[Simulation], tables: Sequence[Rows]) -> None:
        """A sheet with what each bearer pays a year, stacked, and for two packs their sums side by side."""
        sheet, at = self._book.add_worksheet(CHARTS), 0
        sheet.set_column(0, len(self._years), 16)
        for name, simulation, rows in zip(NAMES, simulations, tables, strict=False):
            lines = [
                (
                    bearer_title(simulation.pack, bearer),
                    sums({key: row for key, row in rows.items() if row.bearer == bearer}, self._years),
                )
                for bearer in sorted({row.bearer for row in rows.values()})
            ]
            at = self._chart(sheet, at, f"{name} {simulation.pack.version}", lines, {"subtype": "stacked"})
        if len(tables) > 1:
            totals = [
                (f"{name} {each.pack.version}", sums(rows, self._years))
                for name, each, rows in zip(NAMES, simulations, tables, strict=True)
            ]
            self._chart(sheet, at, "每年合计", totals, {})

    def _chart(
        self, sheet: Any, at: int, title: str, lines: Sequence[tuple[str, Sequence[int]]], form: dict[str, str]
    ) -> int:
        """The figures from row `at` on, and below them their chart; gives the row where the next begins. Nothing is
        drawn where nobody pays."""
        if not lines:
            return at
        chart = self._book.add_chart({"type": "column", **form})
        width = len(self._years)
        sheet.write_row(at, 0, [title, *self._headings], self._bold)
        for row, (name, fen) in enumerate(lines, at + 1):
            sheet.write_string(row, 0, name)
            sheet.write_row(row, 1, _yuan(fen[:width]), self._money)
            places = {"categories": [CHARTS, at, 1, at, width], "values": [CHARTS, row, 1, row, width]}
            chart.add_series({"name": [CHARTS, row, 0], **places})
        chart.set_title({"name": title})
        chart.set_y_axis({"name": "元", "num_format": "#,##0"})
        chart.set_size(CHART_SIZE)
        below = at + len(lines) + 2
        sheet.insert_chart(below, 0, chart)
        return below + CHART_ROWS


def _yuan(fen: Iterable[int]) -> list[float]:
    return [amount / 100 for amount in fen]
