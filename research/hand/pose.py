"""Poses of the rig: recorded ones, mixed finger by finger, and random ones inside anatomical limits; people; views."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.hand.chance import bell, between, share
from research.hand.rig import recorded_poses

POSE_NUMBERS: int = 3 + 5 * 4 + 20 + 15 + 16 + 2 + 8
PERSON_NUMBERS: int = 1 + 5 + 15 + 2
VIEW_NUMBERS: int = 9

_MOST_DEG = np.asarray([[25.0, 8.0, 10.0], [-92.0, -112.0, -82.0]])  # bends of a finger's three hinges about x
_SPREAD_DEG = 20.0
_FAN = (1.2, 0.3, -0.4, -1.1)  # how far each finger goes to its side when a hand is spread by one degree
_GAP_DEG = -10.0  # neighbours' least angle between them about y, straight; -3 when both are folded


class Person(NamedTuple):
    """One person's hand against the rig's: `size` scales it, `stretch [25,3]` each joint's part about its own axes."""

    size: jax.Array
    stretch: jax.Array


@functools.cache
def recorded_turns() -> np.ndarray:
    """The recorded poses as rotation vectors `[10,25,3]` in rad."""
    turns = recorded_poses().astype(np.float64)
    angle = np.arccos(np.clip((np.trace(turns, axis1=2, axis2=3) - 1) / 2, -1, 1))
    odd = np.stack([turns[..., i, j] - turns[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1)
    length = np.linalg.norm(odd, axis=-1)
    return (odd * (angle / np.maximum(length, 1e-12))[..., None]).astype(np.float32)


def rotation(axis: int, angle_rad: jax.Array) -> jax.Array:
    """Right-handed rotation matrices about coordinate axis 0, 1 or 2: angles `[...]` -> `[...,3,3]`."""
    return turned(jnp.stack([angle_rad if i == axis else jnp.zeros_like(angle_rad) for i in range(3)], -1))


def turned(vectors: jax.Array) -> jax.Array:
    """Rotation vectors `[...,3]` in rad -> matrices `[...,3,3]` (Rodrigues)."""
    angle2 = jnp.sum(vectors**2, axis=-1)[..., None, None]
    angle = jnp.sqrt(angle2 + 1e-12)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    zero = jnp.zeros_like(x)
    skew = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    outer = vectors[..., :, None] * vectors[..., None, :]
    still = jnp.broadcast_to(jnp.eye(3), outer.shape)
    square = outer - angle2 * still
    return still + jnp.sin(angle) / angle * skew + (1 - jnp.cos(angle)) / (angle * angle) * square


def sample_turns(u: jax.Array) -> jax.Array:
    """One pose, rotation vectors `[25,3]` in rad for each joint, from POSE_NUMBERS uniform numbers.

    Every finger lies between a recorded pose that all share and, for some, another; three hands in ten curl at random
    instead, and two in ten stretch some fingers and fold the others, as in counting. Half of all spread their fingers.
    All joints then wander, and end inside the limits.
    """
    u_pair, u_own, u_wander, u_free, u_thumb, u_fan, u_count = share(
        u, (3,), (5, 4), (5, 4), (5, 3), (4, 4), (2,), (4, 2)
    )
    table = jnp.asarray(recorded_turns())
    count = len(table)

    def picked(numbers: jax.Array) -> jax.Array:
        which = jnp.minimum((numbers * count).astype(jnp.int32), count - 1)
        return jax.nn.one_hot(which, count)

    shared = picked(u_pair[:2])
    own = picked(u_own[:, 0])
    first = jnp.where((u_own[:, 1] < 0.75)[:, None], shared[:1], own)
    way = jnp.clip(1.5 * (0.5 * u_pair[2] + 0.5 * u_own[:, 2]) - 0.3, 0.0, 1.0)[:, None]
    mix = (1 - way) * first + way * shared[1:2]  # [5, 10]
    of_finger = np.repeat(np.arange(5), [4, 5, 5, 5, 5])
    turns = jnp.einsum("jp,pjc->jc", mix[of_finger], table[:, 1:], precision="highest")
    thumb, long = turns[:4], turns[4:].reshape(4, 5, 3)
    degrees = np.pi / 180
    # fingers: three hinges about x, one turn about y at the base
    bends = long[:, 1:4, 0]
    curl = 0.7 * u_free[:1, :2] + 0.3 * u_free[1:, :2]
    free = jnp.stack([20 - 105 * curl[:, 0], -110 * curl[:, 1] ** 1.3], 1) * degrees
    free = jnp.concatenate([free, 0.62 * free[:, 1:] + 10 * degrees * (u_free[1:, 2:] - 0.5)], 1)
    held = jnp.where(u_count[:, 0] < 0.5, 0.15 * u_count[:, 1], 0.6 + 0.4 * u_count[:, 1])
    counted = jnp.stack([-85 * held, -105 * held, -65 * held], 1) * degrees
    bends = jnp.where(u_own[0, 3] < 0.3, free, jnp.where(u_own[0, 3] < 0.5, counted, bends))
    bends = bends + jnp.asarray([[7.0, 9.0, 6.0]]) * degrees * bell(u_wander[1:, :3])
    bends = jnp.clip(bends, _MOST_DEG[1:] * degrees, _MOST_DEG[:1] * degrees)
    folded = jnp.clip(-bends[:, 0] / (0.5 * np.pi), 0.0, 1.0)
    fan = jnp.where(u_fan[0] < 0.5, between(u_fan[1], -2.0, 14.0), 0.0) * jnp.asarray(_FAN)
    spread = long[:, 1, 1] + degrees * (fan + 5.0 * bell(u_wander[1:, 3])) * (1 - 0.7 * folded)
    spread = jnp.clip(spread, -_SPREAD_DEG * degrees, _SPREAD_DEG * degrees)
    spread = spread + long[:, 0, 1]
    kept = [spread[0]]
    for f in range(1, 4):
        gap = (_GAP_DEG + 7.0 * jnp.minimum(folded[f - 1], folded[f])) * degrees
        kept.append(jnp.minimum(spread[f], kept[-1] - gap))
    spread = jnp.stack(kept) - long[:, 0, 1]
    long = long.at[:, 1:4, 0].set(bends).at[:, 1, 1].set(spread)
    noise = jnp.asarray([[7.0, 7.0, 4.0, 0], [8.0, 0, 0, 0], [10.0, 0, 0, 0], [0, 0, 0, 0]])[:, :3]
    thumb = thumb + noise * degrees * bell(u_thumb[:, :3])
    thumb = thumb.at[1:3, 0].set(jnp.clip(thumb[1:3, 0], -np.pi * 0.45, 0.35))
    return jnp.concatenate([jnp.zeros((1, 3)), thumb, long.reshape(20, 3)])


def sample_person(u: jax.Array) -> Person:
    """One person, child to large adult, slender to stout, from PERSON_NUMBERS uniform numbers."""
    u_size, u_finger, u_bone, u_wide = share(u, (), (5,), (5, 3), (2,))
    size = between(u_size, 0.78, 1.12)
    thick = jnp.exp(0.09 * bell(u_wide[0]))
    palm = jnp.exp(0.05 * bell(u_wide[1]))
    finger = jnp.clip(1.0 + 0.04 * bell(u_finger), 0.88, 1.12)[:, None]
    bone = jnp.clip(1.0 + 0.03 * bell(u_bone), 0.92, 1.08) * finger
    bone = jnp.concatenate([bone, bone[:, 2:]], axis=1)  # a tip goes with its last bone
    ones = jnp.ones(())
    flat = jnp.stack([palm, 0.5 * thick + 0.5, ones])
    part = jnp.stack([jnp.broadcast_to(thick, bone.shape), jnp.broadcast_to(thick, bone.shape), bone], -1)
    thumb = part[0].at[0].set(jnp.stack([ones, ones, bone[0, 0]]))
    long = jnp.concatenate([jnp.broadcast_to(flat, (4, 1, 3)), part[1:]], axis=1)
    return Person(size, jnp.concatenate([flat[None], thumb, long.reshape(20, 3)]))


def sample_view(
    u: jax.Array, roll_rad: jax.Array, palms: float = 0.5, turned_share: float = 0.25, yaw_deg: float = 32.0
) -> jax.Array:
    """Wrist orientation, a rotation `[3,3]` from hand axes (palm to the viewer, fingers up) to the camera's.

    The palm (a share of `palms`) or the back faces the camera, turned about the hand's length by about `yaw_deg`
    (standard deviation) and tilted, then the image by `roll_rad`; a share of `turned_share` is seen from any side.
    """
    u_side, u_yaw, u_wide, u_pitch, u_any = share(u, (), (), (), (), (5,))
    side = jnp.where(u_side < 1.0 - palms, jnp.pi, 0.0)
    yaw = side + jnp.deg2rad(yaw_deg) * bell(u_yaw)
    pitch = jnp.clip(0.45 * bell(u_pitch), -1.2, 1.2)
    usual = rotation(0, pitch) @ rotation(1, yaw)
    q = bell(u_any[:4])
    q = q / jnp.sqrt(jnp.sum(q * q) + 1e-9)
    w, x, y, z = q
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]
    rows += [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]
    rows += [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]
    anyhow = jnp.stack(rows).reshape(3, 3)
    return rotation(2, roll_rad) @ jnp.where(u_wide < turned_share, anyhow, usual)
