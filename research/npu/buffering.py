"""Ping-pong weight buffers: which layers copy their weights to SRAM, in slices of how many channels, what shows.

The DMA of a slice runs under the slice before it, that of the first slice under the layer before. How much room
that layer leaves depends on how it was sliced itself: the rule goes through the layers in their order, as a scan.
After `ProposeSlicedWeightBuffering`, `EstimateSlicedOpPerformance` and `EstimateFullOpPerformance` of ethos-u-vela
5.2.0, where the SRAM left for buffers is not the limit.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from research.npu.chip import Chip
from research.npu.choices import between
from research.npu.rounding import Rounding

_SPLIT_DEPTH = 16.0  # channels of the thinnest slice of weights
_STARTUP_CYCLES = 1000.0  # waits below this are taken as noise by the compiler
_UNDERUSED = 0.3  # share of a block's channels
_SLACK = 1 + 1e-6  # float32

Layer = TypeVar("Layer")  # what a caller needs to know of a layer to cut it
Run = Callable[[Layer, jax.Array, jax.Array, jax.Array], jax.Array]


class Work(NamedTuple):
    """What the rule reads of each layer, float32 [L]."""

    op: jax.Array  # cycles, weights read from flash
    encoded: jax.Array  # bytes of weights and scales
    refetches: jax.Array  # times the weights are read
    channels: jax.Array  # of the output
    block_depth: jax.Array
    granule: jax.Array  # channels of the thinnest slice but the first
    input_cycles: jax.Array  # to read the input once
    whole: jax.Array  # bool: every block of output channels reads the input again


class Plan(NamedTuple):
    """The choice for each layer, [L]; `first` to `fetch` only mean something where `buffered`."""

    buffered: jax.Array  # bool, or a share where it is a choice
    first: jax.Array  # share of the weights fetched before the layer starts
    last_cycles: jax.Array  # cycles of the last slice: the room for the next layer's weights
    slack: jax.Array  # cycles of the layer before, under which this one's weights can be fetched
    fetch: jax.Array  # cycles to fetch all weights
    leaves: jax.Array  # cycles that the layer, or the one before a row that does not run, leaves for the next


def plan(
    work: Work, runs: jax.Array, layers: Layer, run: Run[Layer], chip: Chip, rounding: Rounding,
    before: jax.Array | None = None, allowed: jax.Array | None = None,
) -> Plan:  # fmt: skip
    """Slices and buffers of every layer, fields [L] or, of many networks of as many rows, [L, B].

    Args:
      runs: [L], bool, or a share where fusion is a choice: an operation of its own.
      layers: a pytree of [L], handed to `run` row by row.
      run: (row of `layers`, channels, starts, ends) -> cycles of a layer cut to so many channels, with its start and
        its end counted (bool) or not, weights read from SRAM.
      before: `leaves` of the layer before the first row, below 0 or None: there is none.
      allowed: [L], 0 to 1, where weights may be buffered at all; None: everywhere.
    """

    def step(
        before: tuple[jax.Array, jax.Array], row: tuple[Work, jax.Array, jax.Array | None, Layer]
    ) -> tuple[tuple[jax.Array, jax.Array], Plan]:
        (slack, started), (own, is_run, may, layer) = before, row
        fetch = _transfer(own.encoded, chip)
        found = _propose(own, fetch, slack, (is_run > 0) & ~started, partial(run, layer), chip, rounding)
        share = near = found.buffered
        if may is not None:  # a wait is hidden or not: room for the next layer grows where hardly any is buffered
            share = found.buffered * may
            near = 1 - (1 - share) ** 4
        leaves = between(near, found.last_cycles, own.op)
        if is_run.dtype == bool:
            slack = jnp.where(is_run, leaves, slack)
        else:  # what runs by a share has that share of cycles
            slack = leaves + (1 - is_run) * slack
        return (slack, started | (is_run > 0)), found._replace(buffered=share, leaves=slack)

    slack = jnp.full_like(work.op[0], -1.0) if before is None else before
    start = jnp.maximum(slack, 0.0), slack >= 0
    return jax.lax.scan(step, start, (work, runs, allowed, layers))[1]


def _transfer(size: jax.Array, chip: Chip) -> jax.Array:
    """Cycles of a DMA from flash, of `size` bytes."""
    return size / chip.flash.bytes_per_cycle + chip.flash.read_latency_cycles


Cut = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # `Run` of one layer


def _propose(
    work: Work,
    fetch: jax.Array,
    slack: jax.Array,
    first_row: jax.Array,
    run: Cut,
    chip: Chip,
    rounding: Rounding,
) -> Plan:
    unmoved = fetch * work.refetches
    staged = (work.encoded / chip.sram.bytes_per_cycle + chip.sram.read_latency_cycles) * work.refetches
    thinnest = jnp.minimum(_SPLIT_DEPTH / work.channels, 1.0)
    again, dominated = work.refetches > 1, work.op > unmoved
    smallest = fetch * thinnest
    forced = first_row & again & ((smallest < unmoved / 10) | (smallest <= _STARTUP_CYCLES))
    sliceable = forced | (staged + jnp.maximum(fetch - slack, 0.0) < unmoved)
    sliceable |= (jnp.floor(work.channels / work.block_depth) > 2) | (~first_row & (smallest < slack) & again)

    first, slice_depth = _depths(work, fetch, slack, thinnest, dominated, run, rounding)
    sliced = first < work.channels
    rest = jnp.where(sliced, work.channels - first, 1.0)
    steps = jnp.where(sliced, rounding.tiles(rest, slice_depth), 0.0)
    tail = jnp.where(sliced, rest - (steps - 1) * slice_depth, work.channels)
    never, always = jnp.zeros_like(sliced), jnp.ones_like(sliced)
    start, inner, end = run(first, always, ~sliced), run(slice_depth, never, never), run(tail, never, always)

    def wait(depth: jax.Array, hidden_under: jax.Array) -> jax.Array:
        size = work.encoded * depth / work.channels
        return jnp.maximum(_transfer(size, chip) - hidden_under, 0.0)

    usable = jnp.where(first_row, jnp.where(forced, _STARTUP_CYCLES, 0.0), slack)
    many = steps > 1
    visible = wait(first, usable) + jnp.where(sliced, wait(tail, jnp.where(many, inner, start)), 0.0)
    visible += jnp.where(many, wait(slice_depth, start) + (steps - 2) * wait(slice_depth, inner), 0.0)
    full = start + jnp.where(sliced, (steps - 1) * inner + end, 0.0) + visible
    slices = steps + 1

    def blocks(depth: jax.Array) -> jax.Array:
        return rounding.tiles(depth, work.block_depth)

    passes = blocks(first) + jnp.where(sliced, (steps - 1) * blocks(slice_depth) + blocks(tail), 0.0)
    reads = work.input_cycles * jnp.where(work.whole, passes, slices)
    weights = work.encoded * work.refetches / chip.sram.bytes_per_cycle
    weights += chip.sram.read_latency_cycles * slices * work.refetches
    old = jnp.maximum(jnp.maximum(work.op, unmoved), reads)
    new = jnp.maximum(jnp.maximum(full, weights), reads)
    noise = dominated & (visible / slices < _STARTUP_CYCLES)
    new = new - jnp.where(noise, visible, 0.0)
    new = new - jnp.where(dominated & sliced & forced & (full <= new), slices * _STARTUP_CYCLES / 2, 0.0)
    wasteful = dominated & many & (slice_depth < _UNDERUSED * _up(slice_depth, work.block_depth))
    pays = (new <= old * _SLACK) & (again | (fetch + weights <= old * _SLACK))
    return Plan(
        buffered=sliceable & pays & ~wasteful & (work.encoded > 0),
        first=first / work.channels,
        last_cycles=jnp.where(sliced, end, start),
        slack=slack,
        fetch=fetch,
        leaves=slack,
    )


def _depths(
    work: Work,
    fetch: jax.Array,
    slack: jax.Array,
    thinnest: jax.Array,
    dominated: jax.Array,
    run: Cut,
    rounding: Rounding,
) -> tuple[jax.Array, jax.Array]:
    """Channels of the first slice, all of them where it is the only one, and of those that follow."""
    share = jnp.minimum(slack / fetch, 1.0)
    aligned = jnp.floor(share / thinnest * _SLACK) * thinnest
    share = jnp.where(1 - aligned < thinnest / 2, 1.0, share)
    half = jnp.clip(_up(jnp.floor(work.channels / 2), _SPLIT_DEPTH) / work.channels, 0.5, 1.0)
    share = jnp.where(dominated & (share > 0.5) & (share < 1), half, share)
    share = jnp.maximum(share, thinnest)
    first = rounding.floor(jnp.floor(work.channels * share * _SLACK) / work.granule) * work.granule
    first = jnp.minimum(jnp.maximum(first, _SPLIT_DEPTH), work.channels)
    first = jnp.where(share < 1, first, work.channels)
    no = jnp.zeros_like(dominated)
    depth = jnp.floor(work.channels * run(first, ~no, no) / fetch)
    depth = _up(jnp.maximum(depth, _SPLIT_DEPTH), work.block_depth)
    step = jnp.where(depth > work.block_depth, work.block_depth, work.granule)
    depth = jnp.maximum(jnp.floor(depth / step) * step, work.granule)
    return first, depth


def _up(amount: jax.Array, step: jax.Array | float) -> jax.Array:
    return jnp.ceil(amount / step - 1e-4) * step
