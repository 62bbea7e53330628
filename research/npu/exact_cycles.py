"""Cycles of one operation on the NPU when no memory holds it up, exactly: MAC array, output stage, commands.

After `EstimateMacCyclesPerBlock`, `EstimateMacOpCycles`, `EstimateElementwiseCycles`, `EstimateMatMulCycles` and
`EstimateAOCyclesPerElement` of `ethos_u85_performance.cpp` and `ethos_u55_performance.cpp`, ethos-u-vela 5.2.0.
"""

import dataclasses
from math import ceil, prod

from research.npu.chip import Chip
from research.npu.exact_geometry import SUBKERNEL, up
from research.npu.exact_memory import (
    elements,
    first_input_cycles,
    last_output_cycles,
    memory_of,
    moved_bytes,
    sliced,
)
from research.npu.exact_tables import BINARY, tables55, tables85, unit_of
from research.npu.operation import FUSED, Block, Cycles, FeatureMap, Operation, Size

_WEIGHT_BITS_A_CYCLE = 32
_SCALE_BYTES, _READ_BITS = 10, 256


def op_cycles(
    op: Operation, block: Block | None, chip: Chip, *, sparse: bool = False, staged: bool = False,
    area: tuple[int, int] | None = None, depth: int | None = None, starts: bool = True, ends: bool = True,
) -> Cycles:  # fmt: skip
    """Cycles of an operation, or of a part of it (MeasureCycleCost).

    Args:
      sparse: with 2:4 weights.
      staged: its weights come from SRAM.
      area, depth: output rows and columns, and channels, of the part; None: all.
      starts, ends: the first input block, and the last output block, are counted.
    """
    unit = unit_of(op.kind, chip)
    if block is None or unit == "dma":
        return Cycles(0, 0, 0, 0, 0)
    if unit == "compound" and op.kind == "Transpose":
        return _turned_cycles(op, block, chip)
    if unit != "compound":
        each = output_cycles(op, block, chip)
    if area is not None or depth is not None:
        op = sliced(op, op.depth if depth is None else depth, area)
    op = op.alone
    if unit in ("elementwise", "resize"):
        return _element_cycles(op, block, chip, each)
    if op.kind == "MatMul" and unit == "compound" and block.first is not None and op.ifm2 is not None:
        return _product_cycles(op, block, block.first, op.ifm2, chip, starts, ends)
    if unit == "compound":
        raise ValueError(f"{op.name}: a {op.kind} has no cycles of its own on {chip.name}")
    return _mac_cycles(op, block, chip, each, sparse, staged, starts, ends)


def _clipped(shape: Size, block: Size) -> Size:
    return min(shape[0], block[0]), min(shape[1], block[1]), min(shape[2], block[2])


def _micro(op: Operation, block: Block, chip: Chip) -> Size:
    """The microblock; on Ethos-U55 one of two rows is laid flat for an output of one row (GetOfmMicroBlock)."""
    flat = block.micro[0] == 2 and op.ofm.shape[0] == 1 and op.ofm.shape[1] % 2 == 0 and op.kernel[0] == 1
    if chip.family == "u55" and unit_of(op.kind, chip) == "conv" and flat:
        return 1, 4, block.micro[2]
    return block.micro


