"""Cycles of one scheduled operation with its memories: as the compiler reports it, and as its scheduler weighs it.

After `EstimateFullOpPerformance` of `network_performance.cpp` and `EstimateSlicedOpPerformance` of `scheduler.cpp`,
ethos-u-vela 5.2.0.
"""

from itertools import pairwise
from typing import NamedTuple

from research.npu.chip import Chip
from research.npu.exact_cycles import op_cycles
from research.npu.exact_memory import (
    Channel,
    access_cycles,
    copy_cycles,
    elements,
    input_channel,
    read_cycles,
    sliced,
)
from research.npu.operation import AccessOf, Block, Cycles, Encoded, Operation, Where


class Performance(NamedTuple):
    """Of a whole operation: cycles with all waits, without those for memories, and what they consist of."""

    total: int
    npu: int
    cycles: Cycles
    access: AccessOf


class Sliced(NamedTuple):
    """Of an operation that is run in depth slices; bytes and cycles as the scheduler counts them."""

    run: int  # cycles of all slices
    full: int  # with the transfers of weights that no slice hides
    visible: int  # those alone
    last: int  # of the last slice
    ifm_read_bytes: int
    ifm_read_cycles: int
    weight_read_bytes: int
    weight_read_cycles: int
    ifm_bytes: int  # of the input that it needs


def full_performance(
    op: Operation, block: Block | None, chip: Chip, encoded: Encoded | None = None, *, staged: bool = False,
    prebuffered: bool = False, transfer_cycles: int = 0, slack_before: int = 0, slack: int = 0, lut_bytes: int = 0,
) -> Performance:  # fmt: skip
    """Cycles of an operation in a schedule.

    Args:
      encoded: its weights in the slices of the schedule, None: it has none.
      staged: they are copied to SRAM; `prebuffered`: the first slice before it begins.
      transfer_cycles: of all its weights, unsliced, from flash to SRAM.
      slack_before, slack: cycles under which weights can be copied, of the operation before and its own.
      lut_bytes: of a table that is copied for it.
    """
    sparse = encoded is not None and encoded.sparse
    cycles = op_cycles(op, block, chip, sparse=sparse, staged=staged)
    first = encoded.ranges[0] if encoded is not None and prebuffered else 0
    access = access_cycles(op, block, chip, encoded, staged=staged, first_bytes=first)
    lut = copy_cycles(lut_bytes, chip, target="lut") if lut_bytes else 0
    npu = cycles.total
    if encoded is not None and staged:
        late = max(copy_cycles(encoded.first_dma, chip) - slack_before, 0)
        npu = max(transfer_cycles - slack_before + slack, cycles.total + late)
    else:
        lut = max(lut - slack_before, 0)
    npu += lut
    return Performance(max(npu, *(a.total for a in access.values())), npu, cycles, access)


def sliced_performance(
    op: Operation, block: Block, chip: Chip, encoded: Encoded | None = None, *, staged: bool = False,
    slack: int = 0, double: bool = False, ifm_from: Where | None = None,
) -> Sliced:  # fmt: skip
    """Cycles of an operation whose weights are fetched in the slices of `encoded`.

    Args:
      staged: the weights are copied to SRAM and read there.
      slack: cycles under which the first slice can be copied.
      double: each slice is copied while the one before runs.
      ifm_from: where the input is read from, None: where it is.
    """
    edges = encoded.slices if encoded is not None else (0, op.depth)
    sparse = encoded is not None and encoded.sparse
    where: Where = "sram" if staged else "flash"
    ifm = ifm_read = weights = fetches = run = visible = last = 0
    for i, (start, end) in enumerate(pairwise(edges)):
        part = sliced(op, end - start)
        count, wide = elements(part, block, chip), op.ifm.bits // 8
        ifm_read += count.ifm * wide
        ifm = part.ifm.elements * wide
        last = op_cycles(
            op, block, chip, sparse=sparse, staged=staged, depth=end - start, starts=i == 0, ends=i == len(edges) - 2
        ).total
        run += last
        if encoded is not None:
            weights += encoded.ranges[i] * count.refetches
            fetches += count.refetches
            if staged:
                visible += max(copy_cycles(encoded.ranges[i], chip) - slack, 0)
        slack = last if double else 0
    source = ifm_from or op.ifm.memory
    channel: Channel = "fast_weights" if encoded is not None and encoded.fast else "weights"
    weight_cycles = read_cycles(weights // fetches, chip, where, channel) * fetches if fetches else 0
    ifm_cycles = read_cycles(ifm_read, chip, source, input_channel(op.kind))
    return Sliced(run, run + visible, visible, last, ifm_read, ifm_cycles, weights, weight_cycles, ifm)
