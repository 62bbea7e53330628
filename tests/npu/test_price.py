"""A price adds up, says what bounds each layer, and stands beside the compiler and another chip."""

import json

import pytest

from research.npu.chip import U55_128, U85_128
from research.npu.named import cost_on
from research.npu.network import read_network
from research.npu.price import bound_by, price
from research.npu.referee import referee as judge
from research.npu.systolic import SYSTOLIC_OS, SYSTOLIC_WS
from tests.npu.networks import hand_network


def test_the_layers_add_up_to_the_network() -> None:
    found = price(hand_network(0, True).model, U85_128)
    assert sum(layer.cycles for layer in found.layers) == pytest.approx(found.cycles, rel=1e-6)
    assert found.ms == pytest.approx(found.cycles / 200e3, rel=1e-6)
    assert found.fps * found.ms == pytest.approx(1000)
    assert sum(layer.sram_bytes for layer in found.layers) / 1024 == pytest.approx(found.sram_traffic_kb)
    assert found.weights == sum(kernel.size for kernel in hand_network(0, True).kernels.values())
    assert all(0 <= layer.utilisation <= 1 for layer in found.layers)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["chip"] == "Ethos-U85-128"


def test_beside_the_referee_every_layer_has_its_cycles() -> None:
    model = hand_network(0, True).model
    found, verdict = price(model, U85_128, referee=True), judge(model, U85_128)
    assert found.referee_ms == verdict.ms
    assert found.referee_sram_kb == verdict.sram_kb
    assert found.ms == pytest.approx(verdict.ms, rel=0.05)
    told = {layer.name: layer.referee_cycles for layer in found.layers}
    assert told == {layer.name: layer.cycles for layer in verdict.layers if layer.name in told}
    hidden = [layer for layer in verdict.layers if layer.name not in told]
    assert len(told) >= 20
    assert all(layer.cycles == 0 for layer in hidden)
    assert found.referee_elsewhere_cycles == pytest.approx(0, abs=0.5)
    assert found.referee_cpu_ops == 0


def test_against_another_chip() -> None:
    network = read_network(hand_network(1, False).model)
    found, other = price(network, U85_128, against=U55_128), price(network, U55_128)
    assert (found.against, found.against_ms) == ("Ethos-U55-128", other.ms)
    cycles = {layer.name: layer.cycles for layer in other.layers}
    assert all(layer.against_cycles == cycles.get(layer.name, 0.0) for layer in found.layers)


def test_a_systolic_array_is_priced_too() -> None:
    network = read_network(hand_network(1, True).model)
    found = price(network, SYSTOLIC_WS, against=SYSTOLIC_OS)
    assert found.ms == float(cost_on(network.table, SYSTOLIC_WS).ms)
    assert found.mj is None
    assert found.against_ms != found.ms
    assert any(layer.sparse for layer in found.layers)


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"mac": 10, "output": 5, "npu": 12, "cycles": 12}, "mac"),
        ({"mac": 5, "output": 10, "npu": 12, "cycles": 12}, "output"),
        ({"mac": 5, "output": 5, "npu": 12, "cycles": 12}, "wait"),
        ({"mac": 5, "output": 5, "npu": 6, "flash": 12, "sram": 7, "cycles": 12}, "flash"),
        ({"mac": 5, "output": 5, "npu": 6, "flash": 7, "sram": 12, "cycles": 12}, "sram"),
        ({"output": 9, "npu": 9, "host": 9, "cycles": 9}, "cpu"),
    ],
)
def test_what_bounds_a_layer(numbers: dict[str, float], word: str) -> None:
    names = ("mac", "output", "npu", "sram", "flash", "host")
    row = {f"{name}_cycles": float(numbers.get(name, 0)) for name in names}
    assert bound_by(row | {"cycles": float(numbers["cycles"])}) == word


def test_what_cannot_be_priced_is_told() -> None:
    model = hand_network(0, False).model
    with pytest.raises(ValueError, match="compiler knows no systolic-16x16-ws"):
        price(model, SYSTOLIC_WS, referee=True)
    with pytest.raises(ValueError, match="pass its bytes"):
        price(read_network(model), U85_128, referee=True)
    with pytest.raises(ValueError, match="tflite"):
        price(model[:500], U85_128, referee=True)
