"""Cycles are the compiler's given its block, and by hand."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.chip import U55_128, U55_256, U85_128, U85_512, Chip
from research.npu.exact_block import find_block
from research.npu.exact_cycles import op_cycles, output_cycles
from research.npu.operation import Block, Cycles, FeatureMap, Operation, Rider
from tests.npu.scheduled import ALL_CHIPS, judged

FM = FeatureMap((16, 16, 64))
CONV = Operation("", "Conv2D", FM, FM, kernel=(3, 3))
BLOCK = Block((4, 8, 32), (6, 10, 64), (1, 2, 8), "DepthFirst", 32)


@pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)
def test_mac_and_output_cycles_are_the_compilers(chip: Chip) -> None:
    for op, said, _ in judged(chip):
        block = find_block(op, chip, sparse=said.weight_format == "Sparse2_4")
        sparse, staged = said.weight_format == "Sparse2_4", said.buffering != "None"
        found = op_cycles(op, block, chip, sparse=sparse, staged=staged)
        assert (found.mac, found.output) == (said.mac_cycles, said.output_cycles), op
        if not said.weight_format:
            assert found.total == said.npu_cycles


def test_depth_first_by_hand() -> None:
    # a block: 4 x 4 x 4 microblocks, 64 / 8 steps of 9 taps: 8 * 16 * 9 * 4 cycles; 16 blocks
    mac = 8 * 16 * 9 * 4
    found = op_cycles(CONV, BLOCK, U85_128, staged=True)
    assert found.mac == mac * 16 + 512  # half a cycle for each of 1024 results of the last block
    assert found.macs == 16 * 16 * 64 * 64 * 9
    sparse = op_cycles(CONV, BLOCK, U85_128, sparse=True, staged=True)
    assert sparse.mac == mac // 2 * 16 + 512
    assert sparse.macs == found.macs // 2


def test_parts_add_up_but_for_start_and_end() -> None:
    whole = op_cycles(CONV, BLOCK, U85_128).total
    half = [op_cycles(CONV, BLOCK, U85_128, depth=32, starts=i == 0, ends=i == 1).total for i in (0, 1)]
    assert sum(half) == whole
    inner = op_cycles(CONV, BLOCK, U85_128, depth=32, starts=False, ends=False).total
    assert inner < min(half)


def test_element_wise_by_hand() -> None:
    op = Operation("", "Add", FM, FM, FM)
    assert op_cycles(op, find_block(op, U85_128), U85_128).output == 16 * 16 * 64 / 2
    assert op_cycles(op, find_block(op, U55_128), U55_128).output == 16 * 16 * 64 * 1.5
    odd = dataclasses.replace(op, ofm=FeatureMap((16, 16, 65)))  # bricks are filled up
    assert op_cycles(odd, BLOCK, U85_128).output == 16 * 16 * 80 / 2


def test_fused_shares_a_pass_and_chained_has_its_own() -> None:
    relu, add = Rider("Relu", FM), Rider("Add", FM, other=FM, written=False)
    rides = [(), (relu,), (add,), (relu, add, relu)]
    assert [output_cycles(dataclasses.replace(CONV, riders=r), BLOCK, U85_512) for r in rides] == [
        0.125, 0.125, 0.25, 0.25,
    ]  # fmt: skip
    assert output_cycles(dataclasses.replace(CONV, riders=(Rider("LUT", FM),)), BLOCK, U55_256) == 1.0
    assert output_cycles(dataclasses.replace(CONV, riders=(relu,)), BLOCK, U55_256) == 0.25


def test_a_dma_takes_no_cycles() -> None:
    assert op_cycles(Operation("", "Gather", FM, FM), None, U85_128) == Cycles(0, 0, 0, 0, 0)


@given(st.integers(1, 60), st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 3, 5]))
def test_more_rows_take_no_less(rows: int, ic: int, oc: int, kernel: int) -> None:
    def total(rows: int) -> int:
        ifm, ofm = FeatureMap((rows, 20, ic)), FeatureMap((rows, 20, oc))
        op = Operation("", "Conv2D", ifm, ofm, kernel=(kernel, kernel))
        return op_cycles(op, Block((2, 4, 16), (2 + kernel, 4 + kernel, 64), (1, 2, 8), "DepthFirst", 32), U85_128).mac

    assert total(rows + 2) >= total(rows)
