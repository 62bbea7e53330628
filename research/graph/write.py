"""Writes any program as a .tflite file: float, int8, int16x8 and mixtures, fused or not.

Which operator a node becomes is said in `operators`; here is what that operator reads (`_operands`) and its
options (`_fields`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from research.graph.ir import Graph, Node, check
from research.graph.operators import (
    ACTIVATED,
    CLAMPS,
    operator_code,
    operator_options,
    operator_version,
    sums_in_int32,
)
from research.graph.program import IntegerWeights, Program
from research.graph.tflite import Writer, schema
from research.graph.weights import Weights, weights_of

AXIS: Mapping[str, int] = MappingProxyType({"depthwise": 3})  # of the output channels in the file; else 0


def file_layout(op: str, kernel: np.ndarray) -> np.ndarray:
    """A kernel as TFLite stores it: (transposed) conv [Cout, kh, kw, Cin], depthwise [1, kh, kw, C], dense
    [out, in]; any other array as it is."""
    axes = {"conv": (3, 0, 1, 2), "transpose_conv": (3, 0, 1, 2), "depthwise": (2, 0, 1, 3), "dense": (1, 0)}
    return kernel.transpose(axes[op]) if op in axes else kernel


class _Context(NamedTuple):
    program: Program
    weights: Weights  # of the nodes that compute in float
    writer: Writer
    place: dict[str, int]  # tensor name -> index in the file

    def plain(self, node: Node, what: str, values: Any) -> int:
        """Index of a small int32 operand of a node."""
        data = np.asarray(values, np.int32)
        return self.writer.tensor(f"{node.output}/{what}", data.shape, np.int32, data=data)

    def number(self, node: Node, what: str, value: float) -> int:
        """Index of a real number as an operand of a node, in the format of the node's output."""
        data, affine = np.full(1, value, np.float32), self.program.scales.get(node.output)
        name = f"{node.output}/{what}"
        if affine is None:
            return self.writer.tensor(name, (1,), np.float32, data=data)
        integers = affine.quantise(data)
        return self.writer.tensor(name, (1,), integers.dtype.type, affine.scale, affine.zero_point, integers)


def _integers(program: Program, node: Node) -> IntegerWeights:
    found = program.integers.get(node.output)
    if found is None:
        raise ValueError(f"{node.output!r} is an integer tensor, but its weights are given in float only")
    given = f"{found.kernel.dtype} {found.kernel.shape}"
    dtype = program.dtype(node.output) if node.op == "constant" else "int8"
    if found.kernel.dtype != dtype or found.kernel.size != prod(node.kernel_shape):
        raise ValueError(f"integers of {node.output!r} are {given}, not {dtype} {node.kernel_shape}")
    return found


def _weights(context: _Context, node: Node) -> tuple[int, int]:
    """Indices of the kernel and the bias of a layer in the file; LiteRT's convolutions must have a bias."""
    program, writer = context.program, context.writer
    if node.kernel is None:
        raise ValueError(f"the kernel of {node.output!r} is computed from weights; fold it: `optimise`")
    names = node.kernel, node.bias or f"{node.output}/bias"
    if node.output not in program.scales:
        data = file_layout(node.op, context.weights.kernel(node))
        bias = np.zeros(node.kernel_shape[-1]) if node.bias is None else context.weights.bias(node)
        kernel = writer.tensor(names[0], data.shape, np.float32, data=data)
        return kernel, writer.tensor(names[1], bias.shape, np.float32, data=bias)
    integers = _integers(program, node)
    data = file_layout(node.op, integers.kernel.reshape(node.kernel_shape))
    scale = np.atleast_1d(np.asarray(integers.scale, np.float32))
    kernel = writer.tensor(names[0], data.shape, np.int8, scale, 0, data, AXIS.get(node.op, 0))
    scale = scale * np.float32(program.scales[node.inputs[0]].scale)
    bias = integers.bias
    return kernel, writer.tensor(names[1], bias.shape, bias.dtype.type, scale, 0, bias)


def _operands(context: _Context, node: Node) -> list[int]:
    """Indices of everything the operator reads, in TFLite's order."""
    inputs, shape = [context.place[i] for i in node.inputs], context.program.graph.shape(node.output)
    match node.op:
        case "transpose_conv":
            kernel, bias = _weights(context, node)
            return [context.plain(node, "shape", shape), kernel, *inputs, bias]
        case "conv" | "depthwise" | "dense":
            return [*inputs, *_weights(context, node)]
        case "mean" | "transpose":
            return [*inputs, context.plain(node, "axes", node.axes)]
        case "reshape":
            return [*inputs, context.plain(node, "shape", shape)]
        case "resize":
            return [*inputs, context.plain(node, "size", shape[1:3])]
        case "pad":
            value = [context.number(node, "value", node.alpha)] if node.alpha else []
            return [*inputs, context.plain(node, "pads", node.spans), *value]
        case "slice":
            begins, strides = zip(*node.spans, strict=True)
            ends = [b + n * s for b, n, s in zip(begins, shape, strides, strict=True)]
            columns = {"begin": begins, "end": ends, "strides": strides}
            return [*inputs, *(context.plain(node, what, values) for what, values in columns.items())]
    return inputs


