"""Scenes: hands where the look says, labels that are the projected joints, and everything finite."""

from dataclasses import asdict

import jax
import numpy as np
import pytest

from research.data.scene import SCENE_NUMBERS, Look, sample_scene
from research.hand.chance import draw
from research.hand.surface import FINGER_CAPSULES

N = 400
SIZE = 64
SCENES = jax.jit(lambda u, size, look: jax.vmap(lambda row: sample_scene(row, Look(**look), size))(u))
NUMBERS = draw(jax.random.key(0), N * SCENE_NUMBERS).reshape(N, SCENE_NUMBERS)


@pytest.fixture(scope="module")
def scenes():
    return SCENES(NUMBERS, SIZE, asdict(Look()))


def test_everything_is_finite_and_radii_are_positive(scenes):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scenes))
    assert float(scenes.strokes.start_radius.min()) > 0
    assert float(scenes.strokes.end_radius.min()) > 0
    assert float(scenes.strokes.blend.min()) > 0


def test_the_hands_box_fills_what_the_look_says(scenes):
    keypoints = np.asarray(scenes.keypoints)
    box = (keypoints.max(axis=1) - keypoints.min(axis=1)).max(axis=-1)
    low, high = Look().fill
    assert low - 1e-4 < box.min() < low + 0.02
    assert high - 0.02 < box.max() < high + 1e-4
    assert ((keypoints > 0) & (keypoints < 1)).all(axis=(1, 2)).mean() > 0.9
    centre = (keypoints.max(axis=1) + keypoints.min(axis=1)) / 2
    assert 0.02 < centre.std() < 0.06


def test_labels_are_where_the_fingers_are_drawn(scenes):
    """A finger's strokes begin at its joints; the strokes of clutter come first."""
    fingers = np.asarray(scenes.strokes.start)[:, -29 : -29 + FINGER_CAPSULES, :2] / SIZE
    joints = np.asarray(scenes.keypoints)[:, 1:].reshape(N, 5, 4, 2)[:, :, :3].reshape(N, 15, 2)
    np.testing.assert_allclose(fingers, joints, atol=1e-4)


def test_hands_point_all_ways_but_mostly_up(scenes):
    keypoints = np.asarray(scenes.keypoints)
    way = keypoints[:, 9] - keypoints[:, 0]
    turned = np.abs(np.rad2deg(np.arctan2(way[:, 0], -way[:, 1])))
    assert 0.6 < (turned < 50).mean() < 0.95
    assert (turned > 90).any()


def test_both_hands_and_both_sides_appear(scenes):
    """The turn from index to little finger as seen from the wrist takes either sign."""
    keypoints = np.asarray(scenes.keypoints)
    index, little = keypoints[:, 5] - keypoints[:, 0], keypoints[:, 17] - keypoints[:, 0]
    sign = index[:, 0] * little[:, 1] - index[:, 1] * little[:, 0]
    assert 0.35 < (sign > 0).mean() < 0.65


def test_a_look_of_one_hand_and_side_shows_that_one_only():
    """Seen from its palm, a right hand's index is on the right of its little finger when it points up."""
    for left, palms, sign in ((0.0, 1.0, 1), (1.0, 1.0, -1), (0.0, 0.0, -1), (1.0, 0.0, 1)):
        look = Look(left=left, palms=palms, turned=0.0, yaw_deg=10.0, wild=0.0)
        keypoints = np.asarray(SCENES(NUMBERS, SIZE, asdict(look)).keypoints)
        index, little = keypoints[:, 5] - keypoints[:, 0], keypoints[:, 17] - keypoints[:, 0]
        turn = index[:, 0] * little[:, 1] - index[:, 1] * little[:, 0]
        assert (np.sign(turn) == -sign).mean() > 0.98


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (1.0, 0.3, 1.0)])
def test_occluders_come_as_often_as_asked(share, low, high):
    strokes = SCENES(NUMBERS, SIZE, asdict(Look(occluded=share))).strokes
    front = np.asarray(strokes.start)[:, 5]
    seen = (np.abs(front[:, :2] / SIZE - 0.5) < 0.7).all(axis=1)
    assert (front[:, 2] < -SIZE).all()
    assert low <= seen.mean() <= high


def test_a_scene_is_the_same_at_every_size(scenes):
    large = SCENES(NUMBERS, 2 * SIZE, asdict(Look()))
    np.testing.assert_allclose(scenes.keypoints, large.keypoints, atol=1e-5)
    np.testing.assert_allclose(scenes.strokes.start * 2, large.strokes.start, rtol=1e-4, atol=2e-2)
