"""Chips and topologies by name; what is unknown is said in one line."""

import importlib.util

import pytest

from launch.chips import CHIPS, chip_of, tpu_mesh


def test_a_topology_names_its_chip() -> None:
    assert chip_of("v5e:4x4") is CHIPS["v5e"]
    assert chip_of("v6e:2x2") is CHIPS["v6e"]


@pytest.mark.parametrize("topology", ["v5e", "v5e:", "v5e:16", "v5e-16", ":2x2", "v5e:2x2 "])
def test_another_form_is_refused(topology: str) -> None:
    with pytest.raises(ValueError, match="is not of the form v5e:4x4"):
        chip_of(topology)


def test_an_unknown_chip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no TPU chip 'v5f'.*v5e"):
        chip_of("v5f:2x2")


def test_every_number_has_a_source() -> None:
    for name, chip in CHIPS.items():
        assert chip.name == name
        assert chip.source.startswith("https://cloud.google.com/tpu/docs/")
        assert 1e9 < chip.hbm_bytes < chip.hbm_bytes_s < chip.flops


def test_the_clock_follows_from_the_documented_peak() -> None:
    chip = CHIPS["v5e"]
    assert chip.clock_hz is not None
    assert 4 * 128 * 128 * 2 * chip.clock_hz == pytest.approx(chip.flops, rel=0.01)


def test_without_a_compiler_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="install the extra tpu-aot"):
        tpu_mesh("v5e:2x2")
