"""SRAM for activations: hand-counted on small graphs, and close to the compiler's allocation."""

import pytest

from research.npu.chip import U55_128, U85_128, Chip
from research.npu.liveness import sram_peak_kb
from research.npu.referee import referee
from research.npu.reference import v1_graph
from tests.npu.networks import Sketch, hand_network, with_weights


def test_a_chain_holds_two_tensors() -> None:
    sketch = Sketch((16, 16, 3))
    sketch.unit("conv", sketch.unit("conv", "image", "a", 20), "b", 8)
    graph = sketch.graph("b")
    brick_a, plain_b, plain_image = 16 * 16 * 32, 16 * 16 * 8, 16 * 16 * 3
    assert sram_peak_kb(graph) == max(plain_image + brick_a, brick_a + plain_b) / 1024
    assert sram_peak_kb(graph, bits=16) == 2 * sram_peak_kb(graph)


def test_a_residual_keeps_its_source_alive_and_an_add_needs_no_third_map() -> None:
    sketch = Sketch((8, 8, 16))
    a = sketch.unit("conv", "image", "a", 16)
    wide = sketch.unit("conv", a, "wide", 64)
    narrow = sketch.unit("conv", wide, "narrow", 16)
    sketch.unit("conv", sketch.add(a, narrow, "sum"), "out", 16)
    assert sram_peak_kb(sketch.graph("out")) == 8 * 8 * (16 + 64 + 16) / 1024


def test_a_reshape_makes_no_tensor() -> None:
    sketch = Sketch((8, 8, 16))
    sketch.dense(sketch.flatten(sketch.unit("conv", "image", "a", 24)), "out", 10)
    assert sram_peak_kb(sketch.graph("out")) == 8 * 8 * (16 + 24) / 1024


def test_constants_lie_in_flash_and_passes_overwrite() -> None:
    sketch = Sketch((8, 8, 16))
    x = sketch.op("mul", sketch.unit("conv", "image", "a", 32), sketch.constant(8, 8, 32))
    sketch.unit("conv", sketch.op("hard_swish", x), "out", 16)
    assert sram_peak_kb(sketch.graph("out")) == 8 * 8 * (16 + 32) / 1024


def test_slices_share_their_source_and_pads_take_it_in() -> None:
    sketch = Sketch((8, 8, 16))
    a = sketch.unit("conv", "image", "a", 16)
    part = sketch.op("slice", a, spans=((0, 1),) * 4, recorded=(1, 4, 8, 16))
    wide = sketch.op("pad", sketch.unit("conv", part, "b", 16), spans=((0, 0), (2, 2), (0, 0), (0, 0)))
    graph = sketch.graph(sketch.pool("max_pool", wide, "out"))
    assert sram_peak_kb(graph) == 8 * 8 * (16 + 16) / 1024


def test_a_softmax_needs_its_exponentials_twice() -> None:
    sketch = Sketch((16, 16, 32))
    y = sketch.op("reshape", sketch.unit("conv", "image", "a", 32), recorded=(1, 256, 32))
    net = with_weights(sketch.graph(sketch.op("softmax", y, alpha=1.0)))
    assert sram_peak_kb(net.graph) == pytest.approx(referee(net.model, U85_128).sram_kb, rel=0.05)


@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
def test_hand_networks_are_close_to_the_compiler(chip: Chip) -> None:
    for index in range(3):
        network = hand_network(index, False)
        allocated = referee(network.model, chip).sram_kb
        assert 0.85 * allocated <= sram_peak_kb(network.graph) <= 1.02 * allocated


def test_v1_is_close_to_the_compiler() -> None:
    graph = v1_graph()
    assert sram_peak_kb(graph) == pytest.approx(referee(with_weights(graph).model, U85_128).sram_kb, rel=0.05)
