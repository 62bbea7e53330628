"""What LiteRT's reference kernels compute on int8 and int16 tensors, operator by operator, in numpy.

A kernel takes a `Site` and the integers its node reads (int64) and gives int32 values that `integer` clamps and
stores: `CENTRED` kernels read and give them without zero points, `RAW` ones as they are in memory. Where a
kernel multiplies scales in float32, so do we. The rules are those of `tflite/kernels` at LiteRT 2.3.0 with
BUILTIN_REF: read there, checked against the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from research.graph import oracle_fixed as fixed
from research.graph.ir import Node, Shape
from research.graph.oracle_fixed import F, Factor, away, factor, high_product, rounded_shift, scaled, wrap
from research.graph.oracle_window import convolve, resize, windows
from research.graph.program import LIMITS, Affine

Kernel = Callable[..., np.ndarray]


class Site(NamedTuple):
    """A node and the formats around it. scales: of the inputs; shape: recorded, of the output."""

    node: Node
    sources: tuple[Affine, ...]
    scales: tuple[float, ...]
    out: Affine
    shape: Shape

    def require(self, holds: object, what: str) -> None:
        """Raises ValueError naming the node, its dtype and `what` LiteRT does, unless that holds."""
        if not holds:
            raise ValueError(f"node {self.node.output!r} ({self.node.op}, {self.out.dtype}): LiteRT {what}")

    def single(self, *scales: float) -> Factor:
        """The factor of a kernel that multiplies these, and divides by the output's scale, in float32."""
        return factor(np.prod(np.array(scales, F)) / F(self.out.scale))


