"""What a variable of the jaxpr can be while it is traced, and the graph under construction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

import numpy as np

from research.graph.ir import Constant, Graph, Node, Shape, Tensor
from research.graph.shapes import output_shape


class Value(NamedTuple):
    """A tensor of the graph times `factor`.

    The factor is how a sum becomes a mean: a sum over a window is recorded as its mean with the count as
    factor, and the division by the count that follows brings the factor back to 1. It is a scalar or an array
    that broadcasts against the tensor.
    """

    tensor: str
    factor: np.ndarray = np.ones(())

    @property
    def settled(self) -> bool:
        """True when the value is the tensor itself."""
        return bool(np.allclose(self.factor, 1.0, rtol=1e-5, atol=0.0))


class Weight(NamedTuple):
    """A parameter seen as `view`: reshaped, or its `size` values along the last axis, broadcast."""

    path: str
    size: int
    view: Shape


Known = np.ndarray  # a constant, evaluated while tracing
Traced = Value | Weight | Known


def uniform(value: Traced) -> float | None:
    """The number that a constant holds everywhere; None for anything else."""
    if not isinstance(value, np.ndarray) or value.size == 0 or np.any(value != value.flat[0]):
        return None
    return float(value.flat[0])


@dataclass
class Draft:
    """The graph while `trace` builds it. Clamps of clamps and reshapes of reshapes merge."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)

    def new_tensor(self, shape: Shape) -> str:
        """Registers a tensor under a temporary name."""
        name = f"%{len(self.shapes):06d}"
        self.shapes[name] = tuple(shape)
        return name

    def add(self, node: Node, shape: Shape, factor: np.ndarray | None = None) -> Value:
        """Appends a node whose `output` is still empty and returns its value."""
        name = self.new_tensor(shape)
        self.nodes[name] = replace(node, output=name)
        return Value(name) if factor is None else Value(name, factor)

    def add_node(self, node: Node) -> Value:
        """Appends a node whose shape follows from its inputs. ValueError where they do not fit."""
        return self.add(node, output_shape(node, tuple(self.shapes[i] for i in node.inputs), ()))

    def clamp(self, source: str, low: float, high: float) -> Value:
        """min(max(source, low), high), merged with a clamp before it where no site lies between."""
        before = self.nodes.get(source)
        if before is not None and before.op == "clamp" and before.bounds and source not in self.sites:
            merged = max(low, before.bounds[0]), min(high, before.bounds[1])
            if merged[0] <= merged[1]:
                source, (low, high) = before.inputs[0], merged
        return self.add(Node("clamp", (source,), "", bounds=(low, high)), self.shapes[source])

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same numbers in another shape; only scalar factors survive it."""
        count = uniform(value.factor)
        if count is None:
            raise ValueError("a sum over padded windows must be divided by its counts before it is reshaped")
        source, factor = value.tensor, np.asarray(count)
        if self.shapes[source] == tuple(shape):
            return Value(source, factor)
        before = self.nodes.get(source)
        if before is not None and before.op == "reshape" and source not in self.sites:
            source = before.inputs[0]
            if self.shapes[source] == tuple(shape):
                return Value(source, factor)
        maker = self.nodes.get(source)
        if maker is not None and maker.op == "mean" and source not in self.sites:
            batch, *_, channels = self.shapes[source]
            if tuple(shape) in ((batch, channels), (batch, 1, 1, channels)):  # a mean may keep its axes
                return self.add(replace(maker, output=""), shape, factor)
        return self.add(Node("reshape", (source,), ""), shape, factor)

    def name(self, tensor: str, site: str) -> None:
        """Marks a tensor as the site called `site`. ValueError for a second name or a name used twice."""
        known = self.sites.get(tensor, site)
        if known != site:
            raise ValueError(f"one tensor is named both {known!r} and {site!r}; keep one checkpoint_name")
        if any(s == site and t != tensor for t, s in self.sites.items()):
            raise ValueError(f"site {site!r} names two tensors; give each its own name")
        self.sites[tensor] = site

    def weight(self, value: Traced, shape: Shape) -> str:
        """Path of a parameter, or the name of a new graph constant, that is read as `shape`."""
        if isinstance(value, np.ndarray):
            constant = Constant.of(value.reshape(shape))
            self.constants[constant.name] = constant
            return constant.name
        if not isinstance(value, Weight) or value.size != prod(shape):
            raise ValueError("its weight is not a plain parameter")
        return value.path

    def graph(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
        """The finished graph; site names replace temporary ones."""
        final = {t: self.sites.get(t, t) for t in self.shapes}
        return Graph(
            nodes=tuple(
                replace(n, inputs=tuple(final[i] for i in n.inputs), output=final[n.output])
                for n in self.nodes.values()
            ),
            tensors=tuple(Tensor(final[t], s, t in self.sites) for t, s in self.shapes.items()),
            inputs=tuple(final[i] for i in inputs),
            outputs=tuple(final[o] for o in outputs),
            constants=tuple(self.constants[c] for c in sorted(self.constants)),
        )
