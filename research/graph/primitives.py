"""Rules for the layers: convolutions, products, pools and reductions. `RULES` is the whole vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, prod
from types import MappingProxyType
from typing import Any

import numpy as np

from research.graph import arithmetic, layout
from research.graph.arithmetic import Attributes, Rule
from research.graph.ir import Node, Op, Padding, Shape
from research.graph.layout import reversed_along, seen_as, transposed
from research.graph.shapes import window_pads, window_size
from research.graph.values import Draft, Traced, Value

Pads = Sequence[tuple[int, int]]
PADDINGS: tuple[Padding, ...] = ("SAME", "VALID")


def _pads(pads: Any) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pads]


def _padding(sizes: Shape, window: Shape, strides: Shape, dilation: Shape, pads: Pads) -> Padding | None:
    spatial = list(zip(sizes, window, strides, dilation, strict=True))
    fits = (p for p in PADDINGS if list(pads) == [window_pads(*axis, p) for axis in spatial])
    return next(fits, None)


def _conv(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    image, kernel, out = attributes["dimension_numbers"]
    groups, pads = attributes["feature_group_count"], _pads(attributes["padding"])
    strides, dilation = tuple(attributes["window_strides"]), tuple(attributes["rhs_dilation"])
    if len(image) != 4 or attributes["batch_group_count"] != 1:
        raise ValueError("it is not a convolution over two axes, or it groups the batch")
    x = transposed(draft, Value(draft.read(operands[0])), (image[0], *image[2:], image[1]))
    weights = transposed(draft, operands[1], (*kernel[2:], kernel[1], kernel[0]))
    assert isinstance(x, Value)
    sizes, shape, spread = draft.shape(x), draft.shape(weights), tuple(attributes["lhs_dilation"])
    if spread == (1, 1):
        padding = _padding(sizes[1:3], shape[:2], strides, dilation, pads)
        x = x if padding else draft.pad(x, [(0, 0), *pads, (0, 0)])
        op: Op = "depthwise" if 1 < groups == sizes[3] else "conv"
        node = Node(op, (x.tensor,), "", strides=strides, dilation=dilation, padding=padding or "VALID")
        made = draft.layer(node, weights, shape)
    elif (strides, dilation, groups) == ((1, 1), (1, 1), 1):
        made = _transpose_conv(draft, x, weights, spread, pads)
    else:
        raise ValueError("it is a transposed convolution with strides, dilation or groups of its own")
    return transposed(draft, made, tuple(int(a) for a in np.argsort((out[0], *out[2:], out[1]))))


def _transpose_conv(draft: Draft, x: Value, kernel: Traced, strides: tuple[int, int], pads: Pads) -> Value:
    """A convolution of the image with `strides - 1` zeros between its pixels: the kernel runs backwards.

    What is neither SAME nor VALID is cut or padded afterwards.
    """
    image, shape = draft.shape(x), draft.shape(kernel)
    axes = list(zip(image[1:3], shape, strides, pads, strict=False))
    out = [(size - 1) * s + before + after - k + 2 for size, k, s, (before, after) in axes]
    rest = [(0, 0)] * 4
    for padding in PADDINGS:  # of the convolution whose gradient this is
        if all(
            (window_pads(o, k, s, 1, padding)[0], window_size(o, k, s, 1, padding)) == (k - 1 - before, size)
            for o, (size, k, s, (before, _)) in zip(out, axes, strict=True)
        ):
            break
    else:
        out = [(size - 1) * s + k for size, k, s, _ in axes]
        rest[1:3] = [(before - k + 1, after - k + 1) for _, k, _, (before, after) in axes]
    node = Node("transpose_conv", (x.tensor,), "", strides=strides, padding=padding)
    recorded = (image[0], *out, shape[3])
    return draft.pad(draft.layer(node, reversed_along(draft, kernel, (0, 1)), shape, recorded), rest)


def _product(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    """dot_general: a dense layer where one side is fixed, otherwise a matmul, between transposes."""
    (left, right), (left_batch, right_batch) = attributes["dimension_numbers"]
    first, second = operands
    x, y = draft.shape(first), draft.shape(second)
    fixed = [not isinstance(v, Value) or v.tensor in draft.fixed for v in operands]
    if fixed[0] and not fixed[1] and not left_batch:  # the image goes first, with the batch in front
        turned = {"dimension_numbers": ((right, left), ((), ())), "out": ()}
        count, rank = len(y) - len(right), len(x) + len(y) - 2 * len(left)
        swapped = _product(draft, [second, first], turned)
        return transposed(draft, swapped, (*range(count, rank), *range(count)))
    pairs = sorted(zip(right, left, strict=True))  # the kernel's axes in their order: it is read as it lies
    right, left = [r for r, _ in pairs], [a for _, a in pairs]
    rows = [a for a in range(len(x)) if a not in (*left, *left_batch)]
    columns = [a for a in range(len(y)) if a not in (*right, *right_batch)]
    batch, high, wide = [x[a] for a in left_batch], [x[a] for a in rows], [y[a] for a in columns]
    inner, dense = prod(x[a] for a in left), fixed[1] and not left_batch
    lead = () if dense or batch[:1] == [1] else (1,)
    kernel = transposed(draft, second, (*right_batch, *right, *columns))
    kernel = seen_as(draft, kernel, (*lead, *batch, inner, prod(wide)))
    source = transposed(draft, Value(draft.read(first)), (*left_batch, *rows, *left))
    source = seen_as(draft, source, (*lead, *batch, *(high if dense and high else (prod(high),)), inner))
    if dense:
        made = draft.layer(Node("dense", (draft.read(source),), ""), kernel, (inner, prod(wide)))
    else:
        made = draft.add_node(Node("matmul", (draft.read(source), draft.read(kernel)), ""))
    return draft.reshape(made, (*batch, *high, *wide))


def _sum(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    source, axes = Value(draft.read(operands[0])), sorted(int(a) for a in attributes["axes"])
    shape = draft.shape(source)
    axes = [a for a in axes if a or shape[0] != 1]  # one image is its own mean
    if axes:
        rest = tuple(s for a, s in enumerate(shape) if a not in axes)
        mean = Node("mean", (source.tensor,), "", axes=tuple(axes))
        source = draft.add(mean, rest, np.asarray(float(prod(shape[a] for a in axes))))
    return draft.reshape(source, attributes["out"])


def _maximum(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    """The largest entry along some axes: a max pool whose window is all of them."""
    image, axes = Value(draft.read(operands[0])), sorted(int(a) for a in attributes["axes"])
    shape = draft.shape(image)
    if (len(shape), axes) != (4, [1, 2]):
        image = draft.transpose(image, [*(a for a in range(len(shape)) if a not in axes), *axes])
        image = draft.reshape(image, (1, prod(attributes["out"]), prod(shape[a] for a in axes), 1))
    _, rows, columns, _ = draft.shape(image)
    window = (rows, columns) if axes == [1, 2] and len(shape) == 4 else (1, columns)
    made = draft.add_node(Node("max_pool", (image.tensor,), "", window=window, strides=window))
    return draft.reshape(made, attributes["out"])


def _pool(draft: Draft, operands: list[Traced], attributes: Attributes, op: Op) -> Traced:
    window, strides = tuple(attributes["window_dimensions"]), tuple(attributes["window_strides"])
    x, pads = Value(draft.read(operands[0])), _pads(attributes["padding"])
    dilations = {*attributes["base_dilation"], *attributes["window_dilation"]}
    outer = [(window[a], strides[a], pads[a]) for a in (0, -1)]
    if len(window) != 4 or dilations != {1} or outer != [(1, 1, (0, 0))] * 2:
        raise ValueError("it is not a plain pool over H, W of [N, H, W, C]")
    padding = _padding(draft.shape(x)[1:3], window[1:3], strides[1:3], (1, 1), pads[1:3])
    if padding is None:
        clamp = draft.nodes.get(x.tensor)
        lowest = 0.0 if op == "avg_pool" else clamp.bounds[0] if clamp and clamp.bounds else -inf
        if lowest == -inf:
            raise ValueError("its padding is neither SAME nor VALID, and no relu bounds what it pads")
        x = draft.pad(x, pads, lowest)
    node = Node(op, (x.tensor,), "", window=window[1:3], strides=strides[1:3], padding=padding or "VALID")
    value = draft.add_node(node)
    return value if op == "max_pool" else Value(value.tensor, _counts(node, draft.shape(x)))


def _counts(node: Node, image: Shape) -> np.ndarray:
    """Pixels under each window, [1, H, W, 1]: how often a sum over it adds a real pixel."""
    inside = []
    for a in (0, 1):
        size, window, stride = image[1 + a], node.window[a], node.strides[a]
        before, after = window_pads(size, window, stride, 1, node.padding)
        starts = np.arange(-before, size + after - window + 1, stride)
        inside.append(np.minimum(starts + window, size) - np.maximum(starts, 0))
    return np.asarray(inside[0][None, :, None, None] * inside[1][None, None, :, None], np.float64)


RULES: Mapping[str, Rule] = MappingProxyType({
    **arithmetic.RULES, **layout.RULES,
    "conv_general_dilated": _conv, "dot_general": _product, "reduce_sum": _sum, "reduce_max": _maximum,
    "reduce_window_sum": lambda draft, operands, attributes: _pool(draft, operands, attributes, "avg_pool"),
    "reduce_window_max": lambda draft, operands, attributes: _pool(draft, operands, attributes, "max_pool"),
})  # fmt: skip
