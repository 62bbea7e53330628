"""Output shapes of the operations, and the explicit padding behind SAME and VALID (TFLite's rule)."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.graph.ir import Node, Padding, Shape


def window_pads(size: int, window: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """(before, after) zeros along one axis. SAME: ceil(size / stride) outputs, the odd zero after."""
    if padding == "VALID":
        return 0, 0
    reach = (window - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def window_size(size: int, window: int, stride: int, dilation: int, padding: Padding) -> int:
    """Positions of a sliding window along one axis of `size` pixels."""
    if padding == "SAME":
        return -(-size // stride)
    return (size - (window - 1) * dilation - 1) // stride + 1


def _windowed(node: Node, image: Shape, window: Shape, channels: int) -> Shape:
    rows, columns = (
        window_size(image[1 + a], window[a], node.strides[a], node.dilation[a], node.padding) for a in (0, 1)
    )
    return image[0], rows, columns, channels


def _require(node: Node, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"node {node.output!r} ({node.op}): {what}")


def output_shape(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    """Shape that `node` makes from inputs of these shapes.

    `recorded` decides what the operation leaves open: the target of a reshape, and whether a mean keeps its
    axes. ValueError where the inputs do not fit the operation.
    """
    _require(node, len(inputs) >= 1, "has no input")
    first, kernel = inputs[0], node.kernel_shape
    if node.op in ("conv", "depthwise"):
        _require(node, len(first) == 4, f"needs an image [N, H, W, C], got {first}")
        _require(node, len(kernel) == 4, f"needs a kernel of rank 4, got {kernel}")
        expected = first[3] if node.op == "conv" else 1
        _require(node, kernel[2] == expected, f"kernel {kernel} does not fit {first[3]} input channels")
        _require(
            node, node.op == "conv" or kernel[3] == first[3], f"kernel {kernel} changes the channel count"
        )
        return _windowed(node, first, kernel[:2], kernel[3])
    if node.op == "dense":
        _require(node, len(first) == 2, f"needs [N, features], got {first}")
        _require(node, kernel[:-1] == first[1:], f"kernel {kernel} does not fit {first[-1]} features")
        return first[0], kernel[1]
    if node.op in ("avg_pool", "max_pool"):
        _require(node, len(first) == 4, f"needs an image [N, H, W, C], got {first}")
        return _windowed(node, first, node.window, first[3])
    if node.op == "mean":
        _require(node, len(first) == 4, f"needs an image [N, H, W, C], got {first}")
        return (first[0], 1, 1, first[3]) if len(recorded) == 4 else (first[0], first[3])
    if node.op == "add":
        _require(
            node, len(inputs) == 2 and inputs[1] == first, f"needs two tensors of one shape, got {inputs}"
        )
        return first
    if node.op == "concat":
        _require(node, 0 < node.axis < len(first), f"axis {node.axis} is not one of {first} after the batch")
        rest = {s[: node.axis] + s[node.axis + 1 :] for s in inputs}
        _require(node, len(rest) == 1, f"shapes {inputs} differ beside axis {node.axis}")
        return first[: node.axis] + (sum(s[node.axis] for s in inputs),) + first[node.axis + 1 :]
    if node.op == "reshape":
        _require(node, prod(first) == prod(recorded), f"{first} and {recorded} differ in size")
        return recorded
    return first  # bias, clamp
