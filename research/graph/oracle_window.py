"""Windows over images in numpy: sums one kernel position at a time, extremes, and the positions of a resize.

Sums are taken in float64, in which integers below 2 ** 53 are exact: every product of an int16 activation and
an int8 weight is, and as many as 2 ** 30 of them. Images are [N, H, W, C], kernels as `ir` lays them out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from research.graph.ir import Node, Shape
from research.graph.shapes import window_pads, window_size


def taps(node: Node, x: np.ndarray, window: Shape, fill: float = 0) -> Iterator[tuple[int, int, np.ndarray]]:
    """(row, column, what that position of the window sees [N, rows, columns, C]) of a conv or a pool.

    fill: what lies beyond the image.
    """
    (down, across), (high, wide) = node.strides, node.dilation
    axes = [(x.shape[1 + a], window[a], node.strides[a], node.dilation[a], node.padding) for a in (0, 1)]
    x = np.pad(x, ((0, 0), *(window_pads(*axis) for axis in axes), (0, 0)), constant_values=fill)
    rows, columns = (window_size(*axis) for axis in axes)
    for i, j in np.ndindex(*window[:2]):
        yield i, j, x[:, i * high :: down, j * wide :: across][:, :rows, :columns]


def windows(node: Node, x: np.ndarray, fill: float = 0) -> np.ndarray:
    """What each position of a pool's window sees, [positions, N, rows, columns, C]."""
    return np.stack([view for *_, view in taps(node, x, node.window, fill)])


def convolve(node: Node, shape: Shape, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """conv, depthwise, transpose_conv or dense without bias: float64 sums of x and kernel.

    shape: recorded, of the output; only a transpose_conv looks at it.
    """
    x, kernel = x.astype(np.float64), kernel.reshape(node.kernel_shape).astype(np.float64)
    if node.op == "dense":
        return np.asarray(x @ kernel)
    if node.op == "transpose_conv":
        return _spread(node, shape, x, kernel)
    groups, inner = x.shape[3] // kernel.shape[2], kernel.shape[2]  # a depthwise layer has a group a channel
    total = np.zeros(())
    for i, j, view in taps(node, x, kernel.shape):
        weights = kernel[i, j].reshape(inner, groups, -1).swapaxes(0, 1)
        parts = view.reshape(-1, groups, inner).swapaxes(0, 1) @ weights
        total = total + parts.swapaxes(0, 1).reshape(*view.shape[:3], -1)
    return total


def _spread(node: Node, shape: Shape, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """out[stride * y + i - before] += x[y] * kernel[i], cut to the recorded size."""
    (down, across), (high, wide), (rows, columns) = node.strides, kernel.shape[:2], x.shape[1:3]
    canvas = np.zeros((len(x), rows * down + high + shape[1], columns * across + wide + shape[2], shape[3]))
    for i, j in np.ndindex(high, wide):
        canvas[:, i : i + rows * down : down, j : j + columns * across : across] += x @ kernel[i, j]
    top = window_pads(shape[1], high, down, 1, node.padding)[0]
    left = window_pads(shape[2], wide, across, 1, node.padding)[0]
    return canvas[:, top : top + shape[1], left : left + shape[2]]


def resize(node: Node, shape: Shape, x: np.ndarray, unit: int = 0) -> np.ndarray:
    """The nearest pixel, by LiteRT's float32 positions, or the weighted sum of the four around.

    unit: weights are integers that sum to unit ** 2; 0: real, summing to 1. ValueError where the integer
    positions leave the image, as LiteRT's do in very large enlargements.
    """
    corners, half, one = "align_corners" in node.mode, "half_pixel" in node.mode, unit or 1
    for axis in (1, 2):
        last, count = x.shape[axis] - 1, shape[axis]
        size, out = (s - (corners and count > 1) for s in (last + 1, count))
        if node.mode.startswith("nearest"):
            at = (np.arange(count) + 0.5 * half).astype(np.float32) * (np.float32(size) / np.float32(out))
            whole = np.floor(at.astype(np.float64) + 0.5 * corners).astype(np.int64)
            x = np.take(x, whole.clip(0, last), axis)
            continue
        step = (unit * size + out // 2) // out if unit else size / out
        at = np.arange(count) * step + half * (step // 2 - unit // 2 if unit else step / 2 - 0.5)
        if unit and at[-1] // unit > last:
            raise ValueError(f"node {node.output!r}: LiteRT reads beyond {last + 1} pixels to make {count}")
        low, high = (np.clip(v, 0, last).astype(np.int64) for v in (at // one, -(-at // one)))
        part = (at - one * low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (one - part) + np.take(x, high, axis) * part
    return x
