"""Where the time of a .tflite goes on a chip: every layer's cycles, what bounds it, bytes, utilisation, totals.

Ours is a simulation; beside it, when asked, stands Arm's compiler (the referee), which is an estimate too.
"""

import dataclasses
from typing import Any

import numpy as np

from research.npu.chip import Chip
from research.npu.cost import Cost
from research.npu.energy import energy_mj
from research.npu.liveness import sram_peak_kb
from research.npu.named import AnyChip, cost_on
from research.npu.network import Network, read_network
from research.npu.plan import plan
from research.npu.referee import referee_foreign
from research.npu.verdict import Verdict

_KB = 1024.0


@dataclasses.dataclass(frozen=True)
class LayerPrice:
    """One layer that costs something, here or by the referee.

    bound_by: "mac", "output", "wait" (for weights, or to fill and drain), "sram", "flash" or "cpu". utilisation:
    multiply-accumulates executed, of those that fit in its cycles. Cycles and bytes as in `Cost`.
    """

    name: str
    op: str
    cycles: float
    bound_by: str
    npu_cycles: float
    mac_cycles: float
    output_cycles: float
    sram_cycles: float
    flash_cycles: float
    sram_bytes: float
    flash_bytes: float
    macs: float
    utilisation: float
    sparse: bool
    referee_cycles: float | None = None
    against_cycles: float | None = None
    planned_cycles: float | None = None


@dataclasses.dataclass(frozen=True)
class Price:
    """One network on one chip. `mj` is modelled, never measured; None on a chip without an energy model."""

    chip: str
    ms: float
    cycles: float
    fps: float
    macs: float
    weights: int
    utilisation: float
    sram_peak_kb: float  # activations alone
    sram_traffic_kb: float
    flash_traffic_kb: float
    mj: float | None
    layers: tuple[LayerPrice, ...]
    referee_ms: float | None = None
    referee_sram_kb: float | None = None
    referee_elsewhere_cycles: float | None = None  # of operations that are no layer of ours
    referee_cpu_ops: int | None = None  # operators the compiler leaves to the CPU, and counts nothing for
    against: str | None = None
    against_ms: float | None = None
    planned_ms: float | None = None  # by the exact planner
    planned_sram_kb: float | None = None  # weight buffers included

    def as_dict(self) -> dict[str, Any]:
        """Numbers and words only, as JSON takes them."""
        return dataclasses.asdict(self)


