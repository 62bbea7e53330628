"""Blocks of pools and depthwise layers on Ethos-U85 by hand."""

from hypothesis import given
from hypothesis import strategies as st

from research.npu.chip import U85_128
from research.npu.exact_area import area_block
from research.npu.operation import FeatureMap, Operation

MICRO, GRANULE = (1, 1, 16), (1, 1, 16)


def block_of(rows: int, columns: int, channels: int, kernel: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    fm = FeatureMap((rows, columns, channels))
    op = Operation("", "DepthwiseConv2D", fm, fm, kernel=(kernel, kernel))
    return area_block(op, U85_128, MICRO, GRANULE, 32, 0, fm.shape)


def test_an_output_that_fits_is_one_block() -> None:
    assert block_of(6, 6, 8, 3) == ((6, 6, 16), (8, 8, 16))


def test_a_row_of_input_is_kept_to_spare() -> None:
    block, inside = block_of(16, 16, 32, 3)
    assert block == (15, 8, 16)
    assert inside == (17, 10, 16)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 300), st.sampled_from([1, 2, 3, 5]))
def test_blocks_fit(rows: int, columns: int, channels: int, kernel: int) -> None:
    (h, w, c), inside = block_of(rows, columns, channels, kernel)
    assert h * w * c * 4 <= 8192
    assert c % 16 == 0
    whole = (h, w) == (rows, columns) and c >= channels
    assert inside[0] * inside[1] * inside[2] <= 8192 or whole
