"""The price of a network on a chip: milliseconds and where they go, one jitted and differentiable function.

Each layer takes the longest of: its NPU cycles (MAC array and output stage, plus waits for weights), and the
access cycles of each memory. Weights lie in flash. Where it pays they are copied to SRAM ahead of their
layer, under the cycles of the layer before it (ping-pong buffers); else the layer reads them from flash.
After `EstimateFullOpPerformance` and `ProposeSlicedWeightBuffering` of ethos-u-vela 5.2.0.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.npu import blocks, memory
from research.npu.blocks import Block
from research.npu.chip import Chip
from research.npu.cycles import Cycles, op_cycles
from research.npu.lowering import lower, on_host
from research.npu.rounding import EXACT, SMOOTH, Rounding
from research.npu.table import ADD, FREE, LayerTable

_SPLIT_DEPTH = 16.0  # channels of the thinnest slice of weights
_STARTUP_CYCLES = 1000.0  # waits below this are taken as noise by the compiler


class Cost(NamedTuple):
    """The price of one network; `ms` is a scalar, all else float32 [L], one entry a row of the table."""

    ms: jax.Array
    cycles: jax.Array
    npu_cycles: jax.Array
    mac_cycles: jax.Array
    output_cycles: jax.Array
    sram_cycles: jax.Array
    flash_cycles: jax.Array
    sram_bytes: jax.Array
    flash_bytes: jax.Array
    weight_bytes: jax.Array  # encoded, in flash
    scale_bytes: jax.Array  # biases and multipliers, in flash
    macs: jax.Array  # multiply-accumulates executed: half of a layer's where it runs as 2:4
    runs_sparse: jax.Array  # 1: the layer runs as 2:4 (a fraction where `sparse` is one)
    host_cycles: jax.Array  # of `cycles`, those of the CPU: a guess, where the compiler counts nothing


@partial(jax.jit, static_argnames=("chip", "straight_through"))
def cost(table: LayerTable, chip: Chip, *, straight_through: bool = False) -> Cost:
    """Prices a network.

    Args:
      table: the layers, fields of shape [L]. With `sparse` between 0 and 1 the price is interpolated.
      chip: static.
      straight_through: same values, but the gradient passes through the ceilings, so that a wider layer has a
        slope inside a step of the staircase too. Without it the gradient is that of the staircase.
    """
    rounding = SMOOTH if straight_through else EXACT
    work = lower(table, chip, rounding)
    dense = _variant(work, chip, rounding, sparse=False)
    share, mixed = jnp.zeros_like(table.sparse), dense
    if chip.sparse_2_4:
        half = _variant(work, chip, rounding, sparse=True)
        share = jnp.where(_takes_sparse(dense, half, work, chip), table.sparse, 0.0)
        mixed = jax.tree.map(lambda a, b: a + share * (b - a), dense, half)
    once = _finish(mixed, work, chip)
    fields = {name: value * work.repeats for name, value in once.items()}
    return Cost(
        ms=jnp.sum(fields["cycles"]) / chip.cycles_per_ms,
        **fields,
        macs=table.layer_macs * (1 - share / 2),
        runs_sparse=share,
        host_cycles=jnp.where(on_host(table, chip), fields["cycles"], 0.0),
    )


class _Variant(NamedTuple):
    """A layer's work in one weight format, float32 [L]."""

    cycles: Cycles
    encoded: memory.Encoded
    sram_read: jax.Array
    sram_write: jax.Array
    repeats: jax.Array
    block_depth: jax.Array


def _variant(table: LayerTable, chip: Chip, rounding: Rounding, *, sparse: bool) -> _Variant:
    block: Block = blocks.choose(table, chip, sparse=sparse)
    read, write = memory.feature_map_bytes(table, block, chip, rounding)
    return _Variant(
        cycles=op_cycles(table, block, chip, sparse=sparse, rounding=rounding),
        encoded=memory.encoded(table, block, chip, sparse=sparse, rounding=rounding),
        sram_read=read,
        sram_write=write,
        repeats=memory.spatial_repeats(table, block),
        block_depth=block.oc,
    )


