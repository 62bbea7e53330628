"""The price agrees with the referee on networks it was not fitted to; its gradient points the right way."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.cost import Cost, cost
from research.npu.referee import referee
from research.npu.rounding import SMOOTH, THROUGH
from research.npu.table import DENSE, FREE, LayerTable, layer_names, layer_table, pad
from research.npu.weights import with_kernels
from tests.npu.networks import HAND_NETS, hand_graph, hand_network, rows, with_weights

CHIPS = (U85_128, U85_512, U55_128)
BAR = {"Ethos-U85-128": 0.04, "Ethos-U85-512": 0.06, "Ethos-U55-128": 0.06}
CONTINUOUS = ("ic", "oc", "sparse", "dense_bytes_per_weight", "sparse_bytes_per_weight")


ROWS = 28  # every table has as many rows, so that each chip's price is compiled once


def priced_table(index: int, sparse: bool) -> LayerTable:
    network = hand_network(index, sparse)
    return pad(with_kernels(layer_table(network.graph), network.graph, network.kernels), ROWS)


@partial(jax.jit, static_argnames="chip")
def gradient(table: LayerTable, chip: Chip) -> LayerTable:
    """Slope of the straight-through price in every field."""
    return jax.grad(lambda t: cost(t, chip, rounding=THROUGH).ms)(table)


def padded_names(index: int) -> tuple[str, ...]:
    names = layer_names(hand_network(index, False).graph)
    return (*names, *("",) * (ROWS - len(names)))


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("index", range(len(HAND_NETS)))
def test_whole_networks_agree_with_the_referee(chip: Chip, sparse: bool, index: int) -> None:
    verdict = referee(hand_network(index, sparse).model, chip)
    assert float(cost(priced_table(index, sparse), chip).ms) == pytest.approx(verdict.ms, rel=BAR[chip.name])


@pytest.mark.parametrize("index", range(len(HAND_NETS)))
def test_what_2_4_brings_agrees_with_the_referee(index: int) -> None:
    ours, theirs = (
        [float(price(index, sparse)) for sparse in (False, True)]
        for price in (
            lambda i, s: cost(priced_table(i, s), U85_128).ms,
            lambda i, s: referee(hand_network(i, s).model, U85_128).ms,
        )
    )
    assert ours[0] / ours[1] == pytest.approx(theirs[0] / theirs[1], abs=0.05)
    assert ours[0] / ours[1] > 1.1


def test_layers_agree_with_the_referee() -> None:
    names = layer_names(hand_network(2, True).graph)
    found = cost(priced_table(2, True), U85_128)
    errors = []
    for layer in referee(hand_network(2, True).model, U85_128).layers:
        if layer.cycles:
            row = names.index(layer.name)
            errors.append(abs(float(found.cycles[row]) / layer.cycles - 1))
            assert bool(found.runs_sparse[row]) == (layer.weight_format == "Sparse2_4"), layer.name
    assert np.median(errors) < 0.02
    assert max(errors) < 0.25


EDITS = (  # block, field (expanded width, output width, kernel), change
    (1, 0, 16),
    (3, 0, -16),
    (4, 0, 8),
    (2, 1, 8),
    (5, 1, -8),
    (0, 2, 2),
    (3, 2, -2),
)


@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
def test_single_edits_move_the_price_as_they_move_the_referee(chip: Chip) -> None:
    size_px, stem, blocks, neck = HAND_NETS[1]

    def prices(shape: tuple[tuple[int, int, int, int], ...]) -> tuple[float, float]:
        network = with_weights(hand_graph(size_px, stem, shape, neck), seed=1)
        table = with_kernels(layer_table(network.graph), network.graph, network.kernels)
        return float(cost(pad(table, ROWS), chip).ms), referee(network.model, chip).ms

    ours, theirs = prices(blocks)
    for block, field, change in EDITS:
        edited = [list(b) for b in blocks]
        edited[block][field] += change
        mine, judged = prices(tuple((a, b, c, d) for a, b, c, d in edited))
        assert abs(judged / theirs - 1) > 0.002
        assert (mine > ours) == (judged > theirs), (block, field, change)


def test_older_chip_gains_by_compression_only() -> None:
    dense, sparse = (cost(priced_table(0, s), U55_128) for s in (False, True))
    np.testing.assert_array_equal(dense.mac_cycles, sparse.mac_cycles)
    assert float(sparse.weight_bytes.sum()) < 0.75 * float(dense.weight_bytes.sum())
    assert float(sparse.runs_sparse.sum()) == 0


def test_cost_is_a_sum_of_maxima() -> None:
    found = cost(priced_table(0, False), U85_128)
    longest = np.maximum(found.npu_cycles, np.maximum(found.sram_cycles, found.flash_cycles))
    np.testing.assert_allclose(found.cycles, longest, rtol=1e-6)
    assert float(found.ms) == pytest.approx(float(longest.sum()) / 200e3, rel=1e-5)
    assert float(found.macs.sum()) == pytest.approx(float(priced_table(0, False).macs) - 32 * 32 * 9 * 8 / 2)


@given(st.integers(0, 2), st.booleans(), st.sampled_from(CHIPS))
@settings(max_examples=6)
def test_through_has_the_exact_values(index: int, sparse: bool, chip: Chip) -> None:
    table = priced_table(index, sparse)
    for a, b in zip(cost(table, chip), cost(table, chip, rounding=THROUGH), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "chip",
    [CHIPS[0], *(pytest.param(chip, marks=pytest.mark.slow) for chip in CHIPS[1:])],
    ids=lambda chip: chip.name,
)
@pytest.mark.parametrize("sparse", [False, True])
def test_gradient_agrees_with_wide_differences(chip: Chip, sparse: bool) -> None:
    """Straight-through slope of every block's expanded width, against the exact price at +-16 channels."""
    table, names = priced_table(1, sparse), padded_names(1)

    def ms(ic: jax.Array, oc: jax.Array) -> jax.Array:
        return cost(table._replace(ic=ic, oc=oc), chip).ms

    slopes = gradient(table, chip)
    for block in range(len(HAND_NETS[1][2])):
        writes = jnp.asarray(
            [name in (f"b{block}/expand", f"b{block}/depthwise") for name in names], jnp.float32
        )
        reads = jnp.asarray(
            [name in (f"b{block}/depthwise", f"b{block}/project") for name in names], jnp.float32
        )
        slope = float(slopes.ic @ reads + slopes.oc @ writes)
        wider, narrower = (ms(table.ic + d * reads, table.oc + d * writes) for d in (16.0, -16.0))
        difference = float(wider - narrower) / 32
        assert difference > 0
        assert 0.4 * difference < slope < 2.5 * difference


