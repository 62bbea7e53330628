"""Rewrites of a graph that keep what it computes: the engine that runs the patterns, and its two doors.

`fuse` needs the structure only; `optimise` also knows the weights and runs every pattern to a fixed point.
The result does not depend on the order in which patterns or nodes are tried: patterns of one rank commute,
those of a lower rank go first, new weights are computed in float64 and named after the node that reads them,
and the optimised graph is written down in one canonical order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from research.graph import folding, patterns
from research.graph.folding import fold_norm
from research.graph.ir import WEIGHTED, Graph, Node, check
from research.graph.matching import COMMUTATIVE, NEW, Applied, Change, Pattern, Refused, View, ordered
from research.graph.weights import Params, weights_of

__all__ = [
    "PATTERNS",
    "Report",
    "drop_dead",
    "fold_constants_only",
    "fold_norm",
    "fuse",
    "optimise",
    "renumber",
]

PATTERNS: tuple[Pattern, ...] = (
    Pattern(patterns.drop_dead, 0), Pattern(patterns.drop_identity, 1), Pattern(patterns.cse, 2),
    Pattern(patterns.drop_clamp, 1, ("clamp",)), Pattern(patterns.merge_clamps, 4, ("clamp",)),
    Pattern(patterns.merge_reshapes, 1, ("reshape",)), Pattern(patterns.merge_transposes, 1, ("transpose",)),
    Pattern(patterns.merge_pads, 1, ("pad",)), Pattern(patterns.merge_concats, 1, ("concat",)),
    Pattern(folding.fold_constants, 3, (), True), Pattern(patterns.fold_kernel, 3, WEIGHTED),
    Pattern(patterns.make_hard_swish, 5, ("mul", "div"), True),
    Pattern(patterns.make_leaky_relu, 5, ("maximum", "minimum"), True),
    Pattern(patterns.fuse_bias, 6, ("add",)),
    Pattern(folding.fold_scale_after, 6, ("mul", "div", "neg"), True),
    Pattern(folding.fold_shift_after, 6, ("add", "sub"), True),
    Pattern(folding.fold_scale_before, 7, WEIGHTED, True), Pattern(folding.fold_shift_before, 7, WEIGHTED, True),
    Pattern(folding.merge_constants, 8, ("add", "sub", "mul", "div", "neg"), True),
    Pattern(folding.multiply_not_divide, 8, ("div",), True),
    Pattern(patterns.fuse_activation, 9, ("clamp",)), Pattern(patterns.fuse_add_activation, 9, ("clamp",)),
    Pattern(patterns.fuse_pool_activation, 9, ("clamp",)), Pattern(patterns.swap_pool_relu, 10, ("max_pool",)),
    Pattern(patterns.fuse_pad, 9, ("conv", "depthwise", "avg_pool", "max_pool")),
)  # fmt: skip


class Report(NamedTuple):
    """What was done, and what still has the shape of a pattern but was refused; tensors by their names before."""

    applied: tuple[Applied, ...]
    refused: tuple[Refused, ...]


def _settle(
    view: View, tried: Sequence[Pattern], order: np.random.Generator | None = None
) -> tuple[View, Report]:
    """Runs patterns until none matches, in graph order or shuffled; then asks each what it refuses."""
    applied: list[Applied] = []

    def shuffled(count: int) -> Sequence[int]:
        return range(count) if order is None else order.permutation(count).tolist()

    def sweep(rank: int) -> bool:
        nonlocal view
        names, level, before = list(view.graph._producers), [p for p in tried if p.rank == rank], view
        for j, i in ((j, i) for j in shuffled(len(names)) for i in shuffled(len(level))):
            pattern, name = level[i], names[j]
            node = view.maker(name)
            answer = pattern.answer(view, node) if node else None
            if node and isinstance(answer, Change):
                view = view.apply(node, answer)
                applied.append(Applied(pattern.name, name, answer.absorbed))
        return view is not before

    while any(sweep(rank) for rank in sorted({p.rank for p in tried})):
        pass
    answers = [(p.name, node.output, p.answer(view, node)) for node in view.graph.nodes for p in tried]
    refused = tuple(Refused(name, tensor, why) for name, tensor, why in answers if isinstance(why, str))
    return view, Report(tuple(applied), refused)


def drop_dead(graph: Graph) -> tuple[Graph, tuple[Applied, ...]]:
    """Removes the nodes, tensors and constants that no output depends on."""
    live = {n.output for n in ordered(graph._producers, graph.outputs)} | set(graph.inputs)
    nodes = tuple(n for n in graph.nodes if n.output in live)
    used = {w for n in nodes for w in (n.kernel, n.bias)}
    tensors = tuple(t for t in graph.tensors if t.name in live)
    constants = tuple(c for c in graph.constants if c.name in used)
    dropped = tuple(Applied("drop_dead", n.output, n.op) for n in graph.nodes if n.output not in live)
    return replace(graph, nodes=nodes, tensors=tensors, constants=constants), dropped


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

    def new(old: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names[name] for name in old)

    nodes = tuple(replace(n, inputs=new(n.inputs), output=names[n.output]) for n in graph.nodes)
    tensors = tuple(replace(t, name=names[t.name]) for t in graph.tensors)
    return replace(graph, nodes=nodes, tensors=tensors, inputs=new(graph.inputs), outputs=new(graph.outputs))


def fuse(graph: Graph) -> tuple[Graph, tuple[Applied, ...]]:
    """Runs the patterns that need no weights to a fixed point, then renumbers. Fusing twice changes nothing."""
    view, report = _settle(View(graph), [p for p in PATTERNS if not p.weights])
    fused = renumber(drop_dead(view.graph)[0])
    check(fused)
    return fused, report.applied


def _canonical(graph: Graph, weights: Mapping[str, np.ndarray]) -> Graph:
    """The same graph with operands of commutative operations and nodes in an order that depends on content only.

    Operands come by constancy, depth and a digest of all they depend on, in which a weight counts with six
    digits of a sum, so that rounding does not show; nodes depth first from the outputs.
    """
    keys = {name: (False, 0, f"input {position}") for position, name in enumerate(graph.inputs)}
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        inputs = tuple(sorted(node.inputs, key=keys.__getitem__)) if node.op in COMMUTATIVE else node.inputs
        tensor = graph.tensor(node.output)
        read = [weights[w].reshape(-1).astype(np.float64) for w in (node.kernel, node.bias) if w is not None]
        sums = [f"{np.abs(w) @ np.linspace(1, 2, w.size):.6g}" for w in read]
        plain = replace(node, inputs=(), output=tensor.name if tensor.site else "", kernel=None, bias=None)
        text = repr((plain, sums, tensor.shape, [keys[i][2] for i in inputs]))
        depth = 1 + max((keys[i][1] for i in inputs), default=-1)
        keys[node.output] = node.op == "constant", depth, hashlib.sha256(text.encode()).hexdigest()
        nodes[node.output] = replace(node, inputs=inputs)
    final = ordered(nodes, graph.outputs)
    tensors = tuple(graph.tensor(name) for name in (*graph.inputs, *(n.output for n in final)))
    return replace(graph, nodes=final, tensors=tensors)


def _named(graph: Graph, weights: Mapping[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray]]:
    """Names every new weight after the node that reads it first; the float32 weights the graph reads, by path."""
    pairs = ((n.output, {"kernel": n.kernel, "bias": n.bias}) for n in graph.nodes)
    read = [(f"{output}/{kind}", path) for output, paths in pairs for kind, path in paths.items()]
    names = {path: path for _, path in read if path and not path.startswith(NEW)}
    for name, path in read:
        if path and path not in names:
            while name in names.values():
                name += "+"
            names[path] = name
    known, constants = names.get, {c.name for c in graph.constants}
    nodes = tuple(replace(n, kernel=known(n.kernel or ""), bias=known(n.bias or "")) for n in graph.nodes)
    params = {name: weights[path].astype(np.float32) for path, name in names.items() if path not in constants}
    return replace(graph, nodes=nodes), params


def optimise(
    graph: Graph,
    params: Params,
    tried: Sequence[Pattern] = PATTERNS,
    order: np.random.Generator | None = None,
) -> tuple[Graph, dict[str, np.ndarray], Report]:
    """Runs every pattern to a fixed point; returns the canonical graph, the weights it reads by path, and a report.

    params: nested or flat, as the graph names them. `order` shuffles what is tried first: the result has the same
    `hash` (weights agree to float32 rounding). ValueError for missing or ill-sized weights, as `weights_of`.
    """
    view, report = _settle(View(graph, weights_of(graph, params).arrays), tried, order)
    final = renumber(drop_dead(_canonical(view.graph, view.weights))[0])
    result, weights = _named(final, view.weights)
    check(result)
    return result, weights, report


def fold_constants_only(graph: Graph, params: Params) -> tuple[Graph, dict[str, np.ndarray], Report]:
    """The unfused graph with its constant arithmetic done (norms become a mul and an add), as `optimise` returns it."""
    return optimise(graph, params, [p for p in PATTERNS if p.name in ("drop_dead", "fold_constants")])
