"""Blocks of depthwise layers, pools and sums on Ethos-U85: as square as fits, then smaller until a row is to spare.

After `AreaFit`, `FitAreaByAspect`, `BestTile` and `FindDepthwiseConfig` of `ethos_u85.cpp`, ethos-u-vela 5.2.0.
"""

from math import inf, prod, sqrt

from research.npu.chip import Chip
from research.npu.exact_geometry import allocation_unit, block_limit, input_block, reach, up
from research.npu.exact_tables import tables85
from research.npu.operation import Operation, Size

_ACC_DEPTH = 16  # channels that accumulators are given out in
_PATIENCE = 25  # tries without progress before the area shrinks by force


def area_block(
    op: Operation, chip: Chip, micro: Size, granule: Size, acc_word: int, held: int, made: Size
) -> tuple[Size, Size]:
    """(output block, input block).

    Args:
      acc_word: bits of an accumulator in its RAM.
      held: channels of the input block, 0: those of the output block.
      made: the output before a transpose.
    """
    ofm = (up(made[0], granule[0]), up(made[1], granule[1]), up(made[2], granule[2]))
    room = tables85(chip).ifm_ram * 8 // op.ifm.bits
    height, width, depth = _fit(op, chip, micro, granule, acc_word, held, ofm)
    force = 0
    while True:
        unit = allocation_unit(held or depth, op.ifm.bits, micro, chip)
        inside = _input(op, (height, width, depth), unit, held)
        row = _input(op, (granule[0], width, depth), unit, held)
        alone = width >= ofm[1] and height >= ofm[0] and depth >= ofm[2]
        if alone or room - prod(inside) >= prod(row):
            return (height, width, depth), inside
        if (height != ofm[0] or force & 2) and height > granule[0]:
            height -= granule[0]
        elif (depth > width or force & 1) and depth > granule[2]:
            depth -= granule[2]
        elif (width != ofm[1] or force & 4) and width > granule[1]:
            width -= granule[1]
        elif force != 7:
            force = force << 1 | 1
        elif depth > granule[2]:
            depth = max(depth // 2, granule[2])
        else:
            return (height, width, depth), inside


def _input(op: Operation, block: Size, unit: Size, held: int) -> Size:
    """The input block, of an input that is not scaled up on its way in."""
    return input_block(op, block, unit, held, plain=True)


def _fit(op: Operation, chip: Chip, micro: Size, granule: Size, acc_word: int, held: int, ofm: Size) -> Size:
    """The block whose shape covers the output best, over all depths (AreaFit)."""
    tables = tables85(chip)
    acc_room, in_room = tables.acc_ram * 8 // acc_word, tables.ifm_ram * 8 // op.ifm.bits
    thinnest = micro[0] * micro[1] * _ACC_DEPTH
    h_most, w_most, c_most = (min(a, b) for a, b in zip(ofm, block_limit(op, chip, granule), strict=True))
    aspect, by_depth = ofm[0] / ofm[1], reach(op) == (1, 1)
    area = float(ofm[1] * (ofm[2] if by_depth else ofm[0]))
    best, best_block = inf, (0, 0, 0)
    deepest = min(max(chip.macs_per_cycle, acc_room // thinnest), c_most)
    for depth in range(_ACC_DEPTH, deepest + 1, _ACC_DEPTH):
        unit = allocation_unit(held or depth, op.ifm.bits, micro, chip)
        volume = prod(up(n, u) for n, u in zip(op.ifm.shape, unit, strict=True))
        fit, before, patience, fitted = acc_room, -1, _PATIENCE, False
        while True:
            width, height = _by_aspect(aspect, fit // depth, granule)
            width, height = min(width, w_most), min(height, h_most)
            pixels = width * height
            if width < ofm[1]:
                width = _best_tile(ofm[1], granule[1], width)
            height = max(pixels // width // granule[0] * granule[0], granule[0])
            needed = width * height * depth
            acc_ratio = acc_room / needed
            in_ratio = in_room / min(prod(_input(op, (height, width, depth), unit, held)), volume)
            if acc_ratio >= 1 and in_ratio >= 1:
                used = depth % unit[2] or unit[2]
                waste = 1 + ((unit[2] - used) / unit[2]) / 10
                shallow = 1 + abs(1 - c_most / depth) / 10
                coverage = 1 + abs(1 - area / (width * (depth if by_depth else height)))
                metric = coverage * shallow * waste
                if metric < best:
                    best, best_block = metric, (height, width, depth)
                    if depth >= ofm[2] and width >= ofm[1] and height >= ofm[0]:
                        return ofm
                fitted = True
                break
            if needed == before:
                patience -= 1
                if patience <= 0:
                    in_ratio = 0.9
            before = needed
            if in_ratio < 1 < acc_ratio:
                fit = min(fit, needed)
            smaller = max(int(fit // thinnest * min(in_ratio, acc_ratio)), 0) * thinnest
            smaller = fit - thinnest if smaller == fit else smaller
            if smaller < thinnest:
                break
            fit = smaller
        if not fitted:
            break
    return best_block


def _by_aspect(aspect: float, area: int, granule: Size) -> tuple[int, int]:
    """(columns, rows) of a rectangle of that many pixels with that ratio of rows to columns (FitAreaByAspect)."""
    width = sqrt(area / aspect)
    height = width * aspect
    if height < 1:
        width, height = width * height, 1.0
    elif width < 1:
        width, height = 1.0, height * width
    columns, rows = max(int(width), granule[1]), max(int(height), granule[0])
    return columns // granule[1] * granule[1], rows // granule[0] * granule[0]


def _best_tile(extent: int, granule: int, tile: int) -> int:
    """The tile near `tile` that leaves the fullest last one (BestTile)."""
    if extent % tile == 0:
        return tile
    even = max(up(extent // (extent // tile + 1), granule), granule)
    best, remainder = tile, extent % tile
    for size in range(tile, max(even - 2 * granule, (even + 1) // 2, granule) - 1, -granule):
        left = extent % size or size
        if left > remainder:
            best, remainder = size, left
    return best
