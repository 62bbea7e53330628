"""Any .tflite file of the vocabulary as a program: float, int8, int16x8 and mixtures, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from research.graph.flat import unpack
from research.graph.ir import Graph, check
from research.graph.program import Program
from research.graph.read_operators import apply
from research.graph.reading import Known, Reading, Step


def unique(names: Sequence[str]) -> list[str]:
    """The names, with those that are empty or there already made unique by a number after them."""
    known, found = set(names), list[str]()
    taken: dict[str, int] = {}
    for name in names:
        count = taken.get(name, 0)
        made = name
        while not made or (count and made in known):
            made, count = f"{name or 'tensor'}/{count}", count + 1
        taken[name] = max(count, 1)
        known.add(made)
        found.append(made)
    return found


def read(model: bytes) -> Program:
    """The network of a .tflite file as a program that means the same; tensors keep the file's names.

    Names that are empty or repeated get a number. Weights are turned to the layouts of `ir`, at the path of their
    tensor's name; those stored sparse, in float16 or as integers before a DEQUANTIZE become float32. Inputs and
    outputs are sites, all else may be fused again. Values are the file's own: weights are views of its bytes.

    ValueError, one line, naming operator, output tensor and index, for an operator or a type that is not read
    (an old uint8 network, dynamic range, float16 activations), and as `flat.unpack` for a damaged file.
    """
    parsed = unpack(model)
    names = unique([t.name for t in parsed.tensors])
    reading = Reading(parsed, names, set(names))
    for index, tensor in enumerate(parsed.tensors):
        if tensor.data is not None:
            reading.values[index] = Known(names[index], tensor.data, tensor.quantisation)
    for index in parsed.inputs:
        reading.add_input(index)
    for number, operator in enumerate(parsed.operators):
        try:
            apply(Step(reading, operator))
        except ValueError as error:
            what = f"operator {number} of the .tflite file ({operator.code} makes {names[operator.outputs[0]]!r})"
            raise ValueError(f"{what} cannot be read: {error}") from None
    for index in parsed.outputs:
        if index not in reading.values:
            raise ValueError(f"output {names[index]!r} of the .tflite file is {parsed.tensors[index].dtype}")
    inputs = tuple(names[i] for i in parsed.inputs)
    outputs = tuple(reading.tensor(reading.values[i]) for i in parsed.outputs)
    ends = {*inputs, *outputs}
    tensors = tuple(replace(t, site=t.name in ends) for t in reading.tensors.values())
    graph = Graph(tuple(reading.nodes), tensors, inputs, outputs)
    check(graph)
    return Program(graph, reading.params, reading.scales, reading.integers)
