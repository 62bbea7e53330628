"""What stands behind and before a hand: dead leaves (natural images' edges and scales), and noise of many sizes.

Dead leaves: shapes of all sizes that hide one another, whose statistics are those of photographs (Lee, Mumford and
Huang, 2001). All grey, in the display's brightness 0..1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.hand.chance import bell, between, share

LEAVES: int = 14
_GRIDS = (3, 6, 12, 24)
LEAF_NUMBERS: int = 12
BACKDROP_NUMBERS: int = 3 + LEAF_NUMBERS * LEAVES + sum(n * n for n in _GRIDS) + len(_GRIDS)


class Leaves(NamedTuple):
    """K shapes, far ones first, all `[K]` but `at`, `slope` [K,2]: centre and half sides in crops, turn in rad,
    roundness (1: an ellipse, 0: a rectangle), grey, its slope across the shape, and stripes' strength and count."""

    at: jax.Array
    half: jax.Array
    turn: jax.Array
    round: jax.Array
    grey: jax.Array
    slope: jax.Array
    stripes: jax.Array
    stripe_count: jax.Array


class Backdrop(NamedTuple):
    """A wall's grey and slope [2], the leaves before it, and the noise over all: grids and their strengths."""

    wall: jax.Array
    slope: jax.Array
    leaves: Leaves
    grids: tuple[jax.Array, ...]
    strength: jax.Array


def sample_leaves(u: jax.Array, skin: jax.Array, least: float, most: float) -> Leaves:
    """K leaves from numbers `[K,12]`: sizes from `least` to `most` crops; some as bright and round as `skin`."""
    flesh = u[:, 0] < 0.25
    radius = least * (most / least) ** (u[:, 1] ** 1.5)
    aspect = jnp.exp(0.6 * bell(u[:, 2]))
    half = jnp.stack([radius * aspect, radius / aspect], -1)
    grey = jnp.where(flesh, skin * between(u[:, 5], 0.6, 1.15), between(u[:, 5], 0.02, 1.0))
    slope = 0.25 * jnp.stack([bell(u[:, 6]), bell(u[:, 7])], -1) * grey[:, None]
    stripes = jnp.where(u[:, 8] < 0.2, 0.25 * u[:, 9], 0.0) * grey
    return Leaves(
        between(u[:, 3:5], -0.15, 1.15),
        half,
        2 * np.pi * u[:, 10],
        jnp.where(flesh, 1.0, jnp.where(u[:, 0] < 0.55, 1.0, 0.0)),
        grey,
        slope,
        stripes,
        between(u[:, 11], 1.0, 6.0),
    )


def sample_backdrop(u: jax.Array, skin: jax.Array) -> Backdrop:
    """One backdrop from BACKDROP_NUMBERS uniform numbers."""
    u_wall, u_leaves, u_strength, *u_grids = share(
        u, (3,), (LEAVES, LEAF_NUMBERS), (len(_GRIDS),), *((n, n) for n in _GRIDS)
    )
    leaves = sample_leaves(u_leaves, skin, 0.03, 0.8)
    gone = jnp.arange(LEAVES) < jnp.floor(LEAVES * u_wall[2])  # from a bare wall to all leaves
    leaves = leaves._replace(at=jnp.where(gone[:, None], 9.0, leaves.at))
    strength = 0.16 * u_strength**2
    return Backdrop(
        u_wall[0], 0.3 * bell(u_wall[1]) * jnp.ones(2), leaves, tuple(g - 0.5 for g in u_grids), strength
    )


def paint(image: jax.Array, leaves: Leaves, x: jax.Array, y: jax.Array, edge: float) -> jax.Array:
    """The leaves over `image [H,H]` one after another; `x [1,H]`, `y [H,1]` in crops, `edge` a soft edge's width."""
    for k in range(leaves.grey.shape[0]):
        leaf = jax.tree.map(lambda field, k=k: field[k], leaves)
        across, down = _place(leaf, x, y)
        wave = jnp.abs(across * leaf.stripe_count - jnp.round(across * leaf.stripe_count)) * 4 - 1
        grey = leaf.grey + leaf.slope[0] * across + leaf.slope[1] * down + leaf.stripes * wave
        grey = grey - 0.25 * leaf.round * leaf.grey * (across * across + down * down)
        image = image + _cover(leaf, across, down, edge) * (grey - image)
    return image


def cover(leaves: Leaves, x: jax.Array, y: jax.Array, edge: float) -> jax.Array:
    """The largest share `[...]` that a leaf covers at `x`, `y` in crops."""
    shares = []
    for k in range(leaves.grey.shape[0]):
        leaf = jax.tree.map(lambda field, k=k: field[k], leaves)
        shares.append(_cover(leaf, *_place(leaf, x, y), edge))
    return jnp.max(jnp.stack(shares), axis=0)


def _place(leaf: Leaves, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Places in half sides of one leaf."""
    cos, sin = jnp.cos(leaf.turn), jnp.sin(leaf.turn)
    dx, dy = x - leaf.at[0], y - leaf.at[1]
    return (cos * dx + sin * dy) / leaf.half[0], (cos * dy - sin * dx) / leaf.half[1]


def _cover(leaf: Leaves, across: jax.Array, down: jax.Array, edge: float) -> jax.Array:
    box = jnp.maximum(jnp.abs(across), jnp.abs(down))
    far = jnp.where(leaf.round > 0.5, across * across + down * down, box * box)
    return jnp.clip((1.0 - far) * (0.5 * jnp.min(leaf.half) / edge) + 0.5, 0.0, 1.0)


def noise(grids: tuple[jax.Array, ...], strength: jax.Array, size: int) -> jax.Array:
    """`[size,size]`: coarse grids of random numbers, interpolated and summed."""
    total = jnp.zeros((size, size))
    for k, grid in enumerate(grids):
        spread = jnp.asarray(_spread(size, grid.shape[0]))
        total += strength[k] * (spread @ grid @ spread.T)
    return total


def _spread(size: int, points: int) -> np.ndarray:
    """Linear interpolation from `points` to `size` places `[size,points]`."""
    at = np.linspace(0, points - 1, size)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(points)[None, :])).astype(np.float32)
