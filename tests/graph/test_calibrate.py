"""Ranges: each method against its definition on plain values; corrections lower the error they are made for."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.graph.calibrate import (
    MeanSquare,
    Method,
    MinMax,
    Percentile,
    calibrate,
    channel_statistics,
    correct_empirically,
)
from research.graph.exact import values
from research.graph.integer import affine, quantise
from research.graph.interpret import observe, site_values
from research.graph.ir import Graph, Node, Tensor
from research.graph.rewrite import fuse
from research.graph.trace import trace
from tests.graph.samples import Net, inverted_residual

IDENTITY = Graph((Node("reshape", ("x",), "y"),), (Tensor("x", (1, 6)), Tensor("y", (1, 6))), ("x",), ("y",))
NORMAL = np.random.default_rng(0).standard_normal((4000, 6)).astype(np.float32)


def range_of(x: np.ndarray, method: Method, bits: int = 8) -> tuple[float, float]:
    found = calibrate(IDENTITY, {}, x, method, {"y": bits})
    assert found["x"] == found["y"]
    return found["y"]


@given(st.integers(1, 100), st.integers(0, 10**6))
def test_min_max_over_batches_is_that_of_all_images(count: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    assert calibrate(IDENTITY, {}, x, MinMax()) == observe(IDENTITY, {}, x)


@pytest.mark.parametrize("values_of", [lambda x: x, lambda x: np.maximum(x, 0), lambda x: -np.exp(x)])
@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9, 100.0])
def test_a_percentile_leaves_its_share_outside(
    values_of: Callable[[np.ndarray], np.ndarray], percent: float
) -> None:
    x = values_of(NORMAL)
    low, high = range_of(x, Percentile(percent))
    share, step = 1 - percent / 100 + 1e-9, (x.max() - x.min()) / 2048
    assert max((x < low).mean(), (x > high).mean()) <= share
    inner = (x <= low + 2 * step).mean(), (x >= high - 2 * step).mean()
    assert min(inner) >= share - 2e-9


def mean_square_error(x: np.ndarray, low: float, high: float, dtype: str = "int8") -> float:
    scale = affine(low, high, "int16" if dtype == "int16" else "int8")
    return float(np.square(scale.real(scale.quantise(x)).astype(np.float64) - x).mean())


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_square_range_is_nearly_the_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_t(4, (2000, 6)).astype(np.float32)  # heavy tails
    x = np.maximum(x, 0) if seed == 1 else x
    ours = mean_square_error(x, *range_of(x, MeanSquare()))
    tried = [
        mean_square_error(x, float(x.min()) * a, float(x.max()) * b)
        for a in np.linspace(0.1, 1, 25)
        for b in np.linspace(0.1, 1, 25)
    ]
    assert ours <= 1.03 * min(tried)
    assert ours < mean_square_error(x, float(x.min()), float(x.max()))


def test_sixteen_bits_clip_less_than_eight() -> None:
    x = np.random.default_rng(0).standard_t(4, (2000, 6)).astype(np.float32)
    (low, high), (lower, higher) = (range_of(x, MeanSquare(), bits) for bits in (8, 16))
    assert lower < low < 0 < high < higher


def test_constant_tensors_and_few_images_work() -> None:
    for method in (MinMax(), Percentile(99), MeanSquare()):
        assert range_of(np.zeros((1, 6), np.float32), method) == (0.0, 0.0)
        low, high = range_of(np.full((3, 6), 2.0, np.float32), method)
        assert low <= 2 <= high + 1e-6


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        calibrate(IDENTITY, {}, NORMAL[:0])
    with pytest.raises(ValueError, match=r"percentile lies in \(50, 100\], got 40"):
        calibrate(IDENTITY, {}, NORMAL, Percentile(40))


def test_channel_statistics_over_batches_are_those_of_all_images() -> None:
    net = inverted_residual(8)
    graph, _ = fuse(trace(net.fn, net.params, net.image))
    images = net.images(70)
    found = channel_statistics(graph, net.params, images)
    for name, value in site_values(graph, net.params, images).items():
        flat = np.asarray(value, np.float64).reshape(-1, value.shape[-1])
        np.testing.assert_allclose(found.means[name], flat.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.peaks[name], flat.max(0), rtol=1e-6)


def mean_errors(net: Net, bits: dict[str, int], corrected: bool) -> dict[str, float]:
    """Mean over channels of |mean of the float tensor - mean of the integer one|, in steps."""
    graph, _ = fuse(trace(net.fn, net.params, net.image))
    images = net.images(32)
    program = quantise(graph, net.params, calibrate(graph, net.params, images), bits=bits)
    program = correct_empirically(program, images) if corrected else program
    got = values(program, [program.scales["image"].quantise(images)])
    found = {}
    for name, real in site_values(graph, net.params, images).items():
        scale = program.scales[name]
        error = np.asarray(real) - scale.real(np.asarray(got[name]))
        found[name] = float(np.abs(error.reshape(-1, error.shape[-1]).mean(0)).mean() / scale.scale)
    return found


@pytest.mark.parametrize("bits", [{}, {"b0/*": 16}])
def test_the_empirical_correction_brings_every_mean_home(bits: dict[str, int]) -> None:
    net = inverted_residual(8, width=16, seed=3)
    before, after = (mean_errors(net, bits, corrected) for corrected in (False, True))
    layers = [name for name in before if name not in ("image", "flat") and not name.endswith("add")]
    assert sum(after[n] for n in layers) < 0.5 * sum(before[n] for n in layers)
    assert after["head"] < min(before["head"], 0.1)
