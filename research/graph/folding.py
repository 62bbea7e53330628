"""The patterns that compute new weights: constants, batch norms, scales and shifts into the layers around them.

All arithmetic is float64 and rounded to float32 once, at the end, so that the order of the folds does not
show. A batch norm is a mul and an add of constants after its own arithmetic has become constant, so the folds
of scales and shifts into the layer before or after are batch norm folding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from research.graph.interpret import apply_float
from research.graph.ir import WEIGHTED, Node
from research.graph.matching import BETWEEN, COMMUTATIVE, Answer, Change, View
from research.graph.patterns import fuse_bias
from research.graph.shapes import window_pads
from research.graph.weights import Weights

Array = TypeVar("Array", np.ndarray, jax.Array)

VARIES = "its constant changes from pixel to pixel"
ACTIVE = "an activation lies between"


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


class Step(NamedTuple):
    """A node read as `source * weight` or `source + weight`: kind "mul" or "add", the shape is the source's."""

    source: str
    kind: str
    weight: np.ndarray

    def row(self, channels: int) -> np.ndarray | None:
        """The weight as one number a channel, [C]; None where it is not."""
        if self.weight.size == 1:
            return np.full(channels, self.weight.item())
        fits = self.weight.shape[-1:] == (channels,) and self.weight.size == channels
        return self.weight.reshape(-1) if fits else None


def step_of(view: View, node: Node | None) -> Step | None:
    """mul, div, add, sub of a tensor and a constant, and neg, as a step; None for any other node."""
    if node is None or node.op not in ("neg", "add", "sub", "mul", "div"):
        return None
    if node.op == "neg":
        return Step(node.inputs[0], "mul", np.array(-1.0))
    source, other = node.inputs
    if node.op in COMMUTATIVE and view.known(source) is not None:
        source, other = other, source
    weight, shape = view.known(other), view.graph.shape
    if weight is None or view.known(source) is not None or shape(source) != shape(node.output):
        return None
    weight = -weight if node.op == "sub" else np.reciprocal(weight) if node.op == "div" else weight
    return Step(source, "mul" if node.op in ("mul", "div") else "add", weight)


def fold_constants(view: View, node: Node) -> Answer:
    """A node whose inputs are all constant becomes the constant that the float interpreter makes of it."""
    inputs = [jnp.asarray(v, jnp.float32) for v in map(view.known, node.inputs) if v is not None]
    if not inputs or len(inputs) < len(node.inputs) or node.op == "quantize":
        return None
    shape, read = view.graph.shape(node.output), {str(node.kernel), str(node.bias)}
    weights = Weights({path: w.astype(np.float32) for path, w in view.weights.items() if path in read})
    value = np.asarray(apply_float(node, inputs, weights, shape), np.float64)
    constant = Node("constant", (), node.output, kernel="@value", kernel_shape=shape)
    return Change(node.op, (constant,), weights={"@value": value})


def _after(view: View, node: Node, kind: str) -> tuple[Node, np.ndarray] | str | None:
    """The layer before a step, and the step's constant as one number an output channel."""
    step = step_of(view, node)
    maker = view.maker(step.source) if step else None
    if step is None or maker is None or step.kind != kind or maker.op not in WEIGHTED or not maker.kernel:
        return None
    row = step.row(view.graph.shape(node.output)[-1])
    if row is None or maker.activation != "none":
        return VARIES if row is None else ACTIVE
    layer = replace(maker, output=node.output, activation=node.activation)
    return (layer, row) if view.free(step.source) else BETWEEN


def fold_scale_after(view: View, node: Node) -> Answer:
    """A layer, then mul or div by a constant a channel (or neg): s (w x + b) = (s w) x + s b."""
    found = _after(view, node, "mul")
    if found is None or isinstance(found, str):
        return found
    layer, row = found
    old = {"kernel": view.numbers(layer.kernel, layer.kernel_shape), "bias": view.numbers(layer.bias, (-1,))}
    new = {f"@{name}": w * row for name, w in old.items() if w is not None}
    return Change(node.op, (replace(layer, kernel="@kernel", bias=layer.bias and "@bias"),), weights=new)


def fold_shift_after(view: View, node: Node) -> Answer:
    """A layer, then add or sub of a constant a channel: into its bias, where `fuse_bias` cannot take it as it is."""
    found = _after(view, node, "add")
    if found is None or isinstance(found, str) or (node.op == "add" and fuse_bias(view, node) is not None):
        return None if isinstance(found, tuple) else found
    layer, row = found
    bias = view.numbers(layer.bias, (-1,))
    new = {"@bias": row if bias is None else bias + row}
    return Change(node.op, (replace(layer, bias="@bias"),), weights=new)