def _fields(program: Program, node: Node) -> dict[str, Any]:
    """The options of a node's operator, by their names in TFLite's schema."""
    shape, fields = program.graph.shape(node.output), dict[str, Any]()
    if node.op in ACTIVATED:
        fields["fusedActivationFunction"] = getattr(schema().ActivationFunctionType, node.activation.upper())
    elif node.activation != "none":
        raise ValueError(f"{node.output!r}: {node.op} has no fused {node.activation} in TFLite; use a clamp")
    if sums_in_int32(program, node):
        fields["quantizedBiasType"] = schema().TensorType.INT32
    if node.op in ("conv", "depthwise", "transpose_conv", "avg_pool", "max_pool"):
        fields["padding"] = getattr(schema().Padding, node.padding)
        fields |= {"strideH": node.strides[0], "strideW": node.strides[1]}
    if node.op in ("conv", "depthwise"):
        fields |= {"dilationHFactor": node.dilation[0], "dilationWFactor": node.dilation[1]}
    match node.op:
        case "depthwise":
            fields["depthMultiplier"] = shape[-1] // program.graph.shape(node.inputs[0])[-1]
        case "avg_pool" | "max_pool":
            fields |= {"filterHeight": node.window[0], "filterWidth": node.window[1]}
        case "dense":
            fields["keepNumDims"] = len(shape) != 2
        case "add" | "sub":
            fields["potScaleInt16"] = False
        case "mean":
            fields["keepDims"] = len(shape) == len(program.graph.shape(node.inputs[0]))
        case "concat":
            fields["axis"] = node.axis
        case "reshape":
            fields["newShape"] = np.asarray(shape, np.int32)
        case "softmax":
            fields["beta"] = node.alpha
        case "leaky_relu":
            fields["alpha"] = node.alpha
        case "slice":
            before_0 = [b + n * s < 0 for n, (b, s) in zip(shape, node.spans, strict=True)]
            fields["endMask"] = sum(open_ended << axis for axis, open_ended in enumerate(before_0))
        case "resize":
            where = node.mode.partition("/")[2]
            fields |= {"alignCorners": where == "align_corners", "halfPixelCenters": where == "half_pixel"}
        case "depth_to_space":
            if node.window[0] != node.window[1]:
                raise ValueError(f"{node.output!r}: DEPTH_TO_SPACE has square blocks, not {node.window}")
            fields["blockSize"] = node.window[0]
    return fields


def _write_bounds(context: _Context, node: Node) -> None:
    """A clamp to bounds that are no activation: MAXIMUM and MINIMUM with constants, in float only."""
    low, high = node.bounds or (-inf, inf)
    if node.output in context.program.scales:
        known = ", ".join(CLAMPS.values())
        raise ValueError(f"{node.output!r} clamps to {node.bounds}; in integers TFLite has only {known}")
    writer, shape = context.writer, context.program.graph.shape(node.output)
    source, out = context.place[node.inputs[0]], context.place[node.output]
    if low > -inf and high < inf:
        middle = writer.tensor(f"{node.output}/low", shape, np.float32)
        writer.operator("MAXIMUM", 1, [source, context.number(node, "min", low)], middle, None, {})
        source, low = middle, -inf
    code, bound = ("MINIMUM", high) if high < inf else ("MAXIMUM", low)
    writer.operator(code, 1, [source, context.number(node, "bound", bound)], out, None, {})


def _add_tensor(context: _Context, name: str, constant: Node | None) -> int:
    program, data = context.program, None
    if constant is not None and name in program.scales:
        data = _integers(program, constant).kernel.reshape(constant.kernel_shape)
    elif constant is not None:
        data = context.weights.kernel(constant)
    affine, dtype = program.scales.get(name), np.dtype(program.dtype(name)).type
    scale, zero = (None, 0) if affine is None else (affine.scale, affine.zero_point)
    return context.writer.tensor(name, program.graph.shape(name), dtype, scale, zero, data)


def _float_weights(program: Program) -> Weights:
    graph = program.graph
    nodes = tuple(n for n in graph.nodes if n.output not in program.scales)
    return weights_of(replace(graph, nodes=nodes), program.params)


def write(program: Program, metadata: Mapping[str, str] | None = None) -> bytes:
    """The program as the bytes of a .tflite file; tensors carry the graph's names, constants become data.

    metadata: texts kept in the file (`read_metadata`). The same arguments give the same bytes.
    ValueError, naming the tensor, for a graph that is not well formed, weights that are missing or do not fit,
    a node between two types (only `quantize` converts), and what TFLite has no operator or LiteRT no kernel
    for; ModuleNotFoundError without ai-edge-litert and flatbuffers.
    """
    graph: Graph = program.graph
    check(graph)
    context = _Context(program, _float_weights(program), Writer(f"graph {graph.hash[:16]}"), {})
    constants = {n.output: n for n in graph.nodes if n.op == "constant"}
    for tensor in graph.tensors:
        context.place[tensor.name] = _add_tensor(context, tensor.name, constants.get(tensor.name))
    for node in graph.nodes:
        if node.op == "constant":
            continue
        if node.op == "clamp" and node.bounds not in CLAMPS:
            _write_bounds(context, node)
            continue
        code, version = operator_code(program, node), operator_version(program, node)
        operands, out = _operands(context, node), context.place[node.output]
        context.writer.operator(code, version, operands, out, operator_options(code), _fields(program, node))
    ends = [context.place[i] for i in graph.inputs], [context.place[o] for o in graph.outputs]
    return context.writer.finish(*ends, metadata or {})
