"""Which output block the compiler works in: traversal, microblock, and a search over a grid of candidates.

After `ArchEthosU85::FindBlockConfig`, `FindDepthwiseConfig`, `AreaFit` and `ArchEthosU55::FindBlockConfig` of
ethos-u-vela 5.2.0. The compiler tries every block that fits its RAMs and keeps the one that fetches least;
here each (depth, columns) pair of a fixed grid is tried with the tallest block that fits. The choice has no
gradient.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.npu.chip import Chip
from research.npu.rounding import EXACT
from research.npu.table import CONV, DENSE, DEPTHWISE, LayerTable

_DEPTHS = (16.0, 32.0, 48.0, 64.0, 80.0, 96.0, 112.0, 128.0, 192.0, 256.0, 512.0)
_COLUMNS = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0, 28.0, 32.0, 48.0, 64.0)
_KERNEL_LIMIT = 8.0  # larger kernels run as several of at most 8 x 8
_NEVER = 1e30


class Block(NamedTuple):
    """The choice for each layer, float32 [L]; rows, columns and channels of output, input and microblock."""

    oh: jax.Array
    ow: jax.Array
    oc: jax.Array
    ih: jax.Array
    iw: jax.Array
    ic: jax.Array
    uh: jax.Array
    uw: jax.Array
    uc: jax.Array
    part_kernel: jax.Array  # bool: kernel positions are walked before channels


def whole_kernel(layer: LayerTable) -> jax.Array:
    """Bool [L]: layers that sum over all input channels (convolution and dense)."""
    return (layer.op == CONV) | (layer.op == DENSE)


def part_kernel_first(layer: LayerTable, chip: Chip, *, sparse: bool) -> jax.Array:
    """Bool [L]: does walking the kernel first fill the MAC array at least as well as channels first?

    Sources: ChooseKernelFirst (Ethos-U85), ChooseKernelMethod (Ethos-U55).
    """
    kernel, deep = layer.kh * layer.kw, layer.ic
    if chip.family == "u55":
        depth_tile, channel_tile = jnp.where(layer.bits == 8, 32.0, 16.0), 8.0
        rounded = EXACT.up(kernel, jnp.where(layer.bits == 8, 4.0, 2.0))
        always = deep <= 8
    else:
        depth_tile, channel_tile = jnp.full_like(deep, 128.0 if sparse else 64.0), 16.0
        step, least = (10.0, 4.0) if sparse else (5.0, 2.0)
        rounded = jnp.floor(kernel / step) * step + jnp.maximum(jnp.mod(kernel, step), least)
        always = jnp.zeros_like(deep, bool)
    by_kernel = deep / EXACT.up(deep, channel_tile) * kernel / rounded
    by_depth = deep / EXACT.up(deep, depth_tile)
    return (always | (by_kernel >= by_depth)) & whole_kernel(layer)


@partial(jax.jit, static_argnames=("chip", "sparse"))
def choose(layer: LayerTable, chip: Chip, *, sparse: bool) -> Block:
    """The block of every layer [L] on `chip`, with 2:4 weights or without."""
    layer = jax.tree.map(jax.lax.stop_gradient, layer)
    part = part_kernel_first(layer, chip, sparse=sparse)
    full = whole_kernel(layer)
    uh, uw, uc = _microblock(layer, chip)
    depth = _input_depth(layer, chip, part, sparse=sparse)

    def g(field: jax.Array) -> jax.Array:
        return field[:, None, None]

    d = jnp.minimum(jnp.asarray(_DEPTHS)[None, :, None], g(_depth_end(layer, chip, uc)))
    w = jnp.asarray(_COLUMNS)[None, None, :]
    w = EXACT.up(jnp.minimum(w, g(jnp.minimum(layer.ow, chip.block_limit[1]))), g(uw))
    d, w = jnp.broadcast_arrays(d, w)
    k_rows, k_columns = jnp.minimum(layer.kh, _KERNEL_LIMIT), jnp.minimum(layer.kw, _KERNEL_LIMIT)
    in_w = _input_extent(w, g(layer.stride), g(k_columns), g(jnp.where(part, uw, 1.0)))
    held = jnp.minimum(depth, EXACT.up(layer.ic, 16.0 if chip.family == "u85" else 8.0))
    in_d = jnp.where(g(full), g(held), d)
    area = jnp.where(g(full), 0.0, 1.0) if chip.family == "u85" else jnp.zeros_like(g(depth))
    tallest = _tallest(layer, chip, w, d, in_w, in_d, uh, k_rows, area)
    limit = g(EXACT.up(jnp.minimum(layer.oh, chip.block_limit[0]), uh))
    tallest = jnp.minimum(tallest, limit)
    fits = tallest >= g(uh)
    tallest = jnp.maximum(tallest, g(uh))
    # Where the input grows no faster than the output, a lower block with as many repeats is met first.
    evened = EXACT.up(g(layer.oh) / EXACT.tiles(g(layer.oh), tallest), g(uh))
    even = jnp.where(g((k_rows <= layer.stride) & full), evened, tallest)
    h = jnp.stack([even, tallest], axis=2)  # [L, depths, 2, columns]
    d, w, in_w, in_d, fits = (jnp.broadcast_to(x[:, :, None, :], h.shape) for x in (d, w, in_w, in_d, fits))
    price = jnp.where(fits, _price(layer, chip, h, w, d, in_w, in_d), _NEVER)
    best = _first_of_equals(price, h, w, d, in_w * ((h - 1) * layer.stride[:, None, None, None] + 1))

    def pick(grid: jax.Array) -> jax.Array:
        return jnp.take_along_axis(grid.reshape(grid.shape[0], -1), best[:, None], axis=1)[:, 0]

    oh, ow, oc = pick(h), pick(w), pick(d)
    ih = _input_extent(oh, layer.stride, k_rows, jnp.where(part, uh, 1.0))
    return Block(oh, ow, oc, ih, pick(in_w), jnp.where(full, depth, oc), uh, uw, uc, part)


def _first_of_equals(
    price: jax.Array, h: jax.Array, w: jax.Array, d: jax.Array, seen: jax.Array
) -> jax.Array:
    """Index of the cheapest candidate. The compiler goes through depths, rows, columns and keeps the first of
    equals, but among blocks of at most 4 x 4 the last one that sees most of the input."""
    price, h, w, d, seen = (x.reshape(x.shape[0], -1) for x in (price, h, w, d, seen))
    equal = price <= jnp.min(price, axis=1, keepdims=True) * (1 + 1e-6)
    order = d * 2.0**14 + h * 2.0**7 + w
    small = equal & (h <= 4) & (w <= 4)
    last = jnp.argmax(jnp.where(small, order + seen * 2.0**24, -1.0), axis=1)
    first = jnp.argmin(jnp.where(equal, order, _NEVER), axis=1)
    return jnp.where(jnp.any(small, axis=1), last, first)


def _microblock(layer: LayerTable, chip: Chip) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The microblock that pads the output least; the first of equals (FindUBlock)."""

    def least_waste(options: tuple[tuple[int, int, int], ...]) -> jax.Array:
        sizes = jnp.asarray(options, jnp.float32)
        shape = jnp.stack([layer.oh, layer.ow, layer.oc], axis=1)[:, None, :]
        padded = jnp.prod(EXACT.up(shape, sizes[None]), axis=2)
        return sizes[jnp.argmin(padded, axis=1)]

    conv, other = least_waste(chip.microblocks), least_waste(chip.microblocks_depthwise)
    picked = jnp.where(whole_kernel(layer)[:, None], conv, other)
    return picked[:, 0], picked[:, 1], picked[:, 2]


