"""Depth slices and ping-pong weight buffers of one operation after another: `buffered`.

After `ProposeWeightBuffering` and `ProposeSlicedWeightBuffering` of ethos-u-vela 5.2.0, whose limit on staging memory
(1 TiB, by the command line's default) is never reached.
"""

import math
from typing import Literal, NamedTuple

from research.npu.chip import Chip
from research.npu.exact_cycles import op_cycles
from research.npu.exact_geometry import up
from research.npu.exact_memory import Channel, copy_cycles, elements, input_channel, read_cycles
from research.npu.exact_performance import Sliced, sliced_performance
from research.npu.exact_weights import encoded
from research.npu.operation import Block, Choice, Encoded, Operation

Buffering = Literal["None", "Single", "Double"]
_SPLIT, _STARTUP_CYCLES = 16, 1000
_UNDERUSED = 0.3


class Buffers(NamedTuple):
    """How an operation gets its weights. `parts`: bytes of each buffer in SRAM; `slack`: cycles that it leaves for
    the weights of the next operation; `transfer`: cycles to copy all of its own."""

    encoded: Encoded | None
    buffering: Buffering
    ahead: bool  # the first slice is copied under the operation before
    parts: tuple[int, ...]
    slack: int
    transfer: int


class _Case(NamedTuple):
    """What is known of an operation before its weights are sliced."""

    op: Operation
    block: Block
    chip: Chip
    whole: Encoded
    plain: Sliced  # unsliced, from flash
    refetches: int
    unmoved: int  # cycles to read all weights where they are, as often as they are read
    transfer: int
    dominated: bool  # by the operation's own cycles
    slack: int


def buffered(
    op: Operation, choice: Choice, chip: Chip, *, slack: int, first: bool, starts: bool, movable: bool = False,
    enabled: bool = True,
) -> Buffers:  # fmt: skip
    """Slices and buffers of an operation.

    Args:
      choice: its block, and its weights in one slice.
      slack: cycles under which weights can be copied.
      first: there is nothing before it in the schedule; `starts`: nothing on the NPU just before it.
      movable: its input is in flash and may be staged to SRAM.
      enabled: weights may be buffered at all.
    """
    block, whole = choice.block, choice.encoded
    if block is None:
        return Buffers(None, "None", False, (), 0, 0)
    own = op_cycles(op, block, chip).total
    if whole is None or not enabled:
        return Buffers(whole, "None", False, (), own, 0)
    channel: Channel = "fast_weights" if whole.fast else "weights"
    transfer = copy_cycles(whole.total, chip)
    none = Buffers(whole, "None", False, (), own, transfer)
    refetches = elements(op, block, chip).refetches
    unmoved = read_cycles(whole.total, chip, "flash", channel) * refetches
    staged = read_cycles(whole.total, chip, "sram", channel) * refetches
    if staged >= unmoved:
        return none
    plain = sliced_performance(op, block, chip, whole)
    case = _Case(
        op, block, chip, whole, plain, refetches, unmoved, transfer, plain.run > unmoved, slack
    )
    depth = op.depth
    turned = op.transpose[-1:] not in ("C", "")
    smallest = int(transfer * (min(depth, _SPLIT) / depth))
    forced = starts and refetches > 1 and (smallest < unmoved / 10 or smallest <= _STARTUP_CYCLES)
    late = max(transfer - slack, 0)
    hidden = late < transfer // 20 or late < _STARTUP_CYCLES
    sliceable = op.transpose == "NHWC"
    method = ""
    if sliceable:
        if (
            forced or staged + late < unmoved or depth // block.ofm[2] > 2
            or (not first and smallest < slack and refetches > 1)
        ):  # fmt: skip
            method = "sliced"
    elif (hidden or forced) and (staged + late < unmoved or not case.dominated):
        method = "single"
    if not method:
        return none
    edges: tuple[int, ...] | None = (0, depth)
    if method == "sliced" and not turned:
        edges = _edges(case)
    if edges is None:
        return none
    found = whole
    if len(edges) > 2:
        found = encoded(op, block, chip, edges, sparse=choice.sparse, fast=choice.fast)
    parts = (max(found.ranges[::2]), max(found.ranges[1::2], default=0))
    double = max(found.ranges) < found.total
    kind: Buffering = "Double" if double else "Single"
    usable = slack if not first else _STARTUP_CYCLES if forced else 0
    new = sliced_performance(op, block, chip, found, staged=True, slack=usable, double=double)
    if not _pays(case, new, len(edges) - 1, forced, movable):
        return none
    sizes = parts if double else (min(found.total, max(found.ranges)),)
    return Buffers(found, kind, not first, sizes, new.last, transfer)


def _edges(case: _Case) -> tuple[int, ...] | None:
    """Where slices end; None: they would leave too much of a block idle."""
    op, block, chip, depth = case.op, case.block, case.chip, case.op.depth
    least = min(_SPLIT / depth, 1.0)
    ratio = min(case.slack / case.transfer, 1.0)
    aligned = math.floor(ratio / least) * least
    ratio = 1.0 if 1.0 - aligned < least / 2 else ratio
    if case.dominated and 0.5 < ratio < 1.0:
        ratio = min(max(up(math.floor(depth * 0.5), _SPLIT) / depth, 0.5), 1.0)
    ratio = max(ratio, least)
    if ratio >= 1.0:
        return 0, depth
    deep = block.ofm[2]
    granule = max(16, block.micro[2]) if chip.family == "u85" else 16
    first = max(int(depth * ratio) // granule * granule, _SPLIT)
    if first >= depth:
        return 0, depth
    run = op_cycles(
        op, block, chip, sparse=case.whole.sparse, staged=True, depth=first, starts=True, ends=False
    ).total
    step = up(max(depth * run // case.transfer, _SPLIT), deep)
    unit = deep if step > deep else granule
    step = max(step // unit * unit, granule)
    edges = (0, *range(first, depth, step), depth)
    if len(edges) > 3 and step / up(step, deep) < _UNDERUSED and case.dominated:
        return None
    return edges


def _pays(case: _Case, new: Sliced, slices: int, forced: bool, movable: bool) -> bool:
    """Is it no slower than to read the weights from flash?"""
    plain = case.plain
    read = new.ifm_read_cycles
    if movable:
        read = read_cycles(new.ifm_read_bytes, case.chip, "sram", input_channel(case.op.kind))
    before = max(plain.run, plain.weight_read_cycles, read)
    after = max(new.full, new.weight_read_cycles, read)
    if case.dominated:
        if new.visible // slices < _STARTUP_CYCLES:
            after -= new.visible
        if slices > 1 and new.full == after and forced:
            after -= slices * (_STARTUP_CYCLES // 2)
    once = case.refetches == 1 and case.transfer + new.weight_read_cycles > before
    return after <= before and not once
