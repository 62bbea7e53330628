"""What stands before the camera: one hand, its light, a backdrop, sometimes something before it; drawn by lot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.data.backdrop import (
    BACKDROP_NUMBERS,
    LEAF_NUMBERS,
    Backdrop,
    Leaves,
    noise,
    paint,
    sample_backdrop,
    sample_leaves,
)
from research.data.raster import Raster, apart, rasterise
from research.data.sensor import SENSOR_NUMBERS, Sensor, margin_px, sample_sensor
from research.data.shade import (
    LIGHT_NUMBERS,
    SKIN_NUMBERS,
    Light,
    Skin,
    sample_light,
    sample_skin,
    shade,
)
from research.hand.camera import Camera, bounding_square, crop, project, to_unit
from research.hand.chance import bell, between, share
from research.hand.pose import (
    PERSON_NUMBERS,
    POSE_NUMBERS,
    VIEW_NUMBERS,
    Person,
    rotation,
    sample_person,
    sample_turns,
    sample_view,
    turned,
)
from research.hand.surface import Arm, keypoints_mm, places_mm, pose_surface, surface

FINE = 2
"""Samples a pixel in each direction."""
_FRONT = 2
_UPRIGHT = np.asarray([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]], np.float32)
"""From the rig's axes to those of a right hand with its palm to the viewer and its fingers up, as the camera sees."""
_HAND_NUMBERS = POSE_NUMBERS + PERSON_NUMBERS + VIEW_NUMBERS + 11
SCENE_NUMBERS: int = (
    _HAND_NUMBERS + 4 + BACKDROP_NUMBERS + _FRONT * LEAF_NUMBERS + 2
    + SKIN_NUMBERS + LIGHT_NUMBERS + SENSOR_NUMBERS
)  # fmt: skip
"""How many uniform numbers one scene takes."""


