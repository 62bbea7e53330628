"""FreiHAND's figures against scipy's Procrustes, hand-made cases, and a predictor of zeros."""

import json

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from research.hand.official import THRESHOLDS_M, aligned, freihand_report, main


def hands(seed: int, count: int = 6) -> np.ndarray:
    """Joints of about a hand's size, some 70 cm away, in m."""
    rng = np.random.default_rng(seed)
    return rng.normal(scale=0.03, size=(count, 21, 3)) + np.array([0.0, 0.0, 0.7])


def turned(seed: int, mirrored: bool) -> np.ndarray:
    """A random rotation, or one with a mirror."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * (1 if (np.linalg.det(q) < 0) == mirrored else -1)


def one_aligned(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """One example aligned with scipy's orthogonal Procrustes, step by step."""
    a, b = true - true.mean(0), pred - pred.mean(0)
    a_size, b_size = np.linalg.norm(a), np.linalg.norm(b)
    turn, scale = scipy.linalg.orthogonal_procrustes(a / a_size, b / b_size)
    return (b / b_size) @ turn.T * scale * a_size + true.mean(0)


@given(seed=st.integers(0, 10**6))
def test_alignment_is_scipys(seed: int) -> None:
    true, pred = hands(seed), hands(seed + 1)
    wanted = [one_aligned(p, t) for p, t in zip(pred, true, strict=True)]
    np.testing.assert_allclose(aligned(pred, true), wanted, atol=1e-12)


@given(seed=st.integers(0, 10**6), mirrored=st.booleans(), scale=st.floats(0.1, 10))
def test_similar_hands_align_to_nothing(seed: int, mirrored: bool, scale: float) -> None:
    true = hands(seed)
    pred = scale * true @ turned(seed, mirrored) + np.array([1.0, -2.0, 0.3])
    report = freihand_report(pred, true)
    assert report["aligned_error_cm"] < 1e-9
    assert report["aligned_auc"] > 0.99
    assert report["error_cm"] > 10


def test_figures_are_those_of_the_definition() -> None:
    true, pred = hands(0, 50), hands(0, 50)
    pred[:, :, 0] += np.random.default_rng(1).uniform(0, 0.08, (50, 21))
    errors = np.linalg.norm(pred - true, axis=2)
    areas = [
        scipy.integrate.trapezoid([(errors[:, j] <= t).mean() for t in THRESHOLDS_M], THRESHOLDS_M) / 0.05
        for j in range(21)
    ]
    report = freihand_report(pred, true)
    assert report["error_cm"] == pytest.approx(np.mean([errors[:, j].mean() for j in range(21)]) * 100)
    assert report["auc"] == pytest.approx(np.mean(areas))
    assert 0.2 < report["auc"] < 0.8
    assert report["n"] == 50


def test_a_predictor_of_zeros_is_judged_by_distance_and_by_size() -> None:
    true = hands(3)
    report = freihand_report(np.zeros_like(true), true)
    centred = true - true.mean(axis=1, keepdims=True)
    assert report["error_cm"] == pytest.approx(100 * np.linalg.norm(true, axis=2).mean())
    assert report["aligned_error_cm"] == pytest.approx(100 * np.linalg.norm(centred, axis=2).mean())
    assert report["auc"] == 0


def test_bad_joints_are_refused() -> None:
    good = hands(0)
    for bad, words in (
        (good[:, :20], r"pred_m must be \[N, 21, 3\]"),
        (good[:0], "N >= 1"),
        (np.where(good > 0.7, np.nan, good), "pred_m holds values that are not finite"),
        (good[:3], "one shape"),
    ):
        with pytest.raises(ValueError, match=words):
            freihand_report(bad, good)
    with pytest.raises(ValueError, match="true joints of example 0 all coincide"):
        freihand_report(good, np.ones_like(good))


def test_the_command_judges_files_and_the_zero_predictor(tmp_path, capsys) -> None:
    true = np.random.default_rng(5).uniform(-0.08, 0.08, (4, 21, 3)) + [0, 0, 0.7]
    truth, prediction = tmp_path / "evaluation_xyz.json", tmp_path / "pred.json"
    truth.write_text(json.dumps(true.tolist()))
    prediction.write_text(json.dumps([(true + 0.01).tolist(), np.zeros((4, 778, 3)).tolist()]))
    assert main([str(truth), str(prediction)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["error_cm"] == pytest.approx(100 * np.sqrt(3) * 0.01)
    assert told["aligned_error_cm"] == pytest.approx(0.0, abs=1e-9)
    assert main([str(truth), "--zero"]) == 0
    told = json.loads(
        capsys.readouterr().out
    )  # by the formula: distances from the camera, and from the centre
    assert told["error_cm"] == pytest.approx(100 * np.linalg.norm(true, axis=2).mean())
    middle = true.mean(axis=1, keepdims=True)
    assert told["aligned_error_cm"] == pytest.approx(100 * np.linalg.norm(true - middle, axis=2).mean())
    assert told["n"] == 4


@pytest.mark.parametrize("held", ["[[1, 2", "[]", "[[[1, 2, 3]]]", "[[[1], [2, 3]]]", "7"])
def test_a_file_of_something_else_is_one_line(held, tmp_path, capsys) -> None:
    file = tmp_path / "pred.json"
    file.write_text(held)
    assert main([str(file), "--zero"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "pred.json holds no joints [N, 21, 3]" in said
    assert said.count("\n") == 1
    assert main([str(tmp_path / "none.json"), "--zero"]) == 1
