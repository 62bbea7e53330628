"""A skinned hand: 25 WebXR joints drive 1360 vertices by linear blend skinning, differentiable in every rotation.

The rig is the generic right hand of the WebXR input profiles (MIT licence, `assets/`), made by
`python -m research.hand.convert_rig`; a left hand is its mirror image. Metres; each joint's own frame has -z along the
bone and bends about x. `G_j = G_parent L_j R_j`, `v = sum_k w_k G_k B_k^-1 v_rest` (Magnenat-Thalmann et al., 1988).
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_FINGERS = ("thumb", "index-finger", "middle-finger", "ring-finger", "pinky-finger")
_LONG = ("metacarpal", "phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")
_THUMB = tuple(name for name in _LONG if name != "phalanx-intermediate")

NAMES: tuple[str, ...] = (
    "wrist",
    *(f"{finger}-{part}" for finger in _FINGERS for part in (_THUMB if finger == "thumb" else _LONG)),
)
"""Joint names in WebXR's order, [25]; parents come before their children."""

PARENTS: tuple[int, ...] = (
    -1,
    *(0 if name.endswith("metacarpal") else i for i, name in enumerate(NAMES[1:])),
)
"""Parent of each joint, [25]; the wrist is the root and has none (-1)."""

KEYPOINTS: tuple[int, ...] = tuple(
    i for i, name in enumerate(NAMES) if name.startswith("thumb") or not name.endswith("metacarpal")
)
"""The joints that are the 21 keypoints of `research.hand.skeleton`, in its order: all but four metacarpals."""

POSES: tuple[str, ...] = (
    "fist", "flat", "horns", "point", "relax", "shaka", "vulcan", "pinch", "aim", "relaxed",
)  # fmt: skip
"""Names of the recorded poses, in the order of `recorded_poses`."""


class Rig(NamedTuple):
    """A hand at rest: `vertices_m [V,3]`, `triangles [T,3]` (outside counter-clockwise), `bones [V,4]` with `weights
    [V,4]` that sum to 1, and each joint's place at rest `bind [25,4,4]`, all in one frame, in m."""

    vertices_m: jax.Array
    triangles: jax.Array
    bones: jax.Array
    weights: jax.Array
    bind: jax.Array


@functools.cache
def load_rig() -> Rig:
    """The committed right hand, as numpy arrays."""
    with resources.files("research.hand").joinpath("assets/webxr_hand.npz").open("rb") as file:
        found = np.load(file, allow_pickle=False)
        return Rig(**{name: found[name] for name in Rig._fields})


@functools.cache
def recorded_poses() -> np.ndarray:
    """Rotations `[10,25,3,3]` of joints from rest, recorded on headsets, by `POSES`; the wrist's are identities."""
    with resources.files("research.hand").joinpath("assets/recorded_poses.npz").open("rb") as file:
        return np.asarray(np.load(file, allow_pickle=False)["rotations"])


def globals_of(rig: Rig, rotations: jax.Array, stretch: jax.Array | None = None) -> jax.Array:
    """Where every joint is: `rotations [25,3,3]` from rest, each in its joint's own frame -> `[25,4,4]`.

    At identities this is `rig.bind`. `stretch [25,3]` moves a joint's children away along its three axes (1: as they
    are). Raises ValueError for another shape.
    """
    if rotations.shape != (25, 3, 3):
        raise ValueError(f"rotations must be [25, 3, 3], got {list(rotations.shape)}")
    bind = jnp.asarray(rig.bind)
    turns = jnp.zeros((25, 4, 4), rotations.dtype).at[:, :3, :3].set(rotations).at[:, 3, 3].set(1.0)
    local = jnp.matmul(_inverse(bind[np.maximum(PARENTS, 0)]), bind, precision="highest").at[0].set(bind[0])
    if stretch is not None:
        local = local.at[1:, :3, 3].multiply(stretch[np.asarray(PARENTS[1:])])
    moved = jnp.matmul(local, turns, precision="highest")
    levels, places = [[0]], [moved[:1]]
    while len(levels) < 6:  # all fingers at once, from the wrist outwards
        levels.append([j for j, parent in enumerate(PARENTS) if parent in levels[-1]])
        above = [levels[-2].index(PARENTS[j]) for j in levels[-1]]
        places.append(
            jnp.matmul(_rows(places[-1], above), _rows(moved, levels[-1]), precision="highest")
        )
    return jnp.concatenate(places)[np.argsort(np.concatenate(levels))]


def skin(rig: Rig, places: jax.Array) -> jax.Array:
    """Vertices `[V,3]` in m of a hand whose joints are at `places [25,4,4]`."""
    moves = jnp.einsum("jab,jbc->jac", places, _inverse(jnp.asarray(rig.bind)), precision="highest")
    blend = jnp.einsum("vk,vkab->vab", rig.weights, moves[jnp.asarray(rig.bones)], precision="highest")
    moved = jnp.einsum("vab,vb->va", blend[:, :3, :3], rig.vertices_m, precision="highest")
    return moved + blend[:, :3, 3]


def keypoints_m(places: jax.Array) -> jax.Array:
    """The 21 keypoints `[21,3]` in m, in the order of `research.hand.skeleton`, of joints at `places [25,4,4]`."""
    return places[jnp.asarray(KEYPOINTS), :3, 3]


def mirrored(rig: Rig) -> Rig:
    """The left hand: the mirror image in x, its triangles still counter-clockwise from outside."""
    flip = np.diag([-1.0, 1.0, 1.0, 1.0]).astype(np.float32)
    return rig._replace(
        vertices_m=rig.vertices_m * flip.diagonal()[None, :3],
        triangles=rig.triangles[:, ::-1],
        bind=jnp.asarray(flip @ rig.bind @ flip),
    )


def mirrored_rotations(rotations: jax.Array) -> jax.Array:
    """The rotations `[...,3,3]` that move the mirrored hand as `rotations` move the other."""
    signs = np.outer([-1, 1, 1], [-1, 1, 1])
    return rotations * np.broadcast_to(signs, rotations.shape).astype(rotations.dtype)


def _rows(x: jax.Array, at: list[int]) -> jax.Array:
    """`x[at]` by slices: the TPU compiler (libtpu 0.0.42.1) refuses a gather in front of a product under two vmaps."""
    return jnp.stack([x[i] for i in at])


def _inverse(places: jax.Array) -> jax.Array:
    """The inverse of rigid motions `[...,4,4]`."""
    turn, move = places[..., :3, :3], places[..., :3, 3:]
    back = jnp.swapaxes(turn, -1, -2)
    top = jnp.concatenate([back, -jnp.matmul(back, move, precision="highest")], axis=-1)
    return jnp.concatenate([top, jnp.broadcast_to(places[..., 3:, :], (*top.shape[:-2], 1, 4))], axis=-2)
