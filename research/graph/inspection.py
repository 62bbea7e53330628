"""What a .tflite file really holds, layer by layer, read from its bytes alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from research.graph.ir import Shape
from research.graph.tflite import parse, schema, text

OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class LayerFacts(NamedTuple):
    """One operator of a file. Layers without weights have kernel_shape () and zeros in the weight fields.

    name: its output tensor. op: TFLite's name. dtype: of the output. kernel_shape: as stored, conv
    [Cout, kh, kw, Cin], depthwise [1, kh, kw, C], dense [out, in]. min_zeros_of_4: fewest zeros in any group
    of 4 consecutive input channels at one output channel and kernel position, missing channels of the last
    group counted as zeros (-1 for layers without such groups).
    two_of_four: at least 2 zeros in every group and no
    -128, the condition of Ethos-U85's sparse format.
    """

    name: str
    op: str
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    dtype: str
    kernel_shape: Shape = ()
    weight_bytes: int = 0
    weight_zeros: int = 0
    weight_min: int = 0
    weight_max: int = 0
    min_zeros_of_4: int = -1
    two_of_four: bool = False


def min_zeros_of_four(kernel: np.ndarray) -> int:
    """Fewest zeros in any 4 consecutive entries of the last axis, zero-padded to a multiple of 4."""
    spare = -kernel.shape[-1] % 4
    padded = np.pad(kernel, [(0, 0)] * (kernel.ndim - 1) + [(0, spare)])
    return int((padded.reshape(-1, 4) == 0).sum(1).min())


def is_two_of_four(op: str, kernel: np.ndarray) -> bool:
    """True for a conv or dense kernel, input channels last, with at least 2 zeros in every group of 4."""
    return op in ("conv", "dense") and min_zeros_of_four(kernel) >= 2


def _enum_name(enumeration: type, value: int) -> str:
    return next(name for name, number in vars(enumeration).items() if number == value)


def _shape(tensor: Any) -> Shape:
    return tuple(int(s) for s in tensor.shape) if tensor.shape is not None else ()


def inspect(model: bytes) -> tuple[LayerFacts, ...]:
    """The operators of a .tflite file in order. ValueError where the bytes are not a TFLite model."""
    parsed = parse(model)
    tensors, found = parsed.subgraphs[0].tensors, []
    for operator in parsed.subgraphs[0].operators:
        op = _enum_name(schema().BuiltinOperator, parsed.operatorCodes[operator.opcodeIndex].builtinCode)
        out = tensors[operator.outputs[0]]
        inputs = [tensors[i] for i in operator.inputs if i >= 0]
        dynamic = tuple(_shape(t) for t in inputs if parsed.buffers[t.buffer].data is None)
        dtype = _enum_name(schema().TensorType, out.type).lower()
        facts = LayerFacts(text(out.name), op, dynamic, _shape(out), dtype)
        if op in OPS:
            stored = np.asarray(parsed.buffers[inputs[1].buffer].data, np.uint8).view(np.int8)
            kernel = stored.reshape(_shape(inputs[1]))
            zeros = -1 if op == "DEPTHWISE_CONV_2D" else min_zeros_of_four(kernel)
            facts = facts._replace(
                kernel_shape=kernel.shape, weight_bytes=kernel.nbytes, weight_zeros=int((kernel == 0).sum()),
                weight_min=int(kernel.min()), weight_max=int(kernel.max()),
                min_zeros_of_4=zeros, two_of_four=zeros >= 2 and int(kernel.min()) >= -127,
            )  # fmt: skip
        found.append(facts)
    return tuple(found)
