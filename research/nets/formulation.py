"""Two ways to compute a layer: the canonical one that is traced, and the one XLA runs fast on a CPU.

XLA for CPUs computes a grouped convolution an order of magnitude slower than shifted multiply-adds, its kernel's
gradient slower still, a sum over all but the last axis six times slower than a product with a row of ones, and a 1x1
convolution as fast as a matrix product only where it is written as one. Both formulations agree to 1e-5, gradients
included (tests/nets/test_formulation.py).
"""

from __future__ import annotations

import math
import operator
from functools import partial, reduce

import jax
import jax.numpy as jnp

CANONICAL = "canonical"
SHIFTED = "shifted"
_PARTS = 8


def fastest() -> str:
    """The formulation for the backend this process runs on."""
    return SHIFTED if jax.default_backend() == "cpu" else CANONICAL


def conv(x: jax.Array, kernel: jax.Array, stride: int, formulation: str) -> jax.Array:
    """SAME convolution of `x [N,H,W,C]` with `kernel [k,k,C,O]` -> `[N,H/stride,W/stride,O]`."""
    if formulation == SHIFTED and kernel.shape[:2] == (1, 1) and stride == 1:
        return (x.reshape(-1, x.shape[3]) @ kernel[0, 0]).reshape(*x.shape[:3], -1)
    return _lax_conv(x, kernel, stride, groups=1)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, formulation: str) -> jax.Array:
    """SAME depthwise convolution of `x [N,H,W,C]` with `kernel [k,k,1,C]` -> `[N,H/stride,W/stride,C]`."""
    if formulation != SHIFTED:
        return _lax_conv(x, kernel, stride, groups=x.shape[3])
    return _depthwise(x, kernel, stride)


def channel_sums(x: jax.Array) -> jax.Array:
    """Sums `[C]` of `x [N,...,C]` over all other axes, in at least float32.

    Some places of each example are added first, in one pass with whatever makes `x`, so that a product or a square is
    not written out; a row of ones times what is left does the rest.
    """
    places = x.reshape(x.shape[0], -1, x.shape[-1])
    parts = math.gcd(places.shape[1], _PARTS)
    if parts > 1 and x.dtype != jnp.bfloat16:
        step = places.shape[1] // parts
        places = reduce(operator.add, [places[:, i * step : (i + 1) * step] for i in range(parts)])
    rows = places.reshape(-1, x.shape[-1])
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.matmul(jnp.ones((1, rows.shape[0]), x.dtype), rows, preferred_element_type=wide)[0]


@jax.custom_vjp
def relu6(x: jax.Array) -> jax.Array:
    """`jnp.clip(x, 0, 6)` and its gradient (half of it at a corner) from `x` alone; jnp saves two more planes."""
    return jnp.clip(x, 0.0, 6.0)


def _relu6_back(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    inside = jnp.where((x > 0.0) & (x < 6.0), dy, 0.0)
    return (jnp.where((x == 0.0) | (x == 6.0), 0.5 * dy, inside),)


relu6.defvjp(lambda x: (relu6(x), x), _relu6_back)


def norm_by_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, formulation: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch norm of `x [N,H,W,C]` by its own statistics: the result, and mean and variance `[C]` for the running ones.

    The variance is E[x^2] - E[x]^2, as in flax.linen.BatchNorm; statistics are in at least float32.
    """
    if formulation == SHIFTED:
        y, mean, var = _norm(x, scale, bias, epsilon)
        return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, (0, 1, 2))
    var = jnp.maximum(jnp.mean(jnp.square(wide), (0, 1, 2)) - jnp.square(mean), 0.0)
    slope = jax.lax.rsqrt(var + epsilon) * scale
    return affine(x, slope, bias - mean * slope), jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


def affine(x: jax.Array, slope: jax.Array, level: jax.Array) -> jax.Array:
    """`x [...,C]` times a slope plus a level a channel, `[C]`, in the type of `x`."""
    return x * _rows(slope, x) + _rows(level, x)


_Normed = tuple[jax.Array, jax.Array, jax.Array]
_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> _Normed:
    """Mean and variance have no gradient."""
    return _norm_forth(x, scale, bias, epsilon)[0]


def _norm_forth(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[_Normed, _Saved]:
    count = x.size // x.shape[-1]
    mean = channel_sums(x) / count
    var = jnp.maximum(channel_sums(jnp.square(x)) / count - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(var + epsilon)
    slope = inverse * scale
    return (affine(x, slope, bias - mean * slope), mean, var), (x, mean, inverse, scale)


def _norm_back(epsilon: float, saved: _Saved, gradients: _Normed) -> _Normed:
    x, mean, inverse, scale = saved
    dy, count = gradients[0], x.size // x.shape[-1]
    d_bias = channel_sums(dy)
    d_scale = (channel_sums(dy * x) - mean * d_bias) * inverse
    slope = scale * inverse
    along = -slope * inverse * d_scale / count
    level = -slope * d_bias / count - mean * along
    return dy * _rows(slope, x) + affine(x, along, level), d_scale, d_bias


_norm.defvjp(_norm_forth, _norm_back)


def _rows(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    size, (height, width) = kernel.shape[0], x.shape[1:3]
    pads = [_same_padding(extent, size, stride) for extent in (height, width)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return _taps(x, kernel, -(-height // stride), -(-width // stride), stride)


def _taps(x: jax.Array, kernel: jax.Array, height: int, width: int, stride: int) -> jax.Array:
    """VALID depthwise convolution: a multiply-add a tap."""
    total = None
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            cols = slice(j, j + (width - 1) * stride + 1, stride)
            part = x[:, rows, cols, :] * kernel[i, j, 0][None, None, None, :]
            total = part if total is None else total + part
    assert total is not None
    return total


def _depthwise_back(
    stride: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    size, extents = kernel.shape[0], (x.shape[1], x.shape[2])
    pads = [_same_padding(extent, size, stride) for extent in extents]
    # of x: dy spread to the stride, convolved with the kernel turned around
    spread = [
        (size - 1 - low, extent + low - (count - 1) * stride - 1, stride - 1)
        for extent, (low, _), count in zip(extents, pads, dy.shape[1:3], strict=True)
    ]
    wide = jax.lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
    dx = _taps(wide, kernel[::-1, ::-1], extents[0], extents[1], 1)
    # of the kernel: products added along a row, whose places lie side by side in memory, in one pass a tap; the padded
    # input is written once, not inside each pass
    padded = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    height, width = dy.shape[1:3]
    found = []
    for i in range(size):
        rows = padded[:, i : i + (height - 1) * stride + 1 : stride]
        for j in range(size):
            products = [rows[:, :, j + k * stride] * dy[:, :, k] for k in range(width)]
            found.append(channel_sums(reduce(operator.add, products)).astype(kernel.dtype))
    return dx, jnp.stack(found).reshape(kernel.shape)


_depthwise.defvjp(lambda x, kernel, stride: (_depthwise(x, kernel, stride), (x, kernel)), _depthwise_back)


def _same_padding(extent: int, size: int, stride: int) -> tuple[int, int]:
    total = max((-(-extent // stride) - 1) * stride + size - extent, 0)
    return total // 2, total - total // 2


def _lax_conv(x: jax.Array, kernel: jax.Array, stride: int, groups: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
