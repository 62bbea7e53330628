"""The patterns that compute no weight: clean-up, merging, activations, padding, functions spelled out.

What each is worth in float and in integers is stated, and checked, in `certificate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from research.graph.interpret import ACTIVATION_BOUNDS
from research.graph.ir import WEIGHTED, Activation, Node, Shape
from research.graph.matching import BETWEEN, COMMUTATIVE, Answer, Change, View
from research.graph.shapes import window_pads

Bounds = tuple[float, float]
EVERYTHING: Bounds = (-inf, inf)
UNKNOWN = "no activation clamps to [{:g}, {:g}]"
_REACH: Mapping[str, Bounds] = {
    **dict.fromkeys(("logistic", "softmax"), (0.0, 1.0)), "tanh": (-1.0, 1.0),
    **dict.fromkeys(("exp", "sqrt", "rsqrt", "abs", "square"), (0.0, inf)),
}  # fmt: skip
_MOVES = ("max_pool", "reshape", "transpose", "slice", "depth_to_space", "concat", "pad")  # input numbers
_FAR = np.logspace(1, 30, 59)
_PROBES = np.concatenate([np.linspace(-8, 8, 257), _FAR, -_FAR])
_NUMPY: Mapping[str, Callable[..., np.ndarray]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum,
    "minimum": np.minimum, "clamp": np.positive, "neg": np.negative,
}  # fmt: skip


def within(bounds: Bounds, limits: Bounds) -> Bounds:
    """Bounds of a clamp to `bounds` followed by a clamp to `limits`, also where the two do not overlap."""
    low, high = (min(max(b, limits[0]), limits[1]) for b in bounds)
    return low, high


def activation_of(bounds: Bounds | None, reach: Bounds = EVERYTHING) -> Activation | None:
    """The activation that does to numbers in `reach` what a clamp to `bounds` does; None where none does."""
    if bounds is None:
        return None
    for activation, (low, high) in ACTIVATION_BOUNDS.items():
        lower = low == bounds[0] or max(low, bounds[0]) <= reach[0]
        if lower and (high == bounds[1] or min(high, bounds[1]) >= reach[1]):
            return activation
    return None


def bounds_of(node: Node) -> Bounds:
    """What a node clamps to on its way out: by its activation, of a clamp also by its bounds."""
    return within(node.bounds or EVERYTHING, ACTIVATION_BOUNDS[node.activation])


def reach_of(view: View, name: str) -> Bounds:
    """(low, high) that the numbers of a tensor provably lie in, from the operations alone."""
    node, known = view.maker(name), view.known(name)
    if node is None or known is not None:
        return EVERYTHING if known is None else (float(known.min()), float(known.max()))
    found = _REACH.get(node.op, EVERYTHING)
    if node.op in (*_MOVES, "clamp"):
        sides = [reach_of(view, i) for i in node.inputs] + ([(node.alpha,) * 2] if node.op == "pad" else [])
        found = min(low for low, _ in sides), max(high for _, high in sides)
    elif node.op in ("avg_pool", "mean", "resize") and reach_of(view, node.inputs[0])[0] >= 0:
        found = 0.0, inf
    return within(found, bounds_of(node))


def drop_dead(view: View, node: Node) -> Answer:
    """Removes what no output depends on."""
    dead = not view.readers.get(node.output) and node.output not in view.graph.outputs
    return Change(node.op) if dead else None


def cse(view: View, node: Node) -> Answer:
    """Two nodes that compute the same become one; the operands of add, mul, maximum and minimum have no order.

    Not two `quantize` nodes: their formats are not in the graph.
    """
    outputs = view.graph.outputs

    def content(n: Node) -> tuple[Node, Shape]:
        inputs = tuple(sorted(n.inputs)) if n.op in COMMUTATIVE else n.inputs
        return replace(n, inputs=inputs, output=""), view.graph.shape(n.output)

    def standing(name: str) -> tuple[bool, int, str]:
        return not view.graph.tensor(name).site, (*outputs, name).index(name), name

    beside = view.readers[(*node.inputs, str(node.kernel))[0]]
    twins = {n.output for n in beside if n.op == node.op and content(n) == content(node)}
    keep = min(twins, key=standing)
    return None if keep == node.output or node.op == "quantize" else view.same(node, keep)


def drop_identity(view: View, node: Node) -> Answer:
    """Drops what changes nothing: x * 1, x + 0, a pad, slice, resize, reshape, transpose or pool of nothing."""
    source, others = node.inputs[:1], node.inputs[1:]
    if node.op in ("add", "sub", "mul", "div"):
        unit = 1 if node.op in ("mul", "div") else 0
        pairs = [node.inputs, node.inputs[::-1]][: 2 if node.op in COMMUTATIVE else 1]
        known = [(x, view.known(c)) for x, c in pairs]
        source = tuple(x for x, c in known if c is not None and (np.float32(c) == unit).all())[:1]
    holds = {
        "pad": set(node.spans) == {(0, 0)}, "slice": set(node.spans) == {(0, 1)}, "clamp": node.bounds == EVERYTHING,
        "transpose": node.axes == tuple(range(len(node.axes))), "concat": not others,
        **dict.fromkeys(("avg_pool", "max_pool"), node.window == node.strides == (1, 1)),
        **dict.fromkeys(("reshape", "resize", "mean", "depth_to_space", "add", "sub", "mul", "div"), True),
    }.get(node.op, False) and node.activation == "none"  # fmt: skip
    alike = holds and source and view.graph.shape(source[0]) == view.graph.shape(node.output)
    return view.same(node, source[0]) if alike else None


def drop_clamp(view: View, node: Node) -> Answer:
    """Drops a clamp whose input provably lies inside its bounds: after relu6, logistic, softmax."""
    (low, high), bounds = reach_of(view, node.inputs[0]), bounds_of(node)
    inside = bounds[0] <= low and high <= bounds[1] and bounds != EVERYTHING
    return view.same(node, node.inputs[0]) if inside else None


def _inner(view: View, node: Node, *ops: str) -> Node | None:
    """The maker of the first input where it is one of `ops` and carries no activation."""
    maker = view.maker(node.inputs[0])
    return maker if maker is not None and maker.op in ops and maker.activation == "none" else None


def merge_clamps(view: View, node: Node) -> Answer:
    """A clamp of a clamp is one clamp; not where two activations give none, which TFLite has not in integers."""
    inner = _inner(view, node, "clamp")
    if inner is None or not view.free(inner.output):
        return BETWEEN if inner else None
    bounds = within(bounds_of(inner), bounds_of(node))
    if activation_of(bounds) is None and activation_of(inner.bounds) and activation_of(node.bounds):
        return UNKNOWN.format(*bounds)
    return Change("clamp", (replace(node, inputs=inner.inputs, bounds=bounds),))


def merge_reshapes(view: View, node: Node) -> Answer:
    """A reshape of a reshape is one reshape."""
    return _merged(view, node, lambda inner: {})


def merge_transposes(view: View, node: Node) -> Answer:
    """A transpose of a transpose is one transpose."""
    return _merged(view, node, lambda inner: {"axes": tuple(inner.axes[a] for a in node.axes)})


def merge_pads(view: View, node: Node) -> Answer:
    """A pad of a pad with the same value is one pad."""

    def rule(inner: Node) -> dict[str, Any] | None:
        both = zip(inner.spans, node.spans, strict=True)
        spans = tuple((a + c, b + d) for (a, b), (c, d) in both)
        return {"spans": spans} if inner.alpha == node.alpha else None

    return _merged(view, node, rule)


def _merged(view: View, node: Node, rule: Callable[[Node], dict[str, Any] | None]) -> Answer:
    """One node for two of an operation; `rule(inner)` gives the attributes that change, None where it cannot."""
    inner = _inner(view, node, node.op)
    changed = rule(inner) if inner else None
    if inner is None or changed is None or not view.plain(inner.output):
        return None if inner is None else "their values differ" if changed is None else BETWEEN
    return Change(node.op, (replace(node, inputs=inner.inputs, **changed),))


def merge_concats(view: View, node: Node) -> Answer:
    """A concat of concats along the same axis is one concat."""
    makers = {i: view.maker(i) for i in node.inputs}
    like = ("concat", node.axis, "none")
    inner = {i: m.inputs for i, m in makers.items() if m and (m.op, m.axis, m.activation) == like}
    free = {i: inputs for i, inputs in inner.items() if view.free(i)}
    if not free:
        return BETWEEN if inner else None
    return Change("concat", (replace(node, inputs=tuple(j for i in node.inputs for j in free.get(i, (i,)))),))


def _functions(view: View, name: str, top: bool = True) -> dict[str, np.ndarray]:
    """A tensor as a function of one other, elementwise, through nodes nothing else reads: {other: values at probes}."""
    node, found = view.maker(name), {} if top else {name: _PROBES}
    if node is None or node.op not in _NUMPY or not (top or view.free(name)):
        return found
    sides: list[Mapping[str, np.ndarray] | float] = []
    for operand in node.inputs:
        known = view.known(operand)
        one = known is not None and np.ptp(known) == 0 and len(node.inputs) == 2
        sides.append(float(known.flat[0]) if known is not None and one else _functions(view, operand, False))
    leaves = [set(side) for side in sides if not isinstance(side, float)]
    for leaf in set.intersection(*leaves) if leaves else ():
        values = _NUMPY[node.op](*(side if isinstance(side, float) else side[leaf] for side in sides))
        if view.graph.shape(leaf) == view.graph.shape(node.output):
            found[leaf] = np.clip(values, *bounds_of(node))
    return found


def make_hard_swish(view: View, node: Node) -> Answer:
    """x * relu6(x + 3) / 6 however it is written, hard_sigmoid(x) * x too."""
    wanted = _PROBES * np.clip(_PROBES + 3, 0, 6) / 6
    for source, values in _functions(view, node.output).items():
        if np.allclose(values, wanted, rtol=2e-6, atol=1e-6):
            return Change(node.op, (Node("hard_swish", (source,), node.output),))
    return None


def make_leaky_relu(view: View, node: Node) -> Answer:
    """max(x, a x) with 0 < a < 1 and min(x, a x) with a > 1."""
    for source, values in _functions(view, node.output).items():
        alpha = float(np.float32(values[0] / _PROBES[0]))
        wanted = np.where(_PROBES >= 0, _PROBES, alpha * _PROBES)
        if alpha > 0 and alpha != 1 and np.allclose(values, wanted, rtol=2e-6):
            return Change(node.op, (Node("leaky_relu", (source,), node.output, alpha=alpha),))
    return None


def fold_kernel(view: View, node: Node) -> Answer:
    """A layer whose kernel is a tensor, once that tensor is a constant: the layer with that kernel."""
    maker = view.maker(node.inputs[1]) if len(node.inputs) == 2 else None
    if maker is None or maker.op != "constant":
        return None
    return Change("constant", (replace(node, inputs=node.inputs[:1], kernel=maker.kernel),))


def fuse_bias(view: View, node: Node) -> Answer:
    """A layer without bias, then an add of a constant of one value a channel: the layer with that bias."""
    for source, other in (node.inputs, node.inputs[::-1]):
        maker, constant = view.maker(source), view.maker(other)
        if maker is None or constant is None or maker.op not in WEIGHTED or constant.op != "constant":
            continue
        shape, made = constant.kernel_shape, view.graph.shape(node.output)
        row = shape[-1:] == made[-1:] and shape.count(1) >= len(shape) - 1
        if maker.bias is not None or not row or view.graph.shape(source) != made:
            return None
        if maker.activation != "none" or not view.free(source):
            return BETWEEN if maker.activation == "none" else "the layer's activation comes before the add"
        changed = replace(maker, output=node.output, bias=constant.kernel, activation=node.activation)
        return Change("add", (changed,))
    return None


def _activate(view: View, node: Node, *ops: str) -> Answer:
    maker = view.maker(node.inputs[0])
    if maker is None or maker.op not in ops or not view.free(maker.output):
        return BETWEEN if maker is not None and maker.op in ops else None
    bounds = within(ACTIVATION_BOUNDS[maker.activation], bounds_of(node))
    reach = reach_of(view, maker.inputs[0]) if maker.op.endswith("pool") else EVERYTHING
    activation = activation_of(bounds, reach)
    if activation is None:
        return UNKNOWN.format(*bounds)
    return Change("clamp", (replace(maker, output=node.output, activation=activation),))


def fuse_activation(view: View, node: Node) -> Answer:
    """conv, depthwise, transpose_conv or dense, then a relu, relu6 or relu_n1_to_1: one node."""
    return _activate(view, node, *WEIGHTED)


def fuse_add_activation(view: View, node: Node) -> Answer:
    """A residual add (or a sub or mul of two tensors), then an activation: one node."""
    return _activate(view, node, "add", "sub", "mul")


def fuse_pool_activation(view: View, node: Node) -> Answer:
    """A max or average pool, then an activation: one node. In integers it keeps the scale of the pool's input."""
    return _activate(view, node, "max_pool", "avg_pool")


