"""What rides on what, and what is copied: by hand on small graphs, and as the compiler's own operators tell."""

from __future__ import annotations

import pytest

from research.npu.chip import U55_128, U85_128, Chip
from research.npu.referee import referee
from research.npu.riding import copied_share, riders
from tests.npu.networks import Sketch, with_weights


def test_a_chain_rides_on_one_layer_until_it_reads_too_much() -> None:
    sketch = Sketch((8, 8, 16))
    sketch.unit("conv", "image", "base", 16, act="none")
    x = sketch.op("mul", "base", sketch.constant(16), name="scale")
    x = sketch.op("add", x, sketch.constant(16), name="shift")
    x = sketch.op("clamp", x, bounds=(0.0, 6.0), name="relu")
    x = sketch.op("add", x, "image", name="residual")
    found = riders(sketch.graph(x))
    assert found == {"scale": "base", "shift": "base", "relu": "base"}


def test_numbers_cost_no_input_but_a_chain_has_at_most_four() -> None:
    sketch = Sketch((8, 8, 16))
    x = sketch.unit("conv", "image", "base", 16)
    for name in ("one", "two", "three", "four"):
        x = sketch.op("mul", x, sketch.constant(1), name=name)
    assert riders(sketch.graph(x)) == dict.fromkeys(("one", "two", "three"), "base")


def test_nothing_rides_on_what_others_read() -> None:
    sketch = Sketch((8, 8, 16))
    x = sketch.unit("conv", "image", "base", 16, act="none")
    gate = sketch.op("logistic", x, name="gate")
    assert riders(sketch.graph(sketch.op("mul", x, gate, name="swish"))) == {"swish": "gate"}
    assert riders(sketch.graph("base")) == {"swish": "gate"}


def test_activations_ride_once_and_never_on_a_fused_one() -> None:
    sketch = Sketch((8, 8, 16))
    x = sketch.op("tanh", sketch.unit("conv", "image", "base", 16, act="none"), name="first")
    x = sketch.op("tanh", sketch.op("tanh", x, name="second"), name="third")
    sketch.op("tanh", sketch.unit("conv", "image", "fused", 16, act="relu"), name="late")
    assert riders(sketch.graph(x)) == {"first": "base"}


@pytest.mark.parametrize("chip", [U85_128, U55_128], ids=lambda chip: chip.name)
def test_the_compiler_agrees_on_activations(chip: Chip) -> None:
    sketch = Sketch((16, 16, 16))
    x = sketch.op("hard_swish", sketch.unit("conv", "image", "base", 16, act="none"), name="rides")
    x = sketch.op("mul", x, sketch.op("logistic", x, name="alone"), name="gated")
    net = with_weights(sketch.graph(sketch.unit("conv", x, "last", 16)))
    found, verdict = riders(net.graph), referee(net.model, chip)
    chained = {"gated"} if chip.chains_adds else set()
    assert {layer.name for layer in verdict.layers if layer.cycles == 0} == {"rides"} | chained
    assert found == {"rides": "base", "gated": "alone"}


def shares(sketch: Sketch, output: str) -> dict[str, float]:
    graph = sketch.graph(output)
    return {node.output: copied_share(graph, node) for node in graph.nodes}


def test_concat_copies_what_others_read_or_made() -> None:
    sketch = Sketch((8, 8, 16))
    a, b = sketch.unit("conv", "image", "a", 16), sketch.unit("conv", "image", "b", 48)
    joined = sketch.op("concat", a, b, axis=3, name="joined")
    again = sketch.op("concat", joined, b, "image", axis=3, name="again")
    last = sketch.unit("conv", again, "last", 8)
    assert shares(sketch, last) == {"a": 1, "b": 1, "last": 1, "joined": 48 / 64, "again": 64 / 128}
    assert shares(sketch, "joined")["joined"] == 1.0


def test_reshapes_and_slices_are_views_unless_they_leave() -> None:
    sketch = Sketch((8, 8, 16))
    a = sketch.unit("conv", "image", "a", 16)
    flat = sketch.op("reshape", a, recorded=(1, 64, 16), name="flat")
    part = sketch.op("slice", flat, spans=((0, 1),) * 3, recorded=(1, 4, 16), name="part")
    assert shares(sketch, part) == {"a": 1, "flat": 0, "part": 1}
    sketch.unit("conv", a, "other", 16)
    assert shares(sketch, flat)["flat"] == 1
    assert shares(sketch, flat)["part"] == 0


def test_pads_are_folded_or_filled() -> None:
    sketch = Sketch((8, 8, 16))
    a = sketch.unit("conv", "image", "a", 16)
    spans = ((0, 0), (1, 1), (1, 1), (0, 0))
    folded = sketch.op("pad", a, spans=spans, name="folded")
    sketch.op("conv", folded, name="reader", kernel_shape=(3, 3, 16, 16))
    filled = sketch.op("pad", "reader", spans=spans, name="filled")
    deeper = sketch.op("pad", filled, spans=((0, 0), (0, 0), (0, 0), (0, 16)), name="deeper")
    found = shares(sketch, deeper)
    assert (found["folded"], found["filled"], found["deeper"]) == (0, 36 / 100, 0.25)
