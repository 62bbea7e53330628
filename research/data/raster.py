"""A z-buffer for small meshes of small triangles, all in fixed shapes: what brightness a pixel sees, and how far.

Every triangle tests the pixels of a box at its corner. Depth and brightness at a pixel are packed into one integer, so
that one scatter-minimum decides both and nothing is looked up again. Back faces are dropped first, and the few wide
triangles get wider boxes than the many small ones.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_GREY_BITS = 12
_GREYS = 2**_GREY_BITS - 1
_DEPTHS = 2 ** (32 - _GREY_BITS) - 2
_EMPTY = np.uint32(2**32 - 1)

Plan = tuple[tuple[int, int], ...]
"""How many triangles are drawn in boxes of how many px: (count, box_px), no box smaller than the one before.
A triangle takes the smallest box that is wide enough and still has room."""


def hand_plan(size_px: int) -> Plan:
    """Boxes for a hand and its arm in an image of side `size_px` that they nearly fill."""
    return tuple((max(4, 2048 // box**2), box) for box in (3, 5, 8, 12, 20, 40, size_px))


class Raster(NamedTuple):
    """What each pixel sees: `depth [S,S]` in the unit of z (infinite: nothing), `grey [S,S]` in 0..1 (0: nothing), and
    how many triangles were `lost` because they did not fit the plan."""

    depth: jax.Array
    grey: jax.Array
    lost: jax.Array


def rasterise(points: jax.Array, triangles: jax.Array, grey: jax.Array, size_px: int, plan: Plan) -> Raster:
    """Draws a mesh.

    Args:
      points: [V, 3], x right and y down in px (pixel (row i, column j) has its centre at (j + 0.5, i + 0.5)), z > 0
        away from the viewer.
      triangles: [T, 3] integers, counter-clockwise from outside in a right-handed frame (x right, y down, z away).
      grey: [V] in 0..1, interpolated over each triangle, correct in perspective, to 1/4095.
      size_px: side S of the square image.
      plan: boxes; a triangle that finds none is not drawn, and counted in `lost`.

    Raises:
      ValueError: boxes that shrink.
    """
    if not plan or any(a[1] > b[1] for a, b in itertools.pairwise(plan)):
        raise ValueError(f"the boxes of a plan must not shrink, got {plan}")
    count = triangles.shape[0]
    corners = jnp.concatenate([points, grey[:, None]], axis=1)[triangles]
    low = jnp.min(corners[:, :, :2], axis=1)
    high = jnp.max(corners[:, :, :2], axis=1)
    first = jnp.maximum(jnp.ceil(low - 0.5), 0.0)
    reach = jnp.minimum(jnp.ceil(high - 0.5), size_px) - first  # how many pixel centres lie between its ends
    waiting = (_area(corners) > 0) & jnp.all(reach > 0, axis=1)
    span = jnp.max(reach, axis=1)
    near, far = jnp.min(points[:, 2]), jnp.max(points[:, 2])
    scale = _DEPTHS / jnp.maximum(far - near, 1e-6)
    buffer = jnp.full(size_px * size_px + 1, _EMPTY)
    corners = jnp.pad(corners, ((0, 1), (0, 0), (0, 0)))  # the last is for nothing: no area
    first = jnp.pad(first, ((0, 1), (0, 0)))
    for room, box_px in plan:
        box = min(box_px, size_px)
        taken = waiting & (span <= box)
        waiting &= ~taken
        chosen = jnp.flatnonzero(taken, size=-(-count // room) * room, fill_value=count)

        def some(k: jax.Array, held: jax.Array, chosen: jax.Array = chosen, room: int = room, box: int = box) -> jax.Array:
            few = jax.lax.dynamic_slice(chosen, (k * room,), (room,))
            where, key = _tests(corners[few], first[few], (near, scale), size_px, box)
            return held.at[where.ravel()].min(key.ravel())

        buffer = jax.lax.fori_loop(0, -(-jnp.sum(taken) // room), some, buffer)
    buffer = buffer[:-1].reshape(size_px, size_px)
    hit = buffer != _EMPTY
    depth = near + (buffer >> _GREY_BITS).astype(jnp.float32) / scale
    shade = (buffer & _GREYS).astype(jnp.float32) / _GREYS
    return Raster(jnp.where(hit, depth, jnp.inf), jnp.where(hit, shade, 0.0), jnp.sum(waiting))


def _area(corners: jax.Array) -> jax.Array:
    """Twice the signed area `[...]` of `[...,3,>=2]`: positive where a face looks at the viewer."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    return (c[..., 0] - a[..., 0]) * (b[..., 1] - a[..., 1]) - (c[..., 1] - a[..., 1]) * (
        b[..., 0] - a[..., 0]
    )


def _tests(
    corners: jax.Array, first: jax.Array, depths: tuple[jax.Array, jax.Array], size_px: int, box_px: int
) -> tuple[jax.Array, jax.Array]:
    """Pixels `[T,box*box]` (one behind the last for none) and packed keys of every test of `corners [T,3,4]`."""
    step = np.arange(box_px, dtype=np.float32)
    dx, dy = (part.ravel()[None, :] for part in np.meshgrid(step, step))
    column, row = first[:, :1] + dx, first[:, 1:] + dy
    x, y = column + 0.5, row + 0.5
    inside = (column < size_px) & (row < size_px) & (_area(corners) > 0)[:, None]
    over, total = jnp.zeros_like(x), jnp.zeros_like(x)
    for i in range(3):
        b, c = corners[:, (i + 1) % 3, :, None], corners[:, (i + 2) % 3, :, None]
        area = (c[:, 0] - x) * (b[:, 1] - y) - (c[:, 1] - y) * (b[:, 0] - x)
        inside &= area >= 0
        pull = area / corners[:, i, 2, None]
        total += pull
        over += pull * corners[:, i, 3, None]
    near, scale = depths
    whole = jnp.maximum(total, 1e-12)
    depth = _area(corners)[:, None] / whole
    level = jnp.clip((depth - near) * scale, 0.0, _DEPTHS).astype(jnp.uint32)
    shade = jnp.clip(over / whole * _GREYS + 0.5, 0.0, _GREYS).astype(jnp.uint32)
    pixel = (row * size_px + column).astype(jnp.int32)
    return jnp.where(inside, pixel, size_px * size_px), jnp.where(
        inside, (level << _GREY_BITS) | shade, _EMPTY
    )
