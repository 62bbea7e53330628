"""SRAM for activations: hand-counted on small graphs, and close to the compiler's allocation."""

import importlib

import numpy as np
import pytest

from research.bench import population
from research.bench.recipes import make
from research.graph.ir import Graph
from research.npu.chip import U55_128, U85_128, Chip
from research.npu.liveness import WeightBuffer, live_bytes, sram_peak_kb, tensor_bits
from research.npu.network import read_network
from research.npu.referee import referee
from research.npu.reference import v1_graph
from research.npu.riding import riders
from tests.npu.networks import Sketch, hand_network, with_weights

REFEREE = importlib.import_module("research.npu.referee")  # the package's `referee` is the function


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


def test_every_step_of_a_chain_worked_out_by_hand() -> None:
    """Image 8*8*1, a and b in bricks of 16: 8*8*16 each; c is the output, plain, 8*8*3."""
    sketch = Sketch((8, 8, 1))
    sketch.unit("conv", "image", "a", 4)
    sketch.unit("conv", "a", "b", 16)
    sketch.unit("conv", "b", "c", 3)
    graph = sketch.graph("c")
    assert live_bytes(graph) == (64 + 1024, 2048, 1024 + 192)
    assert live_bytes(graph, bits=16) == tuple(2 * size for size in live_bytes(graph))


def test_a_skip_stays_until_it_is_added_and_the_sum_takes_its_place() -> None:
    sketch = Sketch((8, 8, 1))
    sketch.unit("conv", "image", "a", 16)
    sketch.unit("conv", "a", "b", 16)
    sketch.unit("conv", "b", "c", 16)
    sketch.add("a", "c", "d")
    sketch.unit("conv", "d", "e", 16)
    assert live_bytes(sketch.graph("e"))[1:4] == (2048, 3072, 2048)


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


def test_a_number_without_axes_is_one_element() -> None:
    sketch = Sketch((4, 4, 16))
    sketch.op("mul", sketch.unit("conv", "image", "a", 16), sketch.constant(), name="out")
    assert live_bytes(sketch.graph("out")) == (512, 256, 256)  # the product takes a's place


def test_an_operand_that_others_read_is_not_overwritten() -> None:
    """b is read by the add alone, so the sum takes its place; a is read twice and cannot be."""
    sketch = Sketch((8, 8, 16))
    a = sketch.unit("conv", "image", "a", 16)
    sketch.unit("conv", a, "b", 16)
    sketch.add("b", a, "sum")
    sketch.op("hard_swish", "sum", name="out")
    assert live_bytes(sketch.graph("out")) == (2048, 2048, 2048, 1024)


def test_tensors_have_the_width_of_those_that_read_them() -> None:
    sketch = Sketch((8, 8, 16))
    sketch.unit("conv", "image", "a", 16)
    sketch.op("quantize", "a", name="b")
    sketch.unit("conv", "b", "c", 16)
    graph = sketch.graph("c")
    bits = tensor_bits(graph, (16, 16, 8))
    assert bits == {"image": 16, "a": 16, "b": 8, "c": 8}
    assert live_bytes(graph, bits=bits) == (4096, 3072, 2048)  # b is smaller than a, so it lies beside it
    with pytest.raises(ValueError, match="1 widths but 3 nodes"):
        tensor_bits(graph, (8,))


def test_weights_lie_beside_the_layer_and_the_one_before() -> None:
    """b's weights: 100 bytes come under a, 250 are there when b starts, 200 of them to its end."""
    sketch = Sketch((8, 8, 16))
    sketch.unit("conv", "image", "a", 16)
    sketch.unit("conv", "a", "b", 16)
    sketch.unit("conv", "b", "c", 16)
    graph = sketch.graph("c")
    buffers = {"b": WeightBuffer(100, 250, 200), "c": WeightBuffer(70, 70, 70)}
    assert live_bytes(graph, buffers=buffers) == (2048 + 100, 2048 + 200 + 70, 2048 + 70)
    assert sram_peak_kb(graph, buffers=buffers) == (2048 + 270) / 1024


