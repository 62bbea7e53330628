"""Distillation for keypoint regressors: the teacher's output and its attention maps as loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from research.pytrees import nearest
from research.squeeze.transform import IDENTITY, LOSS, Context, Link, Setting, Transform


def attention_map(features: jax.Array) -> jax.Array:
    """`[N,H,W,C]` -> `[N,H*W]` of length 1: mean square over channels (Zagoruyko & Komodakis 2017, eq. 2).

    A plane of zeros maps to zeros, with gradient zero.
    """
    energy = jnp.mean(jnp.square(features), axis=3).reshape(features.shape[0], -1)
    return energy * jax.lax.rsqrt(jnp.sum(jnp.square(energy), axis=1, keepdims=True) + 1e-12)


def attention_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Mean over images of the squared distance of two attention maps. ValueError: planes of two sizes."""
    mine, its = student.shape[1:3], teacher.shape[1:3]
    if mine != its:
        raise ValueError(f"attention transfer between planes {mine} and {its}: pair sites of one size")
    return jnp.mean(jnp.sum(jnp.square(attention_map(student) - attention_map(teacher)), axis=1))


@dataclass(frozen=True)
class Distill(Link):
    """Output distillation (mean absolute distance to the teacher's keypoints) and attention transfer.

    `pairs` lists (student site, teacher site) of equal height and width.
    """

    output: float = 1.0
    attention: float = 0.05
    pairs: tuple[tuple[str, str], ...] = ()
    kind: ClassVar[int] = LOSS
    taught: ClassVar[bool] = True

    def build(self, setting: Setting) -> Transform:
        """Terms `output` and, with pairs, `attention`.

        ValueError without a teacher or for a site the student lacks; at trace time for one the teacher lacks.
        """
        if setting.teacher is None:
            raise ValueError("distillation needs a teacher: name one, as in Track(..., teacher='teacher')")
        teach = setting.teacher
        for site, _ in self.pairs:
            _tap(dict.fromkeys(setting.sites), site, "student")

        def terms(ctx: Context) -> dict[str, jax.Array]:
            taught, taught_taps = jax.lax.stop_gradient(teach(ctx.frozen, ctx.batch["image"]))
            out = {"output": self.output * jnp.mean(jnp.abs(ctx.outputs - taught))}
            if self.pairs:
                losses = [
                    attention_loss(_tap(ctx.taps, a, "student"), _tap(taught_taps, b, "teacher"))
                    for a, b in self.pairs
                ]
                out["attention"] = self.attention * jnp.mean(jnp.stack(losses))
            return out

        return IDENTITY._replace(terms=terms)

    def smoke(self) -> Distill:
        """One pair of sites that the tiny network has."""
        return replace(self, pairs=(("b1/add", "b1/add"),))


def _tap(taps: Mapping[str, Any], site: str, who: str) -> Any:
    if site not in taps:
        raise ValueError(f"the {who} has no site {site!r}; {nearest(site, taps)}")
    return taps[site]
