"""Chips are found by name or made by a user's file, and each is priced by its own family's formulas."""

from pathlib import Path

import numpy as np
import pytest

from research.npu.chip import U55_128, U85_128
from research.npu.cost import cost
from research.npu.named import cost_on, find_chip, known_chips
from research.npu.systolic import SYSTOLIC_OS, Systolic, systolic_cost
from research.npu.table import pad
from tests.npu.networks import rows

MINE = """
import dataclasses
from research.npu import SYSTOLIC_WS
CHIP = dataclasses.replace(SYSTOLIC_WS, name="mine", rows=64)
"""


def test_every_chip_is_found_by_its_short_name() -> None:
    assert find_chip("u85-128") is U85_128
    assert find_chip("U55-128") is U55_128
    assert find_chip("systolic-16x16-os") is SYSTOLIC_OS
    assert all(find_chip(name) is chip for name, chip in known_chips().items())
    assert len({chip.name for chip in known_chips().values()}) == len(known_chips())


def test_a_users_file_makes_a_chip(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    found = find_chip(str(tmp_path / "mine.py"))
    assert isinstance(found, Systolic)
    assert (found.name, found.rows) == ("mine", 64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CHIP = 1", "must make CHIP, a research.npu Chip or Systolic, not int"),
        ("", "not NoneType"),
        ("1 / 0", "does not run: ZeroDivisionError"),
        ("def", "does not run: SyntaxError"),
        (MINE.replace("64", "0"), "rows of mine must be a positive number, got 0"),
    ],
)
def test_a_file_without_a_chip_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=says):
        find_chip(str(tmp_path / "mine.py"))


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no chip 'u85-129': there are .*u85-128"):
        find_chip("u85-129")
    with pytest.raises(ValueError, match=r"no file 'nowhere\.py'"):
        find_chip("nowhere.py")


def test_each_family_by_its_formulas() -> None:
    table = rows({}, {"ic": 100, "kh": 3, "kw": 3})
    np.testing.assert_allclose(
        cost_on(table, U85_128).cycles, cost(pad(table, 64), U85_128).cycles[:2], rtol=1e-6
    )
    assert cost_on(table, U85_128).ms == pytest.approx(float(cost(pad(table, 64), U85_128).ms), rel=1e-6)
    np.testing.assert_array_equal(
        cost_on(table, SYSTOLIC_OS).cycles, systolic_cost(table, SYSTOLIC_OS).cycles
    )