def _input_depth(layer: LayerTable, chip: Chip, part: jax.Array, *, sparse: bool) -> jax.Array:
    """Input channels that one block holds at a time."""
    if chip.family == "u55":
        deep = jnp.minimum(layer.ic, jnp.where(part, 16.0, jnp.where(layer.bits == 8, 32.0, 16.0)))
        return EXACT.up(deep, 8.0)
    return jnp.where(part, 16.0, jnp.where((layer.bits == 8) & sparse, 128.0, 64.0))


def _depth_end(layer: LayerTable, chip: Chip, uc: jax.Array) -> jax.Array:
    end = EXACT.up(jnp.minimum(layer.oc, chip.block_limit[2]), uc)
    return jnp.maximum(end, 16.0) if chip.family == "u85" else end


def _input_extent(extent: jax.Array, stride: jax.Array, kernel: jax.Array, unit: jax.Array) -> jax.Array:
    return EXACT.up((extent - 1) * stride + kernel, unit)


def _tallest(
    layer: LayerTable, chip: Chip, w: jax.Array, d: jax.Array, in_w: jax.Array, in_d: jax.Array,
    uh: jax.Array, kernel: jax.Array, area: jax.Array,
) -> jax.Array:  # fmt: skip
    """Rows of the tallest block whose input and accumulators fit, [L, depths, columns]; below 1: none."""

    def g(field: jax.Array) -> jax.Array:
        return field[:, None, None]

    in_bytes = in_w * in_d * g(layer.bits) / 8
    acc_word = jnp.where(g(layer.bits) == 16, 8.0, 4.0)
    acc_bytes = w * EXACT.up(d, 16.0 if chip.family == "u85" else 8.0) * acc_word
    best = jnp.zeros_like(w)
    for input_bytes, accumulator_bytes in chip.ram_splits:
        # Depthwise layers and pools of Ethos-U85 use each RAM whole, and keep one more row of input in it.
        share = 1.0 + area
        by_acc = share * accumulator_bytes / acc_bytes
        rows = share * input_bytes / in_bytes
        rows = rows - area * jnp.where(rows >= g(layer.ih), 0.0, g(kernel))
        by_in = (rows - g(kernel)) / g(layer.stride) + 1
        by_in = jnp.where(g(layer.ih) * in_bytes <= share * input_bytes, g(layer.oh), by_in)
        best = jnp.maximum(best, jnp.minimum(by_acc, by_in))
    return EXACT.floor(best / g(uh)) * g(uh)


