"""What one operation moves, and how long its memories take for it, exactly.

After `MeasureElementAccess`, `EstimateMemoryTransfer`, `ElementTransferToBytes`, `ChannelBW`, `MeasureAccessCycles`
and `MemToMemCycles` of `ethos_u85_performance.cpp` and `ethos_u55_performance.cpp`, ethos-u-vela 5.2.0.
"""

import dataclasses
from math import prod
from typing import Literal

import numpy as np

from research.npu.chip import Chip, Memory
from research.npu.exact_geometry import SUBKERNEL, input_extent, reach, up, upscaling
from research.npu.exact_tables import BINARY, CHANNELS, tables85, unit_of
from research.npu.operation import (
    FUSED,
    Access,
    Block,
    Elements,
    Encoded,
    FeatureMap,
    Operation,
    Rider,
    Size,
    Where,
)

Channel = Literal["ifm", "weights", "fast_weights", "stream", "scales", "copy", "write"]
_PLAIN_WRITE_BITS = 64 * 8


def memory_of(chip: Chip, where: Where) -> Memory:
    """The memory of that name."""
    return chip.sram if where == "sram" else chip.flash


def sliced(op: Operation, depth: int, area: tuple[int, int] | None = None) -> Operation:
    """The operation, with what is fused, on so many output channels and on rows and columns, with the input that
    it needs for them."""
    op = op.alone
    rows, columns = area or op.ofm.shape[:2]
    upscale, rounding = upscaling(op)
    needed = [
        min(input_extent(n, s, k, upscale, rounding), have)
        for n, s, k, have in zip((rows, columns), op.stride, reach(op), op.ifm.shape[:2], strict=True)
    ]
    ofm = dataclasses.replace(op.ofm, shape=(rows, columns, depth))
    return dataclasses.replace(
        op, ofm=ofm, ifm=dataclasses.replace(op.ifm, shape=(needed[0], needed[1], op.ifm.shape[2]))
    )


