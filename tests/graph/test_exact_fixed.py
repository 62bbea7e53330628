"""Fixed-point arithmetic against exact fractions, real functions and a few values worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from math import exp, floor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph import exact_fixed as fixed
from research.graph.exact_fixed import Multiplier

LOW, HIGH = -(2**31), 2**31 - 1
INTS = st.lists(st.integers(LOW, HIGH), min_size=8, max_size=8)


def nearest(x: Fraction) -> int:
    """Halves away from zero."""
    return floor(x + Fraction(1, 2)) if x >= 0 else -floor(Fraction(1, 2) - x)


def test_multiply_worked_out_by_hand() -> None:
    # 0.375 = 0.75 * 2^-1: value 0.75 * 2^31, one bit to the right. 2 * 0.75 = 1.5 rounds up to 2, then 2 / 2 = 1;
    # -2 * 0.75 = -1.5 rounds up to -1, and -1 / 2 = -0.5 away from zero to -1; 4 * 0.75 = 3, 3 / 2 = 1.5 to 2.
    by = fixed.multiplier(0.375)
    assert (int(by.value), int(by.shift)) == (3 * 2**29, -1)
    with jax.enable_x64(True):
        x = jnp.asarray([0, 1, 2, 3, 4, -1, -2, -3, -4], jnp.int32)
        # a single rounding would make 0, 0, 1, 1, 2, 0, -1, -1, -2 of it
        assert fixed.rescale(x, by).tolist() == [0, 1, 1, 1, 2, -1, -1, -1, -2]
        assert fixed.rescale_wide(x.astype(jnp.int64), by).tolist() == [0, 0, 1, 1, 2, 0, -1, -1, -1]
        assert fixed.high_product(jnp.asarray([LOW, LOW, HIGH]), np.asarray([LOW, HIGH, HIGH])).tolist() == [
            HIGH, -HIGH, HIGH - 1
        ]  # fmt: skip
        assert fixed.rounding_shift(jnp.asarray([5, 6, -5, -6, -7, 0, HIGH]), 2).tolist() == [
            1,
            2,
            -1,
            -2,
            -2,
            0,
            2**29,
        ]


def test_multiplier_ends() -> None:
    made = fixed.multiplier(np.asarray([0.0, 2.0**-33, 1 - 2.0**-40, 1.0, -0.75, 3.0]))
    assert made.value.tolist() == [0, 0, 2**30, 2**30, -3 * 2**29, 3 * 2**29]
    assert made.shift.tolist() == [0, 0, 1, 1, 0, 2]


@given(st.floats(2.0**-30, 2.0**30))
def test_multiplier_is_the_nearest(real: float) -> None:
    made = fixed.multiplier(real)
    value = Fraction(int(made.value)) * Fraction(2) ** (int(made.shift) - 31)
    assert 2**30 <= made.value < 2**31
    assert abs(value / Fraction(real) - 1) <= Fraction(1, 2**31)


@given(INTS, st.integers(0, HIGH), st.integers(-31, 0))
def test_rescale_rounds_twice(values: list[int], value: int, shift: int) -> None:
    by = Multiplier(np.asarray(value), np.asarray(shift))
    with jax.enable_x64(True):
        got = fixed.rescale(jnp.asarray(values, jnp.int32), by).tolist()
    first = [floor(Fraction(v * value, 2**31) + Fraction(1, 2)) for v in values]
    assert got == [nearest(Fraction(v, 2**-shift)) for v in first]


@given(
    st.lists(st.integers(-(2**47), 2**47), min_size=4, max_size=4),
    st.integers(2**30, HIGH),
    st.integers(-31, 0),
)
def test_rescale_wide_rounds_once(values: list[int], value: int, shift: int) -> None:
    by = Multiplier(np.asarray(value), np.asarray(shift))
    reduced = min((value + 2**15) // 2**16, 2**15 - 1)
    wanted = [floor(Fraction(v * reduced, 2 ** (15 - shift)) + Fraction(1, 2)) for v in values]
    with jax.enable_x64(True):
        got = fixed.rescale_wide(jnp.asarray(values, jnp.int64), by).tolist()
    assert [(g - w) % 2**32 for g, w in zip(got, wanted, strict=True)] == [0] * 4  # modulo 2^32, as in C


@given(st.floats(-1e6, 1e6, width=32))
def test_away_rounds_halves_away_from_zero(value: float) -> None:
    got = fixed.away(np.float32(value))
    assert got.dtype == np.float32
    assert int(got) == nearest(Fraction(value))


def test_away_of_halves_and_their_neighbours() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))  # x + 0.5 would round it to 1
    assert fixed.away(np.asarray([0.5, -0.5, 2.5, -2.5, below], np.float32)).tolist() == [
        1, -1, 3, -3, 0
    ]  # fmt: skip


@given(st.integers(LOW, 0))
def test_exp_of_negative_is_exp(raw: int) -> None:
    with jax.enable_x64(True):
        got = int(fixed.exp_of_negative(jnp.asarray(raw, jnp.int32)))
    assert abs(got / 2**31 - exp(raw / 2**26)) < 3e-7


@given(st.integers(1, HIGH))
def test_reciprocal_is_one_over_x(x: int) -> None:
    with jax.enable_x64(True):
        value, shift = fixed.reciprocal(jnp.asarray(x, jnp.int32), 31)
    assert float(value) / 2**31 * 2.0 ** -int(shift) * x == pytest.approx(1, rel=1e-7)


@given(st.floats(1e-3, 0.1), st.integers(-128, 127))
def test_table_of_bytes_is_the_function(scale: float, zero: int) -> None:
    table = fixed.table_of_bytes(np.tanh, scale, zero, 1 / 128, 0)
    real = np.tanh(np.float32(scale) * np.arange(-128 - zero, 128 - zero)) * 128
    assert table.dtype == np.int8
    assert np.abs(table - np.clip(real, -128, 127)).max() <= 0.51
    with jax.enable_x64(True):
        x = jnp.arange(-128, 128, dtype=jnp.int8)
        assert (fixed.look_up(table, x) == table).all()


def test_table_of_words_lowers_its_lines() -> None:
    table = fixed.table_of_words(np.exp, 10 / 65535, 32767, 2 / 65535, np.float64)
    x = np.arange(-32768, 32768)
    real = np.exp(((x + 32768) / 65536 - 1) * 10) * 65535 / 2  # 512 steps of the table stand for 65535 of x
    with jax.enable_x64(True):
        got = np.asarray(fixed.look_up(table, jnp.asarray(x, jnp.int16)))
    straight = np.interp(x, x[::128], real[::128])
    top = slice(-8192, -128)  # where the curve bends most, and straight lines lie above it
    assert got.dtype == np.int16
    assert (straight - real)[top].mean() > 0.5
    assert abs((got - real)[top].mean()) < 0.5 * (straight - real)[top].mean()
