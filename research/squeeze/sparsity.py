"""N:M structured sparsity trained by SR-STE (Zhou et al. 2021, arXiv:2102.04010)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from research.npu.table import LayerTable
from research.pytrees import flatten, map_paths, select, straight_through
from research.squeeze.transform import IDENTITY, SPARSITY, Context, Link, Setting, Transform

Tree = Any


def nm_mask(kernel: jax.Array, n: int, m: int) -> jax.Array:
    """0/1 mask of the `n` largest magnitudes in every `m` consecutive input channels (second-last axis).

    `kernel [..., C, O]`; C need not divide by m: a last short group of r channels keeps `min(n, r)`.
    Ties keep the earlier channel. Raises ValueError unless 0 < n <= m.
    """
    if not 0 < n <= m:
        raise ValueError(f"{n}:{m} is no sparsity: need 0 < n <= m")
    channels = kernel.shape[-2]
    short = -channels % m
    size = jnp.pad(jnp.abs(kernel), [(0, 0)] * (kernel.ndim - 2) + [(0, short), (0, 0)], constant_values=-1.0)
    groups = size.reshape(*size.shape[:-2], -1, m, size.shape[-1])
    columns = [groups[..., i, :] for i in range(m)]
    keep = []
    for i in range(m):  # rank by pairwise comparison: m is small and a sort of tiny groups is slow everywhere
        larger = [columns[j] >= columns[i] if j < i else columns[j] > columns[i] for j in range(m) if j != i]
        keep.append(sum((x.astype(jnp.int32) for x in larger), jnp.zeros(columns[i].shape, jnp.int32)) < n)
    mask = jnp.stack(keep, axis=-2).reshape(size.shape)
    return mask[..., :channels, :].astype(kernel.dtype)


@dataclass(frozen=True)
class NM(Link):
    """N:M sparsity on the kernels matched by `where`; `decay` pulls pruned weights to zero: masks settle."""

    n: int = 2
    m: int = 4
    decay: float = 2e-4
    where: tuple[str, ...] = ("*/expand/kernel", "*/project/kernel", "neck/kernel", "head/kernel")
    kind: ClassVar[int] = SPARSITY

    def paths(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """The kernels this link makes sparse. ValueError for a rule that matches nothing."""
        return select(self.where, paths, "sparsity rule")

    def build(self, setting: Setting) -> Transform:
        """View: masked weights with a straight-through gradient; term: SR-STE's decay of the pruned ones."""
        chosen = frozenset(self.paths(setting.paths))

        def view(params: Tree, learned: Tree, state: Tree, step: jax.Array, key: jax.Array) -> Tree:
            def masked(path: str, leaf: jax.Array) -> jax.Array:
                if path not in chosen:
                    return leaf
                return straight_through(leaf * nm_mask(jax.lax.stop_gradient(leaf), self.n, self.m), leaf)

            return map_paths(masked, params)

        def terms(ctx: Context) -> dict[str, jax.Array]:
            total = jnp.zeros(())
            for path, leaf in flatten(ctx.raw).items():
                if path in chosen:
                    pruned = 1.0 - nm_mask(jax.lax.stop_gradient(leaf), self.n, self.m)
                    total = total + 0.5 * jnp.sum(pruned * jnp.square(leaf))
            return {"decay": self.decay * total}

        return IDENTITY._replace(view=view, terms=terms)

    def price(self, table: LayerTable, kernels: tuple[str | None, ...]) -> LayerTable:
        """Rows whose kernel is matched are priced as 2:4; other ratios have no price of their own: dense."""
        if (self.n, self.m) != (2, 4):
            return table
        chosen = frozenset(self.paths(tuple(k for k in kernels if k)))
        flags = jnp.asarray([1.0 if k in chosen else 0.0 for k in kernels], table.sparse.dtype)
        return table._replace(sparse=jnp.maximum(table.sparse, flags))
