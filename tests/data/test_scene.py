"""Scenes keep what a look asks for: framing, side, occluders, light; the keypoints are the joints' projection."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from research.data.scene import SCENE_NUMBERS, Look, sample_scene
from research.hand.camera import project

SIZE = 64
NUMBERS = jax.random.uniform(jax.random.key(2), (200, SCENE_NUMBERS), minval=1e-7)
LOOK = Look()
draw = jax.jit(jax.vmap(sample_scene, in_axes=(0, None, None)), static_argnums=(1, 2))
SCENES = draw(NUMBERS, LOOK, SIZE)
NARROW = draw(NUMBERS, replace(LOOK, left=0.0, palms=0.0, turned=0.0, wild=0.0, occluded=0.0, yaw_deg=10.0), SIZE)


def test_the_box_fills_what_it_should() -> None:
    keypoints = np.asarray(SCENES.keypoints)
    side = np.ptp(keypoints, axis=1).max(axis=1)
    assert (side > LOOK.fill[0] - 1e-3).all()
    assert (side < LOOK.fill[1] + 1e-3).all()
    middle = (keypoints.min(axis=1) + keypoints.max(axis=1)) / 2
    assert np.abs(middle - 0.5).max() < 2.5 * LOOK.shift + 1e-3


def test_keypoints_are_where_joints_project() -> None:
    one = jax.tree.map(lambda x: x[3], SCENES)
    np.testing.assert_allclose(one.keypoints * SIZE, project(one.joints_mm, one.camera), atol=1e-3)
    depth = np.asarray(SCENES.joints_mm)[..., 2].mean(axis=1)
    assert 279 < depth.min() < depth.max() < 901


def test_sides_are_shared_and_mirrored() -> None:
    assert 0.35 < np.mean(SCENES.left) < 0.65
    assert not np.asarray(NARROW.left).any()
    joints = np.asarray(NARROW.joints_mm)
    palm = np.cross(joints[:, 5] - joints[:, 0], joints[:, 17] - joints[:, 0])
    assert (palm[:, 2] < 0).mean() > 0.98 or (palm[:, 2] > 0).mean() > 0.98


def test_occluders_only_where_asked() -> None:
    assert 0.1 < np.mean(np.abs(SCENES.front.at[:, 0]).max(axis=1) < 2) < 0.3
    assert (np.asarray(NARROW.front.at) == 9).all()


def test_a_larger_picture_is_the_same_scene() -> None:
    large = draw(NUMBERS[:8], LOOK, 2 * SIZE)
    np.testing.assert_allclose(large.keypoints, SCENES.keypoints[:8], atol=1e-4)
    assert jnp.isfinite(large.camera.focal_px).all()
