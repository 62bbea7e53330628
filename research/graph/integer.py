"""From ranges and float weights to integers: int8 or int16 activations, int8 kernels (symmetric, one scale an
output channel), int32 or int64 biases.

The scheme is TFLite's quantisation specification (Jacob et al. 2018): real = scale * (integer - zero_point),
kernels with zero point 0 in [-127, 127], bias scale = input scale * kernel scale, int16 zero points 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite, prod
from typing import NamedTuple

import numpy as np

from research.graph.ir import WEIGHTED, Graph, Node, Op, Tensor, check
from research.graph.operators import CLAMPS, operator_version
from research.graph.program import LIMITS, Affine, DType, IntegerWeights, Program
from research.graph.weights import Params, Weights, weights_of
from research.pytrees import nearest, select

Array = np.ndarray
Range = tuple[float, float]

SAME_SCALE: tuple[Op, ...] = (
    "reshape", "transpose", "pad", "slice", "depth_to_space", "resize", "max_pool", "avg_pool", "concat",
    "maximum", "minimum", "neg",
)  # fmt: skip  # TFLite has these move integers: one scale in and out
FIXED: Mapping[Op, Mapping[DType, Affine]] = {
    "logistic": {"int8": Affine(1 / 256, -128), "int16": Affine(2.0**-15, 0, "int16")},
    "softmax": {"int8": Affine(1 / 256, -128), "int16": Affine(2.0**-15, 0, "int16")},
    "tanh": {"int8": Affine(1 / 128, 0), "int16": Affine(2.0**-15, 0, "int16")},
}  # output scales that LiteRT demands
ADDITIVE: tuple[Op, ...] = ("add", "sub", "clamp", "leaky_relu", "prelu", "abs", "mean", "quantize")
RESCALING: tuple[Op, ...] = (*ADDITIVE, *WEIGHTED, "mul", "matmul")
WIDTHS: Mapping[int, DType] = {8: "int8", 16: "int16"}

SMALLEST_SPAN = 1e-6  # of an activation range: below it the scale of the next bias would underflow
SMALLEST_RATIO = 2.0**-7  # of the scales of neighbouring tensors
SMALLEST_CHANNEL = 2.0**-16  # a kernel scale, relative to its layer's largest (XNNPACK refuses wild spreads)
LARGEST_BIAS: Mapping[DType, int] = {"int8": 2**30, "int16": 2**46}  # leaves a bit of the sum to the products


def affine(low: float, high: float, dtype: DType = "int8", centred: bool = False) -> Affine:
    """Parameters that cover [low, high], widened to hold 0, which is exactly representable.

    centred: the zero point is 0 (always so in int16). A range of no width gets a tiny one. ValueError where
    low > high or a bound is not finite.
    """
    if not (isfinite(low) and isfinite(high)) or low > high:
        raise ValueError(f"a range needs finite low <= high, got ({low}, {high})")
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < SMALLEST_SPAN:
        high = low + SMALLEST_SPAN
    least, most = LIMITS[dtype]
    if centred or dtype == "int16":
        return Affine(float(np.float32(max(-low, high) / most)), 0, dtype)
    scale = float(np.float32((high - low) / (most - least)))
    return Affine(scale, int(np.clip(round(least - low / scale), least, most)), dtype)


def channel_scales(kernel: Array, bias: Array, input_scale: float, dtype: DType = "int8") -> Array:
    """float32 [C] scales of a kernel [..., C]: max|w| / 127, wider where a channel is tiny or its bias large.

    An empty channel takes the largest scale of the layer, so that its bias keeps its resolution. dtype: of the
    activations, which decides how large a bias may be.
    """
    scale = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(0).astype(np.float64) / 127
    largest = scale.max() if scale.max() > 0 else 1 / 127
    scale = np.where(scale == 0, largest, np.maximum(scale, largest * SMALLEST_CHANNEL))
    return np.maximum(scale, np.abs(bias) / (input_scale * LARGEST_BIAS[dtype])).astype(np.float32)


def quantise_weights(kernel: Array, bias: Array, input_scale: float, dtype: DType = "int8") -> IntegerWeights:
    """Integers of a (transposed, depthwise) conv or dense layer: kernel [..., C] float, bias [C] float.

    Zeros stay exactly zero, so an N:M pattern survives; -128 is never used. dtype: of the activations; int16
    has an int64 bias. ValueError for shapes that do not fit or numbers that are not finite.
    """
    if bias.shape != kernel.shape[-1:]:
        raise ValueError(f"bias {bias.shape} does not fit a kernel of {kernel.shape[-1]} output channels")
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise ValueError("weights that are not finite cannot be quantised")
    scale = channel_scales(kernel, bias, input_scale, dtype)
    integers = np.clip(np.rint(kernel / rows(scale, kernel.ndim)), -127, 127).astype(np.int8)
    whole = np.rint(bias / (scale.astype(np.float64) * input_scale))
    return IntegerWeights(integers, scale, whole.astype(np.int64 if dtype == "int16" else np.int32))


def rows(channels: Array, rank: int) -> Array:
    """[C] as an array of this rank that broadcasts over the last axis."""
    return channels.reshape((1,) * (rank - 1) + (-1,))


def correct_bias(
    kernel: Array, bias: Array, input_scale: float, input_mean: Array, dtype: DType = "int8"
) -> Array:
    """bias [C] plus E[W x] - E[Wq x], the mean error of the rounded kernel (Nagel et al. 2019, section 4.2).

    input_mean: mean of each input channel, [Cin]; the kernel is [..., Cin / groups, C] (depthwise: a group each).
    Zero padding is ignored. ValueError where it has another length.
    """
    per_group, channels = kernel.shape[-2:]
    groups = input_mean.size // per_group
    if groups * per_group != input_mean.size or not groups or channels % groups:
        raise ValueError(f"input means {input_mean.shape} do not fit a kernel {kernel.shape}")
    rounded = quantise_weights(kernel, bias, input_scale, dtype)
    error = kernel - rounded.kernel * rows(rounded.scale, kernel.ndim)
    per_input = error.reshape(-1, per_group, channels).sum(0)
    means = np.repeat(input_mean.reshape(groups, per_group), channels // groups, 0).T
    return bias + (per_input * means).sum(0)


def shared_scales(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Groups of tensors that must have one scale, because an operation moves integers between them unchanged.

    Every tensor is in exactly one group; groups and names come in graph order.
    """
    group: dict[str, tuple[str, ...]] = {t.name: (t.name,) for t in graph.tensors}
    order = {t.name: i for i, t in enumerate(graph.tensors)}
    for node in graph.nodes:
        for name in node.inputs if node.op in SAME_SCALE else ():
            joined = tuple(sorted({*group[name], *group[node.output]}, key=order.__getitem__))
            group |= dict.fromkeys(joined, joined)
    return tuple(dict.fromkeys(group[t.name] for t in graph.tensors))