def burst_bytes(fm: FeatureMap, block: Size, chip: Chip, *, read: bool) -> int:
    """Bytes of a burst that a block of a feature map is moved in; at most those of the memory."""
    bits, (_, width, depth) = fm.bits, block
    if fm.brick:
        # A block as deep as a row of bricks has bytes counts as one burst.
        row = fm.shape[1] * bits * 16 // 8
        length = bits * width * (depth if row == depth else 16)
    else:
        pixel = fm.shape[2] * bits // 8
        if pixel == depth and (read or depth <= 16):
            length = bits * width * depth
        else:
            length = bits * depth if read else min(_PLAIN_WRITE_BITS, 16 * bits, depth * bits)
    return min(int(memory_of(chip, fm.memory).burst_bytes), length // 8)


def transfer(fm: FeatureMap, block: Size, elements: int, chip: Chip, *, read: bool) -> int:
    """Bytes that moving so many elements costs, short bursts counted in full (EstimateMemoryTransfer)."""
    longest = int(memory_of(chip, fm.memory).burst_bytes)
    return elements * fm.bits // 8 * longest // burst_bytes(fm, block, chip, read=read)


def first_input_cycles(op: Operation, block: Block, chip: Chip) -> int:
    """Cycles to read the first input block, of the slower of two inputs (MinimumIfmCycles)."""
    bits, most = op.ifm.bits, 0
    for fm in (op.ifm, op.ifm2):
        if fm is not None:
            memory, inside = memory_of(chip, fm.memory), _clipped(fm.shape, block.ifm)
            size = transfer(dataclasses.replace(fm, bits=bits), block.ifm, prod(inside), chip, read=True)
            most = max(most, int(memory.read_latency_cycles) + _over(size, memory.bytes_per_cycle))
    return most


def last_output_cycles(op: Operation, block: Block, chip: Chip) -> int:
    """Cycles to write one output block (MinimumOfmCycles)."""
    memory, inside = memory_of(chip, op.ofm.memory), _clipped(op.ofm.shape, block.ofm)
    size = transfer(op.ofm, block.ofm, prod(inside), chip, read=False)
    return int(memory.write_latency_cycles) + _over(size, memory.bytes_per_cycle)


def _clipped(shape: Size, block: Size) -> Size:
    return min(shape[0], block[0]), min(shape[1], block[1]), min(shape[2], block[2])


def _over(size: int, rate: float) -> int:
    """Cycles of a transfer, in single precision as the compiler counts them."""
    return int(np.float32(size) / np.float32(rate))


def _stored(fm: FeatureMap, *, brick: bool | None = None) -> int:
    """Elements of a feature map with the channels that bricks are filled up with."""
    h, w, c = fm.shape
    return h * w * (up(c, 16) if (fm.brick if brick is None else brick) else c)


def elements(
    op: Operation, block: Block, chip: Chip, *, area: tuple[int, int] | None = None, depth: int | None = None
) -> Elements:
    """Elements that an operation reads and writes, repeats counted (MeasureElementAccess).

    Args:
      area, depth: rows and columns, and channels, of the part that is asked for; None: all.
    """
    riders = op.riders if chip.family == "u85" else ()
    if area is not None or depth is not None:
        op = sliced(op, op.depth if depth is None else depth, area)
    op = op.alone
    unit = unit_of(op.kind, chip)
    ifm = ifm2 = scratch = refetches = 0
    brick = op.ifm.brick
    if unit in ("conv", "depthwise", "pool", "reduce_sum"):
        inside, made = _clipped(op.ifm.shape, block.ifm), _clipped(op.ofm.shape, block.ofm)
        over = [-(-n // m) for n, m in zip(op.ofm.shape, made, strict=True)]
        if unit in ("depthwise", "pool"):
            over[2] = 1
        kernels = prod(-(-k // SUBKERNEL) for k in op.kernel)
        deep = up(op.ifm.shape[2], 16) if brick else op.ifm.shape[2]
        ifm = inside[0] * inside[1] * deep * kernels * prod(over)
        refetches = over[0] * over[1] if unit in ("conv", "depthwise") else 0
    elif unit == "elementwise":
        ifm, ifm2 = _element_reads(op, chip)
    elif unit == "resize":
        ifm = _stored(op.ifm)
    elif op.kind == "MatMul" and op.ifm2 is not None:
        ifm, ifm2 = op.ifm.elements * op.ifm2.shape[1], op.ifm2.elements
        scratch = ifm
    elif unit == "compound":
        ifm = op.ifm.elements
    own = _stored(op.ofm) if op.written or chip.family == "u55" else 0
    moves = [_rider_moves(riders[i:]) for i in range(len(riders))]
    return Elements(ifm, ifm2, own, scratch, refetches, tuple(m[0] for m in moves), tuple(m[1] for m in moves))


def _rider_moves(riders: tuple[Rider, ...]) -> tuple[int, int]:
    """(read, written) elements of the first of some riders.

    Only its first tensor in memory is counted, an operand before the result; the result of one that others are
    fused with is theirs.
    """
    rider = riders[0]
    if rider.other is not None:
        return (_stored(rider.other) if rider.other.elements > 1 else 0), 0
    for after in riders[1:]:
        if after.kind not in FUSED:
            break
        rider = after
    return 0, _stored(rider.moved) if rider.written else 0


def _element_reads(op: Operation, chip: Chip) -> tuple[int, int]:
    """Elements that an element-wise operation reads of each input; a number comes with the command."""
    second, brick = op.ifm2, op.ifm.brick
    if chip.family == "u85":
        reads, scalar = [0, 0], False
        for i, fm in enumerate((op.ifm, second)):
            if fm is not None and (fm.elements > 1 or scalar):
                reads[i] = _stored(fm, brick=brick)
            scalar |= fm is not None and fm.elements == 1
        return reads[0], reads[1]
    whole = _stored(op.ofm, brick=brick)
    if op.ifm.elements == 1:
        if op.ifm.bits > 8:
            return _stored(op.ifm), 0
        return 0, whole if second is not None else 0
    if second is None or (second.elements == 1 and second.bits <= 8):
        return whole, 0
    return whole, whole if second.elements > 1 else _stored(second, brick=brick)


def moved_bytes(op: Operation, block: Block | None, chip: Chip, count: Elements) -> Elements:
    """`count` in bytes, with what short bursts waste (ElementTransferToBytes)."""
    inside, outside = ((1, 1, 1), (1, 1, 1)) if block is None else (block.ifm, block.ofm)
    riders = op.riders if chip.family == "u85" else ()
    op = op.alone
    second = 0 if op.ifm2 is None else transfer(op.ifm2, inside, count.ifm2, chip, read=True)
    return Elements(
        transfer(op.ifm, inside, count.ifm, chip, read=True),
        second,
        transfer(op.ofm, outside, count.ofm, chip, read=False),
        count.scratch,
        count.refetches,
        tuple(
            0 if r.other is None else transfer(r.other, inside, n, chip, read=True)
            for r, n in zip(riders, count.other, strict=True)
        ),
        tuple(
            transfer(r.moved, outside, n, chip, read=False) for r, n in zip(riders, count.made, strict=True)
        ),
    )


def bandwidth(chip: Chip, where: Where, channel: Channel | None) -> np.float32:
    """Bytes a cycle of a memory through one channel of the NPU (ChannelBW); Ethos-U55 knows no such limits."""
    memory, f32 = memory_of(chip, where), np.float32
    whole = f32(memory.bytes_per_cycle)
    if chip.family == "u55" or channel is None:
        return whole
    latency, in_flight, own = memory.read_latency_cycles, memory.reads_in_flight, f32(np.inf)
    if channel == "write":
        latency, in_flight = memory.write_latency_cycles, memory.writes_in_flight
    else:
        requests = tables85(chip).channel_requests[CHANNELS.index(channel)]
        own = f32(requests) / f32(max(int(memory.burst_bytes) // 16, 1))
    use = min(own, f32(in_flight * memory.ports * 0.8))
    if latency == 0:
        return whole
    return min(whole, f32(float(f32(memory.burst_bytes) * use / f32(latency)) * 0.8))


def read_cycles(size: float, chip: Chip, where: Where, channel: Channel) -> int:
    """Cycles until so many bytes are read, the first answer's latency included (MinReadCycles)."""
    return int(size / float(bandwidth(chip, where, channel)) + memory_of(chip, where).read_latency_cycles)


def copy_cycles(
    size: int, chip: Chip, *, source: Where = "flash", target: Literal["sram", "flash", "lut"] = "sram"
) -> int:
    """Cycles of a DMA of so many bytes (MemToMemCycles); the tables' RAM takes a byte a cycle."""
    f32 = np.float32
    read = int(f32(size) / bandwidth(chip, source, "copy")) + int(memory_of(chip, source).read_latency_cycles)
    if target == "lut":
        return max(read, size)
    write = int(f32(size) / bandwidth(chip, target, "write"))
    return max(read, write + int(memory_of(chip, target).write_latency_cycles))


def input_channel(kind: str, *, second: bool = False) -> Channel:
    """The channel that an input comes through (LookupChannel)."""
    streamed = kind == "Resize" or kind in BINARY or kind in _UNARY or (second and kind == "MatMul")
    return "stream" if streamed else "ifm"


_UNARY = frozenset({"Abs", "Gelu", "Elu", "LeakyRelu", "CLZ", "LogicalNot", "Not", "Neg"})


def access_cycles(
    op: Operation, block: Block | None, chip: Chip, encoded: Encoded | None = None, *, staged: bool = False,
    first_bytes: int = 0,
) -> dict[Where, Access]:  # fmt: skip
    """Cycles that each memory takes for an operation and all that rides on it (MeasureAccessCycles).

    Args:
      encoded: its weights and scales, None: it has none.
      staged: the weights are copied to SRAM, while it runs but for `first_bytes` of them.
    """
    lines = _lines(op, block, chip, encoded, staged, first_bytes)
    places: tuple[Where, Where] = ("sram", "flash")
    return {where: _access(chip, where, [line[1:] for line in lines if line[0] == where]) for where in places}


def access_bytes(
    op: Operation, block: Block | None, chip: Chip, encoded: Encoded | None = None, *, staged: bool = False,
    first_bytes: int = 0,
) -> dict[Where, int]:  # fmt: skip
    """Bytes that each memory moves for an operation; arguments as for `access_cycles`."""
    lines = _lines(op, block, chip, encoded, staged, first_bytes)
    return {where: sum(line[3] for line in lines if line[0] == where) for where in ("sram", "flash")}


def _lines(
    op: Operation, block: Block | None, chip: Chip, encoded: Encoded | None, staged: bool, first_bytes: int
) -> list[tuple[Where, Channel, str, int]]:
    """(memory, channel, what, bytes) of all that is moved."""
    count = elements(op, block, chip) if block is not None else _copied(op)
    moved = moved_bytes(op, block, chip, count)
    lines: list[tuple[Where, Channel, str, int]] = [
        (op.ifm.memory, input_channel(op.kind), "maps", moved.ifm),
        (op.stored.memory, "write", "maps", moved.ofm),
    ]
    if op.ifm2 is not None:
        lines.append((op.ifm2.memory, input_channel(op.kind, second=True), "maps", moved.ifm2))
    for rider, read, written in zip(op.riders, moved.other, moved.made, strict=False):
        if rider.other is not None:
            lines.append((rider.other.memory, input_channel(rider.kind), "maps", read))
        else:
            lines.append((rider.ofm.memory, "write", "maps", written))
    if op.scratch is not None:
        lines.append((op.scratch, "stream", "maps", moved.scratch))
        lines.append((op.scratch, "write", "maps", moved.scratch))
    if encoded is not None:
        fetched = count.refetches * encoded.weight_bytes
        channel: Channel = "fast_weights" if encoded.fast else "weights"
        if staged:
            late = max(encoded.weight_bytes - first_bytes, 0)
            lines.append(("flash", "copy", "weights", late))
            lines.append(("sram", "write", "weights", late))
            lines.append(("sram", channel, "weights", fetched))
        else:
            lines.append(("flash", "weights", "weights", fetched))
        lines.append(("flash", "scales", "scales", count.refetches * encoded.scale_bytes))
    return lines



def _copied(op: Operation) -> Elements:
    """What a Gather or a Scatter reads: as many positions as indices."""
    return Elements(op.ofm.elements, op.ofm.elements, _stored(op.ofm), 0, 0)


def _access(chip: Chip, where: Where, lines: list[tuple[Channel, str, int]]) -> Access:
    """A memory's cycles: its whole bandwidth or the busiest channel, whichever takes longer."""
    rate = memory_of(chip, where).bytes_per_cycle
    by_channel: dict[tuple[Channel, str], int] = {}
    for channel, group, size in lines:
        by_channel[channel, group] = by_channel.get((channel, group), 0) + size
    cycles = {key: int(np.float32(size) / bandwidth(chip, where, key[0])) for key, size in by_channel.items()}
    busiest: dict[Channel, int] = {}
    for (channel, _), own in cycles.items():
        busiest[channel] = busiest.get(channel, 0) + own

    def of(group: str) -> int:
        size = sum(n for key, n in by_channel.items() if key[1] == group)
        slowest = max((n for key, n in cycles.items() if key[1] == group), default=0)
        return max(_over(size, rate), slowest)

    total = max(_over(sum(by_channel.values()), rate), max(busiest.values(), default=0))
    return Access(total, of("maps"), of("weights"), of("scales"))
