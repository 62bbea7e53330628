"""Bytes and cycles of memories by hand, and the compiler's where no weights are moved."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.chip import U55_128, U85_128, Chip
from research.npu.exact_block import find_block
from research.npu.exact_memory import (
    access_cycles,
    bandwidth,
    burst_bytes,
    copy_cycles,
    elements,
    first_input_cycles,
    input_channel,
    last_output_cycles,
    memory_of,
    moved_bytes,
    read_cycles,
    sliced,
    transfer,
)
from research.npu.operation import Block, Encoded, FeatureMap, Operation, Rider
from tests.npu.scheduled import ALL_CHIPS, judged

FM = FeatureMap((16, 16, 32))
BLOCK = Block((4, 8, 16), (6, 10, 32), (1, 2, 8), "DepthFirst", 32)
CONV = Operation("", "Conv2D", FM, FM, kernel=(3, 3))


@pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)
def test_operations_without_weights_keep_sram_as_busy_as_the_compiler_says(chip: Chip) -> None:
    pools = [layer for layer in (*judged(chip), *judged(chip, 1500)) if layer.op.kind == "MaxPool"]
    assert len(pools) >= 2
    for op, said, _ in pools:
        assert access_cycles(op, find_block(op, chip), chip)["sram"].total == said.sram_cycles


def test_bursts_by_hand() -> None:
    plain = dataclasses.replace(FM, brick=False)
    assert burst_bytes(FM, (4, 8, 16), U85_128, read=True) == 64  # 128 bytes, but a burst is 64
    assert burst_bytes(FM, (4, 2, 16), U85_128, read=True) == 32
    assert burst_bytes(plain, (4, 8, 16), U85_128, read=True) == 16
    assert burst_bytes(plain, (4, 2, 32), U85_128, read=True) == 64  # whole pixels lie in a row
    assert burst_bytes(plain, (4, 8, 64), U85_128, read=False) == 16
    assert transfer(plain, (4, 8, 16), 100, U85_128, read=True) == 400


def test_repeats_by_hand() -> None:
    # 4 x 2 x 2 blocks; each reads 6 x 10 pixels of all 32 channels
    found = elements(CONV, BLOCK, U85_128)
    assert (found.ifm, found.ofm, found.refetches) == (16 * 60 * 32, 16 * 16 * 32, 8)
    apart = elements(dataclasses.replace(CONV, kind="DepthwiseConv2D"), BLOCK, U85_128)
    assert apart.ifm == 8 * 60 * 32  # not again for other channels
    assert elements(CONV, BLOCK, U85_128, depth=16).ifm == 8 * 60 * 32
    assert moved_bytes(CONV, BLOCK, U85_128, found)[:3] == (16 * 60 * 32, 0, 16 * 16 * 32)


def test_numbers_come_with_the_command() -> None:
    one = FeatureMap((1, 1, 1))
    op = Operation("", "Mul", FM, FM, one)
    assert elements(op, BLOCK, U85_128)[:2] == (FM.elements, 0)
    assert elements(op, BLOCK, U55_128)[:2] == (FM.elements, 0)
    wide = dataclasses.replace(op, ifm2=dataclasses.replace(one, bits=16, brick=False))
    assert elements(wide, BLOCK, U55_128).ifm2 == 16


def test_only_the_first_tensor_of_a_rider_counts() -> None:
    taken = dataclasses.replace(CONV, written=False)
    fused = elements(dataclasses.replace(taken, riders=(Rider("Relu", FM),)), BLOCK, U85_128)
    assert (fused.ofm, fused.other, fused.made) == (0, (0,), (FM.elements,))
    chained = elements(dataclasses.replace(taken, riders=(Rider("Add", FM, other=FM),)), BLOCK, U85_128)
    assert (chained.other, chained.made) == ((FM.elements,), (0,))


def test_staged_weights_are_read_from_sram_and_scales_from_flash() -> None:
    code = Encoded((0, 32), (9600,), 9216, 320, 9216, 0, 200, 9600)
    plain = access_cycles(CONV, BLOCK, U85_128, code)
    assert (plain["flash"].weights, plain["flash"].scales) == (8 * 9216, 8 * 320)
    staged = access_cycles(CONV, BLOCK, U85_128, code, staged=True, first_bytes=9600)
    assert (staged["flash"].weights, staged["flash"].scales) == (0, 8 * 320)
    assert staged["sram"].weights == 8 * 9216 // 32
    assert staged["sram"].total > plain["sram"].total


def test_copies_and_channels_by_hand() -> None:
    assert copy_cycles(1000, U85_128) == 1032
    assert copy_cycles(1000, U55_128) == 2064
    assert copy_cycles(256, U85_128, target="lut") == 288
    assert bandwidth(U85_128, "sram", "write") == 32
    assert bandwidth(U85_128, "sram", "scales") == pytest.approx(64 * 4 / 8 * 0.8)
    assert read_cycles(320, U85_128, "sram", "ifm") == 18
    assert memory_of(U85_128, "flash") is U85_128.flash
    assert [input_channel("Conv2D"), input_channel("MatMul", second=True)] == ["ifm", "stream"]


def test_first_and_last_blocks_by_hand() -> None:
    assert first_input_cycles(CONV, BLOCK, U85_128) == 8 + 6 * 10 * 32 // 32
    assert last_output_cycles(CONV, BLOCK, U85_128) == 8 + 4 * 8 * 16 // 32


@given(st.integers(1, 40), st.integers(1, 64), st.booleans())
def test_a_slice_needs_no_more_than_all(rows: int, depth: int, brick: bool) -> None:
    op = dataclasses.replace(CONV, ifm=FeatureMap((40, 40, 32), brick=brick), ofm=FeatureMap((40, 40, 64)))
    part = sliced(op, depth, (rows, 40))
    assert part.ofm.shape == (rows, 40, depth)
    assert part.ifm.shape[0] == min(rows + 2, 40)
    assert np.all(np.array(elements(part, BLOCK, U85_128)[:3]) <= np.array(elements(op, BLOCK, U85_128)[:3]))
