"""Blocks of Ethos-U55 by hand: banks, products of matrices, copies of wide elements."""

import dataclasses

from research.npu.chip import U55_128, U55_256
from research.npu.exact_block55 import block55
from research.npu.operation import FeatureMap, Operation

FM = FeatureMap((1, 36, 48), brick=False)


def test_a_product_of_matrices_is_a_product_and_a_sum() -> None:
    # 36 columns in three of 12, so that blocks do not wait for one another; the sum makes one channel.
    op = Operation("", "MatMul", FM, FeatureMap((1, 36, 36), brick=False), FM, scratch="sram")
    found = block55(op, U55_128)
    assert found is not None
    assert found.first is not None
    assert found.first.ofm == (1, 12, 48)
    assert found.ofm == (1, 10, 8)
    assert found.ifm == (1, 10, 32)


def test_wide_elements_are_copied_as_more_of_16_bit() -> None:
    wide = FeatureMap((8, 8, 16), 32)
    narrow = FeatureMap((8, 8, 32), 16)
    pairs = [Operation("", "MemoryCopy", fm, fm) for fm in (wide, narrow)]
    assert block55(pairs[0], U55_128) == block55(pairs[1], U55_128)


def test_a_second_input_halves_the_room_of_an_element_wise_operation() -> None:
    fm = FeatureMap((40, 40, 64))
    alone = Operation("", "Abs", fm, fm)
    scalar = dataclasses.replace(alone, kind="Mul", ifm2=FeatureMap((1, 1, 1)))
    both = dataclasses.replace(alone, kind="Mul", ifm2=fm)
    sizes = []
    for op in (scalar, both):
        found = block55(op, U55_256)
        assert found is not None
        sizes.append(found.ofm[0] * found.ofm[1] * found.ofm[2])
    assert sizes[1] < sizes[0] <= 22 * 1024
    assert block55(Operation("", "Gather", fm, fm), U55_256) is None  # a DMA has no block
