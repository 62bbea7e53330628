"""Bytes that a layer moves, and the cycles that its memories take for them.

After `MeasureElementAccess`, `EstimateMemoryTransfer` and `MeasureAccessCycles` of ethos-u-vela 5.2.0.
Between layers, activations lie in bricks of 16 channels (NHCWB16); graph inputs and outputs are plain (NHWC).
A burst that is shorter than the memory's costs a whole one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.npu.blocks import Block, whole_kernel
from research.npu.chip import Chip
from research.npu.choices import between
from research.npu.rounding import EXACT, Rounding
from research.npu.table import ADD, DEPTHWISE, FREE, MEAN, LayerTable

_BRICK = 16.0
_PLAIN_WRITE = 64.0  # bytes: longest write burst of a plain layout
_STREAM_BYTES = 50.0
_MEAN_BYTES = 0.1  # encoded bytes a weight of the all-ones kernel that a mean becomes


class Encoded(NamedTuple):
    """What the flash holds for each layer, float32 [L] bytes."""

    weights: jax.Array
    scales: jax.Array

    @property
    def total(self) -> jax.Array:
        """Weights and scales, [L]."""
        return self.weights + self.scales


def burst_cost(layer: LayerTable, block: Block, chip: Chip) -> tuple[jax.Array, jax.Array]:
    """How many bytes one byte of (input, output) costs on the SRAM bus, each [L] and at least 1."""
    wide, burst = layer.bits / 8, chip.sram.burst_bytes
    brick_in, brick_out = _BRICK * wide * block.iw, _BRICK * wide * block.ow
    plain_in = wide * block.ic * jnp.where(layer.ic == block.ic, block.iw, 1.0)
    whole = (block.oc <= _BRICK) & (layer.oc == block.oc)
    plain_out = jnp.where(whole, wide * block.ow * block.oc, jnp.minimum(_PLAIN_WRITE, _BRICK * wide))
    read, write = (
        between(share, burst / jnp.minimum(burst, plain), burst / jnp.minimum(burst, brick))
        for share, plain, brick in ((layer.plain_in, plain_in, brick_in), (layer.plain_out, plain_out, brick_out))
    )
    return read, write


def block_transfer_cycles(layer: LayerTable, block: Block, chip: Chip) -> tuple[jax.Array, jax.Array]:
    """Cycles to read the first input block and to write the last output block, each [L]."""
    read, write = burst_cost(layer, block, chip)
    wide = layer.bits / 8
    inside = jnp.minimum(layer.ih, block.ih) * jnp.minimum(layer.iw, block.iw)
    inside = inside * jnp.minimum(layer.ic, block.ic)
    outside = jnp.minimum(layer.oh, block.oh) * jnp.minimum(layer.ow, block.ow)
    outside = outside * jnp.minimum(layer.oc, block.oc)
    first = chip.sram.read_latency_cycles + inside * wide * read / chip.sram.bytes_per_cycle
    last = chip.sram.write_latency_cycles + outside * wide * write / chip.sram.bytes_per_cycle
    return first, last


def feature_map_bytes(
    layer: LayerTable, block: Block, chip: Chip, rounding: Rounding
) -> tuple[jax.Array, jax.Array]:
    """SRAM bytes of activations (read, written) by each layer, bursts and repeats counted, each [L]."""
    read_cost, write_cost = burst_cost(layer, block, chip)
    wide = layer.bits / 8
    deep_in = between(layer.plain_in, layer.ic, rounding.up(layer.ic, _BRICK))
    deep_out = between(layer.plain_out, layer.oc, rounding.up(layer.oc, _BRICK))
    window = jnp.minimum(layer.ih, block.ih) * jnp.minimum(layer.iw, block.iw)
    passes = rounding.tiles(layer.oc, jnp.minimum(layer.oc, block.oc))
    over_depth = jnp.where(whole_kernel(layer), passes, 1.0)
    read = window * deep_in * spatial_repeats(layer, block) * over_depth * read_cost
    one_map = layer.oh * layer.ow * deep_out
    write = one_map * write_cost
    if chip.chains_adds:
        read = read + layer.carries_add * one_map
        alone = 1 - layer.carried
    else:
        alone = jnp.ones_like(read)
    reads, writes = _passes(layer, chip, one_map, rounding)
    read = jnp.where(layer.op == ADD, reads * alone, read)
    write = jnp.where(layer.op == ADD, writes * alone, write)
    free = layer.op == FREE
    return jnp.where(free, 0.0, read * wide), jnp.where(free, 0.0, write * wide)


def _passes(
    layer: LayerTable, chip: Chip, one_map: jax.Array, rounding: Rounding
) -> tuple[jax.Array, jax.Array]:
    """Elements (read, written) by an element-wise pass, [L], bursts counted on Ethos-U85: two maps as large as the
    output, or one of another size (a resize, which works on 16 channels at a time). Its block is as deep as the
    output, in bricks, so that a plain layout is read in one piece only where it fills them."""
    if chip.family == "u55":
        return 2 * one_map, one_map
    wide, burst = layer.bits / 8, chip.sram.burst_bytes
    resizes = layer.ih * layer.iw != layer.oh * layer.ow
    deep = jnp.where(resizes, _BRICK, EXACT.up(layer.oc, _BRICK))
    whole = layer.oc == deep
    read = burst / jnp.minimum(burst, jnp.where(whole, burst, wide * deep))
    write = burst / jnp.minimum(burst, jnp.where(whole & (deep <= _BRICK), burst, _BRICK * wide))
    inputs = layer.ih * layer.iw * between(layer.plain_in, layer.ic, rounding.up(layer.ic, _BRICK))
    inputs = jnp.where(resizes, inputs, 2 * one_map) * between(layer.plain_in, read, 1.0)
    return inputs, one_map * between(layer.plain_out, write, 1.0)


def input_bytes(layer: LayerTable, block: Block, rounding: Rounding) -> jax.Array:
    """SRAM bytes that each layer reads to make its output once over in rows and columns, bursts not counted, [L]."""
    deep = between(layer.plain_in, layer.ic, rounding.up(layer.ic, _BRICK))
    window = jnp.minimum(layer.ih, block.ih) * jnp.minimum(layer.iw, block.iw)
    return window * deep * spatial_repeats(layer, block) * layer.bits / 8


def spatial_repeats(layer: LayerTable, block: Block) -> jax.Array:
    """How many times each layer passes over its weights: output blocks in rows x columns, [L]."""
    rows = EXACT.tiles(layer.oh, jnp.minimum(layer.oh, block.oh))
    return rows * EXACT.tiles(layer.ow, jnp.minimum(layer.ow, block.ow))


def encoded(layer: LayerTable, block: Block, chip: Chip, *, sparse: bool, rounding: Rounding) -> Encoded:
    """Encoded weights and scales of each layer, in the 2:4 format or the default one.

    Bytes a weight come from the table; zeros that pad a layer to whole bricks, kernels and microblocks cost
    0.03 to 0.16 bytes each and every stream 50 bytes (rounded from least squares over 2,100 layers, mean
    error 2 to 7 %).
    """
    kernel = layer.kh * layer.kw
    a, b = layer.dense_bytes_per_weight, layer.sparse_bytes_per_weight
    per_weight = a + layer.sparse * (b - a)
    full, depthwise = whole_kernel(layer), layer.op == DEPTHWISE
    deep_out = rounding.up(layer.oc, 8.0)
    if chip.family == "u55":
        padded = kernel * rounding.up(layer.ic, 8.0) * deep_out
        padded = jnp.where(block.part_kernel, padded * rounding.up(kernel, 4.0) / kernel, padded)
        padded_depthwise = kernel * deep_out
    else:
        by_kernel = rounding.up(kernel, 10.0 if sparse else 5.0) * rounding.up(layer.ic, 16.0)
        by_depth = kernel * rounding.up(layer.ic, 128.0 if sparse else 64.0)
        padded = jnp.where(block.part_kernel, by_kernel, by_depth) * deep_out
        padded_depthwise = rounding.up(kernel, 10.0) * rounding.up(layer.oc, 16.0)
    zeros = jnp.where(depthwise, padded_depthwise, padded) - layer.weights
    pad_bytes = jnp.where(depthwise, 0.16, 0.07 - layer.sparse * 0.043)
    weights = layer.weights * per_weight + zeros * pad_bytes + _STREAM_BYTES * chip.cores
    mean = layer.op == MEAN
    weights = jnp.where(mean, kernel * layer.oc * _MEAN_BYTES + _STREAM_BYTES, weights)
    if chip.family == "u55":
        scales = rounding.up(chip.scale_bytes * layer.oc, _BRICK)
    else:
        scales = chip.scale_bytes * rounding.up(layer.oc, _BRICK)
    has = full | depthwise | mean
    return Encoded(jnp.where(has, weights, 0.0), jnp.where(has, scales, 0.0))
