"""Every operation on integers, as TFLite's reference kernels compute it.

`OPS` maps an operation to a function of its `Site` and the integer inputs (of one rank, where there are two);
what it gives holds the output's zero point and is clamped by `exact`. Formulas:
tflite/kernels/internal/reference; scales in float32 or double as each kernel's Prepare has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from math import floor, log2, prod
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.graph import exact_fixed as fixed
from research.graph.exact_fixed import Multiplier, high_product, look_up, multiplier, rescale, rounding_shift
from research.graph.exact_layers import Site, centred, layer, matmul, taps
from research.graph.interpret import apply_float, resize_positions
from research.graph.program import LIMITS
from research.graph.shapes import window_pads
from research.graph.weights import Weights

F = np.float32


def _ratio(site: Site) -> Any:
    """Product of the input scales / output scale in float32."""
    return reduce(np.multiply, [F(f.scale) for f in site.ins]) / F(site.out.scale)


def _sum(site: Site, a: jax.Array, b: jax.Array) -> jax.Array:
    """add, sub: both terms in units of twice the larger scale / 2^20 (int16: 2^15)."""
    shift, unit = 15 if site.out.dtype == "int16" else 20, 2 * max(f.scale for f in site.ins)
    terms = zip((a, b), site.ins, strict=True)
    a, b = (rescale(centred(v, f) << shift, multiplier(f.scale / unit)) for v, f in terms)
    total = a + b if site.node.op == "add" else a - b
    return rescale(total, multiplier(unit / (2**shift * site.out.scale))) + site.out.zero_point


def _mul(site: Site, a: jax.Array, b: jax.Array) -> jax.Array:
    product = centred(a, site.ins[0]) * centred(b, site.ins[1])
    return rescale(product, multiplier(_ratio(site))) + site.out.zero_point


def _div(site: Site, a: jax.Array, b: jax.Array) -> jax.Array:
    """Small quotients come out as noise: the kernel then shifts by more than 31 bits, which C leaves open and
    x86 takes modulo 32. LiteRT stops at a division by 0, here it gives any integer."""
    a, b = centred(a, site.ins[0]), centred(b, site.ins[1])
    a, (inverse, over) = jnp.where(b < 0, -a, a), fixed.reciprocal(jnp.abs(b), 31)
    headroom = lax.clz(a ^ (a >> 31)) - 1
    by = multiplier(F(site.ins[0].scale) / (F(site.ins[1].scale) * F(site.out.scale)))
    value = high_product(high_product(a << headroom, inverse), by.value)
    bits = over + headroom - int(by.shift)
    mask = ((1 << (bits & 63).astype(jnp.int64)) - 1).astype(jnp.int32)
    return (value >> (bits & 31)) + ((value & mask) > (mask >> 1) + (value < 0)) + site.out.zero_point


def _bent(site: Site, x: jax.Array, *slope: jax.Array) -> jax.Array:
    """prelu, leaky_relu."""
    x, straight = centred(x, site.ins[0]), multiplier(F(site.ins[0].scale) / F(site.out.scale))
    by = multiplier(_ratio(site) if slope else F(site.ins[0].scale) * F(site.node.alpha) / F(site.out.scale))
    below = rescale(x * centred(slope[0], site.ins[1]) if slope else x, Multiplier(abs(by.value), by.shift))
    return jnp.where(x >= 0, rescale(x, straight), below * int(np.sign(by.value))) + site.out.zero_point


def _rescaled(site: Site, x: jax.Array) -> jax.Array:
    """quantize, clamp, abs: the quotient of the scales is a double in the first, a float32 in the others."""
    x, op = centred(x, site.ins[0]), site.node.op
    by = multiplier(site.ins[0].scale / site.out.scale if op == "quantize" else _ratio(site))
    return rescale(jnp.abs(x) if op == "abs" else x, by) + site.out.zero_point


def _mean(site: Site, x: jax.Array) -> jax.Array:
    """The division by the count is folded into the multiplier, truncated."""
    axes, count = site.node.axes, prod(x.shape[a] for a in site.node.axes)
    total = x.astype(jnp.int32).sum(axes, jnp.int32, keepdims=len(site.shape) == x.ndim)
    by = multiplier(site.ins[0].scale / site.out.scale)
    shift = min(count.bit_length() - 1, 32, 31 + int(by.shift))
    by = Multiplier((by.value << shift) // count, by.shift - shift)
    return rescale(total - site.ins[0].zero_point * count, by) + site.out.zero_point


def _pool(site: Site, x: jax.Array) -> jax.Array:
    """An average counts the pixels inside the image and rounds halves away from zero, zero point and all."""
    node, average = site.node, site.node.op == "avg_pool"
    fill, combine = (0, jnp.add) if average else (LIMITS[site.out.dtype][0], jnp.maximum)

    def slide(v: jax.Array) -> jax.Array:
        for axis, window, stride in zip((1, 2), node.window, node.strides, strict=True):
            pads = window_pads(v.shape[axis], window, stride, 1, node.padding)
            v = reduce(combine, taps(v, axis, site.shape[axis], window, pads, stride, 1, fill))
        return v

    total = slide(x.astype(jnp.int32))
    if not average:
        return total
    count = jnp.broadcast_to(slide(jnp.ones((1, *x.shape[1:3], 1), jnp.int32)), total.shape)
    return lax.div(total + jnp.where(total > 0, 1, -1) * (count // 2), count)


def _hard_swish(site: Site, x: jax.Array) -> jax.Array:
    """All in 16 bits: x * 2^7, times relu6(x + 3) / 6, which saturates at 1 - 2^-15."""
    fine = F(1 / 128) * F(site.ins[0].scale)
    out, gate = (multiplier(fine / s) for s in (F(site.out.scale), F(3) / F(32768)))
    factors = [min((int(m.value) + 2**15) >> 16, 2**15 - 1) for m in (out, gate)]
    x, lift = centred(x, site.ins[0]) << 7, int(gate.shift)
    value = (x * factors[0] + 2**14) >> 15
    ramp = jnp.clip(x << lift - 1, -32768, 32767) if lift > 0 else x
    ramp = (ramp * factors[1] + 2**14) >> 15
    ramp = jnp.clip(ramp << 1, -32768, 32767) if lift > 0 else rounding_shift(ramp, -lift)
    product = lax.div(((ramp + 2**15) >> 1) * value, jnp.int32(2**15))
    noise = jnp.where(product >= 0, 1, -1)  # what the kernel's 16-bit mask makes of a longer shift
    return (rounding_shift(product, -out.shift) if out.shift > -16 else noise) + site.out.zero_point


def _single(curve: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A float32 function, correctly rounded."""
    return lambda v: curve(v.astype(np.float64)).astype(np.float32)


