"""The fixed-point arithmetic: every rounding rule by hand, and as properties against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph import oracle_fixed as fixed
from research.graph.oracle_fixed import Factor
from research.graph.program import Affine

INT32 = st.integers(-(2**31), 2**31 - 1)


def of(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def by(mantissa: int, shift: int) -> Factor:
    return Factor(of(mantissa), of(shift))


def nearest(value: Fraction, halves: str) -> int:
    """The nearest integer; a half goes "up" or "away" from zero."""
    up = value >= 0 or halves == "up"
    return floor(value + Fraction(1, 2)) if up else -floor(-value + Fraction(1, 2))


def test_away_rounds_halves_away_from_zero_and_nothing_else():
    just_below = np.nextafter(0.5, 0)
    values = np.array([0.5, -0.5, 1.5, -2.5, just_below, -just_below, 2.0, np.inf])
    assert fixed.away(values).tolist() == [1, -1, 2, -3, 0, 0, 2, np.inf]


def test_wrap_and_cast_are_those_of_int32():
    assert fixed.wrap(of(2**31, -(2**31) - 1, 2**32 + 5)).tolist() == [-(2**31), 2**31 - 1, 5]
    values = np.array([3.0, 2.0**31, -(2.0**31), -1e20, np.nan])
    assert fixed.to_int32(values).tolist() == [3, *[-(2**31)] * 4]


@pytest.mark.parametrize(
    ("real", "mantissa", "shift"),
    [
        (0.5, 2**30, 0),
        (1.0, 2**30, 1),
        (0.75, 3 * 2**29, 0),
        (1 - 2.0**-40, 2**30, 1),  # rounds up to a full 2 ** 31, which is halved
        (2.0**-32, 2**30, -31),
        (2.0**-33, 0, 0),  # flushed
        (0.0, 0, 0),
    ],
)
def test_a_real_factor_is_31_bits_and_a_shift(real: float, mantissa: int, shift: int):
    found = fixed.factor(real)
    assert (int(found.fixed), int(found.shift)) == (mantissa, shift)


def test_a_factor_beyond_the_kernels_is_refused():
    assert int(fixed.factor(2.0**30 - 1).shift) == 30
    with pytest.raises(ValueError, match="beyond LiteRT's kernels; use below 2 \\*\\* 30"):
        fixed.factor(2.0**30)
    with pytest.raises(ValueError, match="2 \\*\\* 14"):
        fixed.factor(np.array([1.0, 2.0**14]), 14)


@given(INT32, INT32)
def test_high_product_is_the_nearest_integer_halves_up(a: int, b: int):
    expected = min(nearest(Fraction(a * b, 2**31), "up"), 2**31 - 1)
    assert fixed.high_product(of(a), of(b)).item() == expected


def test_high_product_by_hand():
    """3/2 up to 2, -3/2 up to -1; the square of the lowest saturates, in 32 and 16 bits."""
    assert fixed.high_product(of(3, -3), 2**30).tolist() == [2, -1]
    assert fixed.high_product(of(-(2**31)), of(-(2**31))).item() == 2**31 - 1
    assert fixed.high_product(of(-(2**15)), of(-(2**15)), 16).item() == 2**15 - 1


@given(INT32, st.integers(0, 31))
def test_rounded_shift_is_the_nearest_integer_halves_away(x: int, places: int):
    assert fixed.rounded_shift(of(x), places).item() == nearest(Fraction(x, 2**places), "away")


def test_scaling_rounds_twice():
    """1/4 of 1: the product with 1/2 is 1/2, rounded to 1; half of that is 1/2, rounded to 1."""
    assert fixed.scaled(of(1, -1, 5), fixed.factor(0.25)).tolist() == [1, 0, 2]


def test_scaling_up_wraps():
    """2 ** 28 shifted by 3 is 2 ** 31, which wraps to the lowest int32; half of that is -2 ** 30."""
    assert fixed.scaled(of(3, 2**28), fixed.factor(4.0)).tolist() == [12, -(2**30)]


@given(INT32, st.floats(2.0**-31, 0.999))
def test_scaling_is_within_one_of_the_product(x: int, real: float):
    assert abs(fixed.scaled(of(x), fixed.factor(real)).item() - x * real) <= 1 + abs(x) * 2.0**-31


def test_wide_scaling_reduces_the_factor_to_16_bits():
    """1/3 becomes 21845 / 65536, 1/196608 less; 2 ** 31 - 1, which would round to 2 ** 15, stays 0x7FFF."""
    assert fixed.scaled_wide(of(3 * 2**20), fixed.factor(1 / 3)).item() == 2**20 - 16
    assert fixed.scaled_wide(of(2**40), by(2**31 - 1, -20)).item() == 0x7FFF * 2**5
    assert fixed.scaled_wide(of(2, -2, 6, -6), fixed.factor(0.25)).tolist() == [1, 0, 2, -1]


def test_store_adds_the_zero_point_then_clamps_to_type_and_activation():
    out = Affine(0.5, -3)
    assert fixed.store(of(-200, -1, 4, 200), out).tolist() == [-128, -4, 1, 127]
    assert fixed.store(of(-200, -1, 4, 200), out, "relu").tolist() == [-3, -3, 1, 127]
    assert fixed.store(of(-200, -1, 4, 200), out, "relu6").tolist() == [-3, -3, 1, 9]
    assert fixed.store(of(-200, -1, 4, 200), out, "relu_n1_to_1").tolist() == [-5, -4, -1, -1]
    assert fixed.store(of(40000), Affine(1.0, 0, "int16")).dtype == np.int16


def test_a_word_table_of_a_line_is_that_line():
    """The identity has no error between its samples, so each is the exact one: about 128 apart from -32768 on."""
    ends = np.array([-32768.0, 32767.0])
    table = fixed.word_table(lambda v: v, ends, 1.0)
    steps = np.linspace(-32768, 32767, 513) * (65536 / 65535)
    assert np.abs(table - steps.clip(-32768, 32767)).max() <= 0.5
    x = np.arange(-32768, 32768)
    assert np.abs(fixed.interpolated(x, table) - x).max() <= 1


def test_a_word_table_is_moved_by_half_the_error_of_its_lines():
    """x ** 2 on [-1, 1]: in its middle a line is above the curve by (1/256) ** 2 / 4; samples sink by half of it."""
    ends, unit = np.array([-1.0, 1.0]), 2.0**-33  # fine enough for the error to be many steps
    table = fixed.word_table(lambda v: v * v * 1e-6, ends, unit)
    exact = np.linspace(-1, 1, 513) ** 2 * 1e-6 * 65536 / (65535 * unit)
    sink = (exact - table)[:-1]
    assert sink.mean() == pytest.approx((2 / 512) ** 2 / 8 * 1e-6 / unit, abs=0.2)


def test_exp_has_gemmlowps_constants_and_meets_the_exponential():
    """exp(-1/4) ... exp(-16) as Q0.31 in `fixedpoint.h`; the quartic is good to a few parts in 10 ** 7."""
    known = [1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242]
    assert [round(float(np.exp(-(2.0**k))) * 2**31) for k in range(-2, 5)] == known
    x = np.linspace(-31.9 * 2**26, 0, 4001).astype(np.int64)
    assert np.abs(fixed.exp_of_negative(x) / 2**31 - np.exp(x / 2**26)).max() < 1e-6
    assert fixed.exp_of_negative(of(0)).item() == 2**31 - 1


def test_reciprocal_meets_one_over_one_plus_x():
    x = np.linspace(0, 2**31 - 1, 4001).astype(np.int64)
    assert np.abs(fixed.reciprocal(x) / 2**31 - 1 / (1 + x / 2**31)).max() < 1e-8
    assert fixed.reciprocal(of(0)).item() == 2**31 - 1
