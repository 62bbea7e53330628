"""Ceilings and floors of tile counts: exact, with a straight-through gradient, or smooth.

The price of a layer is a staircase in its widths. Three readings of it:
  EXACT    the staircase; its gradient is zero on each step.
  THROUGH  the same values, but gradients pass as if nothing were rounded, x + stop(ceil(x) - x): for searches.
  SMOOTH   tiles can be cut, but there is at least one: ceil(x) is max(x, 1), floor(x) is x. Values are those of
           EXACT where all tiles are whole; gradients are those of the values, as gradient checks need them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_SLACK = 1e-4  # widths arrive as float32 and may sit a hair above a whole tile


class Rounding(NamedTuple):
    """The two roundings that a formula uses; both map an array to one of the same shape."""

    ceil: Callable[[jax.Array], jax.Array]
    floor: Callable[[jax.Array], jax.Array]

    def tiles(self, amount: jax.Array, tile: jax.Array | float) -> jax.Array:
        """How many tiles cover `amount`."""
        return self.ceil(amount / tile)

    def up(self, amount: jax.Array, tile: jax.Array | float) -> jax.Array:
        """`amount` rounded up to whole tiles."""
        return self.tiles(amount, tile) * tile


def _ceil(x: jax.Array) -> jax.Array:
    return jnp.ceil(x - _SLACK)


def _floor(x: jax.Array) -> jax.Array:
    return jnp.floor(x + _SLACK)


def _through(hard: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: x + jax.lax.stop_gradient(hard(x) - x)


EXACT = Rounding(_ceil, _floor)
THROUGH = Rounding(_through(_ceil), _through(_floor))
SMOOTH = Rounding(lambda x: jnp.maximum(x, 1.0), lambda x: x)
