"""Domains: their ends, their middle, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.space import Choice, Float, Int, grid_of

SHARES = st.floats(0, 1, exclude_max=True)


@given(share=SHARES, low=st.floats(1e-6, 1), span=st.floats(1e-3, 1e3), log=st.booleans())
def test_floats_stay_in_their_range(share: float, low: float, span: float, log: bool) -> None:
    domain = Float(low, low + span, log)
    assert low <= domain.at(share) <= low + span
    assert domain.at(0) == pytest.approx(low)
    assert domain.at(0.25) < domain.at(0.75)


def test_the_middle_of_a_logarithmic_range_is_the_geometric_mean() -> None:
    assert Float(1e-4, 1e-2, log=True).at(0.5) == pytest.approx(1e-3)
    assert Float(1.0, 3.0).at(0.5) == pytest.approx(2.0)


@given(low=st.integers(-5, 5), span=st.integers(0, 6))
def test_integers_are_all_met_and_equally_often(low: int, span: int) -> None:
    domain = Int(low, low + span)
    count = span + 1
    met = [domain.at((i + 0.5) / (10 * count)) for i in range(10 * count)]
    assert {value: met.count(value) for value in met} == dict.fromkeys(range(low, low + count), 10)
    assert grid_of(domain) == tuple(range(low, low + count))


def test_choices_are_met_in_order() -> None:
    domain = Choice("a", 1, None, True)
    assert [domain.at(i / 4) for i in range(4)] == ["a", 1, None, True]
    assert grid_of(domain) == ("a", 1, None, True)


def test_what_is_no_domain_is_refused() -> None:
    for make, words in (
        (lambda: Float(1, 1), "low must be below high"),
        (lambda: Float(0, float("inf")), "both finite"),
        (lambda: Float(0, 1, log=True), "must lie above 0"),
        (lambda: Int(2, 1), "low must not be above high"),
        (Choice, "values that differ"),
        (lambda: Choice(1, 1), "values that differ"),
        (lambda: Choice([1]), r"among numbers, texts, booleans and None, got \[1\]"),
        (lambda: grid_of(Float(0, 1)), "a grid cannot list"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
