"""The optimiser: AdamW for weights, Adam for what transforms learn, ascent for the multipliers of constraints."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.pytrees import map_paths
from research.spec import Optim

Tree = Any
MULTIPLIER = "multiplier"


def learning_rate(
    step: jax.Array,
    steps: jax.Array | int,
    warmup: jax.Array | float,
    start: jax.Array | float = 1.0,
    end: jax.Array | float = 0.0,
) -> jax.Array:
    """Factor at a step of a stage: a cosine from `start` to `end`, ramped up linearly over the first `warmup` share."""
    progress = step / jnp.maximum(steps, 1)
    ramp = jnp.minimum(1.0, (step + 1) / jnp.maximum(warmup * steps, 1.0))
    return ramp * (end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0))))


def optimiser(optim: Optim, factor: jax.Array | float) -> optax.GradientTransformation:
    """Transformation of `{"params", "learned"}` gradients; its state's structure does not depend on any float.

    Multipliers (leaves of `learned` called "multiplier") climb their gradient, the violation, and stay >= 0.
    """
    weights = optax.chain(
        optax.clip_by_global_norm(optim.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(optim.weight_decay, mask=_kernels),
        optax.scale(-optim.lr * factor),
    )
    gates = optax.chain(optax.scale_by_adam(b2=0.99), optax.scale(-optim.gate_lr))
    multipliers = optax.chain(optax.scale(optim.dual_lr), optax.keep_params_nonnegative())
    return optax.partition({"weights": weights, "gates": gates, "multipliers": multipliers}, _labels)


def _labels(trainable: Tree) -> Tree:
    def label(path: str, _: Any) -> str:
        if path.startswith("params/"):
            return "weights"
        return "multipliers" if path.rsplit("/", 1)[-1] == MULTIPLIER else "gates"

    return map_paths(label, trainable)


def _kernels(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: getattr(leaf, "ndim", 0) > 1, params)
