"""The augmented Lagrangian of one inequality: its pieces, its gradients, and where ascent ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.squeeze.budget import augmented_lagrangian

LOSS = jax.jit(jax.value_and_grad(augmented_lagrangian, (0, 1)))
EXCESS = st.floats(-3, 3, width=32)
MULTIPLIER = st.floats(0, 4, width=32)
PENALTY = st.floats(0.25, 8, width=32)


@given(EXCESS, MULTIPLIER, PENALTY)
def test_values_and_gradients_are_those_of_the_two_pieces(e: float, mu: float, rho: float) -> None:
    value, (into_excess, into_multiplier) = LOSS(e, mu, rho)
    if mu + rho * e > 0:
        expected = mu * e + 0.5 * rho * e * e, mu + rho * e, e
    else:
        expected = -mu * mu / (2 * rho), 0.0, -mu / rho
    np.testing.assert_allclose((value, into_excess, into_multiplier), expected, rtol=1e-4, atol=1e-4)
    # what the multiplier climbs is the violation, clipped so that one step of 1 / penalty ends at zero
    np.testing.assert_allclose(into_multiplier, max(e, -mu / rho), rtol=1e-4, atol=1e-5)


def test_a_budget_that_is_met_asks_for_nothing() -> None:
    value, grads = LOSS(-0.5, 0.0, 2.0)
    assert (float(value), *map(float, grads)) == (0.0, 0.0, 0.0)
    value, grads = LOSS(0.5, 0.0, 2.0)
    assert (float(value), *map(float, grads)) == (0.25, 1.0, 0.5)


@pytest.mark.parametrize(("wish", "best", "price"), [(3.0, 1.0, 2.0), (0.5, 0.5, 0.0)])
def test_descent_and_ascent_end_at_the_constrained_optimum(wish: float, best: float, price: float) -> None:
    """Minimise (x - wish)^2 / 2 with x <= 1: x = min(wish, 1), multiplier = max(wish - 1, 0)."""

    def lagrangian(x: jax.Array, mu: jax.Array) -> jax.Array:
        return 0.5 * jnp.square(x - wish) + augmented_lagrangian(x - 1.0, mu, 1.0)

    def step(_: int, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        down, up = jax.grad(lagrangian, (0, 1))(*at)
        return at[0] - 0.2 * down, jnp.maximum(at[1] + 0.2 * up, 0.0)

    x, mu = jax.lax.fori_loop(0, 400, step, (jnp.zeros(()), jnp.zeros(())))
    assert float(x) == pytest.approx(best, abs=1e-3)
    assert float(mu) == pytest.approx(price, abs=1e-3)
