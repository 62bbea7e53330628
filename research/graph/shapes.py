"""Output shapes of the operations, and the explicit padding behind SAME and VALID (TFLite's rule)."""

from __future__ import annotations

from math import prod

import numpy as np

from research.graph.ir import BINARY, WEIGHTED, Node, Padding, Shape


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

    `recorded` decides what the operation leaves open: the target of a reshape, the size of a slice, resize or
    transposed conv, and whether a mean keeps its axes. ValueError where the inputs do not fit the operation.
    """
    arity = {"constant": 0, "matmul": 2, **dict.fromkeys(BINARY, 2)}
    if node.op == "concat":
        _require(node, len(inputs) >= 1, "has no input")
    else:
        wanted = arity.get(node.op, 1)
        if node.op in WEIGHTED and node.kernel is None and len(inputs) == 2:  # a computed kernel
            wanted, fits = 2, inputs[1] == node.kernel_shape
            _require(node, fits, f"reads {inputs[1]} as its kernel {node.kernel_shape}")
        _require(node, len(inputs) == wanted, f"takes {wanted} input(s), got {len(inputs)}")
    return _RULES.get(node.op, _like_input)(node, inputs, recorded)


def _like_input(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    return inputs[0]


def _broadcast(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    try:
        return tuple(int(s) for s in np.broadcast_shapes(*inputs))
    except ValueError:
        raise ValueError(f"node {node.output!r} ({node.op}): shapes {inputs} do not broadcast") from None


def _image(node: Node, shape: Shape) -> None:
    _require(node, len(shape) == 4, f"needs an image [N, H, W, C], got {shape}")


def _conv(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    image, kernel = inputs[0], node.kernel_shape
    _image(node, image)
    _require(node, len(kernel) == 4 and min(kernel) > 0, f"needs a kernel of rank 4, got {kernel}")
    if node.op == "depthwise":
        fits = kernel[2] == 1 and kernel[3] % image[3] == 0
    elif node.op == "conv":
        fits = image[3] % kernel[2] == 0 and kernel[3] % (image[3] // kernel[2]) == 0
    else:
        fits = kernel[2] == image[3]
    _require(node, fits, f"kernel {kernel} does not fit {image[3]} input channels")
    if node.op == "transpose_conv":
        _image(node, recorded)
        return image[0], recorded[1], recorded[2], kernel[3]
    return _windowed(node, image, kernel[:2], kernel[3])


def _dense(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    kernel = node.kernel_shape
    _require(node, len(kernel) == 2, f"needs a kernel of rank 2, got {kernel}")
    _require(node, inputs[0][-1:] == kernel[:1], f"kernel {kernel} does not fit {inputs[0]}")
    return (*inputs[0][:-1], kernel[1])


def _matmul(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    a, b = inputs
    _require(node, len(a) >= 2 and len(b) >= 2 and a[-1] == b[-2], f"{a} @ {b} does not fit")
    return (*_broadcast(node, (a[:-2], b[:-2]), recorded), a[-2], b[-1])


def _pool(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    _image(node, inputs[0])
    return _windowed(node, inputs[0], node.window, inputs[0][3])


def _mean(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    rank = len(inputs[0])
    _require(node, len(node.axes) > 0 and all(0 <= a < rank for a in node.axes), f"cannot reduce {node.axes}")
    if len(recorded) == rank:
        return tuple(1 if i in node.axes else s for i, s in enumerate(inputs[0]))
    return tuple(s for i, s in enumerate(inputs[0]) if i not in node.axes)


def _concat(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    first, axis = inputs[0], node.axis
    _require(node, 0 <= axis < len(first), f"axis {axis} is not one of {first}")
    rest = {s[:axis] + s[axis + 1 :] for s in inputs}
    _require(node, len(rest) == 1, f"shapes {inputs} differ beside axis {axis}")
    return first[:axis] + (sum(s[axis] for s in inputs),) + first[axis + 1 :]


def _reshape(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    _require(node, prod(inputs[0]) == prod(recorded), f"{inputs[0]} and {recorded} differ in size")
    return recorded


def _transpose(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    axes = node.axes
    _require(node, sorted(axes) == list(range(len(inputs[0]))), f"{axes} does not permute {inputs[0]}")
    return tuple(inputs[0][a] for a in axes)


def _pad(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    fits = len(node.spans) == len(inputs[0]) and all(a >= 0 and b >= 0 for a, b in node.spans)
    _require(node, fits, f"pads {node.spans} do not fit {inputs[0]}")
    return tuple(s + a + b for s, (a, b) in zip(inputs[0], node.spans, strict=True))


def _slice(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    fits = len(node.spans) == len(inputs[0]) == len(recorded) and all(
        n > 0 and 0 <= begin + (n - 1) * stride < size and 0 <= begin < size and stride != 0
        for size, n, (begin, stride) in zip(inputs[0], recorded, node.spans, strict=True)
    )
    _require(node, fits, f"cannot cut {recorded} with {node.spans} out of {inputs[0]}")
    return recorded


def _resize(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    _image(node, inputs[0])
    _image(node, recorded)
    how, _, where = node.mode.partition("/")
    known = how in ("bilinear", "nearest") and where in ("", "half_pixel", "align_corners")
    _require(node, known, f"unknown way to resize: {node.mode!r}")
    return inputs[0][0], recorded[1], recorded[2], inputs[0][3]


def _depth_to_space(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    _image(node, inputs[0])
    batch, rows, columns, channels = inputs[0]
    high, wide = node.window
    _require(node, channels % (high * wide) == 0, f"{channels} channels do not make blocks of {node.window}")
    return batch, rows * high, columns * wide, channels // (high * wide)


def _constant(node: Node, inputs: tuple[Shape, ...], recorded: Shape) -> Shape:
    return node.kernel_shape


_RULES = {
    "constant": _constant, "conv": _conv, "depthwise": _conv, "transpose_conv": _conv, "dense": _dense,
    "matmul": _matmul, **dict.fromkeys(BINARY, _broadcast), "avg_pool": _pool, "max_pool": _pool,
    "mean": _mean, "concat": _concat, "reshape": _reshape, "transpose": _transpose, "pad": _pad,
    "slice": _slice, "resize": _resize, "depth_to_space": _depth_to_space,
}  # fmt: skip
