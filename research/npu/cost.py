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
from research.npu.choices import Choices, between, both_widths, chosen
from research.npu.cycles import Cycles, op_cycles
from research.npu.lowering import lower, on_host, table_bytes
from research.npu.rounding import EXACT, Rounding
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


@partial(jax.jit, static_argnames=("chip", "rounding", "fast"))
def cost(
    table: LayerTable, chip: Chip, choices: Choices | None = None, *, rounding: Rounding = EXACT, fast: bool = False
) -> Cost:
    """Prices a network.

    Args:
      table: the layers, fields of shape [L]. With `sparse` between 0 and 1 the price is interpolated.
      chip: static.
      choices: fields of shape [L] between 0 and 1, or None: what the compiler does.
      rounding: static. `EXACT`; `THROUGH`: the same values, with the gradient that a search needs, so that a wider
        layer has a slope inside a step of the staircase too; `SMOOTH`: values without stairs, for gradient checks.
        Blocks, weight formats and slices are picked exactly in each of them: their choice has no gradient.
      fast: tries `blocks.FEW` block sizes only; research.bench.throughput says what that costs in fidelity.
    """
    return price_after(table, chip, None, choices, rounding=rounding, fast=fast)[0]


def price_after(
    table: LayerTable, chip: Chip, before: jax.Array | None, choices: Choices | None = None,
    *, rounding: Rounding = EXACT, fast: bool = False,
) -> tuple[Cost, jax.Array]:  # fmt: skip
    """`cost` of rows that follow others, and the cycles that they leave for the weights of the next row.

    Args:
      before: cycles that the row before leaves (scalar), below 0 or None: there is none.
    """
    choices = Choices() if choices is None else choices
    asked, weight = chosen(table, choices), None
    if choices.wide is not None:
        asked, weight = both_widths(asked, choices.wide)
    work = lower(asked, chip, rounding)
    dense = _variant(work, chip, rounding, sparse=False, fast=fast)
    share, figures = jnp.zeros_like(asked.sparse), dense.figures
    half = _variant(work, chip, rounding, sparse=True, fast=fast) if chip.sparse_2_4 else None
    if half is not None:
        share = jnp.where(_takes_sparse(dense.figures, half.figures, work, chip), asked.sparse, 0.0)
        figures = jax.tree.map(lambda a, b: a + share * (b - a), figures, half.figures)

    layers = _Layer(work, dense.block, half.block if half else dense.block, share, weight)
    own = _Own(
        table_bytes(asked), _table_cycles(asked, chip), work.constant, _runs(work, chip, choices), share,
        host=on_host(asked, chip).astype(share.dtype),
    )  # fmt: skip
    if weight is not None:
        figures, own = jax.tree.map(lambda figure: jnp.sum(weight * figure, axis=-1), (figures, own))
        work = jax.tree.map(lambda field: field[..., 0], work)
    run = partial(_cut, chip=chip, rounding=rounding)
    once, leaves = _finish(figures, own, work, layers, run, chip, rounding, before, choices.buffered)
    fields = {name: value * work.repeats for name, value in once.items()}
    found = Cost(
        ms=jnp.sum(fields["cycles"]) / chip.cycles_per_ms,
        **fields,
        macs=table.layer_macs * (1 - own.share / 2),
        runs_sparse=own.share,
        host_cycles=own.host * fields["cycles"],
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
    weight: jax.Array | None  # of the corners, where a layer is priced at several: [L, corners], as all else then


class _Own(NamedTuple):
    """What else a row is by itself, float32 [L]."""

    table_bytes: jax.Array  # of values that it looks its results up in
    table_cycles: jax.Array  # to fetch them
    constant: jax.Array  # bytes
    runs: jax.Array  # 1 or true: an operation of its own
    share: jax.Array  # of 2:4
    host: jax.Array  # 1: left to the CPU


def _cut(
    layer: _Layer, depth: jax.Array, starts: jax.Array, ends: jax.Array, *, chip: Chip, rounding: Rounding
) -> jax.Array:
    """Cycles of a layer cut to `depth` channels, weights read from SRAM, its start and its end counted or not."""
    cut = layer.row._replace(oc=depth)
    cycles = partial(op_cycles, cut, chip=chip, rounding=rounding, staged=True, starts=starts, ends=ends)
    found = cycles(layer.dense, sparse=False).op
    if chip.sparse_2_4:
        found = found + layer.share * (cycles(layer.half, sparse=True).op - found)
    return found if layer.weight is None else jnp.sum(layer.weight * found, axis=-1)


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


def _table_cycles(asked: LayerTable, chip: Chip) -> jax.Array:
    """Cycles to fetch the table of values that a layer looks its results up in, [L]; 0 for none."""
    values = table_bytes(asked)
    return jnp.where(values > 0, values / chip.flash.bytes_per_cycle + chip.flash.read_latency_cycles, 0.0)


def _runs(work: LayerTable, chip: Chip, choices: Choices) -> jax.Array:
    """Rows that are an operation of their own, [L]: bool, or a share where the compiler's decision is a choice."""
    rides = jnp.where((work.op == ADD) & chip.chains_adds, work.carried, 0.0)
    runs = jnp.where(work.op == FREE, 0.0, 1.0 - rides)
    return runs if choices.fused is not None or choices.wide is not None else runs > 0


class _Way(NamedTuple):
    """A layer with its weights in buffers, or without, [L]."""

    npu: jax.Array  # cycles
    sram_bytes: jax.Array
    flash_bytes: jax.Array

    def cycles(self, chip: Chip) -> jax.Array:
        """The longest of the three, [L]; on a tie, as of all that rides, its slope is that of one of them."""
        sram, flash = chip.sram.bytes_per_cycle, chip.flash.bytes_per_cycle
        memory = jnp.maximum(self.sram_bytes / sram, self.flash_bytes / flash)
        return jnp.where(self.npu >= memory, self.npu, memory)


def _finish(
    work: _Figures, own: _Own, table: LayerTable, layers: _Layer, run: buffering.Run[_Layer], chip: Chip,
    rounding: Rounding, before: jax.Array | None, allowed: jax.Array | None,
) -> tuple[dict[str, jax.Array], jax.Array]:  # fmt: skip
    """The fields of `Cost`, [L], of one of the `repeats` of every row; `table`: lowered."""
    enc, repeats, sram, flash = work.encoded, work.repeats, chip.sram, chip.flash
    asks = buffering.Work(
        op=work.cycles.op, encoded=enc.total, refetches=repeats, channels=table.oc, block_depth=work.block_depth,
        granule=work.granule, whole=blocks.whole_kernel(table),
        input_cycles=work.input_once / sram.bytes_per_cycle + sram.read_latency_cycles,
    )  # fmt: skip
    plan = buffering.plan(asks, own.runs, layers, run, chip, rounding, before, allowed)
    ahead = plan.first * enc.total
    wait = jnp.maximum(ahead / flash.bytes_per_cycle + flash.read_latency_cycles - plan.slack, 0.0)
    moved = jnp.maximum(enc.weights - jnp.where(plan.slack > 0, ahead, 0.0), 0.0)
    late = jnp.where(own.table_cycles > 0, jnp.maximum(own.table_cycles - plan.slack, 0.0), 0.0)
    maps = work.sram_read + work.sram_write
    ways = [
        _Way(
            npu=jnp.maximum(plan.fetch - plan.slack + plan.last_cycles, work.staged.op + wait) + own.table_cycles,
            sram_bytes=maps + moved + enc.weights * repeats,
            flash_bytes=moved + enc.scales * repeats + own.constant,
        ),
        _Way(npu=work.cycles.op + late, sram_bytes=maps, flash_bytes=enc.total * repeats + own.constant),
    ]
    mix = partial(between, plan.buffered)
    cycles = mix(*(way.cycles(chip) for way in ways))
    npu, sram_bytes, flash_bytes = (mix(*both) for both in zip(*ways, strict=True))
    held = enc.weights + enc.scales * repeats + own.constant
    done = jax.tree.map(mix, work.staged, work.cycles)
    found = {
        "cycles": cycles, "npu_cycles": npu, "mac_cycles": done.mac, "output_cycles": done.output,
        "sram_cycles": sram_bytes / sram.bytes_per_cycle, "flash_cycles": flash_bytes / flash.bytes_per_cycle,
        "sram_bytes": sram_bytes,
        "flash_bytes": mix(held, flash_bytes) + own.table_bytes,
        "weight_bytes": enc.weights, "scale_bytes": enc.scales,
    }  # fmt: skip
    return found, plan.leaves
