"""A page of hands with true and predicted skeletons, best and worst first: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from research.hand.metrics import joint_errors_box
from research.hand.skeleton import PARENTS
from research.report.atomic import write_text

SHOWN_PX = 192
STYLE = """body{font:15px system-ui,sans-serif;margin:2rem;background:#fff;color:#111}
figure{display:inline-block;margin:.4rem}figcaption{font-size:13px;text-align:center}
.true{stroke:#009e73}.seen{stroke:#d55e00}line{stroke-width:2;stroke-linecap:round}
@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}"""


def ranked(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Error / box of each hand `[N]`, and the hands from best to worst `[N]`. ValueError: shapes that differ."""
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"keypoints must be two arrays [N,21,2], got {predicted.shape} and {truth.shape}")
    errors = np.asarray(joint_errors_box(predicted, truth)).mean(axis=1)
    return errors, np.argsort(errors, kind="stable")


def hands_page(
    path: str | Path,
    images: np.ndarray,
    truth: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    each: int = 12,
) -> Path:
    """Writes the gallery of every network in `predicted` ({title: keypoints [N,21,2]}) on `images [N,S,S]` in 0..1.

    Of each network the `each` best and worst hands by error / box. Raises ValueError for arrays that do not belong
    together and OSError where `path` cannot be written; an old page stays until the new one is whole.
    """
    if not predicted or len(images) != len(truth) or not len(images):
        raise ValueError(
            f"{len(images)} images, {len(truth)} true hands, {len(predicted)} networks: nothing to show"
        )
    parts = []
    for title, points in predicted.items():
        errors, order = ranked(points, truth)
        head = f"{html.escape(title)}: error / box {errors.mean():.3f} on {len(errors)} hands"
        parts.append(f"<h2>{head}</h2>")
        for name, chosen in (("best", order[:each]), ("worst", order[::-1][:each])):
            shown = (_figure(images[i], truth[i], points[i], f"{errors[i]:.3f}") for i in chosen)
            parts.append(f"<h3>{name}</h3>{''.join(shown)}")
    words = (
        "<p>Green: the label. Orange: the network. Numbers: mean error / longer side of the label's box.</p>"
    )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Hands</title><style>{STYLE}</style>'
    write_text(path, f"{head}<h1>Hands, best and worst</h1>{words}{''.join(parts)}</html>\n")
    return Path(path)


def _figure(image: np.ndarray, truth: np.ndarray, seen: np.ndarray, caption: str) -> str:
    png = io.BytesIO()
    Image.fromarray(np.round(np.asarray(image) * 255).astype(np.uint8)).save(png, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    size = f'width="{SHOWN_PX}" height="{SHOWN_PX}"'
    bones = _bones(truth, "true") + _bones(seen, "seen")
    picture = f'<image href="{uri}" {size} preserveAspectRatio="none"/>'
    svg = f'<svg {size} viewBox="0 0 {SHOWN_PX} {SHOWN_PX}" role="img" aria-label="error {caption}">'
    return f"<figure>{svg}{picture}{bones}</svg><figcaption>{caption}</figcaption></figure>"


def _bones(points: np.ndarray, kind: str) -> str:
    at = np.round(np.asarray(points, np.float64) * SHOWN_PX, 1).tolist()
    lines = (
        f'<line x1="{at[parent][0]}" y1="{at[parent][1]}" x2="{at[joint][0]}" y2="{at[joint][1]}"/>'
        for joint, parent in enumerate(PARENTS)
        if parent >= 0
    )
    return f'<g class="{kind}">{"".join(lines)}</g>'
