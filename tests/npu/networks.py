"""Small hand networks as fused graphs with random weights, exported by the project's own exporter."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from research.graph.export import export
from research.graph.ir import WEIGHTED, Activation, Graph, Node, Op, Shape, Tensor
from research.graph.shapes import output_shape
from research.npu.blocks import Block
from research.npu.table import CONV, LayerTable


class Network(NamedTuple):
    """A fused graph, its parameters by path, and its .tflite."""

    graph: Graph
    params: dict[str, np.ndarray]
    model: bytes

    @property
    def kernels(self) -> dict[str, np.ndarray]:
        return {path: value for path, value in self.params.items() if path.endswith("kernel")}


def prune_2_4(kernel: np.ndarray) -> np.ndarray:
    """Zeroes the two smallest of every 4 consecutive input channels (last axis but one)."""
    channels = kernel.shape[-2]
    padded = np.pad(kernel, [(0, 0)] * (kernel.ndim - 2) + [(0, -channels % 4), (0, 0)])
    groups = padded.reshape(*kernel.shape[:-2], -1, 4, kernel.shape[-1])
    rank = np.argsort(np.argsort(np.abs(groups), axis=-2), axis=-2)
    return np.where(rank >= 2, groups, 0).reshape(padded.shape)[..., :channels, :].astype(np.float32)


class Sketch:
    """Grows a graph layer by layer; every method returns the name of the tensor it makes."""

    def __init__(self, image: tuple[int, int, int]) -> None:
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, ...]] = {"image": (1, *image)}

    def unit(
        self,
        op: Op,
        source: str,
        name: str,
        width: int,
        kernel: int = 1,
        stride: int = 1,
        act: Activation = "relu6",
    ) -> str:
        _, rows, columns, channels = self.shapes[source]
        shape = (kernel, kernel, 1 if op == "depthwise" else channels, width)
        self.shapes[name] = (1, -(-rows // stride), -(-columns // stride), width)
        node = Node(
            op, (source,), name, f"{name}/kernel", shape, f"{name}/bias", act, (stride, stride), "SAME"
        )
        self.nodes.append(node)
        return name

    def add(self, left: str, right: str, name: str) -> str:
        self.shapes[name] = self.shapes[left]
        self.nodes.append(Node("add", (left, right), name))
        return name

    def pool(self, op: Op, source: str, name: str) -> str:
        _, rows, columns, channels = self.shapes[source]
        self.shapes[name] = (1, rows // 2, columns // 2, channels)
        self.nodes.append(Node(op, (source,), name, strides=(2, 2), window=(2, 2)))
        return name

    def flatten(self, source: str) -> str:
        self.shapes["flat"] = (1, int(np.prod(self.shapes[source])))
        self.nodes.append(Node("reshape", (source,), "flat"))
        return "flat"

    def dense(self, source: str, name: str, width: int) -> str:
        inputs = self.shapes[source][-1]
        self.shapes[name] = (1, width)
        self.nodes.append(Node("dense", (source,), name, f"{name}/kernel", (inputs, width), f"{name}/bias"))
        return name

    def op(self, op: Op, *sources: str, name: str = "", recorded: Shape = (), **attributes: Any) -> str:
        """Any operation; kernels get a path. `recorded`: the shape, where the operation leaves it open."""
        name = name or f"{op}_{len(self.nodes)}"
        if op in (*WEIGHTED, "constant"):
            attributes["kernel"] = f"{name}/kernel"
        node = Node(op, sources, name, **attributes)
        self.shapes[name] = output_shape(node, tuple(self.shapes[s] for s in sources), recorded)
        self.nodes.append(node)
        return name

    def constant(self, *shape: int) -> str:
        return self.op("constant", kernel_shape=shape)

    def graph(self, output: str) -> Graph:
        tensors = tuple(Tensor(name, shape, True) for name, shape in self.shapes.items())
        return Graph(tuple(self.nodes), tensors, ("image",), (output,))


def hand_graph(size_px: int, stem: int, blocks: tuple[tuple[int, int, int, int], ...], neck: int) -> Graph:
    """blocks: (expanded width, output width, depthwise kernel, stride)."""
    sketch = Sketch((size_px, size_px, 1))
    x, width = sketch.unit("conv", "image", "stem", stem, 3, 2), stem
    for i, (mid, out, kernel, stride) in enumerate(blocks):
        y = sketch.unit("conv", x, f"b{i}/expand", mid)
        y = sketch.unit("depthwise", y, f"b{i}/depthwise", mid, kernel, stride)
        y = sketch.unit("conv", y, f"b{i}/project", out, act="none")
        x = sketch.add(x, y, f"b{i}/add") if stride == 1 and out == width else y
        width = out
    sketch.unit("conv", x, "neck", neck)
    sketch.dense(sketch.flatten("neck"), "head", 42)
    return sketch.graph("head")


def with_weights(graph: Graph, *, sparse: bool = False, seed: int = 0) -> Network:
    """Random normal weights; `sparse` prunes every convolution over channels and the dense layer to 2:4."""
    rng = np.random.default_rng(seed)
    params: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        if node.kernel is None:
            continue
        kernel = rng.normal(0, 0.1, node.kernel_shape).astype(np.float32)
        prunes = sparse and node.op not in ("depthwise", "constant") and node.kernel_shape[-2] > 2
        params[node.kernel] = prune_2_4(kernel) if prunes else kernel
        if node.bias is not None:
            params[node.bias] = rng.normal(0, 0.1, node.kernel_shape[-1]).astype(np.float32)
    return Network(graph, params, exported(graph, params))


def exported(graph: Graph, params: dict[str, np.ndarray]) -> bytes:
    """int8, one scale for all tensors but the output of a prelu, which the compiler then has to rescale."""
    low = {tensor.name: -2.0 if tensor.name.startswith("prelu") else -3.0 for tensor in graph.tensors}
    return export(graph, params, {name: (value, 3.0) for name, value in low.items()})


HAND_NETS = (
    (
        64,
        8,
        ((32, 8, 3, 1), (32, 16, 3, 2), (64, 16, 3, 1), (64, 24, 3, 2), (96, 24, 5, 1), (96, 48, 3, 2)),
        64,
    ),
    (
        64,
        16,
        ((48, 16, 3, 1), (64, 24, 3, 2), (72, 24, 3, 1), (96, 32, 5, 2), (128, 32, 3, 1), (128, 64, 3, 2)),
        96,
    ),
    (
        64,
        12,
        ((24, 20, 5, 2), (80, 20, 3, 1), (60, 36, 3, 2), (144, 36, 3, 1), (108, 72, 5, 2), (216, 72, 3, 1)),
        128,
    ),
)


@cache
def hand_network(index: int, sparse: bool) -> Network:
    """One of three networks of 64 px, 1.5 to 9 MMACs."""
    return with_weights(hand_graph(*HAND_NETS[index]), sparse=sparse, seed=index)


def block_of(*numbers: float, layers: int = 1, part_kernel: bool = False) -> Block:
    """The same block for every layer: rows, columns, channels of output, input and microblock."""
    columns = [jnp.full((layers,), number, jnp.float32) for number in numbers]
    return Block._make([*columns, jnp.full((layers,), part_kernel)])


def rows(*layers: dict[str, float]) -> LayerTable:
    """A table from layers given as fields; the rest is a dense int8 1x1 convolution inside a network."""
    plain = dict.fromkeys(LayerTable._fields, 0.0)
    plain |= {"op": CONV, "oh": 16, "ow": 16, "oc": 64, "ih": 16, "iw": 16, "ic": 64, "kh": 1, "kw": 1}
    plain |= {
        "stride": 1,
        "bits": 8,
        "repeats": 1,
        "rate": 1,
        "dense_bytes_per_weight": 1.0,
        "sparse_bytes_per_weight": 0.62,
    }
    full = [plain | layer for layer in layers]
    return LayerTable(*(jnp.asarray([layer[name] for layer in full], jnp.float32) for name in plain))
