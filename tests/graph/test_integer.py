"""Quantisation: zeros are exact, rounding is bounded, nothing overflows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.integer import (
    Affine,
    affine,
    channel_scales,
    correct_bias,
    quantise_weights,
    shared_scales,
    tensor_scales,
)
from research.graph.ir import Graph, Node, Tensor
from tests.graph.samples import two_of_four

BOUND = st.floats(-1e4, 1e4, width=32)


@given(BOUND, BOUND)
def test_a_range_holds_zero_exactly_and_its_ends_within_a_step(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    q = affine(low, high)
    assert -128 <= q.zero_point <= 127
    assert q.real(q.quantise(np.zeros(1)))[0] == 0.0
    values = np.linspace(low, high, 50)
    assert np.abs(q.real(q.quantise(values)) - values).max() <= 1.001 * q.scale + 1e-9


@given(BOUND, BOUND, st.integers(0, 10**6))
def test_integers_come_back_from_their_real_values(a: float, b: float, seed: int) -> None:
    q = affine(min(a, b), max(a, b))
    integers = np.random.default_rng(seed).integers(-128, 128, 20).astype(np.int8)
    np.testing.assert_array_equal(q.quantise(q.real(integers)), integers)


def test_values_outside_the_range_saturate() -> None:
    assert affine(0.0, 6.0).quantise(np.array([-3.0, 0.0, 6.0, 99.0])).tolist() == [-128, -128, 127, 127]


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_ranges_that_mean_nothing_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="finite low <= high"):
        affine(*bounds)


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.0, 1e-30), (5.0, 5.0)])
def test_ranges_without_width_still_work(bounds: tuple[float, float]) -> None:
    q = affine(*bounds)
    assert q.scale > 1e-10
    assert abs(q.real(q.quantise(np.array(bounds)))[1] - bounds[1]) <= 0.51 * q.scale + 1e-30


@given(st.integers(0, 10**6), st.sampled_from([(3, 3, 8, 4), (3, 3, 1, 8), (8, 4)]))
def test_weights_round_to_the_nearest_and_keep_their_zeros(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape) * np.exp(rng.normal(size=shape[-1:]) * 2)
    kernel = two_of_four(kernel) if shape[-2] > 1 else kernel
    bias = rng.normal(size=shape[-1])
    q = quantise_weights(kernel, bias, 0.02)
    assert q.kernel.dtype == np.int8
    assert q.bias.dtype == np.int32
    assert q.kernel.min() >= -127
    assert not q.kernel[kernel == 0].any()
    assert np.all(np.abs(q.kernel).reshape(-1, shape[-1]).max(0) == 127)
    rows = q.scale.reshape((1,) * (len(shape) - 1) + (-1,))
    assert np.all(np.abs(q.kernel * rows - kernel) <= 0.501 * rows)
    np.testing.assert_allclose(q.bias * (q.scale * 0.02), bias, atol=0.51 * 0.02 * q.scale.max())


def test_large_biases_and_tiny_channels_do_not_overflow() -> None:
    kernel = np.full((1, 1, 2, 4), 0.5)
    kernel[..., 1] = 1e-12
    kernel[..., 2] = 0.0
    bias = np.array([0.0, 3.0, -2.0, 1e9])
    q = quantise_weights(kernel, bias, 1e-3)
    assert np.abs(q.bias.astype(np.int64)).max() <= 1.001 * 2**30
    np.testing.assert_allclose(q.bias * q.scale.astype(np.float64) * 1e-3, bias, rtol=1e-4, atol=1e-6)
    assert np.isfinite(q.scale).all()
    assert (q.scale > 0).all()
    assert (channel_scales(np.zeros((2, 3)), np.zeros(3), 0.1) > 0).all()


def test_weights_that_cannot_be_quantised_are_refused() -> None:
    with pytest.raises(ValueError, match="4 output channels"):
        quantise_weights(np.ones((2, 4)), np.ones(3), 0.1)
    with pytest.raises(ValueError, match="not finite"):
        quantise_weights(np.array([[np.nan]]), np.ones(1), 0.1)


@pytest.mark.parametrize("shape", [(3, 3, 5, 4), (3, 3, 1, 5), (5, 4), (1, 1, 1, 1)])
def test_bias_correction_removes_the_mean_error(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    kernel, mean = rng.normal(size=shape), rng.uniform(1, 2, 1 if shape == (1, 1, 1, 1) else 5)
    bias = np.zeros(shape[-1])
    q = quantise_weights(kernel, bias, 0.01)
    rounded = q.kernel * q.scale.reshape((1,) * (len(shape) - 1) + (-1,))
    rows = np.moveaxis(kernel - rounded, -1, 0).reshape(shape[-1], -1)
    constant = mean[:, None] if shape[2:] == (1, 5) else np.tile(mean, rows.shape[1] // len(mean))[None, :]
    wanted = (rows * constant).sum(1)
    np.testing.assert_allclose(correct_bias(kernel, bias, 0.01, mean), wanted, atol=1e-9)
    with pytest.raises(ValueError, match="do not fit a kernel"):
        correct_bias(kernel, bias, 0.01, np.ones(7))


def chain() -> Graph:
    """x -> pool -> p; (p, y = clamp x) -> concat -> c -> reshape -> r; x -> clamp -> z."""
    image, wide = (1, 2, 2, 2), (1, 2, 2, 4)
    nodes = (
        Node("max_pool", ("x",), "p", window=(1, 1)),
        Node("clamp", ("x",), "y", bounds=(0.0, 6.0)),
        Node("concat", ("p", "y"), "c", axis=3),
        Node("reshape", ("c",), "r"),
        Node("clamp", ("r",), "z", bounds=(0.0, 6.0)),
    )
    shapes = {"x": image, "p": image, "y": image, "c": wide, "r": (1, 16), "z": (1, 16)}
    return Graph(nodes, tuple(Tensor(n, s) for n, s in shapes.items()), ("x",), ("z",))


def test_integers_that_are_only_moved_share_one_scale() -> None:
    graph = chain()
    assert shared_scales(graph) == (("x", "p", "y", "c", "r"), ("z",))
    scales = tensor_scales(graph, {"p": (-1.0, 2.0), "y": (0.0, 4.0), "z": (0.0, 6.0)})
    assert scales["x"] == scales["r"] == affine(-1.0, 4.0)
    assert scales["z"] == Affine(float(np.float32(6 / 255)), -128)


def test_ranges_are_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match=r"no range .* for 'z'"):
        tensor_scales(chain(), {"x": (0.0, 1.0)})
    with pytest.raises(ValueError, match="'x' or 'p' or 'y' or 'c' or 'r'"):
        tensor_scales(chain(), {"z": (0.0, 1.0)})
    with pytest.raises(ValueError, match="'w', not a tensor"):
        tensor_scales(chain(), {"w": (0.0, 1.0)})
    with pytest.raises(ValueError, match="range of 'z'"):
        tensor_scales(chain(), {"x": (0.0, 1.0), "z": (1.0, 0.0)})
