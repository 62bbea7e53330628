"""Many networks priced at once, and our blocks and MAC cycles held against those that the compiler recorded."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.bench.labels import shown
from research.npu import Chip, Choices, LayerVerdict, Network, Verdict, cost, pad
from research.npu.blocks import Block, choose
from research.npu.cycles import op_cycles
from research.npu.liveness import sram_peak_kb
from research.npu.lowering import lower
from research.npu.referee import check_disable
from research.npu.rounding import EXACT
from research.npu.table import AVG_POOL, CONV, DENSE, DEPTHWISE, MAX_POOL, LayerTable

BATCH, ROWS = 16, 64
# {the compiler's switch: the argument of `plan`}
SWITCHES = {
    "Sparsity": "sparsity", "Grouping": "grouping", "WeightBuffering": "weight_buffering", "FMStaging": "fm_staging",
}  # fmt: skip
# {the compiler's switch: the choice that is 0 without it}
_CHOICE = {"Grouping": "fused", "WeightBuffering": "buffered"}
_OPERATORS = ("Conv2D", "DepthwiseConv2D", "FullyConnected", "MaxPool", "AvgPool")


class Priced(NamedTuple):
    """One network: cycles by the name of the tensor that a layer makes; `total` without those of the CPU."""

    cycles: dict[str, float]
    total: float
    sram_kb: float
    layers: tuple[Any, ...] = ()  # of a plan

    def cycles_of(self, name: str) -> float:
        """Cycles of one layer, 0 for one that there is not."""
        return self.cycles.get(name, 0.0)


class Agreement(NamedTuple):
    """Shares of `layers` whose MAC cycles are exact given the compiler's block, and whose block is the compiler's."""

    layers: int
    macs: float
    blocks: float


@partial(jax.jit, static_argnames="chip")
def _cycles(tables: LayerTable, chip: Chip, choices: Choices) -> tuple[jax.Array, jax.Array]:
    found = jax.vmap(lambda table, own: cost(table, chip, own))(tables, choices)
    return found.cycles, found.host_cycles


def price_all(networks: Sequence[Network], chip: Chip, without: str = "") -> list[Priced]:
    """The jitted cost of every network at a corner, in batches padded to a multiple of 64 rows.

    SRAM is that of the activations: buffers of weights are not in it.

    Args:
      without: one of the compiler's features switched off: "Sparsity", "Grouping", "WeightBuffering"; the cost has
        no "FMStaging".

    Raises:
      ValueError: any other name.
    """
    _check(without)
    if without == "FMStaging":
        raise ValueError("the jitted cost has no FMStaging: judge the planner with it")
    if without == "Sparsity":
        chip = dataclasses.replace(chip, sparse_2_4=False)
    order = sorted(range(len(networks)), key=lambda i: len(networks[i].names))
    found = dict[int, Priced]()
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        rows = -(-max(len(networks[i].names) for i in part) // ROWS) * ROWS
        full = [*part, *[part[-1]] * (BATCH - len(part))]
        tables = [networks[i].table for i in full]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *(pad(table, rows) for table in tables))
        none = {_CHOICE[without]: jnp.zeros_like(stacked.op)} if without in _CHOICE else {}
        cycles, host = _cycles(stacked, chip, Choices(**none))
        each, left = np.asarray(cycles, np.float64), np.asarray(host, np.float64)
        for i, layers, cpu in zip(part, each, left, strict=False):
            net = networks[i]
            own = (layers - cpu)[: len(net.names)].tolist()
            peak = sram_peak_kb(net.graph, bits=net.bits)
            found[i] = Priced(dict(zip(net.names, own, strict=True)), sum(own), peak)
    return [found[i] for i in range(len(networks))]


def plan_one(network: Network, chip: Chip, without: str = "") -> Priced:
    """The exact plan of one network, `without` one of the compiler's features (`referee.DISABLE`).

    Raises ValueError, one line, for any other name.
    """
    _check(without)
    planner = importlib.import_module("research.npu.plan")
    switches = {keyword: without != name for name, keyword in SWITCHES.items()}
    found = planner.plan(network, chip, **switches)
    cycles = dict[str, float]()
    for layer in found.layers:
        cycles[layer.name] = cycles.get(layer.name, 0.0) + float(layer.cycles)
    return Priced(cycles, sum(cycles.values()), float(found.sram_peak_kb), tuple(found.layers))


def _check(without: str) -> None:
    check_disable((without,) if without else ())


def plan_all(
    networks: Sequence[Network], chip: Chip, without: str = "", *, pool: Executor | None = None
) -> list[Priced]:
    """`plan_one` of every network, in the pool where there is one."""
    return list(shown(partial(plan_one, chip=chip, without=without), networks, f"{chip.name} plans", pool))


def has_planner() -> bool:
    """Whether there is an exact planner to judge."""
    return importlib.util.find_spec("research.npu.plan") is not None


def plans_agree(planned: Sequence[Priced], verdicts: Sequence[Verdict]) -> Agreement:
    """As `blocks_agree`, of plans: a layer's output block is the compiler's, and where it is, so are its MAC cycles."""
    same, exact = list[bool](), list[bool]()
    for ours, verdict in zip(planned, verdicts, strict=True):
        by_name = {layer.name: layer for layer in ours.layers}
        for said in verdict.layers:
            layer = by_name.get(said.name)
            if layer is None or said.op not in _OPERATORS or said.mac_cycles <= 0 or said.rows != 1:
                continue
            same.append(tuple(int(n) for n in tuple(layer.block)[:3]) == tuple(said.ofm_block))
            if same[-1]:
                exact.append(abs(float(layer.mac_cycles) - said.mac_cycles) <= 1 + 1e-6 * said.mac_cycles)
    return Agreement(len(same), float(np.mean(exact or [True])), float(np.mean(same or [True])))


def blocks_agree(networks: Sequence[Network], verdicts: Sequence[Verdict], chip: Chip) -> Agreement:
    """Compares every layer with a MAC array's work that the compiler runs as one operation of its own kind.

    MAC cycles are the same within the compiler's rounding: one cycle, or 1e-6 of them (float32).
    """
    pairs = [
        (network, network.names.index(layer.name), layer)
        for network, verdict in zip(networks, verdicts, strict=True)
        for layer in verdict.layers
        if layer.op in _OPERATORS and layer.mac_cycles > 0 and layer.rows == 1 and layer.name in network.names
    ]
    kinds = (CONV, DENSE, DEPTHWISE, MAX_POOL, AVG_POOL)
    pairs = [p for p in pairs if int(p[0].table.op[p[1]]) in kinds and float(p[0].table.repeats[p[1]]) == 1]
    if not pairs:
        return Agreement(0, 1.0, 1.0)
    columns = [
        np.array([np.asarray(getattr(n.table, f))[i] for n, i, _ in pairs]) for f in LayerTable._fields
    ]
    work = lower(LayerTable(*(jnp.asarray(c) for c in columns)), chip, EXACT)
    half = np.array([layer.weight_format == "Sparse2_4" for _, _, layer in pairs])
    said = _recorded([layer for _, _, layer in pairs], work, chip)
    exact, same = np.zeros(len(pairs), bool), np.zeros(len(pairs), bool)
    wanted = np.array([layer.mac_cycles for _, _, layer in pairs])
    for sparse in (False, True):
        ours = choose(work, chip, sparse=sparse)
        mac = np.asarray(op_cycles(work, said, chip, sparse=sparse, rounding=EXACT).mac, np.float64)
        fits = np.abs(mac - wanted) <= 1 + 1e-6 * wanted
        alike = np.all([np.asarray(a == b) for a, b in zip(ours[:3], said[:3], strict=True)], axis=0)
        exact, same = np.where(half == sparse, fits, exact), np.where(half == sparse, alike, same)
    return Agreement(len(pairs), float(exact.mean()), float(same.mean()))


def _recorded(layers: Sequence[LayerVerdict], work: LayerTable, chip: Chip) -> Block:
    """The compiler's blocks as ours; Ethos-U55 records no microblock."""
    ours = choose(work, chip, sparse=False)
    rows = np.array([(*layer.ofm_block, *layer.ifm_block) for layer in layers], np.float32)
    micro = [np.asarray(x) for x in (ours.uh, ours.uw, ours.uc)]
    if chip.family == "u85":
        micro = list(np.array([layer.microblock for layer in layers], np.float32).T)
    part = np.array([layer.traversal == "PartKernel" for layer in layers])
    return Block._make([*(jnp.asarray(c) for c in (*rows.T, *micro)), jnp.asarray(part)])