def test_a_rider_shares_the_step_of_its_layer() -> None:
    sketch = Sketch((8, 8, 16))
    sketch.unit("conv", "image", "a", 16, act="none")
    sketch.op("hard_swish", "a", name="b")
    sketch.unit("conv", "b", "c", 16)
    buffers = {"a": WeightBuffer(0, 50, 50), "c": WeightBuffer(10, 10, 10)}
    assert live_bytes(sketch.graph("c"), buffers=buffers) == (2048 + 60, 1024 + 60, 2048 + 10)


@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
@pytest.mark.parametrize("seed", [21, 22])
def test_random_networks_without_weight_buffers_are_the_compilers(chip: Chip, seed: int) -> None:
    for recipe in population.networks(seed, 3):
        model = make(*recipe).model
        network = read_network(model)
        bits = tensor_bits(network.graph, np.asarray(network.table.bits).tolist())
        said = referee(model, chip, ("WeightBuffering",)).sram_kb
        assert sram_peak_kb(network.graph, bits=bits) == pytest.approx(said, rel=0.003)


def recorded(model: bytes, graph: Graph, chip: Chip) -> tuple[dict[str, WeightBuffer], float]:
    """The weight buffers that the compiler's database holds, and its peak in KiB: operation k runs at time 2 k."""
    with REFEREE._silence():
        result = REFEREE._regor().compile(
            REFEREE._architecture(chip), model, "TFLITE", REFEREE._system_text(chip),
            REFEREE._options_text(chip, ()), False,
        )  # fmt: skip
    table = result.opt_database.tables["tensors"]
    found = [dict(zip(table.header, row, strict=True)) for row in table.data]
    base, made, parts = riders(graph), dict[int, str](), dict[int, list[tuple[int, int, int]]]()
    for row in found:
        start, end, size = int(row["start_time"]), int(row["end_time"]), int(row["size"], 16)
        if row["usage"] == "OpBuffering":
            parts.setdefault(int(row["name"].rsplit("op", 1)[1]), []).append((start, end, size))
        elif row["memory"] == "Sram" and row["name"] not in graph.inputs:
            made[start // 2] = base.get(row["name"], row["name"])
    buffers = {
        made[k]: WeightBuffer(
            sum(size for start, _, size in each if start < 2 * k),
            sum(size for start, end, size in each if start <= 2 * k <= end),
            sum(size for _, end, size in each if end > 2 * k),
        )
        for k, each in parts.items()
    }
    peak = {memory.memoryName: memory.peakUsage for memory in result.perf_report.memories.values()}
    return buffers, peak["Sram"] / 1024


def test_with_the_compilers_weight_buffers_the_peak_is_the_compilers() -> None:
    """Only networks whose convolutions make a tensor of their own each, so that the database names them."""
    shares = {"concat", "pad", "transpose_conv"}
    plain = [r for r in population.networks(21, 20) if not shares & {layer.op for layer in r[0]}]
    for recipe in plain[:6]:
        model = make(*recipe).model
        network = read_network(model)
        bits = tensor_bits(network.graph, np.asarray(network.table.bits).tolist())
        buffers, said = recorded(model, network.graph, U85_128)
        alone = sram_peak_kb(network.graph, bits=bits)
        assert sram_peak_kb(network.graph, bits=bits, buffers=buffers) == pytest.approx(said, rel=1e-4)
        assert alone < said


@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
def test_hand_networks_are_close_to_the_compiler(chip: Chip) -> None:
    for index in range(3):
        network = hand_network(index, False)
        allocated = referee(network.model, chip).sram_kb
        assert 0.85 * allocated <= sram_peak_kb(network.graph) <= 1.02 * allocated


def test_v1_is_close_to_the_compiler() -> None:
    graph = v1_graph()
    assert sram_peak_kb(graph) == pytest.approx(referee(with_weights(graph).model, U85_128).sram_kb, rel=0.05)
