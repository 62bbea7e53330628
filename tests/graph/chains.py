"""Small graphs written node by node, for the tests of the rewrites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from research.graph.ir import Constant, Graph, Node, Op, Shape, Tensor, check
from research.graph.matching import Applied, Pattern, Refused
from research.graph.rewrite import PATTERNS, optimise
from research.graph.shapes import output_shape

IMAGE: Shape = (1, 6, 5, 4)


class Chain:
    """Nodes in a row, or joined by name; every weight is a constant of the graph."""

    def __init__(self, shape: Shape = IMAGE, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.tensors = {"image": Tensor("image", shape)}
        self.constants: dict[str, Constant] = {}

    def add(
        self, op: Op, *inputs: str, name: str = "", shape: Shape = (), site: bool = False, **more: Any
    ) -> str:
        node = Node(op, inputs, name or f"{op}{len(self.tensors)}", **more)
        made = output_shape(node, tuple(self.tensors[i].shape for i in inputs), shape)
        self.nodes.append(node)
        self.tensors[node.output] = Tensor(node.output, made, site)
        return node.output

    def weight(self, value: Any) -> str:
        constant = Constant.of(np.asarray(value, np.float32))
        self.constants[constant.name] = constant
        return constant.name

    def constant(self, value: Any) -> str:
        return self.add("constant", kernel=self.weight(value), kernel_shape=np.shape(value))

    def step(self, op: Op, x: str, value: Any, **more: Any) -> str:
        """x op constant."""
        return self.add(op, x, self.constant(value), **more)

    def layer(self, x: str, op: Op = "conv", bias: bool = True, **more: Any) -> str:
        """A conv of 3 x 3, depthwise, transpose_conv or dense, of 4 outputs and random weights."""
        channels = self.tensors[x].shape[-1]
        shape = {"dense": (channels, 4), "depthwise": (3, 3, 1, 4)}.get(op, (3, 3, channels, 4))
        shape = more.pop("kernel_shape", shape)
        path = self.weight(self.rng.normal(size=shape[-1])) if bias else None
        kernel = self.weight(self.rng.normal(0, 0.3, shape))
        if op != "dense":
            more = {"padding": "SAME", **more}
        return self.add(op, x, kernel=kernel, kernel_shape=shape, bias=path, **more)

    def graph(self, *outputs: str) -> Graph:
        made = outputs or (self.nodes[-1].output,)
        graph = Graph(
            tuple(self.nodes), tuple(self.tensors.values()), ("image",), made, tuple(self.constants.values())
        )
        check(graph)
        return graph


def named(*names: str) -> list[Pattern]:
    """The patterns of these names."""
    found = [p for p in PATTERNS if p.name in names]
    assert len(found) == len(names), names
    return found


def rewritten(graph: Graph, *names: str) -> tuple[list[str], tuple[Applied, ...], tuple[Refused, ...]]:
    """Operations without the constants, uses and refusals after these patterns alone (all of them: no names)."""
    result, _, report = optimise(graph, {}, named(*names) if names else PATTERNS)
    return [n.op for n in result.nodes if n.op != "constant"], report.applied, report.refused


def shuffled(graph: Graph, rng: np.random.Generator, swaps: Mapping[str, bool] | tuple[str, ...]) -> Graph:
    """The same graph with nodes in another order, tensors without a site renamed, operands of `swaps` exchanged."""
    numbers = rng.permutation(len(graph.tensors))
    names = {t.name: t.name if t.site else f"z{i}" for t, i in zip(graph.tensors, numbers, strict=True)}
    made, nodes, waiting = set(graph.inputs), [], list(graph.nodes)
    while waiting:
        ready = [n for n in waiting if made.issuperset(n.inputs)]
        node = ready[int(rng.integers(len(ready)))]
        waiting.remove(node)
        made.add(node.output)
        inputs = node.inputs[::-1] if node.op in swaps and rng.integers(2) else node.inputs
        nodes.append(replace(node, inputs=tuple(names[i] for i in inputs), output=names[node.output]))
    tensors = tuple(replace(t, name=names[t.name]) for t in graph.tensors)
    outer = (tuple(names[i] for i in part) for part in (graph.inputs, graph.outputs))
    return Graph(tuple(nodes), tensors, *outer, graph.constants)
