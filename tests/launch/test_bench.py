"""The bench of the launch room: it plays whole sweeps, and says what is too slow."""

import csv
import json
from pathlib import Path

import pytest

from launch import bench
from launch.plan import plan


def test_it_plays_a_whole_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "RESULT", tmp_path / "bench.json")
    words = ["--trials", "12", "--samplers", "grid", "random", "--store", str(tmp_path), "--write"]
    assert bench.main(words) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "bench.json").read_text()) == told
    assert list(told["found"]) == ["grid", "random"]
    assert told["process"]["start_ms"] > 0
    for sampler, row in told["found"].items():
        assert row["driver_s"] + row["trial_s"] == pytest.approx(row["total_s"])
        assert min(row.values()) > 0
        rows = list(csv.DictReader((tmp_path / sampler / "trials.csv").read_text().splitlines()))
        assert [(row["trial"], row["state"]) for row in rows] == [(str(n), "done") for n in range(12)]
        assert float(rows[3]["ms"]) == pytest.approx(0.1 + float(rows[3]["tracks.v2.width"]) / 50)


def test_it_says_what_is_too_slow() -> None:
    slow = {"tpe": {"total_s": 61.0, "each_ms": 61.0}}
    assert bench.failures(slow, 1000) == ["tpe: 61.0 s for 1000 trials, at most 60 s"]
    assert bench.failures(slow, 2000) == []
    heavy = {"tpe": {"total_s": 1.3, "each_ms": 1300.0}}
    assert bench.failures(heavy, 1000) == ["tpe: 1300 ms a trial, at most 1200 ms"]
    assert bench.failures({"tpe": {"total_s": 1.0, "each_ms": 1.0}}, 1000, ours_ms=1200.0) == [
        "tpe: 1201 ms a trial, at most 1200 ms"
    ]
    assert bench.failures({}, 1000) == []


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc"])
def test_its_sweeps_can_be_planned(sampler: str) -> None:
    sweep = bench.sweep_of(sampler, 60)
    for point in plan(sweep, 1, []):
        assert set(bench.played(point)) >= {*sweep.objectives, *sweep.constraints}


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert bench.main(["--trials", "1", "--samplers", "random", "--store", str(tmp_path / "file")]) == 2
    assert bench.main(["--trials", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
