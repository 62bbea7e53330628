"""A budget as a constraint: the augmented Lagrangian of an inequality (Bertsekas 1982, section 3.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def augmented_lagrangian(excess: jax.Array, multiplier: jax.Array, penalty: jax.Array | float) -> jax.Array:
    """Loss of the constraint `excess <= 0` (relative, 0 at the budget), a scalar; all arguments are scalars.

    `(max(0, multiplier + penalty * excess)^2 - multiplier^2) / (2 penalty)`, penalty > 0. Its gradient with
    respect to `multiplier` is `max(excess, -multiplier / penalty)`, the violation, so the optimiser ascends
    there (`train/optim.py`).
    """
    active = jnp.maximum(0.0, multiplier + penalty * excess)
    return 0.5 * (jnp.square(active) - jnp.square(multiplier)) / penalty
