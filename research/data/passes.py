"""Passes over a fixed set of pictures: a batch is a pure function of (set, seed, step).

Each epoch passes every picture once, in an order drawn from (seed, epoch), and varies it anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.data.augment import Augment, varied


class Stored(NamedTuple):
    """Pictures `[N,R,R]` in bytes, perhaps mapped from disk, and `keypoints [N,21,2]` in fractions of them."""

    picture: np.ndarray
    keypoints: np.ndarray


@functools.lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The permutation of `count` pictures in which an epoch of a seed passes them."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 11), epoch)
    return np.asarray(jax.random.permutation(key, count))


def passes(
    pictures: Callable[[int], Stored], augment: Augment, size_px: int
) -> Callable[[int, np.ndarray], dict[str, jax.Array]]:
    """`(seed, indices [B]) -> {"image" [B,S,S], "keypoints" [B,21,2]}`: examples of the endless training stream.

    `pictures(seed)` are those of a seed. Example `i` is picture `order(seed, i // N)[i % N]`, varied by a key of its
    own: alone as in any batch.
    """

    def at(seed: int, indices: np.ndarray) -> dict[str, jax.Array]:
        stored = pictures(seed)
        count = len(stored.picture)
        epochs, places = np.divmod(np.asarray(indices, np.int64), count)
        rows = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            rows[mine] = order(seed, int(epoch), count)[places[mine]]
        numbers = jnp.asarray(np.asarray(indices, np.uint32))
        return _varied(augment, size_px, stored.picture[rows], stored.keypoints[rows], seed, numbers)

    return at


@functools.partial(jax.jit, static_argnames=("augment", "size_px"))
def _varied(
    augment: Augment, size_px: int, pictures: jax.Array, points: jax.Array, seed: int, numbers: jax.Array
) -> dict[str, jax.Array]:
    root = jax.random.fold_in(jax.random.key(jnp.asarray(seed, jnp.uint32)), 12)
    keys = jax.vmap(lambda number: jax.random.fold_in(root, number))(numbers)
    return jax.vmap(lambda p, k, key: varied(augment, size_px, p, k, key))(pictures, points, keys)
