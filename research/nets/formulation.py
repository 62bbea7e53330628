"""Two ways to compute one convolution: the canonical one that is traced, and the one XLA runs fast on a CPU.

XLA's grouped convolution on CPU costs an order of magnitude more than shifted multiply-adds; a 1x1
convolution is a matrix product. Both formulations agree to 1e-5 (tests/nets/test_formulation.py).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

CANONICAL = "canonical"
SHIFTED = "shifted"


def fastest() -> str:
    """The formulation for the backend this process runs on."""
    return SHIFTED if jax.default_backend() == "cpu" else CANONICAL


def conv(x: jax.Array, kernel: jax.Array, stride: int, formulation: str) -> jax.Array:
    """SAME convolution of `x [N,H,W,C]` with `kernel [k,k,C,O]` -> `[N,H/stride,W/stride,O]`."""
    if formulation == SHIFTED and kernel.shape[:2] == (1, 1) and stride == 1:
        return jnp.einsum("nhwc,co->nhwo", x, kernel[0, 0])
    return _lax_conv(x, kernel, stride, groups=1)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, formulation: str) -> jax.Array:
    """SAME depthwise convolution of `x [N,H,W,C]` with `kernel [k,k,1,C]` -> `[N,H/stride,W/stride,C]`."""
    if formulation != SHIFTED:
        return _lax_conv(x, kernel, stride, groups=x.shape[3])
    size, height, width = kernel.shape[0], x.shape[1], x.shape[2]
    pads = [_same_padding(extent, size, stride) for extent in (height, width)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    out_h, out_w = -(-height // stride), -(-width // stride)
    total = None
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + (out_h - 1) * stride + 1, stride)
            cols = slice(j, j + (out_w - 1) * stride + 1, stride)
            part = x[:, rows, cols, :] * kernel[i, j, 0][None, None, None, :]
            total = part if total is None else total + part
    assert total is not None
    return total


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
