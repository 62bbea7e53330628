"""The table of a result: one list of columns, as Markdown, for the terminal and for the HTML page.

Every column says where its numbers come from: *simulated* (our cost model), *referee* (Arm's compiler Vela),
*modelled* (the energy formula), *measured* (error on test images) or *claimed* (the story). Unknown is "–".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from research.report.schema import Number, Result, Row, check_result

__all__ = [
    "COLUMNS",
    "SOURCES",
    "UNKNOWN",
    "Column",
    "caption",
    "cells",
    "check_result",
    "console_table",
    "decimals",
    "markdown_table",
]

UNKNOWN = "–"
SOURCES = {
    "simulated": "our jitted cost model",
    "referee": "Arm's compiler Vela: a compiler's estimate, not silicon",
    "modelled": "the energy formula and its stated constants, not a measurement",
    "measured": "error on held-out images; int8 is the exported file run in LiteRT",
    "claimed": "what the story says, for comparison",
}
UNLIMITED_CHARS = 10_000
TEXT_CHARS = 12  # no column of words is made narrower than this


def decimals(value: Number, places: int, unit: str = "", sign: bool = False) -> str:
    """`value` with a fixed number of decimals (never "-0.00"), or the dash where it is not known."""
    if value is None:
        return UNKNOWN
    rounded = round(value, places) + 0.0
    return f"{rounded:{'+' if sign else ''}.{places}f}{unit}"


@dataclass(frozen=True)
class Column:
    """One column: its title, where its numbers come from (a key of SOURCES, or "") and a row's cell."""

    title: str
    source: str
    cell: Callable[[Row], str]
    numeric: bool = True
    label: str = ""  # what stands in brackets behind the title where there is no colour

    @property
    def header(self) -> str:
        """The title with its label, for places without colour."""
        return f"{self.title} ({self.label})" if self.label else self.title


def _leave_one_out(row: Row) -> str:
    speed, error = row["leave_one_out_x"], row["leave_one_out_error_px"]
    if speed is None and error is None:
        return UNKNOWN
    return f"{decimals(speed, 2, 'x')}, {decimals(error, 2, ' px', sign=True)}"


COLUMNS = (
    Column("#", "", lambda row: str(row["row"])),
    Column("row", "", lambda row: row["name"], numeric=False),
    Column("baseline", "", lambda row: row["baseline"], numeric=False),
    Column("ms", "simulated", lambda row: decimals(row["ms_simulated"], 3), label="simulated"),
    Column("ms", "referee", lambda row: decimals(row["ms_referee"], 3), label="referee"),
    Column("step", "referee", lambda row: decimals(row["step_x"], 2, "x"), label="referee"),
    Column("cumulative", "referee", lambda row: decimals(row["cumulative_x"], 2, "x"), label="referee"),
    Column("leave-one-out", "referee", _leave_one_out, label="referee x, error px"),
    Column("mJ a frame", "modelled", lambda row: decimals(row["mj"], 3), label="modelled"),
    Column("KB encoded", "referee", lambda row: decimals(row["kb_encoded"], 1), label="Vela"),
    Column("SRAM KB", "referee", lambda row: decimals(row["sram_kb"], 1), label="Vela"),
    Column("error px float", "measured", lambda row: decimals(row["error_px_float"], 2), label="measured"),
    Column("error px int8", "measured", lambda row: decimals(row["error_px_int8"], 2), label="LiteRT"),
    Column("story's claim", "claimed", lambda row: row["claim"], numeric=False),
)


def cells(row: Row) -> tuple[str, ...]:
    """The cells of one row as plain text, in the order of COLUMNS; an empty or "-" text becomes the dash."""
    texts = (column.cell(row).strip() for column in COLUMNS)
    return tuple(UNKNOWN if text in ("", "-") else text for text in texts)


def caption(result: Result) -> str:
    """One line that says whose numbers these are and over how many seeds."""
    n = result["n"]
    if n == 1:
        return f"{result['name']}: demo (n = 1), one seed, no interval"
    stamp = "demo, " if result["demo"] else ""
    return f"{result['name']}: {stamp}mean of n = {n} seeds"


def markdown_table(result: Mapping[str, Any]) -> str:
    """The table as GitHub Markdown: caption, table, and one line on where the numbers come from.

    Raises ValueError (from `check_result`) if a field is missing.
    """
    checked = check_result(result)
    lines = [
        f"*{_escaped(caption(checked))}*",
        "",
        _line(_escaped(column.header) for column in COLUMNS),
        _line("---:" if column.numeric else ":---" for column in COLUMNS),
        *(_line(_escaped(cell) for cell in cells(row)) for row in checked["rows"]),
        "",
        " · ".join(f"**{word}**: {meaning}" for word, meaning in SOURCES.items() if word != "claimed"),
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class ConsoleTable:
    """A rich renderable: rows down a wide terminal, turned (a column a row) where that would not fit."""

    result: Result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Chooses the form by the width at hand, so that no number is ever cut."""
        wide = self.wide()
        free = options.update_width(UNLIMITED_CHARS)
        if Measurement.get(console, free, wide).minimum <= options.max_width:
            yield wide
        else:
            yield from self.turned(max(1, options.max_width // (TEXT_CHARS + 3) - 1))

    def wide(self) -> Table:
        """One line a row."""
        table = self._empty()
        for column in COLUMNS:
            head = Text(f"{column.title}\n{column.label}")
            if column.numeric:
                table.add_column(head, justify="right", no_wrap=True)
            else:
                table.add_column(head, overflow="fold", min_width=TEXT_CHARS)
        for row in self.result["rows"]:
            table.add_row(*(Text(cell) for cell in cells(row)))
        return table

    def turned(self, rows_a_table: int) -> Iterator[Table]:
        """One line a quantity and one column a row, in as many tables as the width asks for."""
        rows = self.result["rows"]
        for first in range(0, len(rows), rows_a_table):
            some = rows[first : first + rows_a_table]
            table = self._empty()
            table.add_column(Text("row"), overflow="fold", min_width=TEXT_CHARS)
            for row in some:
                head = Text(f"{row['row']} {row['name']}")
                table.add_column(head, justify="right", overflow="fold", min_width=TEXT_CHARS)
            columns = list(zip(COLUMNS, *(cells(row) for row in some), strict=True))
            for column, *texts in columns[2:]:
                table.add_row(Text(column.header), *(Text(text) for text in texts))
            yield table

    def _empty(self) -> Table:
        legend = "simulated: ours · referee: Vela · modelled: a formula · measured: on test images"
        return Table(title=Text(caption(self.result)), caption=Text(legend), title_justify="left")


def console_table(result: Mapping[str, Any]) -> ConsoleTable:
    """The table as a rich renderable: `Console().print(console_table(result))`; fits the terminal's width.

    Raises ValueError (from `check_result`) if a field is missing.
    """
    return ConsoleTable(check_result(result))


def _line(texts: Iterable[str]) -> str:
    """One Markdown table line."""
    return "| " + " | ".join(texts) + " |"


def _escaped(text: str) -> str:
    """`text` as one harmless Markdown cell: no new cell, line, tag or emphasis can come out of a name."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for sign in "|*_`[":
        flat = flat.replace(sign, "\\" + sign)
    return flat
