"""The block is the compiler's on every layer, and fits the RAMs."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.npu.chip import U85_128, U85_512, Chip
from research.npu.exact_block import find_block
from research.npu.exact_tables import tables55, tables85
from research.npu.operation import Block, FeatureMap, Operation, Rider
from tests.npu.scheduled import ALL_CHIPS, judged


@pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)
def test_blocks_are_the_compilers(chip: Chip) -> None:
    layers = judged(chip)
    assert len(layers) > 40
    for layer in layers:
        block = find_block(layer.op, chip, sparse=layer.sparse)
        assert block is not None
        said = layer.said
        assert (block.ofm, block.ifm, block.traversal) == (said.ofm_block, said.ifm_block, said.traversal), layer
        assert chip.family == "u55" or block.micro == said.microblock


def test_element_wise_blocks_by_hand() -> None:
    # 2 KiB of output is 128 columns of 16 channels; 40 are needed, so three times the channels and 42 columns.
    fm = FeatureMap((40, 40, 264), brick=False)
    block = find_block(Operation("", "Mul", fm, fm, fm), U85_128)
    assert block == Block((40, 42, 48), (40, 42, 48), (1, 2, 8), "DepthFirst", 32)
    # One operand has one channel: 8 bricks of the chaining buffer wide.
    narrow = dataclasses.replace(fm, shape=(40, 40, 1))
    found = find_block(Operation("", "Sub", fm, fm, narrow), U85_128)
    assert found is not None
    assert found.ofm[1] == 8
    assert found.ofm[2] == 272


@pytest.mark.parametrize(("chip", "width"), [(U85_128, 12), (U85_512, 60)])
def test_resize_is_one_row_as_wide_as_the_chaining_buffer_holds(chip: Chip, width: int) -> None:
    op = Operation("", "Resize", FeatureMap((24, 32, 72)), FeatureMap((48, 64, 72)), scale=(2, 1))
    found = find_block(op, chip)
    assert found is not None
    assert found.ofm == (1, width, 16)


def test_what_rides_changes_no_block_but_by_what_is_stored() -> None:
    fm = FeatureMap((16, 16, 32))
    op = Operation("", "Conv2D", fm, fm, kernel=(3, 3))
    ridden = dataclasses.replace(op, riders=(Rider("Relu", fm), Rider("Add", fm, other=fm)), written=False)
    assert find_block(ridden, U85_128) == find_block(op, U85_128)


@given(
    sides=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    channels=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    kernel=st.sampled_from([1, 3, 5, 9]),
    stride=st.sampled_from([1, 2]),
    bits=st.sampled_from([8, 16]),
    kind=st.sampled_from(["Conv2D", "DepthwiseConv2D", "MaxPool"]),
    chip=st.sampled_from(ALL_CHIPS),
)
def test_every_block_fits(
    sides: tuple[int, int], channels: tuple[int, int], kernel: int, stride: int, bits: int, kind: str, chip: Chip
) -> None:  # fmt: skip
    ic, oc = channels if kind == "Conv2D" else (channels[0], channels[0])
    ifm = FeatureMap((sides[0] * stride, sides[1] * stride, ic), bits)
    op = Operation("", kind, ifm, FeatureMap((*sides, oc), bits), kernel=(kernel, kernel), stride=(stride, stride))
    block = find_block(op, chip)
    assert block is not None
    (h, w, c), (ih, iw, ic_block) = block.ofm, block.ifm
    assert all(n % 1 == 0 and n <= limit for n, limit in zip(block.ofm, chip.block_limit, strict=True))
    acc = h * w * -(-c // 8) * 8 * {32: 4, 40: 5, 48: 8}[block.acc_bits]
    if chip.family == "u85":
        assert acc <= tables85(chip).acc_ram
        assert min(ih * iw * ic_block, ifm.elements * 16) * bits // 8 <= tables85(chip).ifm_ram or kind != "Conv2D"
    else:
        room = (tables55(chip).banks - 4) * 1024
        assert 2 * (acc + ih * iw * ic_block * bits // 8) <= room or (h > sides[0] and kernel == 1)
