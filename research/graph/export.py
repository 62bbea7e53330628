"""Writes a fused graph as an int8 .tflite file, then reads the file back and holds it against the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from research.graph.inspection import LayerFacts, inspect, is_two_of_four
from research.graph.integer import Affine, IntegerWeights, correct_bias, quantise_weights, tensor_scales
from research.graph.ir import WEIGHTED, Graph, Node, check
from research.graph.rewrite import activation_of
from research.graph.tflite import Writer, schema
from research.graph.weights import Params, Weights, weights_of


class _Context(NamedTuple):
    graph: Graph
    weights: Weights
    scales: Mapping[str, Affine]
    means: Mapping[str, np.ndarray]
    writer: Writer
    place: dict[str, int]


def file_layout(op: str, kernel: np.ndarray) -> np.ndarray:
    """A kernel as TFLite stores it: conv [Cout, kh, kw, Cin], depthwise [1, kh, kw, C], dense [out, in]."""
    if op == "conv":
        return kernel.transpose(3, 0, 1, 2)
    return kernel.transpose(2, 0, 1, 3) if op == "depthwise" else kernel.T


def integer_weights(
    graph: Graph, node: Node, weights: Weights, scales: Mapping[str, Affine], means: Mapping[str, np.ndarray]
) -> IntegerWeights:
    """Integers of one conv, depthwise or dense; the bias is corrected where the input's mean is given."""
    kernel, source = weights.kernel(node), node.inputs[0]
    bias = np.zeros(kernel.shape[-1], np.float32) if node.bias is None else weights.bias(node)
    if source in means:
        bias = correct_bias(kernel, bias, scales[source].scale, np.asarray(means[source], np.float32))
    return quantise_weights(kernel, bias, scales[source].scale)


def _activation(name: str) -> int:
    return int(getattr(schema().ActivationFunctionType, name.upper()))


def _window(node: Node) -> dict[str, Any]:
    padding = getattr(schema().Padding, node.padding)
    return {"padding": padding, "strideH": node.strides[0], "strideW": node.strides[1]}


def _write_layer(context: _Context, node: Node) -> None:
    writer = context.writer
    integers = integer_weights(context.graph, node, context.weights, context.scales, context.means)
    data = file_layout(node.op, integers.kernel)
    axis = 3 if node.op == "depthwise" else 0
    kernel = writer.tensor(str(node.kernel), data.shape, np.int8, integers.scale, 0, data, axis)
    scale = integers.scale * np.float32(context.scales[node.inputs[0]].scale)
    bias = writer.tensor(
        node.bias or f"{node.output}/bias", integers.bias.shape, np.int32, scale, 0, integers.bias
    )
    operands, out = (context.place[node.inputs[0]], kernel, bias), context.place[node.output]
    fields: dict[str, Any] = {"fusedActivationFunction": _activation(node.activation)}
    if node.op == "dense":
        writer.operator("FULLY_CONNECTED", 12, operands, out, "FullyConnectedOptions", fields)
        return
    fields |= _window(node) | {"dilationHFactor": node.dilation[0], "dilationWFactor": node.dilation[1]}
    if node.op == "conv":
        writer.operator("CONV_2D", 3, operands, out, "Conv2DOptions", fields)
    else:
        fields["depthMultiplier"] = 1
        writer.operator("DEPTHWISE_CONV_2D", 3, operands, out, "DepthwiseConv2DOptions", fields)


