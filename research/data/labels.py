"""Everything that is known of a render: joints in px and mm, what is seen of them, depth, mask and side."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.data.backdrop import cover
from research.data.scene import FINE, Scene, hand_raster
from research.data.synthetic import TRAIN_STREAM, RenderedHands, scene_at

FLESH_MM = np.asarray([30.0] + [24, 16, 14, 13] + [20, 14, 13, 13] * 4, np.float32)
"""How deep a keypoint may lie below the skin that a ray meets first and still be seen, [21], mm of an average hand."""


class Labels(NamedTuple):
    """`keypoints [21,2]` in fractions of the crop, `joints_mm [21,3]` in camera axes, `visible [21]`: inside the
    picture with neither an occluder nor other flesh before it; `depth_mm [S,S]` of the hand (its nearest sample
    in a pixel; infinite: none), `mask [S,S]`: the share of a pixel that the hand covers, occluders aside; `left`:
    a left hand."""

    keypoints: jax.Array
    joints_mm: jax.Array
    visible: jax.Array
    depth_mm: jax.Array
    mask: jax.Array
    left: jax.Array


@partial(jax.jit, static_argnames="spec")
def labels_at(
    spec: RenderedHands, seed: jax.Array | int, indices: jax.Array, stream: int = TRAIN_STREAM
) -> Labels:
    """Labels of the examples of `research.data.synthetic.examples_at`, each field with a leading axis [B]."""
    scenes = jax.vmap(lambda index: scene_at(spec, seed, index, stream)[0])(indices)
    return jax.lax.map(lambda scene: labels_of(scene, spec.size_px), scenes)


def labels_of(scene: Scene, size_px: int) -> Labels:
    """The labels of one scene."""
    raster = hand_raster(scene, size_px, 0)
    boxes = (size_px, FINE, size_px, FINE)
    depth = jnp.min(raster.depth.reshape(boxes), axis=(1, 3))
    mask = jnp.mean(jnp.isfinite(raster.depth).astype(jnp.float32).reshape(boxes), axis=(1, 3))
    at = jnp.floor(scene.keypoints * (size_px * FINE)).astype(jnp.int32)
    inside = jnp.all((at >= 0) & (at < size_px * FINE), axis=1)
    at = jnp.clip(at, 0, size_px * FINE - 1)
    before = scene.joints_mm[:, 2] - raster.depth[at[:, 1], at[:, 0]]
    x, y = scene.keypoints[:, :1], scene.keypoints[:, 1:]
    hidden = cover(scene.front, x, y, 1.0 / size_px)[:, 0] > 0.5
    visible = inside & ~hidden & (before < FLESH_MM * scene.size)
    return Labels(scene.keypoints, scene.joints_mm, visible, depth, mask, scene.left)
