"""The int8 bench: a whole run of it, its interval, and that it can fail."""

from pathlib import Path

import numpy as np
import pytest

from research.bench import int8_error
from tests.smoke import CONFIG, Finished


def test_recipes_of_a_finished_run_are_measured(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = [("min-max", "none", False), ("mean square", "analytic", True), ("99.99 %", "empirical", False)]
    assert set(recipes) <= set(int8_error.RECIPES)
    found = int8_error.measure(finished.exp, "v1", finished.workdir, recipes)
    assert found["chosen"]["held_out_px"] == min(r["held_out_px"] for r in found["recipes"])
    assert found["float_px"] == pytest.approx(finished.result["rows"][0]["error_px_float"], rel=1e-5)
    for recipe in found["recipes"]:
        assert recipe["relative"] == pytest.approx(recipe["error_px"] / found["float_px"] - 1)
        assert recipe["interval"][0] < recipe["interval"][1]
        assert abs(recipe["relative"]) < 0.1
    assert min(found["sqnr_db"].values()) > 10
    int8_error.print_tables(found)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("mean square", "empirical", "b0/expand", "SQNR"))


def test_a_run_that_is_not_there_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert int8_error.main([str(CONFIG), "--run", str(tmp_path)]) == 1
    assert "make reproduce" in capsys.readouterr().err


def test_the_interval_is_that_of_paired_images() -> None:
    theirs = np.random.default_rng(0).uniform(1, 9, 400)
    low, high = int8_error.interval(theirs * 1.01, theirs)
    assert (low, high) == pytest.approx((0.01, 0.01))
    low, high = int8_error.interval(theirs + np.random.default_rng(1).normal(0, 0.5, 400), theirs)
    assert -0.03 < low < 0 < high < 0.03


@pytest.mark.parametrize(("relative", "count"), [(0.0049, 0), (-0.2, 0), (0.0051, 1)])
def test_the_bar(relative: float, count: int) -> None:
    assert len(int8_error.failures({"chosen": {"relative": relative}})) == count
