"""The command line: one finished run, the same command again, and every bad input in one line."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from research import run as command_line
from research.data.freihand import prepare_freihand
from research.data.rendered_hands import prepare_test_set, read_test_set
from research.graph import inspect, run_tflite
from research.report.job import NEEDS
from research.report.schema import check_result
from research.train import loop
from research.train.arms import all_arms, full
from tests.data.archive import write_archive, write_npz
from tests.smoke import CONFIG, Finished, run

HOLD = """
import fcntl, sys
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(workdir: Path, *words: str, config: Path = CONFIG) -> str:
    """The one line of a run that must fail before it prints or writes anything."""
    code, printed, errors = run(workdir, *words, config=config)
    assert (code, printed) == (1, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    return errors


# A finished run


def test_table_is_printed_and_everything_is_written(finished: Finished) -> None:
    assert finished.code == 0
    assert "leave-one-out (referee x, error px)" in " ".join(finished.printed.split())
    assert str(finished.workdir / "report.html") in finished.printed
    check_result(finished.result)
    assert (finished.workdir / "report.html").read_text().startswith("<!doctype html>")
    assert "| + gates |" in (finished.workdir / "table.md").read_text()
    assert not [
        name for name in files_of(finished.workdir) if Path(name).name.startswith(".") and name != ".lock"
    ]


def test_every_network_is_exported_and_runs(finished: Finished) -> None:
    images, _ = read_test_set(
        prepare_test_set(finished.exp.data, finished.exp.seed, finished.workdir / "data")
    )
    for arm in all_arms(finished.exp):
        flat = run_tflite(finished.export(arm.name), images[..., None])
        assert flat.shape == (16, 42)
        assert np.ptp(flat, axis=0).max() > 0  # it looks at the image


def test_two_of_four_layers_are_the_referees_or_carry_a_reason(finished: Finished) -> None:
    arm, chip = full(finished.exp).name, finished.exp.new_chip.name
    layers = {layer["name"]: layer for layer in finished.result["arms"][arm]["layers"][chip]}
    asked = {facts.name for facts in inspect(finished.export(arm)) if facts.two_of_four}
    assert asked
    assert any(layer["weight_format"] == "Sparse2_4" for layer in layers.values())
    for name, layer in layers.items():
        sparse = layer["weight_format"] == "Sparse2_4"
        assert sparse != bool(layer["note"])
        assert not sparse or name in asked
    dense = finished.result["arms"]["v1"]["layers"][
        chip
    ]  # its one-channel stem is padded with zeros: 2:4 for free
    assert not any(layer["weight_format"] == "Sparse2_4" for layer in dense if layer["name"] != "stem")


def test_the_same_command_again_trains_nothing(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "again"
    shutil.copytree(finished.workdir, workdir)
    kept = {name: data for name, data in files_of(workdir).items() if name.startswith(("stages", "exports"))}
    monkeypatch.setattr("research.train.fit.run_stage", None)
    code, printed, _ = run(workdir)
    assert code == 0
    assert "gates" in printed
    again = json.loads((workdir / "result.json").read_text())
    assert again["rows"] == finished.result["rows"]
    assert again["arms"] == finished.result["arms"]
    assert {name: data for name, data in files_of(workdir).items() if name in kept} == kept


def test_termination_signal_means_what_it_did_before(finished: Finished) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run(finished.workdir, "no.such=1")
    assert signal.getsignal(signal.SIGTERM) is before


# Bad input, found before a working folder is made


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.size_pix=3"], "did you mean 'size_px'?"),
        (["optim.lr=fast"], "'fast' is not of type float"),
        (["seed"], "'seed' is not of the form field.field=value"),
        (["squeeze.sparse.where=('x/*',)"], "rule 'x/*' matches nothing"),
        (["squeeze.gates.budget_ms=1e-6"], "infeasible budget: 1e-06 ms"),
        (["data.size_px=48"], "32 px crops, but data.size_px=48"),
        (["target=v3"], "target='v3' is no track; known: v1"),
        (["optim.batch=0"], "must be positive"),
        (["--devices", "3"], "only 2 found"),
        (["--devices", "-1"], "-1 devices"),
        (["--devices", "2", "optim.batch=7"], "does not split over 2 devices"),
        (["--tflite", "a.tflite"], "--tflite needs --eval-npz"),
        (["--eval-npz", "a.npz"], "is not finished"),
        (["--eval-npz", "a.npz", "--arm", "v9"], "no network 'v9'"),
        (["--eval-npz", "a.npz", "--tflite", "none.tflite"], "no file 'none.tflite'"),
    ],
)
def test_bad_words_are_refused_in_one_line(tmp_path: Path, words: list[str], says: str) -> None:
    assert says in refused(tmp_path / "w", *words)
    assert not (tmp_path / "w").exists()


