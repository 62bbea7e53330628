"""The command line without a compiler: rows, totals, tables, exit codes. With one: see launch/README.md."""

import dataclasses as dc
import importlib.util
import io
from typing import Any

import pytest
from rich.console import Console

from launch.ahead import Estimate
from launch.chips import CHIPS
from launch.precompile import chosen, efficiency, main, problems, row_of, show, totals
from tests.smoke import CONFIG, smoke

CHIP = CHIPS["v5e"]
FOUND = Estimate(
    hbm_bytes=4e9,
    flops=1.97e12,
    hbm_traffic=1e9,
    roofline_s=0.02,
    kernels_s=0.04,
    collectives=3,
    loops=1,
    compile_s=5.0,
)


def test_a_row_says_what_a_step_takes() -> None:
    row = row_of(("v2.0-dense",), CHIP, 4, 64, 0, FOUND)
    assert row["fits"]
    assert row["hbm_share"] == 0.25
    assert row["step_ms"] == 40.0
    assert row["images_s_chip"] == 64 / 0.04 / 4
    assert row["roofline_share"] == 0.5
    assert row["flops_share"] == pytest.approx(1.97e12 / 0.04 / 197e12)
    unclocked = row_of(("v2.0-dense",), CHIPS["v6e"], 4, 64, 0, dc.replace(FOUND, kernels_s=0.0))
    assert unclocked["kernels_ms"] is unclocked["roofline_share"] is None
    assert unclocked["step_ms"] == 20.0
    trials = row_of(("v2.0-dense",), CHIP, 4, 64, 8, FOUND)
    assert trials["images_s_chip"] == 8 * row["images_s_chip"]
    assert trials["images_a_step"] == 512


def test_what_is_over_the_limit_or_refused_does_not_fit() -> None:
    over = row_of(("a",), CHIP, 4, 64, 0, dc.replace(FOUND, hbm_bytes=16.1e9))
    refused = row_of(("b",), CHIP, 4, 64, 0, Estimate(0, 0, 0, 0, 0, 0, 0, 1.0, "RESOURCE_EXHAUSTED: 40G"))
    assert not over["fits"]
    assert not refused["fits"]
    assert refused["images_s_chip"] is None
    rows = [row | {"steps": 90, "hours": hours} for row, hours in ((over, 0.5), (refused, 0.0))]
    assert totals(rows, 16) == {"fits": False, "hbm_mb_chip": 16100.0, "hours": 0.5, "chip_hours": 8.0}


def test_efficiency_is_against_the_smallest_slice() -> None:
    first = row_of(("v2.0-dense",), CHIP, 4, 256, 0, FOUND)
    same = row_of(("v2.0-dense",), CHIP, 16, 1024, 0, FOUND)
    half = row_of(("v2.0-dense",), CHIP, 16, 512, 0, dc.replace(FOUND, collectives=0))
    late = {"efficiency": 1.0, "efficiency_10us": float(f"{40 / 40.03:.4g}")}  # three collectives, 40 ms
    assert efficiency(same, first) == late
    assert efficiency(half, first) == {"efficiency": 0.5, "efficiency_10us": 0.5}
    refused = row_of(("v2.0-dense",), CHIP, 16, 64, 0, dc.replace(FOUND, refused="no"))
    assert efficiency(refused, first) == {"efficiency": None, "efficiency_10us": None}


def report(rows: list[dict[str, Any]], scaling: list[dict[str, Any]]) -> dict[str, Any]:
    """A report of rows, as `precompile` makes it."""
    facts = {"config": "configs/x.py", "topology": "v5e:2x2", "compute": "bfloat16", "trials": 0}
    return facts | {
        "chip": dc.asdict(CHIP),
        "total": totals(rows or scaling, 4),
        "rows": rows,
        "scaling": scaling,
    }


def test_a_report_is_shown_as_tables() -> None:
    row = row_of(("v2.0-dense", "v2.1-squeeze"), CHIP, 4, 64, 0, FOUND)
    run, scaling = (
        [row | {"steps": 900, "hours": 0.01}],
        [row | {"efficiency": 0.987, "efficiency_10us": 0.9}],
    )
    said = [io.StringIO(), io.StringIO()]
    show(report(run, []), Console(file=said[0], width=220))
    show(report([], scaling), Console(file=said[1], width=220))
    for words in ("estimates, not measured", "v2.0-dense +1", "4,000 MB", "0.04 chip-hours", "16,000 MB HBM"):
        assert words in said[0].getvalue()
    for words in ("estimates, not measured", "the same work a chip", "98.7%"):
        assert words in said[1].getvalue()


def test_what_does_not_fit_is_one_line_each() -> None:
    fits = row_of(("v1.0-dense",), CHIP, 4, 64, 0, FOUND)
    over = row_of(("v2.0-dense",), CHIP, 4, 64, 0, dc.replace(FOUND, hbm_bytes=24e9))
    refused = row_of(
        ("v2.1-squeeze",), CHIP, 16, 64, 0, dc.replace(FOUND, refused="RESOURCE_EXHAUSTED: 40.25G")
    )
    assert problems(report([fits], [])) == []
    assert problems(report([fits, over], [])) == [
        "v2.0-dense on 4 chips does not fit: 24,000 MB HBM a chip, 150% of what there is"
    ]
    assert problems(report([], [refused])) == [
        "v2.1-squeeze on 16 chips does not fit: RESOURCE_EXHAUSTED: 40.25G"
    ]


def test_one_stage_may_be_chosen() -> None:
    exp = smoke()
    (piece,) = chosen(exp, "v2+gates+distill.2-finish")
    assert "v2+gates+distill.2-finish" in piece.stages
    assert len(chosen(exp, "")) > 1
    with pytest.raises(ValueError, match=r"no stage 'v2.0-dens'.*v2.0-dense"):
        chosen(exp, "v2.0-dens")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("nowhere.py",), "no config file 'nowhere.py'"),
        ((str(CONFIG), "--topology", "v5e"), "topology 'v5e' is not of the form v5e:4x4"),
        ((str(CONFIG), "--topology", "v9:2x2"), "no TPU chip 'v9'"),
        ((str(CONFIG), "optim.compute=int8"), "optim.compute='int8' must be one of float32, bfloat16"),
        ((str(CONFIG), "optim.lrr=1"), "Optim has no such field"),
        ((str(CONFIG), "--trials", "-1"), "--trials at least 0"),
        ((str(CONFIG),), "install the extra tpu-aot"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: tuple[str, ...],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else real(name))
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    assert error in said.err
