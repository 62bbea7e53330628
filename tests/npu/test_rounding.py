"""Tiles are counted exactly, and the smooth rounding differs from the exact one in its gradient only."""

import jax
import jax.numpy as jnp
from hypothesis import given
from hypothesis import strategies as st

from research.npu.rounding import EXACT, SMOOTH

COUNTS = st.integers(1, 5000)


@given(COUNTS, st.integers(1, 256))
def test_tiles_is_integer_ceiling(amount: int, tile: int) -> None:
    expected = -(-amount // tile)
    for rounding in (EXACT, SMOOTH):
        assert float(rounding.tiles(jnp.float32(amount), float(tile))) == expected
        assert float(rounding.up(jnp.float32(amount), float(tile))) == expected * tile


@given(st.floats(0.0, 1000.0, width=32))
def test_floor_is_never_above(x: float) -> None:
    floor = float(EXACT.floor(jnp.float32(x)))
    assert floor <= x + 1e-3
    assert floor > x - 1
    assert float(SMOOTH.floor(jnp.float32(x))) == floor


def test_gradient_is_flat_or_straight() -> None:
    x = jnp.float32(40.5)
    assert float(jax.grad(lambda v: EXACT.up(v, 16.0))(x)) == 0.0
    assert float(jax.grad(lambda v: SMOOTH.up(v, 16.0))(x)) == 1.0
    assert float(jax.grad(SMOOTH.floor)(x)) == 1.0
