"""Which rows, arms and layers of a result are compared: the start, row 0, and the full chain at the end."""

from dataclasses import dataclass

from research.report.schema import Layer, Number, Result, Row


@dataclass(frozen=True)
class Side:
    """The layers of one arm on one chip."""

    arm: str
    chip: str
    layers: list[Layer]


def row_zero(result: Result) -> Row:
    """Row 0: the same network on the new NPU (the first row if none has that number)."""
    return next((row for row in result["rows"] if row["row"] == 0), result["rows"][0])


def techniques(result: Result) -> list[Row]:
    """The rows after row 0."""
    return [row for row in result["rows"] if row["row"] > 0]


def full_arm(result: Result) -> str:
    """The arm with every technique: that of the last row."""
    return result["rows"][-1]["arm"]


def baseline_ms(row: Row) -> Number:
    """The referee's milliseconds of the row's baseline (its own times its step); None where unknown."""
    return row["ms_referee"] * row["step_x"] if row["ms_referee"] and row["step_x"] else None


def before_and_after(result: Result) -> tuple[Side, Side]:
    """Layers of row 0's network and of the full chain, on row 0's chip where it was priced there."""
    zero, last = row_zero(result), result["rows"][-1]
    return _side(result, zero["arm"], zero["chip"]), _side(result, last["arm"], zero["chip"])


def _side(result: Result, arm: str, chip: str) -> Side:
    layers = result["arms"][arm]["layers"]
    found = chip if chip in layers else next(iter(sorted(layers)), chip)
    return Side(arm, found, layers.get(found, []))
