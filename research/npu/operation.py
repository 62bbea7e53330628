"""One scheduled operation of an NPU, as the exact planner prices it, and what is said of it.

The planner is a reading of ethos-u-vela 5.2.0 in plain Python. What is known of one operation on one chip:

    exact_block.find_block(op, chip, *, sparse=False) -> Block | None
    exact_cycles.op_cycles(op, block, chip, *, sparse=False, staged=False, area=None, depth=None,
                           starts=True, ends=True) -> Cycles
    exact_memory.elements(op, block, chip, *, area=None, depth=None) -> Elements
    exact_memory.moved_bytes(op, block, chip, elements) -> Elements           (bursts counted, of bytes)
    exact_memory.access_cycles(op, block, chip, encoded=None, *, staged=False, first_bytes=0)
                           -> {"sram": Access, "flash": Access}
    exact_memory.copy_cycles(size, chip, *, source="flash", target="sram") -> int          (a DMA)
    exact_memory.read_cycles(size, chip, memory, channel) -> int
    exact_weights.encoded(op, block, chip, slices=(0, depth), *, sparse=False, fast=False) -> Encoded
    exact_weights.decode_cycles(encoded, chip) -> int
    exact_weights.best_format(op, chip, *, sparsity=True) -> Choice
    exact_performance.full_performance(op, block, chip, encoded=None, *, staged, prebuffered, transfer_cycles,
                           slack_before, slack, lut_bytes) -> Performance              (what the compiler reports)
    exact_performance.sliced_performance(op, block, chip, encoded=None, *, staged, slack, double, ifm_from)
                           -> Sliced                                       (what its scheduler weighs)
    exact_buffers.buffered: depth slices and weight buffers of a schedule
                           (depth slices and weight buffers of an operation, None: read from flash)

Shapes are (rows, columns, channels). Two memories are told apart: "sram" and "flash" (whatever else the chip has).
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

Size = tuple[int, int, int]
Where = Literal["sram", "flash"]
Traversal = Literal["DepthFirst", "PartKernel", "Depthwise"]
ACTIVATIONS = frozenset({
    "Relu", "Relu0To1", "Relu6", "ReluN", "ReluN1To1", "Prelu", "Clamp", "Sigmoid", "Tanh", "LUT",
})  # fmt: skip
FUSED = ACTIVATIONS | {"Transpose", "Reverse"}  # in the pass of the operation before; all else is chained


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """An input or output of an operation; `brick`: laid out in bricks of 16 channels (NHCWB16), else NHWC."""

    shape: Size
    bits: int = 8
    brick: bool = True
    memory: Where = "sram"

    @property
    def elements(self) -> int:
        """Rows x columns x channels."""
        return self.shape[0] * self.shape[1] * self.shape[2]


@dataclasses.dataclass(frozen=True)
class Rider:
    """An operation in the output stage of another one: fused (an activation, a transpose) or chained.

    `other` is a second operand that is not made in the chain (a number is a FeatureMap of one element); `written`
    says whether its own result goes to memory: not where the next rider takes it.
    """

    kind: str  # the compiler's operator: "Add", "LUT", "Relu", "Transpose" ...
    ofm: FeatureMap
    ifm_bits: int = 8
    other: FeatureMap | None = None
    written: bool = True
    half_rate: bool = False  # a transpose of rows and columns, or a reversal of columns
    whole: Size | None = None  # of the tensor, where it writes a part: the compiler counts all of it as written

    @property
    def moved(self) -> FeatureMap:
        """The output as its bytes are counted."""
        return self.ofm if self.whole is None else dataclasses.replace(self.ofm, shape=self.whole)


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights of one operation: int8 `values`, or, where nobody knows them, their number and spread.

    `values` are [kernel rows, kernel columns, in, out]; those of a depthwise layer [rows, columns, 1, channels].
    Compared by identity, so that an operation is a key of a cache.
    """

    values: np.ndarray | None
    shape: tuple[int, int, int, int]
    bytes_per_weight: float = 1.0  # encoded, where there are no values
    pattern: bool = False  # 2:4 holds, where there are no values


