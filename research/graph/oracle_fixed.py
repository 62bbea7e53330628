"""Fixed-point arithmetic of LiteRT's reference kernels, in int64 numpy arrays that hold int32 or int16 values.

The functions are gemmlowp's (`fixedpoint/fixedpoint.h`) and TFLite's (`kernels/internal/common`,
`quantization_util`): a real factor is a 31-bit integer and a power of two, and every step rounds and wraps as
the C++ does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from research.graph.ir import Activation
from research.graph.program import LIMITS, Affine

F = np.float32
Real = np.ndarray | np.floating | float
CLAMPS = MappingProxyType({"none": (-inf, inf), "relu": (0, inf), "relu6": (0, 6), "relu_n1_to_1": (-1, 1)})


class Factor(NamedTuple):
    """A real factor `fixed * 2 ** (shift - 31)`; int64, one number or one an output channel."""

    fixed: np.ndarray
    shift: np.ndarray


def away(values: Real) -> np.ndarray:
    """C's `round` in double: to the nearest whole number, halves away from zero."""
    values = np.asarray(values, np.float64)
    fraction, whole = np.modf(values)
    return np.asarray(whole + np.copysign(np.abs(fraction) >= 0.5, values))


def wrap(values: np.ndarray) -> np.ndarray:
    """int64 values as an int32 variable holds them: modulo 2 ** 32, signed."""
    return values.astype(np.int32).astype(np.int64)


def to_int32(values: np.ndarray) -> np.ndarray:
    """Whole float values cast to int32 as x86 does: what does not fit becomes the lowest int32."""
    return np.where(np.abs(values) < 2.0**31, values, -(2.0**31)).astype(np.int64)


def factor(real: Real, most: int = 30) -> Factor:
    """`QuantizeMultiplier`: the 31 bits of a real factor that is not negative; below 2 ** -32 it is zero.

    ValueError from 2 ** most on: C++ does not define the shifts of the kernel that uses it.
    """
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    fixed, shift = away(fraction * 2.0**31).astype(np.int64), exponent.astype(np.int64)
    fixed, shift = np.where(fixed == 2**31, 2**30, fixed), shift + (fixed == 2**31)
    if (shift > most).any():
        raise ValueError(
            f"scales whose ratio is {np.max(real):.3g} are beyond LiteRT's kernels; use below 2 ** {most}"
        )
    return Factor(np.where(shift < -31, 0, fixed), np.where(shift < -31, 0, shift))


def high_product(a: np.ndarray, b: np.ndarray | int, bits: int = 32) -> np.ndarray:
    """`SaturatingRoundingDoublingHighMul`: a * b / 2 ** (bits - 1) to the nearest integer, halves upwards.

    (The C++ nudges by the sign and truncates, which is the same.) The square of the lowest integer saturates.
    """
    return np.minimum((a * b + (1 << (bits - 2))) >> (bits - 1), (1 << (bits - 1)) - 1)


def rounded_shift(x: np.ndarray, places: np.ndarray | int) -> np.ndarray:
    """`RoundingDivideByPOT`: x / 2 ** places to the nearest integer, halves away from zero."""
    mask = np.left_shift(np.int64(1), places) - 1
    return np.asarray((x >> places) + ((x & mask) > (mask >> 1) + (x < 0)))


def scaled(x: np.ndarray, by: Factor) -> np.ndarray:
    """int32 `MultiplyByQuantizedMultiplier`: two roundings, one in the product and one in the shift; x wraps."""
    left, right = np.maximum(by.shift, 0), np.maximum(-by.shift, 0)
    return rounded_shift(high_product(wrap(x << left), by.fixed), right)


def scaled_wide(x: np.ndarray, by: Factor) -> np.ndarray:
    """int64 `MultiplyByQuantizedMultiplier`: a factor reduced to 16 bits, one rounding, halves upwards.

    by: below 2 ** 14.
    """
    reduced, places = np.minimum((by.fixed + (1 << 15)) >> 16, 0x7FFF), 15 - by.shift
    return wrap((x * reduced + np.left_shift(np.int64(1), places - 1)) >> places)


def store(values: np.ndarray, out: Affine, activation: Activation = "none") -> np.ndarray:
    """int32 values with the output's zero point added, clamped to type and activation, in the output's dtype."""
    floor, ceiling = out.zero_point + away(np.array(CLAMPS[activation], F) / F(out.scale))
    low, high = LIMITS[out.dtype]
    return wrap(values + out.zero_point).clip(max(floor, low), min(ceiling, high)).astype(out.dtype)


def word_table(function: Callable[[np.ndarray], np.ndarray], ends: np.ndarray, unit: Real) -> np.ndarray:
    """`LUTPopulate<int16>`: 513 samples, each moved by half of the error of the line to the next sample.

    ends: first and last input; their dtype is that of the arithmetic; unit: scale of the output. function:
    float64 to float64.
    """
    kind = ends.dtype.type
    (first, last), i, top = ends, np.arange(513).astype(kind), kind(unit) * kind(32767)
    step, per_unit = (last - first) / kind(512), kind(65536) / (top - kind(unit) * kind(-32768))

    def sample(at: np.ndarray) -> np.ndarray:
        return function(at.astype(np.float64)).astype(kind) * per_unit

    here = away(sample(np.append((first + i * step)[:-1], last)))
    line = away((sample(first + (i + 1) * step) + here.astype(kind)) / kind(2))
    error = np.append((line - away(sample(first + i * step + step / kind(2))))[:-1], 0)
    return (here - away(error / 2)).clip(-32768, 32767).astype(np.int64)


def interpolated(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`LUTLookup`: the line between two samples of a `word_table`; 9 bits choose, 7 interpolate."""
    index = 256 + (x >> 7)
    return np.asarray(table[index] + (((table[index + 1] - table[index]) * (x & 127) + 64) >> 7))


def exp_of_negative(x: np.ndarray) -> np.ndarray:
    """gemmlowp's exp(x) of x <= 0 in Q5.26 as Q0.31: a quartic about -1/8, times exp(-2 ** k) for each bit."""
    rest = (x & ((1 << 24) - 1)) - (1 << 24)
    a = (rest << 5) + (1 << 28)
    square = high_product(a, a)
    quartic = rounded_shift(high_product(square, square), 2)
    third, start = 715827883, 1895147668  # 1/3 and exp(-1/8) in Q0.31
    series = rounded_shift(high_product(quartic + high_product(square, a), third) + square, 1)
    result = start + high_product(a + series, start)
    for k in range(-2, 5):
        power = int(away(np.exp(-(2.0**k)) * 2.0**31))
        result = np.where((rest - x) & (1 << (26 + k)), high_product(result, power), result)
    return np.where(x == 0, 2**31 - 1, result)


def reciprocal(x: np.ndarray) -> np.ndarray:
    """gemmlowp's 1 / (1 + x) of x in [0, 1), Q0.31: three Newton steps from 48/17 - 32/17 (1 + x) / 2 in Q2.29."""
    half = (x + 2**31) >> 1
    y = 1515870810 + high_product(half, -1010580540)
    for _ in range(3):
        y = y + (high_product(y, (1 << 29) - high_product(half, y)) << 2)
    return np.minimum(y << 1, 2**31 - 1)
