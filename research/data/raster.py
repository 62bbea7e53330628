"""A z-buffer for small meshes of small triangles, all in fixed shapes: what a pixel sees, and where on it.

Every triangle tests the pixels of a box at its corner. Depth and number of a triangle are packed into one integer, so
that one scatter-minimum decides both; barycentric coordinates are then computed once a pixel, not once a test.
Back faces are dropped first, and the few wide triangles get wider boxes than the many small ones.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_NUMBER_BITS = 12
MOST_TRIANGLES: int = 2**_NUMBER_BITS - 1
_DEPTHS = 2 ** (32 - _NUMBER_BITS) - 2
_EMPTY = np.uint32(2**32 - 1)


Plan = tuple[tuple[int, int], ...]
"""How many triangles are drawn in boxes of how many px: (count, box_px), no box smaller than the one before.
A triangle takes the smallest box that is wide enough and still has room."""


def hand_plan(size_px: int) -> Plan:
    """Boxes for `research.hand.rig` in an image of side `size_px` that it nearly fills."""
    unit = size_px / 64
    return tuple(
        (count, int(np.ceil(box * unit)))
        for count, box in ((1100, 2), (300, 3), (100, 4), (32, 6), (24, 9), (16, 16))
    )


class Raster(NamedTuple):
    """What each pixel sees: `triangle [S,S]` (-1: nothing), `weight [S,S,3]` of its corners (they sum to 1, correct in
    perspective), `depth [S,S]` in the unit of z (infinite: nothing); `lost` triangles that did not fit the plan."""

    triangle: jax.Array
    weight: jax.Array
    depth: jax.Array
    lost: jax.Array


def rasterise(points: jax.Array, triangles: jax.Array, size_px: int, plan: Plan) -> Raster:
    """Draws a mesh.

    Args:
      points: [V, 3], x right and y down in px (pixel (row i, column j) has its centre at (j + 0.5, i + 0.5)), z > 0
        away from the viewer.
      triangles: [T, 3] integers, counter-clockwise from outside in a right-handed frame (x right, y down, z away).
      size_px: side S of the square image.
      plan: boxes; a triangle that finds none is not drawn, and counted in `lost`.

    Raises:
      ValueError: more than MOST_TRIANGLES triangles, or boxes that shrink.
    """
    count = triangles.shape[0]
    if count > MOST_TRIANGLES:
        raise ValueError(f"{count} triangles, at most {MOST_TRIANGLES} can be drawn")
    if not plan or any(a[1] > b[1] for a, b in itertools.pairwise(plan)):
        raise ValueError(f"the boxes of a plan must not shrink, got {plan}")
    corners = points[triangles]
    low = jnp.min(corners[:, :, :2], axis=1)
    high = jnp.max(corners[:, :, :2], axis=1)
    seen = (_area(corners) > 0) & jnp.all(high > 0, axis=1) & jnp.all(low < size_px, axis=1)
    first = jnp.ceil(low - 0.5)
    reach = jnp.ceil(high - 0.5) - first  # how many pixel centres lie between its ends
    span = jnp.max(reach, axis=1)
    waiting = seen & jnp.all(reach > 0, axis=1)
    depths = jnp.min(points[:, 2]), jnp.max(points[:, 2])
    buffer = jnp.full(size_px * size_px + 1, _EMPTY)
    for room, box_px in plan:
        fits = waiting & (span <= box_px)
        taken = fits & (jnp.cumsum(fits) <= room)
        chosen = jnp.flatnonzero(taken, size=room, fill_value=count)
        where, key = _tests(corners[chosen], first[chosen], chosen, depths, size_px, box_px)
        key = jnp.where((chosen < count)[:, None], key, _EMPTY)
        buffer = buffer.at[where.ravel()].min(key.ravel())
        waiting &= ~taken
    buffer = buffer[:-1].reshape(size_px, size_px)
    hit = buffer != _EMPTY
    number = jnp.where(hit, (buffer & MOST_TRIANGLES).astype(jnp.int32), -1)
    middle = jnp.arange(size_px, dtype=points.dtype) + 0.5
    x, y = jnp.meshgrid(middle, middle)
    weight, depth = _weights(corners[jnp.maximum(number, 0)], x, y)
    return Raster(
        number, jnp.where(hit[..., None], weight, 0.0), jnp.where(hit, depth, jnp.inf), jnp.sum(waiting)
    )


def interpolate(raster: Raster, triangles: jax.Array, values: jax.Array) -> jax.Array:
    """What vertices carry, `values [V,C]`, where pixels see it: `[S,S,C]`, 0 where they see nothing."""
    held = values[triangles[jnp.maximum(raster.triangle, 0)]]
    return jnp.sum(held * raster.weight[..., None], axis=2)


def vertex_normals(points: jax.Array, triangles: jax.Array) -> jax.Array:
    """Unit normals `[V,3]`, outwards, of vertices `[V,3]`: the mean over faces, weighted by area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    face = jnp.cross(b - a, c - a)
    total = jnp.zeros_like(points).at[triangles.ravel()].add(jnp.repeat(face, 3, axis=0))
    return total / (jnp.sqrt(jnp.sum(total**2, axis=1, keepdims=True)) + 1e-12)


