"""Which channels must be removed together, found in the graph alone, and their removal.

The graph is run on labels: every entry of a tensor carries the label of the channel it belongs to, and within one
tensor labels vary along one axis at most. Layers make new labels, sums and products unite them, other operations
move them. What no removal can cut (inputs, outputs, what is mixed or split) gets label 0, which always stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from research.graph.interpret import apply_float
from research.graph.ir import BINARY, UNARY, WEIGHTED, Graph, Node, Op, Shape, check
from research.graph.weights import Params, Weights, weights_of
from research.pytrees import ChannelGroup, nearest

MOVES: tuple[Op, ...] = ("concat", "reshape", "transpose", "avg_pool", "max_pool", "resize", "mean")
SPATIAL: tuple[Op, ...] = ("avg_pool", "max_pool", "resize")  # mix the axes 1 and 2
LOSES_ZERO: tuple[Op, ...] = ("logistic", "exp", "rsqrt")  # f(0) is not 0
FIXED = np.zeros(1, np.int64)
Place = tuple[str, int]  # a parameter and an axis of it, in the layout that the graph reads


@dataclass(frozen=True)
class Slice:
    """Where the channels of a group stand in a parameter: channel i at the positions index[i] of an axis.

    length: of the axis. A concat before a layer shifts the positions, a flatten repeats them for every pixel.
    """

    path: str
    axis: int
    length: int
    index: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Channels:
    """Channels that go from all these slices at once, named after the layer that makes them first."""

    name: str
    size: int
    slices: tuple[Slice, ...]


class _Labels:
    """Labels of every tensor (`of`) and along every axis of a parameter (`places`).

    A `clean` tensor is 0 in each channel whose parameters are all 0: only then can it be summed over channels.
    """

    def __init__(self, graph: Graph) -> None:
        self.same = np.zeros(1, np.int64)  # label -> the smallest one that it is united with
        self.of = {name: np.zeros(graph.shape(name), np.int64) for name in graph.inputs}
        self.clean = set[str]()
        self.places: dict[Place, np.ndarray] = {}
        self.makers: dict[Place, str] = {}
        for node in graph.nodes:
            shape = graph.shape(node.output)
            made = np.broadcast_to(self._made(node, shape), shape)
            self.of[node.output] = (
                made if len(self.varying(made)) < 2 else np.broadcast_to(self.fix(made), shape)
            )
            if self._is_clean(node):
                self.clean.add(node.output)
        self.fix(*(self.of[name] for name in graph.outputs))

    def unite(self, one: np.ndarray, other: np.ndarray) -> None:
        """Makes labels the same, pair by pair; the smaller one stays, so 0 wins."""
        for pair in set(zip(one.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True)):
            low, high = sorted(self.same[list(pair)])
            self.same[self.same == high] = low

    def fix(self, *labels: np.ndarray) -> np.ndarray:
        """Keeps these channels for good."""
        for some in labels:
            found = np.unique(some)
            self.unite(found, np.zeros_like(found))
        return FIXED

    def varying(self, labels: np.ndarray) -> list[int]:
        """The axes along which channels differ."""
        found = self.same[labels]
        return [axis for axis in range(found.ndim) if (found != found.take([0], axis)).any()]

    def along(self, labels: np.ndarray, axis: int) -> np.ndarray:
        """Labels by position on an axis; where they differ along another one they stay for good."""
        if set(self.varying(labels)) - {axis % labels.ndim}:
            self.fix(labels)
        return np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis])[0]

    def _placed(self, node: Node, labels: np.ndarray, *places: tuple[str | None, int]) -> np.ndarray:
        for path, axis in places:
            if path is not None:
                self.makers.setdefault((path, axis), node.output)
                self.unite(self.places.setdefault((path, axis), labels), labels)
        return labels

    def _new(self, count: int) -> np.ndarray:
        made = np.arange(len(self.same), len(self.same) + count)
        self.same = np.append(self.same, made)
        return made

    def _is_clean(self, node: Node) -> bool:
        inputs, (low, high) = [i in self.clean for i in node.inputs], node.bounds or (0.0, 0.0)
        if node.op in LOSES_ZERO or not low <= 0 <= high or (node.op == "pad" and node.alpha):
            return False
        if node.op == "constant":
            return node.kernel_shape[-1:] > (1,)
        if node.op in ("mul", "div", "prelu"):
            return any(inputs) if node.op == "mul" else inputs[0]
        return node.op in WEIGHTED or all(inputs)

    def _made(self, node: Node, shape: Shape) -> np.ndarray:
        """Labels of a node's output, in a shape that broadcasts to it."""
        inputs = [self.of[i] for i in node.inputs]
        if node.op == "constant":
            path = node.kernel, len(shape) - 1
            return self._placed(node, self._new(shape[-1]), path) if shape[-1:] > (1,) else FIXED
        if node.op in WEIGHTED and node.kernel is not None:
            return self._layer(node, inputs[0])
        if node.op in BINARY and not (node.op == "div" and node.inputs[1] in self.clean):  # 0 / 0
            return self._binary(*inputs)
        axes = self.varying(inputs[0])
        mixed = (1, 2) if node.op in SPATIAL else node.axes if node.op == "mean" else ()
        if node.op in UNARY and node.op != "softmax":
            return inputs[0]
        if node.op == "pad" and not any(sum(node.spans[a]) for a in axes):
            return np.pad(inputs[0], node.spans, "edge")
        if node.op == "slice" and all(inputs[0].shape[a] == shape[a] and node.spans[a][1] == 1 for a in axes):
            return inputs[0][tuple(slice(shape[a]) for a in range(len(shape)))]
        if node.op in MOVES and not set(axes) & set(mixed):
            moved = apply_float(node, [jnp.asarray(v, jnp.float32) for v in inputs], Weights({}), shape)
            return np.rint(np.asarray(moved)).astype(np.int64)
        return self.fix(*inputs)

    def _layer(self, node: Node, x: np.ndarray) -> np.ndarray:
        shape, last, channels = node.kernel_shape, len(node.kernel_shape) - 1, self.along(x, -1)
        outputs = (node.kernel, last), (node.bias, 0)
        if node.op == "depthwise":
            return self._placed(node, np.repeat(channels, shape[-1] // len(channels)), *outputs)
        if shape[-2] != len(channels):  # grouped
            return self.fix(x)
        if node.inputs[0] not in self.clean:
            self.fix(channels)
        self._placed(node, channels, (node.kernel, last - 1))
        return self._placed(node, self._new(shape[-1]), *outputs)

    def _binary(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Unites the channels of both; what is one number for all channels stays."""
        rank = max(one.ndim, other.ndim)
        both = [v.reshape((1,) * (rank - v.ndim) + v.shape) for v in (one, other)]
        axes = [axis for v in both for axis in self.varying(v)] or [rank - 1]
        size = max(v.shape[axes[0]] for v in both)
        wide = [v for v in both if v.shape[axes[0]] == size]
        self.fix(*(v for v in both if v.shape[axes[0]] != size), *(both if len(set(axes)) > 1 else ()))
        first, last = (self.along(v, axes[0]) for v in (wide[0], wide[-1]))
        self.unite(first, last)
        return first.reshape([-1 if a == axes[0] else 1 for a in range(rank)])


def _members(labels: _Labels) -> dict[str, list[int]]:
    """The labels of every group, by its name: channels that stand in the same places are of one group."""
    places = {place: labels.same[found] for place, found in labels.places.items()}
    alike: dict[tuple[Place, ...], list[int]] = {}
    for label in np.unique(labels.same)[1:].tolist():
        alike.setdefault(tuple(place for place, found in places.items() if label in found), []).append(label)
    groups: dict[str, list[int]] = {}
    for where, members in alike.items():
        name = labels.makers[where[0]]
        while name in groups:
            name += "+"
        groups[name] = members
    return groups


def channels(graph: Graph) -> tuple[Channels, ...]:
    """Every group of removable channels, in the order of the layers that make them.

    The channels of one layer are in several groups where they are tied to different layers (a sum with a concat).
    """
    labels, groups = _Labels(graph), list[Channels]()
    for name, members in _members(labels).items():
        slices = []
        for place, found in labels.places.items():
            index = tuple(tuple(np.flatnonzero(labels.same[found] == m).tolist()) for m in members)
            slices += [Slice(*place, len(found), index)] if index[0] else []
        groups.append(Channels(name, len(members), tuple(slices)))
    return tuple(groups)


def channel_groups(graph: Graph) -> tuple[ChannelGroup, ...]:
    """The groups of `channels` that own whole axes, channel i at position i: the form squeezes take."""
    return tuple(
        ChannelGroup(group.name, group.size, tuple((s.path, s.axis) for s in group.slices), (), ())
        for group in channels(graph)
        if all(s.index == tuple((i,) for i in range(s.length)) for s in group.slices)
    )


def remove_channels(
    graph: Graph, params: Params, keep: Mapping[str, Sequence[int] | np.ndarray]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """(graph, parameters by path) with only the channels `keep` {group of `channels`: indices} left, in order.

    Output-equal where all parameters of the removed channels are zero. Parameters come in the graph's layout, and
    with them what were its constants. ValueError for an unknown group, and for indices that are none, repeated
    or outside.
    """
    labels = _Labels(graph)
    groups, removed = _members(labels), list[int]()
    for name, index in keep.items():
        if name not in groups:
            raise ValueError(f"no channel group {name!r}; {nearest(name, groups)}")
        size, chosen = len(groups[name]), set(np.asarray(index).tolist())
        if not chosen or len(chosen) != len(index) or not chosen <= set(range(size)):
            raise ValueError(f"group {name!r}: keep distinct channels, at least one, each below {size}")
        removed += [label for i, label in enumerate(groups[name]) if i not in chosen]
    stays = ~np.isin(labels.same, removed)
    layouts = {n.bias: (-1,) for n in graph.nodes} | {n.kernel: n.kernel_shape for n in graph.nodes}
    left = {w: array.reshape(layouts[w]) for w, array in weights_of(graph, params).arrays.items()}
    for (path, axis), found in labels.places.items():
        left[path] = np.compress(stays[found], left[path], axis)
    shapes = {path: array.shape for path, array in left.items()}
    nodes = tuple(replace(n, kernel_shape=shapes.get(n.kernel or "", n.kernel_shape)) for n in graph.nodes)
    alive = {t: np.nonzero(stays[labels.of[t.name]]) for t in graph.tensors}
    tensors = tuple(replace(t, shape=tuple(len(set(at.tolist())) for at in alive[t])) for t in graph.tensors)
    made = replace(graph, nodes=nodes, tensors=tensors, constants=())
    check(made)
    return made, left
