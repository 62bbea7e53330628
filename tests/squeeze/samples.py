"""One tiny network with random weights, and the setting and context that links see of it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research import nets
from research.nets import Block, HandNet
from research.pytrees import flatten, map_paths
from research.squeeze import Context, Setting

Tree = Any
# b0 has a residual, b1 a stride and a 5x5 kernel; 9 px -> 5 x 5 -> 3 x 3
NET = HandNet(9, 4, (Block(8, 4), Block(12, 6, 5, 2)), 3)
LANE = 4
NOW = jnp.zeros((), jnp.int32)
KEY = jax.random.key(0)


def images(count: int = 2, seed: int = 0) -> jax.Array:
    """`[count,9,9]` grey noise in 0..1."""
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(count, 9, 9)), jnp.float32)


def weights(net: HandNet = NET, seed: int = 0) -> tuple[Tree, Tree]:
    """Random `(params, norm_stats)`: every vector drawn, variances positive, some norm scales negative."""
    rng = np.random.default_rng(seed)

    def draw(path: str, leaf: Any) -> jax.Array:
        low, high = {"var": (0.5, 2.0), "scale": (-0.5, 1.5)}.get(path.rsplit("/", 1)[-1], (-0.5, 0.5))
        gain = 2.0 * float(np.prod(leaf.shape[:-1])) ** -0.5 if len(leaf.shape) > 1 else 1.0
        return jnp.asarray(gain * rng.uniform(low, high, leaf.shape), jnp.float32)

    params, norm_stats = nets.shapes(net)
    return map_paths(draw, params), map_paths(draw, norm_stats)


def linear_ms(widths: Mapping[str, jax.Array]) -> jax.Array:
    """A hundredth of a millisecond a channel; groups left out cost nothing."""
    return 0.01 * sum(widths.values(), jnp.zeros(()))


def setting(net: HandNet = NET, latency_ms: Callable = linear_ms, teacher: Callable | None = None) -> Setting:
    """What a link may know of a network."""
    params, _ = nets.shapes(net)
    return Setting(tuple(flatten(params)), net.sites(), net.groups(), latency_ms, teacher)


def context(**fields: Any) -> Context:
    """A context with the fields given and empty others."""
    empty = {name: {} for name in Context._fields} | {"outputs": jnp.zeros((1, 21, 2)), "step": NOW}
    return Context(**(empty | fields))
