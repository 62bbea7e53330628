"""What the compiler will do with a network and how long that takes, exactly: `plan`, a reading of ethos-u-vela 5.2.0.

Plain Python, no gradients: `cost` is its smooth relative. A network becomes scheduled operations (`exact_lowering`,
`exact_groups`), each gets a block and a weight format (`exact_block`, `exact_weights`), slices of its weights
(`exact_buffers`) and a price (`exact_performance`); tensors get addresses (`exact_ranges`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from research.npu.chip import Chip
from research.npu.energy import FLASH_PJ_PER_BYTE, MAC_PJ, P_STATIC_MW, SCALE, SRAM_PJ_PER_BYTE
from research.npu.exact_buffers import Buffers, buffered
from research.npu.exact_groups import grouped, inner, lay_out, operation_of
from research.npu.exact_lowering import steps_of
from research.npu.exact_memory import access_bytes
from research.npu.exact_performance import Performance, full_performance
from research.npu.exact_ranges import Range, live_ranges, place
from research.npu.exact_steps import HOST, Area, Step
from research.npu.exact_weights import best_format
from research.npu.network import Network
from research.npu.operation import Block, Choice, Operation, Size, Where

_LAYOUT = frozenset({"MemoryCopy", "Transpose"})
_DEDICATED = "Dedicated_Sram"
_MJ_PER_PJ, _MJ_PER_UJ = 1e-9, 1e-3


@dataclasses.dataclass(frozen=True)
class PlannedLayer:
    """One scheduled operation; several can have the name of one tensor. Block: output rows, columns, channels."""

    name: str
    op: str
    riders: tuple[str, ...]
    cycles: int
    npu_cycles: int
    mac_cycles: int
    output_cycles: int
    access_cycles: dict[Where, int]
    moved_bytes: Mapping[Where, int]
    macs: int
    block: Size
    traversal: str
    weight_format: str  # "Sparse2_4", "Default", "Fast", or "" without weights
    weight_bytes: int  # encoded, in flash
    depth_slices: tuple[int, ...]
    buffering: Literal["None", "Single", "Double"]

    @property
    def bound_by(self) -> str:
        """"cpu", "flash", "sram", "mac", "output" or, where none of them explains half of its cycles, "wait"."""
        if self.op == HOST:
            return "cpu"
        for memory, cycles in reversed(self.access_cycles.items()):
            if cycles >= self.cycles > self.npu_cycles:
                return memory
        work = max(self.mac_cycles, self.output_cycles)
        if 2 * work < self.npu_cycles:
            return "wait"
        return "mac" if self.mac_cycles >= self.output_cycles else "output"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A network on a chip; `mj` is modelled, never measured. `ranges`: what lies in SRAM, by time and address."""

    chip: str
    layers: tuple[PlannedLayer, ...]
    cycles: int
    ms: float
    mj: float
    sram_peak_kb: float
    ranges: tuple[Range, ...]


