"""Pictures are sound SVG, the same every time, and show what the price says."""

import dataclasses
import sys
from xml.etree import ElementTree

import pytest

from research.npu.chip import U85_128
from research.npu.liveness import live_bytes
from research.npu.network import read_network
from research.npu.pictures import roofline, sram_timeline
from research.npu.price import price
from research.npu.systolic import SYSTOLIC_OS
from tests.npu.networks import hand_network

NETWORK = read_network(hand_network(0, True).model)


def texts(svg: str) -> str:
    return " ".join("".join(node.itertext()) for node in ElementTree.fromstring(svg).iter())


def test_the_roofline_names_what_bounds_the_layers() -> None:
    found = price(NETWORK, U85_128)
    svg = roofline(found, U85_128)
    assert svg == roofline(found, U85_128)
    words = texts(svg)
    bounds = {layer.bound_by for layer in found.layers if layer.macs > 0}
    assert len(bounds) >= 3
    assert all(f"bound by {word}" in words for word in bounds)
    assert f"{found.ms:.3f} ms simulated" in words


def test_no_layer_lies_above_its_roofs() -> None:
    for chip, bandwidth in ((U85_128, U85_128.sram.bytes_per_cycle), (SYSTOLIC_OS, 32.0)):
        for layer in price(NETWORK, chip).layers:
            roof = min(
                chip.macs_per_cycle * (2 if layer.sparse else 1), bandwidth * layer.macs / layer.sram_bytes
            )
            assert layer.macs / layer.cycles <= roof * 1.001
        assert "<svg" in roofline(price(NETWORK, chip), chip)


def test_the_timeline_shows_the_peak() -> None:
    found, live = price(NETWORK, U85_128), [size / 1024 for size in live_bytes(NETWORK.graph)]
    assert f"{max(live):.0f} KiB" in texts(sram_timeline(found, NETWORK.names, live))


def test_what_cannot_be_drawn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = price(NETWORK, U85_128)
    empty = dataclasses.replace(found, layers=())
    with pytest.raises(ValueError, match="no roofline"):
        roofline(empty, U85_128)
    with pytest.raises(ValueError, match="no timeline"):
        sram_timeline(empty, (), ())
    with pytest.raises(ValueError, match="names but 0 sizes"):
        sram_timeline(found, NETWORK.names, ())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[report\]'"):
        roofline(found, U85_128)
