"""Statistics of agreement, by hand and against their definitions; baselines never see what they are judged on."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.bench import agreement
from research.bench.recipes import Layer, skeleton
from research.npu import layer_table

PAIRS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=12)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = np.array(pairs, float).T
    return predicted, true


def test_mape_by_hand() -> None:
    assert agreement.mape_percent(np.array([110.0, 80.0]), np.array([100.0, 100.0])) == pytest.approx(15.0)


@given(PAIRS)
def test_kendall_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    """tau-b: (alike - otherwise) / sqrt((all - ties in one) * (all - ties in the other))."""
    predicted, true = columns(pairs)
    alike = first = second = 0.0
    for i, j in itertools.combinations(range(len(true)), 2):
        a, b = np.sign(predicted[i] - predicted[j]), np.sign(true[i] - true[j])
        alike, first, second = alike + a * b, first + abs(a), second + abs(b)
    wanted = alike / np.sqrt(first * second) if first * second else 0.0
    assert agreement.kendall_tau(predicted, true) == pytest.approx(wanted, abs=1e-12)


@given(PAIRS)
def test_spearman_is_the_correlation_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    predicted, true = columns(pairs)
    ranks = [(c[:, None] > c).sum(1) + ((c[:, None] == c).sum(1) + 1) / 2 for c in (predicted, true)]
    wanted = 0.0 if min(np.ptp(r) for r in ranks) == 0 else np.corrcoef(*ranks)[0, 1]
    assert agreement.spearman(predicted, true) == pytest.approx(wanted, abs=1e-9)


def test_signs_of_small_changes_are_not_counted() -> None:
    true, least = np.array([5.0, -5.0, 0.1, 4.0]), np.array([1.0, 1.0, 1.0, 1.0])
    assert agreement.sign_share(np.array([1.0, 2.0, -9.0, 3.0]), true, least) == pytest.approx(2 / 3)
    assert agreement.sign_share(np.array([1.0]), np.array([0.0]), 1.0) == 1.0
    assert agreement.sign_share(np.array([0.0]), np.array([2.0]), 1.0) == 0.0  # "no change" is a wrong sign


def test_the_interval_covers_the_mean_of_repeated_samples() -> None:
    """Of 60 samples with 10 % error on average, the 95 % interval holds the 10 in at least 48."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(60):
        predicted = 100 + rng.uniform(0, 20, 80)
        low, high = agreement.interval(agreement.mape_percent, predicted, np.full(80, 100.0))
        held += low <= 10 <= high
    assert held >= 48


def test_features_of_a_small_network() -> None:
    recipe = (
        Layer("input", "image", like=(8, 8, 4)),
        Layer("conv", "a", ("image",), width=16),
        Layer("depthwise", "b", ("a",), kernel=3),
        Layer("add", "c", ("a", "b")),
    )
    rows = agreement.features(layer_table(skeleton(recipe)))
    np.testing.assert_array_equal(rows, [64 * 64, 9 * 16 * 64, 64 + 9 * 16, 2 * 1024, 1024])


def test_baselines_predict_networks_they_were_not_fitted_on() -> None:
    """What is linear is found exactly, and another truth of one network changes no prediction of that network."""
    rng = np.random.default_rng(1)
    rows = rng.uniform(1, 10, (40, 5)) * [100, 10, 5, 3, 1]
    true = rows @ [1.0, 2.0, 3.0, 4.0, 5.0] + 7
    np.testing.assert_allclose(agreement.regression(rows, true), true, rtol=1e-8)
    for baseline in (agreement.regression, agreement.macs_only):
        other = true.copy()
        other[3] *= 10
        before, after = baseline(rows, true), baseline(rows, other)
        assert before[3] == after[3]
        assert not np.array_equal(before, after)
    macs = rows[:, 0] + rows[:, 1]
    np.testing.assert_allclose(agreement.macs_only(rows, 3 * macs), 3 * macs)
