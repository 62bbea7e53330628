"""Cycles of the MAC array and of the output stage for one lowered layer, given the block it works in.

After `EstimateMacCyclesPerBlock`, `EstimateMacOpCycles`, `EstimateElementwiseCycles` and
`EstimateAOCyclesPerElement` in `ethos_u85_performance.cpp` and `ethos_u55_performance.cpp` of
ethos-u-vela 5.2.0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.npu.blocks import Block, whole_kernel
from research.npu.chip import Chip
from research.npu.lowering import LOOKUP_CYCLES, stored
from research.npu.memory import block_transfer_cycles
from research.npu.rounding import Rounding
from research.npu.table import ADD, AVG_POOL, DEPTHWISE, FREE, MAX_POOL, LayerTable

_KERNEL_LIMIT = 8.0
_BIAS_WORD = 256.0


class Cycles(NamedTuple):
    """Cycles of each layer, float32 [L], before any wait for memory."""

    mac: jax.Array
    output: jax.Array
    op: jax.Array  # the two together: the slower one runs, the other fills or drains


def mac_cycles_per_block(
    layer: LayerTable, block: Block, chip: Chip, *, sparse: bool, rounding: Rounding
) -> jax.Array:
    """Cycles the MAC array takes for one output block, [L].

    With nu = microblocks in the block (rows x columns, channels), wb = cycles to decode the weights of a
    microblock, n = input channels held, K = kernel positions, b = bytes of an activation:
      kernel first  max(wb, 4 nu_hw) * ceil(K / (4 | 2 for 16 bit)) * nu_c * ceil(n / 8)
      depth first   max(wb, floor(n / 8) nu_hw) * K * nu_c * b   (Ethos-U55: max(wb, 4 nu_hw) * K * nu_c)
      depthwise     max(wb, 4 nu_hw b) * ceil(K / 4) * nu_c
      pool          max(4, K) * nu * bits / 2
    once for every n input channels; halved under 2:4; plus the delay of an array that is not full.
    """
    rows, columns, channels = _microblocks(layer, block, rounding)
    area = rows * columns
    decode = 32.0 * block.uc / (8.0 * chip.cores)
    parts = rounding.tiles(layer.kh, _KERNEL_LIMIT) * rounding.tiles(layer.kw, _KERNEL_LIMIT)
    kernel = layer.kh * layer.kw / parts
    held = jnp.minimum(layer.ic, block.ic)
    wide = layer.bits / 8
    steps_kernel = rounding.tiles(kernel, jnp.where(layer.bits == 16, 2.0, 4.0))
    steps_quarter = rounding.tiles(kernel, 4.0)
    eights = rounding.tiles(held, 8.0)
    halve = 2.0 if sparse else 1.0

    by_kernel = jnp.maximum(decode, 4 * area) * steps_kernel * channels * eights / halve
    if chip.family == "u55":
        by_depth = jnp.maximum(decode, 4 * area) * kernel * channels
    else:
        by_depth = jnp.maximum(decode, rounding.floor(held / 8) * area) * kernel * channels * wide / halve
    depthwise = jnp.maximum(decode, 4 * area * wide) * steps_quarter * channels
    pool = jnp.maximum(4.0, kernel) * area * channels * layer.bits / 2

    full, is_pool = whole_kernel(layer), (layer.op == MAX_POOL) | (layer.op == AVG_POOL)
    steps = jnp.where(full, kernel, jnp.where(is_pool, 1.0, steps_quarter))
    steps = jnp.where(block.part_kernel, steps_kernel, steps)
    delay = jnp.where((layer.bits == 16) & (chip.macs_per_cycle <= 128) & ~is_pool, 3.0, 2.0)
    waits = jnp.where(channels <= 1, delay * steps, delay * (steps - 1) * channels)
    waits = jnp.where(area <= 1, waits, 0.0) * jnp.where(block.part_kernel, eights, 1.0)

    each = jnp.where(full, by_depth, jnp.where(is_pool, pool, depthwise))
    each = jnp.where(block.part_kernel, by_kernel, each)
    return (each + waits) * parts * jnp.where(full, rounding.tiles(layer.ic, held), 1.0)


def block_count(layer: LayerTable, block: Block, rounding: Rounding) -> jax.Array:
    """Output blocks of each layer, a fraction where the last ones are cut, [L]."""
    whole = rounding.tiles(layer.oh, block.uh) * rounding.tiles(layer.ow, block.uw)
    whole = whole * rounding.tiles(layer.oc, block.uc)
    rows, columns, channels = _microblocks(layer, block, rounding)
    return whole / (rows * columns * channels)


def op_cycles(
    layer: LayerTable, block: Block, chip: Chip, *, sparse: bool, rounding: Rounding,
    staged: jax.Array | bool = False, starts: jax.Array | bool = True, ends: jax.Array | bool = True,
) -> Cycles:  # fmt: skip
    """Cycles of every layer on the MAC array and in the output stage, [L].

    Args:
      staged: weights and scales are read from SRAM, not from flash.
      starts, ends: a slice of a layer that is its first or its last, as a whole layer is both.
    """
    blocks = block_count(layer, block, rounding)
    rows, columns = jnp.minimum(layer.oh, block.oh), jnp.minimum(layer.ow, block.ow)
    deep = jnp.minimum(layer.oc, block.oc)
    mac = mac_cycles_per_block(layer, block, chip, sparse=sparse, rounding=rounding)
    output = rounding.ceil(_output_cycles(layer, chip) * rows * columns * deep)
    latency = jnp.where(staged, chip.sram.read_latency_cycles, chip.flash.read_latency_cycles)
    has_bias = whole_kernel(layer) | (layer.op == DEPTHWISE)
    bias = jnp.where(has_bias, chip.scale_bytes * deep * latency / _BIAS_WORD, 0.0)
    slow = jnp.maximum(output, bias)

    first, last = block_transfer_cycles(layer, block, chip)
    issue = (jnp.where(blocks > 1, jnp.abs(last - first), 0.0) + mac + slow) / 4
    slow_mac, slow_output = jnp.maximum(mac, issue), jnp.maximum(slow, issue)
    drain = jnp.where(ends, slow_output, 0.0)
    busy = jnp.where(slow_mac > slow_output, slow_mac * blocks + drain, slow_output * blocks + slow_mac)
    op = busy + jnp.where(starts, first, 0.0) + jnp.where(ends, last, 0.0)

    add = _add_cycles(layer, chip, rounding)
    free = layer.op == FREE
    return Cycles(
        mac=jnp.where(free | (layer.op == ADD), 0.0, mac * blocks + slow),
        output=jnp.where(free, 0.0, jnp.where(layer.op == ADD, add, output * blocks + mac)),
        op=jnp.where(free, 0.0, jnp.where(layer.op == ADD, add, op)),
    )


def _microblocks(
    layer: LayerTable, block: Block, rounding: Rounding
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return (
        rounding.tiles(jnp.minimum(layer.oh, block.oh), block.uh),
        rounding.tiles(jnp.minimum(layer.ow, block.ow), block.uw),
        rounding.tiles(jnp.minimum(layer.oc, block.oc), block.uc),
    )


def _by_bits(pair: tuple[float, float], layer: LayerTable) -> jax.Array:
    return jnp.where(layer.bits == 16, pair[1], pair[0])


def _output_cycles(layer: LayerTable, chip: Chip) -> jax.Array:
    """Output-stage cycles an element, [L]; adds that ride along take their own passes."""
    usual, max_pool = _by_bits(chip.output_cycles, layer), _by_bits(chip.max_pool_cycles, layer)
    own = jnp.where(layer.op == MAX_POOL, max_pool, usual)
    if not chip.chains_adds:
        return jnp.where(layer.bits == 8, jnp.maximum(own, LOOKUP_CYCLES * layer.carries_lookup), own)
    return own + layer.carries_add * _by_bits(chip.add_cycles, layer)


def _add_cycles(layer: LayerTable, chip: Chip, rounding: Rounding) -> jax.Array:
    elements = stored(layer, rounding) * layer.rate
    alone = 1 - layer.carried if chip.chains_adds else jnp.ones_like(elements)
    return alone * _by_bits(chip.add_cycles, layer) * elements
