"""Samples stay within anatomy and cover it: limits, coupled joints, no crossing, palms and backs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.hand.chance import draw
from research.hand.kinematics import average_proportions, joints_mm
from research.hand.pose import (
    ANGLE_NUMBERS,
    PERSON_NUMBERS,
    VIEW_NUMBERS,
    clip_to_limits,
    sample_angles,
    sample_proportions,
    sample_view,
)
from research.hand.skeleton import BEND_LIMITS_DEG, BONE_MM, DIP_PER_PIP

N = 2000
LIMITS = np.asarray(BEND_LIMITS_DEG)


def numbers(seed, count):
    return draw(jax.random.key(seed), N * count).reshape(N, count)


def sampled_deg():
    angles = jax.jit(jax.vmap(sample_angles))(numbers(0, ANGLE_NUMBERS))
    return np.rad2deg(np.asarray(angles)), angles


def test_sampled_angles_respect_the_limits_and_use_them():
    angles, _ = sampled_deg()
    assert (angles >= LIMITS[..., 0] - 1e-3).all()
    assert (angles <= LIMITS[..., 1] + 1e-3).all()
    seen = angles.max(axis=0) - angles.min(axis=0)
    flexions = seen[1:, [0, 2, 3]] / (LIMITS[..., 1] - LIMITS[..., 0])[1:, [0, 2, 3]]
    assert flexions.min() > 0.6


def test_the_last_joint_follows_the_one_before():
    angles, _ = sampled_deg()
    pip, dip = angles[:, 1:, 2].ravel(), angles[:, 1:, 3].ravel()
    assert np.corrcoef(pip, dip)[0, 1] > 0.85
    assert np.median(np.abs(dip - DIP_PER_PIP * pip)) < 10


def test_neighbouring_straight_fingers_do_not_cross():
    angles, radians = sampled_deg()
    joints = np.asarray(jax.jit(jax.vmap(joints_mm, (0, None)))(radians, average_proportions()))
    flat = (angles[:, 1:, 0] < 20).all(axis=1) & (angles[:, 1:, 2] < 20).all(axis=1)
    assert flat.sum() > 20
    tips = joints[flat][:, [8, 12, 16, 20], 0]
    assert (np.diff(tips, axis=1) < 0).all()


def test_clip_keeps_a_legal_pose_and_stills_the_spread_of_a_folded_finger():
    rest = jnp.zeros((5, 4))
    np.testing.assert_array_equal(clip_to_limits(rest), rest)
    folded = clip_to_limits(rest.at[1, 0].set(1.5).at[1, 1].set(0.3))
    assert 0 < float(folded[1, 1]) < 0.1
    wild = np.rad2deg(np.asarray(clip_to_limits(jnp.full((5, 4), 9.0))))
    assert (wild <= LIMITS[..., 1] + 1e-3).all()


def test_people_differ_within_bounds():
    people = jax.jit(jax.vmap(sample_proportions))(numbers(1, PERSON_NUMBERS))
    ratio = np.asarray(people.bone_mm) / np.asarray(BONE_MM)
    assert ratio.min() > 0.5
    assert ratio.max() < 1.55
    assert ratio.std() > 0.08
    assert (np.asarray(people.palm_width) > 0.85).all()
    assert (np.asarray(people.palm_width) < 1.15).all()


def test_views_are_rotations_that_show_palm_and_back():
    views = np.asarray(
        jax.jit(jax.vmap(lambda u: sample_view(u, jnp.asarray(0.0))))(numbers(2, VIEW_NUMBERS))
    )
    np.testing.assert_allclose(
        views @ views.transpose(0, 2, 1), np.broadcast_to(np.eye(3), views.shape), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(views), 1, atol=1e-5)
    palm = (views @ np.asarray([0.0, 0.0, -1.0]))[:, 2] < 0
    assert 0.4 < palm.mean() < 0.6
    for share in (0.0, 0.2, 1.0):
        asked = jax.vmap(lambda u, share=share: sample_view(u, jnp.asarray(0.0), share, 0.0, 10.0))
        facing = (np.asarray(asked(numbers(3, VIEW_NUMBERS))) @ np.asarray([0.0, 0.0, -1.0]))[:, 2] < 0
        assert facing.mean() == pytest.approx(share, abs=0.04)
    turned = sample_view(jnp.full((VIEW_NUMBERS,), 0.5).at[0].set(0.9), jnp.asarray(jnp.pi / 2))
    np.testing.assert_allclose(turned @ jnp.asarray([0.0, -1.0, 0.0]), [1, 0, 0], atol=1e-5)
