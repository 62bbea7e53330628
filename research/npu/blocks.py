"""Which output block the compiler works in: traversal, microblock, and a search over a grid of candidates.

After `ArchEthosU85::FindBlockConfig`, `FindDepthwiseConfig`, `AreaFit` and `ArchEthosU55::FindBlockConfig` of
ethos-u-vela 5.2.0. The compiler tries every block that fits its RAMs and keeps the one that fetches least;
here each (depth, columns) pair of a fixed grid is tried with the tallest block that fits, one after the other:
all pairs in `GRID`, or the `FEW` that are nearly as good. The choice has no gradient.
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
GRID = tuple((d, w) for d in _DEPTHS for w in _COLUMNS)
# Chosen greedily over 35 random networks on three chips: what is fetched is within 5 % of the grid's best.
FEW = ((32.0, 8.0), (96.0, 32.0), (16.0, 16.0), (48.0, 20.0), (256.0, 64.0))
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


@partial(jax.jit, static_argnames=("chip", "sparse", "sizes"))
def choose(
    layer: LayerTable, chip: Chip, *, sparse: bool, sizes: tuple[tuple[float, float], ...] = GRID
) -> Block:
    """The block of every layer on `chip`, with 2:4 weights or without; fields of any shape, as those of `layer`.

    Args:
      sizes: the (depth, columns) that are tried.
    """
    return search(layer, chip, jnp.asarray(sizes), sparse=sparse)[0]


def search(layer: LayerTable, chip: Chip, sizes: jax.Array, *, sparse: bool) -> tuple[Block, jax.Array]:
    """`choose` with sizes [N, 2] as an argument; also what the compiler minimises, 1e30 or more where none fits."""
    layer = jax.tree.map(jax.lax.stop_gradient, layer)
    part = part_kernel_first(layer, chip, sparse=sparse)
    full = whole_kernel(layer)
    uh, uw, uc = _microblock(layer, chip)
    depth = _input_depth(layer, chip, part, sparse=sparse)

    end, limit = _depth_end(layer, chip, uc), EXACT.up(jnp.minimum(layer.oh, chip.block_limit[0]), uh)
    k_rows, k_columns = jnp.minimum(layer.kh, _KERNEL_LIMIT), jnp.minimum(layer.kw, _KERNEL_LIMIT)
    held = jnp.minimum(depth, EXACT.up(layer.ic, 16.0 if chip.family == "u85" else 8.0))
    area = jnp.where(full, 0.0, 1.0) if chip.family == "u85" else jnp.zeros_like(depth)
    unit_w = jnp.where(part, uw, 1.0)

    def better(best: _Candidate, size: tuple[jax.Array, jax.Array]) -> tuple[_Candidate, None]:
        d = jnp.minimum(size[0], end)
        w = EXACT.up(jnp.minimum(size[1], jnp.minimum(layer.ow, chip.block_limit[1])), uw)
        in_w = _input_extent(w, layer.stride, k_columns, unit_w)
        in_d = jnp.where(full, held, d)
        tallest = jnp.minimum(_tallest(layer, chip, w, d, in_w, in_d, uh, k_rows, area), limit)
        fits = tallest >= uh
        tallest = jnp.maximum(tallest, uh)
        # Where the input grows no faster than the output, a lower block with as many repeats is met first.
        evened = EXACT.up(layer.oh / EXACT.tiles(layer.oh, tallest), uh)
        even = jnp.where((k_rows <= layer.stride) & full, evened, tallest)
        for h in (even, tallest):
            price = jnp.where(fits, _price(layer, chip, h, w, d, in_w, in_d), _NEVER)
            best = _better(best, _Candidate(price, _rank(layer, h, w, d, in_w), h, w, d, in_w))
        return best, None

    zero = jnp.zeros_like(layer.oc)
    start = _Candidate(zero + 2 * _NEVER, zero, uh, uw, zero + uc, zero + 1)
    best = jax.lax.scan(better, start, (sizes[:, 0], sizes[:, 1]))[0]
    ih = _input_extent(best.h, layer.stride, k_rows, jnp.where(part, uh, 1.0))
    held_depth = jnp.where(full, depth, best.d)
    return Block(best.h, best.w, best.d, ih, best.in_w, held_depth, uh, uw, uc, part), best.price


class _Candidate(NamedTuple):
    price: jax.Array
    rank: jax.Array
    h: jax.Array
    w: jax.Array
    d: jax.Array
    in_w: jax.Array


def _rank(layer: LayerTable, h: jax.Array, w: jax.Array, d: jax.Array, in_w: jax.Array) -> jax.Array:
    """Which of two equals is kept, the lower. The compiler goes through depths, rows, columns and keeps the first of
    equals, but among blocks of at most 4 x 4 the last one that sees most of the input."""
    order = d * 2.0**14 + h * 2.0**7 + w
    seen = in_w * ((h - 1) * layer.stride + 1)
    return jnp.where((h <= 4) & (w <= 4), -(order + seen * 2.0**24), order)


def _better(a: _Candidate, b: _Candidate) -> _Candidate:
    """The cheaper of two candidates; float32 prices within 1e-6 are equal."""
    cheaper, equal = b.price < a.price * (1 - 1e-6), b.price <= a.price * (1 + 1e-6)
    takes = cheaper | (equal & (b.rank < a.rank))
    return _Candidate(*(jnp.where(takes, new, old) for old, new in zip(a, b, strict=True)))


def _microblock(layer: LayerTable, chip: Chip) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The microblock that pads the output least; the first of equals (FindUBlock).

    Ethos-U85: 16-bit depthwise layers and pools have those of a convolution (SetupOfmUBlockToOpTable).
    """

    def least_waste(options: tuple[tuple[int, int, int], ...]) -> list[jax.Array]:
        best = [jnp.full_like(layer.oh, size) for size in options[0]]
        least = _padded(layer, options[0])
        for option in options[1:]:
            padded = _padded(layer, option)
            best = [jnp.where(padded < least, new, old) for new, old in zip(option, best, strict=True)]
            least = jnp.minimum(least, padded)
        return best

    conv, other = least_waste(chip.microblocks), least_waste(chip.microblocks_depthwise)
    as_conv = whole_kernel(layer) | ((layer.bits == 16) & (chip.family == "u85"))
    uh, uw, uc = (jnp.where(as_conv, a, b) for a, b in zip(conv, other, strict=True))
    return uh, uw, uc


