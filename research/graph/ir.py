"""The graph everything after training reads: typed, frozen, hashable nodes over named tensors.

Weights stay outside: a node carries the "/"-joined path of its weight in the parameter dictionary and the
layout it is read in (`params[path].reshape(kernel_shape)`). Layouts are JAX's: images [N, H, W, C], conv and
transposed conv kernels [kh, kw, Cin, Cout] (grouped: Cin / groups), depthwise [kh, kw, 1, C * multiplier],
dense [in, out] over the last axis; biases have one value per last axis. Any other operand that is a weight is
the output of a `constant` node, which reads it by the same path. A kernel that is computed from weights (a
mask times a kernel) is the second input of its layer, whose `kernel` is then None, until it is folded.

To add an operation: name it in `Op`, give its output shape in `shapes.output_shape`, its meaning in
`interpret` (float) and in `exact` and `oracle` (integers), the jaxpr it comes from in `arithmetic`, `layout`,
`primitives` or `composites`, and the TFLite operator it becomes in `write` and comes from in `read`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Literal, get_args

import numpy as np

Op = Literal[
    "constant",  # no input; `kernel` read as `kernel_shape`
    "conv",
    "depthwise",
    "transpose_conv",
    "dense",
    "matmul",  # of two tensors, [..., m, k] @ [..., k, n]
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "prelu",  # inputs: x, slope
    "mean",
    "avg_pool",
    "max_pool",
    "clamp",
    "logistic",
    "tanh",
    "hard_swish",
    "leaky_relu",
    "softmax",  # over the last axis
    "exp",
    "sqrt",
    "rsqrt",
    "neg",
    "abs",
    "square",
    "concat",
    "reshape",
    "transpose",
    "pad",
    "slice",
    "resize",
    "depth_to_space",
    "quantize",  # the same real values in another integer format (or to and from float)
]
Activation = Literal["none", "relu", "relu6", "relu_n1_to_1"]
Padding = Literal["SAME", "VALID"]
Shape = tuple[int, ...]

WEIGHTED: tuple[Op, ...] = ("conv", "depthwise", "transpose_conv", "dense")
BINARY: tuple[Op, ...] = ("add", "sub", "mul", "div", "maximum", "minimum", "prelu")  # numpy broadcasting
UNARY: tuple[Op, ...] = (
    "clamp", "logistic", "tanh", "hard_swish", "leaky_relu", "softmax",
    "exp", "sqrt", "rsqrt", "neg", "abs", "square", "quantize",
)  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A named value of the graph. `shape` includes the batch of 1; `site`: the name was given by the user."""

    name: str
    shape: Shape
    site: bool = False


@dataclass(frozen=True)
class Constant:
    """A float32 array that the traced function closed over; `name` is a digest of its shape and content."""

    name: str
    shape: Shape
    data: bytes

    @staticmethod
    def of(value: np.ndarray) -> Constant:
        """Freezes an array (cast to float32) under a name derived from its content."""
        array = np.ascontiguousarray(value, np.float32)
        digest = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
        return Constant(f"constant/{digest[:12]}", array.shape, array.tobytes())

    @property
    def value(self) -> np.ndarray:
        """The array again, float32 of `shape`, read-only."""
        return np.frombuffer(self.data, np.float32).reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """One operation: `output = activation(op(inputs, kernel) + bias)`.

    kernel, bias: paths into the parameters (or names of graph constants), None where there is none.
    kernel_shape: the layout the kernel is read in, () without kernel. strides, dilation, window: (rows,
    columns); window belongs to pools and is the block of depth_to_space. axis: concat only.
    axes: reduced by a mean; the permutation of a transpose. spans: of every axis, (before, after) of a pad,
    (begin, stride) of a slice, where (0, 1) of one entry along the first axis is the whole batch. bounds:
    (low, high) of a clamp. alpha: slope of leaky_relu, factor before a softmax, value of a pad. mode: of a
    resize, "bilinear" or "nearest", with "/half_pixel" or "/align_corners" after it.
    """

    op: Op
    inputs: tuple[str, ...]
    output: str
    kernel: str | None = None
    kernel_shape: Shape = ()
    bias: str | None = None
    activation: Activation = "none"
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "VALID"
    dilation: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (1, 1)
    axis: int = 0
    axes: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    bounds: tuple[float, float] | None = None
    alpha: float = 0.0
    mode: str = ""


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which every input is made before it is read; names of the inputs and outputs."""

    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[Constant, ...] = ()

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return {t.name: t for t in self.tensors}

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return {n.output: n for n in self.nodes}

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`. KeyError where there is none."""
        return self._tensors[name]

    def shape(self, name: str) -> Shape:
        """Shape of the tensor called `name`. KeyError where there is none."""
        return self._tensors[name].shape

    def node_of(self, output: str) -> Node:
        """The node that makes the tensor `output`. KeyError for a graph input or an unknown name."""
        return self._producers[output]

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read the tensor `name`, in order."""
        return tuple(n for n in self.nodes if name in n.inputs)

    @cached_property
    def hash(self) -> str:
        """sha256 of the whole content, the same in every process (unlike `hash()`)."""
        plain = asdict(self)
        plain["constants"] = [c.name for c in self.constants]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def macs(self, node: Node) -> int:
        """Multiply-accumulates of one node for one image; 0 for all but kernels and matmul."""
        shape = self.shape(node.output)
        if node.op == "matmul":
            return prod(shape) * self.shape(node.inputs[0])[-1]
        if node.op not in WEIGHTED:
            return 0
        counted = self.shape(node.inputs[0]) if node.op == "transpose_conv" else shape
        return prod(counted[:-1]) * prod(node.kernel_shape)

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of the whole graph for one image."""
        return sum(self.macs(n) for n in self.nodes)


def parameter_count(graph: Graph) -> int:
    """Numbers in the kernels and biases the graph reads; a weight that is read twice counts once."""
    sizes: dict[str, int] = {}
    for node in graph.nodes:
        if node.kernel is not None:
            sizes[node.kernel] = prod(node.kernel_shape)
        if node.bias is not None:
            sizes[node.bias] = graph.shape(node.output)[-1]
    return sum(sizes.values())


def check(graph: Graph) -> None:
    """Raises ValueError, naming node and tensor, unless the graph is well formed.

    Names are unique, every input is an input of the graph or made by an earlier node, every node is of a
    known operation and every recorded shape is the one its operation makes.
    """
    from research.graph.shapes import output_shape

    if len(graph._tensors) != len(graph.tensors):
        raise ValueError("two tensors of the graph share a name; every tensor needs its own")
    made = set(graph.inputs)
    for node in graph.nodes:
        if node.op not in get_args(Op):
            raise ValueError(
                f"node {node.output!r}: unknown operation {node.op!r}; known: {', '.join(get_args(Op))}"
            )
        for name in node.inputs:
            if name not in made:
                raise ValueError(f"node {node.output!r} reads {name!r} before any node makes it")
        if node.output in made:
            raise ValueError(f"tensor {node.output!r} is made twice")
        if node.output not in graph._tensors:
            raise ValueError(f"node {node.output!r} makes a tensor that the graph does not list")
        recorded = graph.shape(node.output)
        inferred = output_shape(node, tuple(graph.shape(i) for i in node.inputs), recorded)
        if inferred != recorded:
            raise ValueError(f"node {node.output!r} ({node.op}) makes {inferred}, the graph says {recorded}")
        made.add(node.output)
    for name in graph.outputs:
        if name not in made:
            raise ValueError(f"output {name!r} is made by no node")
