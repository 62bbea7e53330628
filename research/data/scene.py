"""What stands before the camera: one hand, its light, clutter, sometimes an occluder; drawn by lot."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.data.render import Light, Strokes
from research.hand.camera import Camera, bounding_square, crop, project, to_unit
from research.hand.chance import bell, between, share
from research.hand.kinematics import joints_mm, mirror, rotation, turn
from research.hand.pose import (
    ANGLE_NUMBERS,
    PERSON_NUMBERS,
    VIEW_NUMBERS,
    sample_angles,
    sample_proportions,
    sample_view,
)
from research.hand.surface import ARM_CAPSULES, CAPSULES, FINGER_CAPSULES, Capsules, capsules

_BEHIND = 5  # strokes of clutter behind the hand
_WAVES = 8
_HAND_NUMBERS = ANGLE_NUMBERS + PERSON_NUMBERS + VIEW_NUMBERS + 7
_CLUTTER_NUMBERS = 9 * (_BEHIND + 1) + 1
_BACK_NUMBERS = 4 * _WAVES + 4
SCENE_NUMBERS: int = _HAND_NUMBERS + _CLUTTER_NUMBERS + _BACK_NUMBERS + 4 + 3 + 5 + 1
"""How many uniform numbers one scene takes."""


@dataclass(frozen=True)
class Look:
    """How far renders vary.

    fill: least and most of the crop's side that the hand's box takes. shift: standard deviation of the box's
    centre, in crops. roll_deg: usual largest turn in the image. wild: share of hands turned any way.
    left, palms: shares of left hands and of palm views. turned: share of hands seen from any side.
    yaw_deg: how far the others turn about their length (standard deviation). occluded: share of hands with
    something in front.
    """

    fill: tuple[float, float] = (0.5, 0.8)
    shift: float = 0.04
    roll_deg: float = 40.0
    wild: float = 0.15
    left: float = 0.5
    palms: float = 0.5
    turned: float = 0.25
    yaw_deg: float = 32.0
    occluded: float = 0.2


class Backdrop(NamedTuple):
    """A wall: its grey (scalar) and M plane waves on it: [M, 2] cycles per image, [M] rad, [M] amplitude;
    tilt [2] is the relative change of brightness across the whole image in x and y."""

    base: jax.Array
    frequency: jax.Array
    phase: jax.Array
    amplitude: jax.Array
    tilt: jax.Array


class Scene(NamedTuple):
    """Everything the renderer needs for one crop, and its true keypoints [21, 2] in 0..1."""

    strokes: Strokes
    light: Light
    backdrop: Backdrop
    keypoints: jax.Array


def _hand(u: jax.Array, look: Look) -> tuple[jax.Array, Capsules]:
    """Joints [21, 3] and skin of a random hand in camera axes, mm, its wrist at the origin."""
    u_pose, u_person, u_view, u_left, u_thick, u_arm, u_roll, u_wild, u_any = share(
        u, (ANGLE_NUMBERS,), (PERSON_NUMBERS,), (VIEW_NUMBERS,), (), (), (2,), (), (), ()
    )
    joints = mirror(joints_mm(sample_angles(u_pose), sample_proportions(u_person)), u_left < look.left)
    bend = bell(u_arm) * jnp.asarray([0.4, 0.2])
    arm_way = (rotation(0, bend[0]) @ rotation(2, bend[1]))[:, 1]
    usual = jnp.deg2rad(between(u_roll, -look.roll_deg, look.roll_deg))
    view = sample_view(
        u_view,
        jnp.where(u_wild < look.wild, between(u_any, -jnp.pi, jnp.pi), usual),
        look.palms,
        look.turned,
        look.yaw_deg,
    )
    skin = capsules(joints, between(u_thick, 0.9, 1.25), arm_way)
    return turn(view, joints), skin._replace(
        start_mm=turn(view, skin.start_mm), end_mm=turn(view, skin.end_mm)
    )


def _frame(u: jax.Array, joints: jax.Array, look: Look, size_px: int) -> tuple[jax.Array, Camera]:
    """Where the hand stands [3] in mm, and the camera of a crop about it."""
    u_far, u_fill, u_shift = share(u, (), (), (2,))
    place = jnp.stack([jnp.zeros(()), jnp.zeros(()), between(u_far, 280.0, 900.0)]) - jnp.mean(joints, axis=0)
    wide = Camera(jnp.asarray(1000.0), jnp.zeros(2))
    centre, side = bounding_square(project(joints + place[None, :], wide))
    side = side / between(u_fill, *look.fill)
    shift = jnp.clip(look.shift * bell(u_shift), -2.5 * look.shift, 2.5 * look.shift)
    return place, crop(wide, centre + shift * side, side, size_px)


def _hand_strokes(
    u: jax.Array, joints: jax.Array, skin: Capsules, place: jax.Array, camera: Camera, albedo: jax.Array
) -> Strokes:
    """The skin as strokes, plus the sleeve: the forearm's capsules again, shorter, thicker and of cloth."""
    u_sleeve, u_cloth, u_from = u
    arm = slice(CAPSULES - ARM_CAPSULES, CAPSULES)
    cuff = skin.start_mm[arm] + between(u_from, 0.0, 0.5) * (skin.end_mm[arm] - skin.start_mm[arm])
    grow = jnp.where(u_sleeve < 0.5, 1.2, 0.9)  # a thin sleeve lies hidden inside the arm
    start = jnp.concatenate([skin.start_mm, cuff]) + place[None, :]
    end = jnp.concatenate([skin.end_mm, skin.end_mm[arm]]) + place[None, :]
    scale = camera.focal_px / place[2]

    def seen(points: jax.Array, radius_mm: jax.Array) -> tuple[jax.Array, jax.Array]:
        radius_mm = jnp.concatenate([radius_mm, radius_mm[arm] * grow])
        depth = jnp.maximum(points[:, 2:], 80.0)
        at = jnp.concatenate([project(points, camera), (depth - place[2]) * scale], axis=1)
        return at, radius_mm * camera.focal_px / depth[:, 0]

    first, first_radius = seen(start, skin.start_radius_mm)
    last, last_radius = seen(end, skin.end_radius_mm)
    cloth = between(u_cloth, 0.05, 0.95)
    n = CAPSULES + ARM_CAPSULES
    normal = jnp.cross(joints[5] - joints[0], joints[17] - joints[0])
    normal = normal / jnp.maximum(jnp.sqrt(jnp.sum(normal**2)), 1.0)
    facing = jnp.where(normal[2] > 0, -normal, normal)
    return Strokes(
        first,
        last,
        first_radius,
        last_radius,
        jnp.where(jnp.arange(n) < CAPSULES, albedo, cloth),
        jnp.concatenate([skin.blend_mm, jnp.full((ARM_CAPSULES,), 3.0)]) * scale,
        jnp.ones(n),
        jnp.where(jnp.arange(n) < FINGER_CAPSULES, 1.0, 0.5),
        jnp.broadcast_to(facing[None, :], (n, 3)),
        jnp.where(jnp.arange(n) < FINGER_CAPSULES, 0.35, 0.0),
    )


