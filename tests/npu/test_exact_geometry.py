"""Extents, units and the choice among equals, by hand from the compiler's source."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from research.npu.chip import U85_128, U85_512
from research.npu.exact_geometry import (
    allocation_unit,
    block_limit,
    extents,
    first_of_equals,
    granule_of,
    input_block,
    input_extent,
    reach,
    written,
)
from research.npu.operation import FeatureMap, Operation

FM = FeatureMap((32, 32, 32))
CONV = Operation("", "Conv2D", FM, FM, kernel=(3, 3), stride=(2, 2), dilation=(1, 2))


def test_extents_by_hand() -> None:
    assert input_extent(8, 2, 3, 1, 0) == 17
    assert input_extent(8, 1, 1, 2, 1) == 5  # nearest: (7 + 1 + 1) / 2 rounded up
    assert reach(CONV) == (3, 5)
    assert input_block(CONV, (4, 4, 16), (1, 2, 8), 0) == (9, 12, 16)
    assert input_block(CONV, (4, 4, 16), (1, 2, 8), 60) == (9, 12, 64)


def test_allocation_units_grow_with_the_bits_of_a_pixel() -> None:
    assert allocation_unit(16, 8, (1, 2, 8), U85_128) == (1, 2, 16)
    assert allocation_unit(32, 8, (1, 2, 8), U85_128) == (1, 1, 32)
    assert allocation_unit(64, 8, (1, 4, 16), U85_512) == (1, 1, 64)
    assert allocation_unit(64, 16, (1, 4, 16), U85_512) == (1, 1, 32)


@given(st.integers(1, 128), st.integers(1, 3), st.integers(1, 8), st.sampled_from([(1, 0), (2, 0), (2, 1)]))
def test_many_extents_are_the_single_ones(size: int, stride: int, kernel: int, scaled: tuple[int, int]) -> None:
    upscale, rounding = scaled
    assert extents(np.array([size]), stride, kernel, upscale, rounding, 1)[0] == input_extent(
        size, stride, kernel, upscale, rounding
    )


def test_a_transposed_output_is_looked_at_before_it_is_transposed() -> None:
    turned = dataclasses.replace(CONV, ofm=FeatureMap((8, 4, 16)), transpose="NWHC")
    assert written(turned) == (4, 8, 16)
    assert granule_of(turned, (1, 2, 8)) == (1, 2, 16)
    deep = dataclasses.replace(CONV, ofm=FeatureMap((8, 16, 4)), transpose="NHCW")
    assert written(deep) == (8, 4, 16)
    assert granule_of(deep, (1, 2, 8)) == (1, 16, 16)
    assert block_limit(dataclasses.replace(CONV, reverse="C"), U85_128, (1, 2, 16)) == (128, 128, 16)


def test_the_first_of_equals_is_kept_but_small_ones_see_all() -> None:
    cost = np.array([[2.0, 1.0, 1.0]], np.float32)
    h, one = np.array([[4, 8, 16]]), np.array([[4]])
    found = first_of_equals(cost, (16, 16, 8), (h, one, one), (h, one, one), small=True)
    assert found is not None
    assert found[0] == (8, 4, 4)
    small = np.array([[1, 2, 4]])
    found = first_of_equals(cost, (16, 16, 8), (small, one, one), (small, one, one), small=True)
    assert found is not None
    assert found[0] == (4, 4, 4)
    assert first_of_equals(cost + np.inf, (16, 16, 8), (h, one, one), (h, one, one), small=True) is None
