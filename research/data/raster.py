"""A z-buffer for small meshes of small triangles, all in fixed shapes: what brightness a pixel sees, and how far.

Triangles are sorted by width, and every triangle tests the pixels of a box, as wide as its rank in a usual hand asks
for. Nearness and brightness at a pixel are packed into one integer, so that one scatter-maximum decides both and
nothing is looked up again. That is for CPUs. An accelerator scatters one number after another: there every triangle
tests every pixel, which needs no order, no loop and no scatter. Inside a triangle everything is linear in the
picture's plane: edges, 1/z and brightness; a test divides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
_GREY_BITS = 12
_GREYS = 2**_GREY_BITS - 1
_LEVELS = 2 ** (31 - _GREY_BITS) - 1
_RANKS = (8, 32, 64, 128, 256, 512, 1024, 1408)
_BOXES = (0.18, 0.13, 0.085, 0.065, 0.058, 0.05, 0.044, 0.03, 0.02)
"""Boxes of the widest 8 triangles, the next 24 ..., in pictures: a usual hand's; wider ones take several passes."""
_NUMBER_BITS = 16
MOST_TRIANGLES: int = 2**_NUMBER_BITS - 1


class Raster(NamedTuple):
    """What each pixel sees: `depth [S,S]` in the unit of z (infinite: nothing), `grey [S,S]` in 0..1 (0: nothing)."""

    depth: jax.Array
    grey: jax.Array


def rasterise(
    points: jax.Array, triangles: jax.Array, grey: jax.Array, size_px: int, every: bool | None = None
) -> Raster:
    """Draws a mesh.

    Args:
      points: [V, 3], x right and y down in px (pixel (row i, column j) has its centre at (j + 0.5, i + 0.5)), z > 0
        away from the viewer.
      triangles: [T, 3] integers, counter-clockwise from outside in a right-handed frame (x right, y down, z away);
        those that face away are not drawn.
      grey: [V] in 0..1, interpolated over each triangle in the picture's plane, to 1/4095.
      size_px: side S of the square image.
      every: whether every triangle tests every pixel (equal to rounding); None: unless this is compiled for a CPU.

    Raises:
      ValueError: more than MOST_TRIANGLES triangles.
    """
    count = triangles.shape[0]
    if count > MOST_TRIANGLES:
        raise ValueError(f"{count} triangles, at most {MOST_TRIANGLES} can be drawn")
    corners = jnp.concatenate([points, grey[:, None]], axis=1).T[:, triangles.T]  # [4, 3, T]
    low, high = jnp.min(corners[:2], axis=1), jnp.max(corners[:2], axis=1)
    first = jnp.maximum(jnp.ceil(low - 0.5), 0.0)
    reach = jnp.minimum(jnp.ceil(high - 0.5), size_px) - first  # how many pixel centres lie between its ends
    area, planes = _planes(corners, first)
    drawn = (area > 0) & jnp.all(reach > 0, axis=0)
    near = 1.0 / jnp.min(points[:, 2])
    far = 1.0 / jnp.max(points[:, 2])
    scale = _LEVELS / jnp.maximum(near - far, 1e-9)
    planes = jnp.concatenate([planes, first], axis=0)
    planes = planes.at[9].add(-far).at[9:12].multiply(scale).at[12:15].multiply(_GREYS).at[12].add(0.5)
    span = jnp.where(drawn, jnp.max(reach, axis=0), 0.0).astype(jnp.int32)
    boxes, pixels = partial(_by_boxes, size_px), partial(_by_pixels, size_px)
    if every is None:
        buffer = jax.lax.platform_dependent(planes, span, cpu=boxes, default=pixels)
    else:
        buffer = (pixels if every else boxes)(planes, span)
    hit = buffer > 0
    depth = 1.0 / (far + (buffer >> _GREY_BITS).astype(jnp.float32) / scale)
    shade = (buffer & _GREYS).astype(jnp.float32) / _GREYS
    return Raster(jnp.where(hit, depth, jnp.inf), jnp.where(hit, shade, 0.0))


def apart(f: Callable[..., Tree], *operands: Tree) -> Tree:
    """`f(*operands)`, its operands stored first.

    XLA's CPU compiler would fuse what makes them into f and make them again for every element that reads them, without
    vector instructions. The operands of a branch are stored; this one is always taken. The first must be float arrays.
    """
    shapes = jax.eval_shape(f, *operands)
    ever = jax.tree.leaves(operands)[0].ravel()[0] < jnp.inf
    nothing = lambda *_: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)  # noqa: E731
    return jax.lax.cond(ever, f, nothing, *operands)


