"""Backdrops: what a leaf covers is what it paints, and every draw is another wall."""

import jax
import jax.numpy as jnp
import numpy as np

from research.data.backdrop import (
    BACKDROP_NUMBERS,
    LEAF_NUMBERS,
    cover,
    paint,
    sample_backdrop,
    sample_leaves,
)

AT = (np.arange(24) + 0.5) / 24
X, Y = jnp.asarray(AT)[None, :], jnp.asarray(AT)[:, None]


def test_a_leaf_paints_where_it_covers_and_nowhere_else() -> None:
    leaves = sample_leaves(jax.random.uniform(jax.random.key(4), (3, LEAF_NUMBERS)), jnp.asarray(0.4), 0.05, 0.3)
    blank = jnp.full((24, 24), -5.0)
    painted, share = np.asarray(paint(blank, leaves, X, Y, 0.02)), np.asarray(cover(leaves, X, Y, 0.02))
    assert share.min() == 0
    assert share.max() <= 1
    np.testing.assert_array_equal(painted[share == 0], -5.0)
    assert (painted[share > 0.999] > -1).all()


def test_leaves_are_as_large_as_asked() -> None:
    leaves = sample_leaves(jax.random.uniform(jax.random.key(1), (200, LEAF_NUMBERS)), jnp.asarray(0.4), 0.05, 0.3)
    size = np.sqrt(np.prod(np.asarray(leaves.half), axis=1))
    assert 0.05 <= size.min() < 0.08
    assert 0.2 < size.max() <= 0.3 + 1e-6


def test_every_draw_is_another_wall() -> None:
    walls = [
        float(sample_backdrop(jax.random.uniform(jax.random.key(s), (BACKDROP_NUMBERS,)), jnp.asarray(0.4)).wall)
        for s in range(5)
    ]
    assert len(set(walls)) == 5
