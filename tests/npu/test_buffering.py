"""The rule of the buffers goes through the layers in their order and can be taken up again between any two."""

import jax
import jax.numpy as jnp
import numpy as np

from research.npu import buffering
from research.npu.chip import U85_128
from research.npu.rounding import EXACT

ROWS = 6


def work() -> buffering.Work:
    rng = np.random.default_rng(0)
    op = jnp.asarray(rng.uniform(2e3, 5e4, ROWS), jnp.float32)
    full = jnp.full((ROWS,), 64.0)
    return buffering.Work(op, op / 3, full / 16, full, full / 2, full / 4, op / 50, full > 0)


def run(op: jax.Array, depth: jax.Array, starts: jax.Array, ends: jax.Array) -> jax.Array:
    return op * depth / 64.0 + 10.0 * starts + 20.0 * ends


def plan(part: slice, before: jax.Array | None = None) -> buffering.Plan:
    of = jax.tree.map(lambda x: x[part], work())
    return buffering.plan(of, of.op > 0, of.op, run, U85_128, EXACT, before)


def test_a_network_priced_in_two_parts_is_the_same_network() -> None:
    whole, head = plan(slice(0, ROWS)), plan(slice(0, 2))
    tail = plan(slice(2, ROWS), head.leaves[-1])
    for name in buffering.Plan._fields:
        joined = np.concatenate([getattr(head, name), getattr(tail, name)])
        np.testing.assert_array_equal(getattr(whole, name), joined, err_msg=name)
    assert bool(whole.buffered.any())
    assert float(whole.slack[0]) == 0.0


def test_nothing_is_hidden_before_the_first_layer() -> None:
    first, later = plan(slice(0, 1)), plan(slice(0, 1), jnp.float32(1e6))
    assert float(first.slack[0]) == 0.0
    assert float(later.slack[0]) == 1e6
    assert float(later.first[0]) == 1.0  # all weights arrive under so long a layer
