"""Hands with their true and predicted skeletons, as coordinates that a page draws over the crop."""

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from research.hand.skeleton import PARENTS
from research.report.schema import Hand

Segment = tuple[float, float, float, float]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Skeleton:
    """20 bones (x1, y1, x2, y2) and 21 joints (x, y), in pixels of the crop."""

    bones: tuple[Segment, ...]
    joints: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Prediction:
    """One network's skeleton and its mean distance from the true one in pixels of the crop."""

    title: str
    skeleton: Skeleton
    error_px: float


@dataclass(frozen=True)
class Picture:
    """A crop (PNG as a data URI, its size in pixels), its truth, and the predictions to lay over it."""

    uri: str
    width_px: int
    height_px: int
    true: Skeleton
    predictions: tuple[Prediction, ...]


def picture(hand: Hand) -> Picture:
    """What is drawn for one gallery entry: V1 and V2 side by side over the same crop.

    Raises ValueError if the image is not base64 of a PNG file.
    """
    width_px, height_px = png_size(hand["image_png_base64"])
    predictions = []
    for title, points in (("V1", hand["v1"]), ("V2", hand["v2"])):
        apart = [
            math.hypot((x - u) * width_px, (y - v) * height_px)
            for (x, y), (u, v) in zip(points, hand["true"], strict=True)
        ]
        predictions.append(Prediction(title, _skeleton(points, width_px, height_px), sum(apart) / len(apart)))
    return Picture(
        uri=f"data:image/png;base64,{hand['image_png_base64']}",
        width_px=width_px,
        height_px=height_px,
        true=_skeleton(hand["true"], width_px, height_px),
        predictions=tuple(predictions),
    )


def png_size(image_png_base64: str) -> tuple[int, int]:
    """(width, height) in pixels, read from the header of a PNG file given as base64.

    Raises ValueError if it is not one.
    """
    try:
        data = base64.b64decode(image_png_base64, validate=True)
    except ValueError as error:
        raise ValueError(f"gallery: image_png_base64 is not base64 ({error})") from error
    if not data.startswith(PNG_SIGNATURE) or len(data) < 24:
        raise ValueError("gallery: image_png_base64 does not hold a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    if not (width and height):
        raise ValueError("gallery: image_png_base64 holds a PNG file without pixels")
    return width, height


def _skeleton(points: Sequence[Sequence[float]], width_px: int, height_px: int) -> Skeleton:
    """Points in 0..1 as bones and joints in pixels, rounded to a hundredth to keep the page small."""
    joints = tuple((round(x * width_px, 2), round(y * height_px, 2)) for x, y in points)
    bones = tuple((*joints[parent], *joints[joint]) for joint, parent in enumerate(PARENTS) if parent >= 0)
    return Skeleton(bones, joints)
