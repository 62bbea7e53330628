"""Sizes of encoded streams by hand, and within what any code can do."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from research.npu.exact_coding import coded, counts_of, fast_size, may_run


def test_one_value_by_hand() -> None:
    # palette of two entries of 2 bits and 10, a header of 23, a bit a weight in twelves, an end of 3
    found = coded(counts_of(np.ones(120, np.int8)))
    assert found.size == 16 * -(-(13 + 2 * 2 + 23 + 120 + 3) // 128)
    assert (found.zeros, found.distinct) == (0, 1)


def test_zeros_only_are_one_weight_and_one_run() -> None:
    stream = np.zeros(1000, np.int8)
    found = coded(counts_of(stream), stream)
    assert (found.zeros, found.distinct) == (999, 1)
    # the code of the first run, of no zero, is kept for the long one: a bit each
    assert 1000 < found.size * 8 < 1300


def test_runs_are_coded_apart_where_zeros_prevail() -> None:
    rng = np.random.default_rng(0)
    stream = rng.integers(-40, 40, 4096).astype(np.int8)
    assert not may_run(counts_of(stream))
    stream[512:] = 0
    counts = counts_of(stream)
    assert may_run(counts)
    found = coded(counts, stream)
    assert found.zeros == counts[128]
    assert found.size < coded(counts).size


@given(st.integers(1, 3000), st.floats(2, 60), st.integers(0, 3))
def test_sizes_lie_between_entropy_and_plain_bytes(count: int, spread: float, seed: int) -> None:
    stream = np.clip(np.random.default_rng(seed).normal(0, spread, count).round(), -127, 127).astype(np.int8)
    counts = counts_of(stream)
    share = counts[counts > 0] / count
    entropy = -count * float((share * np.log2(share)).sum()) / 8
    assert entropy * 0.98 <= coded(counts, stream).size <= count * 9 / 8 + 80


def test_the_fast_format_has_2_4_or_8_bits_a_weight() -> None:
    assert [fast_size(1024, n, sparse=False) for n in (4, 16, 17)] == [288, 544, 1056]
    assert fast_size(1024, 4, sparse=True) == 1056
