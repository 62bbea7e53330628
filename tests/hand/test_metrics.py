"""Keypoint metrics against loops and numpy, and one clear error for what cannot be measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from research.hand import metrics

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(0.1, 0.9, (7, 21, 2))
PRED = TRUE + RNG.normal(0, 0.05, TRUE.shape)
TRUE_MM = RNG.normal(0, 40, (4, 21, 3))


def errors_by_loop():
    errors = np.zeros((7, 21))
    for n in range(7):
        box = max(TRUE[n, :, 0].max() - TRUE[n, :, 0].min(), TRUE[n, :, 1].max() - TRUE[n, :, 1].min())
        for j in range(21):
            errors[n, j] = np.hypot(*(PRED[n, j] - TRUE[n, j])) / box
    return errors


def test_errors_against_a_loop():
    np.testing.assert_allclose(metrics.joint_errors_box(PRED, TRUE), errors_by_loop(), rtol=1e-4)
    assert float(metrics.error_box(PRED, TRUE)) == pytest.approx(errors_by_loop().mean(), rel=1e-5)
    by_hand = np.linalg.norm(PRED - TRUE, axis=-1).mean() * 64
    assert float(metrics.epe_px(PRED, TRUE, 64)) == pytest.approx(by_hand, rel=1e-5)


def test_pck_and_auc_against_a_fine_grid():
    errors = errors_by_loop()
    for threshold in (0.05, 0.1, 0.2):
        assert float(metrics.pck(PRED, TRUE, threshold)) == pytest.approx(
            (errors <= threshold).mean(), abs=1e-6
        )
    grid = np.linspace(0, metrics.PCK_LIMIT, 20_001)
    curve = np.asarray([(errors <= t).mean() for t in grid])
    area = np.trapezoid(curve, grid) / metrics.PCK_LIMIT
    assert float(metrics.auc(PRED, TRUE)) == pytest.approx(area, abs=1e-4)


def test_report_agrees_with_the_metrics_and_holds_plain_floats():
    report = metrics.keypoint_report(PRED, TRUE)
    assert set(report) == {"error_box", "pck_05", "pck_10", "pck_20", "auc", "n"}
    assert all(type(value) is float for value in report.values())
    assert report["n"] == 7
    assert report["error_box"] == pytest.approx(errors_by_loop().mean(), rel=1e-9)
    assert report["pck_05"] == (errors_by_loop() <= 0.05).mean()
    assert report["auc"] == pytest.approx(float(metrics.auc(PRED, TRUE)), rel=1e-5)
    perfect = metrics.keypoint_report(TRUE, TRUE)
    assert (perfect["error_box"], perfect["pck_05"], perfect["auc"]) == (0, 1, 1)


@pytest.mark.parametrize("scale", [0.01, 64.0])
def test_report_does_not_depend_on_the_unit(scale):
    a, b = metrics.keypoint_report(PRED, TRUE), metrics.keypoint_report(PRED * scale, TRUE * scale)
    assert all(a[name] == pytest.approx(b[name], rel=1e-9) for name in a)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_are_named(bad, which):
    sets = [PRED.copy(), TRUE.copy()]
    sets[which][3, 5, 1] = bad
    with pytest.raises(ValueError, match=f"{('pred', 'true')[which]} keypoints of example 3 are not finite"):
        metrics.keypoint_report(*sets)


@pytest.mark.parametrize(
    ("pred", "true", "message"),
    [
        (PRED[:, :20], TRUE, r"pred keypoints must be \[N, 21, 2\], got \[7, 20, 2\]"),
        (PRED, TRUE[..., 0], r"true keypoints must be \[N, 21, 2\], got \[7, 21\]"),
        (PRED[:3], TRUE, "one shape"),
        (PRED[:0], TRUE[:0], "empty set"),
        (PRED, np.zeros_like(TRUE), "all coincide"),
    ],
)
def test_what_cannot_be_judged_is_one_clear_error(pred, true, message):
    with pytest.raises(ValueError, match=message):
        metrics.keypoint_report(pred, true)


def test_procrustes_undoes_any_move_turn_and_zoom():
    spin = Rotation.from_euler("xyz", [0.4, -1.2, 2.5]).as_matrix()
    moved = 1.7 * TRUE_MM @ spin.T + np.asarray([10.0, -200.0, 400.0])
    assert float(metrics.mpjpe_mm(moved, TRUE_MM)) > 100
    assert float(metrics.pa_mpjpe_mm(moved, TRUE_MM)) < 1e-2
    by_hand = np.linalg.norm(moved - TRUE_MM, axis=-1).mean()
    assert float(metrics.mpjpe_mm(moved, TRUE_MM)) == pytest.approx(by_hand, rel=1e-5)


def test_procrustes_against_scipy_on_noisy_points():
    noisy = TRUE_MM + RNG.normal(0, 8, TRUE_MM.shape)
    aligned = np.asarray(metrics.procrustes(noisy, TRUE_MM))
    for n in range(len(noisy)):
        p, t = noisy[n] - noisy[n].mean(axis=0), TRUE_MM[n] - TRUE_MM[n].mean(axis=0)
        turn, _ = Rotation.align_vectors(t, p)
        turned = turn.apply(p)
        scale = (turned * t).sum() / (turned**2).sum()
        np.testing.assert_allclose(aligned[n], scale * turned + TRUE_MM[n].mean(axis=0), atol=1e-2)


def test_a_mirrored_hand_is_wrong_unless_reflections_are_allowed():
    mirrored = TRUE_MM * np.asarray([-1.0, 1.0, 1.0])
    assert float(metrics.pa_mpjpe_mm(mirrored, TRUE_MM)) > 5
    assert float(metrics.pa_mpjpe_mm(mirrored, TRUE_MM, reflect=True)) < 1e-2


def test_jitter_is_the_second_difference():
    still = np.broadcast_to(TRUE[:1], (6, 21, 2))
    drift = still + 0.01 * np.arange(6)[:, None, None]
    assert float(metrics.jitter_px(drift)) < 1e-6
    shaken = still + 0.01 * ((-1.0) ** np.arange(6))[:, None, None]
    assert float(metrics.jitter_px(shaken, 64)) == pytest.approx(0.04 * np.sqrt(2) * 64, rel=1e-4)
    with pytest.raises(ValueError, match="at least 3 frames, got 2"):
        metrics.jitter_px(still[:2])


def test_the_error_can_be_jitted_and_differentiated():
    slope = jax.jit(jax.grad(lambda p: metrics.error_box(p, jnp.asarray(TRUE))))(jnp.asarray(PRED))
    assert np.isfinite(slope).all()
    assert float(jnp.abs(slope).max()) > 0
