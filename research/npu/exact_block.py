"""The block configuration that the compiler finds for one operation, exactly: `find_block`.

After `FindBlockConfig`, `FindUBlock`, `FindElementwiseConfig`, `FindDepthwiseConfig` of `ethos_u85.cpp` and
`FindBlockConfig`, `TryBlockConfig` of `ethos_u55.cpp` in ethos-u-vela 5.2.0. Both search output blocks by depth,
rows, columns and keep the one that fetches least for an output element, in single precision: here all blocks that
fit are priced at once, and the rule for equals is applied to the few that are equal.
"""

import dataclasses
from functools import lru_cache
from math import ceil, prod

import numpy as np

from research.npu.chip import Chip
from research.npu.exact_area import area_block
from research.npu.exact_block55 import block55
from research.npu.exact_geometry import (
    SUBKERNEL,
    allocation_unit,
    block_limit,
    extents,
    first_of_equals,
    granule_of,
    reach,
    up,
    upscaling,
    written,
)  # fmt: skip
from research.npu.exact_tables import tables85, unit_of, wide_accumulators
from research.npu.operation import Block, Operation, Size, Traversal

_SPLIT_DEPTH = 16
_BRICK, _CHAINING_SLOTS = 16, 6


def find_block(op: Operation, chip: Chip, *, sparse: bool = False) -> Block | None:
    """The compiler's block of an operation on a chip, with 2:4 weights or without; None: no block, or none needed.

    Raises ValueError, one line, for a chip without exact tables.
    """
    key = dataclasses.replace(op, name="", weights=None, ofm=op.stored, riders=(), written=True)
    return _found(key, chip, sparse)


@lru_cache(maxsize=1 << 16)
def _found(op: Operation, chip: Chip, sparse: bool) -> Block | None:
    return _block85(op, chip, sparse) if chip.family == "u85" else block55(op, chip)


# Ethos-U85


def _kernel_first(op: Operation, depth: int, sparse: bool) -> bool:
    """Does walking the kernel first fill the MAC array at least as well (ChooseKernelFirst)?"""
    k, (step, least) = prod(op.kernel), (10, 4) if sparse else (5, 2)
    rounded = k // step * step + max(k % step, least)
    by_kernel = depth / up(depth, 16) * (k / rounded)
    return by_kernel >= depth / up(depth, 128 if sparse else 64)


def _microblock(op: Operation, chip: Chip, part: bool) -> Size | None:
    """The valid microblock that pads the output least, the first of equals (FindUBlock)."""
    tables, unit = tables85(chip), unit_of(op.kind, chip)
    bits = 8 if unit == "pool" and op.ifm.bits >= 32 and not op.kind.startswith("Reduce") else op.ifm.bits
    match unit:
        case "elementwise" | "resize":
            valid = tables.order
        case "conv":
            deep = op.kernel == (1, 1) and not part and bits == 16 and op.kind != "MatMul"
            valid = (*tables.wide, *(tables.pointwise if deep else ()))
        case "depthwise" | "pool":
            valid = tables.shallow if bits == 8 else tables.wide
        case _:
            valid = tables.wide
    tried = [micro for micro in tables.order if micro in valid]
    target = written(op)
    return min(tried, key=lambda m: prod(up(n, s) for n, s in zip(target, m, strict=True)), default=None)


def _block85(op: Operation, chip: Chip, sparse: bool) -> Block | None:
    unit, kind = unit_of(op.kind, chip), op.kind
    if unit == "dma":
        return None
    source = _larger_input(op)
    part = unit == "conv" and op.ifm2 is None and _kernel_first(op, source[2], sparse)
    micro = _microblock(op, chip, part)
    if micro is None:
        return None
    acc_bits = 48 if wide_accumulators(op, chip) or max(op.ifm.bits, op.ofm.bits) > 32 else 32
    granule = granule_of(op, micro)
    if unit == "elementwise":
        block = _elementwise(op, chip, micro, granule)
        return Block(block, block, micro, "DepthFirst", acc_bits)
    deep = 64
    if part:
        deep = 16
    elif op.ifm.bits == 32 or (chip.macs_per_cycle <= 256 and micro[2] == 16 and not sparse):
        deep = 32
    elif sparse and op.ifm.bits == 8:
        deep = 128
    if unit in ("depthwise", "reduce_sum") or (unit == "pool" and kind != "MemoryCopy"):
        held = deep if unit == "reduce_sum" else 0
        block, inside = area_block(op, chip, micro, granule, 64 if acc_bits == 48 else 32, held, written(op))
        return Block(block, inside, micro, "Depthwise" if unit == "depthwise" else "DepthFirst", acc_bits)
    order: Traversal = "PartKernel" if part else "DepthFirst"
    found = _search85(op, chip, micro, granule, deep, 64 if acc_bits == 48 else 32, source, order)
    return None if found is None else Block(*found, micro, order, acc_bits)