def _area(corners: jax.Array) -> jax.Array:
    """Twice the signed area `[...]` of `[...,3,>=2]`: positive where a face looks at the viewer."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    return _cross(c[..., :2] - a[..., :2], b[..., :2] - a[..., :2])


def _cross(u: jax.Array, v: jax.Array) -> jax.Array:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _weights(corners: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights `[...,3]` of corners `[...,3,3]` and depth `[...]` at pixels, correct in perspective."""
    flat = _flat(corners, x, y) / _area(corners)[..., None]
    inverse = flat / corners[..., 2]
    depth = 1.0 / jnp.sum(inverse, axis=-1)
    return inverse * depth[..., None], depth


def _flat(corners: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Areas `[...,3]` opposite each corner: what the weights are in the picture's plane, not divided."""
    areas = []
    for i in range(3):
        b, c = corners[..., (i + 1) % 3, :2], corners[..., (i + 2) % 3, :2]
        areas.append((c[..., 0] - x) * (b[..., 1] - y) - (c[..., 1] - y) * (b[..., 0] - x))
    return jnp.stack(areas, axis=-1)


def _tests(
    corners: jax.Array,
    first: jax.Array,
    numbers: jax.Array,
    depths: tuple[jax.Array, jax.Array],
    size_px: int,
    box_px: int,
) -> tuple[jax.Array, jax.Array]:
    """Pixels `[T,box*box]` (one behind the last for none) and packed keys of every test."""
    step = jnp.arange(box_px, dtype=corners.dtype)
    dx, dy = (part.ravel()[None, :] for part in jnp.meshgrid(step, step))
    column, row = first[:, :1] + dx, first[:, 1:] + dy
    areas = _flat(corners[:, None], column + 0.5, row + 0.5)
    inside = jnp.all(areas >= 0, axis=-1)
    inside &= (column >= 0) & (column < size_px) & (row >= 0) & (row < size_px)
    inverse = jnp.sum(areas / corners[:, None, :, 2], axis=-1) / jnp.maximum(_area(corners), 1e-12)[:, None]
    near, far = depths
    share = (1.0 / jnp.maximum(inverse, 1e-12) - near) / jnp.maximum(far - near, 1e-6)
    level = (jnp.clip(share, 0.0, 1.0) * _DEPTHS).astype(jnp.uint32)
    key = (level << _NUMBER_BITS) | numbers.astype(jnp.uint32)[:, None]
    pixel = (row * size_px + column).astype(jnp.int32)
    return jnp.where(inside, pixel, size_px * size_px), jnp.where(inside, key, _EMPTY)