EXP = _single(np.exp)
CURVES = {"exp": EXP, "tanh": _single(np.tanh), "logistic": lambda v: F(1) / (F(1) + EXP(-v))}


def _curve(site: Site, x: jax.Array) -> jax.Array:
    """logistic, tanh, exp: a table of all int8 values; in int16 lines between some."""
    source, op = site.ins[0], site.node.op
    if source.dtype == "int8":
        return look_up(fixed.table_of_bytes(CURVES[op], *source[:2], *site.out[:2]), x)
    if op != "exp":
        return _sigmoid(site, x)
    return look_up(fixed.table_of_words(EXP, *source[:2], site.out.scale), x)


def _sigmoid(site: Site, x: jax.Array) -> jax.Array:
    """int16 logistic, and tanh(x) = 2 sigmoid(2 x) - 1: lines between 2^16 sigmoid(i / 24), i = 0 ... 255, each
    raised by half of what its line lacks midway; x in units of 1 / 3 / 2^12."""
    logistic, power, shift = site.node.op == "logistic", log2(site.ins[0].scale) + 12, 0
    real = 3 * 2.0 ** round(power)
    if abs(power - round(power)) >= 1e-3 or round(power) not in ((0,) if logistic else (0, 1)):
        real = site.ins[0].scale * 4096.0 * 3.0
        while real <= 32767 / 2 and shift <= 30:
            real, shift = real * 2, shift + 1
    x = (x.astype(jnp.int32) * int(real) + ((1 << shift) >> 1)) >> shift
    here, midway, after = (65536 / (1 + np.exp(-(np.arange(255) + k) / 24)) for k in (0, 0.5, 1))
    table = jnp.asarray([*np.round(here + (midway - (here + after) / 2) / 2), 65535], jnp.int32)
    bits, top, zero, drop = (9, 0x7FFF << 10, 0, 10) if logistic else (8, 0xFFFF << 8, 1 << 23, 8)
    at = jnp.abs(x) >> bits
    low, high = (table.at[jnp.minimum(at, 254) + k].get(mode="promise_in_bounds") for k in (0, 1))
    value = jnp.where(at < 255, (low << bits) + (jnp.abs(x) & ((1 << bits) - 1)) * (high - low), top) - zero
    negative = (0 if zero else 1 << 25) - value - 1
    return (jnp.where(x >= 0, value, negative) + (1 << drop - 1)) >> drop


def _sqrt(site: Site, x: jax.Array) -> jax.Array:
    """Truncated; LiteRT stops at a negative number, here it counts as 0."""
    low, high = LIMITS[site.ins[0].dtype]
    real = F(site.ins[0].scale) * (np.arange(low, high + 1) - site.ins[0].zero_point).astype(np.float32)
    roots = np.trunc(np.sqrt(np.maximum(real, F(0))) / F(site.out.scale)) + site.out.zero_point
    return look_up(np.clip(roots, low, high).astype(np.int32), x)


