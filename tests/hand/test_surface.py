"""The skin follows the joints: same size, same turn, tips touched from inside, palm filled."""

import jax.numpy as jnp
import numpy as np

from research.hand.kinematics import average_proportions, joints_mm, mirror, rotation, turn
from research.hand.surface import CAPSULES, FINGER_CAPSULES, capsules

DOWN = jnp.asarray([0.0, 1.0, 0.0])
ONE = jnp.asarray(1.0)
FLAT = joints_mm(jnp.zeros((5, 4)), average_proportions())


def depth_inside_mm(point, skin):
    """How deep a point lies in the union of capsules (brute force over each axis), negative outside."""
    part = np.linspace(0, 1, 201)[:, None, None]
    start, end = np.asarray(skin.start_mm), np.asarray(skin.end_mm)
    axis = start + part * (end - start)
    first, last = np.asarray(skin.start_radius_mm), np.asarray(skin.end_radius_mm)
    radius = first + part[..., 0] * (last - first)
    return (radius - np.linalg.norm(axis - np.asarray(point), axis=-1)).max()


def test_every_joint_lies_under_the_skin():
    skin = capsules(FLAT, ONE, DOWN)
    assert all(field.shape[0] == CAPSULES for field in skin)
    assert min(depth_inside_mm(joint, skin) for joint in np.asarray(FLAT)) > 0.5
    assert all(depth_inside_mm(FLAT[tip], skin) < 4 for tip in (4, 8, 12, 16, 20))  # tips: just under it


def test_the_palm_has_no_hole():
    skin = capsules(FLAT, ONE, DOWN)
    corners = np.asarray(FLAT)[[0, 5, 17]]
    mixes = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    assert min(depth_inside_mm(mix @ corners, skin) for mix in mixes) > 2


def test_fingers_follow_their_bones_and_the_arm_its_way():
    skin = capsules(FLAT, ONE, DOWN)
    np.testing.assert_allclose(
        skin.start_mm[:FINGER_CAPSULES].reshape(5, 3, 3), FLAT[1:].reshape(5, 4, 3)[:, :3], atol=1e-4
    )
    arm = np.asarray(skin.end_mm - skin.start_mm)[-2:].sum(axis=0)
    np.testing.assert_allclose(arm / np.linalg.norm(arm), DOWN, atol=1e-3)


def test_the_skin_turns_and_mirrors_with_the_joints():
    spin = rotation(0, jnp.asarray(0.7)) @ rotation(1, jnp.asarray(-1.1))
    still = capsules(FLAT, ONE, DOWN)
    turned = capsules(turn(spin, FLAT), ONE, spin @ DOWN)
    np.testing.assert_allclose(turned.end_mm, turn(spin, still.end_mm), atol=1e-3)
    left = capsules(mirror(FLAT, jnp.asarray(True)), ONE, DOWN)
    np.testing.assert_allclose(left.end_mm, mirror(still.end_mm, jnp.asarray(True)), atol=1e-3)


def test_size_and_thickness_scale_the_radii():
    thin, thick = capsules(FLAT, ONE, DOWN), capsules(FLAT, 1.2 * ONE, DOWN)
    np.testing.assert_allclose(thick.end_radius_mm / thin.end_radius_mm, 1.2, rtol=1e-5)
    small = capsules(0.5 * FLAT, ONE, DOWN)
    np.testing.assert_allclose(small.start_radius_mm / thin.start_radius_mm, 0.5, rtol=1e-5)