def precisions(graph: Graph, bits: Mapping[str, int]) -> dict[str, DType]:
    """Number format of every node, by the name of its output: that of the first rule {glob: 8 or 16}, else int8.

    Constants take the format of their readers. ValueError for a rule that matches nothing or another width.
    """
    names = [n.output for n in graph.nodes if n.op != "constant"]
    found: dict[str, DType] = dict.fromkeys(names, "int8")
    for pattern, width in reversed(list(bits.items())):
        if width not in WIDTHS:
            raise ValueError(f"precision rule {pattern!r} asks for {width} bits; activations have 8 or 16")
        found |= dict.fromkeys(select([pattern], names, "precision rule"), WIDTHS[width])
    for name in (*graph.inputs, *(n.output for n in graph.nodes if n.op == "constant")):
        readers = {found[n.output] for n in graph.consumers(name)}
        found[name] = "int16" if readers == {"int16"} else "int8"
    return found


class Plan(NamedTuple):
    """A graph with a `quantize` node wherever a number format or a scale has to change.

    dtypes: of every tensor. fixed: the tensors whose scale LiteRT fixes. origin: {new tensor: the one it holds}.
    """

    graph: Graph
    dtypes: Mapping[str, DType]
    fixed: Mapping[str, Affine]
    origin: Mapping[str, str]


