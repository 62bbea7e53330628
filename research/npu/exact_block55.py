"""The block configuration on Ethos-U55, whose one shared RAM of banks holds input, accumulators and tables.

After `FindBlockConfig`, `TryBlockConfig`, `FitBlockForOFM` and `GetOpConfig` of `ethos_u55.cpp`, ethos-u-vela 5.2.0.
"""

import dataclasses
from math import prod

import numpy as np

from research.npu.chip import Chip
from research.npu.exact_geometry import SUBKERNEL, extents, first_of_equals, reach, up, upscaling, written
from research.npu.exact_tables import tables55, unit_of, wide_accumulators
from research.npu.operation import Block, FeatureMap, Operation, Size, Traversal

_SPLIT_DEPTH = 16
_BANK = 1024
_OUTPUT_BANKS = _END_BANKS = _TABLE_BANKS = 2


def block55(op: Operation, chip: Chip) -> Block | None:
    """The block of an operation; that of a MatMul is its sum's, with its product's as `first`."""
    unit = unit_of(op.kind, chip)
    if unit == "dma":
        return None
    if op.kind == "MatMul" and op.ifm2 is not None:
        return _matmul(op, op.ifm2, chip)
    if op.kind == "MemoryCopy" and op.ifm.bits > 16:  # as 16 bit, with more channels
        factor = op.ifm.bits // 16
        h, w, c = op.ifm.shape
        oh, ow, oc = op.ofm.shape
        ifm = dataclasses.replace(op.ifm, bits=16, shape=(h, w, c * factor))
        op = dataclasses.replace(
            op, ifm=ifm, ofm=dataclasses.replace(op.ofm, bits=16, shape=(oh, ow, oc * factor))
        )
    return _search(op, chip)


def _matmul(op: Operation, second: FeatureMap, chip: Chip) -> Block | None:
    """Both parts of a product of matrices: an element-wise Mul into 32 bits, then a ReduceSum (GetOpConfig)."""
    batches = op.ofm.shape[0]
    ifm = _spread(op.ifm.shape, chip.block_limit)
    plain = dataclasses.replace(op, kernel=(1, 1), stride=(1, 1), dilation=(1, 1), transpose="NHWC")
    source = dataclasses.replace(op.ifm, shape=ifm)
    product = dataclasses.replace(
        plain, kind="Mul", ifm=source, ifm2=dataclasses.replace(second, shape=(batches, 1, second.shape[2])),
        ofm=FeatureMap(ifm, 32, brick=False),
    )  # fmt: skip
    total = dataclasses.replace(
        product, kind="ReduceSum", ifm=dataclasses.replace(source, bits=32),
        ofm=dataclasses.replace(op.ofm, shape=_spread((batches, op.ifm.shape[1], 1), chip.block_limit)),
    )  # fmt: skip
    first, last = _search(product, chip), _search(total, chip)
    return None if last is None else last._replace(first=first)


