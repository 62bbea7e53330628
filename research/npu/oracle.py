"""The price of a layer in plain Python numbers: an independent reading of the formulas, the judge of `cost`.

After `EstimateFullOpPerformance`, `EstimateMacOpCycles`, `MeasureElementAccess` and `EstimateMemoryTransfer` of
ethos-u-vela 5.2.0. It shares nothing with `cycles` and `memory` but the numbers of a chip: integers stay integers and
nothing is vectorised. It covers what a hand network is made of (convolution, depthwise, dense, pools, additions) on
Ethos-U85 and Ethos-U55, 8 or 16 bits. Blocks and buffers are given: what is checked is what they cost.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from research.npu.chip import Chip

FULL = ("conv", "dense")
POOLS = ("max_pool", "avg_pool")


class Layer(NamedTuple):
    """One layer in whole numbers; `kind` is conv, dense, depthwise, max_pool, avg_pool or add."""

    kind: str
    oh: int
    ow: int
    oc: int
    ih: int
    iw: int
    ic: int
    kh: int
    kw: int
    stride: int
    bits: int
    sparse: bool
    plain_in: bool
    plain_out: bool
    chained: int  # additions that ride


class Shape(NamedTuple):
    """The block that a layer works in."""

    oh: int
    ow: int
    oc: int
    ih: int
    iw: int
    ic: int
    uh: int
    uw: int
    uc: int
    kernel_first: bool


class Work(NamedTuple):
    """Cycles and bytes of a layer; `op` before any wait for weights."""

    mac: float
    output: float
    op: float
    sram_bytes: float


def clipped(layer: Layer, b: Shape) -> Shape:
    """The block within the layer: what lies outside is never computed."""
    return b._replace(
        oh=min(b.oh, layer.oh), ow=min(b.ow, layer.ow), oc=min(b.oc, layer.oc),
        ih=min(b.ih, layer.ih), iw=min(b.iw, layer.iw), ic=min(b.ic, layer.ic),
    )  # fmt: skip


def units(extent: int, unit: int) -> int:
    """Units that cover an extent."""
    return -(-extent // unit)


def mac_block(layer: Layer, block: Shape, chip: Chip) -> float:
    """EstimateMacCyclesPerBlock, kernel piece by kernel piece of at most 8 x 8."""
    own, old = clipped(layer, block), chip.family == "u55"
    area = units(own.oh, block.uh) * units(own.ow, block.uw)
    depth = units(own.oc, block.uc)
    decode = 32 * block.uc // (8 * chip.cores)
    wide = layer.bits // 8
    total = 0.0
    for y in range(0, layer.kh, 8):
        for x in range(0, layer.kw, 8):
            taps = min(8, layer.kh - y) * min(8, layer.kw - x)
            if layer.kind in POOLS:
                steps, cycles = 1, max(4, taps) * area * depth * (layer.bits // 2)
            elif layer.kind == "depthwise":
                steps = units(taps, 4)
                cycles = max(decode, 4 * area * wide) * steps * depth
            elif block.kernel_first:
                steps = units(taps, 2 if layer.bits == 16 else 4)
                cycles = max(decode, 4 * area) * steps * depth * units(own.ic, 8) // (2 if layer.sparse else 1)
            elif old:
                steps, cycles = taps, max(decode, 4 * area) * taps * depth
            else:
                steps = taps
                cycles = max(decode, own.ic // 8 * area) * taps * depth * wide // (2 if layer.sparse else 1)
            wait = 3 if layer.bits == 16 and chip.macs_per_cycle <= 128 and layer.kind not in POOLS else 2
            delay = 0
            if area == 1:
                delay = wait * steps if depth == 1 else wait * (steps - 1) * depth
            if block.kernel_first:
                delay *= units(own.ic, 8)
            total += cycles + delay
    return total * (units(layer.ic, own.ic) if layer.kind in FULL else 1)


def bursts(layer: Layer, block: Shape, chip: Chip) -> tuple[float, float]:
    """EstimateMemoryTransfer: bytes on the bus for a byte (read, written)."""
    wide, most = layer.bits // 8, chip.sram.burst_bytes
    read = 16 * wide * block.iw
    if layer.plain_in:
        read = wide * block.ic * (block.iw if layer.ic == block.ic else 1)
    write = 16 * wide * block.ow
    if layer.plain_out:
        whole = block.oc <= 16 and layer.oc == block.oc
        write = wide * block.ow * block.oc if whole else min(64, 16 * wide)
    return most / min(most, read), most / min(most, write)


def bricks(channels: int, plain: bool) -> int:
    """Channels as they lie in memory."""
    return channels if plain else 16 * units(channels, 16)


def an_element(layer: Layer, chip: Chip) -> float:
    """EstimateAOCyclesPerElement: the output stage, a pass more for each addition that rides."""
    pick = int(layer.bits == 16)
    own = (chip.max_pool_cycles if layer.kind == "max_pool" else chip.output_cycles)[pick]
    return own + (layer.chained * chip.add_cycles[pick] if chip.chains_adds else 0.0)


def work(layer: Layer, block: Shape, chip: Chip, staged: bool = False) -> Work:
    """EstimateMacOpCycles and MeasureElementAccess of one layer."""
    if layer.kind == "add":
        stored = layer.oh * layer.ow * bricks(layer.oc, layer.plain_out)
        return Work(0.0, 0.0, stored * chip.add_cycles[int(layer.bits == 16)], 0.0)
    own, wide = clipped(layer, block), layer.bits // 8
    whole = units(layer.oh, block.uh) * units(layer.ow, block.uw) * units(layer.oc, block.uc)
    count = whole / (units(own.oh, block.uh) * units(own.ow, block.uw) * units(own.oc, block.uc))
    mac = mac_block(layer, block, chip)
    output = ceil(an_element(layer, chip) * own.oh * own.ow * own.oc)
    latency = (chip.sram if staged else chip.flash).read_latency_cycles
    bias = chip.scale_bytes * own.oc * latency / 256 if layer.kind not in POOLS else 0.0
    slow = max(output, bias)
    read, write = bursts(layer, block, chip)
    rate = chip.sram.bytes_per_cycle
    first = chip.sram.read_latency_cycles + own.ih * own.iw * own.ic * wide * read / rate
    last = chip.sram.write_latency_cycles + own.oh * own.ow * own.oc * wide * write / rate
    issue = ((abs(last - first) if count > 1 else 0.0) + mac + slow) / 4
    slow_mac, slow_output = max(mac, issue), max(slow, issue)
    if slow_mac > slow_output:
        op = slow_mac * count + slow_output
    else:
        op = slow_output * count + slow_mac

    passes = units(layer.oh, own.oh) * units(layer.ow, own.ow)
    reads = own.ih * own.iw * bricks(layer.ic, layer.plain_in) * passes
    if layer.kind in FULL:
        reads *= units(layer.oc, own.oc)
    made = layer.oh * layer.ow * bricks(layer.oc, layer.plain_out)
    chained = layer.chained * made if chip.chains_adds else 0
    moved = wide * (reads * read + chained + made * write)
    return Work(mac * count + slow, output * count + mac, op + first + last, moved)


def encoded_bytes(layer: Layer, block: Shape, chip: Chip, per_weight: float) -> tuple[float, float]:
    """Bytes in flash of (weights, scales): a stream of its own, zeros that pad the shape to what the chip reads."""
    if layer.kind not in (*FULL, "depthwise"):
        return 0.0, 0.0
    taps, old = layer.kh * layer.kw, chip.family == "u55"
    deep_out = 8 * units(layer.oc, 8)
    if layer.kind == "depthwise":
        weights, zero = taps * layer.oc, 0.16
        padded = taps * deep_out if old else 10 * units(taps, 10) * 16 * units(layer.oc, 16)
    else:
        weights, zero = taps * layer.ic * layer.oc, 0.027 if layer.sparse else 0.07
        if old:
            padded = (4 * units(taps, 4) if block.kernel_first else taps) * 8 * units(layer.ic, 8) * deep_out
        elif block.kernel_first:
            step = 10 if layer.sparse else 5
            padded = step * units(taps, step) * 16 * units(layer.ic, 16) * deep_out
        else:
            deep = 128 if layer.sparse else 64
            padded = taps * deep * units(layer.ic, deep) * deep_out
    scales = 16 * units(10 * layer.oc, 16) if old else 10 * 16 * units(layer.oc, 16)
    return weights * per_weight + (padded - weights) * zero + 50 * chip.cores, scales


def unbuffered_cycles(layer: Layer, block: Shape, chip: Chip, per_weight: float = 1.0) -> float:
    """EstimateFullOpPerformance of a layer whose weights are read from flash: the longest of its three parts."""
    own = clipped(layer, block)
    done = work(layer, block, chip)
    passes = units(layer.oh, own.oh) * units(layer.ow, own.ow)
    flash = sum(encoded_bytes(layer, block, chip, per_weight)) * passes / chip.flash.bytes_per_cycle
    return max(done.op, done.sram_bytes / chip.sram.bytes_per_cycle, flash)
