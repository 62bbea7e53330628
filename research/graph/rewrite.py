"""Rewrites of the graph that keep what it computes: fusion into the producing node, and norm folding.

Every pattern is a small function Graph -> (Graph, what it did); `fuse` runs them in order. A tensor with a
site name is meant to exist as an integer tensor on the device, so no pattern removes one: name the tensor
after the activation, not before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from research.graph.ir import WEIGHTED, Activation, Graph, Node, check

Array = TypeVar("Array", np.ndarray, jax.Array)

ACTIVATED = (*WEIGHTED, "add")  # operations that apply an activation on their way out, at no cost


class Applied(NamedTuple):
    """One use of a pattern: the operation `absorbed` went into the node that now makes `tensor`."""

    pattern: str
    tensor: str
    absorbed: str


Pattern = Callable[[Graph], tuple[Graph, tuple[Applied, ...]]]


def activation_of(bounds: tuple[float, float] | None) -> Activation | None:
    """The activation that clamps to `bounds` (low, high); None where there is no such activation."""
    if bounds == (0.0, inf):
        return "relu"
    if bounds == (0.0, 6.0):
        return "relu6"
    return "none" if bounds == (-inf, inf) else None


def _absorb(
    graph: Graph, pattern: str, merge: Callable[[Node, Node], Node | None]
) -> tuple[Graph, tuple[Applied, ...]]:
    """Merges a node into the maker of its only input wherever `merge(maker, node)` gives a node.

    The tensor between the two must be unnamed, read once and not an output of the graph.
    """
    reads: dict[str, int] = dict.fromkeys(graph.outputs, 1)
    for node in graph.nodes:
        for name in node.inputs:
            reads[name] = reads.get(name, 0) + 1
    kept: dict[str, Node] = {}
    applied: list[Applied] = []
    for node in graph.nodes:
        source = node.inputs[0]
        maker = kept.get(source)
        free = len(node.inputs) == 1 and reads[source] == 1 and not graph.tensor(source).site
        merged = merge(maker, node) if maker is not None and free else None
        if merged is None:
            kept[node.output] = node
        else:
            del kept[source]
            kept[node.output] = replace(merged, output=node.output)
            applied.append(Applied(pattern, node.output, node.op))
    used = {n.output for n in kept.values()} | set(graph.inputs)
    tensors = tuple(t for t in graph.tensors if t.name in used)
    return replace(graph, nodes=tuple(kept.values()), tensors=tensors), tuple(applied)


def fuse_bias(graph: Graph) -> tuple[Graph, tuple[Applied, ...]]:
    """conv, depthwise or dense, then a bias: one node with the bias."""

    def merge(maker: Node, node: Node) -> Node | None:
        fits = (
            node.op == "bias" and maker.op in WEIGHTED and maker.bias is None and maker.activation == "none"
        )
        return replace(maker, bias=node.bias) if fits else None

    return _absorb(graph, "fuse_bias", merge)


def fuse_activation(graph: Graph) -> tuple[Graph, tuple[Applied, ...]]:
    """conv, depthwise, dense or add, then a clamp that is a relu or relu6: one node with the activation."""

    def merge(maker: Node, node: Node) -> Node | None:
        activation = activation_of(node.bounds) if node.op == "clamp" else None
        fits = activation is not None and maker.op in ACTIVATED and maker.activation == "none"
        return replace(maker, activation=activation) if fits and activation else None

    return _absorb(graph, "fuse_activation", merge)


def drop_dead(graph: Graph) -> tuple[Graph, tuple[Applied, ...]]:
    """Removes the nodes, tensors and constants that no output depends on."""
    live = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in live:
            live.update(node.inputs)
            nodes.append(node)
    weights = {w for n in nodes for w in (n.kernel, n.bias)}
    dropped = tuple(Applied("drop_dead", n.output, n.op) for n in graph.nodes if n.output not in live)
    smaller = replace(
        graph,
        nodes=tuple(reversed(nodes)),
        tensors=tuple(t for t in graph.tensors if t.name in live or t.name in graph.inputs),
        constants=tuple(c for c in graph.constants if c.name in weights),
    )
    return smaller, dropped


def renumber(graph: Graph) -> Graph:
    """Gives every tensor without a site name the name of its operation and position: "conv_3"."""
    taken = {t.name for t in graph.tensors if t.site}
    names = {name: name for name in taken}
    for position, node in enumerate(graph.nodes):
        if node.output not in names:
            fresh = f"{node.op}_{position}"
            while fresh in taken:
                fresh += "_"
            names[node.output] = fresh
    for position, name in enumerate(graph.inputs):
        names.setdefault(name, f"input_{position}")
    return replace(
        graph,
        nodes=tuple(
            replace(n, inputs=tuple(names[i] for i in n.inputs), output=names[n.output]) for n in graph.nodes
        ),
        tensors=tuple(replace(t, name=names[t.name]) for t in graph.tensors),
        inputs=tuple(names[i] for i in graph.inputs),
        outputs=tuple(names[o] for o in graph.outputs),
    )


PATTERNS: tuple[Pattern, ...] = (drop_dead, fuse_bias, fuse_activation)


def fuse(graph: Graph) -> tuple[Graph, tuple[Applied, ...]]:
    """Runs every pattern once, in order, then renumbers. The report lists each use, pattern by pattern.

    Names in the report are those the tensors had before renumbering. Fusing a fused graph changes nothing.
    """
    report: list[Applied] = []
    for pattern in PATTERNS:
        graph, applied = pattern(graph)
        report.extend(applied)
    graph = renumber(graph)
    check(graph)
    return graph, tuple(report)


def fold_norm(
    kernel: Array, scale: Array, bias: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array]:
    """Folds `scale * (y - mean) / sqrt(var + eps) + bias` into the conv, depthwise or dense that makes y.

    kernel: [..., C] with output channels last (HWIO, [k, k, 1, C] or [in, out]); the others [C]; numpy or
    JAX arrays. Returns (kernel', bias') of the same shapes. ValueError where the channel counts differ.
    """
    channels = kernel.shape[-1:]
    for name, value in (("scale", scale), ("bias", bias), ("mean", mean), ("var", var)):
        if value.shape != channels:
            raise ValueError(
                f"fold_norm: {name} has shape {value.shape}, the kernel has {channels[0]} channels"
            )
    factor = scale / (var + eps) ** 0.5
    return kernel * factor.reshape((1,) * (kernel.ndim - 1) + channels), bias - mean * factor