def _price(
    layer: LayerTable, chip: Chip, h: jax.Array, w: jax.Array, d: jax.Array, in_w: jax.Array, in_d: jax.Array
) -> jax.Array:
    """What the compiler minimises: elements fetched for each output element. [L, depths, 2, columns]"""

    def g(field: jax.Array) -> jax.Array:
        return field[:, None, None, None]

    full, unit = g(whole_kernel(layer)), g((layer.kh == 1) & (layer.kw == 1))
    has_weights = g(whole_kernel(layer) | (layer.op == DEPTHWISE))
    in_h = (h - 1) * g(layer.stride) + jnp.minimum(g(layer.kh), _KERNEL_LIMIT)
    over_h, over_w, over_d = g(layer.oh) / h, g(layer.ow) / w, g(layer.oc) / d
    repeats = EXACT.ceil(over_h) * EXACT.ceil(over_w)
    each = jnp.where(has_weights, g(layer.kh * layer.kw * layer.ic), 0.0)
    weights = each * repeats * jnp.where(full, g(layer.oc), 1.0)
    inputs = in_h * in_w * g(layer.ic) * over_h * over_w * jnp.where(full, EXACT.ceil(over_d), 1.0)
    fetched = (inputs + weights) / g(layer.oh * layer.ow * layer.oc)
    held = g(layer.ih * layer.iw * layer.ic) < 2 * in_h * in_w * in_d
    fetched = jnp.where(held, fetched / 2, fetched)
    if chip.family == "u55":
        return fetched
    one_output = (layer.oh * layer.ow == 1) & (layer.kh == layer.ih) & (layer.kw == layer.iw)
    fetched = jnp.where(g(one_output), 1 / (h * w * d), fetched)
    unfilled = EXACT.up(d, 32.0) - d  # channels of the input buffer's allocation unit that stay empty
    waste = 1 + jnp.where(d > 16, unfilled / 320, 0.0)
    other = jnp.where(unit, d, h)
    area = jnp.where(unit, g(layer.ow * layer.oc), g(layer.oh * layer.ow))
    coverage = 1 + jnp.abs(1 - area / (w * other))
    return jnp.where(full, fetched, coverage * waste * (1 + jnp.abs(1 - over_d) / 10))
