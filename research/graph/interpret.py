"""The meaning of the graph in float32: the oracle for tracing, fusion, folding and export."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from research.graph.ir import Graph, Node
from research.graph.shapes import window_pads
from research.graph.weights import Params, Weights, weights_of


def _convolve(node: Node, x: jax.Array, kernel: jax.Array) -> jax.Array:
    pads = [
        window_pads(x.shape[1 + a], kernel.shape[a], node.strides[a], node.dilation[a], node.padding)
        for a in (0, 1)
    ]
    groups = x.shape[-1] if node.op == "depthwise" else 1
    return lax.conv_general_dilated(
        x, kernel, node.strides, pads, rhs_dilation=node.dilation, feature_group_count=groups,
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


def _apply(node: Node, inputs: list[jax.Array], weights: Weights, shape: tuple[int, ...]) -> jax.Array:
    x = inputs[0]
    if node.op in ("conv", "depthwise"):
        return _convolve(node, x, jnp.asarray(weights.kernel(node)))
    if node.op == "dense":
        return x @ jnp.asarray(weights.kernel(node))
    if node.op == "add":
        return x + inputs[1]
    if node.op == "mean":
        return x.mean((1, 2), keepdims=len(shape) == 4)
    if node.op in ("avg_pool", "max_pool"):
        return _pool(node, x)
    if node.op == "concat":
        return jnp.concatenate(inputs, node.axis)
    if node.op == "reshape":
        return x.reshape(x.shape[0], *shape[1:])
    if node.op == "clamp" and node.bounds is not None:
        return jnp.clip(x, *node.bounds)
    return x  # bias: added below, as for every node that carries one


def site_values(graph: Graph, params: Params, images: np.ndarray | jax.Array) -> dict[str, jax.Array]:
    """Every tensor of the graph for images [N, H, W, C] float32, by name, each [N, ...] float32.

    ValueError where a weight is missing, has another size, or the images have another shape.
    """
    wanted = graph.shape(graph.inputs[0])
    if tuple(images.shape[1:]) != wanted[1:]:
        reads = ", ".join(map(str, wanted[1:]))
        raise ValueError(f"images have shape {tuple(images.shape)}; the graph's input is [N, {reads}]")
    weights = weights_of(graph, params)
    values = {graph.inputs[0]: jnp.asarray(images, jnp.float32)}
    for node in graph.nodes:
        y = _apply(node, [values[i] for i in node.inputs], weights, graph.shape(node.output))
        if node.bias is not None:
            y = y + jnp.asarray(weights.bias(node)).reshape((1,) * (y.ndim - 1) + (-1,))
        if node.activation != "none":
            y = jnp.clip(y, 0.0, 6.0 if node.activation == "relu6" else jnp.inf)
        values[node.output] = y
    return values


def interpret_float(graph: Graph, params: Params, images: np.ndarray | jax.Array) -> jax.Array:
    """First output of the graph, [N, ...] float32, for images [N, H, W, C]. Errors as `site_values`."""
    return site_values(graph, params, images)[graph.outputs[0]]


def observe(
    graph: Graph, params: Params, images: np.ndarray | jax.Array
) -> Mapping[str, tuple[float, float]]:
    """(low, high) of every tensor over the images: ranges for `export`. Errors as `site_values`."""
    values = site_values(graph, params, images)
    return {name: (float(v.min()), float(v.max())) for name, v in values.items()}
