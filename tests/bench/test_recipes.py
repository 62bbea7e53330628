"""Recipes: shapes follow from the first layer, weights from seed and name, and the file says what the recipe says."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.bench.recipes import Layer, Recipe, make, skeleton, two_of_four, without_2_4
from research.graph.read import read
from research.npu import bad_groups, read_network


def small(**fields: object) -> Recipe:
    middle = Layer("conv", "b", ("a",), width=24, kernel=3)
    return (
        Layer("input", "image", like=(8, 8, 3)),
        Layer("conv", "a", ("image",), width=16, stride=2, act="relu6"),
        dataclasses.replace(middle, **fields),
        Layer("depthwise", "c", ("b",), kernel=3),
        Layer("mean", "d", ("c",)),
        Layer("dense", "e", ("d",), width=5),
    )


def test_a_recipe_becomes_a_file_with_its_shapes_and_macs() -> None:
    made = make(small(), 0)
    network = read_network(made.model)
    assert network.names[-1] == "e"
    assert network.graph.shape("b") == (1, 4, 4, 24)
    assert (
        made.graph.total_macs == skeleton(small()).total_macs == 16 * (3 * 16 + 16 * 24 * 9 + 24 * 9) + 24 * 5
    )
    assert network.weights == 3 * 16 + 16 * 24 * 9 + 24 * 9 + 24 * 5


def test_an_edit_of_one_layer_leaves_the_weights_of_the_others() -> None:
    one, other = (read(make(small(**edit), 7).model).integers for edit in ({}, {"zeros": "half"}))
    for name in ("a", "c", "e"):
        np.testing.assert_array_equal(one[name].kernel, other[name].kernel)
    assert np.mean(np.asarray(other["b"].kernel) == 0) == pytest.approx(0.5, abs=0.05)
    assert not np.any(np.asarray(one["b"].kernel) == 0)


def test_the_int8_weights_have_the_spread_that_was_asked_for() -> None:
    kernel = np.asarray(read(make(small(width=96), 1, 20.0).model).integers["b"].kernel, float)
    inside = kernel.reshape(-1, 96)[1:]  # the first of each channel is the 127 that fixes its scale
    assert inside.std() == pytest.approx(20, rel=0.02)
    assert np.abs(kernel).max() == 127


def test_2_4_layers_hold_it_in_the_file_and_their_twins_do_not() -> None:
    recipe = small(zeros="2:4")
    sparse, dense = (read(make(r, 2).model).integers["b"].kernel for r in (recipe, without_2_4(recipe)))
    assert bad_groups(np.asarray(sparse))[0] == 0
    assert bad_groups(np.asarray(dense))[0] > 0


def test_precisions_meet_in_a_quantize() -> None:
    network = read_network(make(small(bits=16), 3).model)
    assert [n.op for n in network.graph.nodes].count("quantize") == 2
    assert float(network.table.bits[network.names.index("b")]) == 16


def test_shapes_that_do_not_fit_are_refused() -> None:
    branches = (
        Layer("input", "image", like=(8, 8, 3)),
        Layer("conv", "a", ("image",), width=16),
        Layer("conv", "b", ("image",), width=24),
        Layer("add", "c", ("a", "b")),
    )
    with pytest.raises(ValueError, match="shape"):
        skeleton(branches)
    with pytest.raises(ValueError, match="shape"):
        make(branches, 0)


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 99))
def test_two_of_four_keeps_the_two_largest_of_every_group(channels: int, out: int, seed: int) -> None:
    kernel = np.random.default_rng(seed).permutation(np.arange(1, 3 * 3 * channels * out + 1))
    kernel = kernel.reshape(3, 3, channels, out)
    found = two_of_four(kernel)
    for start in range(0, channels, 4):
        group, kept = kernel[:, :, start : start + 4], found[:, :, start : start + 4]
        assert np.all((kept == 0) | (kept == group))
        assert np.all((kept != 0).sum(2) == min(2, group.shape[2]))
        assert np.all(np.where(kept == 0, group, 0).max(2) <= np.where(kept == 0, 10**6, kept).min(2))
