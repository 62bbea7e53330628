"""What a network is asked to do: the loss on keypoints, chosen by `optim.loss`, and on a head's probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from research import nets
from research.spec import Optim

WING, BEND = 0.1, 0.02
SPREAD = 1.0
"""Standard deviation of a target on an axis, in cells."""


def task_loss(keypoints: jax.Array, truth: jax.Array) -> jax.Array:
    """Mean distance of `[N,21,2]` keypoints in fractions of the crop, smooth below a thousandth of it."""
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(keypoints - truth), axis=2) + 1e-6))


def wing_loss(apart: jax.Array) -> jax.Array:
    """Mean wing loss of differences in fractions of the crop (Feng et al., CVPR 2018, eq. 5; w=.1, epsilon=.02)."""
    size = jnp.abs(apart)
    lift = WING - WING * jnp.log(1 + WING / BEND)
    return jnp.mean(jnp.where(size < WING, WING * jnp.log(1 + size / BEND), size - lift))


def axis_loss(raw: jax.Array, truth: jax.Array) -> jax.Array:
    """Mean cross-entropy of a head's axes against normal targets of `SPREAD` cells (SimCC's label smoothing).

    `raw`: logits of `nets.decode`; `truth [N,21,2]`. A joint outside the cells counts as at the nearest one.
    """
    chances, centres = nets.axes(raw)
    cell = centres[1] - centres[0]
    inside = jnp.clip(truth, centres[0], centres[-1])[..., None]
    wanted = jax.nn.softmax(
        -0.5 * jnp.square((centres[None, None, None, :] - inside) / (SPREAD * cell)), axis=3
    )
    return -jnp.mean(jnp.sum(wanted * chances, axis=3))


def task_terms(optim: Optim, keypoints: jax.Array, raw: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    """`task`, the loss `optim.loss` on keypoints `[N,21,2]`, and `axes` where the head puts out probabilities."""
    apart = keypoints - truth
    if optim.loss == "distance":
        terms = {"task": task_loss(keypoints, truth)}
    elif optim.loss == "l1":
        terms = {"task": jnp.mean(jnp.abs(apart))}
    elif optim.loss == "wing":
        terms = {"task": wing_loss(apart)}
    else:
        terms = {"task": jnp.mean(jnp.square(apart))}
    if raw.size != truth.size:
        terms["axes"] = optim.axes * axis_loss(raw, truth)
    return terms
