"""What the exact planner knows of an Ethos-U beside its `Chip`: RAMs, microblocks and rates, found by its size.

Sources: arch85, `s_EthosU85Configs`, `s_EthosU85PerfInfo`, `SetupOfmUBlockToOpTable`, `SetupOfmUBlockToIfmAuTable`
in `ethosu/regor/architecture/ethosu85/ethos_u85.cpp`, and arch55, `s_EthosU55Configs`, `s_EthosU55PerfInfo` in
`.../ethosu55/ethos_u55.cpp` of ethos-u-vela 5.2.0 (Apache-2.0).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar

from research.npu.chip import Chip
from research.npu.operation import Operation, Size

Unit = Literal["conv", "depthwise", "pool", "reduce_sum", "elementwise", "resize", "dma", "compound"]

_UNITS: Mapping[str, Unit] = {
    "Conv2D": "conv", "FullyConnected": "conv", "MatMul": "conv", "DepthwiseConv2D": "depthwise",
    "ReduceSum": "reduce_sum", "Resize": "resize", "Gather": "dma", "Scatter": "dma",
    **dict.fromkeys(("MaxPool", "AvgPool", "SumPool", "NullPool", "QuantizedAvgPool", "QuantizedMaxPool"), "pool"),
    **dict.fromkeys(("ArgMax", "ReduceMin", "ReduceMax", "ReduceAny", "ReduceAll"), "pool"),
}  # fmt: skip
UNARY = frozenset({"Abs", "Gelu", "Elu", "LeakyRelu", "CLZ", "LogicalNot", "Not", "Neg"})
BINARY = frozenset({
    "Add", "Sub", "Mul", "Minimum", "Maximum", "SHL", "SHR", "Div", "LogicalAnd", "LogicalOr", "LogicalXor", "Xor",
    "And", "Or", "Asr", "Equal", "Greater", "GreaterEqual", "NotEqual", "AndNot",
})  # fmt: skip


class Tables85(NamedTuple):
    """Of an Ethos-U85. Microblocks are those of 8, 16 and 32-bit inputs; cycles are those an element."""

    ifm_ram: int  # bytes
    acc_ram: int
    output_ram: int
    chaining_ram: int
    channel_requests: tuple[int, int, int, int, int, int]  # in flight, of each `CHANNELS`
    wide: tuple[Size, ...]  # microblocks of convolutions; 16 bit: of all
    shallow: tuple[Size, ...]  # of depthwise layers and pools at 8 bit
    pointwise: tuple[Size, ...]  # beside `wide`, of 16-bit 1x1 convolutions that go depth first
    order: tuple[Size, ...]  # in which they are tried
    units: Mapping[Size, tuple[Size, Size, Size]]  # of the input buffer's allocation, by bits of depth
    output_cycles: tuple[float, float, float, float, float, float]
    activation_cycles: tuple[float, float]
    resize_low: tuple[float, float]  # 8 and 16 bit
    resize_high: tuple[float, float]  # of a ratio of at least macs / 512


class Tables55(NamedTuple):
    """Of an Ethos-U55: banks of 1 KiB and the granules that they are taken in."""

    banks: int
    ifm_granules: Mapping[int, int]  # by bits of the input
    element_granules: Mapping[int, int]  # the same, of an element-wise operation
    acc_granules: Mapping[int, int]  # by bits of an accumulator
    micro: Size
    output_cycles: tuple[float, ...]
    activation_cycles: tuple[float, float, float]


_Tables = TypeVar("_Tables")
CHANNELS = ("copy", "stream", "weights", "fast_weights", "ifm", "scales")
_128 = (1, 2, 8), (1, 1, 16)
_256 = (1, 2, 16), (1, 4, 8), (2, 2, 8)
_512 = (2, 2, 16), (1, 4, 16)
_EIGHTS = (2, 2, 1), (1, 2, 2), (1, 1, 4)
_LINES = (1, 4, 1), (1, 2, 2), (1, 1, 4)
_PAIRS = (1, 2, 1), (1, 1, 2), (1, 1, 2)

_U85: Mapping[int, Tables85] = {
    128: Tables85(
        8192, 8192, 2048, 768, (64, 64, 128, 128, 104, 16), _128[:1], _128[1:], _128[1:], _128,
        {(1, 2, 8): _PAIRS, (1, 1, 16): _PAIRS},
        (0.5, 0.5, 0.5, 1.0, 1.0, 1.0), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0),
    ),
    256: Tables85(
        16384, 16384, 2048, 1536, (104, 104, 128, 128, 128, 16), _256[1:], _256[:1], _256[:1], _256,
        {(2, 2, 8): _EIGHTS, (1, 2, 16): _EIGHTS, (1, 4, 8): _LINES},
        (0.25, 0.25, 0.25, 0.5, 0.5, 0.5), (0.25, 0.5), (0.25, 0.5), (0.25, 0.5),
    ),
    512: Tables85(
        16384, 32768, 4096, 3072, (128, 128, 256, 256, 128, 16), _512, _512, (), _512,
        {(2, 2, 16): _EIGHTS, (1, 4, 16): _LINES},
        (0.125, 0.125, 0.25, 0.5, 0.25, 0.25), (0.125, 0.25), (0.125, 0.25), (0.125, 0.25),
    ),
}  # fmt: skip
_U55: Mapping[int, Tables55] = {
    128: Tables55(
        24, {8: 4, 16: 4, 32: 4}, {8: 4, 16: 4, 32: 4}, {32: 8, 40: 12}, (1, 2, 8),
        (0.75, 1.25, 0.75, 0.75, 1.0, 1.5, 0.25, 0.5), (1.0, 0.5, 0.0),
    ),
    256: Tables55(
        48, {8: 8, 16: 8, 32: 8}, {8: 8, 16: 8, 32: 8}, {32: 16, 40: 20}, (2, 2, 8),
        (0.625, 1.125, 0.5, 0.375, 0.5, 0.75, 0.125, 0.25), (1.0, 0.25, 0.0),
    ),
}  # fmt: skip


def tables85(chip: Chip) -> Tables85:
    """The tables of an Ethos-U85. ValueError, one line, for a size that is not described."""
    return _of(_U85, chip)


def tables55(chip: Chip) -> Tables55:
    """The tables of an Ethos-U55. ValueError, one line, for a size that is not described."""
    return _of(_U55, chip)


def _of(known: Mapping[int, _Tables], chip: Chip) -> _Tables:
    if chip.macs_per_cycle not in known:
        raise ValueError(
            f"no tables of an {chip.name} with {chip.macs_per_cycle} MACs a cycle: there are {list(known)}"
        )
    return known[chip.macs_per_cycle]


def unit_of(kind: str, chip: Chip) -> Unit:
    """Which part of the NPU runs an operator (GetHWOp)."""
    if chip.family == "u55" and kind in ("MatMul", "Transpose"):
        return "compound"
    if kind in UNARY or kind in BINARY:
        return "elementwise"
    return _UNITS.get(kind, "pool")  # an activation or a copy runs as an average pool of one pixel


def wide_accumulators(op: Operation, chip: Chip) -> bool:
    """Are the accumulators of a 16-bit operation wide: 40 bit on Ethos-U55, 48 on Ethos-U85?"""
    unit = unit_of(op.kind, chip)
    return op.ifm.bits == 16 and op.scaled and (unit != "pool") and (unit != "reduce_sum" or chip.family == "u55")