def _spread(shape: Size, limit: Size) -> Size:
    """The shape cut in up to three along its longer axis, so that blocks do not wait for one another."""
    axis = 0 if shape[0] > limit[0] else 1
    if shape[axis] <= limit[axis]:
        for parts in (3, 2):
            if shape[axis] >= 4 * parts:
                cut = -(-shape[axis] // parts)
                return (cut, *shape[1:]) if axis == 0 else (shape[0], cut, shape[2])
    return shape


def _kernel_first(op: Operation, depth: int) -> bool:
    if depth <= 8:
        return True
    k, wide = prod(op.kernel), op.ifm.bits == 8
    by_depth = depth / up(depth, 32 if wide else 16)
    return depth / up(depth, 8) * (k / up(k, 4 if wide else 2)) >= by_depth


def _search(op: Operation, chip: Chip) -> Block | None:
    tables, unit, made, bits = tables55(chip), unit_of(op.kind, chip), written(op), op.ifm.bits
    micro = tables.micro
    inputs = [op.ifm, *([op.ifm2] if op.ifm2 is not None else [])]
    source = max(inputs, key=lambda i: i.elements).shape
    element = unit == "elementwise"
    equal_depth = element or unit in ("pool", "depthwise")
    part = unit == "conv" and _kernel_first(op, source[2])
    acc_bits = 40 if wide_accumulators(op, chip) else 32
    granules = tables.element_granules if element else tables.ifm_granules
    if bits == 16:
        deep = up(min(source[2], 16), 4)
    else:
        deep = up(min(source[2], 16 if part else 32), 8)
    end = [up(min(n, m), u) for n, m, u in zip(made, chip.block_limit, micro, strict=True)]
    depths, depth = list[int](), max(micro[2], min(end[2], _SPLIT_DEPTH))
    while depth <= end[2]:
        depth = up(depth, _SPLIT_DEPTH) if depth < made[2] else depth
        if depth <= end[2]:
            depths.append(depth)
        depth += micro[2]
    if not depths:
        return None
    h, w = (a.ravel()[None, :] for a in np.meshgrid(
        np.arange(micro[0], end[0] + 1, micro[0]), np.arange(micro[1], end[1] + 1, micro[1]), indexing="ij"
    ))  # fmt: skip
    d = np.array(depths)[:, None]
    upscale, rounding = upscaling(op)
    in_h = extents(h, op.stride[0], min(reach(op)[0], SUBKERNEL), upscale, rounding, micro[0])
    in_w = extents(w, op.stride[1], min(reach(op)[1], SUBKERNEL), upscale, rounding, micro[1])
    in_c = d if equal_depth else np.full_like(d, deep)
    # A kernel of one row on an output of one row leaves half of a microblock of two rows idle: no room for it.
    one_row = made[0] == 1 and op.kernel[0] == 1 and micro[0] == 2
    rows = np.minimum(h, made[0]) if one_row else h
    in_bytes = in_h * in_w * (-(-in_c * (bits // 8) // 8) * 8)
    in_banks = _banks(in_bytes, granules[bits])
    table_banks = max(_TABLE_BANKS if op.lut else 0, _END_BANKS)
    room = tables.banks - table_banks - _OUTPUT_BANKS
    if element:
        scalar = any(i.elements == 1 for i in inputs) and bits <= 16
        ok = in_banks * (1 if scalar else 2) <= room
    else:
        acc_bytes = rows * w * (-(-d // 8) * 8) * acc_bits // 8
        ok = in_banks + _banks(acc_bytes, tables.acc_granules[acc_bits]) <= room
    f32 = np.float32
    full = [-(-n // b) for n, b in zip(made, (rows, w, d), strict=True)]
    over = [f32(n) / b.astype(f32) for n, b in zip(made, (rows, w, d), strict=True)]
    window = prod(op.kernel) if unit in ("conv", "depthwise") else 0
    weights = (window * source[2] * full[0] * full[1]).astype(f32)
    if unit != "depthwise":
        weights = weights * (over[2] * d.astype(f32))
    repeats = prod(-(-k // SUBKERNEL) for k in reach(op))
    fetched = (in_h * in_w * source[2] * repeats).astype(f32) * over[1] * over[0]
    if not equal_depth:
        fetched = fetched * full[2].astype(f32)
    elements = f32(prod(made))
    cost = elements / (h * w * d).astype(f32) if element else (fetched + weights) / elements
    cost = np.where(prod(source) < in_h * in_w * in_c * 2, cost / f32(2), cost)
    found = first_of_equals(np.where(ok, cost, f32(np.inf)), source, (h, w, d), (in_h, in_w, in_c), small=True)
    order: Traversal = "Depthwise" if unit == "depthwise" else "PartKernel" if part else "DepthFirst"
    return None if found is None else Block(*found, micro, order, acc_bits)


def _banks(size: np.ndarray, granule: int) -> np.ndarray:
    """Banks of two buffers of so many bytes."""
    return -(-(-(-size // _BANK) * 2) // granule) * granule
