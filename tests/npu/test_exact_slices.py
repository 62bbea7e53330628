"""The first operation of a network is sliced and buffered as the compiler does it; the rule by hand."""

import numpy as np
import pytest

from research.npu.chip import U85_128, Chip
from research.npu.exact_block import find_block
from research.npu.exact_memory import copy_cycles
from research.npu.exact_performance import full_performance
from research.npu.exact_slices import propose
from research.npu.exact_weights import best_format, encoded
from research.npu.operation import Block, FeatureMap, Operation, Weights
from tests.npu.scheduled import ALL_CHIPS, judged

FM = FeatureMap((16, 16, 64))


def conv(chip: Chip) -> tuple[Operation, Block]:
    values = np.random.default_rng(0).integers(-100, 100, (3, 3, 64, 64)).astype(np.int8)
    op = Operation("", "Conv2D", FM, FM, kernel=(3, 3), weights=Weights(values, values.shape))
    block = find_block(op, chip)
    assert block is not None
    return op, block


@pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)
def test_first_operations_are_staged_as_the_compiler_does(chip: Chip) -> None:
    starts = [(layer.op, layer.said) for layer in judged(chip) if layer.first and layer.said.weight_bytes]
    assert len(starts) > 10
    for op, said in starts:
        choice = best_format(op, chip)
        assert choice.block is not None
        assert choice.encoded is not None
        found = propose(op, choice.block, chip, choice.encoded, first=True)
        assert (found.buffering if found else "None") == said.buffering, op
        assert len((found.encoded if found else choice.encoded).slices) - 1 == said.depth_slices
        if found:
            cost = full_performance(
                op, choice.block, chip, found.encoded, staged=True, prebuffered=found.prebuffered,
                transfer_cycles=found.transfer_cycles, slack=found.performance.last,
            )  # fmt: skip
            assert cost.total == pytest.approx(said.cycles, rel=0.03)


def test_more_room_before_means_a_thicker_first_slice_and_less_that_shows() -> None:
    op, block = conv(U85_128)
    whole = encoded(op, block, U85_128)
    transfer = copy_cycles(whole.total, U85_128)
    found = [propose(op, block, U85_128, whole, slack=slack) for slack in (0, transfer // 3, 2 * transfer)]
    depths = [f.encoded.slices[1] for f in found if f]
    assert depths == sorted(depths)
    assert len(depths) == 3
    assert depths[-1] == 64  # all of it is there in time
    assert found[-1] is not None
    assert found[-1].performance.visible == 0
    shown = [f.performance.visible for f in found if f]
    assert shown == sorted(shown, reverse=True)


def test_a_buffer_fits_its_limit_or_there_is_none() -> None:
    op, block = conv(U85_128)
    whole = encoded(op, block, U85_128)
    for limit in (100, 12000, 16000, 30000, 10**6):
        found = propose(op, block, U85_128, whole, slack=1000, limit_bytes=limit)
        assert found is None or sum(found.sizes) <= limit
    assert propose(op, block, U85_128, whole, slack=1000, limit_bytes=100) is None
