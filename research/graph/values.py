"""What a variable of the jaxpr can be while it is traced, and the graph under construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import NamedTuple

import numpy as np

from research.graph.ir import Constant, Graph, Node, Op, Shape, Tensor
from research.graph.shapes import output_shape


class Value(NamedTuple):
    """A tensor of the graph times `factor`.

    The factor is how a sum becomes a mean: a sum over a window is recorded as its mean with the count as
    factor, and the division by the count that follows brings the factor back to 1. It is a scalar or an array
    that broadcasts against the tensor. Whatever else reads the sum gets a multiplication by the factor.
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


class Comparison(NamedTuple):
    """Where a tensor is above (or, not `above`, below) `bound`; only a choice between tensors reads it."""

    tensor: str
    above: bool
    bound: float


Known = np.ndarray  # a constant, evaluated while tracing
Traced = Value | Weight | Comparison | Known


def uniform(value: Traced) -> float | None:
    """The number that a constant holds everywhere; None for anything else."""
    if not isinstance(value, np.ndarray) or value.size == 0 or np.any(value != value.flat[0]):
        return None
    return float(value.flat[0])


def _key(value: Value) -> tuple[str, bytes]:
    return value.tensor, value.factor.tobytes()


@dataclass
class Draft:
    """The graph while `trace` builds it. Clamps of clamps, reshapes of reshapes and transposes merge.

    fixed: tensors that follow from parameters and constants alone. repeated: tensors made by repeating axes of
    another one, which arithmetic reads instead, since it broadcasts by itself.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    repeated: dict[str, str] = field(default_factory=dict)
    scaled: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def new_tensor(self, shape: Shape) -> str:
        """Registers a tensor under a temporary name."""
        name = f"%{len(self.shapes):06d}"
        self.shapes[name] = tuple(int(s) for s in shape)
        return name

    def add(self, node: Node, shape: Shape, factor: np.ndarray | None = None) -> Value:
        """Appends a node whose `output` is still empty and returns its value."""
        name = self.new_tensor(shape)
        self.nodes[name] = replace(node, output=name)
        if all(i in self.fixed for i in node.inputs):
            self.fixed.add(name)
        return Value(name) if factor is None else Value(name, factor)

    def add_node(self, node: Node, recorded: Shape = ()) -> Value:
        """Appends a node whose shape follows from its inputs, or is recorded. ValueError where they do not fit."""
        return self.add(node, output_shape(node, tuple(self.shapes[i] for i in node.inputs), recorded))

    def made(self, tensor: str, op: Op) -> Node | None:
        """The node that makes a tensor, if it is of this operation and the tensor is no site."""
        node = self.nodes.get(tensor)
        return node if node is not None and node.op == op and tensor not in self.sites else None

    def shape(self, value: Traced) -> Shape:
        """Shape of a traced value. ValueError for a comparison."""
        if isinstance(value, Comparison):
            raise ValueError("it reads a comparison, which only a choice (jnp.where) can")
        if isinstance(value, Value):
            return self.shapes[value.tensor]
        return value.view if isinstance(value, Weight) else value.shape

    def whole(self, value: Value) -> bool:
        """Whether a tensor holds the value already: it has no factor, or was read before."""
        return value.settled or _key(value) in self.scaled

    def read(self, value: Traced) -> str:
        """The tensor that holds a value: a weight becomes a constant node, a factor a multiplication.

        ValueError for a comparison and for constants that are not finite.
        """
        shape = self.shape(value)
        if isinstance(value, Value):
            if not self.whole(value):
                inputs = value.tensor, self.constant(value.factor, value.factor.shape)
                self.scaled[_key(value)] = self.add(Node("mul", inputs, ""), shape).tensor
            return self.scaled.get(_key(value), value.tensor)
        if isinstance(value, Weight) and value.size != prod(shape):
            return self.broadcast(Value(self.constant(value, (value.size,))), shape).tensor
        return self.constant(value, shape)

    def constant(self, value: Traced, shape: Shape) -> str:
        """A new constant node that holds a parameter or array as `shape`; a scalar becomes [1]."""
        shape = tuple(shape) or (1,)
        path = self.weight(value, shape)
        return self.add_node(Node("constant", (), "", kernel=path, kernel_shape=shape)).tensor

    def layer(self, node: Node, kernel: Traced, shape: Shape, recorded: Shape = ()) -> Value:
        """Appends a layer with a kernel read as `shape`: a weight, or a second input that weights make.

        ValueError where the kernel depends on the image.
        """
        node = replace(node, kernel_shape=shape)
        if not isinstance(kernel, Value):
            return self.add_node(replace(node, kernel=self.weight(kernel, shape)), recorded)
        tensor = self.read(self.reshape(kernel, shape))
        if tensor not in self.fixed:
            raise ValueError("its kernel depends on the image")
        return self.add_node(replace(node, inputs=(*node.inputs, tensor)), recorded)

    def clamp(self, source: str, low: float, high: float) -> Value:
        """min(max(source, low), high), merged with a clamp before it where no site lies between."""
        if (low, high) == (-inf, inf):
            return Value(source)
        before = self.made(source, "clamp")
        if before is not None and before.bounds:
            merged = max(low, before.bounds[0]), min(high, before.bounds[1])
            if merged[0] <= merged[1]:
                source, (low, high) = before.inputs[0], merged
        return self.add(Node("clamp", (source,), "", bounds=(low, high)), self.shapes[source])

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same numbers in another shape; a factor survives where it is one number."""
        count = uniform(value.factor)
        source, factor = value.tensor, np.asarray(1.0 if count is None else count)
        source = self.read(value) if count is None else source
        if before := self.made(source, "reshape"):
            source = before.inputs[0]
        if self.shapes[source] == tuple(shape):
            return Value(source, factor)
        mean = self.made(source, "mean")  # may keep its axes, unless it is read as it is
        if mean is not None and not any(source in node.inputs for node in self.nodes.values()):
            whole = self.shapes[mean.inputs[0]]
            kept = tuple(1 if a in mean.axes else s for a, s in enumerate(whole))
            gone = tuple(s for a, s in enumerate(whole) if a not in mean.axes)
            if tuple(shape) in (kept, gone):
                return self.add(replace(mean, output=""), shape, factor)
        return self.add(Node("reshape", (source,), ""), shape, factor)

    def transpose(self, value: Value, axes: Sequence[int]) -> Value:
        """The axes in another order. Axes of size 1 keep theirs, so that the batch stays in front."""
        source = self.read(value)
        if before := self.made(source, "transpose"):
            source, axes = before.inputs[0], [before.axes[a] for a in axes]
        own = self.shapes[source]
        units = iter(a for a, s in enumerate(own) if s == 1)
        order = tuple(next(units) if own[a] == 1 else int(a) for a in axes)
        shape, moving = tuple(own[a] for a in order), [a for a in order if own[a] != 1]
        if moving == sorted(moving):
            return self.reshape(Value(source), shape)
        return self.add(Node("transpose", (source,), "", axes=order), shape)

    def broadcast(self, value: Value, shape: Shape) -> Value:
        """Repeats axes of size 1 up to `shape`, after adding axes in front. ValueError for the batch."""
        own = self.shapes[value.tensor]
        value = self.reshape(value, (1,) * (len(shape) - len(own)) + own)
        source = value
        for axis, count in enumerate(shape):
            now = self.shapes[value.tensor]
            if now[axis] == count:
                continue
            if axis == 0 and value.tensor not in self.fixed:
                raise ValueError("it repeats the image along the batch")
            copies = Node("concat", (value.tensor,) * count, "", axis=axis)
            value = self.add(copies, (*now[:axis], count, *now[axis + 1 :]), value.factor)
            self.repeated[value.tensor] = source.tensor
        return value

    def cut(self, value: Value, spans: Sequence[tuple[int, int]], shape: Shape) -> Value:
        """The box of `shape` entries from begin on, stride apart; spans: (begin, stride) of every axis."""
        source = self.read(value)
        rows = self.shapes[source][0]
        if self.shapes[source] == tuple(shape) and all(span == (0, 1) for span in spans):
            return Value(source)
        if rows != shape[0] == 1 and spans[0] == (0, 1):  # which would be a whole batch
            spans = [(0, rows), *spans[1:]]
        return self.add_node(Node("slice", (source,), "", spans=tuple(spans)), tuple(shape))

    def pad(self, value: Value, spans: Sequence[tuple[int, int]], number: float = 0.0) -> Value:
        """(before, after) entries of one number around every axis; negative ones are cut away."""
        shape = self.shapes[value.tensor]
        cuts = [(max(-a, 0), s + min(a, 0) + min(b, 0)) for s, (a, b) in zip(shape, spans, strict=True)]
        value = self.cut(value, [(begin, 1) for begin, _ in cuts], tuple(size for _, size in cuts))
        wide = tuple((max(a, 0), max(b, 0)) for a, b in spans)
        if not any(map(sum, wide)):
            return value
        return self.add_node(Node("pad", (value.tensor,), "", spans=wide, alpha=number))

    def name(self, tensor: str, site: str) -> None:
        """Marks a tensor as the site called `site`. ValueError for a second name or a name used twice."""
        known = self.sites.get(tensor, site)
        if known != site:
            raise ValueError(f"one tensor is named both {known!r} and {site!r}; keep one checkpoint_name")
        if any(s == site and t != tensor for t, s in self.sites.items()):
            raise ValueError(f"site {site!r} names two tensors; give each its own name")
        self.sites[tensor] = site

    def weight(self, value: Traced, shape: Shape) -> str:
        """Path of a parameter, or the name of a new graph constant, that is read as `shape`.

        ValueError for anything else, for another size and for numbers that are not finite.
        """
        if isinstance(value, np.ndarray):
            if not np.isfinite(value).all():
                raise ValueError("its constant is not finite: write a large number such as -1e9")
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
