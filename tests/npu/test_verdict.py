"""A verdict names layers as the graph does and says why a layer does not run as 2:4."""

import numpy as np
import pytest

from research.npu.chip import U55_128, U85_128
from research.npu.referee import referee
from research.npu.table import layer_names
from research.npu.verdict import sparse_reason
from tests.npu.networks import Network, Sketch, exported, hand_graph, hand_network, with_weights

WIDE = hand_graph(32, 16, ((128, 64, 3, 1), (128, 64, 3, 1)), 64)


def test_layers_are_the_sites_in_order() -> None:
    network = hand_network(0, False)
    verdict = referee(network.model, U85_128)
    assert verdict.cpu_ops == 0
    assert tuple(layer.name for layer in verdict.layers) == tuple(
        name for name in layer_names(network.graph) if name != "flat"
    )


def test_totals_are_sums_of_layers() -> None:
    verdict = referee(hand_network(1, True).model, U85_128)
    assert sum(layer.cycles for layer in verdict.layers) == verdict.cycles
    assert verdict.ms == pytest.approx(verdict.cycles / 200e3)
    assert sum(layer.weight_bytes for layer in verdict.layers) / 1024 == pytest.approx(
        verdict.weights_kb_encoded
    )
    assert verdict.flash_kb > verdict.weights_kb_encoded


def test_macs_halve_where_2_4_runs() -> None:
    network = hand_network(0, True)
    verdict = referee(network.model, U85_128)
    sparse = {layer.name for layer in verdict.layers if layer.weight_format == "Sparse2_4"}
    full = {node.output: network.graph.macs(node) for node in network.graph.nodes}
    assert verdict.macs == sum(macs / (2 if name in sparse else 1) for name, macs in full.items())
    assert referee(network.model, U55_128).macs == network.graph.total_macs


def test_one_bad_group_makes_a_layer_dense() -> None:
    network = with_weights(WIDE, sparse=True)
    assert referee(network.model, U85_128).layer("b1/project").weight_format == "Sparse2_4"
    params = {path: value.copy() for path, value in network.params.items()}
    params["b1/project/kernel"][0, 0, :4, 0] = 0.1
    spoiled = Network(WIDE, params, exported(WIDE, params))
    verdict = referee(spoiled.model, U85_128)
    layer = verdict.layer("b1/project")
    assert layer.weight_format == "Default"
    assert verdict.layer("b0/project").weight_format == "Sparse2_4"
    reason = sparse_reason(layer, U85_128, params["b1/project/kernel"])
    assert reason == f"1 of {128 // 4 * 64} groups have fewer than 2 zeros in 4"


def test_every_layer_has_a_reason() -> None:
    network = with_weights(WIDE, sparse=True)
    verdict = referee(network.model, U85_128)
    assert sparse_reason(verdict.layer("b1/project"), U85_128) == ""
    no_gain = sparse_reason(verdict.layer("b1/expand"), U85_128, network.kernels["b1/expand/kernel"])
    assert no_gain == "2:4 brings no gain here, says the compiler"
    assert sparse_reason(verdict.layer("b1/add"), U85_128) == "no weights"
    assert sparse_reason(verdict.layer("b1/depthwise"), U85_128).startswith("depthwise")
    old = referee(network.model, U55_128)
    assert sparse_reason(old.layer("b1/expand"), U55_128) == "Ethos-U55-128 has no 2:4"
    dense = referee(with_weights(WIDE).model, U85_128).layer("b1/expand")
    assert sparse_reason(dense, U85_128) == "dense weights, or 2:4 without gain"
    minus_128 = np.zeros((64, 128), np.int8)
    assert "gain" in sparse_reason(dense, U85_128, minus_128)
    minus_128[0, 0] = -128
    assert "-128" in sparse_reason(dense, U85_128, minus_128)


def test_an_unknown_layer_lists_the_known() -> None:
    verdict = referee(hand_network(0, False).model, U85_128)
    with pytest.raises(KeyError, match="there are stem"):
        verdict.layer("steam")


def test_an_operator_of_many_parts_and_one_for_the_cpu() -> None:
    sketch = Sketch((8, 8, 16))
    soft = sketch.op("softmax", sketch.unit("conv", "image", "a", 16), alpha=1.0, name="soft")
    net = with_weights(sketch.graph(sketch.op("depth_to_space", soft, window=(2, 2), name="host")))
    verdict = referee(net.model, U85_128)
    assert [layer.name for layer in verdict.layers] == ["a", "soft", "host"]
    assert sum(layer.cycles for layer in verdict.layers) == verdict.cycles
    assert (verdict.cpu_ops, verdict.layer("host").op, verdict.layer("host").cycles) == (1, "Passthrough", 0)
    alone = Sketch((8, 8, 16))
    alone.op("depth_to_space", "image", window=(2, 2), name="host")
    nothing = referee(with_weights(alone.graph("host")).model, U85_128)
    assert (nothing.cycles, nothing.sram_kb, nothing.cpu_ops) == (0, 0, 1)