def _clutter(u: jax.Array, size_px: int, albedo: jax.Array, look: Look) -> Strokes:
    """Strokes behind the hand, some as bright and round as skin, and one before it, mostly out of sight."""
    n = _BEHIND + 1
    u_at, u_to, u_radius, u_taper, u_grey, u_skin, u_lit, u_seen = share(
        u, (n, 2), (n, 2), (n,), (n,), (n,), (n,), (n,), ()
    )
    front = jnp.arange(n) == _BEHIND
    depth = jnp.where(front, -3.0, jnp.linspace(30.0, 20.0, n)) * size_px
    at = between(u_at, -0.2, 1.2)
    away = jnp.where(front & (u_seen >= look.occluded), 9.0, 0.0)
    to = at + between(u_to, -1.0, 1.0)
    start = jnp.concatenate([(at + away[:, None]) * size_px, depth[:, None]], axis=1)
    end = jnp.concatenate([(to + away[:, None]) * size_px, depth[:, None]], axis=1)
    radius = jnp.where(front, 0.06, 0.16) * jnp.exp(0.7 * bell(u_radius)) * size_px
    radius = jnp.clip(radius, 0.02 * size_px, jnp.where(front, 0.1, 0.5) * size_px)
    grey = jnp.where(u_skin < 0.35, albedo, between(u_grey, 0.03, 1.0))
    return Strokes(
        start,
        end,
        radius,
        radius * between(u_taper, 0.6, 1.5),
        grey,
        jnp.full((n,), 1.0),
        (u_lit < 0.6).astype(jnp.float32),
        jnp.ones(n),
        jnp.zeros((n, 3)),
        jnp.zeros(n),
    )


def _light(u: jax.Array) -> Light:
    u_way, u_ambient, u_rim = share(u, (3,), (), ())
    way = bell(u_way) + jnp.asarray([0.0, -0.6, -1.0])
    way = way.at[2].set(-jnp.abs(way[2]) - 0.15)
    way = way / jnp.sqrt(jnp.sum(way**2))
    return Light(way, between(u_ambient, 0.15, 0.7), between(u_rim, 0.15, 0.5))


def _backdrop(u: jax.Array) -> Backdrop:
    u_base, u_freq, u_phase, u_amp, u_gain, u_tilt = share(u, (), (_WAVES, 2), (_WAVES,), (_WAVES,), (), (2,))
    octave = jnp.asarray([0.7, 1.2, 2.0, 3.0, 4.5, 7.0, 10.0, 14.0])
    return Backdrop(
        between(u_base, 0.0, 0.95),
        octave[:, None] * bell(u_freq),
        between(u_phase, 0.0, 2.0 * jnp.pi),
        bell(u_amp) / jnp.sqrt(octave) * between(u_gain, 0.0, 0.16),
        0.35 * bell(u_tilt),
    )


def sample_scene(u: jax.Array, look: Look, size_px: int) -> Scene:
    """One random scene for a crop of side `size_px`, from SCENE_NUMBERS uniform numbers."""
    u_hand, u_clutter, u_back, u_frame, u_sleeve, u_light, u_skin = share(
        u, (_HAND_NUMBERS,), (_CLUTTER_NUMBERS,), (_BACK_NUMBERS,), (4,), (3,), (5,), ()
    )
    joints, skin = _hand(u_hand, look)
    place, camera = _frame(u_frame, joints, look, size_px)
    albedo = between(u_skin, 0.3, 1.05)
    hand = _hand_strokes(u_sleeve, joints, skin, place, camera, albedo)
    clutter = _clutter(u_clutter, size_px, albedo, look)
    return Scene(
        strokes=jax.tree.map(lambda a, b: jnp.concatenate([a, b]), clutter, hand),
        light=_light(u_light),
        backdrop=_backdrop(u_back),
        keypoints=to_unit(project(joints + place[None, :], camera), size_px),
    )
