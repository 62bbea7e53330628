"""The hand's skin as tapered capsules in mm: fingers, a filled palm, the ball of the thumb and the forearm.

A capsule is the hull of two balls. Neighbouring palm capsules overlap and are meant to be blended softly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.hand.skeleton import BONE_MM

_RADII_MM = (
    (13.5, 12.5, 10.8, 7.8),
    (10.8, 9.6, 8.6, 7.0),
    (11.0, 9.9, 8.9, 7.2),
    (10.4, 9.3, 8.3, 6.7),
    (9.2, 8.1, 7.2, 5.9),
)  # radius at each joint of each finger
_CARPAL_MM, _KNUCKLE_MM = 15.0, 12.3  # half the palm's thickness at wrist and base joints
_ARM_MM = 170.0

FINGER_CAPSULES: int = 15
PALM_CAPSULES: int = 10
ARM_CAPSULES: int = 2
CAPSULES: int = FINGER_CAPSULES + PALM_CAPSULES + ARM_CAPSULES
"""How many capsules `capsules` gives: fingers first, then the palm, then the forearm."""


class Capsules(NamedTuple):
    """Tapered capsules: ends [K, 3] in mm, radii [K] in mm, and over how many mm of depth each blends [K]."""

    start_mm: jax.Array
    end_mm: jax.Array
    start_radius_mm: jax.Array
    end_radius_mm: jax.Array
    blend_mm: jax.Array


def capsules(joints_mm: jax.Array, thickness: jax.Array, arm_way: jax.Array) -> Capsules:
    """The skin of one hand, right or left, in the frame of its joints.

    Args:
      joints_mm: [21, 3].
      thickness: scalar, 1 for average flesh on bones of this length.
      arm_way: [3] unit vector, in the joints' frame, from the wrist towards the elbow.

    Returns:
      CAPSULES tapered capsules. The finger tips end at their keypoint: the last ball touches it from inside.
    """
    wrist, fingers = joints_mm[0], joints_mm[1:].reshape(5, 4, 3)
    size = jnp.linalg.norm(fingers[2, 0] - wrist) / BONE_MM[2][0]
    radii = jnp.asarray(_RADII_MM, jnp.float32) * size * thickness

    last = fingers[:, 3] - fingers[:, 2]
    pulled = 0.7 * radii[:, 3:] / jnp.maximum(jnp.linalg.norm(last, axis=-1, keepdims=True), 1.0)
    tips = fingers[:, 3] - last * jnp.minimum(pulled, 0.9)
    ends = jnp.concatenate([fingers[:, 1:3], tips[:, None]], axis=1)

    base = fingers[1:, 0]
    across = base - fingers[2, 0][None, :]
    carpal = wrist[None, :] + 0.16 * (base - wrist[None, :]) + 0.42 * across
    web_base = 0.5 * (base[1:] + base[:-1]) + 0.03 * (base[1:] - wrist[None, :])
    web_carpal = 0.5 * (carpal[1:] + carpal[:-1])
    thumb = fingers[0]
    heel = jnp.stack([carpal[0], thumb[0], 0.75 * carpal[3] + 0.25 * base[3]])
    ball = jnp.stack([thumb[1], 0.55 * base[0] + 0.45 * carpal[0], 0.25 * carpal[3] + 0.75 * base[3]])
    side = carpal[0] - carpal[3]
    side = side / jnp.maximum(jnp.linalg.norm(side), 1.0)
    arm_start = wrist[None, :] + jnp.asarray([[9.0], [-9.0]]) * size * side[None, :]
    arm_end = wrist[None, :] + size * (
        _ARM_MM * arm_way[None, :] + jnp.asarray([[15.0], [-15.0]]) * side[None, :]
    )

    soft = jnp.asarray([0.8] * FINGER_CAPSULES + [12.0] * PALM_CAPSULES + [14.0] * ARM_CAPSULES)
    palm = size * thickness
    start_radius = jnp.asarray([_CARPAL_MM] * 7 + [_CARPAL_MM, 13.5, 15.0])
    end_radius = jnp.asarray([_KNUCKLE_MM] * 4 + [_KNUCKLE_MM - 1.0] * 3 + [12.8, 10.0, 12.0])
    return Capsules(
        start_mm=jnp.concatenate([fingers[:, :3].reshape(15, 3), carpal, web_carpal, heel, arm_start]),
        end_mm=jnp.concatenate([ends.reshape(15, 3), base, web_base, ball, arm_end]),
        start_radius_mm=jnp.concatenate(
            [radii[:, :3].reshape(15), start_radius * palm, jnp.asarray([17.0, 17.0]) * palm]
        ),
        end_radius_mm=jnp.concatenate(
            [radii[:, 1:].reshape(15), end_radius * palm, jnp.asarray([24.0, 24.0]) * palm]
        ),
        blend_mm=soft * size,
    )
