"""A graph as a .tflite file, int8 or int16x8 by layer or float; the file is read back and held against the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from research.graph.inspection import LayerFacts, digest, inspect, is_two_of_four
from research.graph.integer import precisions, quantise
from research.graph.ir import WEIGHTED, Graph, Node
from research.graph.program import Program
from research.graph.weights import Params, Weights, weights_of
from research.graph.write import file_layout, write


def _differences(
    program: Program, node: Node, fact: LayerFacts, dtype: str, weights: Weights
) -> Iterator[str]:
    """What the file holds of one layer, in words, wherever it is not what was asked for."""
    if fact.dtype != dtype:
        yield f"it is {fact.dtype}, asked for {dtype}"
    if fact.output_shape != program.graph.shape(node.output):
        yield f"its shape is {fact.output_shape}"
    if node.op not in WEIGHTED:
        return
    real = file_layout(node.op, weights.kernel(node))
    integers = program.integers.get(node.output)
    kernel = real if integers is None else file_layout(node.op, integers.kernel.reshape(node.kernel_shape))
    if (fact.kernel_shape, fact.kernel_sha256) != (kernel.shape, digest(kernel)):
        yield f"its kernel changed, {fact.kernel_shape}"
    if integers is not None and not -127 <= fact.weight_min <= fact.weight_max <= 127:
        yield f"its weights reach from {fact.weight_min} to {fact.weight_max}, beyond 127"
    if is_two_of_four(node.op, real) and not fact.two_of_four:
        yield "its 2:4 pattern is gone"


def verify(program: Program, model: bytes, weights: Weights, asked: Mapping[str, str] | None = None) -> None:
    """ValueError, naming the layer, unless the bytes hold every layer of the program as it was asked for.

    Compared are number format, shape and every byte of the kernel; integer weights stay in [-127, 127].
    weights: the float ones, whose 2:4 patterns must have survived. asked: {output of a node: "int8" or "int16"}
    where the format must be one that the program does not decide.
    """
    facts = {fact.name: fact for fact in inspect(model)}
    for node in program.graph.nodes:
        if node.op == "constant":
            continue
        dtype = (asked or {}).get(node.output) or program.dtype(node.output)
        found = facts.get(node.output)
        lost = ["it is gone"] if found is None else _differences(program, node, found, dtype, weights)
        for difference in lost:
            raise ValueError(f"the written file does not hold {node.output!r} ({node.op}): {difference}")


def export(
    graph: Graph,
    params: Params,
    ranges: Mapping[str, tuple[float, float]],
    metadata: Mapping[str, str] | None = None,
    means: Mapping[str, np.ndarray] | None = None,
    bits: Mapping[str, int] | None = None,
) -> bytes:
    """The graph, fused or not, as the bytes of an integer .tflite file; same arguments, same bytes.

    params: float weights, nested or by "/"-joined path. ranges, means, bits: `integer.quantise`, which makes
    the integers. metadata: texts kept in the file (`read_metadata`).
    Input and output are integers with the scales of their ranges; tensors carry the graph's names.
    ValueError, naming the tensor, as `quantise`, `write` and `verify`; ModuleNotFoundError without
    ai-edge-litert.
    """
    program = quantise(graph, params, ranges, bits=bits, means=means)
    model = write(program, metadata)
    verify(program, model, weights_of(graph, params), precisions(graph, bits or {}))
    return model


def export_float(graph: Graph, params: Params, metadata: Mapping[str, str] | None = None) -> bytes:
    """The graph, fused or not, as the bytes of a float32 .tflite file. Arguments and errors as `export`."""
    weights = weights_of(graph, params)
    program = Program(graph, weights.arrays)
    model = write(program, metadata)
    verify(program, model, weights)
    return model