@dataclass(frozen=True)
class Look:
    """How far renders vary.

    fill: least and most of the crop's side that the hand's box takes. shift: standard deviation of the box's
    centre, in crops. roll_deg: usual largest turn in the image. wild: share of hands turned any way.
    left, palms: shares of left hands and of palm views. turned: share of hands seen from any side.
    yaw_deg: how far the others turn about their length (standard deviation). occluded: share of hands with
    something in front. infrared: share lit by the camera, before darkness.
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
    infrared: float = 0.15


class Scene(NamedTuple):
    """Everything the renderer needs for one crop: the hand in camera axes and mm (`places [25,4,4]` before the mirror,
    `left` true for a left hand), and its true `keypoints [21,2]` in 0..1."""

    places_mm: jax.Array
    stretch: jax.Array
    size: jax.Array
    left: jax.Array
    arm: Arm
    camera: Camera
    skin: Skin
    light: Light
    backdrop: Backdrop
    front: Leaves
    sensor: Sensor
    joints_mm: jax.Array
    keypoints: jax.Array


def sample_scene(u: jax.Array, look: Look, size_px: int) -> Scene:
    """One random scene for a crop of side `size_px`, from SCENE_NUMBERS uniform numbers."""
    u_hand, u_frame, u_back, u_front, u_some, u_skin, u_light, u_sensor = share(
        u, (_HAND_NUMBERS,), (4,), (BACKDROP_NUMBERS,), (_FRONT, LEAF_NUMBERS), (2,), (SKIN_NUMBERS,),
        (LIGHT_NUMBERS,), (SENSOR_NUMBERS,),
    )  # fmt: skip
    places, person, left, arm = _hand(u_hand, look)
    joints = keypoints_mm(places)
    flip = jnp.stack([jnp.where(left, -1.0, 1.0), jnp.ones(()), jnp.ones(())])
    joints = joints * flip[None]
    far = between(u_frame[0], 280.0, 900.0)
    away = jnp.stack([jnp.zeros(()), jnp.zeros(()), far]) - jnp.mean(joints, axis=0)
    joints = joints + away[None, :]
    places = places.at[:, :3, 3].add((flip * away)[None])
    wide = Camera(jnp.asarray(1000.0), jnp.zeros(2))
    centre, side = bounding_square(project(joints, wide))
    side = side / between(u_frame[1], *look.fill)
    shift = jnp.clip(look.shift * bell(u_frame[2:]), -2.5 * look.shift, 2.5 * look.shift)
    camera = crop(wide, centre + shift * side, side, size_px)
    infrared = u_some[0] < look.infrared
    skin = sample_skin(u_skin)
    seen = skin.skin**0.45
    backdrop = sample_backdrop(u_back, seen)
    backdrop = backdrop._replace(wall=jnp.where(infrared, 0.25 * backdrop.wall, backdrop.wall))
    front = sample_leaves(u_front, seen, 0.04, 0.16)
    front = front._replace(
        at=jnp.where((u_some[1] < look.occluded) & (jnp.arange(_FRONT) == 0)[:, None], front.at, 9.0)
    )
    return Scene(
        places, person.stretch, person.size, left, arm, camera, skin, sample_light(u_light, infrared), backdrop,
        front, sample_sensor(u_sensor, size_px), joints, to_unit(project(joints, camera), size_px),
    )  # fmt: skip


def _hand(u: jax.Array, look: Look) -> tuple[jax.Array, Person, jax.Array, Arm]:
    """Joints `[25,4,4]` of a random right hand turned to the camera, mm, the person, whether it is left, its arm."""
    u_pose, u_person, u_view, u_left, u_arm, u_sleeve, u_roll, u_wild, u_any = share(
        u, (POSE_NUMBERS,), (PERSON_NUMBERS,), (VIEW_NUMBERS,), (), (3,), (3,), (), (), (2,)
    )
    person = sample_person(u_person)
    places = places_mm(turned(sample_turns(u_pose)), person.stretch)
    usual = jnp.deg2rad(between(u_roll, -look.roll_deg, look.roll_deg))
    roll = jnp.where(u_wild < look.wild, between(u_any[0], -jnp.pi, jnp.pi), usual)
    view = sample_view(u_view, roll, look.palms, look.turned, look.yaw_deg)
    turn = jnp.matmul(view, _UPRIGHT, precision="highest") * person.size
    top = jnp.einsum("ab,jbc->jac", turn, places[:, :3], precision="highest")
    places = jnp.concatenate([top, places[:, 3:]], axis=1)
    bend = bell(u_arm) * jnp.asarray([0.1, 0.35, 0.15])
    arm = Arm(
        jnp.matmul(rotation(2, bend[1]), rotation(0, bend[2])),
        between(u_sleeve[0], 5.0, 120.0),
        jnp.where(u_sleeve[1] < 0.5, between(u_sleeve[2], 1.08, 1.5), 1.0),
    )
    return places, person, u_left < look.left, arm


def hand_mesh(scene: Scene, size_px: int, margin: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hand and arm for `rasterise`: vertices `[V,3]` in samples (FINE a pixel, `margin` px more on every side) and mm,
    triangles `[T,3]`, and 0.6 times the brightness `[V]` as a display shows it (a highlight has more than 1)."""
    held = surface()
    points, normals, cloth = pose_surface(scene.places_mm, scene.stretch, scene.arm)
    flip = jnp.stack([jnp.where(scene.left, -1.0, 1.0), jnp.ones(()), jnp.ones(())])
    points, normals = points * flip[None], normals * flip[None]
    balls = jnp.mean(scene.joints_mm[held.balls], axis=1)
    linear = shade(points, normals, cloth, balls, scene.size, scene.skin, scene.light)
    grey = jnp.maximum(linear, 1e-4) ** 0.4545
    seen = (project(points, scene.camera) + margin) * FINE
    triangles = jnp.where(scene.left, held.triangles[:, ::-1], held.triangles)
    return jnp.concatenate([seen, jnp.maximum(points[:, 2:], 40.0)], axis=1), triangles, 0.6 * grey


def hand_raster(scene: Scene, size_px: int, margin: int) -> Raster:
    """The hand alone, FINE samples a pixel each way, `margin` px wider on every side; grey as `hand_mesh`'s."""
    wide = (size_px + 2 * margin) * FINE
    mesh = hand_mesh(scene, size_px, margin)
    return apart(lambda points, triangles, grey: rasterise(points, triangles, grey, wide), *mesh)


def draw(scene: Scene, size_px: int) -> jax.Array:
    """The scene before the sensor `[S+2m,S+2m]`, brightness as a display shows it."""
    margin = margin_px(size_px)
    full = size_px + 2 * margin
    raster = hand_raster(scene, size_px, margin)
    boxes = (full, FINE, full, FINE)
    cover = jnp.mean(jnp.isfinite(raster.depth).reshape(boxes).astype(jnp.float32), axis=(1, 3))
    hand = jnp.mean(raster.grey.reshape(boxes), axis=(1, 3)) / 0.6
    line = (jnp.arange(full) + 0.5 - margin) / size_px
    x, y = line[None, :], line[:, None]
    wall = scene.backdrop.wall + scene.backdrop.slope[0] * (x - 0.5) + scene.backdrop.slope[1] * (y - 0.5)
    image = paint(wall, scene.backdrop.leaves, x, y, 1.0 / size_px)
    image = image * (1 + noise(scene.backdrop.grids, 4 * scene.backdrop.strength, full))
    image = image * (1 - cover) + hand
    return paint(image, scene.front, x, y, 1.0 / size_px)
