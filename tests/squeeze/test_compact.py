"""Cutting closed channels out leaves the output alone, through depthwise layers, residuals and norms."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import nets
from research.pytrees import flatten
from research.squeeze import close, compact
from tests.squeeze.samples import NET, images, weights

FORWARD = jax.jit(nets.forward, static_argnums=0)
PARAMS, STATS = weights()
KEEP = {"b0": np.array([1, 2, 6]), "b1": np.array([11, 0, 5, 7])}


@pytest.mark.parametrize("keep", [KEEP, {"b1": np.array([3])}, {"b0": np.arange(8)}, {}])
def test_the_compact_network_computes_what_the_closed_one_did(keep: dict[str, np.ndarray]) -> None:
    closed = close(NET.groups(), keep, PARAMS)
    smaller = NET.resized({name: len(index) for name, index in keep.items()})
    params, norm_stats = compact(NET.groups(), keep, PARAMS, STATS)
    assert jax.tree.map(np.shape, (params, norm_stats)) == jax.tree.map(np.shape, nets.shapes(smaller))
    pixels = images(4)
    expected = FORWARD(NET, closed, STATS, pixels)
    out = FORWARD(smaller, params, norm_stats, pixels)
    np.testing.assert_allclose(out.keypoints, expected.keypoints, rtol=1e-5, atol=1e-5)
    for site in ("b0/project", "b0/add", "b1/project"):
        np.testing.assert_allclose(out.taps[site], expected.taps[site], rtol=1e-5, atol=1e-5)
    changed = float(np.abs(FORWARD(NET, PARAMS, STATS, pixels).keypoints - expected.keypoints).max())
    assert (changed > 1e-3) == (
        sum(map(len, keep.values())) < sum(g.size for g in NET.groups() if g.name in keep)
    )


@settings(max_examples=10)
@given(st.lists(st.integers(0, 7), min_size=1, unique=True), st.permutations(range(12)))
def test_channels_are_taken_in_the_order_given(first: list[int], second: list[int]) -> None:
    params, norm_stats = compact(NET.groups(), {"b0": np.array(first), "b1": np.array(second)}, PARAMS, STATS)
    new, old = flatten(params) | flatten(norm_stats), flatten(PARAMS) | flatten(STATS)
    places = {path: (axis, index) for g, index in zip(NET.groups(), (first, second), strict=True)
              for path, axis in (*g.params, *g.norm_stats)}  # fmt: skip
    for path, leaf in old.items():
        expected = np.take(leaf, places[path][1], places[path][0]) if path in places else leaf
        np.testing.assert_array_equal(new[path], expected)


def test_closing_touches_the_gated_vectors_only() -> None:
    closed = flatten(close(NET.groups(), KEEP, PARAMS))
    gated = {path: g.name for g in NET.groups() for path in g.gated}
    assert set(gated) == {f"{b}/depthwise/norm/{v}" for b in ("b0", "b1") for v in ("scale", "bias")}
    for path, leaf in flatten(PARAMS).items():
        expected = np.asarray(leaf)
        if path in gated:
            expected = np.where(np.isin(np.arange(len(leaf)), KEEP[gated[path]]), expected, 0.0)
        np.testing.assert_array_equal(closed[path], expected)


def test_the_input_is_left_as_it_was() -> None:
    before = jax.tree.map(np.array, (PARAMS, STATS))
    close(NET.groups(), KEEP, PARAMS)
    compact(NET.groups(), KEEP, PARAMS, STATS)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, (PARAMS, STATS)))


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ({"b2": [0]}, "no channel group 'b2'; known: b0, b1"),
        ({"b0": []}, "group 'b0': keep distinct channels, at least one"),
        ({"b0": [0, 0]}, "group 'b0': keep distinct"),
        ({"b0": [0, 8]}, "each below 8"),
        ({"b0": [-1, 0]}, "group 'b0': keep distinct"),
        ({"b0": np.array([True] * 8)}, "group 'b0': keep distinct"),
    ],
)
def test_what_cannot_be_kept(keep: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        compact(NET.groups(), keep, PARAMS, STATS)
