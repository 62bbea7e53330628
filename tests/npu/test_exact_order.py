"""Every weight is in a stream once, with as many zeros as the hardware's blocks need."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.npu.chip import U55_128, U85_128, U85_512, Chip
from research.npu.exact_block import find_block
from research.npu.exact_order import ordered, source_length
from research.npu.operation import Block, FeatureMap, Operation
from tests.npu.scheduled import ALL_CHIPS


@given(
    channels=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 3), (9, 1)]),
    stride=st.sampled_from([1, 2]),
    bits=st.sampled_from([8, 16]),
    depthwise=st.booleans(),
    sparse=st.booleans(),
    chip=st.sampled_from(ALL_CHIPS),
)
@settings(deadline=None)
def test_streams_hold_every_weight_once(
    channels: tuple[int, int], kernel: tuple[int, int], stride: int, bits: int, depthwise: bool, sparse: bool,
    chip: Chip,
) -> None:  # fmt: skip
    ic, oc = channels
    deep, sparse = (1 if depthwise else ic), sparse and not depthwise and chip.sparse_2_4
    ifm = FeatureMap((9, 9, oc if depthwise else ic), bits)
    op = Operation(
        "", "DepthwiseConv2D" if depthwise else "Conv2D", ifm, FeatureMap((9, 9, oc), bits), kernel=kernel,
        stride=(stride, stride),
    )  # fmt: skip
    block = find_block(op, chip, sparse=sparse)
    assert block is not None
    values = np.random.default_rng(0).integers(1, 100, (*kernel, deep, oc)).astype(np.int8)
    streams = list(ordered(op, block, chip, values, sparse=sparse))
    assert len(streams) == chip.cores
    found = np.concatenate(streams)
    assert len(found) == source_length(op, block, chip, oc, sparse=sparse)
    np.testing.assert_array_equal(np.sort(found[found != 0]), np.sort(values.ravel()))


@pytest.mark.parametrize(("chip", "first"), [(U85_128, 8), (U55_128, 8)])
def test_input_channels_come_first_in_eights(chip: Chip, first: int) -> None:
    fm = FeatureMap((4, 4, 64))
    block = Block((4, 4, 16), (4, 4, 64), (1, 2, 8), "DepthFirst", 32)
    values = np.arange(64, dtype=np.int8)[None, None, :, None] * np.ones((1, 1, 1, 16), np.int8)
    stream = next(ordered(Operation("", "Conv2D", fm, fm), block, chip, values, sparse=False))
    np.testing.assert_array_equal(stream[:first], np.arange(first))
    np.testing.assert_array_equal(stream[first : 2 * first], np.arange(first))  # the next output channel


def test_cores_take_fours_of_output_channels_in_turn() -> None:
    fm = FeatureMap((4, 4, 64))
    block = Block((4, 4, 16), (4, 4, 64), (2, 2, 16), "DepthFirst", 32)
    values = np.ones((1, 1, 64, 1), np.int8) * np.arange(16, dtype=np.int8)
    one, two = ordered(Operation("", "Conv2D", fm, fm), block, U85_512, values, sparse=False)
    assert set(one.tolist()) == {0, 1, 2, 3, 8, 9, 10, 11}
    assert set(two.tolist()) == {4, 5, 6, 7, 12, 13, 14, 15}