def layer(site: Site, x: np.ndarray, kernel: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """conv, depthwise, transpose_conv, dense: exact sums, wrapped to the dtype of the bias, then one factor.

    A dense layer rounds the double `sum * factor`; the others multiply in fixed point.
    """
    node, narrow, small = site.node, bias.dtype == np.int32, site.out.dtype == "int8"
    site.require(narrow == small or (narrow and node.op != "depthwise"), f"refuses {bias.dtype} biases")
    sums = convolve(node, site.shape, x, kernel).astype(np.int64) + bias
    real = site.scales[0] * scale.astype(np.float64) / site.out.scale
    if node.op == "dense":
        return fixed.to_int32(away((wrap(sums) if narrow else sums) * real))
    return scaled(sums, factor(real)) if narrow else fixed.scaled_wide(sums, factor(real, 14))


def matmul(site: Site, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """int8: int32 sums; int16: int64 sums and the 16-bit factor. The input scales multiply in float32."""
    site.require(site.sources[1].dtype in ("int8", site.out.dtype), "wants one dtype")
    sums = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    real, small = float(np.prod(np.array(site.scales, F))) / site.out.scale, site.out.dtype == "int8"
    return scaled(sums, factor(real)) if small else fixed.scaled_wide(sums, factor(real, 14))


def add(site: Site, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """add, sub: both inputs shifted up and scaled by at most 1/2 to a common scale, then to the output's."""
    up, common = 20 if site.out.dtype == "int8" else 15, 2 * max(site.scales)
    last = common / (site.out.scale * (1 << up))
    site.require(last < 1, f"needs an output scale above {common / (1 << up):.3g}")
    first, second = (scaled(x << up, factor(s / common)) for x, s in zip((a, b), site.scales, strict=True))
    return scaled(first - second if site.node.op == "sub" else first + second, factor(last))


def clamp(site: Site, x: np.ndarray) -> np.ndarray:
    """RELU, RELU6, RELU_N1_TO_1: to the output's scale, then to the bounds."""
    known = [(0, np.inf), (0, 6), (-1, 1)][: 3 if site.out.dtype == "int8" else 2]
    site.require(site.node.bounds in known, f"has no clamp to {site.node.bounds}")
    return scaled(x, site.single(*site.scales)).clip(*away(np.array(site.node.bounds, F) / F(site.out.scale)))


def leaky_relu(site: Site, x: np.ndarray) -> np.ndarray:
    """Two factors, by sign; a negative slope is its size, negated after rounding."""
    below = scaled(x, site.single(*site.scales, abs(site.node.alpha)))
    return np.where(x >= 0, scaled(x, site.single(*site.scales)), below if site.node.alpha >= 0 else -below)


def prelu(site: Site, x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Two factors, by sign. Beside an int16 x the slope is int8."""
    site.require(site.sources[1].dtype == "int8", "reads the slope as int8")
    below = scaled(x * slope, site.single(*site.scales))
    return np.where(x >= 0, scaled(x, site.single(site.scales[0])), below)


def mean(site: Site, x: np.ndarray) -> np.ndarray:
    """An int32 sum, scaled by a factor whose 31 bits were divided, rounding down, by the count."""
    count, by = prod(x.shape[a] for a in site.node.axes), factor(site.scales[0] / site.out.scale)
    places = min(count.bit_length() - 1, 32, 31 + int(by.shift))
    total = x.sum(site.node.axes, keepdims=len(site.shape) == x.ndim)
    return scaled(total, Factor((by.fixed << places) // count, by.shift - places))


def average(site: Site, x: np.ndarray) -> np.ndarray:
    """avg_pool: the sum over the count of the pixels inside, halves away from zero. Scales are ignored."""
    sums, counts = (windows(site.node, v).sum(0) for v in (x, np.ones_like(x[:1])))
    return np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)


def hard_swish(site: Site, x: np.ndarray) -> np.ndarray:
    """int16 arithmetic: x on the output's scale, times (x + 3) / 6 saturated to [0, 1]."""
    fine = F(1 / 128) * F(site.scales[0])
    to_out, to_unit = factor(fine / F(site.out.scale)), factor(fine / (F(3) / F(32768)))
    site.require(to_out.shift <= 0, "needs an output scale of at least 1/128 of the input's")
    out16, unit16 = (np.minimum((f.fixed + (1 << 15)) >> 16, 32767) for f in (to_out, to_unit))
    x, shift = x << 7, int(to_unit.shift)
    gate = high_product((x << max(shift - 1, 0)).clip(-32768, 32767), unit16, 16)
    gate = (gate << 1).clip(-32768, 32767) if shift > 0 else rounded_shift(gate, -shift)
    product = ((gate + (1 << 15)) >> 1) * high_product(x, out16, 16)
    return rounded_shift(np.sign(product) * (np.abs(product) >> 15), -to_out.shift)


def softmax(site: Site, x: np.ndarray) -> np.ndarray:
    """int8: gemmlowp's exp and reciprocal; int16: two tables. Both of the distance to the row's maximum."""
    small, scale, beta = site.out.dtype == "int8", site.scales[0], F(site.node.alpha)
    unit, zero = (2.0**-8, -128) if small else (2.0**-15, 0)
    fits = site.out.zero_point == zero and abs(site.out.scale - unit) <= 0.001 * unit
    site.require(fits, f"needs an output scale of {unit} and zero point {zero}")
    below = x - x.max(-1, keepdims=True)
    if not small:
        return _softmax16(below, factor(float(F(scale) * beta) / (10.0 / 65535)))
    real = min(float(beta) * scale * 2.0**26, 2.0**31 - 1)
    site.require(real > 1, f"needs an input scale above {2.0**-26 / beta:.3g}")
    by = factor(real, 31)
    kept = below >= -np.floor(31 * 2.0**26 / 2.0**by.shift)
    powers = fixed.exp_of_negative(high_product(np.where(kept, below, 0) << by.shift, by.fixed))
    total = np.where(kept, rounded_shift(powers, 12), 0).sum(-1, keepdims=True)
    leading = 32 - np.frexp(total)[1]
    site.require((total < 1 << 28).all(), "aborts where the powers of a row sum to 512 or more")
    share = high_product(fixed.reciprocal((total << leading) - 2**31), powers)
    return np.where(kept, rounded_shift(share, 12 - leading + 31 - 8), 0)


def _softmax16(below: np.ndarray, by: Factor) -> np.ndarray:
    powers = fixed.word_table(np.exp, np.array([10.0 / 65535 * -65535, 0]), 2.0 / 65535)
    inverses = fixed.word_table(lambda v: 1 / (1 + v), np.array([0, 1.0 / 65535 * 65535]), 2.0 / 65535)
    power = fixed.interpolated((scaled(below, by) + 32767).clip(-32768, 32767), powers)
    total = power.sum(-1, keepdims=True)
    leading = 32 - np.frexp(total)[1]
    excess = (((total << (leading - 1)) + (1 << 13)) >> 14) - (1 << 16)
    inverse = fixed.interpolated((excess - (1 << 15)).clip(-32768, 32767), inverses)
    return ((power * inverse + (1 << (30 - leading))) >> (31 - leading)).clip(0)


def bilinear(site: Site, x: np.ndarray) -> np.ndarray:
    """Weights in 1/1024 of a pixel; the sum is rounded, halves away from zero."""
    total = resize(site.node, site.shape, x, 1024)
    return np.sign(total) * ((np.abs(total) + (1 << 19)) >> 20)


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.asarray(F(1) / (F(1) + np.exp(-x).astype(F)))


def curve(site: Site, x: np.ndarray) -> np.ndarray:
    """logistic, tanh, exp: int8 in float32 (LiteRT makes a table of it); int16 on lines between samples."""
    op, scale, out = site.node.op, F(site.scales[0]), site.out
    if out.dtype == "int8":
        site.require(op != "logistic" or out.scale == 1 / 256, "needs an output scale of 1/256")
        functions: dict[str, Kernel] = {"logistic": _logistic, "tanh": np.tanh, "exp": np.exp}
        with np.errstate(over="ignore"):  # as libm does, in double and rounded to float32
            value = functions[op]((scale * x.astype(F)).astype(np.float64)).astype(F)
            levels = np.clip(away(value * (F(1) / F(out.scale))) + out.zero_point, *LIMITS["int8"])
        return levels.astype(np.int64) - out.zero_point
    if op != "exp":
        return _sigmoid16(site, x)
    return fixed.interpolated(x, fixed.word_table(np.exp, scale * np.array([-32768, 32767], F), out.scale))


def root(site: Site, x: np.ndarray) -> np.ndarray:
    """sqrt: in float32, cut to a whole number. rsqrt: int16 on lines between samples, int8 in fixed point."""
    site.require((x >= 0).all(), "refuses negative inputs")
    scale, out = F(site.scales[0]), F(site.out.scale)
    if site.node.op == "sqrt":
        return fixed.to_int32(np.trunc(np.sqrt(scale * x.astype(F)) / out))
    if site.out.dtype == "int8":
        ones = np.where(x > 1, _inverse_root(np.maximum(x, 2)), 1 << 20)  # in units of 2 ** -20
        by = factor(1 / float(np.sqrt(scale) * out), 50)
        return np.where(x > 0, scaled(ones, Factor(by.fixed, by.shift - 20)), 127 - site.out.zero_point)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = scale * np.array([-32768, 32767], F)
        table = fixed.word_table(
            lambda v: np.where(v > 0, F(1) / np.sqrt(v.astype(F)), 32767 * out), ends, out
        )
    return fixed.interpolated(x, table)


def _inverse_root(x: np.ndarray) -> np.ndarray:
    """`GetInvSqrtQuantizedMultiplierExp`: 2 ** 20 / sqrt(x) of x > 1 by five Newton steps from 1 in Q3.28."""
    pairs = (31 - np.frexp(x)[1]) // 2 - 1
    half, y = rounded_shift((x << (2 * pairs)) >> 1, 1), np.full(x.shape, 1 << 28)
    for _ in range(5):
        cube = high_product(high_product(y, y), y) << 6
        y = (high_product(y, 3 << 27) - high_product(half, cube)) << 3
    y = high_product(y, 1518500250) << np.maximum(pairs - 11, 0)  # times sqrt(1/2)
    return scaled(np.ones_like(x), Factor(y, 20 - np.maximum(11 - pairs, 0)))


def sigmoid_table() -> np.ndarray:
    """256 samples of 2 ** 16 sigmoid(i / 24), each raised by half the error of the line to the next one."""
    exact = 65536 / (1 + np.exp(-np.arange(0, 255.5, 0.5) / 24))
    here, middle, following = exact[:-2:2], exact[1::2], exact[2::2]
    return np.append(away(here + (middle - (here + following) / 2) / 2), 65535).astype(np.int64)


def _sigmoid16(site: Site, x: np.ndarray) -> np.ndarray:
    """logistic and tanh on lines between samples of the sigmoid, of x in units of 1/3 of 2 ** -12."""
    tanh, real = site.node.op == "tanh", site.scales[0] * 4096.0 * 3.0
    log2 = np.log(np.array([site.scales[0], site.out.scale], F)) * (F(1) / np.log(F(2)))
    exponent, binary = away(log2), np.abs(log2 - away(log2).astype(F)) < F(1e-3)  # 2 ** n within 0.07 %
    exact = binary[1] and exponent[1] == -15 if tanh else site.out.scale == 2.0**-15
    site.require(exact, "needs an output scale of 1/32768")
    places = next(n for n in range(32) if real * 2**n > 32767.0 / 2 or n == 31)
    if binary[0] and exponent[0] in (-12, -11 if tanh else -12):
        real, places = 3 * 2 ** (exponent[0] + 12), 0
    x = wrap(x * int(real * 2**places) + ((1 << places) >> 1)) >> places
    bits, samples = 8 if tanh else 9, sigmoid_table()
    index, part = np.minimum(np.abs(x) >> bits, 254), np.abs(x) & ((1 << bits) - 1)
    line = (samples[index] << bits) + part * (samples[index + 1] - samples[index])
    line = np.where(np.abs(x) >> bits >= 255, 0xFFFF << 8 if tanh else 0x7FFF << 10, line)
    line = np.where(x >= 0, line, (1 << (16 + bits)) - 1 - line)
    return (line - (1 << 23) + (1 << 7)) >> 8 if tanh else (line + (1 << 9)) >> 10


CENTRED: Mapping[str, Kernel] = MappingProxyType({
    "conv": layer, "depthwise": layer, "transpose_conv": layer, "dense": layer, "matmul": matmul, "add": add,
    "sub": add, "prelu": prelu, "mean": mean, "clamp": clamp, "leaky_relu": leaky_relu, "softmax": softmax,
    "hard_swish": hard_swish, "logistic": curve, "tanh": curve, "exp": curve, "sqrt": root,
    "rsqrt": root,
    "mul": lambda site, a, b: scaled(a * b, site.single(*site.scales)),
    "abs": lambda site, x: scaled(np.abs(x), site.single(*site.scales)),
})  # fmt: skip
RAW: Mapping[str, Kernel] = MappingProxyType({
    "avg_pool": average, "max_pool": lambda site, x: windows(site.node, x, -(2**15)).max(0), "resize": bilinear,
    "neg": lambda site, x: (-x).astype(site.out.dtype),
    "maximum": lambda site, a, b: np.maximum(a, b), "minimum": lambda site, a, b: np.minimum(a, b),
})  # fmt: skip


def integer(site: Site, xs: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """The integers of the output, in its dtype. ValueError for numbers that LiteRT refuses."""
    node, out, wide = site.node, site.out, [x.astype(np.int64) for x in xs]
    if node.op in RAW:
        return fixed.store(RAW[node.op](site, *wide) - out.zero_point, out, node.activation)
    inner = (x - s.zero_point for x, s in zip(wide, site.sources, strict=True))
    return fixed.store(CENTRED[node.op](site, *inner, *weights), out, node.activation)
