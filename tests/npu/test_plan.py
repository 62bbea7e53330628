"""The plan is the compiler's: operation by operation, SRAM included, with every feature on and off."""

import dataclasses
import math
from itertools import pairwise

import pytest

from research.bench.recipes import Layer, make
from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.network import Network, read_network
from research.npu.plan import plan
from research.npu.referee import referee
from tests.npu.networks import hand_network

SWITCHES = {
    "Sparsity": "sparsity", "Grouping": "grouping", "WeightBuffering": "weight_buffering", "FMStaging": "fm_staging",
}  # fmt: skip


def _mixed() -> bytes:
    """Attention, a gate, a pad, a concatenation and a resize in one small network."""

    def conv(name: str, source: str, width: int, kernel: int = 1) -> Layer:
        return Layer("conv", name, (source,), width=width, kernel=kernel)

    flat = [Layer("reshape", f"{n}/flat", (n,), like=(64, 16)) for n in "qkv"]
    recipe = (
        Layer("input", "image", like=(16, 16, 3)),
        Layer("conv", "stem", ("image",), width=24, kernel=3, stride=2, act="relu6"),
        Layer("hard_swish", "swish", ("stem",)), Layer("mean", "squeeze", ("swish",), mode="keep"),
        conv("gate", "squeeze", 24), Layer("logistic", "sigmoid", ("gate",)),
        Layer("mul", "scaled", ("swish", "sigmoid")), conv("q", "scaled", 16), conv("k", "scaled", 16),
        conv("v", "scaled", 16), *flat, Layer("transpose", "turned", ("k/flat",)),
        Layer("matmul", "scores", ("q/flat", "turned")), Layer("softmax", "soft", ("scores",)),
        Layer("matmul", "mixed", ("soft", "v/flat")), Layer("reshape", "back", ("mixed",), like=(8, 8, 16)),
        conv("left", "back", 20), conv("right", "back", 12, 3), Layer("concat", "both", ("left", "right")),
        Layer("resize", "large", ("both",), mode="bilinear"), Layer("pad", "padded", ("large",), kernel=1),
        Layer("max_pool", "pool", ("padded",), kernel=3, stride=2),
        Layer("transpose_conv", "up", ("pool",), width=24, kernel=2, stride=2), conv("out", "up", 8),
    )  # fmt: skip
    return make(recipe, 3).model


@pytest.mark.parametrize("chip", [U55_128, U85_128, U85_512], ids=lambda c: c.name)
def test_whole_networks(chip: Chip) -> None:
    for model in (hand_network(0, True).model, hand_network(1, False).model, _mixed()):
        found, said = plan(read_network(model), chip), referee(model, chip)
        assert found.cycles == pytest.approx(said.cycles, rel=0.005)
        assert found.ms == pytest.approx(found.cycles / chip.cycles_per_ms)
        assert found.sram_peak_kb == pytest.approx(said.sram_kb, rel=0.01)
        own = {layer.name: 0 for layer in found.layers}
        for layer in found.layers:
            own[layer.name] += layer.cycles
        for layer in said.layers:
            assert own.get(layer.name, 0) == pytest.approx(layer.cycles, rel=0.03, abs=40), layer.name


@pytest.mark.parametrize("name", SWITCHES)
def test_switches(name: str) -> None:
    chip = dataclasses.replace(U85_128, memory_mode="Dedicated_Sram") if name == "FMStaging" else U85_128
    model = hand_network(0, True).model
    off, on = (plan(read_network(model), chip, **{SWITCHES[name]: on}) for on in (False, True))
    said = referee(model, chip, (name,)).cycles / referee(model, chip).cycles
    assert off.cycles / on.cycles == pytest.approx(said, rel=0.01)
    assert said > 1.02


def test_switches_that_do_nothing() -> None:
    network = read_network(hand_network(1, True).model)
    assert plan(network, U85_128, fm_staging=False) == plan(network, U85_128)
    assert plan(network, U55_128, grouping=False) == plan(network, U55_128)
    assert plan(network, U55_128, sparsity=False) == plan(network, U55_128)


def test_slices_cover_the_channels() -> None:
    network = read_network(hand_network(2, False).model)
    found = plan(network, U85_128)
    sliced = [layer for layer in found.layers if layer.weight_format]
    for layer in sliced:
        edges, made = layer.depth_slices, network.graph.shape(layer.name)[-1]
        assert edges[0] == 0
        assert edges[-1] == made
        assert all(a < b for a, b in pairwise(edges))
        assert (layer.buffering == "Double") <= (len(edges) > 2)
    assert any(len(layer.depth_slices) > 2 for layer in sliced)
    assert {layer.bound_by for layer in found.layers} <= {"mac", "output", "wait", "sram", "flash"}


def test_weights_that_nobody_knows() -> None:
    network = read_network(hand_network(0, True).model)
    guess: Network = network._replace(kernels={})
    assert plan(guess, U85_128).cycles == pytest.approx(plan(network, U85_128).cycles, rel=0.05)
    assert math.isfinite(plan(guess, U55_128).mj)