def _larger_input(op: Operation) -> Size:
    return op.ifm2.shape if op.ifm2 is not None and op.ifm2.elements > op.ifm.elements else op.ifm.shape


def _tile(extent: int, granule: int, tile: int) -> int:
    """The tile of at most `tile` that cuts `extent` evenly (GranularTile)."""
    if extent % tile == 0:
        return tile
    return max(up(extent // (extent // tile + 1), granule), granule)


def _reapportion(value: int, most: int, room: int, needed: int) -> tuple[int, int]:
    """(value, room): what an axis does not need of the room goes to another one."""
    excess = min(room // needed, most // value)
    return (value * excess, room // excess) if excess >= 2 else (value, room)


def _elementwise(op: Operation, chip: Chip, micro: Size, granule: Size) -> Size:
    tables, made, bits = tables85(chip), written(op), op.ifm.bits
    ofm = tuple(up(n, g) for n, g in zip(made, granule, strict=True))
    h_most, w_most, c_most = (min(a, b) for a, b in zip(ofm, block_limit(op, chip, granule), strict=True))
    inputs = [op.ifm, *([op.ifm2] if op.ifm2 is not None else [])]
    bricks = (tables.chaining_ram // _CHAINING_SLOTS) // (_BRICK * (bits // 8))
    room = tables.output_ram * 8 // bits // granule[2]
    streamed = bricks // micro[0]
    h = _tile(ofm[0], granule[0], h_most)
    needed = max(_tile(ofm[1], granule[1], min(room, w_most)), granule[1])
    c, w = _reapportion(granule[2], c_most, room, needed)
    if len(inputs) == 2 and all(i.elements > 1 for i in inputs):
        broadcast = [any(i.shape[a] < made[a] for i in inputs) for a in range(3)]
        if broadcast[2]:
            c, w = _tile(ofm[2], granule[2], c_most), streamed
            if not (broadcast[0] or broadcast[1]):
                h, w = _reapportion(micro[0], h_most, w, needed)
        elif broadcast[0]:
            c, w = _reapportion(_BRICK, c_most, streamed, needed)
    return up(h, granule[0]), up(w, granule[1]), up(c, granule[2])


def _search85(
    op: Operation, chip: Chip, micro: Size, granule: Size, deep: int, acc_word: int, source: Size, order: Traversal
) -> tuple[Size, Size] | None:  # fmt: skip
    tables, unit, made = tables85(chip), unit_of(op.kind, chip), written(op)
    equal_depth = unit in ("resize", "pool")
    step = (max(micro[0], granule[0]), max(micro[1], granule[1]), granule[2])
    end = [
        up(max(min(n, m), s), u)
        for n, m, s, u in zip(made, block_limit(op, chip, granule), step, micro, strict=True)
    ]
    if unit == "resize":
        bricks = (tables.chaining_ram // _CHAINING_SLOTS) // (_BRICK * (op.ifm.bits // 8))
        widest = ceil(((bricks - 2) * op.scale[0] + 1) / op.scale[1])
        widest = max(1, min(widest, chip.block_limit[1]))
        step, end = (1, min(step[1], widest), step[2]), [1, widest, 16]
    depths = _depths(max(micro[2], min(end[2], _SPLIT_DEPTH)), end[2], made[2], micro[2])
    heights, widths = (np.arange(s, e + 1, s) for s, e in zip(step[:2], end[:2], strict=True))
    if not (len(depths) and len(heights) and len(widths)):
        return None
    for in_flight in (2, 1):
        fits = _Fit(tables.ifm_ram, tables.acc_ram, acc_word, in_flight, equal_depth, unit == "resize")
        units = [allocation_unit(int(d) if equal_depth else deep, op.ifm.bits, micro, chip) for d in depths]
        found = _cheapest(op, source, made, depths, heights, widths, units, deep, fits)
        if found is not None:
            block, inside = found
            return block, (inside[0], inside[1], block[2] if equal_depth else deep)
    return None


@dataclasses.dataclass(frozen=True)
class _Fit:
    ifm_ram: int
    acc_ram: int
    acc_word: int
    in_flight: int
    equal_depth: bool
    always: bool


def _depths(first: int, last: int, channels: int, step: int) -> list[int]:
    """The depths that are tried: in steps of the microblock, in whole sixteens while there is more to come."""
    tried, depth = list[int](), up(first, _SPLIT_DEPTH) if first < channels else first
    while depth <= last:
        tried.append(depth)
        depth += step
        depth = up(depth, _SPLIT_DEPTH) if depth < channels else depth
    return tried


def _cheapest(
    op: Operation, source: Size, made: Size, depths: list[int], heights: np.ndarray, widths: np.ndarray,
    units: list[Size], deep: int, fits: _Fit,
) -> tuple[Size, Size] | None:  # fmt: skip
    """The block that fetches least and its input, over all depths, rows and columns that fit."""
    area = heights[:, None] * widths[None, :]
    word = fits.acc_word * fits.in_flight
    if not fits.always:  # no pair that even the thinnest block does not hold
        keep = area * up(depths[0], 16) * word <= 8 * fits.acc_ram
    else:
        keep = np.ones_like(area, bool)
    rows, columns = np.nonzero(keep)
    h, w, d = heights[rows][None, :], widths[columns][None, :], np.array(depths)[:, None]
    if not rows.size:
        return None
    upscale, rounding = upscaling(op)
    unit_h, unit_w, unit_c = (np.array(u)[:, None] for u in zip(*units, strict=True))
    span = [min(k, SUBKERNEL) for k in reach(op)]
    in_h = extents(h, op.stride[0], span[0], upscale, rounding, unit_h)
    in_w = extents(w, op.stride[1], span[1], upscale, rounding, unit_w)
    asked = d if fits.equal_depth else np.full_like(d, deep)
    in_c = -(-asked // unit_c) * unit_c
    held = d if fits.equal_depth else np.minimum(in_c, source[2])
    held = -(-held // unit_c) * unit_c
    in_bytes = in_h * in_w * held * (op.ifm.bits // 8) * fits.in_flight
    acc_bytes = h * w * (-(-d // 16) * 16) * fits.acc_word // 8 * fits.in_flight
    ok = (in_bytes <= fits.ifm_ram) & (acc_bytes <= fits.acc_ram) | fits.always
    volume = op.kind in ("Resize", "MatMul") or (
        op.kind in ("Conv2D", "FullyConnected", "DepthwiseConv2D")
        and reach(op) == source[:2] and made[0] * made[1] == 1
    )  # fmt: skip
    if volume:
        cost = np.float32(prod(made)) / (h.astype(np.float32) * w * d.astype(np.float32)).astype(np.float32)
    else:
        window = prod(op.kernel) if op.kind in ("Conv2D", "FullyConnected", "MatMul") else 0
        cost = _fetched(op, source, made, (h, w, d), in_h * in_w, window, fits.equal_depth)
    cost = np.where(prod(source) < in_h * in_w * in_c * 2, cost / np.float32(2), cost)
    cost = np.where(ok, cost, np.float32(np.inf))
    return first_of_equals(cost, source, (h, w, d), (in_h, in_w, in_c), small=op.kind != "MatMul")


def _fetched(
    op: Operation, source: Size, made: Size, block: tuple[np.ndarray, ...], in_area: np.ndarray, window: int,
    equal_depth: bool,
) -> np.ndarray:  # fmt: skip
    """Elements fetched for an output element, float32, in the compiler's order of operations."""
    f32 = np.float32
    over = [f32(n) / b.astype(f32) for n, b in zip(made, block, strict=True)]
    full = [np.ceil(o) for o in over]
    repeats = prod(-(-k // SUBKERNEL) for k in reach(op))
    weights = f32(window) * f32(source[2]) * (full[0] * full[1])
    weights = weights * (over[2] * block[2].astype(f32))
    inputs = in_area.astype(f32) * f32(source[2]) * f32(repeats) * (over[0] * over[1])
    if not equal_depth:
        inputs = inputs * full[2]
    return np.asarray((inputs + weights) / f32(prod(made)))
