"""Integer sums of products as float matmuls that are exact, and the layers made of them.

A float32 sum of integers is exact while no partial sum can leave 2^24: 16-bit inputs go in bytes, and where the
weights allow larger sums their input channels are cut in halves. That runs in the CPU's fast convolutions, unlike
integers or most of float64. Depthwise layers are shifted multiply-adds, grouped ones a convolution a group. (A GPU
may choose a convolution that is no plain sum of products; there nothing of this holds.)
"""

from __future__ import annotations

from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.graph.exact_fixed import multiplier, rescale, rescale_wide
from research.graph.ir import Node, Shape
from research.graph.program import Affine, IntegerWeights
from research.graph.shapes import window_pads

Pads = list[tuple[int, int]]
_conv = partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest")


class Site(NamedTuple):
    """Where integers are computed: the node, the formats of its inputs and its output, the recorded shape of the
    output, and its integers (empty for a node without weights)."""

    node: Node
    ins: tuple[Affine, ...]
    out: Affine
    shape: Shape
    integers: IntegerWeights


def centred(x: jax.Array, format_: Affine) -> jax.Array:
    """x - zero point, int32."""
    return x.astype(jnp.int32) - format_.zero_point


def taps(
    x: jax.Array, axis: int, count: int, window: int, pads: tuple[int, int],
    stride: int = 1, dilation: int = 1, fill: int = 0,
) -> list[jax.Array]:  # fmt: skip
    """What each of `window` positions sees while it slides along an axis: arrays of `count` entries there."""
    padded = jnp.pad(x, [pads if a == axis else (0, 0) for a in range(x.ndim)], constant_values=fill)
    starts, reach = (k * dilation for k in range(window)), (count - 1) * stride + 1
    return [lax.slice_in_dim(padded, s, s + reach, stride, axis) for s in starts]


def _depthwise(node: Node, x: jax.Array, kernel: np.ndarray, shape: Shape, pads: Pads) -> jax.Array:
    total = jnp.zeros((x.shape[0], *shape[1:]), x.dtype)
    x = jnp.repeat(x, shape[-1] // x.shape[-1], -1)
    rows = taps(x, 1, shape[1], kernel.shape[0], pads[0], node.strides[0], node.dilation[0])
    for row, line in zip(rows, kernel, strict=True):
        columns = taps(row, 2, shape[2], kernel.shape[1], pads[1], node.strides[1], node.dilation[1])
        for tap, weights in zip(columns, line, strict=True):
            total = total + tap * weights.reshape(1, 1, 1, -1)
    return total


def _convolve(node: Node, x: jax.Array, kernel: np.ndarray, shape: Shape) -> jax.Array:
    """Of a transposed conv the image is spread and the kernel flipped: out[stride * i + k - before] += x[i] k[k]."""
    size, spread, strides, transposed = kernel.shape[:2], (1, 1), node.strides, node.op == "transpose_conv"
    grid = shape if transposed else x.shape
    pads = [window_pads(grid[1 + a], size[a], strides[a], node.dilation[a], node.padding) for a in (0, 1)]
    if transposed:
        spread, strides, kernel = strides, (1, 1), kernel[::-1, ::-1]
        last = [(x.shape[1 + a] - 1) * spread[a] for a in (0, 1)]
        pads = [(size[a] - 1 - b, grid[1 + a] - 1 + b - last[a]) for a, (b, _) in enumerate(pads)]
    elif kernel.shape[2] == 1 and x.shape[-1] > 1:
        return _depthwise(node, x, kernel, shape, pads)
    return _conv(x, jnp.asarray(kernel), strides, pads, spread, node.dilation)


def _sums(node: Node, x: jax.Array, kernel: np.ndarray, shape: Shape) -> jax.Array:
    """int32 sums of products of the kernel and of integers within 255; the groups, and channels whose sum could
    leave 2^24, apart."""
    depth = kernel.shape[-2]
    groups, axes = x.shape[-1] // depth, tuple(range(kernel.ndim - 1))
    if depth > 1 and groups > 1:
        parts = zip(jnp.split(x, groups, -1), np.split(kernel, groups, -1), strict=True)
        return jnp.concatenate([_sums(node, a, b, shape) for a, b in parts], -1)
    exact = 255 * np.abs(kernel.astype(np.int64)).sum(axes).max() < 2**24
    if depth > 1 and not exact:
        halves = zip(jnp.split(x, [depth // 2], -1), np.split(kernel, [depth // 2], -2), strict=True)
        return reduce(jnp.add, [_sums(node, a, b, shape) for a, b in halves])
    kind = np.float32 if exact else np.float64
    x, kernel, dense = x.astype(kind), kernel.astype(kind), node.op == "dense"
    sums = jnp.matmul(x, kernel, precision="highest") if dense else _convolve(node, x, kernel, shape)
    return sums.astype(jnp.int32)


def layer(site: Site, x: jax.Array) -> jax.Array:
    """conv, depthwise, transpose_conv and dense: integers before the activation.

    The sums are int64 where the bias is (int16x8), else int32. Convolutions rescale in fixed point; a dense
    layer multiplies by a double and rounds halves away from zero, as LiteRT's reference kernel does today.
    """
    node, integers, x = site.node, site.integers, centred(x, site.ins[0])
    bytes_ = [(x, 0)] if site.out.dtype == "int8" else [(x >> 8, 8), (x & 255, 0)]
    kernel, kind = integers.kernel.reshape(node.kernel_shape), integers.bias.dtype
    sums = [_sums(node, v, kernel, site.shape).astype(kind) << shift for v, shift in bytes_]
    last = (1,) * (sums[0].ndim - 1) + (-1,)
    total = reduce(jnp.add, sums) + integers.bias.reshape(last)
    factor = np.float64(site.ins[0].scale) * integers.scale.astype(np.float64).reshape(last) / site.out.scale
    if node.op == "dense":
        return lax.round(total * factor, lax.RoundingMethod.AWAY_FROM_ZERO) + site.out.zero_point
    return (rescale_wide if kind == np.int64 else rescale)(total, multiplier(factor)) + site.out.zero_point


def matmul(site: Site, a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b of two integer tensors; int16 sums are int64. The product of the scales is rounded to float32."""
    values = (centred(v, f).astype(jnp.float64) for v, f in zip((a, b), site.ins, strict=True))
    sums, wide = jnp.matmul(*values, precision="highest"), site.out.dtype == "int16"
    product = np.float32(site.ins[0].scale) * np.float32(site.ins[1].scale)
    by = multiplier(float(product) / site.out.scale)
    total = sums.astype(jnp.int64 if wide else jnp.int32)
    return (rescale_wide if wide else rescale)(total, by) + site.out.zero_point
