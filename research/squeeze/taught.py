"""Distillation from features that travel with the batch: a teacher that ran once, before training (data.taught)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from research.pytrees import nearest
from research.spec import TAUGHT
from research.squeeze.distill import attention_map
from research.squeeze.transform import IDENTITY, LOSS, Context, Link, Setting, Transform


def energy_loss(student: jax.Array, energy: jax.Array) -> jax.Array:
    """Attention transfer from a stored plane: features `[N,H,W,C]`, energy `[N,h,w]` resized to H x W."""
    plane = (len(energy), *student.shape[1:3])
    resized = jax.image.resize(energy, plane, "linear", antialias=True).reshape(len(energy), -1)
    length = jax.lax.rsqrt(jnp.sum(jnp.square(resized), axis=1, keepdims=True) + 1e-12)
    return jnp.mean(jnp.sum(jnp.square(attention_map(student) - resized * length), axis=1))


def similarity(features: jax.Array) -> jax.Array:
    """`[N,C]` -> `[N,N]`: products of examples, less the batch's mean, each row of length 1."""
    centred = features - jnp.mean(features, axis=0, keepdims=True)
    products = centred @ centred.T
    return products * jax.lax.rsqrt(jnp.sum(jnp.square(products), axis=1, keepdims=True) + 1e-12)


def mimicry_loss(student: jax.Array, means: jax.Array) -> jax.Array:
    """Similarity-preserving mimicry (Tung & Mori, ICCV 2019, eq. 4): which hands of a batch look alike to whom.

    Features `[N,H,W,C]` and channel means `[N,c]` of the teacher; needs no equal widths, so no projection to learn.
    """
    mine = similarity(jnp.mean(student, axis=(1, 2)))
    return jnp.mean(jnp.square(mine - similarity(means))) * len(means)


@dataclass(frozen=True)
class Taught(Link):
    """Output distillation, attention transfer and mimicry, each with its weight, from a `TaughtHands` data set.

    `pairs` lists (student site, teacher tap); a tap must be among the taps of the data set.
    """

    output: float = 0.5
    attention: float = 0.05
    mimicry: float = 0.05
    pairs: tuple[tuple[str, str], ...] = ()
    kind: ClassVar[int] = LOSS

    def build(self, setting: Setting) -> Transform:
        """Terms `output` and, with pairs, `attention` and `mimicry`.

        ValueError for a site the student lacks; at trace time where the batch has no features, or not of a tap.
        """
        for site, _ in self.pairs:
            if site not in setting.sites:
                raise ValueError(f"the student has no site {site!r}; {nearest(site, setting.sites)}")

        def terms(ctx: Context) -> dict[str, jax.Array]:
            apart = ctx.outputs - _feature(ctx.batch, "keypoints")
            out = {"output": self.output * jnp.mean(jnp.abs(apart))}
            for name, weight, loss in (
                ("energy", self.attention, energy_loss),
                ("mean", self.mimicry, mimicry_loss),
            ):
                losses = [loss(ctx.taps[a], _feature(ctx.batch, f"{name}/{b}")) for a, b in self.pairs]
                if losses:
                    term = "attention" if name == "energy" else "mimicry"
                    out[term] = weight * jnp.mean(jnp.stack(losses))
            return out

        return IDENTITY._replace(terms=terms)

    def smoke(self) -> Taught:
        """One pair with a site that the tiny network has."""
        return replace(self, pairs=tuple(("b1/add", tap) for _, tap in self.pairs[:1]))


def _feature(batch: Mapping[str, Any], name: str) -> Any:
    key = f"{TAUGHT}{name}"
    if key not in batch:
        raise ValueError(
            f"the batch holds no {key!r}: Taught needs data=TaughtHands(...) with that tap among its taps"
        )
    return batch[key]