def plan(graph: Graph, bits: Mapping[str, int]) -> Plan:
    """Inserts the `quantize` nodes, each named "<tensor>/<format>" and shared by its readers.

    They stand where a reader has another format than the tensor, and where a tensor of fixed scale is moved
    together with others; a constant is repeated instead. A square, which has no integer kernel, becomes a
    product. Errors as `precisions`.
    """
    dtypes, fixed, origin = precisions(graph, bits), dict[str, Affine](), dict[str, str]()
    nodes, tensors = list[Node](), list(graph.tensors)

    def held(name: str, dtype: DType) -> str:
        new = f"{name}/{dtype}"
        if new not in origin:
            constant = [n for n in graph.nodes if n.output == name and n.op == "constant"]
            nodes.append(replace(constant[0], output=new) if constant else Node("quantize", (name,), new))
            tensors.append(Tensor(new, graph.shape(name)))
            dtypes[new], origin[new] = dtype, name
        return new

    for node in graph.nodes:
        dtype, reads = dtypes[node.output], node.inputs
        if node.op != "quantize":
            reads = tuple(i if dtypes[i] == dtype else held(i, dtype) for i in reads)
        formats = [fixed.get(i) for i in reads] if node.op in SAME_SCALE else []
        if any(formats):
            first, value = formats[0], np.asarray(node.alpha if node.op == "pad" else 0.0)
            alike = first and len(set(formats)) == 1 and first.real(first.quantise(value)) == value
            if first and alike and (node.op != "neg" or not first.zero_point):
                fixed[node.output] = first
            else:
                reads = tuple(held(i, dtype) if i in fixed else i for i in reads)
        if node.op in FIXED:
            fixed[node.output] = FIXED[node.op][dtype]
        multiply = node.op == "square"
        nodes.append(replace(node, inputs=reads * 2, op="mul") if multiply else replace(node, inputs=reads))
    made = replace(graph, nodes=tuple(nodes), tensors=tuple(tensors))
    check(made)
    return Plan(made, dtypes, fixed, origin)


def _bounds(graph: Graph, ranges: Mapping[str, Range], weights: Weights | None) -> dict[str, Range]:
    """(low, high) of every tensor: of a constant its own, else the given one or that of what shares its scale."""
    known, found = [t.name for t in graph.tensors], dict(ranges)
    for name, (low, high) in ranges.items():
        if name not in known:
            raise ValueError(f"ranges name {name!r}, not a tensor of the graph; {nearest(name, known)}")
        if not (isfinite(low) and isfinite(high)) or low > high:
            raise ValueError(f"range of {name!r} needs finite low <= high, got ({low}, {high})")
    for node in graph.nodes:
        if node.op == "constant" and weights is not None:
            found[node.output] = float(weights.kernel(node).min()), float(weights.kernel(node).max())
        elif node.op in FIXED:
            found.setdefault(node.output, (-1.0 if node.op == "tanh" else 0.0, 1.0))
    for names in shared_scales(graph):
        given = [found[name] for name in names if name in found]
        if not given:
            raise ValueError(f"no range (low, high) for {' or '.join(map(repr, names))}; calibrate this site")
        union = min(low for low, _ in given), max(high for _, high in given)
        found |= {name: union for name in names if name not in found}
    return found


def tensor_scales(
    graph: Graph, ranges: Mapping[str, Range], planned: Plan | None = None, weights: Weights | None = None
) -> dict[str, Affine]:
    """Integer parameters of every tensor; a group with one scale covers the ranges of all its members.

    planned: the graph's `plan` (default: int8 everywhere). weights: for the ranges of constants.
    ValueError naming the tensors where a group has no range, and for ranges of unknown tensors.
    """
    made, scales = planned or plan(graph, {}), dict[str, Affine]()
    bounds, makers = _bounds(graph, ranges, weights), {n.output: n for n in made.graph.nodes}
    for names in shared_scales(made.graph):
        nodes = [makers[name] for name in names if name in makers]
        ends = [end for name in names for end in bounds[made.origin.get(name, name)]]
        ends += [node.alpha for node in nodes if node.op == "pad"]
        centred = any(node.op == "neg" for node in nodes)
        found = made.fixed.get(names[0]) or affine(min(ends), max(ends), made.dtypes[names[0]], centred)
        scales |= dict.fromkeys(names, found)
    return scales


