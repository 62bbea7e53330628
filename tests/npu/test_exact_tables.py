"""The tables are those of every Ethos-U described, and the parts of the NPU are found by operator."""

import dataclasses
from math import prod

import pytest

from research.npu.chip import U55_128, U85_128
from research.npu.exact_tables import tables55, tables85, unit_of, wide_accumulators
from research.npu.operation import FeatureMap, Operation
from tests.npu.scheduled import ALL_CHIPS


def test_microblocks_are_those_of_the_chip() -> None:
    for chip in ALL_CHIPS:
        if chip.family == "u55":
            assert chip.microblocks == (tables55(chip).micro,)
            continue
        tables = tables85(chip)
        assert set(chip.microblocks) == set(tables.wide)
        assert set(chip.microblocks_depthwise) == set(tables.shallow)
        assert all(prod(micro) * 8 == chip.macs_per_cycle for micro in tables.order)
        assert set(tables.order) == set(tables.units)


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(ValueError, match="with 64 MACs a cycle: there are"):
        tables85(dataclasses.replace(U85_128, macs_per_cycle=64))


def test_units() -> None:
    kinds = {"Conv2D": "conv", "Add": "elementwise", "LeakyRelu": "elementwise", "LUT": "pool", "Resize": "resize"}
    assert {kind: unit_of(kind, U85_128) for kind in kinds} == kinds
    assert unit_of("MatMul", U85_128) == "conv"
    assert unit_of("MatMul", U55_128) == "compound"


def test_sums_of_16_bit_are_wide_but_not_those_of_pools() -> None:
    fm = FeatureMap((4, 4, 16), 16)
    kinds = ("Conv2D", "MaxPool", "ReduceSum")
    assert [wide_accumulators(Operation("", kind, fm, fm), U55_128) for kind in kinds] == [True, False, True]
    assert not wide_accumulators(Operation("", "ReduceSum", fm, fm), U85_128)
