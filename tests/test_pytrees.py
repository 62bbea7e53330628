"""Paths there and back, rules that may not be idle, exact straight-through values, counts."""

import fnmatch
import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.pytrees import (
    count,
    flatten,
    map_paths,
    match_rules,
    nearest,
    select,
    straight_through,
    unflatten,
)

KEYS = st.text(string.ascii_lowercase + "_-.0", min_size=1, max_size=3)
LEAVES = st.integers()
TREES = st.recursive(
    st.dictionaries(KEYS, LEAVES, min_size=1, max_size=3),
    lambda inner: st.dictionaries(KEYS, LEAVES | inner, min_size=1, max_size=3),
    max_leaves=8,
)
PATHS = ("b0/expand/kernel", "b0/expand/norm/scale", "b1/expand/kernel", "head/bias", "head/kernel")
FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@given(TREES)
def test_unflatten_is_the_inverse_of_flatten(tree: dict) -> None:
    flat = flatten(tree)
    assert unflatten(flat) == tree
    assert flatten(unflatten(dict(reversed(flat.items())))) == flat
    assert len(flat) == len(jax.tree.leaves(tree))
    assert flatten(tree, "a/") == {f"a/{path}": leaf for path, leaf in flat.items()}


@given(TREES)
def test_map_paths_sees_the_paths_of_flatten(tree: dict) -> None:
    assert map_paths(lambda path, leaf: (path, leaf), tree) == unflatten(
        {path: (path, leaf) for path, leaf in flatten(tree).items()}
    )


def test_empty_branches() -> None:
    tree = {"a": {}, "b": {"c": 1}}
    assert flatten(tree) == {"b/c": 1}
    assert map_paths(lambda path, leaf: leaf + 1, tree) == {"a": {}, "b": {"c": 2}}


@pytest.mark.parametrize("tree", [{"a/b": 1}, {"x": {"b0/expand": {"kernel": 1}}}])
def test_a_key_with_a_slash_raises(tree: dict) -> None:
    with pytest.raises(ValueError, match="holds a slash"):
        flatten(tree)


@given(st.lists(st.sampled_from(PATHS), unique=True), st.permutations(PATHS))
def test_select_returns_paths_in_their_own_order(patterns: list[str], paths: list[str]) -> None:
    assert select(patterns, iter(paths)) == tuple(p for p in paths if p in patterns)


def test_select_by_globs() -> None:
    assert select(("*/kernel",), PATHS) == ("b0/expand/kernel", "b1/expand/kernel", "head/kernel")
    assert select(("head/*", "b?/*/kernel", "*/kernel"), PATHS) == tuple(p for p in PATHS if "norm" not in p)
    assert select((), PATHS) == ()


def test_select_refuses_an_idle_pattern() -> None:
    with pytest.raises(ValueError, match=r"sparsity rule 'b0/expnd/kernel' .* mean 'b0/expand/kernel'\?"):
        select(("*", "b0/expnd/kernel"), PATHS, "sparsity rule")
    with pytest.raises(ValueError, match="rule 'HEAD/kernel' matches nothing"):
        select(("HEAD/kernel",), PATHS)
    with pytest.raises(ValueError, match="known: nothing"):
        select(("*",), ())


def test_the_first_rule_that_matches_decides() -> None:
    rules = (("head/*", 1), ("*/kernel", 2), ("*", 3))
    found = match_rules(rules, iter(PATHS))
    assert found == {p: next(value for glob, value in rules if fnmatch.fnmatch(p, glob)) for p in PATHS}
    assert list(found) == list(PATHS)
    assert set(found.values()) == {1, 2, 3}


def test_rules_that_decide_nothing_and_paths_without_a_rule() -> None:
    with pytest.raises(ValueError, match="rule 'head/kernl' decides nothing; did you mean 'head/kernel'"):
        match_rules((("head/kernl", 1), ("*", 2)), PATHS)
    with pytest.raises(ValueError, match=r"rule 'head/\*' decides nothing"):  # an earlier one took its paths
        match_rules((("*", 1), ("head/*", 2)), PATHS)
    with pytest.raises(ValueError, match="no rule covers 'head/bias'"):
        match_rules((("*/kernel", 1), ("*/norm/*", 2)), PATHS)


def test_nearest_guesses_or_lists() -> None:
    assert nearest("kernl", ["bias", "kernel"]) == "did you mean 'kernel'?"
    assert nearest("zzz", ["bias", "kernel"]) == "known: bias, kernel"
    assert nearest("zzz", []) == "known: nothing"
    assert nearest("zzz", map(str, range(30))).endswith("11, ...")


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=4, max_size=4))
def test_straight_through_is_hard_to_the_last_bit_with_the_soft_gradient(pairs: list) -> None:
    hard, soft = jnp.asarray(pairs, jnp.float32).T
    np.testing.assert_array_equal(straight_through(hard, soft), hard)
    weights = jnp.arange(4.0)
    pull = jax.jacrev(lambda h, s: weights * straight_through(h, jnp.sin(s)), (0, 1))
    into_hard, into_soft = pull(hard, soft)
    np.testing.assert_array_equal(into_hard, np.zeros((4, 4)))
    np.testing.assert_allclose(into_soft, np.diag(weights * jnp.cos(soft)), rtol=1e-6)


def test_count_of_arrays_and_of_shapes() -> None:
    tree = {"a": np.ones((3, 4)), "b": {"c": jnp.ones(()), "d": jax.ShapeDtypeStruct((2, 0), jnp.float32)}}
    assert count(tree) == 13
    assert count({"huge": jax.ShapeDtypeStruct((2**20, 2**20), jnp.float32)}) == 2**40
    assert count({}) == 0