def _raised(
    graph: Graph, scales: Mapping[str, Affine], fixed: Mapping[str, Affine], weights: Weights
) -> dict[str, Affine]:
    """The scales, coarser where a tensor is so small beside its neighbours that LiteRT's kernels refuse or wrap.

    A dead ReLU has a range of no width, and a factor between two scales must stay below 2^8 (shifts of the
    reference kernels; XNNPACK, whose sums and clamps also want more than 2^-9). Only zeros are coarser then.
    """
    made, group = dict(scales), {name: names for names in shared_scales(graph) for name in names}

    def at_least(name: str, other: str, scale: float) -> None:
        if made[name].scale < scale and name not in fixed and made[name].dtype == made[other].dtype:
            made.update({n: made[n]._replace(scale=float(np.float32(scale))) for n in group[name]})

    for node in (*graph.nodes, *reversed(graph.nodes), *graph.nodes):
        if node.op in RESCALING:
            reads = [made[i].scale for i in node.inputs]
            if node.op in WEIGHTED and node.kernel is not None:
                bias = np.zeros(node.kernel_shape[-1]) if node.bias is None else weights.bias(node)
                reads.append(float(channel_scales(weights.kernel(node), bias, reads[0]).max()))
            largest = max(reads) if node.op in ADDITIVE else prod(reads)
            at_least(node.output, node.inputs[0], largest * SMALLEST_RATIO)
            for name in node.inputs if node.op in ADDITIVE else ():
                at_least(name, node.output, made[node.output].scale * SMALLEST_RATIO)
    return made


def _layer(node: Node, weights: Weights, source: Affine, mean: Array | None) -> IntegerWeights:
    if node.kernel is None:
        raise ValueError(f"the kernel of {node.output!r} is computed from weights; fold it before quantising")
    kernel = weights.kernel(node)
    bias = np.zeros(kernel.shape[-1], np.float32) if node.bias is None else weights.bias(node)
    if mean is not None:  # an output of a transposed conv sees one of its strides' taps on average
        taps = prod(node.strides) if node.op == "transpose_conv" else 1
        bias = correct_bias(kernel, bias, source.scale, np.asarray(mean) / taps, source.dtype)
    return quantise_weights(kernel, bias, source.scale, source.dtype)


def quantise(
    graph: Graph,
    params: Params,
    ranges: Mapping[str, Range],
    *,
    bits: Mapping[str, int] | None = None,
    means: Mapping[str, Array] | None = None,
) -> Program:
    """The graph, fused or not, in integers: int8, and int16 activations where a rule asks for it.

    params: float weights, nested or by "/"-joined path. ranges: {tensor: (low, high)}; of tensors that share a
    scale one is enough, constants and tensors of fixed scale (softmax, logistic, tanh) need none. bits: {glob of
    node outputs: 8 or 16}, the first that matches counts; `quantize` nodes go where formats meet, an input of the
    graph is int8 unless all its readers are 16 bit. means: {tensor: mean of every channel}; biases are corrected
    by the mean error that rounding the kernel makes of them (`correct_bias`).
    ValueError, naming tensor or layer: a missing or unknown range, a rule that matches nothing, weights that are
    missing or do not fit, a format LiteRT has no kernel for.
    """
    check(graph)
    weights, names, integers = (
        weights_of(graph, params),
        [t.name for t in graph.tensors],
        dict[str, IntegerWeights](),
    )
    for name in means or {}:
        if name not in names:
            raise ValueError(
                f"means are given for {name!r}, not a tensor of the graph; {nearest(name, names)}"
            )
    made = plan(graph, bits or {})
    scales = _raised(made.graph, tensor_scales(graph, ranges, made, weights), made.fixed, weights)
    for node in made.graph.nodes:
        if node.op in WEIGHTED:
            source = node.inputs[0]
            mean = (means or {}).get(made.origin.get(source, source))
            integers[node.output] = _layer(node, weights, scales[source], mean)
        elif node.op == "constant":
            scale = np.full(1, scales[node.output].scale, np.float32)
            whole = scales[node.output].quantise(weights.kernel(node))
            integers[node.output] = IntegerWeights(whole, scale, np.zeros(0, np.int32))
    program = Program(made.graph, weights.arrays, scales, integers)
    for node in made.graph.nodes:
        if node.op != "constant" and (node.op != "clamp" or node.bounds in CLAMPS):
            operator_version(program, node)
    return program
