"""Bones keep their length, hinges bend one way, and a left hand is a mirrored right one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.hand.chance import draw
from research.hand.kinematics import (
    Proportions,
    average_proportions,
    joints_mm,
    mirror,
    rotation,
    turn,
)
from research.hand.pose import ANGLE_NUMBERS, PERSON_NUMBERS, sample_angles, sample_proportions
from research.hand.skeleton import BONE_MM, GROUPS, PARENTS

SOLVE = jax.jit(joints_mm)


def lengths_mm(joints):
    joints = np.asarray(joints, np.float64)
    return np.linalg.norm(joints[1:] - joints[list(PARENTS[1:])], axis=1).reshape(5, 4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_bone_lengths_are_kept(seed):
    key = jax.random.key(seed)
    person = sample_proportions(draw(key, PERSON_NUMBERS))
    joints = SOLVE(jax.random.uniform(key, (5, 4), minval=-3.0, maxval=3.0), person)
    np.testing.assert_allclose(lengths_mm(joints), person.bone_mm, rtol=1e-4)
    np.testing.assert_array_equal(joints[0], [0, 0, 0])


def test_a_flat_hand_points_up_with_the_thumb_on_the_right():
    joints = np.asarray(SOLVE(jnp.zeros((5, 4)), average_proportions()))
    tips = joints[[group[-1] for group in GROUPS]]
    assert (np.diff(tips[:, 0]) < 0).all()  # thumb to little finger, right to left
    assert tips[1:, 1].max() < -120  # up is -y
    assert np.abs(joints[5:, 2]).max() < 15  # fingers in the palm's plane


def test_a_finger_bends_in_one_plane_towards_the_palm():
    straight = jnp.zeros((5, 4))
    bent = straight.at[2, 0].set(0.6).at[2, 2].set(0.9).at[2, 3].set(0.5)
    person = average_proportions()
    before, after = np.asarray(SOLVE(straight, person)), np.asarray(SOLVE(bent, person))
    finger = after[list(GROUPS[2])]
    one, two, three = np.diff(finger, axis=0)
    assert abs(np.dot(np.cross(one, two), three)) < 1e-2 * 40 * 30 * 20
    for a, b, angle in ((one, two, 0.9), (two, three, 0.5)):
        cosine = np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        assert np.arccos(cosine) == pytest.approx(angle, abs=1e-3)
    assert finger[-1, 2] < before[GROUPS[2][-1], 2] - 50  # the palm's side is -z
    others = [joint for joint in range(21) if joint not in GROUPS[2]]
    np.testing.assert_array_equal(before[others], after[others])


def test_abduction_moves_a_finger_to_the_thumbs_side_and_the_thumb_out_of_the_palm():
    flat = SOLVE(jnp.zeros((5, 4)), average_proportions())
    spread = SOLVE(jnp.zeros((5, 4)).at[:, 1].set(0.3), average_proportions())
    assert (np.asarray(spread - flat)[[8, 12, 16, 20], 0] > 10).all()
    assert float(spread[4, 2] - flat[4, 2]) < -10


def test_a_fist_folds_every_tip_into_the_palm():
    fist = jnp.deg2rad(jnp.asarray([[30.0, 28.0, 40.0, 45.0]] + [[80.0, 0.0, 100.0, 60.0]] * 4))
    joints = np.asarray(SOLVE(fist, average_proportions()))
    for group in GROUPS[1:]:
        assert np.linalg.norm(joints[group[-1]] - joints[group[0]]) < 0.65 * sum(BONE_MM[2][1:])
    assert joints[4, 0] < joints[2, 0]  # the thumb crosses the palm


def test_gradients_are_finite_and_match_finite_differences():
    angles = sample_angles(draw(jax.random.key(3), ANGLE_NUMBERS))

    def reach(angles, bones):
        return jnp.sum(jnp.sin(joints_mm(angles, Proportions(bones, jnp.asarray(1.0))) / 50.0))

    bones = jnp.asarray(BONE_MM)
    value = jax.jit(reach)
    by_angle, by_bone = jax.jit(jax.grad(reach, argnums=(0, 1)))(angles, bones)
    assert np.isfinite(by_angle).all()
    assert np.isfinite(by_bone).all()
    step = jax.random.normal(jax.random.key(4), (5, 4))
    slope = (value(angles + 5e-3 * step, bones) - value(angles - 5e-3 * step, bones)) / 1e-2
    assert float(slope) == pytest.approx(float(jnp.sum(by_angle * step)), rel=2e-2, abs=1e-2)
    at_rest = jax.jit(jax.grad(reach))(jnp.zeros((5, 4)), bones)
    assert np.isfinite(at_rest).all()


def test_a_wrong_shape_is_one_clear_error():
    with pytest.raises(ValueError, match=r"\[5, 4\].*got \[20\]"):
        joints_mm(jnp.zeros(20), average_proportions())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotations_turn_right_handed_about_their_axis(axis):
    quarter = np.asarray(rotation(axis, jnp.asarray(jnp.pi / 2)))
    unit = np.eye(3)
    np.testing.assert_allclose(quarter @ unit[axis], unit[axis], atol=1e-6)
    np.testing.assert_allclose(quarter @ unit[(axis + 1) % 3], unit[(axis + 2) % 3], atol=1e-6)
    np.testing.assert_allclose(turn(jnp.asarray(quarter), jnp.asarray(unit)), quarter.T, atol=1e-6)


def test_mirror_flips_x_only_where_asked():
    points = jnp.asarray([[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(mirror(points, jnp.asarray(True)), [[-1, 2, 3]])
    np.testing.assert_array_equal(mirror(points, jnp.asarray(False)), points)