def _block_cycles(op: Operation, block: Block, chip: Chip, sparse: bool) -> int:
    """Cycles of the MAC array for one output block (EstimateMacCyclesPerBlock)."""
    unit, bits = unit_of(op.kind, chip), op.ifm.bits
    inside, made, micro = _clipped(op.ifm.shape, block.ifm), _clipped(op.ofm.shape, block.ofm), _micro(op, block, chip)
    rows, columns, deep = (-(-n // m) for n, m in zip(made, micro, strict=True))
    pixels, eighths = rows * columns, -(-inside[2] // 8)
    weights = _WEIGHT_BITS_A_CYCLE * micro[2] // (8 * (chip.cores if chip.family == "u85" else 1))
    halved = 2 if sparse else 1
    part = block.traversal == "PartKernel" and unit == "conv"
    wait = 3 if block.acc_bits > 32 and chip.macs_per_cycle <= 128 else 2
    total = 0
    for x in range(0, op.kernel[1], SUBKERNEL):
        for y in range(0, op.kernel[0], SUBKERNEL):
            window = min(op.kernel[0] - y, SUBKERNEL) * min(op.kernel[1] - x, SUBKERNEL)
            if unit == "pool":
                steps, cycles = 1, max(4, window) * pixels * deep * (bits // 2)
            elif unit == "depthwise":
                steps = -(-window // 4)
                cycles = max(weights, 4 * pixels * (bits // 8)) * steps * deep
            elif part:
                steps = -(-window // (2 if bits == 16 else 4))
                cycles = max(weights, 4 * pixels) * steps * deep * eighths // halved
            elif chip.family == "u85":
                steps = window
                cycles = max(weights, inside[2] // 8 * pixels) * steps * deep * (bits // 8) // halved
            else:
                steps = window
                cycles = max(weights, 4 * pixels) * steps * deep
            delay = 0
            if pixels == 1:
                delay = wait * steps if deep == 1 else wait * (steps - 1) * deep
            total += cycles + delay * (eighths if part else 1)
    if unit in ("conv", "reduce_sum"):
        total *= -(-op.ifm.shape[2] // inside[2])
    return total


def _mac_cycles(
    op: Operation, block: Block, chip: Chip, each: float, sparse: bool, staged: bool, starts: bool, ends: bool
) -> Cycles:  # fmt: skip
    """EstimateMacOpCycles; `each`: cycles an element of the output stage."""
    unit, micro = unit_of(op.kind, chip), _micro(op, block, chip)
    made = _clipped(op.ofm.shape, block.ofm)
    micros = prod(-(-n // m) for n, m in zip(made, micro, strict=True))
    blocks = prod(-(-n // m) for n, m in zip(op.ofm.shape, micro, strict=True)) / micros
    output = float(ceil(each * prod(made)))
    held = output
    if unit in ("conv", "depthwise") and op.kind != "MatMul":
        latency = memory_of(chip, "sram" if staged else "flash").read_latency_cycles
        held = max(output, float(_SCALE_BYTES) * made[2] * latency / _READ_BITS)
    mac = float(_block_cycles(op, block, chip, sparse))
    first, last = first_input_cycles(op, block, chip), last_output_cycles(op, block, chip)
    command = ((abs(last - first) if blocks > 1 else 0) + mac + held) / 4
    slow_mac, slow_output = max(mac, command), max(held, command)
    if slow_mac > slow_output:
        total = int(slow_mac * blocks)
        total = int(total + slow_output) if ends else total
    else:
        total = int(slow_output * blocks + slow_mac)
    total += last * ends + first * starts
    macs = prod(op.kernel) * op.ofm.elements
    macs *= op.ifm.shape[2] if unit in ("conv", "reduce_sum") else 1
    return Cycles(
        total, int(mac * blocks + held), int(output * blocks + mac), int(command), macs // (2 if sparse else 1)
    )


def _element_cycles(op: Operation, block: Block, chip: Chip, each: float) -> Cycles:
    h, w, c = op.ofm.shape
    count = h * w * (up(c, 16) if op.ofm.brick else c)
    output = ceil(each * count)
    slowest = float(max(last_output_cycles(op, block, chip), first_input_cycles(op, block, chip)))
    command = ceil((slowest / prod(block.ofm) + each) / 4.0 * count)
    return Cycles(max(command, output), 0, output, command, 0)


def _product_cycles(
    op: Operation, block: Block, first: Block, second: FeatureMap, chip: Chip, starts: bool, ends: bool
) -> Cycles:
    """A product of matrices on Ethos-U55: for each column, an element-wise product and the sum of its channels."""
    where = op.scratch or "sram"
    product = dataclasses.replace(
        op, kind="Mul", ifm2=dataclasses.replace(second, shape=op.ifm.shape),
        ofm=dataclasses.replace(op.ofm, shape=op.ifm.shape, bits=32, memory=where),
    )  # fmt: skip
    summed = dataclasses.replace(
        op, kind="ReduceSum", ifm2=None, ifm=dataclasses.replace(op.ifm, memory=where),
        ofm=dataclasses.replace(op.ofm, shape=(*op.ifm.shape[:2], 1)),
    )  # fmt: skip
    parts = (
        _element_cycles(product, first, chip, output_cycles(product, first, chip)),
        _mac_cycles(summed, block, chip, output_cycles(summed, block, chip), False, False, starts, ends),
    )
    total, _, output, command, macs = (sum(part) * second.shape[1] for part in zip(*parts, strict=True))
    return Cycles(total, 0, output, command, macs)  # the compiler reports no MAC cycles of such an operation


def _turned_cycles(op: Operation, block: Block, chip: Chip) -> Cycles:
    """A transpose on Ethos-U55: as long as its memories take."""
    moved = moved_bytes(op, block, chip, elements(op, block, chip))
    source, target = memory_of(chip, op.ifm.memory), memory_of(chip, op.stored.memory)
    read = int(moved.ifm / source.bytes_per_cycle) + int(source.read_latency_cycles)
    write = int(moved.ofm / target.bytes_per_cycle) + int(target.write_latency_cycles)
    return Cycles(max(read, write), 0, 0, 0, 0)


def output_cycles(op: Operation, block: Block, chip: Chip) -> float:
    """Cycles an element of the output stage, with all that rides on the operation (EstimateAOCyclesPerElement)."""
    if chip.family == "u55":
        return _output55(op, block, chip)
    tables = tables85(chip)
    if op.kind in FUSED:
        half = op.reverse == "W" or op.transpose in ("NWHC", "NWCH", "NCWH")
        passes = [tables.activation_cycles[half]]
    else:
        passes = [_pass85(op.kind, op.ifm, op.ofm, chip, chained=not op.written)]
    for rider in op.riders:
        if rider.kind in FUSED:
            passes[-1] = max(passes[-1], tables.activation_cycles[rider.half_rate])
        else:
            source = FeatureMap(rider.ofm.shape, rider.ifm_bits)
            passes.append(_pass85(rider.kind, source, rider.ofm, chip, chained=not rider.written))
    return sum(passes)


def _pass85(kind: str, ifm: FeatureMap, ofm: FeatureMap, chip: Chip, *, chained: bool) -> float:
    tables = tables85(chip)
    if kind == "Div":
        return 33.0
    if kind == "Resize":
        ratio = min((o + i // 2) // i for i, o in zip(ifm.shape[:2], ofm.shape[:2], strict=True))
        rates = tables.resize_high if ratio >= chip.macs_per_cycle // 512 else tables.resize_low
        return rates[ifm.bits != 8]
    if chained and 32 in (ifm.bits, ofm.bits):
        return tables.output_cycles[4]
    if ofm.bits == 64:
        return tables.output_cycles[3]
    if kind in BINARY and ifm.bits == 32:
        return tables.output_cycles[5 if ofm.bits == 32 else 4]
    return tables.output_cycles[{32: 2, 16: 1}.get(ofm.bits, 0)]


def _output55(op: Operation, block: Block, chip: Chip) -> float:
    tables, element = tables55(chip), unit_of(op.kind, chip) == "elementwise"
    if element and op.ifm.bits == 32:
        index = 1 if op.ifm2 is not None else 0
    elif op.kind == "Mul":
        index = 2 if op.ofm.bits == 32 else 3
    elif not element and block.acc_bits == 40:
        index = 3
    elif op.kind in ("Add", "Sub"):
        index = 5
    else:
        index = 6 if op.kind == "MaxPool" else 7
    rides = op.riders[0].kind if op.riders else ""
    if rides in ("Sigmoid", "Tanh", "LUT"):
        activation = tables.activation_cycles[0]
    elif rides in ("Relu", "Relu0To1", "Relu6", "ReluN1To1"):
        activation = tables.activation_cycles[1]
    else:
        activation = tables.activation_cycles[2]
    return max(tables.output_cycles[index], activation)
