"""Tiny networks and their weights, with norm statistics as far from fresh as training could bring them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research import nets
from research.nets import Block, HandNet
from research.pytrees import map_paths

# residual and not, odd and even planes (9 px image -> 5 x 5 -> 3 x 3), kernels 3, 5 and 1, strides 1 and 2
NET = HandNet(9, 4, (Block(8, 4), Block(12, 4, 5, 2), Block(8, 4, 1)), 3)
SMALL = HandNet(9, 4, (Block(8, 4), Block(12, 4, 3, 2)), 3)  # quick to compile


def images(net: HandNet, count: int = 2, seed: int = 0) -> jax.Array:
    """`[count,S,S]` grey noise in 0..1."""
    noise = np.random.default_rng(seed).uniform(size=(count, net.size_px, net.size_px))
    return jnp.asarray(noise, jnp.float32)


def weights(net: HandNet, seed: int = 0) -> tuple[Any, Any]:
    """Random `(params, norm_stats)`: every vector drawn, variances positive, some norm scales negative."""
    rng = np.random.default_rng(seed)

    def draw(path: str, leaf: Any) -> jax.Array:
        size = {"var": (0.5, 2.0), "scale": (-0.5, 1.5)}.get(path.rsplit("/", 1)[-1], (-0.5, 0.5))
        gain = 2.0 * max(np.prod(leaf.shape[:-1]), 1.0) ** -0.5 if len(leaf.shape) > 1 else 1.0
        return jnp.asarray(gain * rng.uniform(*size, leaf.shape), jnp.float32)

    params, norm_stats = nets.shapes(net)
    return map_paths(draw, params), map_paths(draw, norm_stats)
