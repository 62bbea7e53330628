"""Fixed-point arithmetic as TFLite's reference kernels do it, on JAX integers; trace it with x64 on.

A real factor becomes a `Multiplier` on the host; a product with it is rounded twice, first to 31 bits
(gemmlowp's SaturatingRoundingDoublingHighMul), then by a shift (RoundingDivideByPOT). The fixed-point exp and
reciprocal are gemmlowp's (`fixedpoint.h`), the tables those of TFLite's LUTPopulate. Q5.26 has 5 bits before
the point and 26 behind it; 2^31 - 1 stands for 1 in Q0.31.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TOP = 2**31 - 1
Real = float | np.floating[Any] | np.ndarray
Integers = jax.Array | np.ndarray | int
Curve = Callable[[np.ndarray], np.ndarray]  # a function of real values, in their own type


class Multiplier(NamedTuple):
    """real = value * 2^(shift - 31), int64 arrays of the factors' shape."""

    value: np.ndarray
    shift: np.ndarray


def multiplier(real: Real) -> Multiplier:
    """The nearest 31-bit fixed-point number (TFLite's QuantizeMultiplier); below 2^-32 it is 0."""
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    value = away(fraction * 2.0**31).astype(np.int64)
    value, shift = np.where(value == 2**31, 2**30, value), shift + (value == 2**31)
    lost = (shift < -31) | (value == 0)
    return Multiplier(np.where(lost, 0, value), np.where(lost, 0, shift).astype(np.int64))


def away(x: Real) -> Any:
    """Nearest integers of host values, halves away from zero, in the type of x (C's round)."""
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x).astype(np.asarray(x).dtype)


def high_product(a: Integers, b: Integers) -> jax.Array:
    """round(a * b / 2^31), halves up, saturating: the product of two numbers in Q0.31; int32."""
    product = (jnp.asarray(a, jnp.int64) * b + 2**30) >> 31
    return jnp.minimum(product, TOP).astype(jnp.int32)


def rounding_shift(x: jax.Array, bits: Integers) -> jax.Array:
    """x / 2^bits to the nearest integer, halves away from zero; int32."""
    x, bits = x.astype(jnp.int64), jnp.asarray(bits, jnp.int64)
    return ((x + ((1 << bits) >> 1) - ((x < 0) & (bits > 0))) >> bits).astype(jnp.int32)


def rescale(x: jax.Array, by: Multiplier) -> jax.Array:
    """x * by with both roundings (MultiplyByQuantizedMultiplier of an int32); a shift to the left wraps as in C."""
    if (by.shift > 0).any():
        x = x << np.maximum(by.shift, 0).astype(np.int32)
    return rounding_shift(high_product(x, by.value), np.maximum(-by.shift, 0))


def rescale_wide(x: jax.Array, by: Multiplier) -> jax.Array:
    """x * by of an int64 within 48 bits: the multiplier cut to 16 bits, one rounding, halves up; int32."""
    reduced = np.where(by.value < 0x7FFF0000, (by.value + (1 << 15)) >> 16, 0x7FFF)
    return ((x * reduced + (1 << (14 - by.shift))) >> (15 - by.shift)).astype(jnp.int32)


def exp_of_negative(x: jax.Array) -> jax.Array:
    """exp(x) in Q0.31 of x <= 0 in Q5.26: a Taylor series on [-1/4, 0), the rest a product of exp(-2^k)."""
    low = (x & (2**24 - 1)) - 2**24
    t = (low << 5) + (1 << 28)  # around -1/8
    t2 = high_product(t, t)
    t3, t4 = high_product(t2, t), high_product(t2, t2)
    series = rounding_shift(high_product(rounding_shift(t4, 2) + t3, round(2**31 / 3)) + t2, 1)
    centre = round(float(np.exp(-0.125)) * 2**31)
    result = centre + high_product(t + series, centre)
    for k in range(-2, 5):
        factor = round(float(np.exp(-(2.0**k))) * 2**31)
        result = jnp.where(((low - x) >> (26 + k)) & 1 == 1, high_product(result, factor), result)
    return jnp.where(x == 0, TOP, result)


def reciprocal(x: jax.Array, integer_bits: int) -> tuple[jax.Array, jax.Array]:
    """(value in Q0.31, shift) of 1 / x = value * 2^-shift, for a positive x with so many integer bits.

    GetReciprocal: three Newton-Raphson steps in Q2.29 from 48/17 - 32/17 d, d in [1/2, 1) being x normalised.
    """
    headroom = jax.lax.clz(x)
    half = x << (headroom - 1)
    y = round(48 / 17 * 2**29) + high_product(half, round(-32 / 17 * 2**29))
    for _ in range(3):
        y = y + (high_product(y, (1 << 29) - high_product(half, y)) << 2)
    return jnp.minimum(y.astype(jnp.int64) << 1, TOP).astype(jnp.int32), integer_bits - headroom


@np.errstate(over="ignore", invalid="ignore")
def table_of_bytes(curve: Curve, scale: float, zero: int, out_scale: float, out_zero: int) -> np.ndarray:
    """int8 [256]: a function of the real values of -128 ... 127, in float32 as LUTPopulateInt8 has it."""
    real = np.float32(scale) * (np.arange(-128, 128) - zero).astype(np.float32)
    levels = away(curve(real) * (np.float32(1) / np.float32(out_scale))) + out_zero
    return np.clip(levels, -128, 127).astype(np.int8)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def table_of_words(
    curve: Curve, scale: float, zero: int, out_scale: float, kind: type[np.floating] = np.float32
) -> np.ndarray:
    """int16 [513]: a function of the real values of -32768 ... 32767 in 512 steps, each end shifted by half the
    error that interpolation has in the middle of its step (LUTPopulateInt16). kind: of the arithmetic."""
    low, high = kind(scale) * kind(-32768 - zero), kind(scale) * kind(32767 - zero)
    step = (high - low) / kind(512)
    unit = kind(65536) / (kind(out_scale) * kind(32767) - kind(out_scale) * kind(-32768))
    starts = low + np.arange(513).astype(kind) * step
    exact, sample = curve(starts) * unit, away(curve(starts[:-1]) * unit)
    error = away((exact[1:] + sample) / kind(2)) - away(curve(starts[:-1] + step / kind(2)) * unit)
    ends = np.append(sample - away(error / kind(2)), away(curve(np.full(1, high)) * unit))
    return np.nan_to_num(np.clip(ends, -32768, 32767)).astype(np.int16)


def look_up(table: Integers, x: jax.Array) -> jax.Array:
    """Entries of a table with one for every x, or, of 513 entries, interpolated between two for int16 x."""
    x, entries = x.astype(jnp.int32), jnp.asarray(table, jnp.int32)
    if entries.size != 513:
        return entries.at[x + entries.size // 2].get(mode="promise_in_bounds")
    base, after = (entries.at[256 + k + (x >> 7)].get(mode="promise_in_bounds") for k in (0, 1))
    slope = (after - base).astype(jnp.int16).astype(jnp.int32)
    return (base + ((slope * (x & 127) + 64) >> 7)).astype(jnp.int16)
