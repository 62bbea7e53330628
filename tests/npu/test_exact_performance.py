"""Whole operations cost what the compiler says; slices by hand."""

import dataclasses

import numpy as np
import pytest

from research.npu.chip import U55_128, U85_128, Chip
from research.npu.exact_cycles import op_cycles
from research.npu.exact_memory import copy_cycles
from research.npu.exact_performance import full_performance, sliced_performance
from research.npu.exact_weights import best_format, encoded
from research.npu.operation import Block, FeatureMap, Operation, Weights
from tests.npu.scheduled import ALL_CHIPS, judged

FM = FeatureMap((16, 16, 64))
BLOCK = Block((4, 8, 32), (6, 10, 64), (1, 2, 8), "DepthFirst", 32)


def conv() -> Operation:
    values = np.random.default_rng(0).integers(-100, 100, (3, 3, 64, 64)).astype(np.int8)
    return Operation("", "Conv2D", FM, FM, kernel=(3, 3), weights=Weights(values, values.shape))


@pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)
def test_operations_whose_weights_stay_in_flash_cost_what_the_compiler_says(chip: Chip) -> None:
    errors = []
    for op, said, _ in judged(chip):
        if said.buffering == "None":
            choice = best_format(op, chip)
            found = full_performance(op, choice.block, chip, choice.encoded)
            errors.append(abs(found.total / said.cycles - 1))
            assert found.npu == said.npu_cycles
            assert found.access["sram"].total == said.sram_cycles
    assert len(errors) > 3
    assert np.mean(errors) < 0.01


def test_staged_weights_wait_for_what_nothing_hides() -> None:
    op = conv()
    code = encoded(op, BLOCK, U85_128, (0, 16, 64))
    alone = op_cycles(op, BLOCK, U85_128, staged=True).total
    wait = copy_cycles(code.first_dma, U85_128)
    for slack in (0, 100, wait, wait + 1):
        found = full_performance(op, BLOCK, U85_128, code, staged=True, slack_before=slack)
        assert found.npu == alone + max(wait - slack, 0)
    assert full_performance(op, BLOCK, U85_128, code, staged=True, transfer_cycles=10**6, slack=5).npu == 10**6 + 5


def test_a_table_is_copied_under_the_operation_before() -> None:
    op = dataclasses.replace(conv(), kind="MaxPool", weights=None)
    plain = full_performance(op, BLOCK, U55_128).npu
    waits = [full_performance(op, BLOCK, U55_128, lut_bytes=256, slack_before=s).npu - plain for s in (0, 100, 1000)]
    assert waits == [576, 476, 0]  # half a byte a cycle and 64 until the first


def test_slices_by_hand() -> None:
    op = conv()
    code = encoded(op, BLOCK, U85_128, (0, 32, 64))
    halves = [
        op_cycles(op, BLOCK, U85_128, staged=True, depth=32, starts=i == 0, ends=i == 1).total for i in (0, 1)
    ]
    copies = [copy_cycles(size, U85_128) for size in code.ranges]
    single = sliced_performance(op, BLOCK, U85_128, code, staged=True, slack=500)
    assert (single.run, single.last) == (sum(halves), halves[1])
    assert single.visible == copies[0] - 500 + copies[1]
    double = sliced_performance(op, BLOCK, U85_128, code, staged=True, double=True)
    assert double.visible == copies[0] + max(copies[1] - halves[0], 0)
    assert double.full == double.run + double.visible
    assert double.weight_read_bytes == 8 * code.total
    assert double.ifm_read_bytes == 16 * 60 * 64
    unmoved = sliced_performance(op, BLOCK, U85_128, code)
    assert unmoved.visible == 0
    assert unmoved.weight_read_cycles > double.weight_read_cycles