@dataclasses.dataclass(frozen=True)
class Operation:
    """One row of the compiler's schedule.

    `kind` is the compiler's operator: "Conv2D", "DepthwiseConv2D", "FullyConnected", "MatMul", "MaxPool",
    "AvgPool", "ReduceSum", "ReduceMax", "Resize", "MemoryCopy", "Add", "Mul", "LUT" ... Kernel, stride and dilation
    are (rows, columns). `ofm` is what the operation itself makes, before `riders`.
    """

    name: str  # of the tensor in the file that it helps to make
    kind: str
    ifm: FeatureMap
    ofm: FeatureMap
    ifm2: FeatureMap | None = None
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    scaled: bool = True  # the compiler's HasScaling: picks wide accumulators for 16 bits
    upscale: Literal["none", "nearest", "zeros"] = "none"  # of the input, on its way in
    scale: tuple[int, int] = (1, 1)  # of a Resize in columns, as a fraction
    transpose: str = "NHWC"  # of the output as it is written
    reverse: str = ""  # "", "H", "W", "C"
    riders: tuple[Rider, ...] = ()
    weights: Weights | None = None
    scratch: Where | None = None  # of a compound operation (MatMul on Ethos-U55)
    written: bool = True  # its own result goes to memory: not where a rider, fused or chained, takes it
    lut: bool = False  # a table is looked up, by the operation or by a rider

    @property
    def stored(self) -> FeatureMap:
        """The output after all that is fused with the operation itself: what is written, or handed on in a chain."""
        made = self.ofm
        for rider in self.riders:
            if rider.kind not in FUSED:
                break
            made = rider.ofm
        return made

    @property
    def alone(self) -> "Operation":
        """The operation that makes `stored` at once, without riders."""
        return self if not self.riders else dataclasses.replace(self, ofm=self.stored, riders=())

    @property
    def depth(self) -> int:
        """Channels of the output."""
        return self.stored.shape[2]


class Block(NamedTuple):
    """The block configuration: what the NPU works on at a time."""

    ofm: Size
    ifm: Size
    micro: Size
    traversal: Traversal
    acc_bits: int  # of an accumulator: 32, 40 (Ethos-U55) or 48
    first: "Block | None" = None  # of the product in a MatMul of Ethos-U55, whose sum has this block


class Cycles(NamedTuple):
    """Cycles of an operation when no memory holds it up: all, then the MAC array, output stage and commands alone."""

    total: int
    mac: int
    output: int
    command: int
    macs: int  # multiply-accumulates that are executed


class Elements(NamedTuple):
    """What an operation moves, in elements or in bytes; `other` and `made` are those of each rider."""

    ifm: int
    ifm2: int
    ofm: int
    scratch: int  # read, and as much written
    refetches: int  # times that the weights are read
    other: tuple[int, ...] = ()
    made: tuple[int, ...] = ()


class Access(NamedTuple):
    """Cycles that one memory needs for an operation, all and by what is moved."""

    total: int
    feature_maps: int
    weights: int
    scales: int


class Encoded(NamedTuple):
    """Weights and scales as they lie in flash, one range a depth slice and stream."""

    slices: tuple[int, ...]  # 0, then the channels that each slice ends at
    ranges: tuple[int, ...]  # bytes of each slice, scales included, aligned to 16
    weight_bytes: int  # all slices
    scale_bytes: int
    source: int  # weights in the order of the hardware, with its padding
    zeros: int
    distinct: int  # values
    first_dma: int  # bytes of the first transfer
    sparse: bool = False
    fast: bool = False

    @property
    def total(self) -> int:
        """Bytes of weights and scales."""
        return self.weight_bytes + self.scale_bytes


class Choice(NamedTuple):
    """The weight format that the compiler takes, with its block; without weights only a block."""

    block: Block | None
    encoded: Encoded | None
    sparse: bool
    fast: bool


AccessOf = Mapping[Where, Access]
