"""How far predicted keypoints are from the true ones, in px, in the hand's own size and in mm.

All functions take arrays of one shape [N, 21, D] (set, joint, coordinate), are pure and can be jitted.
`box` is the longer side of the bounding box of an example's true keypoints.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

PCK_LIMIT: float = 0.2
"""Upper end of the thresholds of the area under the PCK curve, in boxes."""


def _pair(pred: ArrayLike, true: ArrayLike, width: int) -> tuple[jax.Array, jax.Array]:
    """Both as float32 arrays; ValueError unless they share a shape [N, 21, width] with N >= 1."""
    shapes = list(np.shape(pred)), list(np.shape(true))
    for name, shape in zip(("pred", "true"), shapes, strict=True):
        if len(shape) != 3 or shape[1:] != [21, width]:
            raise ValueError(f"{name} keypoints must be [N, 21, {width}], got {shape}")
    if shapes[0] != shapes[1]:
        raise ValueError(f"pred and true keypoints must have one shape, got {shapes[0]} and {shapes[1]}")
    if shapes[0][0] == 0:
        raise ValueError("keypoint metrics of an empty set: give at least one example")
    return jnp.asarray(pred, jnp.float32), jnp.asarray(true, jnp.float32)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1))


def epe_px(pred: ArrayLike, true: ArrayLike, size_px: float = 1.0) -> jax.Array:
    """Mean end-point error over joints and set, times `size_px` (1 keeps the input's unit)."""
    p, t = _pair(pred, true, 2)
    return jnp.mean(_distance(p, t)) * size_px


def joint_errors_box(pred: ArrayLike, true: ArrayLike) -> jax.Array:
    """Each joint's error in boxes: [N, 21, 2] twice -> [N, 21]."""
    p, t = _pair(pred, true, 2)
    box = jnp.max(jnp.max(t, axis=1) - jnp.min(t, axis=1), axis=-1)
    return _distance(p, t) / box[:, None]


def error_box(pred: ArrayLike, true: ArrayLike) -> jax.Array:
    """Mean error in boxes."""
    return jnp.mean(joint_errors_box(pred, true))


def pck(pred: ArrayLike, true: ArrayLike, threshold: float) -> jax.Array:
    """Percentage of correct keypoints, as a fraction 0..1: joints whose error is <= threshold boxes."""
    return jnp.mean((joint_errors_box(pred, true) <= threshold).astype(jnp.float32))


def auc(pred: ArrayLike, true: ArrayLike) -> jax.Array:
    """Area under PCK(t) for t in 0..PCK_LIMIT boxes, divided by PCK_LIMIT: 1 is perfect.

    Exact, without a grid: the integral of a mean of steps 1[e <= t] is the mean of max(0, 1 - e / PCK_LIMIT).
    """
    return jnp.mean(jnp.maximum(0.0, 1.0 - joint_errors_box(pred, true) / PCK_LIMIT))


def mpjpe_mm(pred_mm: ArrayLike, true_mm: ArrayLike) -> jax.Array:
    """Mean per-joint position error of [N, 21, 3] in mm."""
    p, t = _pair(pred_mm, true_mm, 3)
    return jnp.mean(_distance(p, t))


def procrustes(pred_mm: ArrayLike, true_mm: ArrayLike, reflect: bool = False) -> jax.Array:
    """`pred` [N, 21, 3] moved, turned and scaled onto `true` with least squared error (Umeyama, 1991).

    With `reflect`, mirrored solutions are allowed too, as in FreiHAND's official evaluation.
    """
    p, t = _pair(pred_mm, true_mm, 3)
    p_mean, t_mean = jnp.mean(p, axis=1, keepdims=True), jnp.mean(t, axis=1, keepdims=True)
    p0, t0 = p - p_mean, t - t_mean
    u, s, vt = jnp.linalg.svd(jnp.einsum("njd,nje->nde", p0, t0, precision="highest"))
    sign = jnp.ones_like(s)
    if not reflect:
        handed = jnp.sign(jnp.linalg.det(u) * jnp.linalg.det(vt))
        sign = sign.at[:, 2].set(handed)
    turn = jnp.einsum("nij,nj,njk->nik", u, sign, vt, precision="highest")
    spread = jnp.maximum(jnp.sum(p0**2, axis=(1, 2)), jnp.finfo(jnp.float32).tiny)
    scale = jnp.sum(s * sign, axis=1) / spread
    return scale[:, None, None] * jnp.einsum("njd,nde->nje", p0, turn, precision="highest") + t_mean


def pa_mpjpe_mm(pred_mm: ArrayLike, true_mm: ArrayLike, reflect: bool = False) -> jax.Array:
    """Mean per-joint position error in mm after `procrustes`."""
    return mpjpe_mm(procrustes(pred_mm, true_mm, reflect), true_mm)


def jitter_px(track: ArrayLike, size_px: float = 1.0) -> jax.Array:
    """Mean second difference in time of a track [T, 21, 2], times `size_px`; ValueError for T < 3."""
    t, _ = _pair(track, track, 2)
    if t.shape[0] < 3:
        raise ValueError(f"jitter needs a track of at least 3 frames, got {t.shape[0]}")
    second = t[2:] - 2.0 * t[1:-1] + t[:-2]
    return jnp.mean(jnp.sqrt(jnp.sum(second**2, axis=-1))) * size_px


def keypoint_report(pred: ArrayLike, true: ArrayLike) -> dict[str, float]:
    """The outside judgement of a set of predictions, computed in float64.

    Args:
      pred, true: [N, 21, 2] in any one unit, usually fractions of the crop.

    Returns:
      error_box (mean error / box), pck_05, pck_10, pck_20 (fractions of joints within 0.05, 0.1, 0.2 boxes),
      auc (area under PCK over 0..0.2 boxes, normalised to 1) and n (examples).

    Raises:
      ValueError: wrong shape, empty set, a value that is not finite, true keypoints that all coincide.
    """
    _pair(pred, true, 2)
    p, t = np.asarray(pred, np.float64), np.asarray(true, np.float64)
    for name, points in (("pred", p), ("true", t)):
        bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
        if bad.size:
            raise ValueError(
                f"{name} keypoints of example {bad[0]} are not finite ({bad.size} such examples)"
            )
    box = (t.max(axis=1) - t.min(axis=1)).max(axis=-1)
    if (box <= 0).any():
        raise ValueError(f"true keypoints of example {int(np.argmin(box))} all coincide: the box has no size")
    error = np.linalg.norm(p - t, axis=-1) / box[:, None]
    return {
        "error_box": float(error.mean()),
        "pck_05": float((error <= 0.05).mean()),
        "pck_10": float((error <= 0.1).mean()),
        "pck_20": float((error <= 0.2).mean()),
        "auc": float(np.maximum(0.0, 1.0 - error / PCK_LIMIT).mean()),
        "n": float(len(error)),
    }
