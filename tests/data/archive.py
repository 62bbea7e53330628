"""A small archive of our own renders in FreiHAND's layout, and an npz file of the same hands."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from research.data.freihand import SIDE_PX
from research.data.synthetic import RenderedHands, examples_at

SAMPLES, VERSIONS, TESTS = 7, 2, 4
FOCAL_PX = 480.0


def renders(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [count,32,32] in 0..1 and keypoints [count,21,2]."""
    drawn = examples_at(RenderedHands(size_px=32, test_images=16), 0, jnp.arange(32, dtype=jnp.uint32))
    return np.asarray(drawn["image"])[:count], np.asarray(drawn["keypoints"])[:count]


def write_archive(root: Path) -> Path:
    """Renders blown up to 224 px; joints put at some depth so that `(K xyz) / z` are their keypoints."""
    images, keypoints = renders(SAMPLES + TESTS)
    camera = np.array([[FOCAL_PX, 0, SIDE_PX / 2], [0, FOCAL_PX, SIDE_PX / 2], [0, 0, 1]])
    depth = np.random.default_rng(0).uniform(0.6, 0.7, (SAMPLES + TESTS, 21, 1))
    rays = np.concatenate([(keypoints * SIDE_PX - SIDE_PX / 2) / FOCAL_PX, np.ones_like(depth)], axis=2)
    for split, chosen, versions in (
        ("training", slice(SAMPLES), VERSIONS),
        ("evaluation", slice(SAMPLES, None), 1),
    ):
        xyz = (rays * depth)[chosen]
        (root / split / "rgb").mkdir(parents=True)
        (root / f"{split}_K.json").write_text(json.dumps([camera.tolist()] * len(xyz)))
        (root / f"{split}_xyz.json").write_text(json.dumps(xyz.tolist()))
        for i in range(len(xyz) * versions):
            grey = np.round(images[chosen][i % len(xyz)] * 255).astype(np.uint8)
            picture = (
                Image.fromarray(grey).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).convert("RGB")
            )
            picture.save(root / split / "rgb" / f"{i:08d}.jpg", quality=95)
    return root


def write_npz(file: Path, count: int = 15) -> Path:
    """The renders as `--eval-npz` and `--data npz:FILE` read them."""
    images, keypoints = renders(count)
    np.savez(file, image=images, keypoints=keypoints)
    return file