def _planes(corners: jax.Array, first: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Twice the area `[T]` (positive: faces the viewer) and planes `[15,T]`: three edges, 1/z, grey.

    A plane is its value at the centre of the pixel `first [2,T]` and its steps in x and y.
    """
    x, y = corners[0] - first[:1] - 0.5, corners[1] - first[1:] - 0.5
    area = (x[2] - x[0]) * (y[1] - y[0]) - (y[2] - y[0]) * (x[1] - x[0])
    edges = []
    for i in range(3):
        b, c = (i + 1) % 3, (i + 2) % 3
        edges.append(jnp.stack([x[c] * y[b] - y[c] * x[b], y[c] - y[b], x[b] - x[c]]))
    over = 1.0 / jnp.where(area > 0, area, 1.0)
    inverse = sum(edges[i] * (over / corners[2, i])[None] for i in range(3))
    grey = sum(edges[i] * (over * corners[3, i])[None] for i in range(3))
    edges[0] = edges[0].at[0].add(jnp.where(area > 0, 0.0, -jnp.inf))  # nothing is inside those that face away
    return area, jnp.concatenate([*edges, jnp.asarray(inverse), jnp.asarray(grey)])


def _by_pixels(size_px: int, planes: jax.Array, span: jax.Array) -> jax.Array:
    """The buffer `[S,S]` after all tests of `planes [17,T]`, each at every pixel."""
    del span
    at = jnp.arange(size_px, dtype=jnp.float32)
    rows = planes[:, :, None, None]
    dx, dy = at[None, None, :] - rows[15], at[None, :, None] - rows[16]
    value = [rows[3 * i] + dx * rows[3 * i + 1] + dy * rows[3 * i + 2] for i in range(5)]
    inside = (value[0] >= 0) & (value[1] >= 0) & (value[2] >= 0)
    return jnp.max(jnp.where(inside, _packed(value), 0), axis=0)


def _by_boxes(size_px: int, planes: jax.Array, span: jax.Array) -> jax.Array:
    """The buffer `[S,S]` after all tests of `planes [17,T]`, each in a box round a triangle of `span [T]` px."""
    count = planes.shape[1]
    order = jnp.sort(((size_px - span).astype(jnp.uint32) << _NUMBER_BITS) | jnp.arange(count, dtype=jnp.uint32))
    order = (order & MOST_TRIANGLES).astype(jnp.int32)  # the widest first
    ends = [min(rank, count) for rank in (0, *_RANKS, count)]

    def everything(planes: jax.Array, span: jax.Array) -> jax.Array:
        buffer = jnp.zeros(size_px * size_px + count, jnp.int32)
        for start, stop, box in zip(ends[:-1], ends[1:], _BOXES, strict=True):
            if start < stop:
                box_px = max(2, round(box * size_px))
                buffer = _drawn(buffer, planes[:, start:stop], span[start], size_px, box_px)
        return buffer

    buffer = apart(everything, planes[:, order], span[order])
    return buffer[: size_px * size_px].reshape(size_px, size_px)


def _packed(value: list[jax.Array]) -> jax.Array:
    """Nearness and grey, the last two values of a test, in one integer: the nearer the larger."""
    level = jnp.clip(value[3], 1.0, _LEVELS).astype(jnp.int32)
    return (level << _GREY_BITS) | jnp.clip(value[4], 0.0, _GREYS).astype(jnp.int32)


def _drawn(buffer: jax.Array, planes: jax.Array, widest: jax.Array, size_px: int, box_px: int) -> jax.Array:
    """The buffer after all tests of `planes [17,T]`, whose triangles span `widest` px at most: tile after tile."""
    step = np.arange(box_px, dtype=np.float32)
    dx, dy = (part.reshape(-1, 1) for part in np.meshgrid(step, step))
    tiles = -(-widest // box_px)

    def tests(here: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = [here[i : i + 1] for i in range(17)]
        value = [rows[3 * i] + dx * rows[3 * i + 1] + dy * rows[3 * i + 2] for i in range(5)]
        column, row = rows[15] + dx, rows[16] + dy
        inside = (value[0] >= 0) & (value[1] >= 0) & (value[2] >= 0) & (column < size_px) & (row < size_px)
        nowhere = size_px * size_px + np.arange(planes.shape[1], dtype=np.int32)[None]  # a place each
        pixel = jnp.where(inside, (row * size_px + column).astype(jnp.int32), nowhere)
        return pixel, _packed(value)

    def moved(k: jax.Array) -> jax.Array:
        x, y = box_px * (k % tiles), box_px * (k // tiles)
        there = planes[0:15:3] + x * planes[1:15:3] + y * planes[2:15:3]
        return planes.at[0:15:3].set(there).at[15].add(x).at[16].add(y)

    def tile(k: jax.Array, held: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        # What one turn scatters, the turn before computes: XLA would fuse both and then test pixel by pixel.
        buffer, *made = held
        buffer = buffer.at[made[0].ravel()].max(made[1].ravel(), mode="promise_in_bounds")
        made = jax.lax.cond(k + 1 < tiles * tiles, lambda: tests(moved(k + 1)), lambda: tuple(made))
        return buffer, *made

    return jax.lax.fori_loop(0, tiles * tiles, tile, (buffer, *tests(planes)))[0]
