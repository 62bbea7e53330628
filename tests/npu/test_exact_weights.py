"""Encoded bytes and the weight format are the compiler's; slices add up."""

import dataclasses

import numpy as np
import pytest

from research.npu.chip import U55_128, U85_128, Chip
from research.npu.exact_block import find_block
from research.npu.exact_weights import best_format, decode_cycles, encoded
from research.npu.operation import FeatureMap, Operation, Weights
from tests.npu.networks import prune_2_4
from tests.npu.scheduled import ALL_CHIPS, judged

FM = FeatureMap((16, 16, 64))


def conv(values: np.ndarray | None, bytes_per_weight: float = 1.0, *, pattern: bool = False) -> Operation:
    weights = Weights(values, (3, 3, 64, 64), bytes_per_weight, pattern)
    return Operation("", "Conv2D", FM, FM, kernel=(3, 3), weights=weights)


def random(seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(0, 30, (3, 3, 64, 64)).round(), -127, 127).astype(np.int8)


@pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)
def test_bytes_and_formats_are_the_compilers(chip: Chip) -> None:
    errors = []
    for op, said, _ in judged(chip):
        if said.weight_bytes:
            choice = best_format(op, chip)
            assert choice.encoded is not None
            assert choice.sparse == (said.weight_format == "Sparse2_4"), op
            if said.depth_slices == 1:
                errors.append(abs(choice.encoded.weight_bytes / said.weight_bytes - 1))
    assert np.median(errors) < 0.001
    assert np.mean(errors) < 0.01


def test_slices_are_encoded_apart() -> None:
    op = conv(random())
    block = find_block(op, U85_128)
    assert block is not None
    whole, parts = encoded(op, block, U85_128), encoded(op, block, U85_128, (0, 16, 64))
    assert parts.source == whole.source == 10 * 64 * 64  # nine taps are filled up to ten
    assert sum(parts.ranges) == parts.total
    assert abs(parts.weight_bytes / whole.weight_bytes - 1) < 0.02
    assert parts.scale_bytes == whole.scale_bytes == 640
    assert parts.first_dma == parts.ranges[0] < whole.ranges[0]


def test_scales_are_filled_up_on_the_newer_family_only() -> None:
    op = dataclasses.replace(conv(random()[..., :20]), ofm=FeatureMap((16, 16, 20)))
    for chip, channels in ((U85_128, 32), (U55_128, 20)):
        block = find_block(op, chip)
        assert block is not None
        assert encoded(op, block, chip).scale_bytes == -(-channels * 10 // 16) * 16


def test_2_4_is_taken_where_it_holds_and_pays() -> None:
    values = prune_2_4(random().astype(np.float32)).astype(np.int8)
    assert best_format(conv(values), U85_128).sparse
    assert not best_format(conv(values), U85_128, sparsity=False).sparse
    assert not best_format(conv(values), U55_128).sparse
    values[0, 0, :4, 0] = 1
    assert not best_format(conv(values), U85_128).sparse


def test_weights_that_nobody_knows_have_the_size_that_is_said() -> None:
    block = find_block(conv(None), U85_128)
    assert block is not None
    found = encoded(conv(None, bytes_per_weight=0.5), block, U85_128)
    assert found.weight_bytes == pytest.approx(0.5 * 3 * 3 * 64 * 64, rel=0.01)
    assert best_format(conv(None, pattern=True), U85_128).sparse
    assert decode_cycles(found, U85_128) == found.weight_bytes + 32
    with pytest.raises(ValueError, match="a Conv2D has no weights"):
        encoded(dataclasses.replace(conv(None), weights=None), block, U85_128)


def test_sixteen_values_take_at_most_four_bits_each() -> None:
    values = np.random.default_rng(0).integers(-8, 8, (3, 3, 64, 64)).astype(np.int8) * 15
    choice = best_format(conv(values), U85_128)
    assert choice.encoded is not None
    assert choice.encoded.distinct == 16
    assert choice.encoded.weight_bytes <= choice.encoded.source // 2 + 32