def _before(view: View, node: Node, kind: str) -> tuple[Step, np.ndarray, np.ndarray] | str | None:
    """The step before a layer; its constant for every weight (broadcasts against the kernel), and the kernel."""
    inner = view.maker(node.inputs[0])
    step, kernel = step_of(view, inner), view.numbers(node.kernel, node.kernel_shape)
    if inner is None or step is None or kernel is None or step.kind != kind:
        return None
    channels = view.graph.shape(step.source)[-1]
    row = step.row(channels)
    if row is None or inner.activation != "none":
        return VARIES if row is None else ACTIVE
    reads, outputs = kernel.shape[-2:]  # of a group; the outputs of group g read its `reads` channels
    group = np.arange(outputs) // (outputs // (channels // reads))
    spread = row[group[None, :] * reads + np.arange(reads)[:, None]]
    return (step, spread, kernel) if view.free(inner.output) else BETWEEN


def fold_scale_before(view: View, node: Node) -> Answer:
    """mul or div by a constant a channel (or neg), then a layer: w (s x) = (w s) x, zero padding too."""
    found = _before(view, node, "mul")
    if found is None or isinstance(found, str):
        return found
    step, spread, kernel = found
    layer = replace(node, inputs=(step.source,), kernel="@kernel")
    return Change("mul", (layer,), weights={"@kernel": kernel * spread})


def fold_shift_before(view: View, node: Node) -> Answer:
    """add or sub of a constant a channel, then a layer: w (x + c) + b = w x + (b + sum of w c).

    Only where every output sees every weight: zero padding would have to be padding with -c.
    """
    found = _before(view, node, "add")
    if found is None or isinstance(found, str):
        return found
    if node.op == "transpose_conv":
        return "its outputs do not all see the same weights"
    step, spread, kernel = found
    sizes = view.graph.shape(step.source)[1:3] if kernel.ndim == 4 else ()
    axes = zip(sizes, kernel.shape, node.strides, node.dilation, strict=False)
    if any(any(window_pads(*axis, node.padding)) for axis in axes):
        return "zero padding: at the border the layer sees zeros, not the constant"
    bias, extra = view.numbers(node.bias, (-1,)), (kernel * spread).reshape(-1, kernel.shape[-1]).sum(0)
    layer = replace(node, inputs=(step.source,), bias="@bias")
    return Change("add", (layer,), weights={"@bias": extra if bias is None else bias + extra})


def merge_constants(view: View, node: Node) -> Answer:
    """A chain of steps is x a + b: x a b = x (a b), x + a + b = x + (a + b), and three or more steps are two.

    The whole chain is taken at once, from its last step, so that it does not matter where one would begin.
    """
    after = view.readers[node.output][0] if view.free(node.output) and node.activation == "none" else None
    chain, inner, blocked = list[Step](), view.maker(node.output), ""
    while not blocked and (step := step_of(view, inner)):
        chain, inner = [*chain, step], view.maker(step.source)
        active = inner is not None and inner.activation != "none"
        blocked = BETWEEN if not view.free(step.source) else ACTIVE if active else ""
    kinds, outer = [step.kind for step in chain], step_of(view, inner)
    if not chain or step_of(view, after) is not None:
        return None  # the chain goes on
    if len(chain) < 3 and len(set(kinds)) == len(chain):
        return blocked if outer is not None and [outer.kind] == kinds else None
    scale, shift = np.array(1.0), np.array(0.0)
    for step in reversed(chain):
        if step.kind == "mul":
            scale, shift = scale * step.weight, shift * step.weight if shift.any() else shift
        else:
            shift = shift + step.weight
    new = {kind: weight for kind, weight in (("mul", scale), ("add", shift)) if kind in kinds}
    return _steps(node, chain[-1].source, chain[0].source, new)


def _steps(node: Node, source: str, middle: str, new: Mapping[str, np.ndarray]) -> Change:
    """`source` times and plus constants; two steps meet in the tensor `middle`, the last makes `node`'s."""
    names = {f"@{kind}": weight for kind, weight in new.items()}
    nodes = [Node("constant", (), name, kernel=name, kernel_shape=w.shape) for name, w in names.items()]
    if "mul" in new:
        nodes.append(Node("mul", (source, "@mul"), middle))
    if "add" in new:
        nodes.append(Node("add", (middle if "mul" in new else source, "@add"), middle))
    nodes[-1] = replace(nodes[-1], output=node.output, activation=node.activation)
    return Change(node.op, tuple(nodes), weights=names)


def multiply_not_divide(view: View, node: Node) -> Answer:
    """Division by a constant is multiplication by its reciprocal: one rounding more, and a division less a value."""
    step = step_of(view, node)
    return _steps(node, step.source, "", {"mul": step.weight}) if step else None
