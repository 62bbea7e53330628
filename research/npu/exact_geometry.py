"""Shapes of blocks: extents of input, allocation units, granules and limits, as the compiler computes them.

After `RequiredInputSize`, `GetArchIFMBlockSize`, `CalcIfmAUSize` and the start of `FindBlockConfig` of
ethos-u-vela 5.2.0.
"""

from math import ceil

import numpy as np

from research.npu.chip import Chip
from research.npu.exact_tables import tables85
from research.npu.operation import Operation, Size

SUBKERNEL = 8  # larger kernels run as several of at most 8 x 8


def up(amount: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-amount // step) * step


def input_extent(extent: int, stride: int, kernel: int, upscale: int, rounding: int) -> int:
    """Rows or columns of input that so many of output need (RequiredInputSize)."""
    return ceil(np.float32((extent - 1) * stride + kernel + rounding) / np.float32(upscale))


def upscaling(op: Operation) -> tuple[int, int]:
    """(factor, rounding) of the input on its way in (UpscaleAndRounding)."""
    return (1 if op.upscale == "none" else 2), int(op.upscale == "nearest")


def reach(op: Operation) -> tuple[int, int]:
    """Rows and columns that the kernel spans."""
    rows, columns = ((k - 1) * d + 1 for k, d in zip(op.kernel, op.dilation, strict=True))
    return rows, columns


def written(op: Operation) -> Size:
    """The output before it is transposed on its way out."""
    h, w, c = op.ofm.shape
    match op.transpose:
        case "NHWC" | "":
            return h, w, c
        case order:
            made = dict(zip(order.replace("N", ""), (h, w, c), strict=True))
            return made["H"], made["W"], made["C"]


def allocation_unit(depth: int, bits: int, micro: Size, chip: Chip) -> Size:
    """The unit that the input buffer is given out in, for a block of so many channels (CalcIfmAUSize)."""
    wide = (depth * bits > 128) + (depth * bits > 256)
    h, w, c = tables85(chip).units[micro][wide]
    return h, w, c * 128 // bits


def input_block(op: Operation, block: Size, unit: Size, depth: int, *, plain: bool = False) -> Size:
    """The input that one output block needs, in whole units (GetArchIFMBlockSize).

    Args:
      depth: its channels, 0: those of the output block.
      plain: as if the input were not scaled up on its way in.
    """
    upscale, rounding = (1, 0) if plain else upscaling(op)
    rows, columns = (
        up(input_extent(block[a], op.stride[a], min(reach(op)[a], SUBKERNEL), upscale, rounding), unit[a])
        for a in (0, 1)
    )
    return rows, columns, up(depth or block[2], unit[2])


def granule_of(op: Operation, micro: Size) -> Size:
    """Steps of the output block; a brick written transposed needs whole bricks in another axis."""
    last = op.transpose[-1:] if op.ofm.brick else "C"
    return (16 if last == "H" else micro[0]), (16 if last == "W" else micro[1]), 16


def block_limit(op: Operation, chip: Chip, granule: Size) -> Size:
    """The largest output block."""
    h, w, c = chip.block_limit
    if op.transpose not in ("NHWC", ""):
        made = dict(zip(op.transpose.replace("N", ""), (h, w, c), strict=True))
        h, w, c = made["H"], made["W"], made["C"]
    return h, w, granule[2] if op.reverse == "C" else c


def extents(
    blocks: np.ndarray, stride: int, kernel: int, upscale: int, rounding: int, unit: np.ndarray | int
) -> np.ndarray:
    """`input_extent` of many blocks at once, in whole units."""
    spans = ((blocks - 1) * stride + kernel + rounding).astype(np.float32)
    return -(-np.ceil(spans / np.float32(upscale)).astype(np.int64) // unit) * unit


def first_of_equals(
    cost: np.ndarray, source: Size, block: tuple[np.ndarray, ...], inside: tuple[np.ndarray, ...], *, small: bool
) -> tuple[Size, Size] | None:
    """(output block, input block): the first of the cheapest; among those of at most 4 x 4, or all unless `small`,
    the last one that sees no less of the input. None where nothing fits.

    Args:
      cost: float32 [depths, pairs], infinite where a block does not fit.
      source: the input.
      block, inside: rows, columns and channels of output and input, of shapes that broadcast to that of `cost`.
    """
    least = cost.min()
    if not np.isfinite(least):
        return None
    equal = np.flatnonzero(cost.ravel() == least)
    h, w, d, in_h, in_w, in_c = (np.broadcast_to(a, cost.shape).ravel()[equal] for a in (*block, *inside))
    best, coverage = 0, np.float32(np.inf)
    seen = np.maximum(np.minimum(source[0], in_h) * np.minimum(source[1], in_w), 1).astype(np.float32)
    covered = np.float32(source[0] * source[1]) / seen
    for i in range(1, len(equal)):
        if (not small or (h[i] <= 4 and w[i] <= 4)) and covered[i] <= coverage:
            best, coverage = i, covered[i]
    return (int(h[best]), int(w[best]), int(d[best])), (int(in_h[best]), int(in_w[best]), int(in_c[best]))
