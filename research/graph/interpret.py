"""The meaning of the graph in float32: the oracle for tracing, fusion, folding and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, prod
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.graph.ir import WEIGHTED, Activation, Graph, Node, Shape
from research.graph.shapes import window_pads
from research.graph.weights import Params, Weights, weights_of

Images = np.ndarray | jax.Array | Sequence[np.ndarray | jax.Array]
ACTIVATION_BOUNDS: Mapping[Activation, tuple[float, float]] = MappingProxyType(
    {"none": (-inf, inf), "relu": (0.0, inf), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}
)


def _convolve(node: Node, x: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    if node.op == "transpose_conv":
        return _convolve_transposed(node, x, kernel, shape)
    pads = [
        window_pads(x.shape[1 + a], kernel.shape[a], node.strides[a], node.dilation[a], node.padding)
        for a in (0, 1)
    ]
    return lax.conv_general_dilated(
        x, kernel, node.strides, pads, rhs_dilation=node.dilation,
        feature_group_count=x.shape[-1] // kernel.shape[2], dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _convolve_transposed(node: Node, x: jax.Array, kernel: jax.Array, shape: Shape) -> jax.Array:
    """out[stride * i + k - before] += x[i] * kernel[k]: a correlation of the spread image, kernel flipped."""
    pads = []
    for a in (0, 1):
        size, reach, stride = shape[1 + a], kernel.shape[a], node.strides[a]
        before = reach - 1 - window_pads(size, reach, stride, 1, node.padding)[0]
        pads.append((before, size + reach - 2 - (x.shape[1 + a] - 1) * stride - before))
    return lax.conv_general_dilated(
        x, kernel[::-1, ::-1], (1, 1), pads, lhs_dilation=node.strides,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _pool(node: Node, x: jax.Array) -> jax.Array:
    sizes = (1, *node.window, 1), (1, *node.strides, 1)
    inner = (window_pads(x.shape[1 + a], node.window[a], node.strides[a], 1, node.padding) for a in (0, 1))
    pads = ((0, 0), *inner, (0, 0))
    if node.op == "max_pool":
        return lax.reduce_window(x, -jnp.inf, lax.max, *sizes, pads)
    counts = lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, lax.add, *sizes, pads)
    return lax.reduce_window(x, 0.0, lax.add, *sizes, pads) / counts


def resize_positions(size: int, out: int, mode: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lower, upper, fraction) of the `out` positions along an axis of `size`: out = (1 - f) lower + f upper.

    TFLite's rules (`ComputeInterpolationValues`, `GetNearestNeighbor`), in float32 as there; for "nearest",
    lower = upper.
    """
    how, _, where = mode.partition("/")
    corners, half = where == "align_corners" and out > 1, where == "half_pixel"
    step = np.float32(size - 1) / np.float32(out - 1) if corners else np.float32(size) / np.float32(out)
    at = np.arange(out, dtype=np.float32)
    if how == "nearest":
        at = (at + np.float32(0.5 if half else 0.0)) * step
        near = np.floor(at + np.float32(0.5)) if where == "align_corners" else np.floor(at)
        near = np.clip(near, 0, size - 1).astype(np.int32)
        return near, near, np.zeros(out, np.float32)
    at = (at + np.float32(0.5)) * step - np.float32(0.5) if half else at * step
    lower = np.maximum(np.floor(at), 0).astype(np.int32)
    upper = np.minimum(np.ceil(at), size - 1).astype(np.int32)
    return lower, upper, at - lower


def _resize(node: Node, x: jax.Array, shape: Shape) -> jax.Array:
    for axis in (1, 2):
        lower, upper, fraction = resize_positions(x.shape[axis], shape[axis], node.mode)
        weight = jnp.asarray(fraction).reshape([-1 if a == axis else 1 for a in range(4)])
        x = jnp.take(x, lower, axis) * (1 - weight) + jnp.take(x, upper, axis) * weight
    return x


