"""Random numbers by the handful: a sampler is a function of a point of the unit cube.

One draw then feeds a whole scene, which compiles several times faster than a draw a quantity.
"""

import math

import jax
import jax.numpy as jnp


def draw(key: jax.Array, count: int) -> jax.Array:
    """`count` independent float32 numbers in (0, 1), never 0: a point [count] of the unit cube."""
    return jax.random.uniform(key, (count,), minval=1e-7)


def share(u: jax.Array, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """Splits numbers [n] into arrays of the given shapes, in order; ValueError unless that uses them all."""
    sizes = [math.prod(shape) for shape in shapes]
    if u.shape != (sum(sizes),):
        raise ValueError(f"shapes {list(shapes)} need {sum(sizes)} numbers, got shape {list(u.shape)}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [u[a : a + n].reshape(shape) for a, n, shape in zip(starts, sizes, shapes, strict=True)]


def between(u: jax.Array, low: float, high: float) -> jax.Array:
    """Uniform numbers in (0, 1) -> uniform in (low, high)."""
    return low + (high - low) * u


def bell(u: jax.Array) -> jax.Array:
    """Uniform numbers in (0, 1) -> standard normal, by the inverse of its distribution; within +-5.5."""
    return jnp.sqrt(2.0) * jax.lax.erf_inv(2.0 * u - 1.0)
