"""Depth slices and weight buffers of one operation, exactly: what the scheduler proposes where SRAM allows it.

After `ProposeSlicedWeightBuffering` and `TryWeightBuffering` of `scheduler.cpp`, ethos-u-vela 5.2.0, for operations
outside cascades whose weights no other one shares and whose input is not moved.
"""

from math import floor
from typing import Literal, NamedTuple

from research.npu.chip import Chip
from research.npu.exact_cycles import op_cycles
from research.npu.exact_geometry import up
from research.npu.exact_memory import Channel, copy_cycles, elements, read_cycles
from research.npu.exact_performance import Sliced, sliced_performance
from research.npu.exact_weights import encoded
from research.npu.operation import Block, Encoded, Operation

_SPLIT_DEPTH = 16
_STARTUP_CYCLES = 1000  # waits below this are taken as noise
_UNDERUSED = 0.3  # share of a block's channels
_ALL_SRAM = 1 << 40


class Staging(NamedTuple):
    """Weights that are copied to SRAM: slices, the two halves of the buffer, and what that gives."""

    encoded: Encoded
    buffering: Literal["Single", "Double"]
    sizes: tuple[int, int]  # bytes of the buffer's halves
    prebuffered: bool  # the first slice is there before the operation begins
    transfer_cycles: int  # of all weights, unsliced
    performance: Sliced  # its `last` is the slack of the operation after


def propose(
    op: Operation, block: Block, chip: Chip, whole: Encoded, *, slack: int = 0, first: bool = False,
    limit_bytes: int = _ALL_SRAM, slack_bytes: int = _ALL_SRAM,
) -> Staging | None:  # fmt: skip
    """The weight buffer of an operation, None: its weights are read from flash.

    Args:
      whole: its weights in one slice.
      slack: cycles of the operation before, under which weights can be copied.
      first: there is none before.
      limit_bytes, slack_bytes: of SRAM that are free now and under the operation before.
    """
    transfer = copy_cycles(whole.total, chip)
    channel: Channel = "fast_weights" if whole.fast else "weights"
    refetches, depth = elements(op, block, chip).refetches, op.depth
    unmoved = read_cycles(whole.total, chip, "flash", channel) * refetches
    buffered = read_cycles(whole.total, chip, "sram", channel) * refetches
    if buffered >= unmoved:
        return None
    reference = sliced_performance(op, block, chip, whole)
    dominated = reference.run > unmoved
    smallest = int(transfer * float(min(depth, _SPLIT_DEPTH)) / depth)
    forced = first and refetches > 1 and (smallest < unmoved // 10 or smallest <= _STARTUP_CYCLES)
    shown = max(transfer - slack, 0)
    plain = op.transpose in ("NHWC", "") and op.reverse in ("", "W")
    if plain:
        pays = forced or buffered + shown < unmoved or depth // block.ofm[2] > 2
        sliced = pays or (not first and smallest < slack and refetches > 1)
        if not sliced:
            return None
    else:
        hidden = shown < transfer // 20 or shown < _STARTUP_CYCLES
        fits = whole.total <= limit_bytes and (hidden or forced)
        if not fits or (buffered + shown >= unmoved and dominated):
            return None
    code, step = whole, 0
    if plain:
        share = _first_share(depth, whole.total, transfer, slack, limit_bytes // 2, dominated)
        if share < 1:
            code, step = _cut(op, block, chip, whole, share, transfer, limit_bytes // 2)
    if len(code.slices) > 3 and dominated and step < _UNDERUSED * up(step, block.ofm[2]):
        return None
    sizes = _buffers(code, limit_bytes)
    if sizes is None:
        return None
    early = not first and sizes[0] < slack_bytes
    usable = slack if early else _STARTUP_CYCLES if forced else 0
    double = sizes[1] > 0
    found = sliced_performance(op, block, chip, code, staged=True, slack=usable, double=double)
    if not _better(reference, found, code, transfer, refetches, dominated, forced):
        return None
    return Staging(code, "Double" if double else "Single", sizes, early, transfer, found)


def _better(
    before: Sliced, after: Sliced, code: Encoded, transfer: int, refetches: int, dominated: bool, forced: bool
) -> bool:
    """Is it as fast as without a buffer, noise taken off?"""
    old = max(before.run, before.weight_read_cycles, after.ifm_read_cycles)
    new = max(after.full, after.weight_read_cycles, after.ifm_read_cycles)
    slices = len(code.slices) - 1
    if dominated:
        if after.visible // slices < _STARTUP_CYCLES:
            new -= after.visible
        if slices > 1 and after.full == new and forced:
            new -= slices * (_STARTUP_CYCLES // 2)
    return new <= old and not (refetches == 1 and transfer + after.weight_read_cycles > old)


def _first_share(depth: int, size: int, transfer: int, slack: int, half: int, dominated: bool) -> float:
    """Share of the weights that is fetched before the operation begins, 1: all."""
    thinnest, under = min(_SPLIT_DEPTH / depth, 1.0), min(slack / transfer, 1.0)
    aligned = floor(under / thinnest) * thinnest
    share = 1.0 if 1.0 - aligned < thinnest / 2 else under
    if dominated and 0.5 < share < 1.0:
        share = min(max(up(depth // 2, _SPLIT_DEPTH) / depth, 0.5), 1.0)
    return min(max(share, thinnest), min(half / size, 1.0))


def _cut(
    op: Operation, block: Block, chip: Chip, whole: Encoded, share: float, transfer: int, half: int
) -> tuple[Encoded, int]:
    """(weights in slices, channels of an inner slice): as thick as one is copied while the one before runs."""
    depth, deep, thin = op.depth, block.ofm[2], max(16, block.micro[2])
    first, step = max(int(depth * share) // thin * thin, _SPLIT_DEPTH), 0
    if first < depth:
        run = op_cycles(op, block, chip, sparse=whole.sparse, staged=True, depth=first, ends=False).total
        step = up(max(depth * run // transfer, _SPLIT_DEPTH), deep)
        if int(step / depth * whole.total) > half:
            step = int(half / whole.total * depth)
    code = whole
    while step:
        unit = deep if step > deep else thin
        step = max(step // unit * unit, thin)
        edges = (0, *range(first, depth, step), depth)
        code = encoded(op, block, chip, edges, sparse=whole.sparse, fast=whole.fast)
        if max(code.ranges) <= half or (first == _SPLIT_DEPTH and step == thin):
            break
        if step > first:
            step = up(step // 2, thin)
        else:
            first = up(first // 2, _SPLIT_DEPTH)
    return code, step


def _buffers(code: Encoded, limit: int) -> tuple[int, int] | None:
    """Bytes of the two halves of a buffer, 0 for one that is not there; None: it does not fit."""
    halves = max(code.ranges[0::2]), max(code.ranges[1::2], default=0)
    if sum(halves) <= limit and max(code.ranges) < code.total:
        return halves
    size = min(code.total, max(code.ranges))
    return (size, 0) if size <= limit else None