def _padded(layer: LayerTable, size: tuple[int, int, int]) -> jax.Array:
    return EXACT.up(layer.oh, size[0]) * EXACT.up(layer.ow, size[1]) * EXACT.up(layer.oc, size[2])


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
    """Rows of the tallest block whose input and accumulators fit, [L]; below 1: none."""
    in_bytes = in_w * in_d * layer.bits / 8
    acc_word = jnp.where(layer.bits == 16, 8.0, 4.0)
    acc_bytes = w * EXACT.up(d, 16.0 if chip.family == "u85" else 8.0) * acc_word
    best = jnp.zeros_like(w)
    for input_bytes, accumulator_bytes in chip.ram_splits:
        # Depthwise layers and pools of Ethos-U85 use each RAM whole, and keep one more row of input in it.
        share = 1.0 + area
        by_acc = share * accumulator_bytes / acc_bytes
        rows = share * input_bytes / in_bytes
        rows = rows - area * jnp.where(rows >= layer.ih, 0.0, kernel)
        by_in = (rows - kernel) / layer.stride + 1
        by_in = jnp.where(layer.ih * in_bytes <= share * input_bytes, layer.oh, by_in)
        best = jnp.maximum(best, jnp.minimum(by_acc, by_in))
    return EXACT.floor(best / uh) * uh


def _price(
    layer: LayerTable, chip: Chip, h: jax.Array, w: jax.Array, d: jax.Array, in_w: jax.Array, in_d: jax.Array
) -> jax.Array:
    """What the compiler minimises: elements fetched for each output element."""
    full, unit = whole_kernel(layer), ((layer.kh == 1) & (layer.kw == 1))
    has_weights = whole_kernel(layer) | (layer.op == DEPTHWISE)
    in_h = (h - 1) * layer.stride + jnp.minimum(layer.kh, _KERNEL_LIMIT)
    over_h, over_w, over_d = layer.oh / h, layer.ow / w, layer.oc / d
    repeats = EXACT.ceil(over_h) * EXACT.ceil(over_w)
    each = jnp.where(has_weights, (layer.kh * layer.kw * layer.ic), 0.0)
    weights = each * repeats * jnp.where(full, layer.oc, 1.0)
    inputs = in_h * in_w * layer.ic * over_h * over_w * jnp.where(full, EXACT.ceil(over_d), 1.0)
    fetched = (inputs + weights) / (layer.oh * layer.ow * layer.oc)
    held = (layer.ih * layer.iw * layer.ic) < 2 * in_h * in_w * in_d
    fetched = jnp.where(held, fetched / 2, fetched)
    if chip.family == "u55":
        return fetched
    one_output = (layer.oh * layer.ow == 1) & (layer.kh == layer.ih) & (layer.kw == layer.iw)
    fetched = jnp.where(one_output, 1 / (h * w * d), fetched)
    unfilled = EXACT.up(d, 32.0) - d  # channels of the input buffer's allocation unit that stay empty
    waste = 1 + jnp.where(d > 16, unfilled / 320, 0.0)
    other = jnp.where(unit, d, h)
    area = jnp.where(unit, (layer.ow * layer.oc), (layer.oh * layer.ow))
    coverage = 1 + jnp.abs(1 - area / (w * other))
    return jnp.where(full, fetched, coverage * waste * (1 + jnp.abs(1 - over_d) / 10))
