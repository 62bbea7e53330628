"""Labelling photographs with a stand-in for MediaPipe that sees two lights: the wrist, bright, and the knuckle, dim."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from research.data.labelled import FILL, label, photographs
from research.data.mediapipe import SIDE_PX, Peer
from research.graph.ir import Graph, Tensor

SPREAD = np.linspace(-0.4, 0.4, 21) * np.sign(np.sin(np.arange(21) * 2.0))
ALONG = np.arange(21) / 9


def lights(images: jax.Array) -> Mapping[str, jax.Array]:
    """Joint i lies i / 9 of the way from wrist to knuckle, and to the side by SPREAD; sure where there is light."""
    grey = np.asarray(images)[..., 0]
    rows = np.arange(SIDE_PX) + 0.5
    points, sure = np.zeros((len(grey), 21, 3)), np.zeros((len(grey), 1))
    for n, image in enumerate(grey):
        ends = []
        for low, high in ((0.85, 2.0), (0.35, 0.6)):
            mask = np.where((image > low) & (image < high), 1.0, 0.0)
            mask = mask * _far(ends, rows)
            total = max(mask.sum(), 1e-6)
            ends.append(
                np.array([(mask * rows[None, :]).sum() / total, (mask * rows[:, None]).sum() / total])
            )
        way = ends[1] - ends[0]
        side = np.array([-way[1], way[0]])
        points[n, :, :2] = ends[0] + ALONG[:, None] * way + SPREAD[:, None] * side
        sure[n] = image.max() > 0.85
    return {"points": jnp.asarray(points.reshape(-1, 63)), "sure": jnp.asarray(sure)}


def _far(ends: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """1 where no light was found yet: the rim of the bright one is as grey as the dim one."""
    if not ends:
        return np.ones((SIDE_PX, SIDE_PX))
    x, y = ends[0]
    return ((rows[None, :] - x) ** 2 + (rows[:, None] - y) ** 2 > (SIDE_PX / 9) ** 2).astype(float)


PEER = Peer("lights", Graph((), (Tensor("points", (1, 63), True),), (), ("points", "sure")), lights)


def photograph(path: Path, wrist: tuple[float, float], knuckle: tuple[float, float], bright: float) -> None:
    """A picture of 300 x 200 with two round lights."""
    x, y = np.meshgrid(np.arange(300) + 0.5, np.arange(200) + 0.5)
    image = np.full((200, 300), 0.1)
    for (cx, cy), light in ((wrist, bright), (knuckle, 0.48)):
        image = np.where((x - cx) ** 2 + (y - cy) ** 2 < 36, light, image)
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(path)


def test_labels_lie_where_the_lights_are_in_the_crop(tmp_path: Path) -> None:
    ends = [((150.0, 120.0), (150.0, 85.0)), ((90.0, 90.0), (125.0, 100.0)), ((200.0, 60.0), (180.0, 90.0))]
    for i, (wrist, knuckle) in enumerate(ends):
        photograph(tmp_path / f"{i}.png", wrist, knuckle, 1.0)
    photograph(tmp_path / "9_dark.png", *ends[0], 0.7)
    crops, points = label(photographs(tmp_path), PEER, 96)
    assert crops.shape == (3, 96, 96)  # of the dark one the network is not sure
    assert crops.dtype == np.uint8
    np.testing.assert_allclose(np.ptp(points, axis=1).max(axis=1), FILL, atol=1e-3)
    middle = (points.min(axis=1) + points.max(axis=1)) / 2
    np.testing.assert_allclose(middle, 0.5, atol=1e-3)
    for crop, joints, (wrist, knuckle) in zip(crops, points, ends, strict=True):
        column, row = (joints[0] * 96).astype(int)
        assert crop[row, column] > 240
        column, row = (joints[9] * 96).astype(int)
        assert 100 < crop[row, column] < 150
        true, seen = np.subtract(knuckle, wrist), joints[9] - joints[0]
        np.testing.assert_allclose(seen / np.linalg.norm(seen), true / np.linalg.norm(true), atol=0.05)


def test_what_cannot_be_labelled(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no photographs"):
        photographs(tmp_path)
    photograph(tmp_path / "dark.png", (150, 120), (150, 85), 0.5)
    with pytest.raises(ValueError, match="sure of no hand in 1 photographs"):
        label(photographs(tmp_path), PEER)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg is no picture"):
        label(photographs(tmp_path), PEER)
