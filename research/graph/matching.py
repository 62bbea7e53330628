"""What a rewrite pattern sees of a graph, and what it may answer.

A pattern is a small function `(view, node) -> answer` that looks at one node and what feeds it. It answers
None (not its shape), a `Change` (what takes the node's place) or a sentence: the shape is there, but a
precondition fails. It changes nothing itself, so patterns can be tried in any order.

A tensor with a site name is meant to exist as an integer tensor on the device: no pattern removes one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from research.graph.ir import Graph, Node, Shape, Tensor
from research.graph.shapes import output_shape

COMMUTATIVE = ("add", "mul", "maximum", "minimum")
BETWEEN = "the tensor between them has to stay: a site, an input or output, or read elsewhere"
NEW = "~"  # names of tensors and weights that a rewrite makes start with it


class Applied(NamedTuple):
    """One use of a pattern: the operation `absorbed` went into the node that now makes `tensor`."""

    pattern: str
    tensor: str
    absorbed: str


class Refused(NamedTuple):
    """A place that has the shape of a pattern but not its precondition."""

    pattern: str
    tensor: str
    reason: str


class Change(NamedTuple):
    """What takes the place of a node.

    absorbed: the operation that goes. nodes: the last one makes the tensor of the node that was looked at.
    same: instead of nodes, the name of a tensor with the same values. Neither: nothing reads the node. weights:
    new float64 numbers under placeholders ("@kernel") that the nodes read, and that may also name a new constant.
    """

    absorbed: str
    nodes: tuple[Node, ...] = ()
    same: str = ""
    weights: Mapping[str, np.ndarray] = {}


Answer = Change | str | None


class Pattern(NamedTuple):
    """A rule, its rank, and the operations of the nodes it looks at (empty: all).

    A pattern is tried only where none of a lower rank matches anywhere; `weights`: it needs the numbers.
    """

    rule: Callable[[View, Node], Answer]
    rank: int
    ops: tuple[str, ...] = ()
    weights: bool = False

    @property
    def name(self) -> str:
        """The name of the rule."""
        return str(getattr(self.rule, "__name__", "?"))

    def answer(self, view: View, node: Node) -> Answer:
        """The rule's answer; refused where new numbers would not be finite in float32."""
        if self.ops and node.op not in self.ops:
            return None
        with np.errstate(all="ignore"):
            found = self.rule(view, node)
            new = found.weights.values() if isinstance(found, Change) else ()
            return (
                found if all(np.isfinite(np.float32(w)).all() for w in new) else "its numbers are not finite"
            )


def ordered(nodes: Mapping[str, Node], outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes that the outputs depend on, depth first: operands from left to right, each before its reader."""
    done: dict[str, Node] = {}
    stack = [name for name in reversed(outputs) if name in nodes]
    while stack:
        missing = [i for i in nodes[stack[-1]].inputs if i in nodes and i not in done]
        if missing:
            stack.extend(reversed(missing))
        else:
            name = stack.pop()
            done[name] = nodes[name]
    return tuple(done.values())


@dataclass(frozen=True)
class View:
    """A graph that is being rewritten and its weights, flat, by path; none where only the structure counts."""

    graph: Graph
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def readers(self) -> Mapping[str, list[Node]]:
        """The nodes that read a tensor, once for every operand; of a constant's path, the constants."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.graph.nodes:
            for name in node.inputs or (str(node.kernel),):
                found[name].append(node)
        return found

    def maker(self, name: str) -> Node | None:
        """The node that makes a tensor; None for an input of the graph."""
        return self.graph._producers.get(name)

    def plain(self, name: str) -> bool:
        """Whether a tensor may disappear: neither a site nor an input or output of the graph."""
        return not self.graph.tensor(name).site and name not in (*self.graph.inputs, *self.graph.outputs)

    def free(self, name: str) -> bool:
        """Whether a tensor may disappear and is read exactly once."""
        return self.plain(name) and len(self.readers[name]) == 1

    def numbers(self, path: str | None, shape: Shape) -> np.ndarray | None:
        """Kernel or bias of that path as float64 of `shape`; None where it is not known."""
        found = self.weights.get(path) if path else None
        return None if found is None else found.astype(np.float64).reshape(shape)

    def known(self, name: str) -> np.ndarray | None:
        """Value of a constant tensor, in its shape; None for any other and where weights are not known."""
        node = self.maker(name)
        return self.numbers(node.kernel, node.kernel_shape) if node and node.op == "constant" else None

    def same(self, node: Node, name: str) -> Answer:
        """The change that drops `node`, whose values the tensor `name` holds.

        Where both tensors have to stay, what is left is a reshape to the same shape: a copy that costs nothing.
        """
        if self.plain(node.output) or self.free(name):
            return Change(node.op, same=name)
        copy = Node("reshape", (name,), node.output)
        return "both tensors have to stay" if node.op == "reshape" else Change(node.op, (copy,))

    def apply(self, node: Node, change: Change) -> View:
        """The view after a change, without what no output depends on any more."""
        fresh = {p: f"{NEW}{len(self.weights) + i}" for i, p in enumerate(change.weights)}
        weights = {**self.weights, **{fresh[p]: w for p, w in change.weights.items()}}
        nodes, shapes = dict(self.graph._producers), {t.name: t.shape for t in self.graph.tensors}
        for new in change.nodes:
            new = replace(
                new, inputs=tuple(fresh.get(i, i) for i in new.inputs), output=fresh.get(new.output, new.output),
                kernel=fresh.get(str(new.kernel), new.kernel), bias=fresh.get(str(new.bias), new.bias),
            )  # fmt: skip
            shape = output_shape(new, tuple(shapes[i] for i in new.inputs), shapes.get(new.output, ()))
            nodes[new.output], shapes[new.output] = new, shape
        if change.same:
            gone, kept = (node.output, change.same) if self.plain(node.output) else (change.same, node.output)
            nodes |= {kept: replace(nodes[gone], output=kept)} if gone == change.same else {}
            for reader in self.readers[gone]:
                if reader is not node:
                    inputs = tuple(kept if i == gone else i for i in reader.inputs)
                    nodes[reader.output] = replace(reader, inputs=inputs)
        left = ordered(nodes, self.graph.outputs)
        sites = {t.name for t in self.graph.tensors if t.site}
        names = dict.fromkeys((*self.graph.inputs, *(n.output for n in left)))
        tensors = tuple(Tensor(name, shapes[name], name in sites) for name in names)
        return View(replace(self.graph, nodes=left, tensors=tensors), weights)
