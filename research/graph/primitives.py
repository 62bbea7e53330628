"""One small rule per jaxpr primitive: what it adds to the graph. `RULES` is the whole vocabulary.

A rule gets the draft, the traced operands and the parameters of the equation, and returns the traced result.
It raises ValueError with the reason where the equation is outside what the graph can say; `trace` adds where
in the user's code that was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, prod
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from research.graph.ir import Node, Padding, Shape
from research.graph.shapes import window_pads
from research.graph.values import Draft, Traced, Value, Weight, uniform

Attributes = Mapping[str, Any]
Rule = Callable[[Draft, list[Traced], Attributes], Traced]


def tensor_of(value: Traced) -> str:
    """The tensor behind an operand. ValueError for weights, constants and sums that were not yet divided."""
    if not isinstance(value, Value):
        raise ValueError("it is applied to a weight or constant, and layers read their weights as they are")
    if not value.settled:
        raise ValueError("a sum over H, W must be divided by its count: use jnp.mean or an average pool")
    return value.tensor


def _padding(sizes: Shape, window: Shape, strides: Shape, dilation: Shape, pads: Any) -> Padding:
    given = tuple((int(a), int(b)) for a, b in pads)
    spatial = list(zip(sizes, window, strides, dilation, strict=True))
    for padding in ("SAME", "VALID"):
        if given == tuple(window_pads(*axis, padding) for axis in spatial):
            return padding
    raise ValueError(f"its padding {given} is neither SAME nor VALID")


def _conv(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    source, kernel = tensor_of(operands[0]), operands[1]
    numbers, groups = attributes["dimension_numbers"], attributes["feature_group_count"]
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)):
        raise ValueError("its layout is not NHWC images with HWIO kernels")
    if set(attributes["lhs_dilation"]) != {1} or attributes["batch_group_count"] != 1:
        raise ValueError("it is a transposed or batch-grouped convolution")
    image, shape = draft.shapes[source], _view(kernel)
    if groups not in (1, image[3]):
        raise ValueError(
            f"it has {groups} groups for {image[3]} channels, and the graph knows 1 or {image[3]}"
        )
    if groups > 1 and shape[3] != image[3]:
        raise ValueError(f"its depthwise kernel {shape} makes several channels from one")
    strides, dilation = attributes["window_strides"], attributes["rhs_dilation"]
    node = Node(
        "conv" if groups == 1 else "depthwise", (source,), "",
        kernel=draft.weight(kernel, shape), kernel_shape=shape,
        strides=tuple(strides), dilation=tuple(dilation),
        padding=_padding(image[1:3], shape[:2], strides, dilation, attributes["padding"]),
    )  # fmt: skip
    return draft.add_node(node)


def _view(kernel: Traced) -> Shape:
    if isinstance(kernel, Weight):
        return kernel.view
    if isinstance(kernel, np.ndarray):
        return kernel.shape
    raise ValueError("its kernel depends on the image")


def _dense(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    source, kernel = tensor_of(operands[0]), operands[1]
    image, shape = draft.shapes[source], _view(kernel)
    if attributes["dimension_numbers"] != (((len(image) - 1,), (0,)), ((), ())) or len(shape) != 2:
        raise ValueError("it is not `x @ kernel` with a kernel [in, out]")
    if len(image) == 4:  # a pointwise convolution, spelled as a product
        shape = (1, 1, *shape)
        return draft.add_node(
            Node(
                "conv", (source,), "", kernel=draft.weight(kernel, shape), kernel_shape=shape, padding="SAME"
            )
        )
    if len(image) != 2:
        raise ValueError(f"its input has shape {image}; dense layers take [N, in] or [N, H, W, in]")
    return draft.add_node(
        Node("dense", (source,), "", kernel=draft.weight(kernel, shape), kernel_shape=shape)
    )


def _add(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    if all(isinstance(v, Value) for v in operands):
        first, second = sorted(tensor_of(v) for v in operands)
        if draft.shapes[first] != draft.shapes[second]:
            raise ValueError(f"it adds shapes {draft.shapes[first]} and {draft.shapes[second]}")
        return draft.add_node(Node("add", (first, second), ""))
    value, bias = operands if isinstance(operands[0], Value) else reversed(operands)
    source = tensor_of(value)
    channels = draft.shapes[source][-1:]
    if isinstance(bias, np.ndarray):
        if np.broadcast_shapes(bias.shape, draft.shapes[source]) != draft.shapes[source]:
            raise ValueError(f"it adds a constant of shape {bias.shape}, which repeats the tensor")
        full = np.broadcast_to(bias, draft.shapes[source]).reshape(-1, *channels)
        if np.any(full != full[:1]):
            raise ValueError("it adds a constant that changes from pixel to pixel")
        bias = full[0]
        if not bias.any():
            return value
    elif isinstance(bias, Weight) and (bias.size, *bias.view[-1:]) != channels * 2:
        raise ValueError(
            f"it adds a parameter seen as {bias.view}; a bias has one value for each of {channels[0]}"
        )
    node = Node("bias", (source,), "", bias=draft.weight(bias, channels))
    return draft.add_node(node)


def _bound(value: Traced) -> float:
    number = uniform(value)
    if number is None:
        raise ValueError("it compares with something other than one constant number")
    return number


def _clamp(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    low, value, high = operands
    return draft.clamp(tensor_of(value), _bound(low), _bound(high))


def _maximum(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    value, bound = operands if isinstance(operands[0], Value) else reversed(operands)
    return draft.clamp(tensor_of(value), _bound(bound), inf)


def _minimum(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    value, bound = operands if isinstance(operands[0], Value) else reversed(operands)
    return draft.clamp(tensor_of(value), -inf, _bound(bound))


def _scale(draft: Draft, operands: list[Traced], by: Callable[[np.ndarray], np.ndarray]) -> Traced:
    value, number = operands if isinstance(operands[0], Value) else reversed(operands)
    if not isinstance(value, Value) or not isinstance(number, np.ndarray):
        raise ValueError("it scales by something other than a constant")
    scaled = Value(value.tensor, np.asarray(value.factor * by(number)))
    if not scaled.settled and value.settled:
        raise ValueError("it scales a tensor, which the graph has no operation for")
    return scaled


def _divide(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    if not isinstance(operands[0], Value):
        raise ValueError("it divides by a tensor")
    return _scale(draft, operands, lambda count: 1.0 / count)


def _multiply(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    return _scale(draft, operands, lambda number: number)


def _sum(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    source = tensor_of(operands[0])
    batch, *shape = draft.shapes[source]
    if tuple(attributes["axes"]) != (1, 2) or len(shape) != 3:
        raise ValueError(
            f"it sums the axes {tuple(attributes['axes'])}; only H, W of [N, H, W, C] have a mean"
        )
    count = np.asarray(float(shape[0] * shape[1]))
    return draft.add(Node("mean", (source,), ""), (batch, shape[2]), count)


def _pool(draft: Draft, operands: list[Traced], attributes: Attributes, op: Any) -> Traced:
    source = tensor_of(operands[0])
    window, strides = attributes["window_dimensions"], attributes["window_strides"]
    pads, image = attributes["padding"], draft.shapes[source]
    dilations = {*attributes["base_dilation"], *attributes["window_dilation"]}
    outer = [(window[a], strides[a], tuple(pads[a])) for a in (0, -1)]
    if len(image) != 4 or dilations != {1} or outer != [(1, 1, (0, 0))] * 2:
        raise ValueError("it is not a plain pool over H, W of [N, H, W, C]")
    padding = _padding(image[1:3], window[1:3], strides[1:3], (1, 1), pads[1:3])
    node = Node(op, (source,), "", window=tuple(window[1:3]), strides=tuple(strides[1:3]), padding=padding)
    value = draft.add_node(node)
    return value if op == "max_pool" else Value(value.tensor, _counts(node, image))


def _counts(node: Node, image: Shape) -> np.ndarray:
    """Pixels under each window, [1, H, W, 1]: how often a sum over it adds a real pixel."""
    inside = []
    for a in (0, 1):
        size, window, stride = image[1 + a], node.window[a], node.strides[a]
        before, after = window_pads(size, window, stride, 1, node.padding)
        starts = np.arange(-before, size + after - window + 1, stride)
        inside.append(np.minimum(starts + window, size) - np.maximum(starts, 0))
    return np.asarray(inside[0][None, :, None, None] * inside[1][None, None, :, None], np.float64)


def _sum_pool(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    return _pool(draft, operands, attributes, "avg_pool")


def _max_pool(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    return _pool(draft, operands, attributes, "max_pool")


def _concat(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    inputs = tuple(tensor_of(v) for v in operands)
    return draft.add_node(Node("concat", inputs, "", axis=int(attributes["dimension"])))


def _view_as(draft: Draft, value: Traced, shape: Shape) -> Traced:
    if isinstance(value, Weight):
        return value._replace(view=shape)
    if isinstance(value, Value):
        return draft.reshape(value, shape)
    return value.reshape(shape)


def _reshape(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    if attributes.get("dimensions") is not None:
        raise ValueError("it permutes while it reshapes")
    return _view_as(draft, operands[0], tuple(attributes["new_sizes"]))


def _squeeze(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    value = operands[0]
    shape = draft.shapes[value.tensor] if isinstance(value, Value) else _view(value)
    gone = {d % len(shape) for d in attributes["dimensions"]}
    return _view_as(draft, value, tuple(s for i, s in enumerate(shape) if i not in gone))


def _broadcast(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    value, shape, axes = operands[0], tuple(attributes["shape"]), tuple(attributes["broadcast_dimensions"])
    own = draft.shapes[value.tensor] if isinstance(value, Value) else _view(value)
    if prod(own) == prod(shape):
        return _view_as(draft, value, shape)
    channels = (
        isinstance(value, Weight) and (value.size,) == own[-1:] == shape[-1:] and axes[-1] == len(shape) - 1
    )
    if isinstance(value, Weight) and channels:
        return value._replace(view=shape)
    raise ValueError("it repeats a tensor or weight")


def _keep(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    kind = attributes.get("new_dtype")
    if kind is not None and not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"it turns a tensor into {kind}")
    return operands[0]


def _name(draft: Draft, operands: list[Traced], attributes: Attributes) -> Traced:
    if isinstance(operands[0], Value):
        draft.name(tensor_of(operands[0]), attributes["name"])
    return operands[0]


RULES: Mapping[str, Rule] = MappingProxyType({
    "conv_general_dilated": _conv, "dot_general": _dense, "add": _add, "add_any": _add,
    "max": _maximum, "min": _minimum, "clamp": _clamp, "mul": _multiply, "div": _divide,
    "reduce_sum": _sum, "reduce_window_sum": _sum_pool, "reduce_window_max": _max_pool,
    "concatenate": _concat, "reshape": _reshape, "squeeze": _squeeze, "broadcast_in_dim": _broadcast,
    "convert_element_type": _keep, "copy": _keep, "sharding_constraint": _keep, "name": _name,
})  # fmt: skip
