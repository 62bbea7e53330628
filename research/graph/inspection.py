"""What a .tflite file really holds, layer by layer, read from its bytes alone."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from research.graph.flat import unpack
from research.graph.ir import Shape

OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


class LayerFacts(NamedTuple):
    """One operator of a file. Layers without stored weights have kernel_shape () and zeros in the weight fields.

    name: its output tensor. op: TFLite's name. dtype: of the output (int16 for an int16x8 layer).
    kernel_shape: as stored, (transposed) conv [Cout, kh, kw, Cin], depthwise [1, kh, kw, C], dense [out, in];
    kernel_sha256: `digest` of those bytes. min_zeros_of_4: fewest zeros in any group of 4 consecutive input
    channels at one output channel and kernel position, missing channels of the last group counted as zeros
    (-1 for layers without such groups). two_of_four: at least 2 zeros in every group and no -128, the
    condition of Ethos-U85's sparse format.
    """

    name: str
    op: str
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    dtype: str
    kernel_shape: Shape = ()
    weight_bytes: int = 0
    weight_zeros: int = 0
    weight_min: float = 0
    weight_max: float = 0
    min_zeros_of_4: int = -1
    two_of_four: bool = False
    kernel_sha256: str = ""


def digest(kernel: np.ndarray) -> str:
    """sha256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(kernel).tobytes()).hexdigest()


def min_zeros_of_four(kernel: np.ndarray) -> int:
    """Fewest zeros in any 4 consecutive entries of the last axis, zero-padded to a multiple of 4."""
    spare = -kernel.shape[-1] % 4
    padded = np.pad(kernel, [(0, 0)] * (kernel.ndim - 1) + [(0, spare)])
    return int((padded.reshape(-1, 4) == 0).sum(1).min())


def is_two_of_four(op: str, kernel: np.ndarray) -> bool:
    """True for a conv or dense kernel, input channels last, with at least 2 zeros in every group of 4."""
    return op in ("conv", "dense") and min_zeros_of_four(kernel) >= 2


def inspect(model: bytes) -> tuple[LayerFacts, ...]:
    """The operators of a .tflite file in order. ValueError where the bytes are no sound TFLite model (`unpack`)."""
    tensors, operators, *_ = unpack(model)
    found = []
    for operator in operators:
        out, inputs = tensors[operator.outputs[0]], [tensors[i] for i in operator.inputs if i >= 0]
        dynamic = tuple(t.shape for t in inputs if t.data is None)
        facts = LayerFacts(out.name, operator.code, dynamic, out.shape, out.dtype)
        kernel = inputs[1].data if operator.code in OPS and len(inputs) > 1 else None
        if kernel is not None:
            zeros = -1 if operator.code == "DEPTHWISE_CONV_2D" else min_zeros_of_four(kernel)
            facts = facts._replace(
                kernel_shape=kernel.shape, weight_bytes=kernel.nbytes, weight_zeros=int((kernel == 0).sum()),
                weight_min=kernel.min().item(), weight_max=kernel.max().item(), kernel_sha256=digest(kernel),
                min_zeros_of_4=zeros, two_of_four=zeros >= 2 and bool(kernel.min() >= -127),
            )  # fmt: skip
        found.append(facts)
    return tuple(found)
