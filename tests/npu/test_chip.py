"""Chips are static, and their numbers are those of the compiler's own configuration file."""

import configparser
import dataclasses
import pathlib

import ethosu
import jax
import pytest

from research.npu.chip import U85_128, U85_512, Chip, Memory
from tests.npu.scheduled import ALL_CHIPS as CHIPS

WORD_BYTES = {"u55": 8, "u85": 16}


def system_config(chip: Chip) -> configparser.SectionProxy:
    path = pathlib.Path(next(iter(ethosu.__path__))) / "config_files" / "Arm" / "vela.ini"
    parser = configparser.ConfigParser()
    parser.read(path)
    return parser[f"System_Config.{chip.system_config}"]


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_clock_is_the_configured_one(chip: Chip) -> None:
    assert float(system_config(chip)["core_clock"]) == chip.clock_mhz * 1e6
    assert chip.cycles_per_ms == chip.clock_mhz * 1000


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
@pytest.mark.parametrize("kind", ["Sram", "OffChipFlash"])
def test_memories_are_the_configured_ones(chip: Chip, kind: str) -> None:
    config = system_config(chip)
    memory: Memory = chip.sram if kind == "Sram" else chip.flash
    ports = float(config.get(f"{kind}_ports_used", "1"))
    assert memory.bytes_per_cycle == WORD_BYTES[chip.family] * ports * float(config[f"{kind}_clock_scale"])
    assert memory.read_latency_cycles == float(config[f"{kind}_read_latency"])
    assert memory.write_latency_cycles == float(config[f"{kind}_write_latency"])
    assert memory.burst_bytes == float(config[f"{kind}_burst_length"])
    assert memory.ports == ports
    assert memory.reads_in_flight == int(config[f"{kind}_max_reads"])
    assert memory.writes_in_flight == max(int(config[f"{kind}_max_writes"]), 1)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_microblocks_use_every_mac(chip: Chip) -> None:
    for rows, columns, channels in (*chip.microblocks, *chip.microblocks_depthwise):
        assert rows * columns * channels * 8 == chip.macs_per_cycle


def test_chips_are_static_arguments_of_jit() -> None:
    values = [getattr(U85_128, field.name) for field in dataclasses.fields(U85_128)]
    assert all(isinstance(value, int | float | str | bool | tuple | Memory) for value in values)
    assert len({hash(chip) for chip in CHIPS}) == len(CHIPS)
    double = jax.jit(lambda x, chip: x * chip.macs_per_cycle, static_argnames="chip")
    assert float(double(2.0, chip=U85_512)) == 1024.0


def test_only_the_newer_family_has_2_4() -> None:
    assert [chip.sparse_2_4 for chip in CHIPS] == [False, False, True, True, True]