def plan(
    network: Network, chip: Chip, *, sparsity: bool = True, grouping: bool = True, weight_buffering: bool = True,
    fm_staging: bool = True,
) -> Plan:  # fmt: skip
    """Plans a network for an Ethos-U.

    Args:
      network: of `read_network`, or of a graph whose weights nobody knows.
      sparsity, grouping, weight_buffering, fm_staging: the compiler's features; the last one only matters in the
        memory mode Dedicated_Sram.

    Raises:
      ValueError: one line, for a chip without exact tables.
    """
    groups = grouped(steps_of(network, chip), chip, grouping=grouping)
    spilling = chip.memory_mode.startswith(_DEDICATED)
    if spilling:
        _move(groups, "flash", inside=False)
    lay_out(groups, chip)
    ops = [operation_of(first) if first.kind != HOST else None for first in groups]
    none = Choice(None, None, False, False)
    choices = [none if op is None else best_format(op, chip, sparsity=sparsity) for op in ops]
    held, slack, idle = list[Buffers](), 0, True
    for index, (first, op, choice) in enumerate(zip(groups, ops, choices, strict=True)):
        if op is None:
            held.append(Buffers(None, "None", False, (), 0, 0))
        else:
            makers = first.ifm.area.makers
            movable = spilling and bool(makers) and makers[0].kind not in _LAYOUT
            held.append(
                buffered(
                    op, choice, chip, slack=slack, first=index == 0, starts=idle, movable=movable,
                    enabled=weight_buffering,
                )
            )
        slack, idle = held[-1].slack, op is None
    if spilling and fm_staging:
        _move(groups, "sram", inside=True)
        ops = [operation_of(first) if first.kind != HOST else None for first in groups]
    layers, before = list[PlannedLayer](), 0
    for first, op, choice, own in zip(groups, ops, choices, held, strict=True):
        layers.append(_layer(first, op, choice.block, own, before, chip))
        before = own.slack
    ranges = live_ranges(groups, held)
    cycles = sum(layer.cycles for layer in layers)
    peak = place(ranges) / 1024
    ms = cycles / chip.cycles_per_ms
    return Plan(chip.name, tuple(layers), cycles, ms, _energy_mj(layers, ms, chip), peak, tuple(ranges))


def _move(groups: list[Step], where: Where, *, inside: bool) -> None:
    """Moves feature maps to a memory; `inside`: only those that an operation makes and another one reads."""
    areas, hidden = set[Area](), set[Area]()
    for first in groups:
        hidden |= inner(first)
        for step in (first, *first.riders):
            areas |= {v.area for v in (*step.inputs, step.ofm) if not v.area.constant}
            if step.scratch is not None:
                areas.add(step.scratch)
    for area in areas - hidden if inside else areas:
        host = any(s.kind == HOST for s in (*area.makers, *area.readers))
        if not inside or (area.makers and area.readers and not area.result and not host):
            area.memory = where


def _layer(
    first: Step, op: Operation | None, block: Block | None, own: Buffers, before: int, chip: Chip
) -> PlannedLayer:
    riders = tuple(step.kind for step in first.riders)
    if op is None:
        return PlannedLayer(
            first.name, first.kind, riders, 0, 0, 0, 0, {}, {}, 0, (1, 1, 1), "", "", 0, (), "None"
        )
    staged, weights = own.buffering != "None", own.encoded
    found: Performance = full_performance(
        op, block, chip, weights, staged=staged, prebuffered=own.ahead, transfer_cycles=own.transfer,
        slack_before=before, slack=own.slack, lut_bytes=first.table_bytes,
    )  # fmt: skip
    said = "" if weights is None else "Sparse2_4" if weights.sparse else "Fast" if weights.fast else "Default"
    ahead = weights.ranges[0] if weights is not None and own.ahead else 0
    moved = access_bytes(op, block, chip, weights, staged=staged, first_bytes=ahead)
    return PlannedLayer(
        first.name, first.kind, riders, found.total, found.npu, found.cycles.mac, found.cycles.output,
        {where: access.total for where, access in found.access.items()}, moved, found.cycles.macs,
        block.ofm if block else (1, 1, 1), block.traversal if block else "", said,
        weights.weight_bytes if weights else 0, weights.slices if weights else (0, op.depth), own.buffering,
    )  # fmt: skip


def _energy_mj(layers: list[PlannedLayer], ms: float, chip: Chip) -> float:
    """The model of `energy.energy_mj`, of a plan."""
    sram, flash = (sum(layer.moved_bytes.get(where, 0) for layer in layers) for where in ("sram", "flash"))
    work = MAC_PJ * sum(layer.macs for layer in layers) + SRAM_PJ_PER_BYTE * sram + FLASH_PJ_PER_BYTE * flash
    return P_STATIC_MW * ms * _MJ_PER_UJ + SCALE * chip.energy_scale * work * _MJ_PER_PJ
