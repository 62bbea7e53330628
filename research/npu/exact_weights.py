"""Encoded weights of one operation by depth slice, and the weight format that the compiler takes.

After `TryEncodeWeightAndScaleTensor`, `EncodeBestWeightFormat`, `UseFastDecoder` and `ChooseBestWeightFormat` of
`scheduler.cpp` and `WeightDecodeCycles` of both performance models, ethos-u-vela 5.2.0.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from research.npu.chip import Chip
from research.npu.exact_block import find_block
from research.npu.exact_coding import Coded, coded, counts_of, fast_size, may_run
from research.npu.exact_cycles import op_cycles
from research.npu.exact_geometry import up
from research.npu.exact_memory import Channel, bandwidth
from research.npu.exact_order import ordered, source_length
from research.npu.exact_tables import unit_of
from research.npu.operation import Block, Choice, Encoded, Operation, Weights
from research.npu.weights import is_2_4

_SCALE_BYTES = 10  # bias, multiplier and shift of one output channel
_UNIT = 16  # a range, and the scales in it, end on a whole one
_MANY = 256  # distinct values of weights that nobody knows
_PADDING_BYTES = 0.02  # encoded bytes of a zero that fills a block, in a run


def encoded(
    op: Operation, block: Block, chip: Chip, slices: Sequence[int] | None = None, *, sparse: bool = False,
    fast: bool = False,
) -> Encoded:  # fmt: skip
    """Weights and scales as they lie in flash.

    Args:
      slices: 0, then the output channel that each depth slice ends at; None: one slice.

    Raises ValueError, one line, for an operation without weights.
    """
    if op.weights is None:
        raise ValueError(f"{op.name}: a {op.kind} has no weights")
    edges = tuple(slices) if slices is not None else (0, op.depth)
    parts = [
        _slice(op.weights, _shape_of(op), block, chip, a, b, sparse) for a, b in pairwise(edges)
    ]
    distinct = max((p[3] for p in parts), default=0)
    ranges, weight_bytes = list[int](), 0
    for (size, source, _, _), (a, b) in zip(parts, pairwise(edges), strict=True):
        own = fast_size(source, distinct, sparse=sparse) if fast else size
        weight_bytes += own
        ranges.append(own + up(_scale_bytes(b - a, block, chip), _UNIT))
    first_scales = _scale_bytes(edges[1] - edges[0], block, chip)
    unaligned = up(first_scales, _UNIT) - first_scales
    return Encoded(
        edges, tuple(ranges), weight_bytes, sum(ranges) - weight_bytes, sum(p[1] for p in parts),
        0 if fast else sum(p[2] for p in parts), distinct, ranges[0] - unaligned, sparse, fast,
    )  # fmt: skip


def _scale_bytes(channels: int, block: Block, chip: Chip) -> int:
    """On Ethos-U85 the channels are filled up to whole microblocks of at least 16."""
    return _SCALE_BYTES * (up(channels, up(block.micro[2], 16)) if chip.family == "u85" else channels)


def _shape_of(op: Operation) -> Operation:
    """What of an operation the order of its weights depends on: the key of a cache."""
    return Operation("", op.kind, op.ifm, op.ofm, None, op.kernel, op.stride, op.dilation)


@lru_cache(maxsize=512)
def _slice(
    weights: Weights, op: Operation, block: Block, chip: Chip, start: int, end: int, sparse: bool
) -> tuple[int, int, int, int]:
    """(bytes, weights with padding, zeros in runs, distinct values) of one depth slice, all cores."""
    source = source_length(op, block, chip, end - start, sparse=sparse)
    if weights.values is None:
        count = int(np.prod(weights.shape[:3])) * (end - start)
        size = count * weights.bytes_per_weight + max(source - count, 0) * _PADDING_BYTES
        return up(int(size) + 4 * chip.cores, _UNIT), source, 0, _MANY
    values = weights.values[..., start:end]
    streams = chip.cores if chip.family == "u85" else 1
    plain, found = values.astype(np.int8, copy=False), list[Coded]()
    padding = max(source - plain.size, 0)
    whole = counts_of(np.ascontiguousarray(plain))
    filled = whole.copy()
    filled[128] += padding
    if padding or may_run(filled):
        found = [coded(counts_of(s), s) for s in ordered(op, block, chip, plain, sparse=sparse)]
    else:
        for stream in range(streams):
            own = whole if streams == 1 else counts_of(np.ascontiguousarray(_of_core(plain, block, streams, stream)))
            found.append(coded(own))
    distinct = int(np.count_nonzero(filled))
    return sum(f.size for f in found), source, sum(f.zeros for f in found), distinct


def _of_core(values: np.ndarray, block: Block, streams: int, stream: int) -> np.ndarray:
    """Output channels of one core: fours in turn."""
    within = np.arange(values.shape[-1]) % block.ofm[2] % block.micro[2]
    return values[..., within // 4 % streams == stream]


def decode_cycles(found: Encoded, chip: Chip) -> int:
    """Cycles to fetch weights from flash or to decode them, whichever takes longer (WeightDecodeCycles)."""
    channel: Channel = "fast_weights" if found.fast else "weights"
    fetch = int(np.float32(found.weight_bytes) / bandwidth(chip, "flash", channel))
    fetch += int(chip.flash.read_latency_cycles)
    if chip.family == "u55":
        return fetch
    if found.fast:
        rate = 64 if found.distinct < 16 else 32
    else:
        share = max(min(found.zeros / max(found.source, 1), 0.9), 0.5)
        rate = int(8 + (share - 0.5) * (32 - 8) / 0.4) * chip.cores
    return max(found.source // rate, fetch)


def best_format(op: Operation, chip: Chip, *, sparsity: bool = True) -> Choice:
    """The weight format of least decoding and running time, and the block that goes with it.

    Args:
      sparsity: 2:4 may be used where weights and chip allow it.
    """
    dense = find_block(op, chip)
    if op.weights is None or dense is None:
        return Choice(dense, None, False, False)
    choices = [_tried(op, dense, chip, sparse=False)]
    able = chip.family == "u85" and unit_of(op.kind, chip) == "conv"
    if able and sparsity and chip.sparse_2_4 and _pattern(op.weights):
        block = find_block(op, chip, sparse=True)
        if block is not None:
            choices.insert(0, _tried(op, block, chip, sparse=True))
            if choices[0][0] > choices[1][0]:
                del choices[0]
    if able:
        choices += _fast(op, chip, choices)
    _, block, found = min(choices, key=lambda c: c[0] + decode_cycles(c[2], chip))
    return Choice(block, found, found.sparse, found.fast)


_Tried = tuple[int, Block, Encoded]


def _tried(op: Operation, block: Block, chip: Chip, *, sparse: bool) -> _Tried:
    return op_cycles(op, block, chip, sparse=sparse).total, block, encoded(op, block, chip, sparse=sparse)


def _fast(op: Operation, chip: Chip, choices: list[_Tried]) -> list[_Tried]:
    """The same in the fast format, where every one of them is decoded sooner then (UseFastDecoder)."""
    found = []
    for cycles, block, plain in choices:
        divisor = 1 if plain.distinct > 16 else 4 if plain.distinct <= 4 else 2
        guess = plain._replace(weight_bytes=32 + plain.source // divisor, fast=True)
        if decode_cycles(guess, chip) >= decode_cycles(plain, chip):
            return []
        found.append((cycles, block, encoded(op, block, chip, sparse=plain.sparse, fast=True)))
    return found


def _pattern(weights: Weights) -> bool:
    return weights.pattern if weights.values is None else _is_2_4(weights)


@lru_cache(maxsize=256)
def _is_2_4(weights: Weights) -> bool:
    assert weights.values is not None
    return is_2_4(weights.values)