def test_missing_config_file(tmp_path: Path) -> None:
    assert "no config file" in refused(tmp_path / "w", config=tmp_path / "none.py")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "words", [[], ["--no-such-option", "configs/v2.py"], ["configs/v2.py", "--devices", "two"]]
)
def test_wrong_usage_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.main(words)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("package", sorted(NEEDS))
def test_missing_optional_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else there(name))
    line = refused(tmp_path / "w")
    assert package in line
    assert f"pip install '.[{NEEDS[package]}]'" in line
    assert not (tmp_path / "w").exists()


# Bad working folders stay as they are


def test_unwritable_workdir(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file" / "under", tmp_path / "file"):
        assert "cannot be written" in refused(workdir)
    assert files_of(tmp_path) == {"file": b"mine"}


def test_workdir_of_another_config(finished: Finished) -> None:
    before = files_of(finished.workdir)
    assert "belongs to another config (seed: 0 -> 1)" in refused(finished.workdir, "seed=1")
    assert files_of(finished.workdir) == before


def test_workdir_in_use_by_another_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert "in use by another process" in refused(tmp_path)
        child.communicate("")
    assert list(files_of(tmp_path)) == [".lock"]


# Judging from outside


@pytest.fixture(scope="module")
def junk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("junk") / "junk.bin"
    path.write_bytes(b"no network, no images")
    return path


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("npz") / "hands.npz"
    np.savez(path, image=rng.uniform(size=(3, 40, 56)), keypoints=rng.uniform(size=(3, 21, 2)))
    return path


def test_one_line_of_json(finished: Finished, npz: Path, tmp_path: Path) -> None:
    (tmp_path / "v1.tflite").write_bytes(finished.export("v1"))
    for words in ([], ["--arm", "v1"], ["--tflite", str(tmp_path / "v1.tflite")]):
        code, printed, errors = run(finished.workdir, "--eval-npz", str(npz), *words)
        assert (code, errors, printed.count("\n")) == (0, "", 1)
        assert set(json.loads(printed)) == {"error_box", "pck_05", "pck_10", "pck_20", "auc", "n"}


def test_junk_npz_and_junk_tflite(finished: Finished, npz: Path, junk: Path, tmp_path: Path) -> None:
    assert "cannot be read as an npz" in refused(finished.workdir, "--eval-npz", str(junk))
    words = ("--eval-npz", str(npz), "--tflite", str(junk))
    assert "TFLite" in refused(tmp_path / "none", *words)
    assert not (tmp_path / "none").exists()


# Recorded hands in place of renders


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "photos"], "must be freihand or npz:FILE"),
        (["--data", "npz:none.npz"], "no such file: none.npz"),
        (["--data", "freihand", "--data-dir", "none"], "no FreiHAND prepared in 'none'"),
    ],
)
def test_data_that_is_not_there(tmp_path: Path, words: list[str], says: str) -> None:
    assert says in refused(tmp_path / "none", *words)
    assert not (tmp_path / "none").exists()


def test_a_training_file_of_wrong_shapes_is_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", image=np.zeros((9, 8, 8, 3)), keypoints=np.zeros((9, 21, 2)))
    code, printed, errors = run(tmp_path / "w", "--data", f"npz:{tmp_path / 'own.npz'}")
    assert (code, printed, errors.count("\n")) == (1, "", 1)
    assert "image must be [N, H, W] grey, got [9, 8, 8, 3]" in errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["freihand", "npz"])
def test_the_main_job_on_recorded_hands(tmp_path: Path, kind: str) -> None:
    if kind == "npz":
        words = ["--data", f"npz:{write_npz(tmp_path / 'own.npz')}"]
    else:
        prepare_freihand(write_archive(tmp_path / "archive"), tmp_path / "sets")
        words = ["--data", "freihand", "--data-dir", str(tmp_path / "sets")]
    code, printed, errors = run(tmp_path / "w", *words)
    assert code == 0, errors
    assert "leave-one-out" in printed
    check_result(json.loads((tmp_path / "w" / "result.json").read_text()))
    assert run(tmp_path / "w", *words)[0] == 0
    assert "belongs to another config" in refused(tmp_path / "w")


# A loss that is not finite


def test_nan_loss_stops_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(data: object, batch: int) -> object:
        stream = batches(data, batch)
        return lambda seed, step: (
            stream(seed, step) | ({"image": stream(seed, step)["image"] * np.nan} if step == 3 else {})
        )

    batches = loop.batches
    monkeypatch.setattr(loop, "batches", poisoned)
    code, _, errors = run(tmp_path)
    assert code == 1
    assert errors.startswith("error: loss is not finite at step 3: loss=nan, task=nan;")
    assert errors.count("\n") == 1
    left = files_of(tmp_path)
    assert not any(name.startswith(("exports", "measured", "result", "report", "table")) for name in left)
    assert not any("/outcome/0/" in name for name in left)
