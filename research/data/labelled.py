"""Photographs of single hands -> an npz to judge networks on, labelled by MediaPipe's full network.

Every photograph is looked at twice: whole, then upright in a crop about what was found, as MediaPipe tracks. Kept are
those where it is sure of a hand both times and both answers agree. Such labels flatter a network that MediaPipe taught:
judge those on human labels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from research.data.mediapipe import SIDE_PX, Peer, landmarks

ENDINGS = (".jpg", ".jpeg", ".png")
SURE, AGREE, FILL = 0.9, 0.06, 0.65  # presence; between two looks, in boxes; of the crop that the box takes
_TRACKED = 0.5  # of MediaPipe's own crops that the box takes
_WRIST, _MIDDLE = 0, 9


def photographs(folder: str | Path) -> list[Path]:
    """All photographs below a folder, by name. FileNotFoundError: none."""
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in ENDINGS)
    if not found:
        raise FileNotFoundError(f"no photographs ({', '.join(ENDINGS)}) below {folder}")
    return found


def label(paths: Sequence[Path], peer: Peer, size_px: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Crops `[N,size_px,size_px]`, bytes, and keypoints `[N,21,2]` in 0..1 of those photographs that can be labelled.

    Raises ValueError for a file that is no picture, and when none could be labelled.
    """
    pictures = [_grey(path) for path in paths]
    whole = [(np.array(p.size) / 2, float(max(p.size)), 0.0) for p in pictures]
    first, sure = _look(peer, pictures, whole)
    again = [_frame(points, _TRACKED, upright=True) for points in first]
    second, surer = _look(peer, pictures, again)
    boxes = np.ptp(second, axis=1).max(axis=1)
    apart = np.linalg.norm(first - second, axis=2).mean(axis=1) / np.maximum(boxes, 1e-6)
    kept = np.flatnonzero((sure >= SURE) & (surer >= SURE) & (apart <= AGREE))
    if not len(kept):
        raise ValueError(f"MediaPipe is sure of no hand in {len(paths)} photographs")
    frames = [_frame(second[i], FILL, upright=False) for i in kept]
    crops = [_crop(pictures[i], frame, size_px) for i, frame in zip(kept, frames, strict=True)]
    points = [(second[i] - centre) / side + 0.5 for i, (centre, side, _) in zip(kept, frames, strict=True)]
    return np.stack([np.asarray(crop) for crop in crops]), np.stack(points).astype(np.float32)


Frame = tuple[np.ndarray, float, float]
"""A square in a picture: centre [2] and side in px, and how far it is turned (rad)."""


def _grey(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("L")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no picture that can be read: {error}") from error


def _frame(points: np.ndarray, fill: float, *, upright: bool) -> Frame:
    """The square about keypoints `[21,2]` that their box fills to `fill`, turned so that fingers point up."""
    low, high = points.min(axis=0), points.max(axis=0)
    along = points[_MIDDLE] - points[_WRIST]
    turn = float(np.arctan2(along[0], -along[1])) if upright else 0.0
    return (low + high) / 2, float(max((high - low).max(), 1.0)) / fill, turn


def _rotation(turn: float) -> np.ndarray:
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def _crop(picture: Image.Image, frame: Frame, size_px: int) -> Image.Image:
    """What a frame shows, black outside; large pictures are shrunk first, so that no pixel is skipped."""
    centre, side, turn = frame
    shrink = max(1.0, side / size_px)
    small = picture.resize([max(1, round(n / shrink)) for n in picture.size], Image.Resampling.LANCZOS)
    step = side / shrink / size_px
    axes = _rotation(turn) * step
    corner = centre / shrink - axes @ np.full(2, size_px / 2)
    words = (axes[0, 0], axes[0, 1], corner[0], axes[1, 0], axes[1, 1], corner[1])
    return small.transform(
        (size_px, size_px), Image.Transform.AFFINE, words, resample=Image.Resampling.BICUBIC
    )


def _look(
    peer: Peer, pictures: Sequence[Image.Image], frames: Sequence[Frame]
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints `[N,21,2]` in px of the pictures, seen in these frames, and how sure the network is, `[N]`."""
    crops = [_crop(picture, frame, SIDE_PX) for picture, frame in zip(pictures, frames, strict=True)]
    seen = landmarks(peer, np.stack([np.asarray(crop, np.float32) / 255 for crop in crops]))
    placed = [
        centre + side * (points - 0.5) @ _rotation(turn).T
        for points, (centre, side, turn) in zip(seen.keypoints, frames, strict=True)
    ]
    return np.stack(placed), seen.presence
