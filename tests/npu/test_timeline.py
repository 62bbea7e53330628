"""Live activations, worked out by hand; their largest is the peak."""

import pytest

from research.npu.liveness import sram_peak_kb
from research.npu.timeline import live_kb
from tests.npu.networks import HAND_NETS, Sketch, hand_graph


def test_a_chain_worked_out_by_hand() -> None:
    """Image 8*8*1, a and b in bricks of 16: 8*8*16 each; c is the output, plain, 8*8*3."""
    sketch = Sketch((8, 8, 1))
    sketch.unit("conv", "image", "a", 4)
    sketch.unit("conv", "a", "b", 16)
    sketch.unit("conv", "b", "c", 3)
    graph = sketch.graph("c")
    assert live_kb(graph) == ((64 + 1024) / 1024, 2.0, (1024 + 192) / 1024)
    assert live_kb(graph, bits=16) == tuple(2 * kb for kb in live_kb(graph))


def test_a_skip_stays_until_it_is_added_and_the_sum_takes_its_place() -> None:
    sketch = Sketch((8, 8, 1))
    sketch.unit("conv", "image", "a", 16)
    sketch.unit("conv", "a", "b", 16)
    sketch.unit("conv", "b", "c", 16)
    sketch.add("a", "c", "d")
    sketch.unit("conv", "d", "e", 16)
    assert live_kb(sketch.graph("e"))[1:4] == (2.0, 3.0, 2.0)


@pytest.mark.parametrize("net", HAND_NETS)
def test_its_peak_is_the_planners(net: tuple[int, int, tuple[tuple[int, int, int, int], ...], int]) -> None:
    graph = hand_graph(*net)
    assert max(live_kb(graph)) == sram_peak_kb(graph)
