"""Looking up a network in a space's tables gives what `cost` gives for its layers put together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.npu.chip import U85_128
from research.npu.cost import cost
from research.npu.space import Slot, cost_of, tables
from research.npu.table import CONV, DEPTHWISE, LayerTable
from tests.npu.networks import rows

SLOTS, ROWS = 5, 3


def block(size: int, width: int, factor: int, kernel: int, sparse: float) -> LayerTable:
    """An inverted residual block without its sum."""
    here, wide = {"oh": size, "ow": size, "ih": size, "iw": size}, width * factor
    return rows(
        here | {"op": CONV, "ic": width, "oc": wide, "kh": 1, "kw": 1, "sparse": sparse},
        here | {"op": DEPTHWISE, "ic": wide, "oc": wide, "kh": kernel, "kw": kernel},
        here | {"op": CONV, "ic": wide, "oc": width, "kh": 1, "kw": 1, "sparse": sparse},
    )


def space() -> list[Slot]:
    kinds = [(2, 3, 0.0), (4, 5, 0.0), (6, 3, 1.0)]
    return [
        Slot(tuple(block(8, 32 + 24 * i, *kind) for kind in kinds), (10.0 + i, 20.0, 30.0 - i))
        for i in range(SLOTS)
    ]


def test_tables_say_what_the_cost_says() -> None:
    slots = space()
    choices = np.random.default_rng(0).integers(0, 3, (SLOTS, 12))
    made = tables(slots, U85_128, fast=True)
    ms, peak = cost_of(made, jnp.asarray(choices))
    networks = [
        jax.tree.map(
            lambda *x: jnp.concatenate(x), *(s.blocks[c] for s, c in zip(slots, picked, strict=True))
        )
        for picked in choices.T
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x, 1), *networks)
    whole = jax.vmap(lambda table: cost(table, U85_128, fast=True).ms, in_axes=1)(stacked)
    np.testing.assert_allclose(ms, whole, rtol=1e-5)
    wanted = [max(s.peak_kb[c] for s, c in zip(slots, picked, strict=True)) for picked in choices.T]
    np.testing.assert_array_equal(peak, np.float32(wanted))
    apart = sum(float(tables([s], U85_128, fast=True).ms[0, 0]) for s in slots)
    together = float(cost_of(made, jnp.zeros((SLOTS, 1), jnp.int32))[0][0])
    assert together < apart * 0.999  # weights are fetched under the block before


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ValueError, match="a search space has slots"):
        tables([], U85_128)
