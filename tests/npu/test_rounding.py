"""Tiles are counted exactly; the other two roundings differ in their gradient, or between whole tiles only."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.rounding import EXACT, SMOOTH, THROUGH

COUNTS = st.integers(1, 5000)


@given(COUNTS, st.integers(1, 256))
def test_tiles_is_integer_ceiling(amount: int, tile: int) -> None:
    expected = -(-amount // tile)
    for rounding in (EXACT, THROUGH):
        assert float(rounding.tiles(jnp.float32(amount), float(tile))) == expected
        assert float(rounding.up(jnp.float32(amount), float(tile))) == expected * tile
    smooth = float(SMOOTH.tiles(jnp.float32(amount), float(tile)))
    assert max(expected - 1, 1) <= smooth <= expected
    if amount % tile == 0:
        assert smooth == expected


@given(st.floats(0.0, 1000.0, width=32))
def test_floor_is_never_above(x: float) -> None:
    floor = float(EXACT.floor(jnp.float32(x)))
    assert floor <= x + 1e-3
    assert floor > x - 1
    assert float(THROUGH.floor(jnp.float32(x))) == floor
    assert float(SMOOTH.floor(jnp.float32(x))) == jnp.float32(x)


@pytest.mark.parametrize("x", [5.0, 40.5, 300.0])
def test_gradient_is_flat_straight_or_that_of_the_values(x: float) -> None:
    slopes = [float(jax.grad(lambda v, r=r: r.up(v, 16.0))(x)) for r in (EXACT, THROUGH, SMOOTH)]
    assert slopes == [0.0, 1.0, float(x > 16)]
    assert float(jax.grad(THROUGH.floor)(x)) == 1.0
    left, right = (float(SMOOTH.up(jnp.float32(x + h), 16.0)) for h in (-0.25, 0.25))
    assert (right - left) / 0.5 == slopes[2]