def swap_pool_relu(view: View, node: Node) -> Answer:
    """max_pool(relu(x)) is relu(max_pool(x)), which the pool does by itself; only where no layer took the relu."""
    clamp = _inner(view, node, "clamp")
    if clamp is None or not view.free(clamp.output):
        return BETWEEN if clamp else None
    bounds = within(bounds_of(clamp), bounds_of(node))
    activation = activation_of(bounds, reach_of(view, clamp.inputs[0]))
    if activation is None:
        return UNKNOWN.format(*bounds)
    return Change("clamp", (replace(node, inputs=clamp.inputs, activation=activation),))


def fuse_pad(view: View, node: Node) -> Answer:
    """An explicit pad, then a layer or pool without padding: padding SAME, where TFLite's rule gives those numbers.

    SAME pads with zeros, a max pool with -infinity (which no window consists of), and an average leaves it out.
    """
    pad = _inner(view, node, "pad")
    if pad is None:
        return None
    rows_columns, window = view.graph.shape(pad.inputs[0])[1:3], node.kernel_shape[:2] or node.window
    axes = zip(rows_columns, window, node.strides, node.dilation, strict=True)
    same = tuple(window_pads(*axis, "SAME") for axis in axes)
    pool, wins = node.op == "max_pool", pad.alpha > reach_of(view, pad.inputs[0])[0]
    reasons = {
        BETWEEN: not view.free(pad.output),
        "the layer pads by itself": node.padding != "VALID",
        f"SAME would pad by {same}, this pads by {pad.spans[1:3]}": pad.spans != ((0, 0), *same, (0, 0)),
        "an average over SAME padding does not count the padding": node.op == "avg_pool",
        f"SAME pads a max pool with -infinity, {pad.alpha:g} may win": pool and wins,
        f"SAME pads with 0, this with {pad.alpha:g}": not pool and pad.alpha != 0,
    }
    refused = next((why for why, holds in reasons.items() if holds), None)
    return refused or Change("pad", (replace(node, inputs=pad.inputs, padding="SAME"),))