def _write_plain(context: _Context, node: Node) -> None:
    writer, shape = context.writer, context.graph.shape(node.output)
    inputs, out = [context.place[i] for i in node.inputs], context.place[node.output]
    fused = {"fusedActivationFunction": _activation(node.activation)}
    if node.op == "add":
        writer.operator("ADD", 2, inputs, out, "AddOptions", fused)
    elif node.op == "mean":
        axes = writer.tensor(f"{node.output}/axes", (2,), np.int32, data=np.array([1, 2]))
        writer.operator("MEAN", 2, [*inputs, axes], out, "ReducerOptions", {"keepDims": len(shape) == 4})
    elif node.op in ("avg_pool", "max_pool"):
        code = "AVERAGE_POOL_2D" if node.op == "avg_pool" else "MAX_POOL_2D"
        fields = fused | _window(node) | {"filterHeight": node.window[0], "filterWidth": node.window[1]}
        writer.operator(code, 2, inputs, out, "Pool2DOptions", fields)
    elif node.op == "concat":
        writer.operator("CONCATENATION", 2, inputs, out, "ConcatenationOptions", fused | {"axis": node.axis})
    elif node.op == "reshape":
        target = np.array(shape, np.int32)
        wanted = writer.tensor(f"{node.output}/shape", target.shape, np.int32, data=target)
        writer.operator("RESHAPE", 1, [*inputs, wanted], out, "ReshapeOptions", {"newShape": target})
    elif node.op == "clamp" and activation_of(node.bounds) in ("relu", "relu6"):
        writer.operator(str(activation_of(node.bounds)).upper(), 2, inputs, out, None, {})
    elif node.op == "clamp":
        raise ValueError(f"{node.output!r} clamps to {node.bounds}; on the device only relu and relu6 exist")
    else:
        raise ValueError(
            f"{node.output!r} is a bias on its own; add it right after its conv or dense, before any site, "
            "and fuse the graph"
        )


def _verify(context: _Context, facts: tuple[LayerFacts, ...]) -> None:
    """ValueError unless the file holds every layer with its shapes, int8 weights and 2:4 pattern."""
    by_name = {fact.name: fact for fact in facts}
    for node in context.graph.nodes:
        fact = by_name.get(node.output)
        if fact is None or fact.output_shape != context.graph.shape(node.output) or fact.dtype != "int8":
            raise ValueError(f"the written file lost {node.output!r}: {fact}")
        if node.op not in WEIGHTED:
            continue
        kernel = file_layout(node.op, context.weights.kernel(node))
        if fact.kernel_shape != kernel.shape or fact.weight_bytes != kernel.size or fact.weight_min < -127:
            raise ValueError(f"the written file changed the weights of {node.output!r}: {fact}")
        if is_two_of_four(node.op, kernel) and not fact.two_of_four:
            raise ValueError(f"the written file lost the 2:4 pattern of {node.output!r}: {fact}")


def export(
    graph: Graph,
    params: Params,
    ranges: Mapping[str, tuple[float, float]],
    metadata: Mapping[str, str] | None = None,
    means: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """The fused graph as the bytes of an int8 .tflite file; the same arguments give the same bytes.

    params: float weights, nested or by "/"-joined path. ranges: {tensor name: (low, high)} real values;
    tensors that share a scale (reshape, pools, concat) need one of them, and the scale covers all that are
    given. metadata: texts kept in the file (`read_metadata`). means: {tensor name: mean of each channel},
    turns on bias correction for the layers that read these tensors.
    Input and output are int8 with the scales of their ranges; tensors carry the graph's names.
    ValueError, naming the tensor, for a missing or bad range, a missing weight or an operation that has no
    TFLite form; ModuleNotFoundError without ai-edge-litert.
    """
    check(graph)
    strangers = sorted(set(means or {}) - {t.name for t in graph.tensors})
    if strangers:
        raise ValueError(f"means are given for {', '.join(map(repr, strangers))}, not a tensor of the graph")
    scales, writer = tensor_scales(graph, ranges), Writer(f"graph {graph.hash[:16]}")
    index = {
        t.name: writer.tensor(t.name, t.shape, np.int8, scales[t.name].scale, scales[t.name].zero_point)
        for t in graph.tensors
    }
    context = _Context(graph, weights_of(graph, params), scales, means or {}, writer, index)
    for node in graph.nodes:
        (_write_layer if node.op in WEIGHTED else _write_plain)(context, node)
    model = writer.finish([index[i] for i in graph.inputs], [index[o] for o in graph.outputs], metadata or {})
    _verify(context, inspect(model))
    return model