def _depth_to_space(node: Node, x: jax.Array) -> jax.Array:
    (n, h, w, c), (high, wide) = x.shape, node.window
    x = x.reshape(n, h, w, high, wide, c // (high * wide)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h * high, w * wide, -1)


def _concat(node: Node, inputs: list[jax.Array]) -> jax.Array:
    batch = max(x.shape[0] for x in inputs) if node.axis else 0  # constants have a batch of 1
    return jnp.concatenate(
        [jnp.broadcast_to(x, (batch or x.shape[0], *x.shape[1:])) for x in inputs], node.axis
    )


def batched(shape: Shape, batch: int) -> Shape:
    """A recorded shape for `batch` images: the leading 1 becomes the batch. ValueError where it is not 1."""
    if batch == 1:
        return shape
    if shape[:1] != (1,):
        raise ValueError(f"a tensor of shape {shape} mixes images; run one image at a time")
    return (batch, *shape[1:])


def cut(x: Any, spans: Sequence[tuple[int, int]], shape: Shape) -> Any:
    """The strided box of a numpy or JAX array: `shape` entries from `begin` on, `stride` apart; batch kept."""
    index = []
    for axis, ((begin, stride), count) in enumerate(zip(spans, shape, strict=True)):
        stop = begin + count * stride
        whole = axis == 0 and (begin, stride, count) == (0, 1, 1)
        index.append(slice(None) if whole else slice(begin, stop if stop >= 0 else None, stride))
    return x[tuple(index)]


ARITHMETIC: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = MappingProxyType({
    "add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "div": jnp.divide, "matmul": jnp.matmul,
    "maximum": jnp.maximum, "minimum": jnp.minimum, "prelu": lambda x, slope: jnp.where(x >= 0, x, x * slope),
})  # fmt: skip
FUNCTIONS: Mapping[str, Callable[[Node, jax.Array], jax.Array]] = MappingProxyType({
    "clamp": lambda node, x: jnp.clip(x, *(node.bounds or (-inf, inf))),
    "logistic": lambda node, x: jax.nn.sigmoid(x),
    "tanh": lambda node, x: jnp.tanh(x),
    "hard_swish": lambda node, x: x * jnp.clip(x + 3, 0, 6) / 6,
    "leaky_relu": lambda node, x: jnp.where(x >= 0, x, x * node.alpha),
    "softmax": lambda node, x: jax.nn.softmax(x * node.alpha, -1),
    "exp": lambda node, x: jnp.exp(x), "sqrt": lambda node, x: jnp.sqrt(x),
    "rsqrt": lambda node, x: lax.rsqrt(x), "neg": lambda node, x: -x,
    "abs": lambda node, x: jnp.abs(x), "square": lambda node, x: x * x,
    "quantize": lambda node, x: x,
    "avg_pool": _pool, "max_pool": _pool, "depth_to_space": _depth_to_space,
    "pad": lambda node, x: jnp.pad(x, node.spans, constant_values=node.alpha),
    "transpose": lambda node, x: x.transpose(node.axes),
})  # fmt: skip


def apply_float(node: Node, inputs: Sequence[jax.Array], weights: Weights, shape: Shape) -> jax.Array:
    """One node in float32, with its bias and activation. inputs: [N, ...]; shape: recorded, of the output."""
    if node.op == "constant":
        return jnp.asarray(weights.kernel(node))
    x = inputs[0]
    if node.op in WEIGHTED:
        kernel = jnp.asarray(weights.kernel(node)) if len(inputs) == 1 else inputs[1]
        y = jnp.tensordot(x, kernel, 1) if node.op == "dense" else _convolve(node, x, kernel, shape)
    elif node.op in ARITHMETIC:
        rank = max(x.ndim, inputs[1].ndim)
        y = ARITHMETIC[node.op](*(v.reshape((1,) * (rank - v.ndim) + v.shape) for v in inputs))
    elif node.op in FUNCTIONS:
        y = FUNCTIONS[node.op](node, x)
    elif node.op == "mean":
        y = x.mean(node.axes, keepdims=len(shape) == x.ndim)
    elif node.op == "concat":
        y = _concat(node, list(inputs))
    elif node.op == "reshape":
        y = x.reshape(batched(shape, x.size // prod(shape)))
    elif node.op == "slice":
        y = cut(x, node.spans, shape)
    elif node.op == "resize":
        y = _resize(node, x, shape)
    else:
        raise ValueError(f"node {node.output!r}: operation {node.op!r} has no meaning in float")
    if node.bias is not None:
        y = y + jnp.asarray(weights.bias(node)).reshape((1,) * (y.ndim - 1) + (-1,))
    return y if node.activation == "none" else jnp.clip(y, *ACTIVATION_BOUNDS[node.activation])


def site_values(graph: Graph, params: Params, images: Images) -> dict[str, jax.Array]:
    """Every tensor of the graph for images [N, H, W, C] float32, by name, each [N, ...] float32.

    images: one array, or one for each input of the graph. ValueError where a weight is missing, has another
    size, the images have another shape, or a node mixes the images of a batch.
    """
    given = images if isinstance(images, tuple | list) else (images,)
    if len(given) != len(graph.inputs):
        raise ValueError(f"the graph takes {len(graph.inputs)} input(s), got {len(given)}")
    weights = weights_of(graph, params)
    values: dict[str, jax.Array] = {}
    for name, array in zip(graph.inputs, given, strict=True):
        wanted = graph.shape(name)
        if tuple(array.shape[1:]) != wanted[1:]:
            reads = ", ".join(map(str, wanted[1:]))
            raise ValueError(f"images have shape {tuple(array.shape)}; the graph's input is [N, {reads}]")
        values[name] = jnp.asarray(array, jnp.float32)
    count = values[graph.inputs[0]].shape[0]
    for node in graph.nodes:
        shape = graph.shape(node.output)
        with jax.default_matmul_precision("highest"):
            made = apply_float(node, [values[i] for i in node.inputs], weights, shape)
        if made.shape not in (shape, (count, *shape[1:])):
            raise ValueError(f"node {node.output!r} mixes the images of a batch; run one image at a time")
        values[node.output] = made
    return values


def interpret_float(graph: Graph, params: Params, images: Images) -> jax.Array:
    """First output of the graph, [N, ...] float32, for images [N, H, W, C]. Errors as `site_values`."""
    return site_values(graph, params, images)[graph.outputs[0]]


def observe(graph: Graph, params: Params, images: Images) -> Mapping[str, tuple[float, float]]:
    """(low, high) of every tensor over the images: ranges for `export`. Errors as `site_values`."""
    values = site_values(graph, params, images)
    return {name: (float(v.min()), float(v.max())) for name, v in values.items()}
