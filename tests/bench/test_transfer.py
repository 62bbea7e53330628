"""Recipes: a row each, named by what it changes; the peers' bar; bad input in one line. Training is the slow test."""

import json
from pathlib import Path

import pytest

from research.bench.transfer import BAR, failures, main, print_table, recipes, title_of
from research.spec import config_module
from tests.data.archive import write_npz
from tests.smoke import ROOT

CONFIG = ROOT / "configs" / "transfer.py"


def test_every_recipe_is_another_experiment() -> None:
    found = recipes(CONFIG, ["optim.lr=0.25"])
    assert len({exp for _, exp in found}) == len({title for title, _ in found}) == len(found)
    assert {exp.optim.lr for _, exp in found} == {0.25}
    points = list(config_module(CONFIG).sweep())
    assert [title for title, _ in found] == [title_of(point) for point in points]
    assert {exp.tracks["net"].net.head.kind for _, exp in found} == {"coordinates", "simcc", "heatmap"}
    assert {exp.optim.loss for _, exp in found} == {"distance", "l1", "wing", "mse"}
    assert {exp.target for _, exp in found} == {"net", "depthwise"}
    assert all(exp.data.size_px == 32 for _, exp in recipes(CONFIG, [], smoke=True))


def test_titles_say_the_change() -> None:
    assert title_of({}) == "as it is"
    assert (
        title_of({"tracks.net.net.head.kind": "simcc", "optim.loss": "l1"})
        == "head.kind=simcc, optim.loss=l1"
    )


def test_the_full_peer_must_find_our_renders(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"error_box": BAR + 0.01, "pck_10": 0.5}
    row = {"name": "MediaPipe full", "kind": "peer", "float": numbers, "macs": 3e8, "params": 2e6}
    assert failures({"rows": [row]}) == ["MediaPipe full finds our renders at 0.060 of the box, at most 0.05"]
    assert failures({"rows": [row | {"float": numbers | {"error_box": BAR}}]}) == []
    assert failures({"rows": [row | {"name": "as it is"}]}) == []
    print_table([row])
    assert "peer" in capsys.readouterr().out


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["optim.los=l1"], ["--eval-npz", str(tmp_path / "none.npz")]):
        assert main([str(CONFIG), *words]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1


@pytest.mark.slow
def test_the_whole_comparison_shrunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write_npz(tmp_path / "own.npz")
    assert main([str(CONFIG), "--smoke", "--workdir", str(tmp_path / "w"), "--eval-npz", str(own)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(told["rows"]) == len(recipes(CONFIG, []))
    assert all(row["int8"]["error_box"] > 0 and row["npz"]["n"] == 15 for row in told["rows"])
    assert (tmp_path / "w" / "hands.html").is_file()
