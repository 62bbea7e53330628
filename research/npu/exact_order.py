"""The order in which the hardware reads weights, with the zeros that fill its blocks, as streams of int8.

After `EthosU85WeightOrdering` of `ethos_u85_weight_encoder.cpp` and `EthosUWeightOrdering` of
`ethos_u55_weight_encoder.cpp`, ethos-u-vela 5.2.0. Blocks follow one another in order here, where the hardware goes
through input channels to and fro: that changes no run of zeros inside a block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from research.npu.chip import Chip
from research.npu.exact_geometry import SUBKERNEL, up
from research.npu.operation import Block, Operation

_INTERLEAVE = 4  # output channels in a row before the next core's turn
_ROUND = 10  # kernel positions that are read together, of a depthwise layer


class _Layout(NamedTuple):
    """How one block is walked through; channels, but for `round` (kernel positions)."""

    out_block: int
    out_micro: int
    in_block: int
    in_micro: int  # walked through before the next kernel position
    step: int  # input channels in a row
    round: int
    tail: int  # zeros after every `round` kernel positions, of a depthwise layer
    streams: int
    clips: bool  # the last input block ends with its last whole `in_micro`


def _layout(op: Operation, block: Block, chip: Chip, sparse: bool) -> _Layout:
    wide, part, depth = op.ifm.bits == 16, block.traversal == "PartKernel", block.ofm[2]
    apart = block.traversal == "Depthwise"
    if chip.family == "u55":
        in_block = 16 if part or wide else 32
        if apart:
            return _Layout(depth, block.micro[2], 1, 1, 1, 4, 0, 1, False)
        positions = (2 if wide else 4) if part else 1
        return _Layout(depth, block.micro[2], in_block, 8 if part else in_block, 8, positions, 0, 1, part)
    if apart:
        tail = 0 if not wide and chip.macs_per_cycle <= 256 else 2 if chip.macs_per_cycle <= 512 else 6
        return _Layout(depth, block.micro[2], 1, 1, 1, _ROUND, tail, chip.cores, False)
    in_block = block.ifm[2]
    positions = (10 if wide or sparse else 5) if part else 1
    in_micro = 8 if part and wide and not sparse else in_block
    step = 16 if sparse else 8
    return _Layout(depth, block.micro[2], in_block, in_micro, step, positions, 0, chip.cores, True)


def _windows(op: Operation, block: Block, chip: Chip) -> Iterator[list[tuple[int, int]]]:
    """Kernel positions of each part of at most 8 x 8, in the order that they are read in."""
    rows, columns = op.kernel
    high, wide = (SUBKERNEL // d for d in op.dilation)
    strides = op.stride if chip.family == "u85" and block.traversal != "DepthFirst" else (1, 1)
    for x in range(0, columns, wide):
        for y in range(0, rows, high):
            h, w = min(rows - y, high), min(columns - x, wide)
            if chip.family == "u55":
                yield [(y + i, x + j) for i in range(h) for j in range(w)]
                continue
            found = []
            for sy in range(strides[0]):
                for sx in range(strides[1]):
                    across = range(sx, w, strides[1])
                    for n, i in enumerate(range(sy, h, strides[0])):
                        found += [(y + i, x + j) for j in (across if n % 2 == 0 else reversed(across))]
            yield found


def source_length(op: Operation, block: Block, chip: Chip, channels: int, *, sparse: bool) -> int:
    """Weights of so many output channels with the zeros that fill blocks, all streams."""
    way = _layout(op, block, chip, sparse)
    outs = channels // way.out_block * up(way.out_block, way.out_micro) + up(channels % way.out_block, way.out_micro)
    deep = _input_channels(op)
    ins = deep // way.in_block * way.in_block + _tail(deep % way.in_block, way)
    positions = 0
    for window in _windows(op, block, chip):
        rounds = -(-len(window) // way.round)
        positions += rounds * (way.round + way.tail)
    return outs * ins * positions


def _tail(deep: int, way: _Layout) -> int:
    return up(deep, way.in_micro) if way.clips else up(deep, way.in_block)


def _input_channels(op: Operation) -> int:
    return 1 if op.kind == "DepthwiseConv2D" else op.ifm.shape[2]


def ordered(
    op: Operation, block: Block, chip: Chip, values: np.ndarray, *, sparse: bool
) -> Iterator[np.ndarray]:
    """The stream of each core, flat.

    Args:
      values: int8 [kernel rows, kernel columns, in, out], of one depth slice.
    """
    way = _layout(op, block, chip, sparse)
    parts: list[list[np.ndarray]] = [[] for _ in range(way.streams)]
    for window in _windows(op, block, chip):
        y, x = np.array(window).T
        taps = values[y, x]  # [positions, in, out]
        for outs in _spans(taps.shape[2], way.out_block):
            for ins in _spans(taps.shape[1], way.in_block):
                for stream, piece in enumerate(_walk(taps[:, ins, outs], way)):
                    parts[stream].append(piece)
    for pieces in parts:
        yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _spans(length: int, block: int) -> list[slice]:
    """All whole blocks, then what is left."""
    whole = length // block * block
    return [s for s in (slice(0, whole), slice(whole, length)) if s.stop > s.start]


def _walk(taps: np.ndarray, way: _Layout) -> Iterator[np.ndarray]:
    """Whole blocks, or one that is cut short, in the order of the hardware; [positions, in, out]."""
    positions, deep, made = taps.shape
    out_blocks, in_blocks = max(made // way.out_block, 1), max(deep // way.in_block, 1)
    outs = up(made // out_blocks, way.out_micro)
    ins = way.in_block if deep >= way.in_block else _tail(deep, way)
    rounds = -(-positions // way.round)
    filled = np.zeros((rounds * way.round, in_blocks, ins, out_blocks, outs), taps.dtype)
    filled[:positions, :, : deep // in_blocks, :, : made // out_blocks] = taps.reshape(
        positions, in_blocks, deep // in_blocks, out_blocks, made // out_blocks
    )
    if way.tail:
        groups = filled.reshape(rounds, way.round, *filled.shape[1:])
        filled = np.concatenate([groups, np.zeros_like(groups[:, : way.tail])], 1)
        filled = filled.reshape(-1, *filled.shape[2:])
    micro, step = way.in_micro, way.step
    inner = 4 if way.streams > 1 else way.out_micro
    split = filled.reshape(
        filled.shape[0], in_blocks, ins // micro, micro // step, step,
        out_blocks, outs // way.out_micro, way.out_micro // (inner * way.streams), way.streams, inner,
    )  # fmt: skip
    for stream in range(way.streams):
        # out block, in block, in micro, out micro, position, inner steps, groups of outputs, output, input
        yield split[..., stream, :].transpose(5, 1, 2, 6, 0, 3, 7, 8, 4).ravel()
