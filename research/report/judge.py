"""Judging from outside: a network of a finished run, or a `.tflite`, on images and keypoints it has never seen."""

from __future__ import annotations

from pathlib import Path

from research.data.npz import read_npz
from research.report.hands_page import hands_page
from research.spec import Experiment
from research.train import record
from research.train.arms import Arm
from research.train.evaluate import errors, input_px, predict, predict_tflite
from research.train.fit import finished, fit
from research.train.ledger import check_experiment


def judge(
    exp: Experiment,
    arm: Arm,
    workdir: Path,
    npz: Path,
    tflite: Path | None = None,
    gallery: Path | None = None,
) -> dict[str, float]:
    """Mean error / box, PCK@.05 / .1 / .2, AUC and n on an npz (`image [N,H,W]`, `keypoints [N,21,2]`, see data.npz).

    Judges the float network of a finished `arm` in `workdir`, or the file `tflite` alone. `gallery`: where to write a
    page of the best and worst hands. Raises FileNotFoundError
    where the run or the file is not there, ValueError for a bad npz or a file that is no hand network.
    """
    check_experiment(exp)
    if tflite is not None:
        if not tflite.is_file():
            raise FileNotFoundError(f"no file {str(tflite)!r}")
        model = tflite.read_bytes()
        images, truth = read_npz(npz, input_px(model))
        seen = predict_tflite(model, images)
    else:
        if not finished(exp, arm, workdir):
            raise FileNotFoundError(
                f"{arm.name!r} is not finished in {str(workdir)!r}: run the same command without --eval-npz first"
            )
        record.claim(workdir, exp)
        outcome = fit(exp, arm, workdir)
        images, truth = read_npz(npz, outcome.net.size_px)
        seen = predict(outcome.net, outcome.params, outcome.norm_stats, images)
    found = errors(seen, truth, images.shape[1])
    found.pop("error_px")
    if gallery is not None:
        hands_page(gallery, images, truth, {tflite.name if tflite else arm.name: seen})
    return found
