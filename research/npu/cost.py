"""The price of a network on a chip: milliseconds and where they go, one jitted and differentiable function.

Each layer takes the longest of: its NPU cycles (MAC array and output stage, plus waits for weights), and the
access cycles of each memory. Weights lie in flash. Where it pays they are copied to SRAM ahead of their
layer, under the cycles of the layer before it (ping-pong buffers); else the layer reads them from flash.
After `EstimateFullOpPerformance` of ethos-u-vela 5.2.0; `buffering` has the rule of the buffers.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.npu import blocks, buffering, memory
from research.npu.chip import Chip
from research.npu.cycles import Cycles, op_cycles
from research.npu.lowering import lower, on_host, table_bytes
from research.npu.rounding import EXACT, SMOOTH, Rounding
from research.npu.table import ADD, FREE, LayerTable


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


@partial(jax.jit, static_argnames=("chip", "straight_through", "weight_buffering", "fast"))
def cost(
    table: LayerTable,
    chip: Chip,
    *,
    straight_through: bool = False,
    weight_buffering: bool = True,
    fast: bool = False,
) -> Cost:
    """Prices a network.

    Args:
      table: the layers, fields of shape [L]. With `sparse` between 0 and 1 the price is interpolated.
      chip: static.
      straight_through: same values, but the gradient passes through the ceilings, so that a wider layer has a
        slope inside a step of the staircase too. Without it the gradient is that of the staircase.
      weight_buffering: False: every layer reads its weights from flash, as with the compiler's switch of that name.
      fast: tries `blocks.FEW` block sizes only; research.bench.throughput says what that costs in fidelity.
    """
    return price_after(
        table, chip, None, straight_through=straight_through, weight_buffering=weight_buffering, fast=fast
    )[0]


def price_after(
    table: LayerTable, chip: Chip, before: jax.Array | None,
    *, straight_through: bool = False, weight_buffering: bool = True, fast: bool = False,
) -> tuple[Cost, jax.Array]:  # fmt: skip
    """`cost` of rows that follow others, and the cycles that they leave for the weights of the next row.

    Args:
      before: cycles that the row before leaves (scalar), below 0 or None: there is none.
    """
    rounding = SMOOTH if straight_through else EXACT
    work = lower(table, chip, rounding)
    dense = _variant(work, chip, rounding, sparse=False, fast=fast)
    share, mixed = jnp.zeros_like(table.sparse), dense.figures
    half = _variant(work, chip, rounding, sparse=True, fast=fast) if chip.sparse_2_4 else None
    if half is not None:
        share = jnp.where(_takes_sparse(dense.figures, half.figures, work, chip), table.sparse, 0.0)
        mixed = jax.tree.map(lambda a, b: a + share * (b - a), mixed, half.figures)

    layers = _Layer(work, dense.block, half.block if half else dense.block, share)
    run = partial(_cut, chip=chip, rounding=rounding)
    once, leaves = _finish(
        mixed, table, layers, run, chip, rounding, before, weight_buffering=weight_buffering
    )
    fields = {name: value * work.repeats for name, value in once.items()}
    found = Cost(
        ms=jnp.sum(fields["cycles"]) / chip.cycles_per_ms,
        **fields,
        macs=table.layer_macs * (1 - share / 2),
        runs_sparse=share,
        host_cycles=jnp.where(on_host(table, chip), fields["cycles"], 0.0),
    )
    return found, leaves[-1]


class _Figures(NamedTuple):
    """A layer's work in one weight format, float32 [L]."""

    cycles: Cycles
    staged: Cycles  # the same, weights read from SRAM
    encoded: memory.Encoded
    sram_read: jax.Array
    sram_write: jax.Array
    repeats: jax.Array
    block_depth: jax.Array
    granule: jax.Array
    input_once: jax.Array  # bytes


class _Variant(NamedTuple):
    """A weight format: its block and its figures, [L]."""

    block: blocks.Block
    figures: _Figures


class _Layer(NamedTuple):
    """What a layer is cut by, [L]."""

    row: LayerTable
    dense: blocks.Block
    half: blocks.Block
    share: jax.Array  # of 2:4


def _cut(
    layer: _Layer, depth: jax.Array, starts: jax.Array, ends: jax.Array, *, chip: Chip, rounding: Rounding
) -> jax.Array:
    """Cycles of a layer cut to `depth` channels, weights read from SRAM, its start and its end counted or not."""
    cut = layer.row._replace(oc=depth)
    cycles = partial(op_cycles, cut, chip=chip, rounding=rounding, staged=True, starts=starts, ends=ends)
    dense = cycles(layer.dense, sparse=False).op
    if not chip.sparse_2_4:
        return dense
    return dense + layer.share * (cycles(layer.half, sparse=True).op - dense)