def _takes_sparse(dense: _Variant, half: _Variant, table: LayerTable, chip: Chip) -> jax.Array:
    """Bool [L]: the compiler takes the 2:4 format only where it is no slower (EncodeBestWeightFormat)."""
    flash = chip.flash.bytes_per_cycle
    a = half.cycles.op + half.encoded.weights / flash
    b = dense.cycles.op + dense.encoded.weights / flash
    return blocks.whole_kernel(table) & (half.cycles.op <= dense.cycles.op) & (a <= b)


def _finish(work: _Variant, table: LayerTable, chip: Chip) -> dict[str, jax.Array]:
    """The fields of `Cost`, [L], of one of the `repeats` of every row."""
    op, enc, repeats = work.cycles.op, work.encoded, work.repeats
    sram, flash = chip.sram, chip.flash
    fetch = jnp.where(enc.total > 0, enc.total / flash.bytes_per_cycle + flash.read_latency_cycles, 0.0)
    slack = _slack(op, table, chip)
    buffered = _buffers(op, fetch, slack, work, chip)

    safe = jnp.maximum(fetch, 1.0)
    thinnest = jnp.minimum(_SPLIT_DEPTH / table.oc, 1.0)
    ahead = jnp.clip(slack / safe, thinnest, 1.0)  # share of the weights fetched before the layer starts
    own_slack = op * _last_slice(op, safe, ahead, thinnest)
    waits = jnp.maximum(op + jnp.maximum(ahead * fetch - slack, 0.0), fetch - slack + own_slack)
    npu = jnp.where(buffered, waits, op)

    moved = jnp.maximum(enc.weights - jnp.where(slack > 0, ahead * enc.total, 0.0), 0.0)
    flash_bytes = jnp.where(buffered, moved + enc.scales * repeats, enc.total * repeats) + table.constant
    sram_bytes = work.sram_read + work.sram_write + jnp.where(buffered, moved + enc.weights * repeats, 0.0)
    sram_cycles = sram_bytes / sram.bytes_per_cycle
    flash_cycles = flash_bytes / flash.bytes_per_cycle
    cycles = jnp.maximum(npu, jnp.maximum(sram_cycles, flash_cycles))
    held = enc.weights + enc.scales * repeats + table.constant
    return {
        "cycles": cycles, "npu_cycles": npu, "mac_cycles": work.cycles.mac, "output_cycles": work.cycles.output,
        "sram_cycles": sram_cycles, "flash_cycles": flash_cycles, "sram_bytes": sram_bytes,
        "flash_bytes": jnp.where(buffered, held, flash_bytes),
        "weight_bytes": enc.weights, "scale_bytes": enc.scales,
    }  # fmt: skip


def _last_slice(op: jax.Array, fetch: jax.Array, ahead: jax.Array, thinnest: jax.Array) -> jax.Array:
    """Share of a buffered layer that runs after its last weights arrived, [L]."""
    return jnp.where(ahead >= 1, 1.0, jnp.clip(jnp.minimum(1 - ahead, op * ahead / fetch), thinnest, 1.0))


def _slack(op: jax.Array, table: LayerTable, chip: Chip) -> jax.Array:
    """Cycles under which each layer's weights can be fetched: those of the layer that runs before it, [L]."""
    rides = (table.op == ADD) & (table.carried > 0) & chip.chains_adds
    runs = (table.op != FREE) & ~rides
    index = jnp.arange(op.shape[0])
    latest = jax.lax.cummax(jnp.where(runs, index, -1))
    before = jnp.concatenate([jnp.full((1,), -1), latest[:-1]])
    return jnp.where(before >= 0, op[jnp.maximum(before, 0)], 0.0)


def _buffers(op: jax.Array, fetch: jax.Array, slack: jax.Array, work: _Variant, chip: Chip) -> jax.Array:
    """Bool [L]: the weights are copied to SRAM because the layer is then no slower."""
    enc, repeats = work.encoded, work.repeats
    unmoved = fetch * repeats
    from_sram = (enc.total / chip.sram.bytes_per_cycle + chip.sram.read_latency_cycles) * repeats
    visible = jnp.maximum(fetch - slack - op, 0.0)
    dominated = op > unmoved
    new = jnp.maximum(op + jnp.where(dominated & (visible < _STARTUP_CYCLES), 0.0, visible), from_sram)
    old = jnp.maximum(op, unmoved)
    pays = (new <= old) & ((repeats > 1) | (fetch + from_sram <= old))
    return pays & (enc.total > 0)
