"""Poses: a sampler of joint angles, proportions and wrist orientations with anatomical limits."""

import jax
import jax.numpy as jnp

from research.hand.chance import bell, between, share
from research.hand.kinematics import Proportions, rotation
from research.hand.skeleton import BEND_LIMITS_DEG, BONE_MM, DIP_PER_PIP

_OUT = (0.0, 0.0, 5.0, 0.0)  # a straight finger; degrees in the order of skeleton.BENDS
_IN = (78.0, 0.0, 98.0, 62.0)  # a finger folded into the palm
_HALF = (25.0, 0.0, 30.0, 18.0)
_HOOK = (10.0, 0.0, 90.0, 60.0)
_PINCH = (48.0, 0.0, 52.0, 28.0)
_T_OUT = (-15.0, 5.0, 0.0, 0.0)
_T_BESIDE = (12.0, -5.0, 8.0, 5.0)
_T_OVER = (30.0, 28.0, 40.0, 45.0)
_T_MEET = (16.0, 32.0, 18.0, 20.0)

_GESTURES_DEG = (
    (
        _T_OUT,
        (0.0, 9.0, 2.0, 0.0),
        (0.0, 2.0, 2.0, 0.0),
        (0.0, -5.0, 2.0, 0.0),
        (0.0, -11.0, 2.0, 0.0),
    ),  # spread
    (_T_BESIDE, _OUT, _OUT, _OUT, _OUT),  # flat
    ((0.0, 12.0, 10.0, 12.0), _HALF, _HALF, _HALF, _HALF),  # relaxed
    (_T_OVER, _IN, _IN, _IN, _IN),  # fist
    (_T_OVER, _OUT, _IN, _IN, _IN),  # point
    (_T_OVER, (0.0, 8.0, 4.0, 0.0), (0.0, -6.0, 4.0, 0.0), _IN, _IN),  # two
    (_T_OVER, _OUT, _OUT, _OUT, _IN),  # three
    (_T_OVER, _OUT, _OUT, _OUT, _OUT),  # four
    (_T_OUT, _IN, _IN, _IN, _IN),  # thumb up
    (_T_OUT, _OUT, _IN, _IN, _IN),  # gun
    (_T_OVER, _OUT, _IN, _IN, _OUT),  # horns
    (_T_OUT, _IN, _IN, _IN, _OUT),  # call
    (_T_MEET, _PINCH, _HALF, _OUT, _OUT),  # ring of thumb and index
    (_T_MEET, _PINCH, _PINCH, _PINCH, _PINCH),  # all tips together
    (_T_BESIDE, _HOOK, _HOOK, _HOOK, _HOOK),  # hook
    ((5.0, 30.0, 12.0, 20.0), _HALF, _PINCH, _PINCH, _PINCH),  # holding something
)
"""Angles in degrees of sixteen common gestures, [16][5][4]; samples lie on and between them."""

ANGLE_NUMBERS: int = 32
PERSON_NUMBERS: int = 27
VIEW_NUMBERS: int = 5

_MIN_GAP_DEG = (-3.0, -2.5, -2.0)  # least turn between neighbouring fingers' abductions: no crossing


def clip_to_limits(angles_rad: jax.Array) -> jax.Array:
    """Clips angles [5, 4] in radians to BEND_LIMITS_DEG and keeps neighbouring fingers from crossing.

    A finger's abduction also shrinks with its base flexion: a folded finger cannot spread.
    """
    limits = jnp.deg2rad(jnp.asarray(BEND_LIMITS_DEG, jnp.float32))
    angles = jnp.clip(angles_rad, limits[..., 0], limits[..., 1])
    free = jnp.clip(1.0 - angles[1:, 0] / (0.5 * jnp.pi), 0.15, 1.0)
    spread = [angles[1, 1] * free[0]]
    for finger, gap_deg in enumerate(_MIN_GAP_DEG):
        most = spread[-1] - jnp.deg2rad(gap_deg)
        spread.append(jnp.minimum(angles[2 + finger, 1] * free[1 + finger], most))
    spreads = jnp.clip(jnp.stack(spread), limits[1:, 1, 0], limits[1:, 1, 1])
    return angles.at[1:, 1].set(spreads)


def sample_angles(u: jax.Array) -> jax.Array:
    """One pose [5, 4] in radians, inside the limits, from ANGLE_NUMBERS uniform numbers.

    Two gestures are drawn; every finger goes its own way between them; all joints then wander, and the
    last joint of a finger follows the one before it.
    """
    u_pick, shared, own, u_noise, u_loose = share(u, (2,), (), (5, 1), (5, 4), (4,))
    table = jnp.deg2rad(jnp.asarray(_GESTURES_DEG, jnp.float32)).reshape(len(_GESTURES_DEG), 20)
    pick = jnp.floor(u_pick * len(_GESTURES_DEG)).astype(jnp.int32)
    chosen = jax.nn.one_hot(pick, len(_GESTURES_DEG))  # a product, not a gather: exact, and quick in batches
    first, second = jnp.sum(chosen[:, :, None] * table[None], axis=1).reshape(2, 5, 4)
    way = jnp.clip(1.6 * (0.6 * shared + 0.4 * own) - 0.3, 0.0, 1.0)
    noise_deg = jnp.asarray([[8.0, 8.0, 8.0, 9.0]] + [[9.0, 4.5, 11.0, 0.0]] * 4)
    angles = first + way * (second - first) + jnp.deg2rad(noise_deg) * bell(u_noise)
    loose = jnp.deg2rad(7.0) * bell(u_loose)
    angles = angles.at[1:, 3].set(DIP_PER_PIP * angles[1:, 2] + loose)
    return clip_to_limits(angles)


def sample_proportions(u: jax.Array) -> Proportions:
    """One person, child to large adult, from PERSON_NUMBERS uniform numbers."""
    u_size, u_finger, u_bone, u_palm = share(u, (1, 1), (5, 1), (5, 4), ())
    size = between(u_size, 0.72, 1.15)
    finger = jnp.clip(1.0 + 0.04 * bell(u_finger), 0.85, 1.15)
    bone = jnp.clip(1.0 + 0.04 * bell(u_bone), 0.85, 1.15)
    return Proportions(jnp.asarray(BONE_MM, jnp.float32) * size * finger * bone, between(u_palm, 0.86, 1.14))


def sample_view(
    u: jax.Array, roll_rad: jax.Array, palms: float = 0.5, turned: float = 0.25, yaw_deg: float = 32.0
) -> jax.Array:
    """Wrist orientation, a rotation [3, 3] from hand to camera axes, from VIEW_NUMBERS uniform numbers.

    The palm (a share of `palms`) or the back faces the camera, turned by about `yaw_deg` (standard deviation)
    or, in a share of `turned`, by any angle, and tilted; then the image is turned by `roll_rad`.
    """
    u_side, u_yaw, u_wide, u_any, u_pitch = u
    side = jnp.where(u_side < 1.0 - palms, jnp.pi, 0.0)  # unturned, the palm faces the camera
    yaw = jnp.where(
        u_wide < turned, between(u_any, -jnp.pi, jnp.pi), side + jnp.deg2rad(yaw_deg) * bell(u_yaw)
    )
    pitch = jnp.clip(0.45 * bell(u_pitch), -1.2, 1.2)
    return rotation(2, roll_rad) @ rotation(0, pitch) @ rotation(1, yaw)
