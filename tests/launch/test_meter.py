"""Chip-hours are counted once, never forgotten, and never handed out over the budget."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.meter import Meter, estimate, read_meter, write_meter


def test_only_billed_time_counts() -> None:
    meter = Meter(16).tick(False, 100).tick(True, 200).tick(True, 210).tick(False, 215).tick(False, 999)
    assert meter == Meter(16, 15 * 16, None)
    assert meter.chip_hours == pytest.approx(240 / 3600)
    assert meter.seconds_left(1.0) == (3600 - 240) / 16
    assert meter.seconds_left(0.01) == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(-10, 1000)), max_size=20))
def test_use_never_shrinks_whatever_the_clock_does(looks: list[tuple[bool, float]]) -> None:
    meter = Meter(4)
    for billed, now in looks:
        later = meter.tick(billed, now)
        assert later.chip_seconds >= meter.chip_seconds
        meter = later


def test_the_file_brings_the_meter_back(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a.json"
    assert read_meter(path, 4) == Meter(4)
    write_meter(path, Meter(4, 12.5, 1000.0))
    assert read_meter(path, 4) == Meter(4, 12.5, 1000.0)
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"chip_seconds": "x", "since": null}', '{"since": 1'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="not a chip-hour ledger"):
        read_meter(tmp_path / "a.json", 4)


def test_estimates_have_no_price_and_keep_the_budget() -> None:
    lines = estimate(16, 40.0, 2.0)
    assert lines[:2] == [
        "budget: 40 chip-hours = 2.50 h of 16 chips, then it is deleted",
        "predicted: 2 h x 16 chips = 32 chip-hours",
    ]
    assert not [line for line in lines if "$" in line]
    assert len(estimate(16, 40.0, None)) == 2
    with pytest.raises(ValueError, match="over the budget of 30"):
        estimate(16, 30.0, 2.0)
