"""Networks as recipes: tuples of layers whose shapes follow from the first, so that one of them can be edited and all
behind it adapts; and what they become, fused graphs and int8 files with random weights."""

from __future__ import annotations

import dataclasses
import zlib
from math import prod
from typing import Any, Literal

import numpy as np

from research.graph.integer import quantise
from research.graph.ir import Activation, Graph, Node, Op, Tensor
from research.graph.shapes import output_shape
from research.graph.write import write

Zeros = Literal["none", "2:4", "half", "three quarters"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One operation of a recipe. `width`: output channels of a conv or dense; `like`: the shape that a reshape, a
    resize or a transposed convolution makes, without the batch, 0 for "as it comes"."""

    op: Op | Literal["input"]
    name: str
    inputs: tuple[str, ...] = ()
    width: int = 0
    kernel: int = 1
    stride: int = 1
    act: Activation = "none"
    zeros: Zeros = "none"
    bits: int = 8
    like: tuple[int, ...] = ()
    mode: str = ""


Recipe = tuple[Layer, ...]


@dataclasses.dataclass(frozen=True)
class Made:
    """A recipe as a fused graph and the bytes of its .tflite."""

    recipe: Recipe
    graph: Graph
    model: bytes


def make(recipe: Recipe, seed: int, spread: float = 32.0) -> Made:
    """Builds, quantises and writes a recipe. The weights of a layer follow from seed, name and shape alone.

    Args:
      spread: standard deviation of the int8 weights.

    Raises:
      ValueError: shapes that do not fit (as after an edit of one branch of a sum).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    nodes: list[Node] = []
    params: dict[str, np.ndarray] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for layer in recipe:
        rng = np.random.default_rng([seed, zlib.crc32(layer.name.encode())])
        low, high = rng.uniform(1.0, 6.0, 2)
        ranges[layer.name] = (0.0 if layer.act == "relu6" else -float(low), float(high))
        if layer.op == "input":
            shapes[layer.name] = (1, *layer.like)
            continue
        node, kernel_shape = _node(layer, tuple(shapes[name] for name in layer.inputs))
        recorded = _recorded(layer, tuple(shapes[name] for name in layer.inputs))
        shapes[layer.name] = output_shape(node, tuple(shapes[name] for name in layer.inputs), recorded)
        nodes.append(node)
        if kernel_shape:
            params[f"{layer.name}/kernel"] = _kernel(layer, kernel_shape, rng, spread)
            params[f"{layer.name}/bias"] = rng.normal(0, 0.1, kernel_shape[-1]).astype(np.float32)
    tensors = tuple(Tensor(name, shape, True) for name, shape in shapes.items())
    read = {name for layer in recipe for name in layer.inputs}
    inputs = tuple(layer.name for layer in recipe if layer.op == "input")
    graph = Graph(tuple(nodes), tensors, inputs, tuple(x.name for x in recipe if x.name not in read))
    bits = {layer.name: 16 for layer in recipe if layer.bits == 16 and layer.op != "input"}
    return Made(recipe, graph, write(quantise(graph, params, ranges, bits=bits)))


def _node(layer: Layer, sources: tuple[tuple[int, ...], ...]) -> tuple[Node, tuple[int, ...]]:
    channels, k = sources[0][-1], layer.kernel
    kernels = {
        "conv": (k, k, channels, layer.width), "transpose_conv": (k, k, channels, layer.width),
        "depthwise": (k, k, 1, channels), "dense": (channels, layer.width),
    }  # fmt: skip
    more: dict[str, Any] = {}
    if layer.op in ("conv", "depthwise", "transpose_conv", "max_pool", "avg_pool"):
        more |= {"strides": (layer.stride, layer.stride), "padding": layer.mode or "SAME"}
    if layer.op in ("max_pool", "avg_pool"):
        more["window"] = (k, k)
    if layer.op == "mean":
        more["axes"] = (1, 2)
    if layer.op == "concat":
        more["axis"] = len(sources[0]) - 1
    if layer.op == "transpose":
        more["axes"] = (0, 2, 1)
    if layer.op == "pad":
        more["spans"] = ((0, 0), (k, k), (k, k), (0, 0))
    if layer.op == "resize":
        more["mode"] = layer.mode
    if layer.op == "leaky_relu":
        more["alpha"] = 0.1
    if layer.op == "softmax":
        more["alpha"] = 1.0
    kernel_shape = kernels.get(layer.op, ())
    if kernel_shape:
        more |= {"kernel": f"{layer.name}/kernel", "kernel_shape": kernel_shape, "bias": f"{layer.name}/bias"}
    return Node(_op(layer), layer.inputs, layer.name, activation=layer.act, **more), kernel_shape


def _op(layer: Layer) -> Op:
    if layer.op == "input":
        raise ValueError(f"{layer.name!r} is an input, not an operation")
    return layer.op


def _recorded(layer: Layer, sources: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The shape an operation leaves open, with the batch."""
    source = sources[0]
    if layer.op in ("resize", "transpose_conv"):
        scale = layer.stride if layer.op == "transpose_conv" else 2
        return 1, scale * source[1], scale * source[2], layer.width or source[3]
    if layer.op == "mean":
        return (1, 1, 1, source[3]) if layer.mode == "keep" else (1, source[3])
    if layer.op == "reshape":
        known = prod(n for n in layer.like if n)
        return 1, *(n or prod(source) // known for n in layer.like)
    return ()


def _kernel(layer: Layer, shape: tuple[int, ...], rng: np.random.Generator, spread: float) -> np.ndarray:
    """Float weights that become int8 ones of this spread: every output channel reaches 127, none is 0 but pruned."""
    whole = np.clip(np.round(rng.normal(0, spread, shape)), -127, 127)
    whole[whole == 0] = 1
    flat = whole.reshape(-1, shape[-1])
    flat[0, flat[0] >= 0], flat[0, flat[0] < 0] = 127, -127
    kernel = flat.reshape(shape)
    if layer.zeros == "2:4" and layer.op != "depthwise":
        kernel = two_of_four(kernel)
    elif layer.zeros in ("half", "three quarters") and layer.op != "depthwise":
        kernel = np.where(rng.random(shape) < (0.5 if layer.zeros == "half" else 0.75), 0, kernel)
    scale = rng.uniform(0.5, 1.5, shape[-1]) / 127 / np.sqrt(max(prod(shape[:-1]), 1))
    return (kernel * scale).astype(np.float32)


def two_of_four(kernel: np.ndarray) -> np.ndarray:
    """The kernel [..., in, out] without the two smallest of every 4 consecutive input channels."""
    channels = kernel.shape[-2]
    padded = np.pad(kernel, [(0, 0)] * (kernel.ndim - 2) + [(0, -channels % 4), (0, 0)])
    groups = padded.reshape(*kernel.shape[:-2], -1, 4, kernel.shape[-1])
    rank = np.argsort(np.argsort(-np.abs(groups), axis=-2, kind="stable"), axis=-2)
    return np.where(rank < 2, groups, 0).reshape(padded.shape)[..., :channels, :]


def skeleton(recipe: Recipe) -> Graph:
    """The graph of a recipe without weights. ValueError as `make`."""
    shapes: dict[str, tuple[int, ...]] = {}
    nodes = []
    for layer in recipe:
        sources = tuple(shapes[name] for name in layer.inputs)
        if layer.op == "input":
            shapes[layer.name] = (1, *layer.like)
            continue
        node, _ = _node(layer, sources)
        shapes[layer.name] = output_shape(node, sources, _recorded(layer, sources))
        nodes.append(node)
    tensors = tuple(Tensor(name, shape, True) for name, shape in shapes.items())
    return Graph(tuple(nodes), tensors, (recipe[0].name,), (recipe[-1].name,))


def without_2_4(recipe: Recipe) -> Recipe:
    """The recipe with dense weights wherever they were 2:4."""
    return tuple(dataclasses.replace(x, zeros="none") if x.zeros == "2:4" else x for x in recipe)
