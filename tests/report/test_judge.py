"""Judging from outside says what a direct evaluation says, for a network and for a file."""

import json
from pathlib import Path

import numpy as np
import pytest

from research.data.npz import read_npz
from research.hand.metrics import keypoint_report
from research.report.judge import judge
from research.train.arms import Arm, full
from research.train.evaluate import predict, predict_tflite
from research.train.fit import fit
from tests.smoke import Finished, run


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Five crops of another size than the network's."""
    rng = np.random.default_rng(0)
    path = tmp_path / "hands.npz"
    np.savez(
        path,
        image=rng.uniform(size=(5, 50, 50)).astype(np.float32),
        keypoints=rng.uniform(0.1, 0.9, size=(5, 21, 2)).astype(np.float32),
    )
    return path


def test_a_finished_network_is_judged_as_it_predicts(finished: Finished, npz: Path) -> None:
    arm = full(finished.exp)
    outcome = fit(finished.exp, arm, finished.workdir)
    images, truth = read_npz(npz, 32)
    wanted = keypoint_report(predict(outcome.net, outcome.params, outcome.norm_stats, images), truth)
    assert judge(finished.exp, arm, finished.workdir, npz) == pytest.approx(wanted)
    assert set(wanted) == {"error_box", "pck_05", "pck_10", "pck_20", "auc", "n"}


def test_a_file_is_judged_alone(finished: Finished, npz: Path, tmp_path: Path) -> None:
    file = finished.workdir / "exports" / "v1.tflite"
    images, truth = read_npz(npz, 32)
    wanted = keypoint_report(predict_tflite(file.read_bytes(), images), truth)
    found = judge(finished.exp, full(finished.exp), tmp_path / "nowhere", npz, file)
    assert found == pytest.approx(wanted)
    assert not (tmp_path / "nowhere").exists()


def test_the_command_prints_one_line_of_json(finished: Finished, npz: Path) -> None:
    code, printed, errors = run(finished.workdir, "--eval-npz", str(npz), "--arm", "v1")
    assert (code, errors) == (0, "")
    assert json.loads(printed)["n"] == 5
    assert json.loads(printed) == pytest.approx(judge(finished.exp, Arm("v1"), finished.workdir, npz))


def test_a_gallery_shows_the_hands_that_were_judged(finished: Finished, npz: Path, tmp_path: Path) -> None:
    page = tmp_path / "hands.html"
    code, printed, _ = run(finished.workdir, "--eval-npz", str(npz), "--arm", "v1", "--gallery", str(page))
    assert code == 0
    assert f"v1: error / box {json.loads(printed)['error_box']:.3f} on 5 hands" in page.read_text()
    code, _, errors = run(finished.workdir, "--gallery", str(page))
    assert (code, errors.count("\n")) == (1, 1)
    assert "--gallery needs --eval-npz" in errors


@pytest.mark.parametrize("content", [b"", b"no npz at all", b"TFL3" * 99])
def test_junk_is_one_clear_error(finished: Finished, npz: Path, tmp_path: Path, content: bytes) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(content)
    for words in (["--eval-npz", str(junk)], ["--eval-npz", str(npz), "--tflite", str(junk)]):
        code, printed, errors = run(finished.workdir, *words)
        assert (code, printed) == (1, "")
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
