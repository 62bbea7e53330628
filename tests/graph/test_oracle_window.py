"""Windows against the loops that define them, and exact sums against Python's integers."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.ir import Node
from research.graph.oracle_window import convolve, resize, taps, windows
from research.graph.shapes import window_pads, window_size

PADDINGS = st.sampled_from(["SAME", "VALID"])
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


def node(op: str, **fields: Any) -> Node:
    return Node(op, ("x",), "y", **fields)


@given(PAIR, PAIR, PAIR, PADDINGS, st.integers(1, 2), st.integers(1, 3), st.integers(0, 99))
def test_a_grouped_convolution_is_the_loop_over_everything(
    window: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int], padding: Any,
    groups: int, times: int, seed: int,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, (2, 7, 8, 2 * groups))
    kernel = rng.integers(-9, 9, (*window, 2, times * groups))
    n = node("conv", kernel_shape=kernel.shape, strides=strides, dilation=dilation, padding=padding)
    ours = convolve(n, (), x, kernel)
    axes = [(x.shape[1 + a], window[a], strides[a], dilation[a], padding) for a in (0, 1)]
    before, sizes = [window_pads(*a)[0] for a in axes], [window_size(*a) for a in axes]
    expected = np.zeros((2, *sizes, times * groups))
    for r, c, i, j in product(*map(range, (*sizes, *window))):
        row, column = (
            r * strides[0] - before[0] + i * dilation[0],
            c * strides[1] - before[1] + j * dilation[1],
        )
        if 0 <= row < 7 and 0 <= column < 8:
            for out in range(times * groups):
                group = out // times
                seen = x[:, row, column, 2 * group : 2 * group + 2]
                expected[:, r, c, out] += seen @ kernel[i, j, :, out]
    np.testing.assert_array_equal(ours, expected)


def test_a_depthwise_layer_is_a_group_a_channel():
    x, kernel = np.arange(12.0).reshape(1, 2, 2, 3), np.array([1, 10, 100, -1, 2, 3]).reshape(1, 1, 1, 6)
    n = node("depthwise", kernel_shape=(1, 1, 1, 6))
    assert convolve(n, (), x, kernel)[0, 0, 1].tolist() == [3, 30, 400, -4, 10, 15]


@given(PAIR, PAIR, PADDINGS, st.integers(0, 99))
def test_a_transposed_convolution_spreads_every_input(
    window: tuple[int, int], strides: tuple[int, int], padding: Any, seed: int
):
    rng = np.random.default_rng(seed)
    x, kernel = rng.integers(-9, 9, (1, 3, 4, 2)), rng.integers(-9, 9, (*window, 2, 3))
    shape = (
        1,
        *(
            s * t if padding == "SAME" else (s - 1) * t + max(k, t)
            for s, t, k in zip((3, 4), strides, window, strict=True)
        ),
        3,
    )
    n = node("transpose_conv", kernel_shape=kernel.shape, strides=strides, padding=padding)
    expected = np.zeros(shape)
    before = [window_pads(shape[1 + a], window[a], strides[a], 1, padding)[0] for a in (0, 1)]
    for r, c, i, j in product(range(3), range(4), *map(range, window)):
        row, column = r * strides[0] + i - before[0], c * strides[1] + j - before[1]
        if 0 <= row < shape[1] and 0 <= column < shape[2]:
            expected[0, row, column] += x[0, r, c] @ kernel[i, j]
    np.testing.assert_array_equal(convolve(n, shape, x, kernel), expected)


def test_sums_of_16_by_8_bit_products_are_exact():
    """2 ** 20 of the largest products of one sign, and one odd one: beyond float32 and int32, not beyond float64."""
    x, kernel = np.full((1, 2**20), -32768), np.full((2**20, 1), -127)
    x[0, 0], kernel[0, 0] = 1, 1
    n = node("dense", kernel_shape=kernel.shape)
    assert int(convolve(n, (), x, kernel)[0, 0]) == (2**20 - 1) * 32768 * 127 + 1


def test_a_window_sees_the_fill_outside():
    n = node("max_pool", window=(1, 3), padding="SAME")
    x = np.array([1, 2, 3]).reshape(1, 1, 3, 1)
    assert windows(n, x, -7)[:, 0, 0, :, 0].tolist() == [[-7, 1, 2], [1, 2, 3], [2, 3, -7]]
    assert [(i, j) for i, j, _ in taps(n, x, (1, 3))] == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("nearest", [0, 0, 1, 1, 2]),
        ("nearest/half_pixel", [0, 0, 1, 2, 2]),
        ("nearest/align_corners", [0, 1, 1, 2, 2]),  # positions 0, 1/2, 1, 3/2, 2; halves go up
    ],
)
def test_nearest_pixels(mode: str, expected: list[int]):
    x = np.arange(3).reshape(1, 3, 1, 1)
    assert resize(node("resize", mode=mode), (1, 5, 1, 1), x)[0, :, 0, 0].tolist() == expected


def test_bilinear_weights_are_real_or_in_1024ths():
    """3 pixels to 2, half-pixel centres: at 1/4 and 7/4; a step of 1536 / 1024 starts at 768 - 512."""
    n, x = node("resize", mode="bilinear/half_pixel"), np.array([0, 100, 200]).reshape(1, 3, 1, 1)
    assert resize(n, (1, 2, 1, 1), x)[0, :, 0, 0].tolist() == [25, 175]
    assert resize(n, (1, 2, 1, 1), x, 1024)[0, :, 0, 0].tolist() == [25 * 1024**2, 175 * 1024**2]


def test_bilinear_positions_outside_take_the_edge():
    """2 pixels to 4, half-pixel centres: at -1/4, 1/4, 3/4, 5/4."""
    n, x = node("resize", mode="bilinear/half_pixel"), np.array([0, 8]).reshape(1, 1, 2, 1)
    assert resize(n, (1, 1, 4, 1), x)[0, 0, :, 0].tolist() == [0, 2, 6, 8]
