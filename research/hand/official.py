"""FreiHAND's official judgement of 3-D joints: mean error in cm and area under PCK, raw and aligned.

The definitions of Zimmermann et al., "FreiHAND", ICCV 2019, and of its evaluation server: errors are averaged for
each joint, then over joints; PCK is integrated over 100 thresholds from 0 to 5 cm by the trapezoidal rule.

    python -m research.hand.official evaluation_xyz.json pred.json   a prediction in the server's format
    python -m research.hand.official evaluation_xyz.json --zero      the predictor that says zero

The zero predictor's published figures are 70.79 cm raw and 4.73 cm aligned, on the real evaluation split.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

THRESHOLDS_M = np.linspace(0.0, 0.05, 100)


def _joints(name: str, points_m: ArrayLike) -> np.ndarray:
    points = np.asarray(points_m, np.float64)
    if points.ndim != 3 or points.shape[1:] != (21, 3) or len(points) == 0:
        raise ValueError(f"{name} must be [N, 21, 3] with N >= 1, got {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} holds values that are not finite")
    return points


def aligned(pred_m: ArrayLike, true_m: ArrayLike) -> np.ndarray:
    """`pred` `[N,21,3]` moved, scaled and turned onto `true`, mirrored too where that fits better, as the server does.

    A prediction whose joints coincide becomes the centre of the true joints. ValueError for other shapes, values
    that are not finite, or true joints that all coincide.
    """
    pred, true = _joints("pred_m", pred_m), _joints("true_m", true_m)
    if pred.shape != true.shape:
        raise ValueError(f"pred_m and true_m must have one shape, got {list(pred.shape)}, {list(true.shape)}")
    centre = true.mean(axis=1, keepdims=True)
    true, pred = true - centre, pred - pred.mean(axis=1, keepdims=True)
    size = np.linalg.norm(true, axis=(1, 2))[:, None, None]
    if (size == 0).any():
        raise ValueError(f"the true joints of example {int(size.argmin())} all coincide")
    spread = np.maximum(np.linalg.norm(pred, axis=(1, 2))[:, None, None], 1e-8)
    u, stretch, vt = np.linalg.svd(np.einsum("nji,njk->nik", pred / spread, true / size))
    turned = np.einsum("nji,nik,nkl->njl", pred / spread, u, vt)
    return turned * stretch.sum(axis=1)[:, None, None] * size + centre


def _measures(pred: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Mean error in m and area under PCK of 0..1."""
    error_m = np.linalg.norm(pred - true, axis=2)
    curve = (error_m[:, :, None] <= THRESHOLDS_M).mean(axis=0)
    areas = ((curve[:, 1:] + curve[:, :-1]) / 2).mean(axis=1)
    return float(error_m.mean()), float(areas.mean())


def freihand_report(pred_m: ArrayLike, true_m: ArrayLike) -> dict[str, float]:
    """The official figures of predicted joints `[N,21,3]` in m against the true ones.

    Returns `error_cm`, `auc`, `aligned_error_cm`, `aligned_auc` and `n`. Errors as `aligned`.
    """
    pred, true = _joints("pred_m", pred_m), _joints("true_m", true_m)
    moved = aligned(pred, true)
    (raw_m, raw_auc), (aligned_m, aligned_auc) = _measures(pred, true), _measures(moved, true)
    return {
        "error_cm": raw_m * 100.0,
        "auc": raw_auc,
        "aligned_error_cm": aligned_m * 100.0,
        "aligned_auc": aligned_auc,
        "n": float(len(true)),
    }


def read_joints(path: str | Path) -> np.ndarray:
    """Joints `[N,21,3]` in m of an archive's `*_xyz.json`, or of a `pred.json`: `[joints, vertices]`, vertices ignored.

    FileNotFoundError for no file, ValueError for one that holds something else; both name it.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    try:
        held = json.loads(file.read_text())
        pair = isinstance(held, list) and len(held) == 2 and np.shape(held[0])[1:] == (21, 3)
        return _joints(str(file), held[0] if pair else held)
    except (ValueError, TypeError) as error:  # no json, or rows of unequal length
        raise ValueError(f"{file} holds no joints [N, 21, 3] ({str(error).splitlines()[0]})") from error


def main(words: Sequence[str] | None = None) -> int:
    """Prints the official figures as one line of JSON; returns 0, or 1 with one line that says why."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m research.hand.official", description=__doc__, formatter_class=form
    )
    parser.add_argument("truth", help="evaluation_xyz.json of the archive")
    parser.add_argument("prediction", nargs="?", help="pred.json")
    parser.add_argument("--zero", action="store_true", help="judge the predictor that says zero")
    asked = parser.parse_args(words)
    if asked.zero == (asked.prediction is not None):
        parser.error("name a prediction or --zero")
    try:
        true = read_joints(asked.truth)
        print(
            json.dumps(
                freihand_report(np.zeros_like(true) if asked.zero else read_joints(asked.prediction), true)
            )
        )
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
