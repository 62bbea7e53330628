"""2:4 is recognised exactly, and encoded sizes follow the spread and zeros of the weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.chip import U55_128, U85_128
from research.npu.cost import cost
from research.npu.referee import referee
from research.npu.table import layer_names, layer_table
from research.npu.weights import bad_groups, encoded_bytes_per_weight, is_2_4, with_kernels
from tests.npu.networks import Sketch, exported, hand_network, prune_2_4, with_weights


@given(st.integers(1, 70), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 99))
def test_bad_groups_against_a_loop(channels: int, outputs: int, kernel: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-3, 4, (kernel, kernel, channels, outputs)).astype(np.int8)
    weights[rng.random(weights.shape) < 0.4] = 0
    bad = total = 0
    for start in range(0, channels, 4):
        nonzero = (weights[:, :, start : start + 4] != 0).sum(axis=2)
        bad, total = bad + int((nonzero > 2).sum()), total + nonzero.size
    assert bad_groups(weights) == (bad, total)
    assert is_2_4(weights) == (bad == 0)


@given(st.integers(1, 65), st.integers(0, 99))
def test_pruned_weights_are_2_4(channels: int, seed: int) -> None:
    assert is_2_4(prune_2_4(np.random.default_rng(seed).normal(size=(3, 3, channels, 5))))


def test_minus_128_spoils_the_pattern() -> None:
    weights = np.zeros((8, 4), np.int8)
    assert is_2_4(weights)
    weights[0, 0] = -128
    assert bad_groups(weights)[0] == 0
    assert not is_2_4(weights)


def test_a_vector_is_no_kernel() -> None:
    with pytest.raises(ValueError, match=r"\[\.\.\., in, out\]"):
        bad_groups(np.zeros(4))


def test_bytes_grow_with_spread_and_shrink_with_zeros() -> None:
    rng = np.random.default_rng(0)

    def bytes_at(deviation: float, zeros: float) -> float:
        weights = np.clip(np.round(rng.normal(0, deviation, (64, 64))), -127, 127)
        weights[rng.random(weights.shape) < zeros] = 0
        return encoded_bytes_per_weight(weights.astype(np.int8))

    assert bytes_at(8, 0) < bytes_at(20, 0) < bytes_at(45, 0) < 1.2
    assert bytes_at(32, 0.9) < bytes_at(32, 0.7) < bytes_at(32, 0.4) < bytes_at(32, 0)
    assert encoded_bytes_per_weight(np.zeros((8, 8), np.int8)) == 0
    assert encoded_bytes_per_weight(np.zeros((8, 8), np.float32)) == 0


def test_float_kernels_are_taken_as_the_exporter_quantises_them() -> None:
    kernel = np.random.default_rng(1).normal(0, 0.02, (1, 1, 64, 32)).astype(np.float32)
    scale = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    rounded = np.round(kernel / scale).astype(np.int8)
    assert encoded_bytes_per_weight(kernel) == pytest.approx(encoded_bytes_per_weight(rounded), rel=1e-6)


@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
@pytest.mark.parametrize("sparse", [False, True])
def test_the_dense_head_takes_the_bytes_the_compiler_says(chip: object, sparse: bool) -> None:
    network = hand_network(2, sparse)
    kernel = network.kernels["head/kernel"]
    verdict = referee(network.model, U85_128 if chip is U85_128 else U55_128)
    assert encoded_bytes_per_weight(kernel) * kernel.size == pytest.approx(
        verdict.layer("head").weight_bytes, rel=0.06
    )


def test_with_kernels_reads_every_weight() -> None:
    network = hand_network(0, True)
    names = layer_names(network.graph)
    table = with_kernels(layer_table(network.graph), network.graph, network.kernels)
    sparse = {name for name, s in zip(names, np.asarray(table.sparse), strict=True) if s}
    wanted = {
        name for name in names if name.endswith(("expand", "project")) or name in ("stem", "neck", "head")
    }
    assert sparse == wanted
    one_bad = {"b1/expand/kernel": network.kernels["b1/expand/kernel"].copy()}
    one_bad["b1/expand/kernel"][0, 0, :4, 0] = 1
    spoiled = with_kernels(table, network.graph, one_bad)
    row = names.index("b1/expand")
    assert float(spoiled.sparse[row]) == 0
    assert float(spoiled.sparse.sum()) == len(wanted) - 1


@pytest.mark.parametrize("steep", [False, True])
def test_slopes_of_a_prelu_decide_its_passes(steep: bool) -> None:
    sketch = Sketch((16, 16, 16))
    x = sketch.unit("conv", "image", "a", 32, act="none")
    graph = sketch.graph(sketch.op("prelu", x, sketch.op("constant", name="slopes", kernel_shape=(1, 1, 32))))
    net = with_weights(graph)
    net.params["slopes/kernel"][0, 0, 0] = 2.0 if steep else 0.5
    table = with_kernels(layer_table(graph), graph, net.kernels)
    for chip in (U85_128, U55_128):
        verdict = referee(exported(graph, net.params), chip)
        assert float(cost(table, chip).cycles.sum()) == pytest.approx(verdict.cycles, rel=0.12)


def test_with_kernels_refuses_a_stranger() -> None:
    network = hand_network(0, False)
    with pytest.raises(ValueError, match="no layer reads the kernel 'stm/kernel'"):
        with_kernels(layer_table(network.graph), network.graph, {"stm/kernel": np.zeros((3, 3, 1, 8))})