def price(
    model: bytes | Network,
    chip: AnyChip,
    *,
    referee: bool = False,
    against: AnyChip | None = None,
    planned: bool = False,
    timeout_s: float = 120.0,
) -> Price:
    """Prices a network.

    Args:
      model: bytes of a quantised .tflite from anywhere, or what `read_network` made of it.
      chip: Ethos-U or systolic.
      referee: also ask the compiler, in a child process after the file was verified; needs the bytes.
      against: a second chip, whose cycles stand beside.
      planned: also what the exact planner says, for a chip that it knows.
      timeout_s: of the compiler.

    Raises:
      ValueError: a damaged file, a float network, a referee for a chip that has no compiler or a plan for one that
        has no exact tables.
      RuntimeError, TimeoutError, ModuleNotFoundError: as `referee_foreign`.
    """
    if referee and not isinstance(chip, Chip):
        raise ValueError(f"Arm's compiler knows no {chip.name}: leave out --referee")
    if referee and isinstance(model, Network):
        raise ValueError("the referee compiles the file: pass its bytes")
    if planned and not isinstance(chip, Chip):
        raise ValueError(f"the exact planner knows no {chip.name}: leave out --plan")
    network = model if isinstance(model, Network) else read_network(model)
    found = cost_on(network.table, chip)
    layers = list(layer_prices(network, found, chip))
    totals: dict[str, Any] = {}
    if against is not None:
        other = cost_on(network.table, against)
        cycles = dict(zip(network.names, np.asarray(other.cycles).tolist(), strict=True))
        layers = [dataclasses.replace(layer, against_cycles=cycles[layer.name]) for layer in layers]
        totals |= {"against": against.name, "against_ms": float(other.ms)}
    if planned and isinstance(chip, Chip):
        exact, own = plan(network, chip), dict[str, float]()
        for row in exact.layers:
            own[row.name] = own.get(row.name, 0.0) + row.cycles
        layers = [dataclasses.replace(layer, planned_cycles=own.get(layer.name)) for layer in layers]
        totals |= {"planned_ms": exact.ms, "planned_sram_kb": exact.sram_peak_kb}
    if referee and isinstance(chip, Chip) and not isinstance(model, Network):
        verdict = referee_foreign(model, chip, timeout_s=timeout_s)
        layers = _beside(layers, verdict)
        elsewhere = verdict.cycles - sum(layer.referee_cycles or 0.0 for layer in layers)
        totals |= {"referee_ms": verdict.ms, "referee_sram_kb": verdict.sram_kb}
        totals |= {"referee_elsewhere_cycles": elsewhere, "referee_cpu_ops": verdict.cpu_ops}
    layers = [
        one for one in layers if one.cycles > 0 or one.macs > 0 or (one.referee_cycles or one.planned_cycles or 0.0) > 0
    ]
    ms, macs = float(found.ms), float(found.macs.sum())
    cycles_all = float(found.cycles.sum())
    return Price(
        chip=chip.name, ms=ms, cycles=cycles_all, fps=1000 / ms if ms else 0.0, macs=float(network.table.macs),
        weights=network.weights, utilisation=macs / max(cycles_all * chip.macs_per_cycle, 1.0),
        sram_peak_kb=sram_peak_kb(network.graph, bits=network.bits),
        sram_traffic_kb=float(found.sram_bytes.sum()) / _KB, flash_traffic_kb=float(found.flash_bytes.sum()) / _KB,
        mj=float(energy_mj(found, macs, chip)) if isinstance(chip, Chip) else None,
        layers=tuple(layers), **totals,
    )  # fmt: skip


def layer_prices(network: Network, found: Cost, chip: AnyChip) -> tuple[LayerPrice, ...]:
    """All rows of a price, in the order of execution; those that run inside another one cost nothing."""
    columns = {
        name: np.asarray(value, np.float64) for name, value in found._asdict().items() if value.ndim == 1
    }
    out = []
    for i, (name, node) in enumerate(zip(network.names, network.graph.nodes, strict=True)):
        row = {field: float(values[i]) for field, values in columns.items()}
        kept = {f.name: row[f.name] for f in dataclasses.fields(LayerPrice) if f.name in row}
        used = row["macs"] / max(row["cycles"] * chip.macs_per_cycle, 1.0)
        sparse = row["runs_sparse"] > 0.5
        out.append(LayerPrice(name, node.op, bound_by=bound_by(row), utilisation=used, sparse=sparse, **kept))
    return tuple(out)


def bound_by(row: dict[str, float]) -> str:
    """What a layer's cycles are spent on, from its entries in `Cost`; on a tie the first of cpu, flash, sram."""
    if row["host_cycles"] > 0:
        return "cpu"
    for memory in ("flash", "sram"):
        if row[f"{memory}_cycles"] >= row["cycles"] > row["npu_cycles"]:
            return memory
    work = max(row["mac_cycles"], row["output_cycles"])
    if row["npu_cycles"] - work > work:
        return "wait"
    return "mac" if row["mac_cycles"] >= row["output_cycles"] else "output"


def _beside(layers: list[LayerPrice], verdict: Verdict) -> list[LayerPrice]:
    cycles = {layer.name: layer.cycles for layer in verdict.layers}
    return [dataclasses.replace(layer, referee_cycles=cycles.get(layer.name)) for layer in layers]
