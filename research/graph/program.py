"""A graph with its numbers: float weights, and the integers of the tensors and layers that are quantised.

One type stands for a float network, an int8 or int16x8 one and any mixture: a tensor with an entry in
`scales` is an integer tensor, every other one is float32. `quantise` makes the integers, `write` and `read`
carry them to and from a .tflite file, `exact` and `oracle` run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from research.graph.ir import Graph

DType = Literal["int8", "uint8", "int16"]
LIMITS: Mapping[str, tuple[int, int]] = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


class Affine(NamedTuple):
    """Quantisation of a tensor: real = scale * (integer - zero_point). `scale` is a float32 number."""

    scale: float
    zero_point: int
    dtype: DType = "int8"

    def quantise(self, values: np.ndarray) -> np.ndarray:
        """Nearest integer of float values, halves away from zero as LiteRT's own Quantize, saturating."""
        scaled = (np.asarray(values, np.float32) / np.float32(self.scale)).astype(np.float64)
        rounded = np.trunc(scaled + np.copysign(0.5, scaled)) + self.zero_point
        return np.clip(rounded, *LIMITS[self.dtype]).astype(self.dtype)

    def real(self, integers: np.ndarray) -> np.ndarray:
        """float32 values that the integers stand for."""
        return (integers.astype(np.float32) - self.zero_point) * np.float32(self.scale)


class IntegerWeights(NamedTuple):
    """The integers of one node.

    kernel: int8 in [-127, 127] laid out as `kernel_shape` says (of a constant: its integers, in the dtype of
    its output's `Affine`). scale: float32, [1] for the whole kernel or one an output channel. bias: int32, or
    int64 where the activations are int16, [C] in units of input scale * scale; empty for a constant.
    """

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Program:
    """A graph and every number it needs.

    params: float32 weights by path (as `Node.kernel` and `Node.bias` name them), of the nodes that compute in
    float. scales: of the integer tensors, by name. integers: by the name of the node's output, for every conv,
    depthwise, transpose_conv, dense and constant whose output is an integer tensor.
    """

    graph: Graph
    params: Mapping[str, np.ndarray]
    scales: Mapping[str, Affine] = field(default_factory=dict)
    integers: Mapping[str, IntegerWeights] = field(default_factory=dict)

    def dtype(self, tensor: str) -> str:
        """ "float32", "int8", "uint8" or "int16". KeyError for a name that is no tensor of the graph."""
        self.graph.tensor(tensor)
        return self.scales[tensor].dtype if tensor in self.scales else "float32"