def _variant(table: LayerTable, chip: Chip, rounding: Rounding, *, sparse: bool, fast: bool) -> _Variant:
    block = blocks.choose(table, chip, sparse=sparse, sizes=blocks.FEW if fast else blocks.GRID)
    cycles = partial(op_cycles, block=block, chip=chip, sparse=sparse, rounding=rounding)
    read, write = memory.feature_map_bytes(table, block, chip, rounding)
    figures = _Figures(
        cycles=cycles(table),
        staged=cycles(table, staged=True),
        encoded=memory.encoded(table, block, chip, sparse=sparse, rounding=rounding),
        sram_read=read,
        sram_write=write,
        repeats=memory.spatial_repeats(table, block),
        block_depth=block.oc,
        granule=jnp.maximum(block.uc, 16.0),
        input_once=memory.input_bytes(table, block, rounding),
    )
    return _Variant(block, figures)


def _takes_sparse(dense: _Figures, half: _Figures, table: LayerTable, chip: Chip) -> jax.Array:
    """Bool [L]: the compiler takes the 2:4 format only where it is no slower (EncodeBestWeightFormat)."""
    flash = chip.flash.bytes_per_cycle
    a = half.cycles.op + half.encoded.weights / flash
    b = dense.cycles.op + dense.encoded.weights / flash
    return blocks.whole_kernel(table) & (half.cycles.op <= dense.cycles.op) & (a <= b)


def _finish(
    work: _Figures, asked: LayerTable, layers: _Layer, run: buffering.Run[_Layer], chip: Chip, rounding: Rounding,
    before: jax.Array | None, *, weight_buffering: bool,
) -> tuple[dict[str, jax.Array], jax.Array]:  # fmt: skip
    """The fields of `Cost`, [L], of one of the `repeats` of every row; `asked`: the table before it was lowered."""
    table = layers.row
    enc, repeats, sram, flash = work.encoded, work.repeats, chip.sram, chip.flash
    rides = (table.op == ADD) & (table.carried > 0) & chip.chains_adds
    asks = buffering.Work(
        op=work.cycles.op, encoded=enc.total, refetches=repeats, channels=table.oc, block_depth=work.block_depth,
        granule=work.granule, whole=blocks.whole_kernel(table),
        input_cycles=work.input_once / sram.bytes_per_cycle + sram.read_latency_cycles,
    )  # fmt: skip
    plan = buffering.plan(asks, (table.op != FREE) & ~rides, layers, run, chip, rounding, before)
    buffered = plan.buffered & weight_buffering
    ahead = plan.first * enc.total
    wait = jnp.maximum(ahead / flash.bytes_per_cycle + flash.read_latency_cycles - plan.slack, 0.0)
    npu = jnp.maximum(plan.fetch - plan.slack + plan.last_cycles, work.staged.op + wait)
    npu = jnp.where(buffered, npu, work.cycles.op)
    values = table_bytes(asked)
    looked_up = values / flash.bytes_per_cycle + flash.read_latency_cycles
    hidden = jnp.where(buffered, 0.0, plan.slack)
    npu = npu + jnp.where(values > 0, jnp.maximum(looked_up - hidden, 0.0), 0.0)

    moved = jnp.maximum(enc.weights - jnp.where(plan.slack > 0, ahead, 0.0), 0.0)
    flash_bytes = jnp.where(buffered, moved + enc.scales * repeats, enc.total * repeats) + table.constant
    sram_bytes = work.sram_read + work.sram_write + jnp.where(buffered, moved + enc.weights * repeats, 0.0)
    sram_cycles = sram_bytes / sram.bytes_per_cycle
    flash_cycles = flash_bytes / flash.bytes_per_cycle
    cycles = jnp.maximum(npu, jnp.maximum(sram_cycles, flash_cycles))
    held = enc.weights + enc.scales * repeats + table.constant
    own = jax.tree.map(lambda a, b: jnp.where(buffered, a, b), work.staged, work.cycles)
    found = {
        "cycles": cycles, "npu_cycles": npu, "mac_cycles": own.mac, "output_cycles": own.output,
        "sram_cycles": sram_cycles, "flash_cycles": flash_cycles, "sram_bytes": sram_bytes,
        "flash_bytes": jnp.where(buffered, held, flash_bytes) + values,
        "weight_bytes": enc.weights, "scale_bytes": enc.scales,
    }  # fmt: skip
    return found, plan.leaves
