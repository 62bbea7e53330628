import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from research.report.tables import COLUMNS, SOURCES, UNKNOWN, cells, console_table, decimals, markdown_table
from tests.report.example import example_result, forget


def parsed(table: str) -> list[list[str]]:
    """Cells of the body of a Markdown table."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def printed(result: dict, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(console_table(result))
    return console.file.getvalue()


def test_cells_are_the_numbers_of_the_result():
    result = example_result()
    body = parsed(markdown_table(result))
    assert len(body) == len(result["rows"])
    for line, row in zip(body, result["rows"], strict=True):
        assert line[:2] == [str(row["row"]), row["name"]]
        assert line[2] == (UNKNOWN if row["baseline"] == "-" else row["baseline"])
        for cell, field, places in [
            (line[3], "ms_simulated", 3),
            (line[4], "ms_referee", 3),
            (line[5].rstrip("x"), "step_x", 2),
            (line[6].rstrip("x"), "cumulative_x", 2),
            (line[8], "mj", 3),
            (line[9], "kb_encoded", 1),
            (line[10], "sram_kb", 1),
            (line[11], "error_px_float", 2),
            (line[12], "error_px_int8", 2),
        ]:
            if row[field] is None:
                assert cell == UNKNOWN
            else:
                assert float(cell) == round(row[field], places)
        assert line[13] == (UNKNOWN if row["claim"] == "-" else row["claim"])
    assert body[3][7] == "1.12x, -0.05 px"
    assert body[1][7] == UNKNOWN


def test_every_column_names_a_known_source():
    assert {column.source for column in COLUMNS} <= {"", *SOURCES}
    headers = [column.header for column in COLUMNS]
    assert len(set(headers)) == len(headers)
    assert {"ms (simulated)", "ms (referee)", "mJ a frame (modelled)", "error px int8 (LiteRT)"} <= set(
        headers
    )


def test_nulls_become_dashes_and_half_known_pairs_keep_the_known_half():
    result = example_result()
    row = forget(result)["rows"][1]
    assert cells(row)[3:13] == (UNKNOWN,) * 10
    row["leave_one_out_error_px"] = 0.25
    assert cells(row)[7] == "–, +0.25 px"


@pytest.mark.parametrize(("n", "stamped"), [(1, True), (3, False)])
def test_one_seed_is_stamped_demo(n, stamped):
    result = example_result() | {"n": n, "demo": False}
    for text in (markdown_table(result), printed(result, 220)):
        assert ("demo (n = 1)" in text) == stamped
        assert ("n = 3 seeds" in text) == (not stamped)


@pytest.mark.parametrize("width", [90, 110, 170, 240])
def test_no_number_is_cut_in_a_terminal(width):
    result = example_result()
    text = printed(result, width)
    assert "…" not in text
    words = re.sub(r"[│┃]", " ", text).split()
    for row in result["rows"]:
        for field, places in [("ms_simulated", 3), ("ms_referee", 3), ("mj", 3), ("error_px_int8", 2)]:
            assert f"{row[field]:.{places}f}" in words


def test_names_cannot_break_out_of_their_cell():
    result = example_result()
    result["rows"][1]["name"] = "a | b\n| <!-- /table:v2 --> [bold]x[/bold] `c` *d*"
    body = parsed(markdown_table(result))
    assert [len(line) for line in body] == [len(COLUMNS)] * 6
    assert "<!--" not in markdown_table(result)
    assert "[bold]" in " ".join(printed(result, 300).split())


@given(st.floats(-1e6, 1e6), st.integers(0, 4))
def test_decimals_round_and_never_show_minus_zero(value, places):
    text = decimals(value, places)
    assert abs(float(text) - value) <= 0.5001 * 10.0**-places
    assert not re.fullmatch(r"-0(\.0*)?", text)
    assert decimals(value, places, " px", sign=True)[0] in "+-"


def test_a_missing_field_is_reported():
    result = example_result()
    del result["rows"][2]["sram_kb"]
    for table in (markdown_table, console_table):
        with pytest.raises(ValueError, match=r"rows\[2\].sram_kb is missing"):
            table(result)
