"""The skin of a posed hand with its forearm, in mm: vertices, normals, and what is known of every vertex at rest.

The forearm is a tube of rings that starts inside the rig's wrist; a sleeve is the tube's far part, wider.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.hand.rig import KEYPOINTS, NAMES, globals_of, load_rig
from research.hand.rig import keypoints_m as _keypoints_m

_SIDES = 14
RINGS = 7
_WRIST_CENTRE_MM = np.asarray([38.5, 56.0, 10.5])
_HALF_MM = np.asarray([17.5, 25.0])  # half the wrist's thickness (x) and width (z)


class Surface(NamedTuple):
    """The rig prepared for drawing, as numpy arrays.

    rest_mm, normals: [V,3] of the hand alone; weights: [V,25] dense; back: [25,4,4] inverse binds, in mm;
    triangles: [T,3] of hand and arm; palmar, nail, crease, knuckle: [V] in 0..1, where those are;
    balls: [B,2] keypoints each flesh ball lies between; ball_mm: [B] radii; near: [V,B] whether a ball is own flesh.
    """

    rest_mm: np.ndarray
    normals: np.ndarray
    weights: np.ndarray
    back: np.ndarray
    triangles: np.ndarray
    palmar: np.ndarray
    nail: np.ndarray
    crease: np.ndarray
    knuckle: np.ndarray
    balls: np.ndarray
    ball_mm: np.ndarray
    near: np.ndarray


class Arm(NamedTuple):
    """Bend `[3,3]` of the forearm about the wrist, where the cuff starts in mm, and how much wider the sleeve is."""

    bend: jax.Array
    cuff_mm: jax.Array
    wider: jax.Array


@functools.cache
def surface() -> Surface:
    """The right hand's, made once from the committed rig."""
    rig = load_rig()
    rest = np.asarray(rig.vertices_m, np.float64) * 1000
    faces = np.asarray(rig.triangles).astype(np.int32)
    weights = np.zeros((len(rest), 25), np.float32)
    np.add.at(weights, (np.arange(len(rest))[:, None], np.asarray(rig.bones).astype(int)), rig.weights)
    normals = _welded_normals(rest, faces)
    bind = np.asarray(rig.bind, np.float64).copy()
    bind[:, :3, 3] *= 1000
    back = np.linalg.inv(bind)
    local = np.einsum("jab,vb->jva", back[:, :3, :3], rest) + back[:, None, :3, 3]
    facing = np.einsum("jab,vb->jva", back[:, :3, :3], normals)[..., 1]  # + at the back of the hand
    main = weights.argmax(axis=1)
    nail, crease, knuckle = (np.zeros(len(rest)) for _ in range(3))
    for joint, name in enumerate(NAMES):
        finger = [k for k, other in enumerate(NAMES) if other.split("-")[0] == name.split("-")[0]]
        own = np.isin(main, finger)
        x, _, z = local[joint].T
        if name.endswith("tip"):
            spot = np.exp(-((x / 4.5) ** 4) - ((z + 1.0) / 5.5) ** 4)
            nail = np.maximum(nail, own * spot * np.clip(2 * facing[joint] - 0.4, 0, 1))
        elif name != "wrist" and not name.endswith("metacarpal"):
            band = own * np.exp(-((z / 2.6) ** 2))
            crease = np.maximum(crease, band * np.clip(-1.5 * facing[joint], 0, 1))
            knuckle = np.maximum(knuckle, own * np.exp(-((z / 4.5) ** 2)) * np.clip(facing[joint], 0, 1))
    palmar = np.clip(0.5 - 0.9 * facing[main, np.arange(len(rest))], 0, 1)
    balls, radii = [], []
    for f in range(5):
        size = (10.5, 9.2, 9.4, 8.8, 7.6)[f]
        chain = [1 + 4 * f + k for k in range(4)]
        pairs = [(chain[1], chain[1]), (chain[3], chain[3]), *itertools.pairwise(chain)]
        balls += pairs
        radii += [size * (0.85 if a == chain[-1] else 1.0) for a, _ in pairs]
    balls += [(0, 5), (0, 9), (0, 13), (0, 17)]
    radii += [15.0] * 4
    points = bind[list(KEYPOINTS), :3, 3]
    centres = points[np.asarray(balls)].mean(axis=1)
    near = np.linalg.norm(rest[:, None] - centres[None], axis=-1) < 1.75 * np.asarray(radii)[None]
    arm = np.arange(RINGS * _SIDES).reshape(RINGS, _SIDES) + len(rest)
    a, b, c, d = arm[:-1], np.roll(arm[:-1], -1, 1), arm[1:], np.roll(arm[1:], -1, 1)
    tube = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    single = [
        np.asarray(x, np.float32) for x in (rest, normals, weights, back, palmar, nail, crease, knuckle)
    ]
    triangles = np.concatenate([faces, tube]).astype(np.int32)
    return Surface._make(
        (*single[:4], triangles, *single[4:], np.asarray(balls), np.asarray(radii, np.float32), near)
    )


