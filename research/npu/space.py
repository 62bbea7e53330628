"""A search space whose prices are tabulated once, so that a network of it is priced by looking up.

A slot holds one of several blocks of layers. What a block costs depends on the blocks before it through one number:
the cycles that the layer before leaves, under which its first weights are fetched. At every slot it takes few values.
They are the states of a finite automaton; its transitions are priced by `cost` and add up to its price.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.npu.chip import Chip
from research.npu.cost import price_after
from research.npu.table import LayerTable, pad

MOST_STATES = 4096
_BATCH = 64


class Slot(NamedTuple):
    """The blocks that one place of a network may hold; all read and make tensors of the same shape."""

    blocks: tuple[LayerTable, ...]
    peak_kb: tuple[float, ...]  # SRAM of the activations while each of them runs


class Tables(NamedTuple):
    """Of every slot, state on arrival and block: [S, states * blocks], row-major; rows not reached hold zeros."""

    ms: jax.Array  # float32
    next: jax.Array  # int32: state * blocks at the next slot
    peak_kb: jax.Array  # float32 [S, blocks]


def tables(space: Sequence[Slot], chip: Chip, *, fast: bool = False) -> Tables:
    """Prices every block after every state that a network of the space can be in.

    Args:
      fast: as in `cost`.

    Raises:
      ValueError: no slots, a slot without blocks or with as many peaks, more than 4096 states.
    """
    if not space or any(not s.blocks or len(s.blocks) != len(s.peak_kb) for s in space):
        raise ValueError("a search space has slots, and each of them blocks with one SRAM peak a block")
    rows = max(block.op.shape[0] for slot in space for block in slot.blocks)
    most = max(len(slot.blocks) for slot in space)
    states, steps = np.array([-1.0], np.float32), list[tuple[np.ndarray, np.ndarray]]()
    for slot in space:
        blocks = jax.tree.map(lambda *x: jnp.stack(x, 1), *(pad(block, rows) for block in slot.blocks))
        picked = np.tile(np.arange(len(slot.blocks)), len(states))
        before = np.repeat(states, len(slot.blocks))
        ms, leaves = np.zeros(len(picked), np.float32), np.zeros(len(picked), np.float32)
        for start in range(0, len(picked), _BATCH):
            part = np.minimum(np.arange(start, start + _BATCH), len(picked) - 1)
            rows_of = jax.tree.map(partial(jnp.take, indices=jnp.asarray(picked[part]), axis=1), blocks)
            ms[part], leaves[part] = _priced(rows_of, jnp.asarray(before[part]), chip, fast=fast)
        ahead, index = np.unique(leaves, return_inverse=True)
        if len(ahead) > MOST_STATES:
            raise ValueError(f"{len(ahead)} states after a slot, at most {MOST_STATES}: offer fewer blocks")
        shape = len(states), len(slot.blocks)
        steps.append((ms.reshape(shape), index.astype(np.int32).reshape(shape) * most))
        states = ahead
    count = max(len(step[0]) for step in steps)

    def whole(table: np.ndarray) -> np.ndarray:
        return np.pad(table, ((0, count - table.shape[0]), (0, most - table.shape[1]))).ravel()

    peaks = [np.pad(slot.peak_kb, (0, most - len(slot.blocks))) for slot in space]
    return Tables(
        jnp.asarray(np.stack([whole(ms) for ms, _ in steps])),
        jnp.asarray(np.stack([whole(ahead) for _, ahead in steps])),
        jnp.asarray(np.stack(peaks), jnp.float32),
    )


@partial(jax.jit, static_argnames=("chip", "fast"))
def _priced(blocks: LayerTable, before: jax.Array, chip: Chip, *, fast: bool) -> tuple[jax.Array, jax.Array]:
    """(ms, cycles left), each [B], of blocks [rows, B] after rows that leave `before` [B]."""

    def price(block: LayerTable, slack: jax.Array) -> tuple[jax.Array, jax.Array]:
        found, leaves = price_after(block, chip, slack, fast=fast)
        return found.ms, leaves

    return jax.vmap(price, in_axes=(1, 0))(blocks, before)


@jax.jit
def cost_of(tables: Tables, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(ms, SRAM peak in KiB), float32 [B] each, of networks whose blocks are `choices`, int32 [S, B]."""

    def step(
        so_far: tuple[jax.Array, jax.Array, jax.Array], slot: tuple[Tables, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        (ms, peak, state), (table, choice) = so_far, slot
        at = state + choice
        ms = ms + table.ms.at[at].get(mode="promise_in_bounds")
        peak = jnp.maximum(peak, table.peak_kb.at[choice].get(mode="promise_in_bounds"))
        return (ms, peak, table.next.at[at].get(mode="promise_in_bounds")), None

    zero = jnp.zeros(choices.shape[1:], jnp.float32)
    (ms, peak, _), _ = jax.lax.scan(step, (zero, zero, zero.astype(jnp.int32)), (tables, choices))
    return ms, peak
