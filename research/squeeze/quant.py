"""Fake quantisation for training: weights as a view, activations at sites (Jacob et al. 2018, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from research.pytrees import map_paths, select, straight_through
from research.squeeze.transform import IDENTITY, PRECISION, Context, Link, Setting, SiteFn, Transform

Tree = Any


def fake_quant_weights(kernel: jax.Array, bits: int) -> jax.Array:
    """Symmetric rounding to at most `2^(bits-1) - 1` steps either way, one scale per output channel (last).

    `kernel [..., O]`, same shape out. Zeros stay zeros; the gradient passes through unchanged.
    """
    top = 2.0 ** (bits - 1) - 1.0
    scale = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)), keepdims=True) / top
    scale = jax.lax.stop_gradient(jnp.maximum(scale, 1e-12))
    return straight_through(jnp.clip(jnp.round(kernel / scale), -top, top) * scale, kernel)


def fake_quant_range(x: jax.Array, low: jax.Array, high: jax.Array, bits: int) -> jax.Array:
    """Affine rounding of `x` to `2^bits` values over `[low, high]` (scalars) widened to hold 0.

    The zero point is rounded, so 0 stays 0; gradient inside the range only.
    """
    low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
    scale = jnp.maximum((high - low) / (2.0**bits - 1.0), 1e-12)
    zero = jnp.round(-low / scale)
    clipped = jnp.clip(x, -zero * scale, (2.0**bits - 1.0 - zero) * scale)
    return straight_through(jnp.round(clipped / scale) * scale, clipped)


@dataclass(frozen=True)
class FakeQuant(Link):
    """Quantisation-aware training: kernels matched by `where`, activations at `sites`.

    Ranges are extremes averaged with `momentum`; an activation is left alone until its range has been seen.
    """

    bits: int = 8
    momentum: float = 0.99
    where: tuple[str, ...] = ("*/kernel",)
    sites: tuple[str, ...] = ("*",)
    kind: ClassVar[int] = PRECISION

    def build(self, setting: Setting) -> Transform:
        """View on kernels, functions at sites, ranges in the state. ValueError for a rule without a match."""
        kernels = frozenset(select(self.where, setting.paths, "quantisation rule"))
        sites = select(self.sites, setting.sites, "site rule")

        def init(key: jax.Array, params: Tree) -> tuple[Tree, Tree]:
            return {}, {site: jnp.zeros(2) for site in sites}

        def view(params: Tree, learned: Tree, state: Tree, step: jax.Array, key: jax.Array) -> Tree:
            return map_paths(lambda p, w: fake_quant_weights(w, self.bits) if p in kernels else w, params)

        def at(low: jax.Array, high: jax.Array) -> SiteFn:
            return lambda x: jnp.where(high > low, fake_quant_range(x, low, high, self.bits), x)

        def site_fns(learned: Tree, state: Tree, step: jax.Array) -> dict[str, SiteFn]:
            return {site: at(state[site][0], state[site][1]) for site in sites}

        def update(state: Tree, ctx: Context) -> Tree:
            def track(site: str) -> jax.Array:
                seen = jnp.stack([jnp.min(ctx.taps[site]), jnp.max(ctx.taps[site])])
                empty = jnp.all(state[site] == 0.0)
                return jnp.where(empty, seen, self.momentum * state[site] + (1.0 - self.momentum) * seen)

            return {site: jax.lax.stop_gradient(track(site)) for site in sites}

        return IDENTITY._replace(init=init, view=view, sites=site_fns, update=update)