def pose_surface(
    places_mm: jax.Array, stretch: jax.Array, arm: Arm
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hand and arm of joints at `places_mm [25,4,4]`: vertices `[V,3]`, unit normals `[V,3]`, cloth `[V]` (1: sleeve).

    `stretch [25,3]` is the person's; the wrist's frame carries the arm.
    """
    held = surface()
    grown = places_mm.at[:, :3, :3].multiply(stretch[:, None, :])
    moves = jnp.einsum("jab,jbc->jac", grown, held.back, precision="highest")[:, :3].reshape(25, 12)
    blend = jnp.matmul(held.weights, moves, precision="highest").reshape(-1, 3, 4)
    points = jnp.sum(blend[:, :, :3] * jnp.asarray(held.rest_mm)[:, None, :], -1) + blend[:, :, 3]
    normals = jnp.sum(blend[:, :, :3] * held.normals[:, None, :], -1)
    tube, outward, cloth = _arm(moves[0].reshape(3, 4), arm)
    points, normals = jnp.concatenate([points, tube]), jnp.concatenate([normals, outward])
    normals = normals / (jnp.sqrt(jnp.sum(normals**2, axis=1, keepdims=True)) + 1e-9)
    return points, normals, jnp.concatenate([jnp.zeros(len(held.rest_mm)), cloth])


def _arm(wrist: jax.Array, arm: Arm) -> tuple[jax.Array, jax.Array, jax.Array]:
    turn = 2 * np.pi * np.arange(_SIDES) / _SIDES
    way = jnp.asarray(np.stack([np.cos(turn), 0 * turn, np.sin(turn)], -1), jnp.float32)
    steps = [jnp.asarray(-2.0), jnp.asarray(14.0), 14 + 0.5 * arm.cuff_mm, 14 + arm.cuff_mm]
    along = jnp.stack([*steps, 16 + arm.cuff_mm, 70 + arm.cuff_mm, 160 + arm.cuff_mm])
    taper = 0.93 + 0.0022 * jnp.clip(along, 0, 150) - 0.25 * jnp.exp(-(((along + 2) / 6) ** 2))
    sleeve = jnp.asarray([0.0, 0, 0, 0, 1, 1, 1])
    wide = taper * (1 + sleeve * (arm.wider - 1))
    ring = way * jnp.asarray([[_HALF_MM[0], 0, _HALF_MM[1]]], jnp.float32)
    rigid = jnp.stack([jnp.eye(3), 0.5 * (jnp.eye(3) + arm.bend), *([arm.bend] * (RINGS - 2))])
    spine = along[:, None] * jnp.asarray([[0.0, 1.0, 0.0]])
    local = spine[:, None, :] + ring[None] * wide[:, None, None]
    local = jnp.einsum("rab,rsb->rsa", rigid, local, precision="highest").reshape(-1, 3) + _WRIST_CENTRE_MM[None]
    normal = way / jnp.asarray([[_HALF_MM[0], 1, _HALF_MM[1]]], jnp.float32) * 20
    normal = jnp.einsum("rab,sb->rsa", rigid, normal, precision="highest").reshape(-1, 3)
    moved = jnp.einsum("ab,vb->va", wrist[:, :3], local, precision="highest") + wrist[None, :, 3]
    facing = jnp.einsum("ab,vb->va", wrist[:, :3], normal, precision="highest")
    return moved, facing, jnp.repeat(sleeve * (arm.wider > 1.02), _SIDES)


def places_mm(rotations: jax.Array, stretch: jax.Array) -> jax.Array:
    """Joints `[25,4,4]` in mm, rotations only, of a person's hand: bones are stretched along their parents' axes."""
    return globals_of(load_rig(), rotations, stretch).at[:, :3, 3].multiply(1000.0)


def keypoints_mm(places: jax.Array) -> jax.Array:
    """The 21 keypoints `[21,3]` of joints at `places [25,4,4]`, in their unit."""
    return _keypoints_m(places)


def _welded_normals(rest: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals of vertices, one for all vertices at one place."""
    _, same = np.unique(np.round(rest, 3), axis=0, return_inverse=True)
    a, b, c = (rest[faces[:, i]] for i in range(3))
    total = np.zeros((same.max() + 1, 3))
    np.add.at(total, same.ravel()[faces].ravel(), np.repeat(np.cross(b - a, c - a), 3, axis=0))
    total /= np.linalg.norm(total, axis=1, keepdims=True) + 1e-12
    return total[same.ravel()]
