"""Forward kinematics: joint angles and proportions -> 21 joints in mm.

Hand frame of a right hand, in camera axes (x right, y down, z away from the viewer): the wrist is the
origin, the fingers point up (-y), the palm faces the viewer (-z) and the thumb is on the right (+x).
Every finger is planar: one abduction at its base, then three hinges about one axis.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.hand.skeleton import BONE_MM

_FAN_DEG = (34.0, 14.5, 0.5, -11.5, -23.0)  # direction wrist -> base joint, in the palm's plane
_ARCH_DEG = (22.0, -1.0, -3.0, -1.0, 4.0)  # the same direction's tilt towards the palm's side
_YAW_DEG = (40.0, 4.0, 0.5, -4.5, -9.0)  # direction of the straight finger, in the palm's plane
_TILT_DEG = (20.0, 0.0, 0.0, 0.0, 0.0)  # its tilt towards the palm's side
_ROLL_DEG = (68.0, 6.0, 0.0, -6.0, -12.0)  # roll about its length: where its pad looks


class Proportions(NamedTuple):
    """What makes one hand differ from another.

    bone_mm: [5, 4] bone lengths in mm, as skeleton.BONE_MM.
    palm_width: scalar, 1 for an average palm; multiplies the fan of the metacarpals.
    """

    bone_mm: jax.Array
    palm_width: jax.Array


def average_proportions() -> Proportions:
    """Proportions of an average adult hand."""
    return Proportions(jnp.asarray(BONE_MM, jnp.float32), jnp.asarray(1.0, jnp.float32))


def rotation(axis: int, angle_rad: jax.Array) -> jax.Array:
    """Right-handed rotation matrices about coordinate axis 0, 1 or 2: angles [...] -> [..., 3, 3]."""
    c, s = jnp.cos(angle_rad), jnp.sin(angle_rad)
    one, zero = jnp.ones_like(c), jnp.zeros_like(c)
    rows = {
        0: ((one, zero, zero), (zero, c, -s), (zero, s, c)),
        1: ((c, zero, s), (zero, one, zero), (-s, zero, c)),
        2: ((c, -s, zero), (s, c, zero), (zero, zero, one)),
    }[axis]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def turn(matrix: jax.Array, points_mm: jax.Array) -> jax.Array:
    """Rotates points [N, 3] by one matrix [3, 3], in exact float32 on every device."""
    return jnp.stack([jnp.sum(points_mm * matrix[i][None, :], -1) for i in range(3)], -1)


def _direction(bend_rad: jax.Array) -> jax.Array:
    """Unit vectors of a finger bent by [...] about its hinge: straight is -y, 90 degrees is -z."""
    return jnp.stack([jnp.zeros_like(bend_rad), -jnp.cos(bend_rad), -jnp.sin(bend_rad)], -1)


def joints_mm(angles_rad: jax.Array, proportions: Proportions) -> jax.Array:
    """Joints of a right hand in its own frame, mm.

    Args:
      angles_rad: [5, 4] (finger, skeleton.BENDS) in radians.
      proportions: bone lengths and palm width.

    Returns:
      [21, 3]; differentiable in angles and proportions; bone lengths are kept exactly.

    Raises:
      ValueError: angles that are not [5, 4].
    """
    if angles_rad.shape != (5, 4):
        raise ValueError(f"angles_rad must be [5, 4] (finger, bend), got {list(angles_rad.shape)}")
    fan, arch, yaw, tilt, roll = (
        jnp.deg2rad(jnp.asarray(table, jnp.float32))
        for table in (_FAN_DEG, _ARCH_DEG, _YAW_DEG, _TILT_DEG, _ROLL_DEG)
    )
    width = proportions.palm_width[None]
    base_way = jnp.stack([jnp.sin(fan * width), -jnp.cos(fan * width), -jnp.sin(arch)], -1)
    base_way = base_way / jnp.linalg.norm(base_way, axis=-1, keepdims=True)
    base = base_way * proportions.bone_mm[:, :1]

    is_thumb = jnp.arange(5) == 0
    sideways = jnp.where(is_thumb, 0.0, angles_rad[:, 1])  # a finger spreads in the palm's plane,
    outwards = jnp.where(is_thumb, angles_rad[:, 1], 0.0)  # the thumb leaves it
    frame = rotation(2, yaw * width + sideways) @ rotation(0, tilt + outwards) @ rotation(1, roll)
    bends = jnp.cumsum(angles_rad * jnp.asarray([1.0, 0.0, 1.0, 1.0])[None, :], axis=1)
    bends = jnp.stack([bends[:, 0], bends[:, 2], bends[:, 3]], axis=1)
    steps = jnp.einsum("fij,fkj->fki", frame, _direction(bends), precision="highest")
    steps = steps * proportions.bone_mm[:, 1:, None]
    chain = base[:, None, :] + jnp.cumsum(steps, axis=1)
    fingers = jnp.concatenate([base[:, None, :], chain], axis=1).reshape(20, 3)
    return jnp.concatenate([jnp.zeros((1, 3), fingers.dtype), fingers])


def mirror(points_mm: jax.Array, left: jax.Array) -> jax.Array:
    """Turns a right hand's points [N, 3] into a left hand's where the boolean scalar `left` is true."""
    flip = jnp.where(left, -1.0, 1.0)
    return points_mm * jnp.stack([flip, jnp.ones_like(flip), jnp.ones_like(flip)])[None, :]