def test_the_smooth_price_has_the_slope_of_its_central_differences() -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        table = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), priced_table(1, False))
        start = {name: getattr(table, name) * rng.uniform(0.8, 1.2, ROWS) for name in ("ic", "oc")}

        def ms(columns: dict[str, jax.Array]) -> jax.Array:
            return cost(table._replace(**columns), U55_128, rounding=SMOOTH).ms

        slope = jax.grad(ms)(start)
        for name in start:
            along = start[name] * rng.normal(size=ROWS)
            ends = [float(ms(start | {name: start[name] + h * along})) for h in (-1e-6, 1e-6)]
            said = float(jnp.sum(slope[name] * along))
            assert (ends[1] - ends[0]) / 2e-6 == pytest.approx(said, rel=1e-6)
            assert abs(said) > 0.1


def test_sparse_has_a_downward_slope_where_it_pays() -> None:
    slope = gradient(priced_table(0, True), U85_128).sparse
    assert float(slope.max()) <= 0
    assert float(slope.min()) < 0


def test_half_sparse_lies_between() -> None:
    table = rows({"oc": 256.0, "ic": 256.0}, {"oc": 256.0, "ic": 256.0})
    dense, half, sparse = (cost(table._replace(sparse=jnp.full((2,), s)), U85_128) for s in (0.0, 0.5, 1.0))
    assert float(sparse.ms) < float(half.ms) < float(dense.ms)
    np.testing.assert_allclose(half.macs, 0.75 * dense.macs)


LAYER = st.fixed_dictionaries(
    {
        "op": st.integers(0, FREE),
        "oh": st.integers(1, 64),
        "ow": st.integers(1, 64),
        "ic": st.floats(1, 400, width=32),
        "oc": st.floats(1, 400, width=32),
        "kh": st.sampled_from([1, 3, 5, 9]),
        "kw": st.sampled_from([1, 3, 5]),
        "stride": st.sampled_from([1, 2]),
        "bits": st.sampled_from([8, 16]),
        "sparse": st.floats(0, 1, width=32),
        "carries_add": st.booleans().map(float),
        "plain_in": st.booleans().map(float),
    }
)


@given(st.lists(LAYER, min_size=ROWS, max_size=ROWS), st.sampled_from([U85_128, U55_128]))
def test_any_layer_has_a_finite_price_and_gradient(layers: list[dict[str, float]], chip: Chip) -> None:
    for layer in layers:
        layer["ih"], layer["iw"] = layer["oh"] * layer["stride"], layer["ow"] * layer["stride"]
        if layer["op"] == DENSE:
            layer |= dict.fromkeys(("oh", "ow", "ih", "iw", "kh", "kw", "stride"), 1)
    table = rows(*layers)
    price, slopes = cost(table, chip, rounding=THROUGH).ms, gradient(table, chip)
    assert np.isfinite(float(price))
    assert float(price) >= 0
    assert all(bool(jnp.isfinite(getattr(slopes, name)).all()) for name in CONTINUOUS)


def test_networks_can_be_mapped() -> None:
    tables = [priced_table(index, index == 1) for index in range(3)]
    stacked = LayerTable(*(jnp.stack(columns) for columns in zip(*tables, strict=True)))
    together: Cost = jax.vmap(lambda table: cost(table, U85_128))(stacked)
    np.testing.assert_allclose(together.ms, [cost(table, U85_128).ms for table in tables], rtol=1e-5)