def _rsqrt(site: Site, x: jax.Array) -> jax.Array:
    """LiteRT stops at a negative number, here it counts as 0, which gives the largest integer."""
    source, out = site.ins[0], site.out
    if source.dtype == "int16":
        top = F(32767) * F(out.scale)
        table = fixed.table_of_words(lambda v: np.where(v <= 0, top, 1 / np.sqrt(v)), *source[:2], out.scale)
        return look_up(table, x)
    n = np.maximum(np.arange(256), 1)
    roots = np.round(2**20 / np.sqrt(n)) - np.isin(n, (2, 8, 131))  # where the kernel's Newton steps end
    by = multiplier(1 / np.float64(np.sqrt(F(source.scale)) * F(out.scale)))
    levels = rescale(jnp.asarray(roots, jnp.int32), Multiplier(by.value, by.shift - 20)) + out.zero_point
    return look_up(levels.at[0].set(127), jnp.clip(centred(x, source), 0, 255) - 128)


def _softmax(site: Site, x: jax.Array) -> jax.Array:
    """int8: exp and reciprocal in fixed point; what is far below the maximum counts as 0."""
    below = x.astype(jnp.int32) - x.max(-1, keepdims=True).astype(jnp.int32)
    if site.out.dtype == "int16":
        return _softmax_words(site, below)
    by = multiplier(min(float(F(site.node.alpha)) * site.ins[0].scale * 2**26, fixed.TOP))
    counted = below >= -floor(31 * 2**26 / 2 ** int(by.shift))
    powers = fixed.exp_of_negative(rescale(below, by))
    total = jnp.where(counted, rounding_shift(powers, 12), 0).sum(-1, jnp.int32, keepdims=True)
    inverse, over = fixed.reciprocal(total, 12)
    shares = rounding_shift(high_product(powers, inverse), over + 23)
    return jnp.where(counted, shares, 0) - 128


def _softmax_words(site: Site, below: jax.Array) -> jax.Array:
    """Tables of exp on [-10, 0] and of 1 / (1 + x) on [0, 1]."""
    by = multiplier(np.float64(F(site.ins[0].scale) * F(site.node.alpha)) / (10 / 65535))
    powers = fixed.table_of_words(np.exp, 10 / 65535, 32767, 2 / 65535, np.float64)
    inverses = fixed.table_of_words(lambda v: 1 / (1 + v), 1 / 65535, -32768, 2 / 65535, np.float64)
    power = look_up(powers, jnp.clip(rescale(below, by) + 32767, -32768, 32767)).astype(jnp.int64)
    total = power.sum(-1, keepdims=True)
    bits = 64 - lax.clz(total)
    normal = (((total << (31 - bits)) + 2**13) >> 14) - 3 * 2**15
    inverse = look_up(inverses, jnp.clip(normal, -32768, 32767)).astype(jnp.int64)
    return (power * inverse + (1 << (bits - 2))) >> (bits - 1)


def _resize(site: Site, x: jax.Array) -> jax.Array:
    """bilinear: positions and weights in units of 2^-10, the sum rounded halves away from zero."""
    how, _, where = site.node.mode.partition("/")
    value = x.astype(jnp.int64)
    for axis in (1, 2):
        size, out = x.shape[axis], site.shape[axis]
        if how == "nearest":
            value = jnp.take(value, resize_positions(size, out, site.node.mode)[0], axis)
            continue
        ends = int(where == "align_corners" and out > 1)
        step = (1024 * (size - ends) + (out - ends) // 2) // (out - ends)
        at = np.arange(out) * step + (step // 2 - 512 if where == "half_pixel" else 0)
        lower, upper = np.maximum(at // 1024, 0), np.minimum((at + 1023) // 1024, size - 1)
        weight = (at - 1024 * lower).reshape([-1 if a == axis else 1 for a in range(4)])
        value = jnp.take(value, lower, axis) * (1024 - weight) + jnp.take(value, upper, axis) * weight
    return value if how == "nearest" else lax.div(value + jnp.where(value > 0, 2**19, -(2**19)), 2**20)


OPS: Mapping[str, Callable[..., jax.Array]] = MappingProxyType({
    "constant": lambda site: jnp.asarray(site.integers.kernel.reshape(site.node.kernel_shape)),
    "conv": layer, "depthwise": layer, "transpose_conv": layer, "dense": layer, "matmul": matmul,
    "add": _sum, "sub": _sum, "mul": _mul, "div": _div, "prelu": _bent, "leaky_relu": _bent,
    "clamp": _rescaled, "quantize": _rescaled, "abs": _rescaled, "neg": lambda site, x: -x, "mean": _mean,
    "avg_pool": _pool, "max_pool": _pool, "hard_swish": _hard_swish, "exp": _curve, "sqrt": _sqrt,
    "logistic": _curve, "tanh": _curve, "rsqrt": _rsqrt, "softmax": _softmax, "resize": _resize,
    "pad": lambda site, x: jnp.pad(x, site.node.spans, constant_values=site.out.quantise(site.node.alpha).item()),
    # The integers themselves, elsewhere; nobody looks at their scales.
    **dict.fromkeys(
        ("maximum", "minimum", "concat", "reshape", "transpose", "slice", "depth_to_space"),
        lambda site, *values: apply_float(site.node, values, Weights({}), site.shape),
    ),
})  # fmt: skip
